"""Samples with their times, as OpenMetrics that ``promtool tsdb create-blocks-from`` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["Samples", "Target", "series"]


def series(name: str, labels: Mapping[str, str]) -> bytes:
    """Give a series as it is written: name, and labels in order, escaped."""
    inner = ",".join(f'{label}="{_escape(labels[label])}"' for label in sorted(labels))
    return f"{name}{{{inner}}}".encode()


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class Samples:
    """Samples by series, each series' in the order of time in which they are added."""

    def __init__(self) -> None:
        self._by_series: dict[bytes, list[bytes]] = {}

    def add(self, name: bytes, value: float | bytes, at: int) -> None:
        """Add a sample of a series at Unix time ``at`` (whole seconds)."""
        text = value if isinstance(value, bytes) else repr(float(value)).encode()
        self._by_series.setdefault(name, []).append(b"%b %d\n" % (text, at))

    def add_page(self, page: bytes, at: int, target: Target) -> int:
        """Add all samples of what a scrape of the target got; give their number."""
        lines = [line for line in page.splitlines() if line and not line.startswith(b"#")]
        for line in lines:
            name, _, value = line.rpartition(b" ")
            self.add(target.label(name), value, at)
        return len(lines)

    def write(self, path: Path) -> None:
        """Write all of them: families are not interleaved, as the format demands."""
        with path.open("wb") as file:
            for name in sorted(self._by_series, key=_family):
                file.writelines(b"%b %b" % (name, sample) for sample in self._by_series[name])
            file.write(b"# EOF\n")

    def items(self) -> Iterator[tuple[bytes, dict[int, bytes]]]:
        """Give each series with its values by time."""
        for name, samples in self._by_series.items():
            yield name, {int(at): value for value, at in (sample.split() for sample in samples)}

    def __len__(self) -> int:
        return len(self._by_series)


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


def _family(name: bytes) -> tuple[bytes, bytes]:
    metric, _, labels = name.partition(b"{")
    return metric, labels
