"""Every error that slurm-proxy raises on purpose, in one tree.

The class decides the HTTP status, the machine code, and whether the caller should retry. The first line of
its docstring is the meaning of the code in the OpenAPI document.
"""

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, ClassVar

from click import ClickException

_MAX_FAULTS = 100


class SlurmProxyError(Exception):
    """Base of all errors of this project; the message is one sentence.

    The log and the operator get the message. Callers get `for_callers`. It never contains the
    address of a host behind this service, the path of a file, or a message of a driver.
    """

    failing_part: ClassVar[str | None] = None  # the part of this service that has an outage
    message_for_callers: ClassVar[str | None] = None  # in place of the message of each error of this class
    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    retry_after: ClassVar[int | None] = None  # seconds; set where a retry may succeed

    def __init__(self, message: str, *, for_callers: str | None = None) -> None:
        """Keep both messages; `for_callers` is the message itself by default."""
        super().__init__(message)
        self.for_callers = for_callers or self.message_for_callers or message

    def extra(self) -> Mapping[str, Any]:
        """Return further fields of the JSON answer, beside `error` and `code`."""
        return {}


class SettingsError(SlurmProxyError, ClickException):
    """A setting is missing or wrong; the message names the setting. `flask` shows it in one line."""

    code = "settings"
    exit_code = 2


class InvalidRequest(SlurmProxyError):
    """The request is not valid; all faults are listed, each with the path of its field.

    At most a hundred faults are listed. `faults` may be lazy: the rest is not computed.
    """

    status = 400
    code = "invalid_request"

    def __init__(self, faults: Iterable[str]) -> None:
        """List the faults, each `<path>: <rule>`."""
        listed = list(islice(faults, _MAX_FAULTS + 1))
        if len(listed) > _MAX_FAULTS:
            listed[_MAX_FAULTS:] = ["and more"]
        super().__init__("; ".join(listed))
        self.faults = listed

    def extra(self) -> Mapping[str, Any]:
        """Return the list of faults."""
        return {"details": self.faults}


class UnsupportedEncoding(SlurmProxyError):
    """The body is compressed, or has another content encoding that is not supported."""

    status = 415
    code = "unsupported_encoding"


class DuplicateUuid(SlurmProxyError):
    """The uuid is in use. `slurm_job_id` is its job, if there is one and the user is the same, else null.

    The message is the same for both routes that use a uuid. So it names `task.uuid` even after
    `POST /monitor`, whose other messages name `monitor.task.uuid`.
    """

    status = 400
    code = "duplicate_uuid"

    def __init__(self, uuid: str, slurm_job_id: int | None) -> None:
        """Name the uuid and its job."""
        job = f" by job {slurm_job_id}" if slurm_job_id else ""
        super().__init__(f"task.uuid: {uuid} is already used{job}")
        self.slurm_job_id = slurm_job_id

    def extra(self) -> Mapping[str, Any]:
        """Return the job of the uuid."""
        return {"slurm_job_id": self.slurm_job_id}


class IdempotencyKeyReused(SlurmProxyError):
    """The idempotency key was used before, with another request."""

    status = 400
    code = "idempotency_key_reused"


class UnknownTask(SlurmProxyError):
    """No record has this uuid.

    The look-up, `GET /monitor/task_uuid/<uuid>`, answers 400, for which clients of the older server test.
    The actions on a task, such as a cancellation, raise NoSuchTask.
    """

    status = 400
    code = "unknown_task"


class NoSuchTask(SlurmProxyError):
    """No record has this uuid.

    The actions on a task, by uuid and by job id, answer 404, which HTTP means for this. The look-up raises
    UnknownTask.
    """

    status = 404
    code = "unknown_task"


class AlreadyOver(SlurmProxyError):
    """The job has ended, so that it can neither be held nor released."""

    status = 409
    code = "already_over"


class NoJob(SlurmProxyError):
    """The task has no job, or its job is not known yet."""

    status = 409
    code = "no_job"


class JobForgotten(SlurmProxyError):
    """Slurm no longer knows the job of the task."""

    status = 409
    code = "job_forgotten"


class AlreadyRunning(SlurmProxyError):
    """The job has begun; only a job that waits can be held."""

    status = 409
    code = "already_running"


class NotStarted(SlurmProxyError):
    """The job waits for its first start, so that there is nothing to requeue."""

    status = 409
    code = "not_started"


class HeldByAdministrator(SlurmProxyError):
    """An administrator of the cluster holds the job, and only they can release it."""

    status = 409
    code = "held_by_administrator"


class RequeueDisabled(SlurmProxyError):
    """The job was submitted with `requeue: false`, or the cluster does not requeue jobs."""

    status = 409
    code = "requeue_disabled"


class NotSupported(SlurmProxyError):
    """The cluster's release of Slurm does not offer this."""

    status = 409
    code = "not_supported"


class UnknownJob(SlurmProxyError):
    """Slurm has no such job, or this service has no record of the job."""

    status = 400
    code = "unknown_job"


class UnknownNotification(SlurmProxyError):
    """No notification has this id."""

    status = 404
    code = "unknown_notification"


class NotDead(SlurmProxyError):
    """The notification is neither dead nor waiting for its next attempt, so it cannot be retried."""

    status = 409
    code = "not_dead"


