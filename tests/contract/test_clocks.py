"""Clocks that differ or are set: no uuid runs twice, no message waits too long, and the log reports it."""

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from app.clock import RemoteClock
from app.errors import ClocksDisagree, SlurmAmbiguous, SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.deliver import Delivery
from app.lifecycle.poll import Poller
from app.lifecycle.reconcile import Reconciler
from app.lifecycle.report_health import HealthReporter
from app.lifecycle.reservations import Reservations
from app.lifecycle.retry_policy import DeliveryPolicy
from app.lifecycle.submit import TaskSubmitter
from app.lifecycle.validation import RequestValidator
from app.messages.plan import Planner
from app.models.caller import OPERATOR
from app.models.catalogue_entry import CatalogueEntry
from app.models.job import SlurmJob
from app.models.record import TaskRecord, utc_now
from app.models.task import Task
from app.monitor import Monitor, MonitorTiming
from app.senders import find_channel
from app.slurm.client import SlurmClient
from app.store import TaskStore
from app.store.sqlite import SqliteStore
from tests.conftest import until
from tests.support.answers import body_of
from tests.support.databases import SharedDatabase
from tests.support.fakes import FakeSlurm, RecordingSender
from tests.support.tasks import make_email, make_task

SKEW = timedelta(seconds=60)
LIFE = timedelta(seconds=96)
SHIFTS = [sign * seconds for seconds in (60, 100, 180, 240, 3600) for sign in (1, -1)]
FAR_SHIFTS = [shift for shift in SHIFTS if abs(shift) > 60]
CATALOGUE = {"generic": CatalogueEntry(requires_command=True)}


class HostClock:
    """The clock of one host, which can be set."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def __call__(self) -> datetime:
        return utc_now() + self.shift


class LateSlurm(FakeSlurm):
    """A cluster that answers no submission; each request is on its way until the test says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[tuple[Task, str, datetime]] = []
        self.is_late = False
        self.hangs: threading.Event | None = None  # a poll waits for it
        self.polled = threading.Event()

    def submit(self, task: Task, command: str, tag: str, expires: datetime) -> tuple[int, list[str]]:
        if not self.is_late:
            return super().submit(task, command, tag, expires)
        self.under_way.append((task, tag, expires))
        raise SlurmAmbiguous("slurmrestd did not answer in time")

    def arrive(self) -> bool:
        """Let the request reach slurmctld, which takes it until its token ends."""
        task, tag, expires = self.under_way.pop()
        if self.clock() >= expires:
            return False
        self.put(4711, username=task.username, comment=tag, submit_time=self.clock().replace(microsecond=0))
        return True

    def poll(
        self, known: Mapping[int, JobState], ended_arrays: Collection[int] = ()
    ) -> dict[int, SlurmJob | None]:
        news = super().poll(known, ended_arrays)
        hangs = self.hangs
        self.polled.set()
        if hangs is not None:
            hangs.wait(30)
        return news


class Process:
    """One process of the service, on a host with a clock of its own."""

    def __init__(self, store: TaskStore, slurm: LateSlurm, host_clock: HostClock, name: str) -> None:
        self.store = store
        self.slurm = cast(SlurmClient, slurm)
        self.clock = host_clock
        self.email = RecordingSender()
        senders: Any = {"email": self.email}
        planner = Planner(CATALOGUE, senders, find_channel)
        self.clocks = ClockGuard(self.slurm, SKEW, host_clock=host_clock)
        validator = RequestValidator(CATALOGUE, {"root"})
        self.reservations = Reservations(store, self.slurm, self.clocks)
        self.submitter = TaskSubmitter(
            store, self.slurm, planner, validator, self.reservations, submission_life=LIFE
        )
        self.poller = Poller(store, self.slurm, planner, unknown_after=timedelta(minutes=10))
        self.reconciler = Reconciler(
            store,
            self.slurm,
            planner,
            submission_life=LIFE,
            skew=SKEW,
            min_job_age=timedelta(minutes=5),
            pause=timedelta(0),
        )
        policy = DeliveryPolicy(claim_timeout=timedelta(minutes=3), retry_window=timedelta(days=1))
        self.monitor = Monitor(
            store,
            self.reservations,
            self.poller,
            self.reconciler,
            Delivery(store, senders, policy, methods=["email"]),
            self.clocks,
            MonitorTiming(interval=0.05, min_pause=0.05, lease=0.6, cycle_limit=0.5),
            HealthReporter(store, self.slurm),
            owner=name,
        )

    def submit(self, task: dict[str, Any]) -> dict[str, Any]:
        return body_of(self.submitter.submit(OPERATOR, {"task": task}))

    def run_cycle(self) -> bool:
        return self.monitor.run_cycle(self.store.now())


