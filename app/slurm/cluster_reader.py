"""Read the partitions and the nodes of the cluster, in the forms of all API versions.

Both lists are one request each, whatever the number of partitions. The list of partitions has their limits
and totals. Only the list of nodes shows which CPUs are free: about 3 kB for each node.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import SlurmUnavailable
from app.models.cluster_answers import Partition
from app.slurm.reply import Reply
from app.slurm.session import Session
from app.slurm.values import Raw, as_number, as_object, as_text

_NO_LIMIT = 2**32 - 100  # Slurm's numbers for "no limit" and "not set" in 32 bits are above it
# States and flags of a node on which no job of everybody's can start.
_UNAVAILABLE = frozenset(
    {
        *("DOWN", "DRAIN", "DRAINED", "DRAINING", "ERROR", "FAIL", "FAILED", "FAILING", "FUTURE"),
        *("INVALID", "INVALID_REG", "MAINT", "MAINTENANCE", "NOT_RESPONDING", "NO_RESPOND"),
        *("POWERING_DOWN", "REBOOT", "REBOOT_ISSUED", "REBOOT_REQUESTED", "RESERVED", "UNKNOWN"),
    }
)


@dataclass(slots=True)
class _FreeCpus:
    """The available nodes of a partition, and their free CPUs."""

    nodes: int = 0
    cpus: int = 0


def read_partitions(session: Session) -> list[Partition]:
    """Return the partitions in Slurm's order.

    Raises:
        SlurmUnavailable: Slurm does not answer.
        SlurmMisbehaved: Slurm's answer cannot be used.
    """
    partitions = _require_list("partitions", session.get("partitions"))
    free = _count_free_cpus(_require_list("nodes", session.get("nodes")))
    read = _read_structured if session.dialect().is_structured else _read_plain
    return [read(raw, free[str(raw.get("name"))]) for raw in partitions]


def _require_list(name: str, reply: Reply) -> list[Raw]:
    """Return the objects of a list.

    Raises:
        SlurmUnavailable: The answer is an error, or has no such list.
    """
    items = reply.body.get(name)
    if reply.status != 200 or reply.errors() or not isinstance(items, list):
        raise SlurmUnavailable(f"slurmctld does not answer: {reply.complaint()}")
    return [item for item in items if isinstance(item, Mapping)]


def _count_free_cpus(nodes: Iterable[Raw]) -> Mapping[str, _FreeCpus]:
    """Return the available nodes and their free CPUs, by the name of the partition."""
    free: defaultdict[str, _FreeCpus] = defaultdict(_FreeCpus)
    for node in nodes:
        if _UNAVAILABLE & set(_read_words(node.get("state"), node.get("state_flags"))):
            continue
        cpus = as_number(node.get("alloc_idle_cpus", node.get("idle_cpus"))) or 0
        for name in _read_names(node.get("partitions")):
            free[name].nodes += 1
            free[name].cpus += max(cpus, 0)
    return free


def _read_words(*values: object) -> Iterator[str]:
    """Yield states and flags in capitals; v0.0.38 has the state as a word in small letters."""
    for value in values:
        for word in value if isinstance(value, list) else [value]:
            yield from str(word or "").upper().replace("+", " ").split()


def _read_names(value: object) -> list[str]:
    names = value if isinstance(value, list) else str(value or "").split(",")
    return [str(name) for name in names if name]


def _read_plain(raw: Raw, free: _FreeCpus) -> Partition:
    """Return a partition of v0.0.38."""
    return Partition(
        **_read_common(raw, raw.get("state"), raw.get("flags"), free),
        total_nodes=as_number(raw.get("total_nodes")) or 0,
        total_cpus=as_number(raw.get("total_cpus")) or 0,
        max_time_minutes=_read_limit(raw.get("max_time_limit")),
        default_time_minutes=_read_limit(raw.get("default_time_limit")),
        max_nodes=_read_limit(raw.get("maximum_nodes_per_job")),
        max_cpus_per_node=_read_limit(raw.get("maximum_cpus_per_node")),
        max_memory_mb_per_node=_read_limit(raw.get("maximum_memory_per_node")),
        max_memory_mb_per_cpu=_read_limit(raw.get("maximum_memory_per_cpu")),
        default_memory_mb_per_node=_read_limit(raw.get("default_memory_per_node")),
        default_memory_mb_per_cpu=_read_limit(raw.get("default_memory_per_cpu")),
    )


def _read_structured(raw: Raw, free: _FreeCpus) -> Partition:
    """Return a partition of v0.0.40 or newer."""
    maximums, defaults = as_object(raw.get("maximums")), as_object(raw.get("defaults"))
    return Partition(
        **_read_common(raw, as_object(raw.get("partition")).get("state"), raw.get("flags"), free),
        total_nodes=as_number(as_object(raw.get("nodes")).get("total")) or 0,
        total_cpus=as_number(as_object(raw.get("cpus")).get("total")) or 0,
        max_time_minutes=_read_limit(maximums.get("time")),
        default_time_minutes=_read_limit(defaults.get("time")),
        max_nodes=_read_limit(maximums.get("nodes")),
        max_cpus_per_node=_read_limit(maximums.get("cpus_per_node")),
        max_memory_mb_per_node=_read_limit(maximums.get("partition_memory_per_node")),
        max_memory_mb_per_cpu=_read_limit(maximums.get("partition_memory_per_cpu")),
        default_memory_mb_per_node=_read_limit(defaults.get("partition_memory_per_node")),
        default_memory_mb_per_cpu=_read_limit(defaults.get("partition_memory_per_cpu")),
    )


def _read_common(raw: Raw, state: object, flags: object, free: _FreeCpus) -> dict[str, Any]:
    return {
        "name": as_text(raw.get("name")) or "",
        "state": next(_read_words(state), "UNKNOWN"),
        "default": "DEFAULT" in _read_words(flags) if flags is not None else None,
        "available_nodes": free.nodes,
        "free_cpus": free.cpus,
    }


def _read_limit(value: object) -> int | None:
    """Return a limit; None where there is none, which Slurm writes as 0, -1, null or a very large number."""
    limit = as_number(value)
    return limit if limit is not None and 0 < limit < _NO_LIMIT else None
