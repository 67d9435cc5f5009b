"""Describe the partitions and the only node of the local cluster as slurmrestd v0.0.45 does."""

from collections.abc import Sequence
from typing import Any

from app.demo.cluster.job import NODE
from app.demo.cluster.queue import LocalQueue
from app.demo.cluster.wire import structured_number
from app.job_state import JobState

_LIMITS = ("time", "nodes", "cpus_per_node", "partition_memory_per_node", "partition_memory_per_cpu")


def describe_partitions(names: Sequence[str], cpus: int) -> list[dict[str, Any]]:
    """Return the items of `partitions`, the default one first; there are no limits."""
    unlimited = {"set": False, "infinite": True, "number": 0}
    return [
        {
            "name": name,
            "nodes": {"configured": NODE, "total": 1},
            "cpus": {"total": cpus},
            "flags": ["DEFAULT"] if name == names[0] else [],
            "partition": {"state": ["UP"]},
            "maximums": dict.fromkeys(_LIMITS, unlimited),
            "defaults": dict.fromkeys(_LIMITS, structured_number(None)),
        }
        for name in names
    ]


def describe_node(partitions: Sequence[str], queue: LocalQueue) -> dict[str, Any]:
    """Return the item of `nodes`."""
    used = sum(job.cpus for job in queue.recent() if job.state is JobState.RUNNING)
    return {
        "name": NODE,
        "hostname": NODE,
        "state": ["IDLE" if not used else "MIXED" if used < queue.cpus else "ALLOCATED"],
        "partitions": [*partitions],
        "cpus": queue.cpus,
        "alloc_cpus": used,
        "alloc_idle_cpus": queue.cpus - used,
    }
