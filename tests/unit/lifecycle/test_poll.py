"""Poll the states of jobs, and announce their ends once."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import (
    RecordTooLarge,
    SlurmUnavailable,
)
from app.job_state import JobState
from app.lifecycle.poll import Poller
from app.messages.plan import Planner
from app.models.caller import OPERATOR
from app.models.record import Change, NotificationStatus, TaskRecord, utc_now
from app.senders import find_channel
from app.store.sqlite import SqliteStore
from tests.support.lifecycle import CATALOGUE, MINUTE, Service, left_open, watch
from tests.support.tasks import make_email

BAD_ENDS = [state for state in JobState if state.is_final and not state.is_success]


@pytest.mark.parametrize("state", BAD_ENDS)
def test_every_bad_end_is_announced_once_and_never_as_a_success(service: Service, state: JobState) -> None:
    body = "Generic task has completed successfully."
    task, job_id = service.submit(notification=make_email(subject="Task completed", body=body))
    service.move(job_id, JobState.RUNNING)
    service.move(job_id, state, exit_code=1)
    service.move(job_id, state, exit_code=1)
    service.deliver()
    (message,) = service.email.messages
    assert message.subject == f"[{state}] Task completed"
    first_line = message.text.splitlines()[0]
    assert first_line.startswith("The job did not succeed")
    assert message.text.index("did not succeed") < message.text.index(body)
    assert service.record(task).slurm_job_state is state


def test_a_good_end_carries_the_callers_words_and_the_facts(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = {"start_time": start, "end_time": start + timedelta(seconds=3725)}
    service.move(job_id, JobState.COMPLETED, exit_code=0, **times)
    service.deliver()
    (message,) = service.email.messages
    assert message.subject == "the test job has ended"
    assert message.text.startswith("hello from the caller\n")
    output = task["dirs"]["output"] + "/out.txt"
    for fact in (
        task["uuid"],
        str(job_id),
        "slurm-proxy-test.generic",
        "alice",
        "COMPLETED",
        "1:02:05",
        output,
    ):
        assert fact in message.text


def test_unfinished_states_announce_nothing(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    for state in (
        JobState.SUSPENDED,
        JobState.COMPLETING,
        JobState.REQUEUED,
        JobState.SPECIAL_EXIT,
        JobState.PENDING,
    ):
        service.move(job_id, state)
        assert service.record(task).slurm_job_state is state
    assert service.record(task).notifications == ()


def test_a_job_that_slurmctld_forgot_ends_as_slurmdbd_has_it(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.put(job_id, JobState.OUT_OF_MEMORY)
    service.slurm.forget(job_id)
    service.refresh(utc_now())
    assert service.record(task).slurm_job_state is JobState.OUT_OF_MEMORY


def test_a_job_that_slurm_does_not_know_is_unknown_after_a_while_and_never_a_success(
    service: Service,
) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.forget(job_id, accounted=False)
    now = utc_now()
    service.refresh(now)
    service.refresh(now + 9 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING
    service.refresh(now + 10 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.UNKNOWN
    service.deliver(now + 11 * MINUTE)
    (message,) = service.email.messages
    assert "no longer known to Slurm" in message.text


def test_a_job_that_comes_back_is_not_missing_any_more(service: Service) -> None:
    task, job_id = service.submit()
    job = service.slurm.jobs[job_id]
    service.slurm.forget(job_id, accounted=False)
    now = utc_now()
    service.refresh(now)
    service.slurm.jobs[job_id] = job
    service.refresh(now + MINUTE)
    service.slurm.forget(job_id, accounted=False)
    service.refresh(now + 12 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING, "the clock starts anew"


def test_poll_reports_for_how_long_it_kept_slurm_busy_also_if_it_fails(service: Service) -> None:
    service.submit()
    service.slurm.seconds_per_call = 3.0
    service.refresh(utc_now())
    assert service.poller.slurm_seconds == 3.0
    service.slurm.down = SlurmUnavailable("slurmctld is down")
    with pytest.raises(SlurmUnavailable):
        service.refresh(utc_now())
    assert service.poller.slurm_seconds == 3.0


def test_down_is_not_gone(service: Service) -> None:
    task, job_id = service.submit()
    service.slurm.forget(job_id)
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd is down")
    for minutes in range(0, 60, 10):
        service.refresh(utc_now() + minutes * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING
    service.slurm.down = SlurmUnavailable("slurmctld is down")
    with pytest.raises(SlurmUnavailable):
        service.refresh(utc_now() + 120 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING


def test_a_reused_job_id_is_another_job(service: Service) -> None:
    task, job_id = service.submit()
    service.slurm.forget(job_id)
    service.slurm.put(job_id, JobState.COMPLETED, username="bob")
    service.refresh(utc_now())
    assert service.record(task).slurm_job_state is not JobState.COMPLETED
    service.slurm.put(job_id, JobState.COMPLETED, username="alice", comment="slurm-proxy:another")
    service.refresh(utc_now())
    assert service.record(task).slurm_job_state is not JobState.COMPLETED


def test_a_requeued_job_is_still_the_same(service: Service) -> None:
    service.slurm.put(5, JobState.RUNNING)
    answer = watch(service, 5)
    later = utc_now() + MINUTE
    service.move(5, JobState.COMPLETED, submit_time=later, restarts=1)
    assert service.record(answer["task"]).slurm_job_state is JobState.COMPLETED


def test_a_job_held_after_its_exit_is_announced_as_requeued_and_once_it_ends(service: Service) -> None:
    task, job_id = service.submit(notification={**make_email(), "events": ["requeue", "end"]})
    service.move(job_id, JobState.RUNNING)
    service.move(job_id, JobState.SPECIAL_EXIT, restarts=1, reason="JobHeldUser")
    assert service.record(task).is_open
    service.move(job_id, JobState.PENDING)
    service.move(job_id, JobState.COMPLETED, exit_code=0)
    service.deliver()
    requeued, ended = service.email.messages
    assert "(restart 1), and is held there until it is released" in requeued.text
    assert ended.event == "end"
    assert "did not succeed" not in ended.text


@pytest.mark.parametrize(
    ("state", "is_held"),
    [(JobState.COMPLETING, True), (JobState.PENDING, True), (JobState.RUNNING, False)],
)
def test_a_requeued_job_is_announced_as_held_by_its_reason(
    service: Service, state: JobState, is_held: bool
) -> None:
    _, job_id = service.submit(notification={**make_email(), "events": ["requeue"]})
    before = JobState.RUNNING if is_held else JobState.SUSPENDED
    service.move(job_id, before)
    service.move(job_id, state, restarts=1, reason="JobHeldUser")
    service.deliver()
    (requeued,) = service.email.messages
    assert ("(restart 1), and is held there" in requeued.text) is is_held


def requeue(service: Service, job_id: int, **fields: Any) -> None:
    """As `scontrol requeue` does with a job that has ended."""
    submit_time = utc_now().replace(microsecond=0) + MINUTE
    service.slurm.put(job_id, JobState.PENDING, restarts=1, submit_time=submit_time, exit_code=None, **fields)


@pytest.mark.parametrize("by_slurmdbd", [False, True])
def test_an_ended_job_that_is_requeued_is_open_again_and_its_new_end_is_announced(
    service: Service, by_slurmdbd: bool
) -> None:
    task, job_id = service.submit(notification=make_email())
    service.move(job_id, JobState.FAILED, exit_code=3)
    now = utc_now()
    requeue(service, job_id)
    service.refresh(now + MINUTE)
    assert service.record(task).is_open
    assert service.record(task).slurm_job_state is JobState.PENDING
    service.refresh(now + 2 * MINUTE)
    service.slurm.put(job_id, JobState.COMPLETED, exit_code=0)
    if by_slurmdbd:
        service.slurm.forget(job_id)
        service.slurm.ended[job_id] = service.slurm.ended[job_id].model_copy(update={"restarts": 0})
    service.refresh(now + 3 * MINUTE)
    service.refresh(now + 4 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.COMPLETED
    service.deliver(now + 5 * MINUTE)
    assert [message.content.facts.slurm_job_state for message in service.email.messages] == [
        "FAILED",
        "COMPLETED",
    ]


def test_the_first_run_of_a_requeued_job_is_not_taken_for_its_second(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.FAILED, exit_code=3)
    first_run = service.slurm.ended[job_id].model_copy(update={"comment": f"slurm-proxy:{task['uuid']}"})
    requeue(service, job_id)
    service.refresh(utc_now() + MINUTE)
    del service.slurm.jobs[job_id]
    service.slurm.ended[job_id] = first_run
    service.refresh(utc_now() + 2 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING


def test_an_ended_job_is_polled_at_intervals_until_slurmctld_forgets_it(service: Service) -> None:
    _, job_id = service.submit()
    service.move(job_id, JobState.COMPLETED)
    now = utc_now()
    polled = []
    for seconds in (11, 20, 22):
        service.refresh(now + timedelta(seconds=seconds))
        polled.append(job_id in service.slurm.polled_ids)
    assert polled == [True, False, True]
    service.slurm.forget(job_id)
    for seconds in (33, 200, 300):
        service.refresh(now + timedelta(seconds=seconds))
    assert job_id not in service.slurm.polled_ids


def test_a_new_leader_notices_that_an_ended_job_was_requeued(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.COMPLETED)
    requeue(service, job_id)
    slurm: Any = service.slurm
    planner = Planner(CATALOGUE, ["email", "test"], find_channel)
    other = Poller(service.store, slurm, planner, unknown_after=10 * MINUTE)
    other.poll_once(utc_now() + MINUTE, service.fence())
    assert service.record(task).is_open


def test_a_requeued_job_is_announced_for_each_record_although_one_was_registered_meanwhile(
    service: Service,
) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.FAILED, exit_code=3)
    requeue(service, job_id)
    second = watch(service, job_id)
    service.refresh(utc_now() + MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING
    service.slurm.put(job_id, JobState.COMPLETED, exit_code=0)
    service.refresh(utc_now() + 2 * MINUTE)
    for uuid in (task, second["task"]):
        assert service.record(uuid).slurm_job_state is JobState.COMPLETED


def test_a_registered_job_succeeds_whatever_its_task_says_of_an_array(service: Service) -> None:
    service.slurm.put(5, JobState.RUNNING)
    body = {"username": "alice", "uuid": "registered", "slurm": {"array": "0-9"}}
    service.registration.register(OPERATOR, {"monitor": {"task": body, "slurm_job_id": 5}})
    service.move(5, JobState.COMPLETED, exit_code=0)
    assert service.record(body).slurm_job_state is JobState.COMPLETED


def test_another_job_under_the_id_of_an_ended_one_reopens_nothing(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.COMPLETED)
    service.slurm.put(job_id, JobState.RUNNING, username="bob", comment="slurm-proxy:another")
    service.refresh(utc_now() + MINUTE)
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def test_two_records_of_one_job_are_both_announced(service: Service) -> None:
    service.slurm.put(5, JobState.PENDING)
    first = watch(service, 5)
    service.slurm.put(5, JobState.RUNNING)
    second = watch(service, 5)
    service.move(5, JobState.CANCELLED)
    for answer in (first, second):
        assert service.record(answer["task"]).slurm_job_state is JobState.CANCELLED


def test_a_cycle_without_news_writes_nothing(service: Service) -> None:
    task, _ = service.submit()
    before = service.record(task)
    assert service.refresh(utc_now() + MINUTE) == 0
    assert service.record(task) == before


class Broken(SqliteStore):
    """One record cannot be read, or not be kept."""

    unreadable = ""
    too_large = ""

    def find_by_uuids(self, uuids: Sequence[str], within: float | None = None) -> dict[str, TaskRecord]:
        if self.unreadable in uuids:
            raise ValueError("a record that cannot be read")
        return super().find_by_uuids(uuids, within)

    def apply_changes(self, changes: Iterable[Change], fence: int) -> int:
        changes = list(changes)
        large = [item for change in changes if change.uuid == self.too_large for item in change.notifications]
        if any(item.content for item in large):
            raise RecordTooLarge("too large")
        return super().apply_changes(changes, fence)


@pytest.mark.parametrize("fault", ["unreadable", "too_large", "odd"])
def test_a_task_that_cannot_be_handled_hides_no_other_end(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path / "store.sqlite3")
    store = Broken(tmp_path / "store.sqlite3")
    service.poller._store = service.poller._writer._store = store
    tasks = [service.submit(notification=make_email()) for _ in range(3)]
    bad = tasks[1][0]["uuid"]
    if fault == "odd":
        with store.writing() as connection:
            odd = {**tasks[1][0], "notification": {"methods": [{}]}}
            connection.execute("UPDATE tasks SET task = ? WHERE uuid = ?", (json.dumps(odd), bad))
    else:
        setattr(store, fault, bad)
    for _, job_id in tasks:
        service.slurm.put(job_id, JobState.COMPLETED)
    service.refresh(utc_now())
    service.deliver()
    assert {service.record(task).slurm_job_state for task, _ in tasks} == {JobState.COMPLETED}
    assert len(service.email.messages) == 2
    assert bad in caplog.text
    if fault == "too_large":
        (item,) = service.record(tasks[1][0]).notifications
        assert (item.status, item.last_error) == (NotificationStatus.DEAD, "it was too large to be stored")
    store.close()
    service.store.close()


def test_a_failed_poll_does_not_prevent_reconciling(service: Service) -> None:
    class Fails(Poller):
        def poll_once(self, now: datetime, fence: int) -> int:
            raise ZeroDivisionError

    task = left_open(service, exists=True)
    service.monitor._poller = Fails(
        service.store, service.client, service.poller._writer._planner, unknown_after=MINUTE
    )
    with pytest.raises(ZeroDivisionError):
        service.monitor.run_cycle(utc_now() + MINUTE)
    assert service.record(task).slurm_job_id is not None
