"""Describe the cluster's partitions: `GET /cluster`.

One process asks Slurm once a minute, and keeps the report in the store for the others.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

from app.errors import SlurmMisbehaved, SlurmUnavailable, StoreUnavailable
from app.lifecycle.report_health import WRITE_SECONDS
from app.models.cluster_answers import Cluster, Partition
from app.slurm.client import SlurmClient
from app.store.health import HealthStore, ProcessReport

logger = logging.getLogger(__name__)

_FRESH = timedelta(minutes=1)
_KEPT = timedelta(days=1)
_RETRY_SECONDS = 10.0  # after Slurm did not answer
_NAME = "cluster"  # of the report in the store, which is for all hosts
_ALL_HOSTS = "*"


class ClusterDescription:
    """The use case of `GET /cluster`. Thread-safe; all callers of a moment share one request."""

    def __init__(
        self, store: HealthStore, slurm: SlurmClient, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the use case; `clock`: seconds of a monotonic clock."""
        self._store = store
        self._slurm = slurm
        self._clock = clock
        self._asking = threading.Lock()
        self._last: ProcessReport | None = None
        self._retry_at = float("-inf")
        self._failure: SlurmUnavailable | SlurmMisbehaved | None = None

    def describe(self) -> Cluster:
        """Return the partitions; while Slurm does not answer, the last known ones.

        Raises:
            SlurmUnavailable: Slurm does not answer, and has not reported its partitions for a day.
            SlurmMisbehaved: Slurm's answer cannot be used, and there is no other.
            StoreUnavailable: The store's time was never read.
        """
        with self._asking:
            known = self._find_known()
            if known is None or self._store.now() - known.at >= _FRESH:
                known = self._ask() or known
            if known is None:
                raise self._failure or SlurmUnavailable("Slurm has not reported its partitions")
            self._last = known
            return self._describe(known)

    def _find_known(self) -> ProcessReport | None:
        """Return the last report of Slurm to any process."""
        if self._last is not None and self._store.now() - self._last.at < _FRESH:
            return self._last
        found = [self._last] if self._last else []
        try:
            found += self._store.list_reports(_ALL_HOSTS, self._store.now() - _KEPT)
        except StoreUnavailable as error:
            logger.debug("the partitions in the store cannot be read: %s", error)
        return max((item for item in found if item.name == _NAME), key=lambda item: item.at, default=None)

    def _ask(self) -> ProcessReport | None:
        """Return a new report of Slurm; None if Slurm does not answer."""
        if self._clock() < self._retry_at:
            return None
        try:
            partitions = self._slurm.read_partitions()
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            self._failure, self._retry_at = error, self._clock() + _RETRY_SECONDS
            return None
        self._failure = None
        figures = {"partitions": [partition.model_dump(mode="json") for partition in partitions]}
        report = ProcessReport(_NAME, _ALL_HOSTS, self._store.now(), figures)
        try:
            self._store.write_report(report, WRITE_SECONDS)
        except StoreUnavailable as error:
            logger.debug("the partitions cannot be shared: %s", error)
        return report

    def _describe(self, known: ProcessReport) -> Cluster:
        is_fresh = self._store.now() - known.at < _FRESH
        error = self._slurm.outage
        if error is None and self._failure is not None and not is_fresh:
            error = self._failure.for_callers
        return Cluster(
            slurm_answers=error is None,
            as_of=known.at,
            stale=error is not None,
            error=error,
            partitions=[*_read_partitions(known)],
        )


def _read_partitions(report: ProcessReport) -> Iterator[Partition]:
    for partition in report.figures["partitions"]:
        yield Partition.model_validate(partition)
