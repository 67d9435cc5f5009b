"""What the service can be asked: one entry of OPERATIONS for each route and method."""

import json
from dataclasses import dataclass

from pydantic import TypeAdapter

from app.errors import (
    AlreadyOver,
    ClocksDisagree,
    DuplicateUuid,
    Forbidden,
    IdempotencyKeyReused,
    InvalidRequest,
    NoSuchTask,
    NotDead,
    NotTheOwner,
    RecordUnfit,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
    StoreUnavailable,
    TooManyJobs,
    UnknownJob,
    UnknownNotification,
    UnknownTask,
)
from app.job_state import JobState
from app.models.answers import (
    Cancelled,
    KeptNotification,
    Notifications,
    Record,
    Records,
    Retried,
    Shown,
    Submitted,
)
from app.models.caller import Scope
from app.models.record import NotificationStatus
from app.models.rules import IDEMPOTENCY_KEY, JobId, Uuid
from app.models.task import MonitorRequest, SubmitRequest
from app.models.username import Username
from app.openapi.schemas import Schema
from app.senders import SENDERS

HELLO_WORLD = json.loads(r"""
{"task": {"uuid": "123e4567-e89b-12d3-a456-426614174000", "username": "areynolds", "cwd": "/home/areynolds",
  "cmd": "echo", "params": ["-e", "\"hello, world! (sent job $SLURM_JOB_ID to $SLURM_JOB_USER at `date`)\""],
  "notification": {"methods": ["email"], "params": {"email": {"sender": "username@gmail.com",
    "recipient": "username@gmail.com", "subject": "hello-world test job finished!", "body": "hello!"}}},
  "slurm": {"job_name": "slurm-proxy-test.generic", "time": 30, "nodes": 1, "ntasks_per_node": 1,
    "cpus_per_task": 1, "mem": 1000, "partition": "hpcz-test",
    "output": "slurm-proxy-test.generic.output.txt", "error": "slurm-proxy-test.generic.error.txt"},
  "name": "generic", "dirs": {"parent": "/home/areynolds/slurm-proxy-test",
    "input": "/home/areynolds/slurm-proxy-test/input", "output": "/home/areynolds/slurm-proxy-test/output",
    "error": "/home/areynolds/slurm-proxy-test/error"}}}
""")
EXAMPLES: dict[type, Schema] = {
    SubmitRequest: HELLO_WORLD,
    MonitorRequest: {
        "monitor": {"task": {"username": "areynolds", "uuid": "align-17"}, "slurm_job_id": 4711}
    },
}

_FROM_SLURM = (SlurmMisbehaved, SlurmUnavailable)
_FOR_OPERATORS = (InvalidRequest, Forbidden)

