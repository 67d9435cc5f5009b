"""Settles reservations that a crash or an ambiguous answer left open: adopted, or freed with the reason.

The token of a submission expires after `submission_life`. Once that time is over by Slurm's own clock, no
request that is still on its way can become a job, and a job that Slurm does not show will never exist.
"""

import logging
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

_PAUSE = timedelta(seconds=15)  # between two searches
_FREED = "this submission made no job: it did not reach Slurm, or was refused; the uuid may be used again"
_WITHOUT_COMMENT = "a job that may be it has another comment than this service gave it"
_CANNOT_BE_TOLD = "it cannot be told whether Slurm took this submission: "


class Reconciler:
    """What the leading monitor does about open reservations. Not thread-safe: one thread calls it."""

    def __init__(
        self,
        store: RecordStore,
        slurm: SlurmClient,
        planner: Planner,
        *,
        submission_life: timedelta,
        skew: timedelta,
        min_job_age: timedelta,
        pause: timedelta = _PAUSE,
    ) -> None:
        self._store = store
        self._slurm = slurm
        self._planner = planner
        self._submission_life = submission_life
        self._skew = skew
        self._min_job_age = min_job_age
        self._under_way = timedelta(seconds=slurm.max_call_seconds)
        self._pause = pause
        self._last: datetime | None = None

    def reconcile(self, now: datetime, fence: int) -> None:
        """Search Slurm once for the jobs of all reservations. `now`: the store's time.

        Whether a token has expired is decided by Slurm's clock, which is read before its jobs are.

        Raises:
            SlurmUnavailable: Slurm does not answer; nothing was settled.
            SlurmMisbehaved: An answer of slurmrestd cannot be used; nothing was settled.
        """
        if self._last is not None and self._last <= now < self._last + self._pause:
            return
        reserved = self._store.list_reservations(now - self._under_way, now + CLOCK_TOLERANCE)
        if not reserved:
            return
        self._last = now
        slurm_now = self._slurm.controller_time()
        users = {record.slurm_username for record in reserved}
        tags = [make_tag(record.uuid) for record in reserved]
        since = min(slurm_now, *(record.created_at for record in reserved))
        seen = self._slurm.search(users, since, tags)
        jobs = seen.jobs()
        untagged = [record for record in reserved if not self._adopt(record, find_tagged(record, jobs), now)]
        if not seen.is_complete:  # a job may be among those that are still to be read
            return
        over = [record for record in untagged if slurm_now >= self._latest(record)]
        likely = {record.uuid: self._likely(record, seen) for record in over}
        rivals = [job for jobs in likely.values() for job in jobs]
        for record in over:
            if any(self._may_be_job_of(record, job) and not self._is_owned(job) for job in seen.untagged):
                self._give_up(record, _WITHOUT_COMMENT, now, fence)
            elif seen.accounting is AccountingState.CURRENT:
                self._settle(record, likely[record.uuid], rivals, now, fence)
            elif seen.accounting is AccountingState.NONE:
                self._settle_by_controller(record, slurm_now, now, fence)

    def _latest(self, record: TaskRecord) -> datetime:
        """Return the time of Slurm's clock from which on no job of this record can appear."""
        return record.created_at + self._submission_life + self._skew

    def _settle(
        self,
        record: TaskRecord,
        likely: Sequence[SlurmJob],
        rivals: Sequence[SlurmJob],
        now: datetime,
        fence: int,
    ) -> None:
        """A record whose job bears no tag: slurmdbd keeps comments only with AccountingStoreFlags."""
        if not likely:
            self._free(record, now)
        elif len(likely) == 1 and rivals.count(likely[0]) == 1 and has_name_of(record, likely[0]):
            self._adopt(record, likely[0], now)
        else:
            self._give_up(record, f"jobs that may be it: {len(likely)}", now, fence)

    def _settle_by_controller(
        self, record: TaskRecord, slurm_now: datetime, now: datetime, fence: int
    ) -> None:
        """Settle a reservation without slurmdbd: free it while slurmctld would still show its ended job."""
        if slurm_now + self._skew < record.created_at + self._min_job_age:
            self._free(record, now)
        else:
            why = "there is no slurmdbd, and slurmctld may have forgotten it"
            self._give_up(record, why, now, fence)

    def _free(self, record: TaskRecord, now: datetime) -> None:
        if self._store.fail_reservation(record, _FREED, now):
            logger.warning("task %s made no job in Slurm; its uuid is free again", record.uuid)

    def _adopt(self, record: TaskRecord, job: SlurmJob | None, now: datetime) -> bool:
        if job is None:
            return False
        job_id = job.array_job_id or job.job_id
        if self._store.accept_job(record, job_id, JobState.PENDING, now):
            logger.warning("task %s is job %s after all", record.uuid, job_id)
        return True

    def _give_up(self, record: TaskRecord, why: str, now: datetime, fence: int) -> None:
        """The uuid stays taken: it may have run."""
        logger.warning("task %s: %s%s", record.uuid, _CANNOT_BE_TOLD, why)
        unknown = SlurmJob(job_id=0, username=record.slurm_username, job_state=JobState.UNKNOWN)
        change = Change(
            uuid=record.uuid,
            before=None,
            after=JobState.UNKNOWN,
            at=now,
            job=None,
            notifications=plan_or_nothing(self._planner, record, unknown, now).notifications,
            submission_error=_CANNOT_BE_TOLD + why,
            reserved_at=record.created_at,
        )
        self._store.apply_changes([change], fence)

    def _likely(self, record: TaskRecord, seen: Search) -> list[SlurmJob]:
        """Return the jobs that look like this task's, that only slurmdbd knows, and that no record owns."""
        found = _one_of_each_array(job for job in seen.accounted if job.job_id not in seen.controller_ids)
        return [job for job in found if self._may_be_job_of(record, job) and not self._is_owned(job)]

    def _may_be_job_of(self, record: TaskRecord, job: SlurmJob) -> bool:
        return may_be_job_of(record, job, record.created_at - self._skew, self._latest(record))

    def _is_owned(self, job: SlurmJob) -> bool:
        owner = self._store.find_by_job_id(job.array_job_id or job.job_id)
        if owner is None or job.submit_time is None:
            return False
        return owner.created_at <= job.submit_time + self._skew


def _one_of_each_array(jobs: Iterable[SlurmJob]) -> list[SlurmJob]:
    return list({job.array_job_id or job.job_id: job for job in jobs}.values())
