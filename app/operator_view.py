"""Build the use cases for operators who watch the service: readiness, metrics and partitions."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from app.access.recent_operators import RecentOperators
from app.constants import Settings
from app.lifecycle.check_readiness import ReadinessCheck
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.collect_metrics import MetricsCollection
from app.lifecycle.describe_cluster import ClusterDescription
from app.lifecycle.judge_health import HealthLimits
from app.lifecycle.report_health import HealthReporter
from app.metrics import SLURM_CIRCUIT_OPEN, START_TIME, Metrics
from app.slurm.client import SlurmClient
from app.store import TaskStore

_RECONCILING_TIME = timedelta(minutes=1)  # within which a reservation is settled once that is possible


@dataclass(frozen=True, slots=True)
class OperatorView:
    """The use cases for operators who watch the service, and the metrics of this process."""

    metrics: Metrics
    readiness: ReadinessCheck
    metrics_collection: MetricsCollection
    cluster_description: ClusterDescription
    recent_operators: RecentOperators


def build_operator_view(
    settings: Settings,
    store: TaskStore,
    reporter: HealthReporter,
    clients: Mapping[str, SlurmClient],
    clocks: ClockGuard,
    submission_life: timedelta,
) -> OperatorView:
    """Build the view of one process.

    Args:
        settings: The settings.
        store: The store.
        reporter: Writes the report of the process.
        clients: The clients of Slurm, by their names in metrics.
        clocks: Compares the clocks of this host, of the store and of Slurm.
        submission_life: How long a submission may be under way.
    """
    metrics = reporter.metrics
    metrics.add_gauge(START_TIME, partial(float, time.time()))
    for name, client in clients.items():
        metrics.add_gauge(SLURM_CIRCUIT_OPEN, partial(_read_circuit, client), name)
    skew = timedelta(seconds=settings.SLURM_CLOCK_SKEW_SECONDS)
    limits = HealthLimits(
        interval=settings.MONITOR_POLLING_SECONDS,
        lease=settings.MONITOR_LEASE_SECONDS,
        reservation=submission_life + skew + _RECONCILING_TIME,
    )
    readiness = ReadinessCheck(store, reporter, [*clients.values()], clocks, limits)
    collection = MetricsCollection(store, reporter, readiness)
    cluster = ClusterDescription(store, clients["callers"])
    return OperatorView(metrics, readiness, collection, cluster, RecentOperators())


def _read_circuit(client: SlurmClient) -> float:
    return float(client.outage is not None)
