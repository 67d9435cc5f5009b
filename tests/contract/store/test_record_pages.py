"""Lists of records: filters, orders and pages, in every store."""

import random
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from app.errors import InvalidRequest
from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import NotificationStatus, TaskRecord
from app.models.task_filter import TaskFilter, TaskOrder
from app.models.task_summary import TaskSummary
from app.store import TaskStore
from tests.support.filters import make_filter
from tests.support.stores import NOW, make_notification, make_record, make_running
from tests.support.tasks import make_task, new_uuid

SECOND = timedelta(seconds=1)
NAMES = ["train", "train-1", "100%", "a_b", "axb", "[ab]", "a.b", "t?", "tr\\ain", "it's", "Train"]


def wanted(**values: Any) -> TaskFilter:
    return make_filter(values, NOW)


def read_pages(
    store: TaskStore, filter_: TaskFilter, limit: int, **options: Any
) -> Iterator[list[TaskSummary]]:
    """Yield all pages, from the first to the last one."""
    usernames, after = options.pop("usernames", None), None
    while True:
        page = store.find_page(filter_, usernames, after=after, limit=limit, **options)
        assert len(page.tasks) <= limit
        yield list(page.tasks)
        if page.next is None:
            return
        assert page.next != after
        after = page.next


def read_list(store: TaskStore, filter_: TaskFilter, limit: int = 100, **options: Any) -> list[str]:
    return [task.uuid for page in read_pages(store, filter_, limit, **options) for task in page]


def make_any(number: int, dice: random.Random) -> TaskRecord:
    """Return a record of any kind, created at one of a few moments."""
    slurm = {"job_name": dice.choice(NAMES), "partition": dice.choice(["debug", "gpu"])}
    task = make_task(
        username=dice.choice(["alice", "bob", "carol"]),
        name=dice.choice(["generic", "echo_hello_world"]),
        slurm=slurm if dice.random() < 0.8 else {},
    )
    fields: dict[str, Any] = {
        "task": task,
        "created_at": NOW - dice.randrange(5) * SECOND,
        "caller": dice.choice(["ci", "lab", None]),
        "resubmitted_from": dice.choice([None, None, "first", "second"]),
    }
    kind = dice.randrange(4)
    if kind == 0:
        return make_record(**fields, submission_error=dice.choice([None, "Slurm refused"]))
    state = dice.choice([*JobState, JobState.COMPLETED, JobState.FAILED, JobState.RUNNING])
    if kind == 1:
        return make_record(**fields, slurm_job_id=number, slurm_job_state=state)
    job = SlurmJob(
        job_id=number,
        username=task["username"],
        job_state=state,
        name=dice.choice(NAMES),
        partition=dice.choice(["debug", "gpu", "gpu,debug"]),
    )
    return make_record(**fields, slurm_job_id=number, slurm_job_state=state, job=job)


def meets(record: TaskRecord, filter_: TaskFilter) -> bool:
    """Return whether a record meets a filter, as a reader of the reference would say."""
    job, slurm = record.job, record.task.get("slurm", {})
    state = record.slurm_job_state
    states = {
        word
        for word, is_met in {
            "open": not record.has_ended,
            "ended": record.has_ended,
            "failed": record.has_succeeded is False,
            str(state): state is not None,
        }.items()
        if is_met
    }
    job_name = (job and job.name) or slurm.get("job_name")
    patterns = [".*".join(map(re.escape, word.split("*"))) for word in filter_.job_name]
    single = {
        "username": record.slurm_username,
        "name": record.task["name"],
        "partition": (job and job.partition) or slurm.get("partition"),
        "caller": record.caller,
        "resubmitted_from": record.resubmitted_from,
        "uuid": record.uuid,
    }
    return (
        all(
            not getattr(filter_, field) or value in getattr(filter_, field) for field, value in single.items()
        )
        and (not filter_.state or not states.isdisjoint(filter_.state))
        and (
            not patterns or any(re.fullmatch(one, job_name or "", re.DOTALL) for one in patterns if job_name)
        )
        and (filter_.since is None or record.created_at >= filter_.since)
        and (filter_.until is None or record.created_at < filter_.until)
    )


def roll_filter(dice: random.Random, uuids: list[str]) -> TaskFilter:
    """Return any filter, mostly of few conditions."""
    choices: dict[str, Any] = {
        "username": ["alice", "bob", "carol", "dave"],
        "state": ["open", "ended", "failed", *JobState],
        "name": ["generic", "echo_hello_world", "other"],
        "job_name": [*NAMES, "*", "train*", "*ain", "a*b", "[*", "*%", "*?*", "t*a*n*"],
        "partition": ["debug", "gpu", "gpu,debug"],
        "caller": ["ci", "lab"],
        "resubmitted_from": ["first", "second"],
        "uuid": uuids,
    }
    fields = dice.sample(list(choices), dice.choice([0, 1, 1, 2, 2, 3]))
    values: dict[str, Any] = {
        field: dice.sample(choices[field], dice.randint(1, min(3, len(choices[field])))) for field in fields
    }
    if dice.random() < 0.2:
        values["since"] = (NOW - dice.randrange(5) * SECOND).isoformat()
    if dice.random() < 0.2:
        values["until"] = (NOW - dice.randrange(5) * SECOND).isoformat()
    return wanted(**values)