class Site:
    """Two processes that share one store: on one host for SQLite, on two for MongoDB."""

    def __init__(self, make: Callable[[HostClock], TaskStore], *, is_one_host: bool) -> None:
        self.slurm = LateSlurm()
        first_clock = HostClock()
        second_clock = first_clock if is_one_host else HostClock()
        self.first = Process(make(first_clock), self.slurm, first_clock, "first")
        self.second = Process(make(second_clock), self.slurm, second_clock, "second")

    def record(self, task: dict[str, Any]) -> TaskRecord:
        return self.first.store.find_by_uuids([task["uuid"]])[task["uuid"]]


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.real)])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "sqlite":
        path = tmp_path / "store.sqlite3"
        site = Site(lambda clock: SqliteStore(path, host_clock=clock), is_one_host=True)
    else:
        database: SharedDatabase = request.getfixturevalue("mongo_database")
        site = Site(lambda _: database.store(), is_one_host=False)
    site.first.store.prepare()
    yield site
    site.first.store.close()
    site.second.store.close()


# --- reservations ----------------------------------------------------------------------------


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("has_accounting", [True, False], ids=["slurmdbd", "no-slurmdbd"])
@pytest.mark.parametrize("arrives_after", [0, 90, 95])
def test_a_reservation_is_kept_while_its_request_may_still_arrive(
    site: Site, shift: int, arrives_after: int, *, has_accounting: bool
) -> None:
    """This holds for every time of the leader's clock, and every time that it was given."""
    task, slurm = make_task(), site.slurm
    slurm.is_late, slurm.has_accounting = True, has_accounting
    began = utc_now()
    with pytest.raises(SlurmAmbiguous):
        site.first.submit(task)
    site.second.clock.shift = timedelta(seconds=shift)
    for seconds in sorted({0, 30, 60, arrives_after}):
        slurm.clock = partial(began.__add__, timedelta(seconds=seconds))
        reconcile(site.second, began + timedelta(seconds=seconds + shift))
        reconcile(site.second, site.second.store.now())
        assert site.record(task).is_reserved
    assert slurm.arrive(), "its token is still good"
    for seconds in (arrives_after + 1, arrives_after + 61):
        reconcile(site.second, began + timedelta(seconds=seconds + shift))
    assert site.record(task).slurm_job_id == 4711


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_reservation_is_freed_once_slurms_clock_is_past_the_token(site: Site, shift: int) -> None:
    task, slurm = make_task(), site.slurm
    slurm.is_late = True
    with pytest.raises(SlurmAmbiguous):
        site.first.submit(task)
    created_at = site.record(task).created_at
    site.second.clock.shift = timedelta(seconds=shift)
    slurm.clock = lambda: created_at + LIFE + SKEW - timedelta(seconds=1)
    reconcile(site.second, created_at + timedelta(seconds=shift) + 2 * LIFE)
    assert site.record(task).is_reserved
    slurm.clock = lambda: created_at + LIFE + SKEW + timedelta(seconds=1)
    for seconds in (0, 60):
        reconcile(site.second, created_at + timedelta(seconds=shift + seconds) + 2 * LIFE)
    assert site.record(task).is_freed
    assert not slurm.arrive(), "what was still on its way is not taken any more"


