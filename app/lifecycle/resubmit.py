"""Submit the task of a record again as a new task: `POST /monitor/.../resubmit`."""

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.access.authorization import require_scope
from app.constants import MAX_BODY_BYTES
from app.errors import InvalidRequest, NoSuchTask
from app.lifecycle.repeated_submission import make_stored_key
from app.lifecycle.submit import TaskSubmitter
from app.models.answers import DryRun
from app.models.caller import Caller, Scope
from app.models.json_body import require_storable
from app.models.merge_patch import apply_merge_patch
from app.models.record import TaskRecord
from app.models.resubmission import ResubmissionDryRun, ResubmitRequest, Resubmitted
from app.models.rules import parse_job_id
from app.models.task import parse_request
from app.store.records import RecordStore

_NAMESPACE = uuid.UUID("5f0e7a1c-6f0d-4c0f-9d3a-2f1a6d0b7c11")  # of uuids derived from idempotency keys


@dataclass(frozen=True, slots=True)
class ResubmissionCall:
    """Request to resubmit a task: the body, the idempotency key, and whether this is a dry run."""

    body: Mapping[str, Any]
    key: str | None = None
    is_dry_run: bool = False


class Resubmission:
    """The use cases of `POST /monitor/.../resubmit`. A new task is submitted as by `POST /submit`."""

    def __init__(self, store: RecordStore, submitter: TaskSubmitter) -> None:
        """Create the use cases."""
        self._store = store
        self._submitter = submitter

    def resubmit_by_uuid(
        self, caller: Caller, task_uuid: str, call: ResubmissionCall
    ) -> Resubmitted | ResubmissionDryRun:
        """Submit the task of a record again, with the changes of the call, under another uuid.

        Raises:
            NoSuchTask: No record that the caller may read has that uuid.
            InvalidRequest: The body or the new task is not valid; there is no new job.
            SlurmProxyError: An error of `TaskSubmitter.submit`.
        """
        require_scope(caller, Scope.SUBMIT)
        record = self._store.find_by_uuids([task_uuid]).get(task_uuid)
        return self._resubmit(caller, record, f"task_uuid: no task {task_uuid} is recorded here", call)

    def resubmit_by_job_id(
        self, caller: Caller, text: str, call: ResubmissionCall
    ) -> Resubmitted | ResubmissionDryRun:
        """Submit the task of the newest record with that job id again.

        Raises:
            InvalidRequest: `text` is no job id; all other errors are those of `resubmit_by_uuid`.
        """
        require_scope(caller, Scope.SUBMIT)
        job_id = parse_job_id("slurm_job_id", text)
        record = self._store.find_by_job_id(job_id)
        return self._resubmit(caller, record, f"slurm_job_id: no job {job_id} is monitored here", call)

    def _resubmit(
        self, caller: Caller, record: TaskRecord | None, unknown: str, call: ResubmissionCall
    ) -> Resubmitted | ResubmissionDryRun:
        require_scope(caller, Scope.READ)
        if record is None or not caller.is_allowed(Scope.READ, record.slurm_username):
            raise NoSuchTask(unknown)
        request = parse_request(ResubmitRequest, call.body)
        task = _build_task(record, request, caller, call.key)
        use_case = self._submitter.dry_run if call.is_dry_run else self._submitter.submit
        answer = use_case(caller, {"task": task}, call.key, resubmitted_from=record.uuid)
        if isinstance(answer, DryRun):
            return ResubmissionDryRun(**dict(answer), task=task, resubmitted_from=record.uuid)
        return Resubmitted(**dict(answer), slurm_username=task["username"], resubmitted_from=record.uuid)


def _build_task(
    record: TaskRecord, request: ResubmitRequest, caller: Caller, key: str | None
) -> dict[str, Any]:
    """Return the new task: the stored one with the patch, and with another uuid.

    Raises:
        InvalidRequest: The uuids contradict each other, or the new task is too large.
    """
    task: dict[str, Any] = apply_merge_patch(record.task, request.task)
    task["uuid"] = _choose_uuid(record, request, caller, key)
    require_storable({"task": task})
    if len(json.dumps(task, ensure_ascii=False).encode(errors="surrogatepass")) > MAX_BODY_BYTES:
        raise InvalidRequest([f"task: with its changes it must not take more than {MAX_BODY_BYTES} bytes"])
    return task


def _choose_uuid(record: TaskRecord, request: ResubmitRequest, caller: Caller, key: str | None) -> object:
    """Return the uuid that the request names, or else a new one.

    Without a uuid in the request, the uuid is derived from the caller and the idempotency key. So repeated
    requests are about the same task, even if they arrive at the same time.

    Raises:
        InvalidRequest: The request names two uuids, or the one of the earlier task.
    """
    patched = request.task.get("uuid")
    if request.uuid is not None and patched not in (None, request.uuid):
        raise InvalidRequest(["task.uuid: must be left out or be the same as uuid"])
    if (named := request.uuid if patched is None else patched) is None:
        return str(uuid.uuid4() if key is None else uuid.uuid5(_NAMESPACE, make_stored_key(caller.name, key)))
    if named == record.uuid:
        field = "uuid" if patched is None else "task.uuid"
        raise InvalidRequest([f"{field}: must not be the uuid of the task that is resubmitted"])
    return named
