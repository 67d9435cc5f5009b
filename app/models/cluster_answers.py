"""The answer of `GET /cluster` (`Cluster`).

The OpenAPI document is made of these models: callers read their docstrings and descriptions.
"""

from pydantic import BaseModel, Field

from app.models.job import Utc


class Partition(BaseModel):
    """A partition of the cluster. A limit is null where there is none."""

    name: str
    state: str = Field(description="The state in Slurm: UP, DOWN, DRAIN or INACTIVE.")
    default: bool | None = Field(
        description="Whether tasks without `partition` run here; null where Slurm's release does not say."
    )
    total_nodes: int
    available_nodes: int = Field(description="The nodes that are not down, drained or reserved.")
    total_cpus: int
    free_cpus: int = Field(description="The CPUs of available nodes that no job uses.")
    max_time_minutes: int | None
    default_time_minutes: int | None = Field(description="The time limit of a task without `time`.")
    max_nodes: int | None = Field(description="The most nodes that one job may have.")
    max_cpus_per_node: int | None
    max_memory_mb_per_node: int | None
    max_memory_mb_per_cpu: int | None
    default_memory_mb_per_node: int | None = Field(description="The memory of a task without `mem`.")
    default_memory_mb_per_cpu: int | None


class Cluster(BaseModel):
    """The partitions of the cluster. While Slurm answers, they are at most a minute old."""

    slurm_answers: bool = Field(description="Whether Slurm answers at the moment.")
    as_of: Utc = Field(description="When Slurm reported the partitions.")
    stale: bool = Field(description="Whether these are older facts, because Slurm does not answer.")
    error: str | None = Field(description="Why Slurm does not answer.")
    partitions: list[Partition]
