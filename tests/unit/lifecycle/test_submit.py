"""Submit tasks: one uuid is one job, whatever fails in between."""

import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import (
    DuplicateUuid,
    RefusalWithoutReason,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
    StoreUnavailable,
    UnknownTask,
)
from app.job_state import JobState
from app.models.caller import OPERATOR
from app.models.record import NotificationStatus, TaskRecord, utc_now
from app.store.sqlite import SqliteStore
from tests.support.answers import body_of
from tests.support.fakes import FakeSlurm
from tests.support.lifecycle import MINUTE, Service, left_open
from tests.support.tasks import make_task


def test_a_task_is_one_job_with_its_tag(service: Service) -> None:
    task, job_id = service.submit()
    ((sent, command, tag),) = service.slurm.submitted
    assert sent.username == "alice"
    assert command == " ".join(["echo", *task["params"]])
    assert tag == f"slurm-proxy:{task['uuid']}"
    record = service.record(task)
    assert (record.slurm_job_id, record.slurm_job_state) == (job_id, JobState.PENDING)
    assert record.task == task


def test_the_catalogue_brings_its_own_command(service: Service) -> None:
    service.submit(name="echo_hello_world", cmd=None, params=None)
    service.submit(name="echo_hello_world", cmd=None, params=["again"])
    assert [command for _, command, _ in service.slurm.submitted] == ["echo hello", "echo hello again"]


def test_the_intent_is_stored_before_slurm_hears_of_it(service: Service) -> None:
    class Watching(FakeSlurm):
        seen = None

        def submit(self, task: Any, *args: Any) -> tuple[int, list[str]]:
            self.seen = service.store.find_by_uuids([task.uuid])[task.uuid]
            return super().submit(task, *args)

    watching: Any = Watching()
    service.submitter._slurm = watching
    task, _ = service.submit()
    assert watching.seen.slurm_job_id is None
    assert watching.seen.task == task


def test_a_uuid_runs_once(service: Service) -> None:
    task, job_id = service.submit()
    with pytest.raises(DuplicateUuid) as caught:
        service.submitter.submit(OPERATOR, {"task": task})
    assert caught.value.slurm_job_id == job_id
    assert len(service.slurm.submitted) == 1


@pytest.mark.parametrize("failure", [SlurmRefused("no"), SlurmUnavailable("down"), SlurmMisbehaved("token")])
def test_a_submission_without_a_job_leaves_the_uuid_free(service: Service, failure: SlurmProxyError) -> None:
    task = make_task()
    service.slurm.failure = failure
    with pytest.raises(type(failure)):
        service.submitter.submit(OPERATOR, {"task": task})
    assert service.submitter.submit(OPERATOR, {"task": task}).slurm_job_id


def test_an_ambiguous_answer_adopts_the_job_that_exists(service: Service) -> None:
    task = make_task()
    service.slurm.failure, service.slurm.keeps_job = SlurmAmbiguous("time-out"), True
    answer = body_of(service.submitter.submit(OPERATOR, {"task": task}))
    assert answer["slurm_job_id"] == service.record(task).slurm_job_id
    assert len(service.slurm.submitted) == 1


def test_an_unknown_outcome_reserves_the_uuid_until_it_is_settled(service: Service) -> None:
    task = make_task()
    service.slurm.failure = SlurmAmbiguous("time-out")
    with pytest.raises(SlurmAmbiguous, match=task["uuid"]):
        service.submitter.submit(OPERATOR, {"task": task})
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task})
    service.reconcile(utc_now())
    assert service.record(task).slurm_job_id is None, "too early to tell"
    service.reconcile(utc_now() + 3 * MINUTE)
    assert service.submitter.submit(OPERATOR, {"task": task}).slurm_job_id


def test_a_job_that_runs_is_answered_even_if_the_store_fails_then(service: Service) -> None:
    class FailsOnce(SqliteStore):
        def accept_job(self, *args: Any, **kwargs: Any) -> bool:
            raise StoreUnavailable("gone")

    broken = FailsOnce(service.store._path)
    service.reservations._store = broken
    task = make_task()
    answer = body_of(service.submitter.submit(OPERATOR, {"task": task}))
    broken.close()
    assert answer["slurm_job_id"] in service.slurm.jobs
    assert "database" in answer["warnings"][0]
    service.reconcile(utc_now() + 3 * MINUTE)
    assert service.record(task).slurm_job_id == answer["slurm_job_id"]


def test_a_method_without_a_server_is_a_warning_and_stands_in_the_record(service: Service) -> None:
    params = {"rabbithq": {"queue": "jobs"}}
    task = make_task(notification={"methods": ["slack", "rabbithq", "test"], "params": params})
    answer = body_of(service.submitter.submit(OPERATOR, {"task": task}))
    assert answer["warnings"] == [
        "this server is not configured for slack",
        "this server is not configured for rabbitmq",
    ]
    items = service.record(task).notifications
    assert [(item.method, item.status) for item in items] == [
        ("slack", NotificationStatus.UNDELIVERABLE),
        ("rabbitmq", NotificationStatus.UNDELIVERABLE),
    ]
    service.move(answer["slurm_job_id"], JobState.COMPLETED)
    assert [item.method for item in service.record(task).notifications] == ["slack", "rabbitmq", "test"]


