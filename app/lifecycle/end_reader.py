"""Read the ends of jobs from slurmdbd: their accounting, and jobs that slurmctld has forgotten."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum, auto

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.job_accounting import find_earliest_submissions, is_same_run, merge_accounting
from app.lifecycle.record_changes import Observation
from app.models.job import SlurmJob
from app.models.record import OpenJob
from app.outages import RepeatFilter
from app.slurm.client import SlurmClient

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

# slurmdbd is told about an end a little after slurmctld knows it.
_ACCOUNTING_DELAY = timedelta(seconds=10)


class _NoAccounting(Enum):
    """Reason why there is no accounting of jobs that have ended."""

    NOT_SET_UP = auto()  # the cluster has no slurmdbd
    NO_ANSWER = auto()  # slurmdbd does not answer now


class EndReader:
    """Reader of the ends of jobs, which remembers since when each end waits for slurmdbd. Not thread-safe."""

    def __init__(self, slurm: SlurmClient, unknown_after: timedelta) -> None:
        """Make a reader.

        Args:
            slurm: The client of the leading process.
            unknown_after: How long a job may be missing in Slurm before its record ends as UNKNOWN.
        """
        self._slurm = slurm
        self._unknown_after = unknown_after
        self._missing_since: dict[str, datetime] = {}
        self._ended_since: dict[str, datetime] = {}

    def add_accounting(self, changed: list[Observation], now: datetime) -> list[Observation]:
        """Add the accounting to the jobs that have just ended.

        A job that slurmdbd does not have yet is left for a later cycle, for a short while. An array waits as
        long as a job that slurmctld has forgotten, because only slurmdbd knows all its tasks.
        """
        ended = [item for item in changed if item.job.job_state.is_final]
        self._ended_since = {
            item.open_job.uuid: self._ended_since.get(item.open_job.uuid, now) for item in ended
        }
        accounting = self._read_accounting([item.open_job for item in ended])
        if accounting is _NoAccounting.NOT_SET_UP:
            return changed
        if accounting is _NoAccounting.NO_ANSWER:  # slurmctld may have forgotten tasks of an array
            self._ended_since = dict.fromkeys(self._ended_since, now)
            return [item for item in changed if not item.job.job_state.is_final or not item.job.array_tasks]
        return [
            ready
            for item in changed
            if (ready := self._complete(item, accounting.get(item.job.job_id), now)) is not None
        ]

    def find_ends(
        self, missing: list[OpenJob], reported: Mapping[int, SlurmJob | None], now: datetime
    ) -> Iterator[Observation]:
        """Yield jobs that slurmctld has forgotten, with their end from slurmdbd, or UNKNOWN after a while."""
        uuids = {record.uuid for record in missing}
        self._missing_since = {uuid: at for uuid, at in self._missing_since.items() if uuid in uuids}
        accounting = self._read_accounting(missing)
        if accounting is _NoAccounting.NO_ANSWER:
            return
        accounted = {} if accounting is _NoAccounting.NOT_SET_UP else accounting
        for record in missing:
            job = accounted.get(record.slurm_job_id)
            # A newer job with the same id; slurmdbd may describe that one.
            other = reported.get(record.slurm_job_id)
            is_other = job is not None and other is not None and job.submit_time == other.submit_time
            if job is not None and job.job_state.is_final and not is_other and is_same_run(record, job):
                yield Observation(record, job)
            elif now - self._missing_since.setdefault(record.uuid, now) >= self._unknown_after:
                yield Observation(record, _unknown_job(record))

    def _complete(self, item: Observation, accounted: SlurmJob | None, now: datetime) -> Observation | None:
        """Return the observation with its accounting; None if it must wait for slurmdbd."""
        record, job = item
        delay = self._unknown_after if job.array_tasks else _ACCOUNTING_DELAY
        is_late = record.uuid not in self._ended_since or now - self._ended_since[record.uuid] >= delay
        is_usable = (
            accounted is not None
            and is_same_run(record, accounted)
            and accounted.job_state.is_final
            and accounted.array_task_count >= job.array_task_count
        )
        if accounted is not None and is_usable:
            return Observation(record, merge_accounting(job, accounted))
        return item if is_late else None

    def _read_accounting(self, records: Sequence[OpenJob]) -> Mapping[int, SlurmJob] | _NoAccounting:
        """Return the accounting of these jobs, by job id, or the reason for its absence."""
        if not records:
            return _NoAccounting.NOT_SET_UP
        try:
            earliest = find_earliest_submissions(records)
            accounted = self._slurm.read_accounting(earliest.keys(), not_before=earliest)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning(
                "%d jobs have ended or left slurmctld, without accounting: %s", len(records), error
            )
            return _NoAccounting.NO_ANSWER
        return _NoAccounting.NOT_SET_UP if accounted is None else accounted


def _unknown_job(record: OpenJob) -> SlurmJob:
    return SlurmJob(job_id=record.slurm_job_id, username=record.slurm_username, job_state=JobState.UNKNOWN)
