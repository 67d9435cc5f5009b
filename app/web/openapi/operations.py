"""All operations of the service: one entry of OPERATIONS for each route and method.

A new route takes these steps. Tests fail while one of steps 1 to 8 is missing.

1. Write a use case in `app/lifecycle/`, and add it to `Services` in `app/services.py`. It checks the caller's
   grants with `app/access/authorization.py`. A module of routes for operators checks the scope before each
   request instead: `blueprint.before_request(make_scope_check(Scope.ADMIN))`.
2. Describe its answer as a model in `app/models/answers.py`, and a body as a model in `app/models/task.py`.
3. Write the function of the route in `app/task_*.py`, with at most eight lines. Its docstring becomes the
   summary in the OpenAPI document. List a new module in `app/__init__.py`, and its layer in
   `tests/unit/test_layers.py`. A route that anyone may call needs the decorator `allow_unauthenticated` of
   `app/web/auth.py`.
4. Add the entry below. Its `id` is the function's name in camelCase. It lists the scopes that a caller needs,
   and each error that the use case raises. Leave out Forbidden: each operation with scopes has it.
5. Describe each new parameter in `parameters.py`. A new error needs a class in `app/errors.py`, an example in
   `examples.py`, and its code in `docs/reference/errors.md`.
6. Add a column to the access matrix in `tests/unit/access/test_request_guard.py`: a name in `ROUTES`, a
   request in `requests_about_a_job`, and a status in each line of `EXPECTED`, or in `FOR_EVERYONE`.
7. Add a request for each answer to `tests/contract/scenarios.py`. Record the answers with
   `.venv/bin/python -m tests.contract.test_recorded_responses --record`.
8. Run `make reference`, which writes the rows of `docs/reference/routes.md`.
9. Add a line to `CHANGELOG.md`. No test checks this.

The tests are in `tests/unit/web/test_openapi.py`, `tests/unit/access/test_request_guard.py`,
`tests/unit/test_layers.py`, `tests/contract/test_recorded_responses.py` and `tests/unit/test_docs.py`.
"""

from dataclasses import dataclass

from app.errors import (
    AlreadyOver,
    AlreadyRunning,
    ClocksDisagree,
    DuplicateUuid,
    HeldByAdministrator,
    IdempotencyKeyReused,
    InvalidRequest,
    JobForgotten,
    NoJob,
    NoSuchTask,
    NotAuthenticated,
    NotDead,
    NotStarted,
    NotSupported,
    NotTheOwner,
    RecordTooLarge,
    RequeueDisabled,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
    StoreUnavailable,
    TooManyJobs,
    TooManyRequests,
    UnknownJob,
    UnknownNotification,
    UnknownTask,
)
from app.models.answers import (
    DryRun,
    Health,
    KeptNotification,
    Notifications,
    Record,
    Retried,
    Shown,
    SlurmAnswer,
    Submitted,
)
from app.models.bulk_cancellation import CancelledTasks, CancelRequest
from app.models.caller import Scope
from app.models.caller_answers import DescribedCaller, TaskCatalogue
from app.models.cluster_answers import Cluster
from app.models.health_answers import Readiness
from app.models.job_action import Controlled, JobAction
from app.models.list_answers import StatePage, TaskList
from app.models.resubmission import ResubmissionDryRun, ResubmitRequest, Resubmitted
from app.models.task import MonitorRequest, SubmitRequest
from app.web.openapi.parameters import BATCH_PARAMETERS, STATE_PARAMETERS

_FROM_SLURM = (SlurmMisbehaved, SlurmUnavailable)


