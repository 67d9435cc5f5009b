"""Reconcile the reservations whose outcome is unknown, because of a crash or of an ambiguous answer of Slurm.

One search in Slurm looks for the jobs of all such reservations. Each one is settled by the first rule that
fits:

1. A job has the task's tag in its comment: the record gets this job (adopted).
2. The submission may still be under way, or jobs of its time are still to be read: the reservation waits.
3. A job of no record in slurmctld may be the task's, but its comment has no tag: UNKNOWN; the uuid stays
   taken.
4. slurmdbd is up to date, and knows no such job: no job; the uuid is free again.
5. slurmdbd is up to date, and knows one such job, of the same name: the record gets this job, unless the job
   may be another reservation's as well.
6. slurmdbd is up to date, and knows other such jobs: UNKNOWN; the uuid stays taken.
7. The cluster has no slurmdbd: no job, as long as slurmctld would still show an ended one; later UNKNOWN.
8. slurmdbd does not answer, or lags behind: the reservation waits.

A submission is under way until its token has expired by Slurm's own clock: for `submission_life`. The
reconciler waits SLURM_CLOCK_SKEW_SECONDS longer. After that, no request can become a job, and a job that
Slurm does not show will never exist.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from app.job_state import JobState
from app.lifecycle.job_identity import find_tagged, make_tag
from app.lifecycle.record_changes import plan_or_nothing
from app.lifecycle.untagged_jobs import has_name_of, may_be_job_of
from app.messages.plan import Planner
from app.models.job import SlurmJob
from app.models.record import Change, TaskRecord
from app.slurm.accounting import AccountingState
from app.slurm.client import SlurmClient
from app.slurm.job_search import Search
from app.store.clock import CLOCK_TOLERANCE
from app.store.records import RecordStore

logger = logging.getLogger(__name__)

_SEARCH_INTERVAL = timedelta(seconds=15)
_SHORT_SEARCH_SECONDS = 1.0
_PAUSE_FACTOR = 9  # after a longer search, Slurm is asked for a tenth of the time
_MAX_PAUSE = timedelta(minutes=1)
_FREED = "this submission made no job: it did not reach Slurm, or was refused; the uuid may be used again"
_WITHOUT_COMMENT = "a job that may be it has another comment than this service gave it"
_OUTCOME_UNKNOWN = "it is unknown whether Slurm accepted this submission: "


class Reconciler:
    """The settling of open reservations by the leading process. Not thread-safe: for one thread."""

    def __init__(
        self,
        store: RecordStore,
        slurm: SlurmClient,
        planner: Planner,
        *,
        submission_life: timedelta,
        skew: timedelta,
        min_job_age: timedelta,
        pause: timedelta = _SEARCH_INTERVAL,
    ) -> None:
        """Create a reconciler.

        Args:
            store: The records.
            slurm: The client of the leading process.
            planner: Plans the notifications that become due.
            submission_life: How long after a reservation its request may still become a job.
            skew: How far the store's clock and Slurm's may differ.
            min_job_age: How long slurmctld shows a job that has ended.
            pause: The time between two searches.
        """
        self._store = store
        self._slurm = slurm
        self._planner = planner
        self._submission_life = submission_life
        self._skew = skew
        self._min_job_age = min_job_age
        self._request_duration = timedelta(seconds=slurm.max_call_seconds)
        self._pause = pause
        self._searched_at: datetime | None = None
        self._search_seconds = 0.0  # that the last search took

    def reconcile(self, now: datetime, fence: int) -> None:
        """Search Slurm once for the jobs of all open reservations, and settle these by the rules above.

        Slurm's clock is read before its jobs, because it decides whether a submission is still under way.

        Args:
            now: The store's time.
            fence: The fencing token of the lease.

        Raises:
            StoreUnavailable: The store does not answer.
            SlurmUnavailable: Slurm does not answer; nothing was settled.
            SlurmMisbehaved: An answer of slurmrestd cannot be used; nothing was settled.
        """
        searched_at = self._searched_at
        if searched_at is not None and searched_at <= now < searched_at + self._next_pause():
            return
        reserved = self._store.list_reservations(now - self._request_duration, now + CLOCK_TOLERANCE)
        if not reserved:
            return
        self._searched_at = now
        slurm_now = self._slurm.read_controller_time()
        users = {record.slurm_username for record in reserved}
        tags = [make_tag(record.uuid) for record in reserved]
        since = min(slurm_now, *(record.created_at for record in reserved))
        ends = [end for record in reserved if (end := self._expiry(record)) <= slurm_now]
        began = time.monotonic()
        seen = self._slurm.search(users, since, tags, until=max(ends, default=None))
        self._search_seconds = time.monotonic() - began
        jobs = seen.jobs()
        untagged = [record for record in reserved if not self._adopt(record, find_tagged(record, jobs), now)]
        likely = {record.uuid: self._find_likely_jobs(record, seen) for record in untagged}
        rivals = [job for jobs in likely.values() for job in jobs]
        for record in untagged:
            if slurm_now < self._expiry(record):
                continue
            if not seen.is_complete_until(self._expiry(record)):  # its job may be still to be read
                continue
            if any(self._may_be_job_of(record, job) and not self._is_owned(job) for job in seen.untagged):
                self._give_up(record, _WITHOUT_COMMENT, now, fence)
            elif seen.accounting is AccountingState.CURRENT:
                self._settle_by_accounting(record, likely[record.uuid], rivals, now, fence)
            elif seen.accounting is AccountingState.NONE:
                self._settle_by_controller(record, slurm_now, now, fence)

    def _next_pause(self) -> timedelta:
        """Return the time until the next search; a search that takes long keeps Slurm busy."""
        if self._search_seconds < _SHORT_SEARCH_SECONDS:
            return self._pause
        return max(self._pause, min(_PAUSE_FACTOR * timedelta(seconds=self._search_seconds), _MAX_PAUSE))

    def _expiry(self, record: TaskRecord) -> datetime:
        """Return the time of Slurm's clock from which on no job of this record can appear."""
        return record.created_at + self._submission_life + self._skew

    def _settle_by_accounting(
        self,
        record: TaskRecord,
        likely: Sequence[SlurmJob],
        rivals: Sequence[SlurmJob],
        now: datetime,
        fence: int,
    ) -> None:
        """Settle a reservation by the jobs without a tag that only slurmdbd knows (rules 4 to 6).

        slurmdbd keeps comments only with AccountingStoreFlags=job_comment.

        Args:
            record: The reservation.
            likely: The jobs that may be its job.
            rivals: The likely jobs of all reservations; a job that is there twice belongs to either.
            now: The store's time.
            fence: The fencing token of the lease.
        """
        if not likely:
            self._free(record, now)
        elif len(likely) == 1 and rivals.count(likely[0]) == 1 and has_name_of(record, likely[0]):
            self._adopt(record, likely[0], now)
        else:
            self._give_up(record, f"{len(likely)} jobs may be its job", now, fence)

    def _settle_by_controller(
        self, record: TaskRecord, slurm_now: datetime, now: datetime, fence: int
    ) -> None:
        """Settle a reservation without slurmdbd (rule 7)."""
        if slurm_now + self._skew < record.created_at + self._min_job_age:
            self._free(record, now)
        else:
            why = "there is no slurmdbd, and slurmctld may have forgotten the job"
            self._give_up(record, why, now, fence)

    def _free(self, record: TaskRecord, now: datetime) -> None:
        """End the reservation without a job; its uuid may be used again."""
        if self._store.fail_reservation(record, _FREED, now):
            logger.warning("task %s made no job in Slurm; its uuid is free again", record.uuid)

    def _adopt(self, record: TaskRecord, job: SlurmJob | None, now: datetime) -> bool:
        """Give the record this job; return False if there is none."""
        if job is None:
            return False
        job_id = job.array_job_id or job.job_id
        if self._store.accept_job(record, job_id, JobState.PENDING, now):
            logger.warning("task %s was found as job %s", record.uuid, job_id)
        return True

    def _give_up(self, record: TaskRecord, why: str, now: datetime, fence: int) -> None:
        """End the reservation as UNKNOWN. The uuid stays taken, because the task may have run."""
        logger.warning("task %s: %s%s", record.uuid, _OUTCOME_UNKNOWN, why)
        unknown = SlurmJob(job_id=0, username=record.slurm_username, job_state=JobState.UNKNOWN)
        change = Change(
            uuid=record.uuid,
            before=None,
            after=JobState.UNKNOWN,
            at=now,
            job=None,
            notifications=plan_or_nothing(self._planner, record, unknown, now).notifications,
            submission_error=_OUTCOME_UNKNOWN + why,
            reserved_at=record.created_at,
        )
        self._store.apply_changes([change], fence)

    def _find_likely_jobs(self, record: TaskRecord, seen: Search) -> list[SlurmJob]:
        """Return the jobs of no record that only slurmdbd knows, and that may be the task's."""
        found = _one_of_each_array(job for job in seen.accounted if job.job_id not in seen.controller_ids)
        return [job for job in found if self._may_be_job_of(record, job) and not self._is_owned(job)]

    def _may_be_job_of(self, record: TaskRecord, job: SlurmJob) -> bool:
        return may_be_job_of(record, job, record.created_at - self._skew, self._expiry(record))

    def _is_owned(self, job: SlurmJob) -> bool:
        """Return whether the job belongs to a record, and not to an earlier job with the same id."""
        owner = self._store.find_by_job_id(job.array_job_id or job.job_id)
        if owner is None or job.submit_time is None:
            return False
        return owner.created_at <= job.submit_time + self._skew


def _one_of_each_array(jobs: Iterable[SlurmJob]) -> list[SlurmJob]:
    return list({job.array_job_id or job.job_id: job for job in jobs}.values())