def test_the_token_of_a_submission_ends_before_its_uuid_can_be_freed(service: Service) -> None:
    class Noting(FakeSlurm):
        expires: datetime | None = None

        def submit(self, task: Any, command: str, tag: str, expires: datetime) -> tuple[int, list[str]]:
            self.expires = expires
            raise SlurmAmbiguous("time-out")

    noting: Any = Noting()
    service.submitter._slurm = noting
    task = make_task()
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task})
    service.reconcile(noting.expires + timedelta(seconds=59))
    assert service.record(task).is_reserved
    service.reconcile(noting.expires + timedelta(seconds=61))
    assert not service.record(task).is_reserved


def test_a_late_answer_of_slurm_is_recorded(service: Service) -> None:
    task = left_open(service, exists=False)
    record = service.record(task)
    service.reconcile(utc_now() + 3 * MINUTE)
    assert service.store.accept_job(record, 4711, JobState.PENDING, utc_now())
    found = service.record(task)
    assert (found.slurm_job_id, found.submission_error) == (4711, None)


def test_an_old_answer_never_touches_a_new_submission(service: Service) -> None:
    task = left_open(service, exists=False)
    old = service.record(task)
    service.reconcile(utc_now() + 3 * MINUTE)
    time.sleep(0.002)  # records are told apart by their millisecond
    answer = body_of(service.submitter.submit(OPERATOR, {"task": task}))
    assert not service.store.accept_job(old, 4711, JobState.PENDING, utc_now())
    service.store.release_reservation(old)
    assert service.record(task).slurm_job_id == answer["slurm_job_id"]


def test_a_refusal_without_a_reason_is_ambiguous_if_a_job_is_similar_to_the_task(service: Service) -> None:
    task = make_task()
    service.slurm.failure, service.slurm.keeps_job = RefusalWithoutReason("-1"), True
    service.slurm.on_submit = lambda job_id: service.slurm.put(job_id, comment="set by the site")
    with pytest.raises(SlurmAmbiguous, match="it is not known yet"):
        service.submitter.submit(OPERATOR, {"task": task})
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task})


def test_an_outage_does_not_make_a_reservation_of_what_was_freed(service: Service) -> None:
    task = left_open(service, exists=False)
    service.reconcile(utc_now() + 4 * MINUTE)
    before = service.record(task)
    service.slurm.known_down = SlurmUnavailable("down")
    with pytest.raises(SlurmUnavailable):
        service.submitter.submit(OPERATOR, {"task": task})
    assert service.record(task) == before
    service.slurm.known_down = None
    assert service.submitter.submit(OPERATOR, {"task": task}).slurm_job_id


@pytest.mark.parametrize("key", [None, "a key"])
def test_a_uuid_that_is_freed_during_a_submission_is_used_by_it(service: Service, key: str | None) -> None:
    """A reservation stands in the way, and is settled before it can be read."""

    class SettledMeanwhile(SqliteStore):
        def add_record(self, record: TaskRecord) -> None:
            try:
                super().add_record(record)
            except DuplicateUuid:
                service.reconcile(utc_now() + 3 * MINUTE)
                raise

    task = left_open(service, exists=False)
    service.reservations._store = store = SettledMeanwhile(service.store._path)
    answer = body_of(service.submitter.submit(OPERATOR, {"task": task}, key))
    assert service.record(task).slurm_job_id == answer["slurm_job_id"]
    store.close()


class GivesBack(SqliteStore):
    """The first that comes finds the uuid taken by one who gives it back in the same moment."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.taken = 1

    def add_record(self, record: TaskRecord) -> None:
        if self.taken:
            self.taken -= 1
            raise DuplicateUuid(record.uuid, None)
        super().add_record(record)


def test_a_uuid_that_is_given_back_meanwhile_is_taken(tmp_path: Path) -> None:
    service = Service(tmp_path / "store.sqlite3")
    store = GivesBack(tmp_path / "store.sqlite3")
    service.reservations._store = store
    task, job_id = service.submit()
    assert service.record(task).slurm_job_id == job_id
    store.taken = 99
    with pytest.raises(StoreUnavailable):
        service.submit()
    store.close()
    service.store.close()


class Forgets(SqliteStore):
    """Cannot keep the outcome of a submission for a while."""

    is_away = True

    def accept_job(self, *args: Any, **kwargs: Any) -> bool:
        if self.is_away:
            raise StoreUnavailable("away")
        return super().accept_job(*args, **kwargs)


def test_a_job_that_could_not_be_recorded_is_recorded_later(tmp_path: Path) -> None:
    service = Service(tmp_path / "store.sqlite3")
    store = Forgets(tmp_path / "store.sqlite3")
    service.reservations._store = store
    answer = body_of(service.submitter.submit(OPERATOR, {"task": (task := make_task())}))
    assert "completed as soon as" in answer["warnings"][0]
    assert service.record(task).is_reserved
    with pytest.raises(StoreUnavailable):
        service.reservations.record_unrecorded_jobs()
    store.is_away = False
    service.reservations.record_unrecorded_jobs()
    service.reservations.record_unrecorded_jobs()
    assert service.record(task).slurm_job_id == answer["slurm_job_id"]
    store.close()
    service.store.close()


def test_while_slurm_is_known_to_be_down_nothing_is_reserved(service: Service) -> None:
    taken, job_id = service.submit()
    task = make_task()
    service.slurm.known_down = SlurmUnavailable("down")
    with pytest.raises(SlurmUnavailable):
        service.submitter.submit(OPERATOR, {"task": task})
    with pytest.raises(UnknownTask):
        service.lookup.find_by_uuid(OPERATOR, task["uuid"])
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": taken})
    assert service.submitter.submit(OPERATOR, {"task": taken}, taken["uuid"]).slurm_job_id == job_id
