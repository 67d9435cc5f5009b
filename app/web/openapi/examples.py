"""Examples of requests, and of the answer to each error."""

import json
from typing import Any

from app.errors import (
    AlreadyOver,
    AlreadyRunning,
    CancellationBusy,
    ClocksDisagree,
    DuplicateUuid,
    Forbidden,
    HeldByAdministrator,
    IdempotencyKeyReused,
    IdentityProviderUnavailable,
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
    UnsupportedEncoding,
)
from app.models.bulk_cancellation import CancelRequest
from app.models.resubmission import ResubmitRequest
from app.models.task import MonitorRequest, SubmitRequest

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
REQUESTS: dict[type, Any] = {
    SubmitRequest: HELLO_WORLD,
    ResubmitRequest: {"task": {"slurm": {"mem": 8000, "nodelist": None}}},
    CancelRequest: {"filter": {"job_name": "train-*", "since": "1h"}, "dry_run": True},
    MonitorRequest: {
        "monitor": {"task": {"username": "areynolds", "uuid": "align-17"}, "slurm_job_id": 4711}
    },
}

_ERRORS = (
    AlreadyOver("task_uuid: the job of align-17 has ended already; there is nothing to hold"),
    AlreadyRunning("task_uuid: the job of align-17 has begun; only a job that waits can be held"),
    CancellationBusy("another request is cancelling tasks; try again later"),
    ClocksDisagree(
        "this host's clock is 900 s behind Slurm's; this process submits nothing until they agree"
    ),
    DuplicateUuid("align-17", 4711),
    Forbidden("task.username: pipeline may not submit for bob"),
    HeldByAdministrator(
        "task_uuid: the job of align-17 is held by an administrator of the cluster; ask them to release it"
    ),
    IdempotencyKeyReused("Idempotency-Key: align-17 was used before with another task"),
    IdentityProviderUnavailable("the identity provider does not answer"),
    InvalidRequest(
        [
            "task.cwd: is required",
            "task.slurm.cpus_per_task: must be a positive integer of at most 2147483647",
        ]
    ),
    JobForgotten("task_uuid: Slurm no longer knows the job of align-17; to run the task again, resubmit it"),
    NoJob("task_uuid: the job of the task is not known yet; repeat the request in a minute"),
    NoSuchTask("task_uuid: no task align-17 is recorded here"),
    NotAuthenticated("send a key or a token in the header: Authorization: Bearer <key>"),
    NotDead("the notification 8f14e45f has been sent"),
    NotStarted("task_uuid: the job of align-17 has not begun yet; there is nothing to requeue"),
    NotSupported(
        "this cluster's release of Slurm does not offer to requeue a job; cancel the task, and resubmit it"
    ),
    NotTheOwner("monitor.task.username: job 4711 does not belong to areynolds"),
    RecordTooLarge("MongoDB cannot store the record: it is too large"),
    RequeueDisabled(
        "task_uuid: the job of align-17 was submitted so that it cannot be requeued; resubmit the task"
    ),
    SlurmAmbiguous("it is not known yet whether Slurm accepted task align-17"),
    SlurmMisbehaved("slurmrestd's answer cannot be understood"),
    SlurmRefused("Slurm refused the job: Invalid partition name specified"),
    SlurmUnavailable("slurmctld does not answer"),
    StoreUnavailable("the database does not answer"),
    TooManyJobs("pipeline has 100 jobs waiting or running already", 60),
    TooManyRequests("more than 600 requests in a minute", 12),
    UnknownJob("slurm_job_id: no job 4711 is monitored here"),
    UnknownNotification("there is no notification 8f14e45f"),
    UnknownTask("task_uuid: no task align-17 is recorded here"),
    UnsupportedEncoding("Content-Encoding: gzip is not supported; send the body without it"),
)
_ANSWERS: dict[type[SlurmProxyError], dict[str, Any]] = {
    type(error): {"error": str(error), "code": error.code, **error.extra()} for error in _ERRORS
}


def make_example_answer(error: type[SlurmProxyError]) -> dict[str, Any]:
    """Return an example of the answer to a request that raises `error`."""
    return _ANSWERS[error]
