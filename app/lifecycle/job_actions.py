"""Cancel, hold, release or requeue one job: the requests to Slurm, and the reasons to refuse.

Each action reads the job first, changes it, and reads it again, so that the answer is what Slurm reports. A
repeated action finds nothing to do.
"""

from dataclasses import dataclass
from datetime import timedelta

from app.errors import (
    AlreadyOver,
    AlreadyRunning,
    HeldByAdministrator,
    JobForgotten,
    NotStarted,
    NotSupported,
    RequeueDisabled,
    SlurmRefused,
)
from app.lifecycle.ended_jobs import MAX_AGE
from app.lifecycle.job_identity import is_same_job, to_open_job
from app.models.job import SlurmJob
from app.models.job_action import Controlled, JobAction
from app.models.record import TaskRecord, utc_now
from app.slurm.client import SlurmClient
from app.slurm.job_control import JobOutcome

_CLOCK_MARGIN = timedelta(minutes=10)  # how far this host's clock may be from the store's


@dataclass(frozen=True, slots=True)
class Target:
    """The job of a record, as the caller named it.

    Attributes:
        record: The record.
        job_id: The id of its job.
        field: The field in which the caller named the job, for errors.
        noun: The job, for errors.
    """

    record: TaskRecord
    job_id: int
    field: str
    noun: str

    @property
    def name(self) -> str:
        """Return the beginning of an error about the job."""
        return f"{self.field}: {self.noun}"

    @property
    def username(self) -> str:
        """Return the user of the job."""
        return self.record.slurm_username

    def owns(self, job: SlurmJob | None) -> bool:
        """Return whether `job` is the job of the record, and not a later one with its id."""
        return is_same_job(to_open_job(self.record, self.job_id), job)


