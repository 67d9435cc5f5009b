"""The body and the answers of `POST /monitor/.../resubmit`.

The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from app.models.answers import DryRun, Submitted
from app.models.rules import Uuid


class ResubmitRequest(BaseModel):
    """The body of a resubmission. Without a body, the same task is submitted under a new uuid."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    uuid: Uuid | None = Field(
        None,
        description="The uuid of the new task. By default the server makes one, the same for each request"
        " with the same `Idempotency-Key`.",
    )
    task: dict[str, Any] = Field(
        default_factory=dict,
        description="Changes to the task, as a JSON merge patch (RFC 7396): objects are merged, null"
        " deletes a key, any other value replaces the old one.",
    )


class Resubmitted(Submitted):
    """The answer to a resubmission: the job that Slurm accepted for the new task."""

    slurm_username: str
    resubmitted_from: str = Field(description="The uuid of the task that was resubmitted.")


class ResubmissionDryRun(DryRun):
    """The answer to the dry run of a resubmission. Nothing was reserved, stored or submitted."""

    task: dict[str, Any] = Field(description="The new task: the earlier one with the changes.")
    resubmitted_from: str = Field(description="The uuid of the task that was resubmitted.")
