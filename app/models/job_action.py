"""The actions that change a job, and their answers."""

from enum import StrEnum

from pydantic import BaseModel, Field

from app.job_state import JobState


class JobAction(StrEnum):
    """Action on the job of a task."""

    CANCEL = "cancel"
    HOLD = "hold"
    RELEASE = "release"
    REQUEUE = "requeue"

    @property
    def participle(self) -> str:
        """Return the participle, such as "held"."""
        return _PARTICIPLES[self]


_PARTICIPLES = {
    JobAction.CANCEL: "cancelled",
    JobAction.HOLD: "held",
    JobAction.RELEASE: "released",
    JobAction.REQUEUE: "requeued",
}


class Controlled(BaseModel):
    """The job after it was cancelled, held, released or requeued."""

    uuid: str
    slurm_job_id: int
    slurm_username: str
    slurm_job_state: JobState = Field(description="The state that Slurm reports afterwards.")
    changed: bool = Field(
        description="Whether the request changed the job: false if there was nothing left to do, as when the"
        " request is repeated."
    )
