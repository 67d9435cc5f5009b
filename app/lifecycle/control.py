"""Cancel, hold, release or requeue the job of a task. The poller records the new state."""

from collections.abc import Collection
from dataclasses import dataclass

from app.access.authorization import require_allowed_user, require_grants, require_scope
from app.errors import NoJob, NoSuchTask
from app.lifecycle.job_actions import JobActions, Target
from app.models.caller import Caller, Scope
from app.models.job_action import Controlled, JobAction
from app.models.record import TaskRecord
from app.models.rules import parse_job_id
from app.slurm.client import SlurmClient
from app.store.records import RecordStore


@dataclass(frozen=True, slots=True)
class _Naming:
    """How the caller named the task.

    Attributes:
        field: The field, which begins each error.
        job: The job, as a noun in errors.
        unknown: The error if there is no record that the caller may see.
    """

    field: str
    job: str
    unknown: str


class TaskControl:
    """The use cases of `POST /monitor/<task>/cancel`, `hold`, `release` and `requeue`.

    A task that the caller may not see is answered as if it did not exist.
    """

    def __init__(self, store: RecordStore, slurm: SlurmClient, refused_users: Collection[str] = ()) -> None:
        """Create the use cases. `refused_users`: users whose jobs are never changed."""
        self._store = store
        self._actions = JobActions(slurm)
        self._refused_users = refused_users

    def control_by_uuid(self, caller: Caller, action: JobAction, uuid: str) -> Controlled:
        """Cancel, hold, release or requeue the job of a task, as the task's user.

        Raises:
            NoSuchTask: No record that the caller may see has that uuid.
            Forbidden: The caller has no permission for that user, or every action is refused for that user.
            NoJob: The task has no job, or its job is not known yet.

        JobActions.run raises further exceptions.
        """
        require_scope(caller, Scope.CANCEL)
        record = self._store.find_by_uuids([uuid]).get(uuid)
        naming = _Naming("task_uuid", f"the job of {uuid}", f"no task {uuid} is recorded here")
        return self._control(caller, action, record, naming)

    def control_by_job_id(self, caller: Caller, action: JobAction, text: str) -> Controlled:
        """Cancel, hold, release or requeue a job by its id, unless the newest record is of an earlier job.

        Raises:
            InvalidRequest: `text` is no job id; all other errors are those of `control_by_uuid`.
        """
        require_scope(caller, Scope.CANCEL)
        job_id = parse_job_id("slurm_job_id", text)
        naming = _Naming("slurm_job_id", f"job {job_id}", f"no job {job_id} is monitored here")
        return self._control(caller, action, self._store.find_by_job_id(job_id), naming)

    def _control(
        self, caller: Caller, action: JobAction, record: TaskRecord | None, naming: _Naming
    ) -> Controlled:
        if record is None or not _is_visible(caller, record):
            raise NoSuchTask(f"{naming.field}: {naming.unknown}")
        require_grants(caller, Scope.CANCEL, record.slurm_username, naming.field)
        require_allowed_user(record.slurm_username, self._refused_users, naming.field)
        if record.slurm_job_id is None or record.slurm_job_state is None:
            raise _make_no_job_error(record, naming)
        return self._actions.run(action, Target(record, record.slurm_job_id, naming.field, naming.job))


def _is_visible(caller: Caller, record: TaskRecord) -> bool:
    scopes = (Scope.READ, Scope.CANCEL)
    return any(caller.is_allowed(scope, record.slurm_username) for scope in scopes)


def _make_no_job_error(record: TaskRecord, naming: _Naming) -> NoJob:
    if record.is_reserved:
        words = "the job of the task is not known yet; repeat the request in a minute"
    elif record.is_freed:
        words = "the task has no job, because its submission failed; submit it again"
    else:
        words = "it is unknown whether the task has a job; its submission_error says why"
    return NoJob(f"{naming.field}: {words}")