def test_reconciling_goes_on_after_the_clock_was_set_back(site: Site) -> None:
    task, slurm, process = make_task(), site.slurm, site.first
    slurm.is_late = True
    with pytest.raises(SlurmAmbiguous):
        process.submit(task)
    process.reconciler._pause = timedelta(seconds=15)
    reconcile(process, utc_now() + timedelta(hours=1))
    assert slurm.arrive()
    reconcile(process, utc_now() + timedelta(minutes=1))
    assert site.record(task).slurm_job_id == 4711


def reconcile(process: Process, now: datetime) -> None:
    fence = process.store.acquire_lease("second", process.store.now(), process.store.now() + LIFE)
    assert fence is not None
    process.reconciler.reconcile(now, fence)


# --- hosts that are too far off --------------------------------------------------------------


@pytest.mark.parametrize("shift", FAR_SHIFTS)
def test_a_host_whose_clock_is_too_far_from_slurms_neither_leads_nor_submits(
    site: Site, caplog: pytest.LogCaptureFixture, shift: int
) -> None:
    process, task = site.second, make_task()
    process.clocks.measure()
    process.clock.shift = timedelta(seconds=shift)
    side = "ahead of" if shift > 0 else "behind"
    words = rf"this host's clock is \d+ s {side} Slurm's, and SLURM_CLOCK_SKEW_SECONDS allows 60 s"
    for _ in range(3):
        with pytest.raises(ClocksDisagree, match=words):
            process.submit(task)
        assert not process.run_cycle()
    assert site.slurm.calls == []
    assert process.store.find_by_uuids([task["uuid"]]) == {}
    assert caplog.text.count("this process neither polls nor submits") == 1
    process.clock.shift = timedelta(0)
    assert process.run_cycle()
    assert process.submit(task)["slurm_job_id"]
    assert caplog.text.count("the clocks agree again") == 1


@pytest.mark.parametrize("shift", [60, -60])
def test_a_host_whose_clock_is_near_enough_leads_and_submits(site: Site, shift: int) -> None:
    site.second.clock.shift = timedelta(seconds=shift)
    assert site.second.submit(make_task())["slurm_job_id"]
    assert site.second.run_cycle()


def test_a_process_that_never_polled_measures_before_its_first_submission(site: Site) -> None:
    site.slurm.clock = lambda: utc_now() + timedelta(minutes=5)
    with pytest.raises(ClocksDisagree, match=r"is \d+ s behind Slurm's"):
        site.second.submit(make_task())


def test_a_submission_costs_no_question_about_the_time(site: Site) -> None:
    asked: list[datetime] = []
    site.slurm.clock = lambda: asked.append(utc_now()) or asked[-1]  # type: ignore[func-returns-value]
    for _ in range(10):
        site.first.submit(make_task())
        site.first.clocks.measure()
    assert len(asked) <= 2


def test_the_databases_clock_counts_too(tmp_path: Path) -> None:
    """MongoDB's server may be another machine than this host."""
    slurm: Any = FakeSlurm()
    guard = ClockGuard(slurm, SKEW)
    guard.check(utc_now())
    with pytest.raises(ClocksDisagree, match=r"the database's clock is \d+ s ahead of Slurm's"):
        guard.check(utc_now() + timedelta(hours=1))


def test_a_repeated_submission_gets_its_first_answer_whatever_the_clocks_say(site: Site) -> None:
    task = make_task()
    job_id = site.first.submit(task)["slurm_job_id"]
    site.first.clock.shift = timedelta(hours=1)
    answer = body_of(site.first.submitter.submit(OPERATOR, {"task": task}, task["uuid"]))
    assert answer["slurm_job_id"] == job_id