@dataclass(frozen=True, slots=True)
class Operation:
    """A route with a method, as the OpenAPI document describes it.

    Attributes:
        id: The name of the function in generated clients; it never changes.
        answer: A model, the media type of an answer that is not JSON, or `object` for any JSON object.
        errors: The errors of the use case. Those of HTTP, of authentication and of a server that fails are
            added to each operation.
        parameters: The parameters of the query and the headers.
        body: As `answer`; None for a request without a body.
        other_answers: Further models that an answer may have.
        not_ready_answer: The model of an answer with the status 503 that is not an error.
        scopes: The scopes that a caller needs. Without any, the route needs no authentication, unless
            `is_for_every_caller` is set.
        is_body_optional: Whether the body may be left out.
        other_scope: A scope that suffices, too.
        is_for_every_caller: Whether the route is for each authenticated caller, whatever the scopes.
    """

    id: str
    method: str
    path: str
    answer: type | str
    errors: tuple[type[SlurmProxyError], ...] = ()
    parameters: tuple[str, ...] = ()
    body: type | None = None
    is_body_optional: bool = False
    other_answers: tuple[type, ...] = ()
    not_ready_answer: type | None = None
    scopes: tuple[Scope, ...] = ()
    other_scope: Scope | None = None
    is_for_every_caller: bool = False

    @property
    def is_public(self) -> bool:
        """Return whether the route needs no authentication."""
        return not self.scopes and not self.is_for_every_caller

    @property
    def passes_on(self) -> bool:
        """Return whether the answer is slurmrestd's own, under its own status."""
        return self.answer is SlurmAnswer


_SUBMISSION_ERRORS = (
    InvalidRequest,
    DuplicateUuid,
    IdempotencyKeyReused,
    SlurmRefused,
    RecordTooLarge,
    SlurmAmbiguous,
    TooManyJobs,
    *_FROM_SLURM,
    ClocksDisagree,
    StoreUnavailable,
)
_CONTROL_ERRORS = (NoSuchTask, NoJob, JobForgotten, SlurmRefused, *_FROM_SLURM, StoreUnavailable)
_ERRORS_BY_ACTION: dict[JobAction, tuple[type[SlurmProxyError], ...]] = {
    JobAction.CANCEL: (),
    JobAction.HOLD: (AlreadyOver, AlreadyRunning),
    JobAction.RELEASE: (AlreadyOver, HeldByAdministrator),
    JobAction.REQUEUE: (AlreadyOver, NotStarted, RequeueDisabled, NotSupported),
}

