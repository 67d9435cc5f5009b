"""Cancel, hold, release and requeue tasks on every cluster, and see the effect in Slurm itself."""

import re
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import (
    AlreadyOver,
    AlreadyRunning,
    HeldByAdministrator,
    NotStarted,
    NotSupported,
    RequeueDisabled,
    SlurmRefused,
)
from app.job_state import JobState
from app.lifecycle.cancel_many import BulkCancellation
from app.lifecycle.control import TaskControl
from app.models.bulk_cancellation import CancelOutcome
from app.models.caller import OPERATOR
from app.models.job_action import JobAction
from app.models.record import TaskRecord, utc_now
from app.models.task import Task
from app.slurm.client import SlurmClient
from app.slurm.job_control import JobOutcome
from app.store.sqlite import SqliteStore
from tests.conftest import Cluster, until
from tests.support.tasks import make_task

CANCEL, HOLD, RELEASE, REQUEUE = JobAction
LATER: dict[str, Any] = {"begin": int(time.time()) + 3600}


class Site:
    """A store, and the use cases on one cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.store = SqliteStore(folder / "store")
        self.store.prepare()
        self.client: SlurmClient = cluster.client()
        self.control = TaskControl(self.store, self.client)
        self.submitted: list[int] = []

    def submit(self, command: str = "sleep 600", **slurm: Any) -> int:
        """Submit a task, with a record; return the job id."""
        text = make_task(self.cluster.user, slurm={"mem": 50, **slurm})
        task, now = Task.model_validate(text), utc_now()
        record = TaskRecord(task=text, slurm_username=task.username, created_at=now, updated_at=now)
        self.store.add_record(record)
        job_id, _ = self.client.submit(
            task, command, f"slurm-proxy:{task.uuid}", utc_now() + timedelta(minutes=1)
        )
        assert self.store.accept_job(record, job_id, JobState.PENDING, now)
        self.submitted.append(job_id)
        return job_id

    def do(self, action: JobAction, job_id: int) -> tuple[bool, JobState]:
        """Return whether the action changed the job, and the state in the answer."""
        answer = self.control.control_by_job_id(OPERATOR, action, str(job_id))
        return answer.changed, answer.slurm_job_state

    def shown(self, job_id: int) -> list[tuple[str, str, bool]]:
        """Return state, reason and whether the priority is 0, of each part of a job as Slurm shows it."""
        if self.cluster.real is not None:
            text = self.cluster.real.run("scontrol", "show", "job", str(job_id))
            parts = [dict(re.findall(r"(\w+)=(\S*)", part)) for part in text.split("\n\n")]
            return [(each["JobState"], each["Reason"], each["Priority"] == "0") for each in parts]
        found = self.client.send_raw("GET", f"job/{job_id}").body["jobs"]
        return [
            (each["job_state"][-1], each["state_reason"], each["priority"]["number"] == 0) for each in found
        ]

    def wait_for(self, job_id: int, state: str) -> None:
        until(lambda: any(shown[0] == state for shown in self.shown(job_id)), 60, f"{state} of {job_id}")

    def close(self) -> None:
        for job_id in self.submitted:
            self.client.control.cancel(job_id, self.cluster.user)
        self.client.close()
        self.store.close()


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Iterator[Site]:
    site = Site(cluster, tmp_path)
    yield site
    site.close()


def test_a_waiting_job_is_held_and_released_once(site: Site) -> None:
    job_id = site.submit(**LATER)
    assert site.do(RELEASE, job_id) == (False, JobState.PENDING)
    assert site.do(HOLD, job_id) == (True, JobState.PENDING)
    assert site.shown(job_id) == [("PENDING", "JobHeldUser", True)]
    assert site.do(HOLD, job_id) == (False, JobState.PENDING)
    assert site.do(RELEASE, job_id) == (True, JobState.PENDING)
    ((state, reason, is_priority_zero),) = site.shown(job_id)
    assert (state, is_priority_zero) == ("PENDING", False)
    assert reason in ("BeginTime", "None")
    assert site.do(RELEASE, job_id) == (False, JobState.PENDING)
    assert site.do(CANCEL, job_id) == (True, JobState.CANCELLED)
    assert site.shown(job_id)[0][0] == "CANCELLED"
    assert site.do(CANCEL, job_id) == (False, JobState.CANCELLED)
    for action in (HOLD, RELEASE):
        with pytest.raises(AlreadyOver):
            site.do(action, job_id)


def test_a_job_that_was_submitted_held_runs_once_it_is_released(site: Site) -> None:
    job_id = site.submit(hold=True)
    assert site.do(HOLD, job_id) == (False, JobState.PENDING)
    assert site.do(RELEASE, job_id)[0]
    site.wait_for(job_id, "RUNNING")
    assert site.do(RELEASE, job_id) == (False, JobState.RUNNING)
    with pytest.raises(AlreadyRunning):
        site.do(HOLD, job_id)
    assert site.shown(job_id) == [("RUNNING", "None", False)]
    changed, state = site.do(CANCEL, job_id)
    assert (changed, state in (JobState.CANCELLED, JobState.COMPLETING)) == (True, True)
    assert site.do(CANCEL, job_id)[0] is False
    site.wait_for(job_id, "CANCELLED")
    assert site.do(CANCEL, job_id) == (False, JobState.CANCELLED)


def test_a_job_that_an_administrator_holds_stays_held(site: Site) -> None:
    job_id = site.submit(**LATER)
    assert site.client.control.hold(job_id, "root") is JobOutcome.DONE
    assert site.shown(job_id) == [("PENDING", "JobHeldAdmin", True)]
    with pytest.raises(HeldByAdministrator):
        site.do(RELEASE, job_id)
    assert site.do(HOLD, job_id) == (False, JobState.PENDING)
    assert site.shown(job_id) == [("PENDING", "JobHeldAdmin", True)]


def test_a_user_cannot_change_the_job_of_another_user(site: Site) -> None:
    job_id = site.submit(**LATER)
    other = "daemon" if site.cluster.other == site.cluster.user else site.cluster.other
    control = site.client.control
    with pytest.raises(SlurmRefused, match="Slurm does not hold job"):
        control.hold(job_id, other)
    with pytest.raises(SlurmRefused, match="Slurm does not release job"):
        control.release(job_id, other)
    if control.offers_requeue():
        with pytest.raises(SlurmRefused, match="Slurm does not requeue job"):
            control.requeue(job_id, other)
    assert site.shown(job_id)[0][2] is False


def test_an_unknown_job_is_neither_held_nor_released(site: Site) -> None:
    for change in (site.client.control.hold, site.client.control.release):
        assert change(4_000_000, site.cluster.user) is JobOutcome.UNKNOWN_JOB


def test_the_waiting_tasks_of_an_array_are_held_and_released_together(site: Site) -> None:
    if site.cluster.name == "local":
        pytest.skip("the stand-in has no arrays")
    job_id = site.submit(array="0-3%2")
    until(lambda: _count(site, job_id, "RUNNING") == 2, 60, "two tasks that run")
    assert site.do(HOLD, job_id) == (True, JobState.RUNNING)
    held = [shown for shown in site.shown(job_id) if shown[0] == "PENDING"]
    assert {shown[1:] for shown in held} == {("JobHeldUser", True)}
    assert site.do(HOLD, job_id) == (False, JobState.RUNNING)
    assert site.do(RELEASE, job_id) == (True, JobState.RUNNING)
    assert not any(shown[2] for shown in site.shown(job_id))
    assert site.do(RELEASE, job_id) == (False, JobState.RUNNING)
    assert site.do(CANCEL, job_id)[0]
    until(lambda: _count(site, job_id, "CANCELLED") == len(site.shown(job_id)), 30, "the end of the array")


def test_an_array_of_which_tasks_have_ended_is_cancelled(site: Site) -> None:
    if site.cluster.name == "local":
        pytest.skip("the stand-in has no arrays")
    job_id = site.submit('[ "$SLURM_ARRAY_TASK_ID" -eq 0 ] || sleep 600', array="0-2%1")
    until(lambda: _count(site, job_id, "COMPLETED") and _count(site, job_id, "RUNNING"), 60, "its states")
    assert site.do(CANCEL, job_id)[0]
    until(lambda: _count(site, job_id, "CANCELLED") >= 2, 30, "the end of the array")
    assert site.do(CANCEL, job_id)[0] is False


def _count(site: Site, job_id: int, state: str) -> int:
    return sum(shown[0] == state for shown in site.shown(job_id))


def test_a_job_is_requeued_once(site: Site) -> None:
    job_id = site.submit()
    if not site.client.control.offers_requeue():
        with pytest.raises(NotSupported):
            site.do(REQUEUE, job_id)
        return
    later = site.submit(**LATER)
    with pytest.raises(NotStarted):
        site.do(REQUEUE, later)
    site.wait_for(job_id, "RUNNING")
    assert site.do(REQUEUE, job_id)[0]
    assert site.do(REQUEUE, job_id)[0] is False
    site.wait_for(job_id, "PENDING")
    assert site.do(REQUEUE, job_id) == (False, JobState.PENDING)
    job = site.client.find_job(job_id)
    assert job is not None
    assert job.restarts == 1
    assert site.do(HOLD, job_id) == (True, JobState.PENDING)
    assert site.do(CANCEL, job_id) == (True, JobState.CANCELLED)


def test_a_job_that_has_ended_is_requeued(site: Site) -> None:
    if not site.client.control.offers_requeue():
        return
    job_id = site.submit("exit 3")
    site.wait_for(job_id, "FAILED")
    assert site.do(REQUEUE, job_id) == (True, JobState.PENDING)
    assert site.do(REQUEUE, job_id) == (False, JobState.PENDING)
    assert site.do(CANCEL, job_id) == (True, JobState.CANCELLED)


def test_a_job_that_may_not_be_requeued_goes_on(site: Site) -> None:
    if not site.client.control.offers_requeue():
        return
    job_id = site.submit(requeue=False)
    site.wait_for(job_id, "RUNNING")
    with pytest.raises(RequeueDisabled):
        site.do(REQUEUE, job_id)
    assert site.shown(job_id)[0][0] == "RUNNING"


def test_several_jobs_are_cancelled_with_one_request(site: Site) -> None:
    mine, ended = site.submit(**LATER), site.submit("true")
    site.wait_for(ended, "COMPLETED")
    control, user = site.client.control, site.cluster.user
    try:
        outcomes = control.cancel_many([mine, ended, 4_000_000], user)
    except NotSupported:
        assert control.cancel(mine, user) is JobOutcome.UNREPORTED
        return
    expected = {mine: JobOutcome.DONE, ended: JobOutcome.ENDED, 4_000_000: JobOutcome.UNKNOWN_JOB}
    assert outcomes == expected
    assert site.shown(mine)[0][0] == "CANCELLED"
    kept = site.submit(**LATER)
    other = "daemon" if site.cluster.other == user else site.cluster.other
    (refused,) = control.cancel_many([kept], other).values()
    assert isinstance(refused, SlurmRefused)
    assert site.shown(kept)[0][0] == "PENDING"


def test_the_tasks_that_meet_a_filter_are_cancelled(site: Site) -> None:
    mine = [site.submit(hold=True, job_name="sweep-1") for _ in range(60)]
    running, kept = site.submit(job_name="sweep-2"), site.submit(hold=True, job_name="other")
    site.wait_for(running, "RUNNING")
    cancellation = BulkCancellation(site.store, site.client)
    body = {"filter": {"job_name": "sweep-*", "since": "1h"}}
    listed = cancellation.cancel_many(OPERATOR, {**body, "dry_run": True}).tasks
    assert {task.slurm_job_id for task in listed} == {*mine, running}
    assert site.shown(mine[0])[0][0] == "PENDING"
    began = time.monotonic()
    answer = cancellation.cancel_many(OPERATOR, body)
    assert time.monotonic() - began < 15
    assert [task.outcome for task in answer.tasks] == [CancelOutcome.CANCELLED] * 61
    assert site.shown(mine[0])[0][0] == site.shown(mine[-1])[0][0] == "CANCELLED"
    assert site.shown(kept)[0][0] == "PENDING"
    site.wait_for(running, "CANCELLED")
    again = cancellation.cancel_many(OPERATOR, body)
    assert {task.outcome for task in again.tasks} == {CancelOutcome.ALREADY_OVER}
