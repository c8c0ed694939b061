"""Render what is known as Prometheus text and as OpenMetrics, once for every scrape to come.

The library renders each sample once: its line is good for as long as the sample is there. So a look
costs what changed since the one before.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import islice
from typing import Final, Generic, TypeVar

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector as FamilySource

from microvm_exporter.activity import DELAY_BOUNDS, Delays
from microvm_exporter.drift import Finding
from microvm_exporter.drift.host import Host
from microvm_exporter.metrics import METRICS, Metric, MetricType
from microvm_exporter.samples import PerVm, Sample, View

__all__ = ["Renderer", "make_family"]

_EOF: Final = b"# EOF\n"

_LEFT_OUT: Final = frozenset({"process_virtual_memory_bytes", "process_max_fds"})
"""What tells least of the process: each is one of the 80 series that a host may have."""

T = TypeVar("T")


class Renderer:
    """Renders look after look. For one thread at a time."""

    def __init__(self) -> None:
        self._parts = [_Part(metric) for metric in METRICS]
        self._process = ProcessCollector(registry=None)

    def render(self, view: View) -> tuple[bytes, bytes]:
        """Give the text format and the OpenMetrics format of the same samples."""
        text: list[bytes] = []
        openmetrics: list[bytes] = []
        for part in self._parts:
            lines = part.render(view)
            if lines is not None:
                text += (part.text_head, lines)
                openmetrics += (part.openmetrics_head, lines)
        process = _Ready(f for f in self._process.collect() if f.name not in _LEFT_OUT)
        text.append(generate_latest(process))
        openmetrics.append(_generate_openmetrics(process))
        return b"".join(text), b"".join(openmetrics)


class _Part:
    """A metric's part of a page. The formats differ in its head, not in its samples' lines."""

    def __init__(self, metric: Metric) -> None:
        head = _Ready([make_family(metric, ())])
        self.text_head = generate_latest(head)
        self.openmetrics_head = _generate_openmetrics(head).removesuffix(_EOF)
        self._of_host = metric.of_host
        self._join = _joiner(metric)
        self._seen: tuple[Host, tuple[Finding, ...]] | None = None
        self._lines: bytes | None = None

    def render(self, view: View) -> bytes | None:
        """Give the lines of the samples, None when the metric is absent."""
        host, findings = view.judgement.host, view.judgement.findings
        seen = self._seen
        if not (self._of_host and seen and seen[0] is host and seen[1] is findings):
            self._lines = self._join(view)
            self._seen = host, findings
        return self._lines


def _joiner(metric: Metric) -> Callable[[View], bytes | None]:
    match metric.samples:
        case PerVm() as per_vm:
            return _Lines(metric, per_vm.vms, key=id, sample=per_vm.sample).join
        case samples:
            return _Lines(metric, samples, key=_itself, sample=_itself).join


class _Lines(Generic[T]):
    """The lines of a metric's items: drawn when one is new, and forgotten when it is gone."""

    def __init__(
        self,
        metric: Metric,
        find: Callable[[View], Iterable[T] | None],
        *,
        key: Callable[[T], Hashable],
        sample: Callable[[T], Sample | None],
    ) -> None:
        self._metric = metric
        self._find = find
        self._key = key
        self._sample = sample
        # Kept as long as their lines: an id is another's once its object is gone.
        self._items: list[T] = []
        self._lines: Mapping[Hashable, bytes] = {}

    def join(self, view: View) -> bytes | None:
        """Give the lines of all items there are, None when that cannot be told."""
        found = self._find(view)
        if found is None:
            return None
        items = list(found)
        keys = list(map(self._key, items))
        new = {k: item for k, item in zip(keys, items, strict=True) if k not in self._lines}
        known = {**self._lines, **self._draw(new)} if new else self._lines
        self._items, self._lines = items, {k: known[k] for k in keys}
        return b"".join(self._lines.values())

    def _draw(self, items: Mapping[Hashable, T]) -> Mapping[Hashable, bytes]:
        """Have the library draw the samples, all in one go, and split by sample what it gives."""
        samples = {key: self._sample(item) for key, item in items.items()}
        there = [sample for sample in samples.values() if sample is not None]
        page = generate_latest(_Ready([make_family(self._metric, there)]))
        # Not splitlines: a label may hold what that takes for the end of a line. The first two
        # are the metric's head, and a histogram's sample has several.
        lines = io.BytesIO(page).readlines()[2:]
        size = len(lines) // max(len(there), 1)
        rest = iter(lines)
        return {
            key: b"" if sample is None else b"".join(islice(rest, size))
            for key, sample in samples.items()
        }


def _itself(sample: Sample) -> Sample:
    return sample


# ------------------------------------------------------------------------- the library's families


class _Ready(FamilySource):
    """Families that are there already, in the form that the library renders."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> list[Family]:
        return self._families


def _generate_openmetrics(source: FamilySource) -> bytes:
    page: bytes = generate_openmetrics(source)  # type: ignore[no-untyped-call]
    return page


def make_family(metric: Metric, samples: Iterable[Sample]) -> Family:
    """Put samples into the form that the library renders."""
    family = _empty_family(metric)
    for labels, value in samples:
        # add_metric drops labels silently when the counts differ.
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} takes labels {metric.labels}, got {labels}")
        texts = [_utf8(label) for label in labels]
        if isinstance(family, HistogramMetricFamily):
            assert isinstance(value, Delays)
            family.add_metric(texts, _buckets(value), value.total)
        else:
            assert not isinstance(value, Delays)
            family.add_metric(texts, float(value))
    return family


def _empty_family(
    metric: Metric,
) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    match metric.type:
        case MetricType.COUNTER:
            return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        case MetricType.GAUGE:
            return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        case MetricType.HISTOGRAM:
            return HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)


def _buckets(delays: Delays) -> list[tuple[str, float]]:
    bounds = [*map(str, DELAY_BOUNDS), "+Inf"]
    return list(zip(bounds, (*delays.within, delays.count), strict=True))


def _utf8(label: str) -> str:
    """Label values are UTF-8 in both formats; a path may hold a lone surrogate."""
    return label if label.isascii() else label.encode(errors="backslashreplace").decode()
