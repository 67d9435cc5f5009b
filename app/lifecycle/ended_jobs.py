"""Choose the ended jobs to poll. Users may requeue their jobs as long as slurmctld remembers them."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from app.models.record import OpenJob
from app.store.records import RecordStore

# Slurm lets a requeued job wait for 121 s (22.05, 24.11, 26.05), unless its user lets it start at once.
POLL_INTERVAL = timedelta(seconds=10)
MAX_AGE = timedelta(days=1)
_MAX_LOADED = 20_000
_OVERLAP = timedelta(minutes=1)  # a former leader may record an end a little late


class EndedJobs:
    """The ended jobs, which are polled at a low rate. Not thread-safe: only the poller uses the object."""

    def __init__(self, store: RecordStore, interval: timedelta = POLL_INTERVAL) -> None:
        """Begin without jobs; the first poll loads them. `interval`: the time between two polls."""
        self._store = store
        self._interval = interval
        self._jobs: dict[str, OpenJob] = {}
        self._loaded_at: datetime | None = None

    def list_due(self, now: datetime) -> list[OpenJob]:
        """Return the ended jobs to poll now: all of them, or none if the interval has not passed."""
        if self._loaded_at is not None and self._loaded_at <= now < self._loaded_at + self._interval:
            return []
        since = now - MAX_AGE
        loaded_from = max(self._loaded_at - _OVERLAP, since) if self._loaded_at else since
        self._jobs |= {job.uuid: job for job in self._store.list_ended_jobs(loaded_from, _MAX_LOADED)}
        self._loaded_at = now
        return list(self._jobs.values())

    def forget(self, uuids: Iterable[str]) -> None:
        """Stop polling jobs that are active again, or that slurmctld has forgotten."""
        for uuid in list(uuids):
            self._jobs.pop(uuid, None)


def list_array_ids(jobs: Iterable[OpenJob]) -> Collection[int]:
    """Return the job ids of the arrays among the ended jobs."""
    return {job.slurm_job_id for job in jobs if job.is_array}
