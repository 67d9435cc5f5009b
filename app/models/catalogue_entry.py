"""An entry of TASK_METADATA: the operator's settings for all tasks of a name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.models.command_template import (
    fill_params,
    find_placeholders,
    list_template_faults,
    list_unfit_values,
)
from app.models.notification_request import NotificationRequest
from app.models.parameter_faults import list_value_faults
from app.models.parameter_schema import complete_schema, find_schema_fault, list_defaults
from app.models.rules import AbsolutePath, Command, ShellText
from app.models.shell_words import quote
from app.models.slurm_options import SlurmOptions
from app.models.task import Task, list_faults
from app.models.task_defaults import FOLDER_PLACEHOLDERS, select_defaults


class DefaultDirs(BaseModel):
    """Those folders of a task that have a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parent: AbsolutePath | None = None
    error: AbsolutePath | None = None
    input: AbsolutePath | None = None
    output: AbsolutePath | None = None


class CatalogueEntry(BaseModel):
    """The settings for all tasks of a name.

    If there are `parameters`, `${x}` in `default_params` stands for the quoted value of the parameter x.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str | None = None  # for people who read the catalogue
    cmd: Command | None = None
    default_params: tuple[ShellText, ...] = ()
    requires_command: bool = False
    notification: NotificationRequest = NotificationRequest()
    slurm: dict[str, Any] | None = None  # options that a task need not give
    dirs: dict[str, Any] | None = None  # folders that a task need not give
    parameters: dict[str, Any] | None = None  # the JSON Schema of `task.parameters`

    @field_validator("slurm")
    @classmethod
    def _check_options(cls, options: dict[str, Any] | None) -> dict[str, Any] | None:
        for fault in list_faults(SlurmOptions, options, "") if options is not None else ():
            raise _make_error(fault)
        return options

    @field_validator("dirs")
    @classmethod
    def _check_folders(cls, folders: dict[str, Any] | None) -> dict[str, Any] | None:
        for fault in list_faults(DefaultDirs, folders, "") if folders is not None else ():
            raise _make_error(fault)
        for key, folder in (folders or {}).items():
            for name in find_placeholders(folder or ""):
                if name not in FOLDER_PLACEHOLDERS:
                    known = " and ".join(f"${{{word}}}" for word in FOLDER_PLACEHOLDERS)
                    raise _make_error(f"{key}: ${{{name}}} is not known; folders may have {known}")
        return folders

    @field_validator("parameters")
    @classmethod
    def _check_schema(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if schema is None:
            return None
        completed = complete_schema(schema)
        if (fault := find_schema_fault(completed)) is not None:
            raise _make_error(fault)
        return completed

    @model_validator(mode="after")
    def _check_placeholders(self) -> Self:
        """Check each `${x}`; without parameters it is a variable of the shell, as everywhere else."""
        if self.parameters is not None:
            known = self.parameters.get("properties", {})
            always_given = {*self.parameters.get("required", ()), *list_defaults(self.parameters)}
            faults = list_template_faults(self.cmd, self.default_params, known, always_given)
            defaults = list_defaults(self.parameters)
            for fault in (*faults, *list_unfit_values(self.default_params, defaults, "parameters")):
                raise _make_error(fault)
        return self

    def select_defaults(self, task: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Return the defaults for options and folders that the task does not give: see `select_defaults`."""
        parts = (("slurm", self.slurm), ("dirs", self.dirs))
        return select_defaults(task, {part: values for part, values in parts if values is not None})

    def list_parameter_faults(self, given: object, root: str) -> Iterator[str]:
        """Yield the faults of `task.parameters`, each with its path below `root`.

        None stands for a task without parameters.
        """
        if self.parameters is None:
            return
        value = self._add_defaults({} if given is None else given)
        yield from list_value_faults(self.parameters, value, root)
        if isinstance(value, dict):
            yield from list_unfit_values(self.default_params, value, root)

    def build_command(self, task: Task) -> str:
        """Return the line for bash: the words of the catalogue, then those of the task, joined by blanks."""
        own = (task.cmd, *(task.params or ())) if task.argv is None else map(quote, task.argv)
        words = (self.cmd, *self._fill_params(task.parameters), *own)
        return " ".join(word for word in words if word is not None)

    def _fill_params(self, given: Mapping[str, Any] | None) -> Sequence[str]:
        if self.parameters is None or not self.default_params:
            return self.default_params
        return [fill_params(self.default_params, self._add_defaults(given or {}))]

    def _add_defaults(self, given: Any) -> Any:
        """Return the parameters with the defaults of the schema; return any other value unchanged."""
        return {**list_defaults(self.parameters or {}), **given} if isinstance(given, dict) else given


def _make_error(words: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{words}", {"words": words})
