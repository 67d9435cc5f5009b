"""Records, notifications and claims for tests of the stores."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import Change, Notification, NotificationStatus, TaskRecord
from app.store import TaskStore
from app.store.notification_queue import Claim, Outcome
from tests.support.tasks import make_task, new_uuid

NOW = datetime(2099, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)  # MongoDB removes rate windows that have passed


LATER = NOW + timedelta(minutes=5)


Factory = Callable[[], TaskStore]


def make_record(**fields: Any) -> TaskRecord:
    task = fields.pop("task", None) or make_task()
    base = {"task": task, "slurm_username": task["username"], "created_at": NOW, "updated_at": NOW}
    return TaskRecord.model_validate({**base, **fields})


def make_running(**fields: Any) -> TaskRecord:
    return make_record(**{"slurm_job_id": 7, "slurm_job_state": JobState.RUNNING, **fields})


def make_notification(method: str = "email", **fields: Any) -> Notification:
    base = {
        "id": new_uuid(),
        "event": "end",
        "method": method,
        "params": {"recipient": "someone@example.com", "$odd.key": [1, 2.5, None]},
        "content": {"subject": "s", "words": "w", "facts": {"cpus": 2, "cpu_efficiency": 0.5}},
        "status": NotificationStatus.DUE,
        "created_at": NOW,
        "attempt_after": NOW,
    }
    return Notification.model_validate({**base, **fields})


def find(store: TaskStore, uuid: str) -> TaskRecord | None:
    return store.find_by_uuids([uuid]).get(uuid)


def fence_of(store: TaskStore) -> int:
    fence = store.acquire_lease("the tests", NOW, NOW)
    assert fence is not None
    return fence


def end(record: TaskRecord, *notifications: Notification) -> Change:
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.FAILED, exit_code=3, submit_time=NOW)
    return Change(record.uuid, JobState.RUNNING, JobState.FAILED, LATER, job, notifications)


def claim(store: TaskStore, token: str = "me", now: datetime = NOW, method: str = "email") -> Claim | None:
    return store.claim(method, token, now, now + timedelta(minutes=1))


ANN = "email:ann@example.com"


def held_back(store: TaskStore, count: int, opens: datetime = LATER) -> list[Notification]:
    """Return a number of notifications that were claimed, and deferred until a window ends."""
    record = make_running(notifications=tuple(make_notification() for _ in range(count)))
    store.add_record(record)
    for number in range(count):
        mine = claim(store, f"hold {number}")
        assert mine is not None
        outcome = Outcome(NotificationStatus.GATHERED, NOW, opens, None, ANN, was_attempt=False)
        assert store.settle(mine, outcome)
    found = find(store, record.uuid)
    assert found is not None
    return list(found.notifications)
