"""The threads of a server, and the leader among them."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from app.errors import (
    SlurmUnavailable,
)
from app.job_state import JobState
from app.models.record import OpenJob, utc_now
from app.store.sqlite import SqliteStore
from tests.support.lifecycle import MINUTE, Service
from tests.support.tasks import make_email


def test_only_the_leader_polls(service: Service) -> None:
    service.submit()
    other = service.new_monitor("there")
    now = utc_now()
    assert service.monitor.run_cycle(now)
    assert not other.run_cycle(now + timedelta(seconds=29))
    assert other.run_cycle(now + timedelta(seconds=31))
    assert not service.monitor.run_cycle(now + timedelta(seconds=32))


def test_the_threads_notice_an_end_announce_it_and_stop(service: Service) -> None:
    monitor = service.new_monitor("x", interval=0.02)
    _, job_id = service.submit(notification=make_email())
    monitor.start()
    try:
        service.slurm.put(job_id, JobState.COMPLETED)
        _until(lambda: bool(service.email.messages))
    finally:
        monitor.stop()
    monitor.stop()
    assert service.store.acquire_lease("next", utc_now(), utc_now() + MINUTE), "the lease was given back"


def test_the_threads_outlive_an_outage(service: Service) -> None:
    monitor = service.new_monitor("x", interval=0.02)
    _, job_id = service.submit(notification=make_email())
    service.slurm.down = SlurmUnavailable("down")
    monitor.start()
    try:
        _until(lambda: service.slurm.calls.count("poll") > 2)
        service.slurm.down = RuntimeError("a fault of our own")  # type: ignore[assignment]
        asked = service.slurm.calls.count("poll")
        _until(lambda: service.slurm.calls.count("poll") > asked + 2)
        service.slurm.down = None
        service.slurm.put(job_id, JobState.COMPLETED)
        _until(lambda: bool(service.email.messages))
    finally:
        monitor.stop()


def _until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_a_change_of_state_is_never_applied_twice(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.put(job_id, JobState.COMPLETED)
    stale = service.store.list_open_jobs()
    assert service.refresh(utc_now()) == 1

    class Paused(SqliteStore):
        def list_open_jobs(self) -> list[OpenJob]:
            return stale  # what a leader that was paused still has in hand

    late: Any = service.poller
    late._store = Paused(service.store._path)
    assert late.poll_once(utc_now(), service.fence()) == 0
    late._store.close()
    assert len(service.record(task).notifications) == 1