OPERATIONS = (
    Operation(
        "submitTask",
        "POST",
        "/submit",
        Submitted,
        _SUBMISSION_ERRORS,
        ("dry_run", "Idempotency-Key"),
        SubmitRequest,
        other_answers=(DryRun,),
        scopes=(Scope.SUBMIT,),
    ),
    Operation(
        "registerJob",
        "POST",
        "/monitor",
        Record,
        (
            InvalidRequest,
            DuplicateUuid,
            UnknownJob,
            NotTheOwner,
            RecordTooLarge,
            *_FROM_SLURM,
            StoreUnavailable,
        ),
        body=MonitorRequest,
        scopes=(Scope.SUBMIT, Scope.READ),
    ),
    Operation(
        "listTasks",
        "GET",
        "/monitor",
        TaskList,
        (InvalidRequest, StoreUnavailable),
        BATCH_PARAMETERS,
        scopes=(Scope.READ,),
        other_scope=Scope.MONITOR,
    ),
    Operation(
        "getTaskByJobId",
        "GET",
        "/monitor/slurm_job_id/{slurm_job_id}",
        Shown,
        (InvalidRequest, UnknownJob, StoreUnavailable),
        ("wait", "wait_until"),
        scopes=(Scope.READ,),
    ),
    Operation(
        "getTaskByUuid",
        "GET",
        "/monitor/task_uuid/{task_uuid}",
        Shown,
        (InvalidRequest, UnknownTask, StoreUnavailable),
        ("wait", "wait_until"),
        scopes=(Scope.READ,),
    ),
    Operation(
        "listTasksByState",
        "GET",
        "/monitor/slurm_job_state/{slurm_job_state}",
        StatePage,
        (InvalidRequest, StoreUnavailable),
        STATE_PARAMETERS,
        scopes=(Scope.READ,),
    ),
    Operation(
        "cancelTaskByJobId",
        "DELETE",
        "/monitor/slurm_job_id/{slurm_job_id}",
        Controlled,
        (InvalidRequest, *_CONTROL_ERRORS),
        scopes=(Scope.CANCEL,),
    ),
    Operation(
        "cancelTasks",
        "POST",
        "/monitor/cancel",
        CancelledTasks,
        (InvalidRequest, SlurmUnavailable, StoreUnavailable),
        ("dry_run_of_cancellation",),
        CancelRequest,
        scopes=(Scope.CANCEL,),
    ),
    *(
        Operation(
            f"{action}TaskByUuid",
            "POST",
            f"/monitor/task_uuid/{{task_uuid}}/{action}",
            Controlled,
            (*_CONTROL_ERRORS, *errors),
            scopes=(Scope.CANCEL,),
        )
        for action, errors in _ERRORS_BY_ACTION.items()
    ),
    *(
        Operation(
            f"{action}Job",
            "POST",
            f"/monitor/slurm_job_id/{{slurm_job_id}}/{action}",
            Controlled,
            (InvalidRequest, *_CONTROL_ERRORS, *errors),
            scopes=(Scope.CANCEL,),
        )
        for action, errors in _ERRORS_BY_ACTION.items()
    ),
    Operation(
        "resubmitTaskByUuid",
        "POST",
        "/monitor/task_uuid/{task_uuid}/resubmit",
        Resubmitted,
        (NoSuchTask, *_SUBMISSION_ERRORS),
        ("dry_run", "Idempotency-Key"),
        ResubmitRequest,
        is_body_optional=True,
        other_answers=(ResubmissionDryRun,),
        scopes=(Scope.SUBMIT, Scope.READ),
    ),
    Operation(
        "resubmitTaskByJobId",
        "POST",
        "/monitor/slurm_job_id/{slurm_job_id}/resubmit",
        Resubmitted,
        (NoSuchTask, *_SUBMISSION_ERRORS),
        ("dry_run", "Idempotency-Key"),
        ResubmitRequest,
        is_body_optional=True,
        other_answers=(ResubmissionDryRun,),
        scopes=(Scope.SUBMIT, Scope.READ),
    ),
    Operation(
        "describeCaller",
        "GET",
        "/whoami",
        DescribedCaller,
        (InvalidRequest, StoreUnavailable),
        is_for_every_caller=True,
    ),
    Operation(
        "listCatalogue",
        "GET",
        "/catalogue",
        TaskCatalogue,
        (InvalidRequest,),
        scopes=(Scope.SUBMIT,),
    ),
    Operation(
        "listNotifications",
        "GET",
        "/notifications",
        Notifications,
        (InvalidRequest, StoreUnavailable),
        ("status", "method", "limit"),
        scopes=(Scope.MONITOR,),
    ),
    Operation(
        "retryNotification",
        "POST",
        "/notifications/{notification_id}/retry",
        KeptNotification,
        (UnknownNotification, NotDead, StoreUnavailable),
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "retryNotifications",
        "POST",
        "/notifications/retry",
        Retried,
        (InvalidRequest, StoreUnavailable),
        ("method",),
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "pingSlurm",
        "GET",
        "/slurm/ping",
        SlurmAnswer,
        _FROM_SLURM,
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "getSlurmDiagnostics",
        "GET",
        "/slurm/diag",
        SlurmAnswer,
        _FROM_SLURM,
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "listSlurmJobs",
        "GET",
        "/slurm/jobs/{update_time}",
        SlurmAnswer,
        (InvalidRequest, *_FROM_SLURM),
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "getSlurmJob",
        "GET",
        "/slurm/job/{job_id}",
        SlurmAnswer,
        (InvalidRequest, *_FROM_SLURM),
        scopes=(Scope.ADMIN,),
    ),
    Operation(
        "submitSlurmJob",
        "POST",
        "/slurm/job/submit",
        SlurmAnswer,
        (InvalidRequest, *_FROM_SLURM, SlurmAmbiguous),
        ("username",),
        object,
        scopes=(Scope.ADMIN,),
    ),
    Operation("ping", "GET", "/ping", "text/plain"),
    Operation("checkHealth", "GET", "/healthz", Health),
    Operation(
        "checkReadiness",
        "GET",
        "/readyz",
        Readiness,
        (NotAuthenticated, TooManyRequests),
        not_ready_answer=Readiness,
    ),
    Operation(
        "describeCluster",
        "GET",
        "/cluster",
        Cluster,
        (InvalidRequest, *_FROM_SLURM, StoreUnavailable),
        is_for_every_caller=True,
    ),
    Operation("getMetrics", "GET", "/metrics", "text/plain", scopes=(Scope.MONITOR,)),
    Operation("getOpenapiDocument", "GET", "/openapi.json", object),
    Operation("getDocumentation", "GET", "/docs", "text/html"),
)