class JobActions:
    """The four actions on a job. Permissions are checked in `control.py`, not here."""

    def __init__(self, slurm: SlurmClient) -> None:
        """Create the actions."""
        self._slurm = slurm
        self._actions = {
            JobAction.CANCEL: self._cancel,
            JobAction.HOLD: self._hold,
            JobAction.RELEASE: self._release,
            JobAction.REQUEUE: self._requeue,
        }

    def run(self, action: JobAction, target: Target) -> Controlled:
        """Carry out an action on a job, as the job's user.

        Raises:
            AlreadyOver: The job has ended, and is to be held or released.
            JobForgotten: Slurm no longer knows the job.
            AlreadyRunning: The job has begun, and is to be held.
            HeldByAdministrator: The job is to be released, and only an administrator may release it.
            NotStarted: The job has not begun, and is to be requeued.
            RequeueDisabled: The job is to be requeued, and was submitted so that it cannot.
            NotSupported: The cluster's release cannot requeue jobs.
            SlurmRefused: Slurm refuses for another reason.
            SlurmUnavailable: Slurm does not answer; the job may be changed.
            SlurmMisbehaved: The answer of slurmrestd cannot be used; the job may be changed.
        """
        if action is JobAction.REQUEUE and not self._slurm.control.offers_requeue():
            words = "this cluster's release of Slurm does not offer to requeue a job"
            raise NotSupported(f"{words}; cancel the task, and resubmit it")
        job = self._find_job(target)
        after = self._actions[action](target, job)
        return Controlled(
            uuid=target.record.uuid,
            slurm_job_id=target.job_id,
            slurm_username=target.username,
            slurm_job_state=(after or job).job_state,
            changed=after is not None,
        )

    # --- actions: each returns the changed job, or None if there was nothing left to do ---------

    def _cancel(self, target: Target, job: SlurmJob) -> SlurmJob | None:
        if job.job_state.is_final:
            return None
        outcome = self._slurm.control.cancel(target.job_id, target.username)
        if outcome is JobOutcome.DONE or (outcome is JobOutcome.UNREPORTED and not job.is_ending):
            return self._read_again(target, job)
        return None

    def _hold(self, target: Target, job: SlurmJob) -> SlurmJob | None:
        _require_to_be_held(target, job)
        if job.held_tasks >= job.waiting_task_count:
            return None
        _require_known(target, self._slurm.control.hold(target.job_id, target.username))
        after = self._read_again(target, job)
        if after.waiting_task_count == 0 and not after.job_state.is_final:
            # The job began in the meantime, and would be held when Slurm requeues it.
            self._slurm.control.release(target.job_id, target.username)
        _require_to_be_held(target, after)
        if after.held_tasks < after.waiting_task_count:
            raise SlurmRefused(f"{target.name} is not held; Slurm gave no reason")
        return after

    def _release(self, target: Target, job: SlurmJob) -> SlurmJob | None:
        if job.job_state.is_final:
            raise AlreadyOver(f"{target.name} has ended already; to run the task again, resubmit it")
        if job.held_tasks == 0:
            return None
        outcome = self._slurm.control.release(target.job_id, target.username)
        if outcome is JobOutcome.DENIED:
            words = "is held by an administrator of the cluster; ask them to release it"
            raise HeldByAdministrator(f"{target.name} {words}")
        _require_known(target, outcome)
        after = self._read_again(target, job)
        if after.held_tasks:
            raise SlurmRefused(f"{target.name} is still held; Slurm gave no reason")
        return after

    def _requeue(self, target: Target, job: SlurmJob) -> SlurmJob | None:
        if job.requeued_tasks:
            return None
        if job.job_state.is_waiting:
            raise _not_started(target)
        outcome = self._slurm.control.requeue(target.job_id, target.username)
        if outcome is JobOutcome.DISABLED:
            words = "was submitted so that it cannot be requeued; resubmit the task"
            raise RequeueDisabled(f"{target.name} {words}")
        _require_known(target, outcome)
        # A job that Slurm calls pending, but that has begun, is about to wait again: it was requeued already.
        return None if outcome is JobOutcome.PENDING else self._read_again(target, job)

    # --- reading ----------------------------------------------------------------------------------

    def _find_job(self, target: Target) -> SlurmJob:
        """Return the job as Slurm describes it.

        A job that has ended may have been requeued since the last poll. The state of one that slurmctld has
        forgotten is that of the record.
        """
        record, state = target.record, target.record.slurm_job_state
        if record.is_open:
            found = self._slurm.find_job(target.job_id)
            if found is not None and target.owns(found):
                return found
        elif state is not None and state.is_final:
            found = self._read_if_recent(target)
            if found is not None and target.owns(found):
                return found
            return SlurmJob(job_id=target.job_id, username=target.username, job_state=state)
        raise _forgotten(target)

    def _read_if_recent(self, target: Target) -> SlurmJob | None:
        """Return the job from slurmctld, unless it ended too long ago for the poller to see a requeue."""
        if utc_now() - target.record.updated_at > MAX_AGE - _CLOCK_MARGIN:
            return None
        return self._slurm.read_job(target.job_id)

    def _read_again(self, target: Target, before: SlurmJob) -> SlurmJob:
        after = self._slurm.read_job(target.job_id)
        return after if after is not None and target.owns(after) else before


def _require_to_be_held(target: Target, job: SlurmJob) -> None:
    """Check that the job, or a task of the array, waits.

    Raises:
        AlreadyOver: The job has ended.
        AlreadyRunning: The job has begun.
    """
    if job.job_state.is_final:
        raise AlreadyOver(f"{target.name} has ended already; there is nothing to hold")
    if job.waiting_task_count == 0:
        raise AlreadyRunning(f"{target.name} has begun; only a job that waits can be held")


def _require_known(target: Target, outcome: JobOutcome) -> None:
    """Check that Slurm found the job.

    Raises:
        AlreadyOver: The job has ended since it was read.
        JobForgotten: Slurm no longer knows the job.
    """
    if outcome is JobOutcome.ENDED:
        raise AlreadyOver(f"{target.name} has ended already")
    if outcome is JobOutcome.UNKNOWN_JOB:
        raise _forgotten(target)


def _forgotten(target: Target) -> JobForgotten:
    words = f"Slurm no longer knows {target.noun}; to run the task again, resubmit it"
    return JobForgotten(f"{target.field}: {words}")


def _not_started(target: Target) -> NotStarted:
    return NotStarted(f"{target.name} has not begun yet; there is nothing to requeue")
