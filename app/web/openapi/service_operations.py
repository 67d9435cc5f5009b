"""The operations about the service itself: callers, messages, slurmrestd, health and documents."""

from app.errors import (
    InvalidRequest,
    NotAuthenticated,
    NotDead,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmUnavailable,
    StoreUnavailable,
    TooManyRequests,
    UnknownNotification,
)
from app.models.answers import (
    Health,
    KeptNotification,
    Notifications,
    Retried,
    SlurmAnswer,
)
from app.models.caller import Scope
from app.models.caller_answers import DescribedCaller, TaskCatalogue
from app.models.cluster_answers import Cluster
from app.models.health_answers import Readiness
from app.web.openapi.operation import Operation

_FROM_SLURM = (SlurmMisbehaved, SlurmUnavailable)

SERVICE_OPERATIONS = (
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