class NotTheOwner(SlurmProxyError):
    """The job belongs to another user than the one in the request."""

    status = 400
    code = "not_the_owner"


class NotAuthenticated(SlurmProxyError):
    """The request has no valid API key or token."""

    status = 401
    code = "not_authenticated"


class IdentityProviderUnavailable(SlurmProxyError):
    """The identity provider does not answer, so its keys for checking tokens cannot be fetched."""

    failing_part = "the identity provider"
    status = 503
    code = "identity_provider_unavailable"
    retry_after = 10


class Forbidden(SlurmProxyError):
    """The caller has no permission for this request."""

    status = 403
    code = "forbidden"


class TooManyRequests(SlurmProxyError):
    """The caller has reached the rate limit for requests or for failed attempts to authenticate."""

    status = 429
    code = "too_many_requests"

    def __init__(self, words: str, seconds: float) -> None:
        """Set the message, and after how many seconds the caller may retry."""
        super().__init__(words)
        self.retry_after = max(1, math.ceil(seconds))  # type: ignore[misc]


class TooManyJobs(TooManyRequests):
    """The caller has reached the limit on jobs that wait or run."""

    code = "too_many_jobs"


class SlurmRefused(SlurmProxyError):
    """Slurm refused the request and did nothing; the message has Slurm's reason."""

    status = 400
    code = "slurm_refused"


class SlurmUnavailable(SlurmProxyError):
    """Slurm does not answer, or cannot serve the request at the moment; the request may be repeated.

    A submission is not carried out. It may be unknown whether a job is cancelled, held, released or requeued.
    """

    failing_part = "Slurm"
    status = 503
    code = "slurm_unavailable"
    retry_after = 10


class ClocksDisagree(SlurmUnavailable):
    """This host's clock or the store's is too far from Slurm's; nothing was done."""

    failing_part = "the clocks"
    code = "clocks_disagree"
    retry_after = 60


class SlurmBusy(SlurmUnavailable):
    """All connections to Slurm are busy; the request was not sent."""


class SlurmReadAborted(SlurmUnavailable):
    """A GET was ended because an outage of Slurm was noticed."""


class RequestTooLong(SlurmUnavailable):
    """A long GET was refused, or slurmrestd closed its connection; a shorter GET may succeed."""


class CancellationBusy(SlurmProxyError):
    """The server is busy with the bulk cancellation of another request; nothing was cancelled."""

    status = 503
    code = "cancellation_busy"
    retry_after = 10


class SlurmMisbehaved(SlurmProxyError):
    """The answer of slurmrestd cannot be read, or slurmrestd refuses this service."""

    failing_part = "Slurm"
    status = 502
    code = "slurm_error"
    retry_after = 30


class SlurmTokenRefused(SlurmMisbehaved):
    """Slurm does not accept the tokens of this service: the key or a clock is wrong."""


class SlurmAnswerTooLarge(SlurmMisbehaved):
    """The answer of slurmrestd to a GET has more bytes than the request allows for."""


class NoCommonVersion(SlurmMisbehaved):
    """slurmrestd offers no API version that is supported here; `offered` is empty where it offers none."""

    def __init__(self, words: str, offered: list[str]) -> None:
        """Set the message, and the API versions that slurmrestd offers."""
        super().__init__(words)
        self.offered = offered


class SlurmAmbiguous(SlurmProxyError):
    """Slurm gave no usable answer: the request may have been carried out or not."""

    status = 504
    code = "submission_unknown"
    retry_after = 30


class RefusalWithoutReason(SlurmAmbiguous):
    """Slurm answered with an error without a reason, as it does when a submit plugin of the site refuses."""


class RecordTooLarge(SlurmProxyError):
    """The task is too large for the database."""

    message_for_callers = "the task is too large to be stored"
    status = 400
    code = "record_unfit"


class StoreUnavailable(SlurmProxyError):
    """The database does not answer; tasks that were acknowledged before are not lost."""

    message_for_callers = "the database of this service does not answer"
    failing_part = "the store"
    status = 503
    code = "store_unavailable"
    retry_after = 5


class StoreTimeout(StoreUnavailable):
    """The database has not answered in time, or could not be reached in that time."""


class StoreRefused(StoreUnavailable):
    """The store refuses this service, because of a wrong password or a file that cannot be used."""


class CopyFailed(SlurmProxyError):
    """A backup, an export or an import cannot be made; only commands raise this."""

    code = "copy_failed"


class DeliveryFailed(SlurmProxyError):
    """A message was not delivered."""

    code = "delivery_failed"

    def __init__(
        self,
        reason: str,
        *,
        permanent: bool,
        retry_after: float | None = None,
        is_of_channel: bool = False,
        for_callers: str | None = None,
    ) -> None:
        """Set the reason.

        Args:
            reason: The message for the log.
            permanent: Whether a retry cannot succeed.
            retry_after: How long the receiver asked to wait, in seconds.
            is_of_channel: Whether all other messages by this channel would fail, too.
            for_callers: The reason without the address of a host or the message of a driver.
        """
        super().__init__(reason, for_callers=for_callers)
        self.permanent = permanent
        self.retry_after_seconds = retry_after
        self.is_of_channel = is_of_channel
