"""Cancel the job of a task. The poller then records the end, and its notifications are sent as usual."""

from collections.abc import Collection

from app.access.authorization import require_allowed_user, require_grants, require_scope
from app.errors import AlreadyOver, NoSuchTask
from app.lifecycle.job_identity import is_same_job, to_open_job
from app.models.answers import Cancelled
from app.models.caller import Caller, Scope
from app.models.record import TaskRecord
from app.models.rules import parse_job_id
from app.slurm.client import SlurmClient
from app.store.records import RecordStore


class Cancellation:
    """The use cases of `POST /monitor/task_uuid/<uuid>/cancel` and `DELETE /monitor/slurm_job_id/<id>`."""

    def __init__(self, store: RecordStore, slurm: SlurmClient, refused_users: Collection[str] = ()) -> None:
        """Create the use cases. `refused_users`: users whose jobs are never cancelled."""
        self._store = store
        self._slurm = slurm
        self._refused_users = refused_users

    def cancel_by_uuid(self, caller: Caller, uuid: str) -> Cancelled:
        """Cancel the job of a task, as the task's user.

        Raises:
            NoSuchTask: No record that the caller may see has that uuid.
            Forbidden: The caller may not cancel for that user, or every action is refused for that user.
            AlreadyOver: There is no job to cancel (any more).
            SlurmRefused: Slurm does not cancel the job.
            SlurmUnavailable: Slurm does not answer; the job may go on.
            SlurmMisbehaved: The answer of slurmrestd cannot be used; the job may go on.
        """
        require_scope(caller, Scope.CANCEL)
        record = self._store.find_by_uuids([uuid]).get(uuid)
        unknown = f"no task {uuid} is recorded here"
        return self._cancel(caller, record, "task_uuid", f"the job of {uuid}", unknown)

    def cancel_by_job_id(self, caller: Caller, text: str) -> Cancelled:
        """Cancel the job with that id, unless the newest record with the id is about an earlier job.

        Raises:
            InvalidRequest: `text` is no job id; all other errors are those of `cancel_by_uuid`.
        """
        require_scope(caller, Scope.CANCEL)
        job_id = parse_job_id("slurm_job_id", text)
        record, unknown = self._store.find_by_job_id(job_id), f"no job {job_id} is monitored here"
        return self._cancel(caller, record, "slurm_job_id", f"job {job_id}", unknown)

    def _cancel(
        self, caller: Caller, record: TaskRecord | None, field: str, name: str, unknown: str
    ) -> Cancelled:
        """Cancel the job of a record.

        Args:
            caller: The caller who cancels.
            record: The record, if there is one.
            field: The field in which the caller named the job, for errors.
            name: The job, for errors.
            unknown: The error if the caller may not see the record, or if there is none.
        """
        known = record is not None and any(
            caller.is_allowed(scope, record.slurm_username) for scope in (Scope.READ, Scope.CANCEL)
        )
        if record is None or not known:
            raise NoSuchTask(f"{field}: {unknown}")
        require_grants(caller, Scope.CANCEL, record.slurm_username, field)
        require_allowed_user(record.slurm_username, self._refused_users, field)
        job_id, state = record.slurm_job_id, record.slurm_job_state
        if job_id is None or state is None:
            raise AlreadyOver(f"{field}: {record.uuid} has no job that could be cancelled")
        has_ended = AlreadyOver(f"{field}: {name} has ended already")
        if state.is_final:
            raise has_ended
        job = self._slurm.find_job(job_id) if record.is_open else None
        if job is None or not is_same_job(to_open_job(record, job_id), job):
            raise AlreadyOver(f"{field}: Slurm does not know {name} any more")
        if job.job_state.is_final or not self._slurm.cancel(job_id, record.slurm_username):
            raise has_ended
        return Cancelled(uuid=record.uuid, slurm_job_id=job_id, slurm_username=record.slurm_username)
