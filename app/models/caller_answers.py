"""The answers of `GET /whoami` (`DescribedCaller`) and `GET /catalogue` (`TaskCatalogue`).

The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.models.caller import Scope


class ShownGrant(BaseModel):
    """A permission of the caller: what the caller may do, for which users, within which limits."""

    scopes: list[Scope]
    users: Literal["any"] | list[str] = Field(description='The users to act for; "any" for all users.')
    groups: list[str] = Field(description="Unix groups whose members are further users.")
    partitions: list[str] | None = Field(description="The partitions that a task may name; null for any.")
    accounts: list[str] | None = Field(description="The accounts that a task may name; null for any.")
    recipients: list[str] | None = Field(
        description="Patterns of method:receiver that must cover each receiver; null for any receiver."
    )


class RemainingLimit(BaseModel):
    """A limit of the caller, and what is left of it."""

    limit: int
    remaining: int | None = Field(description="What is left; null while the server cannot count.")


class CallerLimits(BaseModel):
    """The limits of the caller, over all processes; null for what is not limited."""

    requests_per_minute: RemainingLimit | None = Field(
        description="The requests of this minute. This request is counted already."
    )
    open_tasks: RemainingLimit | None = Field(
        description="The tasks that may wait or run at a time; an array counts as one."
    )


class DescribedCaller(BaseModel):
    """The caller, with permissions and limits."""

    name: str = Field(description="The caller's name in the log and in the audit trail.")
    authenticated: bool = Field(description="False if this server needs no authentication.")
    grants: list[ShownGrant] = Field(
        description="The permissions, which add up. One of them must cover the whole task of a submission."
    )
    limits: CallerLimits


class CatalogueTask(BaseModel):
    """A task name of this server, with the operator's settings for all tasks of the name."""

    name: str
    description: str | None
    cmd: str | None = Field(description="The command, which bash evaluates on the node.")
    default_params: list[str] = Field(
        description="The words after `cmd`. Those of the task's own `cmd` and `params` follow."
    )
    requires_command: bool = Field(description="Whether a task must have `cmd` and `params`, or `argv`.")
    slurm: dict[str, Any] | None = Field(
        description="The defaults of `task.slurm`; null if a task must have `slurm`. The task's own keys have"
        " precedence."
    )
    dirs: dict[str, Any] | None = Field(
        description="The defaults of `task.dirs`; null if a task must have `dirs`."
    )
    parameters: dict[str, Any] | None = Field(
        description="The JSON Schema (2020-12) of `task.parameters`; null if the name has no parameters. In"
        " `default_params`, `${x}` stands for the quoted value of the parameter x."
    )
    notification_methods: list[str] = Field(
        description="The methods by which each task of the name sends messages. A task may add others."
    )


class TaskCatalogue(BaseModel):
    """The task names of this server."""

    catalogue: list[CatalogueTask]
