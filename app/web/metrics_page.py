"""Write metrics in the text format of Prometheus.

The families are built anew for each scrape, in a registry of their own: the library's global registry and its
files for several processes depend on what happens at its import.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from app.lifecycle.collect_metrics import CollectedMetrics
from app.metrics import PROCESS_METRICS, STORE_METRICS, Kind, Labels, Metric, Snapshot

CONTENT_TYPE = CONTENT_TYPE_LATEST


def write_metrics_page(collected: CollectedMetrics) -> bytes:
    """Return the page; the metrics of one process carry the label `process`."""
    registry = CollectorRegistry()
    registry.register(_Collector(collected))
    return generate_latest(registry)


class _Collector(Collector):
    """The families of one scrape."""

    def __init__(self, collected: CollectedMetrics) -> None:
        self._collected = collected

    def collect(self) -> Iterator[Family]:
        """Yield the families that have a value."""
        service = defaultdict(list)
        for metric, labels, value in self._collected.service:
            service[metric].append((labels, value))
        for metric in STORE_METRICS:
            yield _build_family(metric, metric.labels, service[metric])
        for metric in PROCESS_METRICS:
            values = _read_processes(metric, self._collected.processes)
            yield _build_family(metric, ("process", *metric.labels), values)


def _read_processes(metric: Metric, processes: Mapping[str, Snapshot]) -> Iterator[tuple[Labels, Any]]:
    for process, snapshot in processes.items():
        for labels, value in snapshot.get(metric.name, ()):
            yield (process, *labels), value


def _build_family(metric: Metric, labels: Labels, values: Iterable[tuple[Labels, Any]]) -> Family:
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
        limits = [*(str(float(limit)) for limit in metric.buckets), "+Inf"]
        for own, (*counts, total) in values:
            if len(counts) == len(limits):  # else the report is of another release, with other buckets
                histogram.add_metric(own, [*zip(limits, accumulate(counts), strict=True)], total)
        return histogram
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=labels)
    for own, value in values:
        family.add_metric(own, value)
    return family
