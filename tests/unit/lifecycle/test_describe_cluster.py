"""The cluster as callers see it: asked for once a minute, and kept while Slurm does not answer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.lifecycle.describe_cluster import ClusterDescription
from app.models.record import utc_now
from app.store.sqlite import SqliteStore
from tests.support.fakes import make_partition
from tests.support.lifecycle import Service

MINUTE = timedelta(minutes=1)


class Process:
    """A process that describes the cluster, at a time of the test's choice."""

    def __init__(self, service: Service, path: Path) -> None:
        self.ahead = timedelta(0)
        self.slurm = service.slurm
        self._store = SqliteStore(path, host_clock=lambda: utc_now() + self.ahead)
        self.description = ClusterDescription(
            self._store, service.client, clock=lambda: self.ahead.total_seconds()
        )

    @property
    def requests(self) -> int:
        return self.slurm.calls.count("read_partitions")

    def close(self) -> None:
        self._store.close()


@pytest.fixture
def processes(service: Service, tmp_path: Path) -> Iterator[list[Process]]:
    made = [Process(service, tmp_path / "store.sqlite3") for _ in range(2)]
    yield made
    for process in made:
        process.close()


def test_all_callers_of_all_processes_share_one_answer_a_minute(processes: list[Process]) -> None:
    one, other = processes
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda _: one.description.describe(), range(50))]
    assert found == [found[0]] * 50
    assert other.description.describe() == found[0]
    assert one.requests == 1
    one.slurm.partitions = [make_partition(free_cpus=1)]
    one.ahead = other.ahead = MINUTE
    assert one.description.describe().partitions[0].free_cpus == 1
    assert other.description.describe().partitions[0].free_cpus == 1
    assert one.requests == 2


def test_the_last_known_partitions_are_stale_while_slurm_does_not_answer(processes: list[Process]) -> None:
    one, _ = processes
    fresh = one.description.describe()
    assert (fresh.slurm_answers, fresh.stale, fresh.error) == (True, False, None)
    one.slurm.down = SlurmUnavailable("slurmctld does not answer")
    one.ahead = 2 * MINUTE
    stale = one.description.describe()
    assert (stale.slurm_answers, stale.stale, stale.error) == (False, True, "slurmctld does not answer")
    assert (stale.as_of, stale.partitions) == (fresh.as_of, fresh.partitions)
    asked = one.requests
    one.description.describe()
    assert one.requests == asked
    one.slurm.down = None
    one.ahead += timedelta(seconds=11)
    assert one.description.describe().slurm_answers


def test_a_known_outage_shows_at_once(processes: list[Process]) -> None:
    one, _ = processes
    one.description.describe()
    one.slurm.known_down = SlurmUnavailable("away")
    assert one.description.describe().stale
    one.slurm.known_down = None
    assert not one.description.describe().stale


@pytest.mark.parametrize("failure", [SlurmUnavailable("away"), SlurmMisbehaved("no JSON")])
def test_without_any_known_partitions_the_failure_is_the_answer(
    processes: list[Process], failure: SlurmUnavailable | SlurmMisbehaved
) -> None:
    one, other = processes
    one.slurm.down = failure
    for _ in range(2):
        with pytest.raises(type(failure)):
            one.description.describe()
    assert one.requests == 1
    one.slurm.down = None
    assert other.description.describe().slurm_answers
    assert one.description.describe().slurm_answers


def test_a_store_that_cannot_be_written_does_not_hide_the_cluster(
    processes: list[Process], service: Service
) -> None:
    with service.store.writing():
        assert processes[0].description.describe().partitions