def test_a_leader_whose_clock_is_set_gives_its_lease_back(site: Site) -> None:
    site.first.monitor._lease = timedelta(minutes=1)
    site.first.clocks.measure()
    assert site.first.run_cycle()
    site.first.clock.shift = timedelta(hours=1)
    assert not site.first.run_cycle()
    site.second.clock.shift = timedelta(0)
    assert site.second.run_cycle()


def test_a_clock_that_is_set_is_noticed_and_slurms_is_read_again(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[datetime] = []
    slurm: Any = FakeSlurm()

    def answer() -> datetime:
        asked.append(utc_now())
        return asked[-1]

    slurm.clock = answer
    clock = HostClock()
    guard = ClockGuard(slurm, SKEW, host_clock=clock)
    guard.measure()
    guard.measure()
    assert (len(asked), caplog.text) == (1, "")
    clock.shift = timedelta(hours=-1)
    guard.measure()
    assert len(asked) == 2
    assert "this host's clock was set back by 3600 s" in caplog.text


def test_slurms_clock_is_read_with_a_longer_token_where_the_ordinary_one_has_expired() -> None:
    class Strict(FakeSlurm):
        def read_controller_time(self, expires: datetime | None = None) -> datetime:
            if expires is None or expires < self.clock():
                raise SlurmUnavailable("slurmrestd answered 500")
            return self.clock()

    slurm: Any = Strict()
    clock = HostClock()
    clock.shift = timedelta(hours=-1)
    guard = ClockGuard(slurm, SKEW, host_clock=clock)
    guard.measure()
    assert "s behind Slurm's" in (guard.describe_disagreement(clock()) or "")


def test_a_clock_that_took_long_to_answer_is_read_again() -> None:
    seconds = iter([0.0, 100.0, 100.0, 100.2])
    clock = RemoteClock(utc_now, steady=lambda: next(seconds))
    clock.refresh()
    assert clock.error == pytest.approx(0.1)


def test_slow_answers_make_the_reading_less_certain() -> None:
    seconds = iter([0.0, 10.0, 10.0, 20.0, 20.0, 30.0])
    clock = RemoteClock(utc_now, steady=lambda: next(seconds))
    clock.refresh()
    assert clock.error == 5.0


# --- a cycle that hangs ----------------------------------------------------------------------


@pytest.mark.timed
def test_a_poll_that_hangs_lets_the_lease_lapse_and_writes_nothing_late(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    slurm, task = site.slurm, make_task(notification=make_email())
    job_id = site.first.submit(task)["slurm_job_id"]
    site.first.monitor.start()
    try:
        until(slurm.polled.is_set, 10, "the first poll")
        slurm.hangs = hangs = threading.Event()
        slurm.put(job_id, JobState.COMPLETED)
        slurm.polled.clear()
        until(slurm.polled.is_set, 10, "a poll that has read the end and now hangs")
        slurm.hangs = None
        began = time.monotonic()
        until(site.second.run_cycle, 10, "another leader")
        assert 0.3 < time.monotonic() - began < 5
        assert "has not ended within" in caplog.text
        told = site.record(task)
        assert told.slurm_job_state is JobState.COMPLETED
        hangs.set()
        until(lambda: "0 of 1 changes were applied" in caplog.text, 10, "a late write that is refused")
        assert len(site.record(task).notifications) == len(told.notifications) == 1
        assert caplog.text.count("has not ended within") == 1
        until(
            lambda: site.first.monitor._fencing_token is not None, 10, "the first process, which leads again"
        )
    finally:
        site.first.monitor.stop()


@pytest.mark.timed
def test_a_long_poll_keeps_the_lease_within_its_limit(site: Site) -> None:
    site.first.monitor._timing = replace(site.first.monitor._timing, cycle_limit=60)
    slurm = site.slurm
    site.first.submit(make_task())
    slurm.hangs = hangs = threading.Event()
    site.first.monitor.start()
    try:
        until(slurm.polled.is_set, 10, "a poll that takes long")
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert not site.second.run_cycle()
            time.sleep(0.05)
    finally:
        hangs.set()
        site.first.monitor.stop()
