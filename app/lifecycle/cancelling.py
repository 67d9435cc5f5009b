"""Cancels the job of a task; its end is then seen and told like any other."""

from typing import Any

from app.errors import AlreadyOver, NoSuchTask
from app.lifecycle.identity import is_same_job, open_job
from app.lifecycle.permitting import require_for, require_scope
from app.models.caller import Caller, Scope
from app.slurm.client import SlurmClient
from app.store import TaskStore


class Cancellation:
    """The use case of `POST /monitor/task_uuid/<uuid>/cancel`."""

    def __init__(self, store: TaskStore, slurm: SlurmClient) -> None:
        self._store = store
        self._slurm = slurm

    def cancel(self, caller: Caller, uuid: str) -> dict[str, Any]:
        """As the task's user. NoSuchTask, Forbidden; AlreadyOver where there is no job to cancel (any more).

        SlurmRefused, SlurmUnavailable: the job goes on.
        """
        require_scope(caller, Scope.CANCEL)
        record = self._store.by_uuids([uuid]).get(uuid)
        known = record is not None and any(
            caller.may(scope, record.slurm_username) for scope in (Scope.READ, Scope.CANCEL)
        )
        if record is None or not known:
            raise NoSuchTask(f"task_uuid: no task {uuid} is recorded here")
        require_for(caller, Scope.CANCEL, record.slurm_username, "task_uuid")
        if record.slurm_job_id is None or not record.is_open:
            raise AlreadyOver(f"task_uuid: {uuid} has no job that could be cancelled")
        job = self._slurm.job(record.slurm_job_id)
        if job is None or not is_same_job(open_job(record, record.slurm_job_id), job):
            raise AlreadyOver(f"task_uuid: Slurm does not know the job of {uuid} any more")
        if job.job_state.is_final or not self._slurm.cancel(record.slurm_job_id, record.slurm_username):
            raise AlreadyOver(f"task_uuid: the job of {uuid} has ended already")
        return {"uuid": uuid, "slurm_job_id": record.slurm_job_id, "slurm_username": record.slurm_username}
