"""Samples with their times, as OpenMetrics that ``promtool tsdb create-blocks-from`` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

__all__ = ["Samples", "Target", "series"]

_PART: Final = 7200
"""Seconds of a block: promtool reads all of a file once for each block that it makes of it."""


def series(name: str, labels: Mapping[str, str]) -> bytes:
    """Give a series as it is written: name, and labels in order, escaped."""
    inner = ",".join(f'{label}="{_escape(labels[label])}"' for label in sorted(labels))
    return f"{name}{{{inner}}}".encode()


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Samples:
    """Samples by series, each series' in the order of time in which they are added."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[bytes, list[bytes]]] = {}

    def add(self, name: bytes, value: float | bytes, at: int) -> None:
        """Add a sample of a series at Unix time ``at`` (whole seconds)."""
        text = value if isinstance(value, bytes) else repr(float(value)).encode()
        part = self._parts.setdefault(at // _PART, {})
        part.setdefault(name, []).append(b"%b %d\n" % (text, at))

    def add_page(self, page: bytes, at: int, target: Target) -> int:
        """Add all samples of what a scrape of the target got; give their number."""
        lines = [line for line in page.splitlines() if line and not line.startswith(b"#")]
        for line in lines:
            name, _, value = line.rpartition(b" ")
            self.add(target.label(name), value, at)
        return len(lines)

    def items(self) -> Iterator[tuple[bytes, dict[int, bytes]]]:
        """Give each series with its values by time."""
        values: dict[bytes, dict[int, bytes]] = {}
        for part in self._parts.values():
            for name, samples in part.items():
                told = (sample.split() for sample in samples)
                values.setdefault(name, {}).update((int(at), value) for value, at in told)
        return iter(values.items())

    def parts(self) -> Iterator[Iterator[bytes]]:
        """Give what each part of the time has, as text of which no two families are mixed."""
        for part in self._parts.values():
            yield chain(_lines(part), [b"# EOF\n"])


class Target:
    """What Prometheus puts on every series of a target: ``job`` and ``instance``."""

    def __init__(self, job: str, instance: str) -> None:
        self.labels = {"job": job, "instance": instance}
        self._own = series("", self.labels)[1:]
        self._known: dict[bytes, bytes] = {}

    def label(self, name: bytes) -> bytes:
        """Put the target's labels into a series of its page."""
        known = self._known.get(name)
        if known is None:
            metric, brace, labels = name.partition(b"{")
            known = metric + b"{" + (labels[:-1] + b"," if brace else b"") + self._own
            self._known[name] = known
        return known

    def series(self, name: str, **labels: str) -> bytes:
        """Give a series of the target that is not of its page."""
        return series(name, {**self.labels, **labels})


def _lines(part: Mapping[bytes, list[bytes]]) -> Iterator[bytes]:
    for name in sorted(part, key=_family):
        yield from (b"%b %b" % (name, sample) for sample in part[name])


def _family(name: bytes) -> tuple[bytes, bytes]:
    metric, _, labels = name.partition(b"{")
    return metric, labels