_USER: Schema = {**TypeAdapter(Username).json_schema(), "title": "Whom to submit as."}
_WHOLE: Schema = {"type": "integer", "minimum": 0, "maximum": 10**11 - 1}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of a path, a query or a header."""

    place: str
    schema: Schema
    is_user: bool = False  # one as whom something is run; it must be given


PARAMETERS = {
    "slurm_job_id": Parameter("path", TypeAdapter(JobId).json_schema()),
    "slurm_job_state": Parameter("path", {"type": "string", "enum": list(JobState)}),
    "task_uuid": Parameter("path", TypeAdapter(Uuid).json_schema()),
    "notification_id": Parameter("path", {"type": "string", "minLength": 1}),
    "update_time": Parameter("path", {**_WHOLE, "description": "Seconds since the epoch; 0 for all jobs."}),
    "job_id": Parameter("path", _WHOLE),
    "status": Parameter("query", {"type": "string", "enum": list(NotificationStatus), "default": "dead"}),
    "method": Parameter("query", {"type": "string", "enum": list(SENDERS)}),
    "limit": Parameter("query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
    "username": Parameter("query", _USER, is_user=True),
    "Idempotency-Key": Parameter("header", IDEMPOTENCY_KEY),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """`answer`, `body`: a model, the media type of what is no JSON, or object for any JSON object.

    `errors`: what is raised beside what HTTP, the access rules and a failing server answer.
    """

    method: str
    path: str
    answer: type | str
    errors: tuple[type[SlurmProxyError], ...] = ()
    parameters: tuple[str, ...] = ()  # beside those of the path
    body: type | None = None
    passes_on: bool = False  # slurmrestd's own answers, under its own status
    scopes: tuple[Scope, ...] = ()  # that a caller needs; none where nobody is asked who he is


_SUBMISSION_ERRORS = (DuplicateUuid, IdempotencyKeyReused, SlurmRefused, RecordUnfit, SlurmAmbiguous)

OPERATIONS = (
    Operation(
        "POST",
        "/submit",
        Submitted,
        (InvalidRequest, *_SUBMISSION_ERRORS, TooManyJobs, *_FROM_SLURM, ClocksDisagree, StoreUnavailable),
        ("Idempotency-Key",),
        SubmitRequest,
        scopes=(Scope.SUBMIT,),
    ),
    Operation(
        "POST",
        "/monitor",
        Record,
        (InvalidRequest, DuplicateUuid, UnknownJob, NotTheOwner, RecordUnfit, *_FROM_SLURM, StoreUnavailable),
        body=MonitorRequest,
        scopes=(Scope.SUBMIT, Scope.READ),
    ),
    Operation(
        "GET",
        "/monitor/slurm_job_id/{slurm_job_id}",
        Shown,
        (InvalidRequest, UnknownJob, StoreUnavailable),
        scopes=(Scope.READ,),
    ),
    Operation(
        "GET", "/monitor/task_uuid/{task_uuid}", Shown, (UnknownTask, StoreUnavailable), scopes=(Scope.READ,)
    ),
    Operation(
        "GET",
        "/monitor/slurm_job_state/{slurm_job_state}",
        Records,
        (InvalidRequest, StoreUnavailable),
        scopes=(Scope.READ,),
    ),
    Operation(
        "DELETE",
        "/monitor/slurm_job_id/{slurm_job_id}",
        Cancelled,
        (InvalidRequest, NoSuchTask, AlreadyOver, SlurmRefused, *_FROM_SLURM, StoreUnavailable),
        scopes=(Scope.CANCEL,),
    ),
    Operation(
        "POST",
        "/monitor/task_uuid/{task_uuid}/cancel",
        Cancelled,
        (NoSuchTask, AlreadyOver, SlurmRefused, *_FROM_SLURM, StoreUnavailable),
        scopes=(Scope.CANCEL,),
    ),
    Operation(
        "GET",
        "/notifications",
        Notifications,
        (*_FOR_OPERATORS, StoreUnavailable),
        ("status", "method", "limit"),
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "POST",
        "/notifications/{notification_id}/retry",
        KeptNotification,
        (Forbidden, UnknownNotification, NotDead, StoreUnavailable),
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "POST",
        "/notifications/retry",
        Retried,
        (*_FOR_OPERATORS, StoreUnavailable),
        ("method",),
        scopes=(Scope.ADMIN,),
    ),
    Operation("GET", "/slurm/ping", object, (Forbidden, *_FROM_SLURM), passes_on=True, scopes=(Scope.ADMIN,)),
    Operation("GET", "/slurm/diag", object, (Forbidden, *_FROM_SLURM), passes_on=True, scopes=(Scope.ADMIN,)),
    Operation(
        "GET",
        "/slurm/jobs/{update_time}",
        object,
        (*_FOR_OPERATORS, *_FROM_SLURM),
        passes_on=True,
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "GET",
        "/slurm/job/{job_id}",
        object,
        (*_FOR_OPERATORS, *_FROM_SLURM),
        passes_on=True,
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "POST",
        "/slurm/job/submit",
        object,
        (*_FOR_OPERATORS, *_FROM_SLURM, SlurmAmbiguous),
        ("username",),
        object,
        passes_on=True,
        scopes=(Scope.ADMIN,),
    ),
    Operation("GET", "/ping", "text/plain"),
    Operation("GET", "/openapi.json", object),
    Operation("GET", "/docs", "text/html"),
)
