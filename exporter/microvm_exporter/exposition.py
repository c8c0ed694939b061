"""Render a snapshot as Prometheus text and as OpenMetrics, once, for every scrape to come."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector as FamilySource

from microvm_exporter.drift import Judgement
from microvm_exporter.metrics import METRICS, Metric, MetricType

__all__ = ["render"]

_PROCESS = ProcessCollector(registry=None)


def render(judgement: Judgement) -> tuple[bytes, bytes]:
    """Give the text format and the OpenMetrics format of the same samples."""
    source = _Ready([*_families(judgement), *_PROCESS.collect()])
    return generate_latest(source), generate_openmetrics(source)  # type: ignore[no-untyped-call]


class _Ready(FamilySource):
    """Families that are there already, in the form that the library renders."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> list[Family]:
        return self._families


def _families(judgement: Judgement) -> Iterator[Family]:
    for metric in METRICS:
        samples = metric.samples(judgement)
        if samples is None:
            continue
        family = _family(metric)
        for labels, value in samples:
            # add_metric drops labels silently when the counts differ.
            if len(labels) != len(metric.labels):
                raise ValueError(f"{metric.name} takes labels {metric.labels}, got {labels}")
            family.add_metric([_utf8(label) for label in labels], float(value))
        yield family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    match metric.type:
        case MetricType.COUNTER:
            return CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
        case MetricType.GAUGE:
            return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def _utf8(label: str) -> str:
    """Label values are UTF-8 in both formats; a path may hold a lone surrogate."""
    return label if label.isascii() else label.encode(errors="backslashreplace").decode()