def test_all_pages_together_hold_each_record_that_is_wanted_once(store: TaskStore) -> None:
    dice = random.Random(13)
    records = [make_any(number, dice) for number in range(1, 61)]
    for record in records:
        store.add_record(record)
    uuids = [record.uuid for record in records]
    for _ in range(80):
        filter_ = roll_filter(dice, uuids)
        usernames = dice.choice([None, None, ["alice"], ["bob", "carol"], []])
        readable = [one for one in records if usernames is None or one.slurm_username in usernames]
        expected = [one for one in readable if meets(one, filter_)]
        for order in TaskOrder:
            found = read_list(store, filter_, dice.choice([4, 9, 50]), usernames=usernames, order=order)
            assert sorted(found) == sorted(one.uuid for one in expected), filter_
            times = [records[uuids.index(uuid)].created_at for uuid in found]
            assert times == sorted(times, reverse=order is TaskOrder.NEWEST)


def test_a_summary_has_the_values_of_its_record(store: TaskStore) -> None:
    job = SlurmJob(
        job_id=7,
        username="alice",
        job_state=JobState.FAILED,
        reason="NonZeroExitCode",
        exit_code=3,
        signal=0,
        name="in Slurm",
        partition="gpu",
        submit_time=NOW,
        start_time=NOW + SECOND,
        end_time=NOW + 2 * SECOND,
    )
    messages = [make_notification(), make_notification(status=NotificationStatus.SENT), make_notification()]
    record = make_record(
        task=make_task(slurm={"job_name": "asked", "partition": "debug"}),
        slurm_job_id=7,
        slurm_job_state=JobState.FAILED,
        job=job,
        notifications=tuple(messages),
        resubmitted_from="before",
        updated_at=NOW + 3 * SECOND,
    )
    store.add_record(record)
    [task] = store.find_page(wanted(), None).tasks
    assert task == TaskSummary(
        uuid=record.uuid,
        slurm_job_id=7,
        slurm_job_state=JobState.FAILED,
        ended=True,
        succeeded=False,
        reason="NonZeroExitCode",
        slurm_username="alice",
        name="generic",
        job_name="in Slurm",
        partition="gpu",
        created_at=NOW,
        updated_at=NOW + 3 * SECOND,
        submit_time=NOW,
        start_time=NOW + SECOND,
        end_time=NOW + 2 * SECOND,
        exit_code=3,
        signal=0,
        resubmitted_from="before",
        submission_error=None,
        notifications={NotificationStatus.DUE: 2, NotificationStatus.SENT: 1},
    )


def test_a_summary_of_an_odd_task_is_readable(store: TaskStore) -> None:
    for odd in (
        {"slurm": 5},
        {"slurm": "job_name"},
        {"slurm": {"job_name": 5, "partition": 7}, "name": 1},
    ):
        store.add_record(make_running(task={"uuid": new_uuid(), "username": "alice", **odd}))
    tasks = store.find_page(wanted(), None).tasks
    assert [(task.name, task.job_name, task.partition) for task in tasks] == [(None, None, None)] * 3


def test_a_page_is_not_changed_by_records_that_are_added(store: TaskStore) -> None:
    for number in range(20):
        store.add_record(make_running(created_at=NOW + number // 4 * SECOND))
    expected = read_list(store, wanted())
    first = store.find_page(wanted(), None, limit=10)
    for offset in (-1, 2, 9):
        store.add_record(make_running(created_at=NOW + offset * SECOND))
    found = [task.uuid for task in first.tasks]
    second = store.find_page(wanted(), None, limit=10, after=first.next)
    assert [*found, *(task.uuid for task in second.tasks)] == expected


def test_the_last_page_has_no_cursor(store: TaskStore) -> None:
    for _ in range(6):
        store.add_record(make_running())
    assert [len(page) for page in read_pages(store, wanted(), 3)] == [3, 3]
    assert [len(page) for page in read_pages(store, wanted(state="open"), 4)] == [4, 2]
    assert [len(page) for page in read_pages(store, wanted(state="ended"), 4)] == [0]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "AAAA", "é", "null", "a" * 5000, "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAuMQ", "....", "AAAA=="],
)
def test_a_forged_cursor_is_refused(store: TaskStore, cursor: str) -> None:
    store.add_record(make_running())
    with pytest.raises(InvalidRequest, match="after: must be the `next` of a page"):
        store.find_page(wanted(), None, after=cursor)


def test_an_altered_cursor_fails_in_no_other_way(store: TaskStore) -> None:
    dice = random.Random(5)
    for _ in range(4):
        store.add_record(make_running())
    cursor = store.find_page(wanted(), None, limit=2).next
    assert cursor is not None
    assert re.fullmatch("[A-Za-z0-9_-]+", cursor)
    refused = 0
    for _ in range(200):
        letters = list(cursor)
        for _ in range(dice.randint(1, 3)):
            letters[dice.randrange(len(letters))] = dice.choice("ABCDEFabcdef0123456789_-")
        try:
            store.find_page(wanted(), None, after="".join(letters))
        except InvalidRequest:
            refused += 1
    assert refused


def test_whole_records_of_a_page_are_in_its_order(store: TaskStore) -> None:
    records = [make_running(created_at=NOW + number * SECOND) for number in range(5)]
    for record in records:
        store.add_record(record)
    page = store.find_page(wanted(), None, limit=3)
    assert store.find_records(page) == records[:1:-1]


def many_users(count: int) -> list[str]:
    return [f"user{number}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 150, 500, 3000])
def test_a_list_of_many_users_holds_theirs_alone(store: TaskStore, count: int) -> None:
    names = [*many_users(count)[-3:], "alice"]
    for name in names:
        for state in (JobState.RUNNING, JobState.FAILED):
            task = make_task(username=name)
            store.add_record(make_running(task=task, slurm_username=name, slurm_job_state=state))
    mine = min(count, 3)
    for values, expected in (({}, 2 * mine), ({"state": "failed"}, mine), ({"state": "ended"}, mine)):
        pages = read_pages(store, wanted(**values), 2, usernames=many_users(count))
        users = [task.slurm_username for page in pages for task in page]
        assert len(users) == expected
        assert "alice" not in users
