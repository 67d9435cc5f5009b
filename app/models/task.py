"""The requests of `/submit` and `/monitor`. Records keep tasks verbatim, beside these models."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.close_matches import MAX_WORD_LENGTH, find_similar_word
from app.errors import InvalidRequest
from app.job_state import JobState
from app.models.faults import describe_fault, normalize_key
from app.models.notification_request import NotificationRequest
from app.models.rules import (
    AbsolutePath,
    Command,
    JobId,
    Line,
    Rule,
    ShellText,
    Uuid,
)
from app.models.slurm_options import SlurmOptions
from app.models.username import Username

_Model = TypeVar("_Model", bound=BaseModel)

_MAX_COMPARED_KEYS = 100  # of the caller's own
_MIN_SIMILARITY = 0.85  # of 1: "enviroment" is as similar to a known key, "notes" is not to "nodes"


class Dirs(BaseModel):
    """The folders of a job. The job creates those that do not exist."""

    model_config = ConfigDict(extra="allow", frozen=True)

    parent: AbsolutePath
    error: AbsolutePath
    input: AbsolutePath
    output: AbsolutePath

    def list_all(self) -> Iterator[str]:
        """Return the four folders, the parent first, each once."""
        return iter(dict.fromkeys((self.parent, self.input, self.output, self.error)))


def _refuse_service_user(username: str, info: ValidationInfo) -> str:
    if username in (info.context or {}).get("refused_users", ()):
        raise PydanticCustomError(
            "rule", "must not be {name}: this server runs no jobs as that user", {"name": username}
        )
    return username


class Task(BaseModel):
    """A task to submit. Further keys are allowed; they are stored and returned unchanged."""

    # With a validation context, names and users are held against the catalogue and the refused users.
    model_config = ConfigDict(extra="allow", frozen=True)

    name: Line = Field(description="A name in this server's catalogue of tasks.")
    username: Annotated[Username, AfterValidator(_refuse_service_user)] = Field(
        description="The user that the job runs as and that owns the files it writes."
    )
    cwd: AbsolutePath = Field(description="The job's working directory.")
    uuid: Uuid = Field(description="The id of the task. Each uuid can be used only once, even after years.")
    dirs: Dirs
    slurm: SlurmOptions
    argv: tuple[ShellText, ...] | None = Field(
        None,
        min_length=1,
        description="The command and its arguments, instead of `cmd` and `params`. The arguments reach the"
        " command unchanged: bash evaluates nothing in them.",
    )
    cmd: Command | None = Field(
        None, validate_default=True, description="The command, which bash evaluates on the node."
    )
    params: tuple[ShellText, ...] | None = Field(
        None,
        validate_default=True,
        description="The words after `cmd`, joined by spaces; bash evaluates them, too. `[]` for none.",
    )
    parameters: Any = Field(
        None,
        description="The parameters of the task name, if it has any: `GET /catalogue` shows their schema."
        " For other names, a key of the caller's own.",
    )
    notification: NotificationRequest = NotificationRequest()

    @field_validator("name")
    @classmethod
    def _require_catalogue_entry(cls, name: str, info: ValidationInfo) -> str:
        if info.context is not None and name not in info.context["catalogue"]:
            words = "must be one of " + ", ".join(info.context["catalogue"])
            raise PydanticCustomError("rule", "{words}", {"words": words})
        return name

    @field_validator("slurm")
    @classmethod
    def _refuse_folder_in_job_name(cls, options: SlurmOptions, info: ValidationInfo) -> SlurmOptions:
        """Refuse a job name with which %x would lead into another folder."""
        source, name = ("job_name", options.job_name) if options.job_name else ("name", info.data.get("name"))
        if "/" in (name or "") and options.has_pattern("x"):
            words = "must not have %x in the name of a file while {source} has a /"
            raise PydanticCustomError("rule", words, {"source": source})
        return options

    @field_validator("cmd", "params")
    @classmethod
    def _require_command(cls, value: Any, info: ValidationInfo) -> Any:
        name, argv = info.data.get("name"), info.data.get("argv", ())  # () for one that is not valid
        if value is not None and argv:
            raise PydanticCustomError(
                "rule", "must not be given together with argv, which replaces cmd and params"
            )
        is_missing = value is None and argv is None
        if is_missing and info.context and name and info.context["catalogue"][name].requires_command:
            words = "is required for {name}, unless argv is given"
            raise PydanticCustomError("rule", words, {"name": name})
        return value


class RunAs(BaseModel):
    """The user in the query of `POST /slurm/job/submit`: the job runs as this user."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    username: Annotated[Username, AfterValidator(_refuse_service_user)]


class WatchedTask(BaseModel):
    """The task of a job that exists already. Further keys are allowed, and only stored."""

    model_config = ConfigDict(extra="allow", frozen=True)

    username: Annotated[Username, AfterValidator(_refuse_service_user)]
    uuid: Uuid
    name: Line | None = None
    notification: NotificationRequest = NotificationRequest()


class SubmitRequest(BaseModel):
    """The body of `POST /submit`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task


class WatchedJob(BaseModel):
    """A job that was submitted elsewhere. Further keys are ignored, so that a record can be sent again."""

    model_config = ConfigDict(extra="allow", frozen=True)

    task: WatchedTask
    slurm_job_id: JobId
    slurm_job_state: Annotated[JobState, Rule("be one of Slurm's job states")] | None = None


class MonitorRequest(BaseModel):
    """The body of `POST /monitor`: a job to monitor."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    monitor: WatchedJob


def parse_request(model: type[_Model], body: object, context: Mapping[str, Any] | None = None) -> _Model:
    """Return `body` as a `model`.

    Raises:
        InvalidRequest: The body has faults; the error lists all, each with its path.
    """
    try:
        return model.model_validate(body, context=dict(context) if context else None)
    except ValidationError as error:
        raise InvalidRequest(describe_fault(model, fault, "") for fault in error.errors()) from None


def list_faults(
    model: type[BaseModel], value: object, root: str, context: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Yield the faults of `value` as a `model`, each with its path below `root`."""
    try:
        model.model_validate(value, context=dict(context or {}))
    except ValidationError as error:
        for fault in error.errors():
            yield describe_fault(model, fault, root)


def suggest_misspelt_keys(task: Task | WatchedTask) -> Iterator[str]:
    """Yield a question for each key of the caller's own that is similar to a known key that was not given."""
    options = task.slurm if isinstance(task, Task) else None
    known = {name: f"slurm.{name}" for name in type(options).model_fields} if options else {}
    known |= {name: name for name in type(task).model_fields}
    given = (options.model_fields_set if options else set()) | task.model_fields_set
    for key in islice(task.model_extra or {}, _MAX_COMPARED_KEYS):
        near = find_similar_word(normalize_key(key), known, _MIN_SIMILARITY)
        if near and key not in known and near not in given:
            words = f"is not a known key, and is only stored; did you mean {known[near]}?"
            yield f"task.{key[:MAX_WORD_LENGTH]}: {words}"
