"""Partitions and free CPUs, from answers that the recorded clusters do not give."""

from typing import Any

import pytest

from app.errors import SlurmUnavailable
from app.slurm.cluster_reader import read_partitions
from app.slurm.dialect import Dialect
from app.slurm.reply import Reply


class TwoLists:
    """A session that answers with partitions and nodes."""

    def __init__(self, api: str, partitions: Any, nodes: Any, status: int = 200) -> None:
        self._api = api
        self._bodies = {"partitions": {"partitions": partitions}, "nodes": {"nodes": nodes}}
        self._status = status
        self.asked: list[str] = []

    def dialect(self) -> Dialect:
        return Dialect(self._api)

    def get(self, path: str) -> Reply:
        self.asked.append(path)
        return Reply(self._status, self._bodies[path], "")


def read(*arguments: Any, **options: Any) -> Any:
    session: Any = TwoLists(*arguments, **options)
    found = read_partitions(session)
    assert session.asked == ["partitions", "nodes"]
    return found


def node(*state: str, idle: int = 4, partitions: Any = ("debug",)) -> dict[str, Any]:
    return {"state": [*state], "alloc_idle_cpus": idle, "partitions": [*partitions]}


NEWEST = "v0.0.45"


def test_cpus_of_nodes_that_take_no_jobs_are_not_free() -> None:
    nodes = [
        node("IDLE"),
        node("MIXED", idle=1),
        node("ALLOCATED", idle=0),
        node("IDLE", "DRAIN"),
        node("DOWN", "NOT_RESPONDING"),
        node("IDLE", "RESERVED"),
        node("IDLE", "MAINTENANCE"),
        node("IDLE", "POWERED_DOWN"),
        node("IDLE", partitions=("long", "debug")),
        node("IDLE", partitions=("long",)),
    ]
    debug, long = read(NEWEST, [{"name": "debug"}, {"name": "long"}], nodes)
    assert (debug.available_nodes, debug.free_cpus) == (5, 4 + 1 + 0 + 4 + 4)
    assert (long.available_nodes, long.free_cpus) == (2, 8)


def test_v0_0_38_has_states_in_small_letters_with_their_flags_beside() -> None:
    nodes = [
        {"state": "idle", "state_flags": [], "idle_cpus": 2, "partitions": ["debug"]},
        {"state": "idle", "state_flags": ["DRAIN"], "idle_cpus": 2, "partitions": ["debug"]},
        {"state": "down", "state_flags": ["NOT_RESPONDING"], "idle_cpus": 2, "partitions": ["debug"]},
    ]
    (debug,) = read("v0.0.38", [{"name": "debug", "state": "UP", "flags": ["default"]}], nodes)
    assert (debug.default, debug.available_nodes, debug.free_cpus) == (True, 1, 2)


@pytest.mark.parametrize("limit", [None, 0, -1, 2**32 - 1, 2**32 - 2, {"set": False, "infinite": True}])
def test_no_limit_is_null_however_slurm_writes_it(limit: Any) -> None:
    (plain,) = read("v0.0.38", [{"name": "p", "max_time_limit": limit, "maximum_nodes_per_job": limit}], [])
    (structured,) = read(NEWEST, [{"name": "p", "maximums": {"time": limit, "nodes": limit}}], [])
    for partition in (plain, structured):
        assert partition.max_time_minutes is partition.max_nodes is None


def test_a_partition_without_nodes_has_no_free_cpus() -> None:
    (partition,) = read(NEWEST, [{"name": "empty", "partition": {"state": ["DOWN"]}}], [])
    assert (partition.state, partition.total_nodes, partition.free_cpus) == ("DOWN", 0, 0)


@pytest.mark.parametrize(("partitions", "status"), [([], 500), (None, 200), ("no list", 200)])
def test_an_answer_without_a_list_is_no_answer(partitions: Any, status: int) -> None:
    session: Any = TwoLists(NEWEST, partitions, [], status)
    with pytest.raises(SlurmUnavailable, match="slurmctld does not answer"):
        read_partitions(session)
