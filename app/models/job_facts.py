"""The facts about a job in a message."""

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class JobFacts(BaseModel):
    """The facts about a job in a message, by names that programs can rely on.

    A fact that is not known is None, and absent in the stored message and in the message to a program. A
    newer version may have stored further facts; they reach programs as they are.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    task_uuid: str | None = None
    slurm_job_id: int | None = None
    slurm_job_state: str | None = None
    name: str | None = None
    username: str | None = None
    reason: str | None = None  # none for a job that succeeded
    exit_code: int | None = None
    signal: int | None = None
    array_tasks: dict[str, int] | None = None  # how many tasks of an array are in which state
    failed_tasks: str | None = None  # the indices of the array's tasks that failed, such as "2,7-9"
    start_time: str | None = None  # ISO 8601
    end_time: str | None = None
    run_seconds: float | None = None
    time_limit_seconds: int | None = None
    cpus: int | None = None
    cpu_seconds: float | None = None
    cpu_efficiency: float | None = None  # the share of its CPUs that the job kept busy, 0 to 1
    max_memory_bytes: int | None = None
    memory_bytes: int | None = None  # requested
    output: str | None = None  # the file of standard output
    error_output: str | None = None

    @model_serializer(mode="wrap")
    def _leave_out_unknown(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}
