"""Several processes share outages of Slurm through their store; their slurmrestd is not the same."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.lifecycle.shared_status import StatusReader
from app.lifecycle.watch_outages import OutageWatch
from app.slurm.client import SlurmClient
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from app.store.sqlite import SqliteStore
from tests.conftest import until
from tests.support.stores import NOW

SECOND = timedelta(seconds=1)
DOWN = Reply(502, {"errors": [{"error_number": 1800, "error": "Unable to contact"}]}, "")
UP = Reply(200, {"errors": []}, "")


class Slurmrestd:
    """Stands where Connection does."""

    host = "http://slurm.example"
    max_call_seconds = 36.0
    read_timeout = 30.0

    def __init__(self) -> None:
        self.is_down = False
        self.asked: list[str] = []

    def abort_reads(self) -> None:
        pass

    def send(self, request: SlurmRequest) -> Reply:
        self.asked.append(request.path)
        return DOWN if self.is_down else UP


class Process:
    """One process of the service, whose loops a test moves on by hand."""

    def __init__(self, name: str, path: Path, slurmrestd: Slurmrestd) -> None:
        self.store = SqliteStore(path)
        self.store.prepare()
        wire: Any = slurmrestd
        self.session = Session(wire, "slurm")
        self.session.get("partitions")
        self.status = StatusReader(self.store)
        self.watch = OutageWatch(self.store, SlurmClient(self.session), self.status, lambda: name)

    @property
    def is_open(self) -> bool:
        return self.session.outage is not None

    def meet_outage(self) -> None:
        self.session.get("diag")
        assert self.is_open

    def exchange(self, now: datetime) -> None:
        """Read the shared status, and let a probe end that this has begun."""
        self.watch.exchange(now)
        until(lambda: not self.session.breaker._probing, 5, "the end of a probe")


class Site:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.slurmrestd = Slurmrestd()
        self.processes: list[Process] = []

    def start(self, name: str, slurmrestd: Slurmrestd | None = None) -> Process:
        self.processes.append(Process(name, self.path, slurmrestd or self.slurmrestd))
        return self.processes[-1]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "store.sqlite3")
    yield site
    for process in site.processes:
        process.store.close()


def test_an_outage_that_one_process_meets_opens_the_circuit_of_all(site: Site) -> None:
    one, other = site.start("one"), site.start("other")
    site.slurmrestd.is_down = True
    one.meet_outage()
    other.exchange(NOW)
    assert not other.is_open
    one.exchange(NOW)
    other.exchange(NOW)
    assert other.is_open
    assert one.status.outages.keys() <= {"one"}


def test_only_one_process_reports_an_outage(site: Site) -> None:
    one, other = site.start("one"), site.start("other")
    site.slurmrestd.is_down = True
    one.meet_outage()
    one.exchange(NOW)
    for second in range(5):
        other.exchange(NOW + second * SECOND)
        assert other.status.outages.keys() == {"one"}


def test_a_report_is_withdrawn_when_slurm_answers_its_process(site: Site) -> None:
    one = site.start("one")
    site.slurmrestd.is_down = True
    one.meet_outage()
    one.exchange(NOW)
    one.exchange(NOW)
    assert one.status.outages.keys() == {"one"}
    site.slurmrestd.is_down = False
    one.session.breaker.record_success()
    one.exchange(NOW + SECOND)
    assert one.store.read_shared_status(NOW + SECOND).outages == {}


def test_a_process_withdraws_its_report_when_it_ends(site: Site) -> None:
    one = site.start("one")
    site.slurmrestd.is_down = True
    one.meet_outage()
    one.exchange(NOW)
    one.watch.withdraw()
    one.watch.withdraw()
    assert one.store.read_shared_status(NOW).outages == {}


def test_a_report_is_ignored_after_slurm_has_answered_this_process(site: Site) -> None:
    """A host without a network must not keep the others from using Slurm."""
    cut_off = Slurmrestd()
    lonely, other = site.start("lonely", cut_off), site.start("other")
    cut_off.is_down = True
    lonely.meet_outage()
    lonely.exchange(NOW)
    other.exchange(NOW)
    assert not other.is_open, "its probe was answered"
    asked = len(site.slurmrestd.asked)
    for second in range(1, 60):
        lonely.exchange(NOW + second * SECOND)
        other.exchange(NOW + second * SECOND)
    assert not other.is_open
    assert len(site.slurmrestd.asked) == asked, "it is not even probed again"


def test_a_refuted_report_does_not_hide_an_outage_that_others_meet(site: Site) -> None:
    cut_off = Slurmrestd()
    lonely, one, other = site.start("lonely", cut_off), site.start("one"), site.start("other")
    cut_off.is_down = True
    lonely.meet_outage()
    for process in (lonely, one, other, one, other):
        process.exchange(NOW)
    site.slurmrestd.is_down = True
    one.meet_outage()
    later = NOW + 5 * SECOND
    for process in (one, other):
        process.exchange(later)
    assert other.is_open


def test_another_process_reports_when_the_reporter_has_died(site: Site) -> None:
    one, other = site.start("one"), site.start("other")
    site.slurmrestd.is_down = True
    one.meet_outage()
    one.exchange(NOW)
    other.exchange(NOW)
    reported = [set(other.status.outages)]
    for second in range(1, 40):
        other.exchange(NOW + second * SECOND)
        reported.append(set(other.status.outages))
    assert reported[10] == {"one"}
    assert reported[-1] == {"other"}
    assert other.is_open


def test_the_report_of_a_dead_process_blocks_no_other_process(site: Site) -> None:
    one, other = site.start("one"), site.start("other")
    site.slurmrestd.is_down = True
    one.meet_outage()
    one.exchange(NOW)
    other.exchange(NOW)
    site.slurmrestd.is_down = False
    other.session.breaker._probe_at = 0.0  # a second later
    other.watch.watch()
    until(lambda: not other.is_open, 5, "the end of the outage")
    for second in range(5):
        other.exchange(NOW + second * SECOND)
        assert not other.is_open
    fresh = site.start("fresh")
    fresh.exchange(NOW)
    assert not fresh.is_open, "its probe was answered at once"


def test_the_end_of_an_outage_is_not_reported_as_another_one(site: Site) -> None:
    one, other = site.start("one"), site.start("other")
    site.slurmrestd.is_down = True
    one.meet_outage()
    one.exchange(NOW)
    other.exchange(NOW)
    one.session.breaker.record_success()
    one.exchange(NOW + SECOND)
    other.exchange(NOW + SECOND)
    assert other.is_open, "its own probe is due"
    assert other.store.read_shared_status(NOW + SECOND).outages == {}
    one.exchange(NOW + SECOND)
    assert not one.is_open


def test_a_report_is_renewed_and_keeps_its_beginning(site: Site) -> None:
    one = site.start("one")
    site.slurmrestd.is_down = True
    one.meet_outage()
    ends = set()
    for second in range(60):
        one.exchange(NOW + second * SECOND)
        report = one.store.read_shared_status(NOW + second * SECOND).outages["one"]
        assert report.since == NOW
        ends.add(report.until)
    assert len(ends) == 10, "it is written every 6 s"
