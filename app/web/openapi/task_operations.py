"""The operations on tasks: submit, monitor, change and repeat them."""

from app.errors import (
    AlreadyOver,
    AlreadyRunning,
    CancellationBusy,
    ClocksDisagree,
    DuplicateUuid,
    HeldByAdministrator,
    IdempotencyKeyReused,
    InvalidRequest,
    JobForgotten,
    NoJob,
    NoSuchTask,
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
    UnknownJob,
    UnknownTask,
)
from app.models.answers import (
    DryRun,
    Record,
    Shown,
    Submitted,
)
from app.models.bulk_cancellation import CancelledTasks, CancelRequest
from app.models.caller import Scope
from app.models.job_action import Controlled, JobAction
from app.models.list_answers import StatePage, TaskList
from app.models.resubmission import ResubmissionDryRun, ResubmitRequest, Resubmitted
from app.models.task import MonitorRequest, SubmitRequest
from app.web.openapi.operation import Operation
from app.web.openapi.parameters import BATCH_PARAMETERS, STATE_PARAMETERS

_FROM_SLURM = (SlurmMisbehaved, SlurmUnavailable)
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

TASK_OPERATIONS = (
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
        (InvalidRequest, CancellationBusy, StoreUnavailable),
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
            (InvalidRequest, *_CONTROL_ERRORS, *errors),
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
)
