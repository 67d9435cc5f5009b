"""The use cases, on a real embedded store and a cluster in memory."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from app.errors import (
    AlreadyOver,
    DeliveryFailed,
    DuplicateUuid,
    IdempotencyKeyReused,
    InvalidRequest,
    NoSuchTask,
    NotTheOwner,
    RecordTooLarge,
    RefusalWithoutReason,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmProxyError,
    SlurmRefused,
    SlurmUnavailable,
    StoreUnavailable,
    UnknownJob,
    UnknownTask,
)
from app.job_state import JobState
from app.lifecycle.cancel import Cancellation
from app.lifecycle.clock_guard import ClockGuard
from app.lifecycle.deliver import Delivery
from app.lifecycle.look_up import TaskLookup
from app.lifecycle.poll import Poller
from app.lifecycle.reconcile import Reconciler
from app.lifecycle.register_job import JobRegistration
from app.lifecycle.reservations import Reservations
from app.lifecycle.retry_policy import DeliveryPolicy
from app.lifecycle.submit import TaskSubmitter
from app.lifecycle.validation import RequestValidator
from app.messages.plan import Planner
from app.models.array_indices import count_array_tasks
from app.models.caller import OPERATOR
from app.models.record import Change, NotificationStatus, OpenJob, TaskRecord, utc_now
from app.models.task import CatalogueEntry
from app.monitor import Monitor
from app.senders import find_channel
from app.slurm.client import SlurmClient
from app.store.sqlite import SqliteStore
from tests.support.answers import body_of
from tests.support.fakes import FakeSlurm, RecordingSender
from tests.support.tasks import make_email, make_task

CATALOGUE = {
    "generic": CatalogueEntry(requires_command=True),
    "echo_hello_world": CatalogueEntry.model_validate(
        {
            "cmd": "echo",
            "default_params": ["hello"],
            "notification": {
                "methods": ["test"],
                "params": {"test": {"subject": "canned"}, "email": {"sender": "op@example.com"}},
            },
        }
    ),
}
MINUTE = timedelta(minutes=1)
LIFE = timedelta(seconds=96)


POLICY = DeliveryPolicy(claim_timeout=3 * MINUTE, retry_window=timedelta(days=1))


class Service:
    """The use cases put together as app/services.py does it, on fakes where the network would be."""

    def __init__(self, path: Path, policy: DeliveryPolicy = POLICY) -> None:
        self.store = SqliteStore(path)
        self.store.prepare()
        self.slurm = FakeSlurm()
        self.email = RecordingSender(rate_limited=True)
        self.test = RecordingSender()
        senders: Any = {"email": self.email, "test": self.test}
        slurm = self.client = cast(SlurmClient, self.slurm)
        planner = Planner(CATALOGUE, senders, find_channel)
        self.clocks = ClockGuard(slurm, MINUTE)
        validator = RequestValidator(CATALOGUE, {"root", "slurm"})
        self.reservations = Reservations(self.store, slurm, self.clocks)
        self.submitter = TaskSubmitter(
            self.store, slurm, planner, validator, self.reservations, submission_life=LIFE
        )
        self.registration = JobRegistration(self.store, slurm, planner, validator)
        self.lookup = TaskLookup(self.store, slurm)
        self.poller = Poller(self.store, slurm, planner, unknown_after=10 * MINUTE)
        self.reconciler = Reconciler(
            self.store,
            slurm,
            planner,
            submission_life=LIFE,
            skew=MINUTE,
            min_job_age=5 * MINUTE,
            pause=timedelta(0),
        )
        self.delivery = Delivery(self.store, senders, policy, methods=["email", "test"], jitter=lambda: 1.0)
        self.monitor = self.new_monitor("here")

    def new_monitor(self, owner: str, interval: float = 1) -> Monitor:
        return Monitor(
            self.store,
            self.reservations,
            self.poller,
            self.reconciler,
            self.delivery,
            clocks=self.clocks,
            owner=owner,
            interval=interval,
            lease=30,
            cycle_limit=60,
        )

    def submit(self, **fields: Any) -> tuple[dict[str, Any], int]:
        task = make_task(**fields)
        return task, int(self.submitter.submit(OPERATOR, {"task": task}).slurm_job_id)

    def record(self, task: dict[str, Any]) -> TaskRecord:
        return self.store.find_by_uuids([task["uuid"]])[task["uuid"]]

    def move(self, job_id: int, state: JobState, **fields: Any) -> None:
        self.slurm.put(job_id, state, **fields)
        self.refresh(utc_now())

    def refresh(self, at: datetime) -> int:
        return self.poller.poll_once(at, self.fence())

    def reconcile(self, at: datetime) -> None:
        self.slurm.clock = lambda: at
        self.reconciler.reconcile(at, self.fence())

    def fence(self) -> int:
        fence = self.store.acquire_lease("here", utc_now(), utc_now() - MINUTE)
        assert fence is not None
        return fence

    def deliver(self, at: datetime | None = None) -> None:
        for method in self.delivery.methods:
            self.monitor.deliver(method, at or utc_now())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "store.sqlite3")
    yield service
    service.store.close()


# --- submitting ------------------------------------------------------------------------------


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
def test_what_never_became_a_job_leaves_the_uuid_free(service: Service, failure: SlurmProxyError) -> None:
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


def test_what_cannot_be_told_keeps_the_uuid_until_it_is_settled(service: Service) -> None:
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


def test_reconcile_adopts_what_a_crash_left_behind(service: Service) -> None:
    task = make_task()
    service.slurm.failure, service.slurm.keeps_job = SlurmAmbiguous("time-out"), True
    service.slurm.down = SlurmUnavailable("and slurmctld went away")
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task})
    with pytest.raises(SlurmUnavailable):
        service.reconcile(utc_now() + 3 * MINUTE)
    assert service.record(task).slurm_job_id is None, "nothing is settled while Slurm is down"
    service.slurm.down = None
    service.reconcile(utc_now() + 3 * MINUTE)
    (job_id,) = service.slurm.jobs
    assert service.record(task).slurm_job_id == job_id


def test_a_job_that_runs_is_answered_even_if_the_store_fails_then(service: Service) -> None:
    class FailsOnce(SqliteStore):
        def accept_job(self, *args: Any) -> bool:
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


# --- one task, one job -----------------------------------------------------------------------


def left_open(service: Service, *, exists: bool, **fields: Any) -> dict[str, Any]:
    """A task whose submission got no answer, at a time when nothing could be looked up."""
    task = make_task(**fields)
    service.slurm.failure, service.slurm.keeps_job = SlurmAmbiguous("time-out"), exists
    service.slurm.down = SlurmUnavailable("and slurmctld went away")
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task})
    service.slurm.down = None
    return task


def purge(service: Service) -> None:
    for job_id in list(service.slurm.jobs):
        service.slurm.forget(job_id)


def test_a_retry_with_its_key_gets_the_first_answer(service: Service) -> None:
    task = make_task(notification={"methods": ["slack"]})
    first = body_of(service.submitter.submit(OPERATOR, {"task": task}, "a key"))
    assert first["warnings"]
    assert body_of(service.submitter.submit(OPERATOR, {"task": task}, "a key")) == first
    assert body_of(service.submitter.submit(OPERATOR, {"task": task}, task["uuid"])) == first, (
        "the uuid is a key, too"
    )
    assert len(service.slurm.submitted) == 1


def test_a_key_stands_for_one_request(service: Service) -> None:
    task = make_task()
    service.submitter.submit(OPERATOR, {"task": task}, "a key")
    for other in (make_task(), {**task, "cmd": "rm"}):
        with pytest.raises(IdempotencyKeyReused):
            service.submitter.submit(OPERATOR, {"task": other}, "a key")
    with pytest.raises(IdempotencyKeyReused):
        service.submitter.submit(OPERATOR, {"task": {**task, "cmd": "rm"}}, task["uuid"])
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task}, "another key")
    assert len(service.slurm.submitted) == 1


def test_a_retry_before_it_is_settled_is_told_to_wait(service: Service) -> None:
    task = left_open(service, exists=True)
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task}, task["uuid"])
    service.reconcile(utc_now() + MINUTE)
    answer = body_of(service.submitter.submit(OPERATOR, {"task": task}, task["uuid"]))
    assert answer["slurm_job_id"] in service.slurm.jobs
    assert len(service.slurm.submitted) == 1


def test_a_freed_uuid_tells_why_and_can_be_used_again_with_its_key(service: Service) -> None:
    task = make_task()
    service.slurm.failure = SlurmAmbiguous("time-out")
    with pytest.raises(SlurmAmbiguous):
        service.submitter.submit(OPERATOR, {"task": task}, "a key")
    service.reconcile(utc_now() + MINUTE)
    assert service.record(task).is_reserved, "its request may still be on its way"
    service.reconcile(utc_now() + 3 * MINUTE)
    answer = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))
    assert "made no job" in answer["monitor"]["submission_error"]
    assert answer["slurm"]["job_state"] is None
    again = body_of(service.submitter.submit(OPERATOR, {"task": task}, "a key"))
    assert (
        body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["monitor"]["slurm_job_id"]
        == again["slurm_job_id"]
    )


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


def test_an_answer_that_comes_after_all_is_kept(service: Service) -> None:
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


def test_what_only_slurmdbd_knows_is_adopted_by_its_looks(service: Service) -> None:
    task = left_open(service, exists=True)
    service.submit(slurm={"job_name": "another name"})
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    job_id = service.record(task).slurm_job_id
    assert job_id is not None
    assert service.slurm.ended[job_id].name == "slurm-proxy-test.generic"


def test_a_reservation_that_would_be_refused_today_keeps_no_other_open(service: Service) -> None:
    """Another version may have stricter rules."""
    strange, other = left_open(service, exists=False), left_open(service, exists=False)
    stored = json.dumps(strange | {"slurm": {"job_name": "a/b", "output": "%x"}, "notification": "x"})
    file = sqlite3.connect(service.store._path)
    with file:
        file.execute("UPDATE tasks SET task = ? WHERE uuid = ?", (stored, strange["uuid"]))
    file.close()
    service.slurm.put(999, username="alice", name="a/b", working_directory="/home/alice")
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    assert "may be used again" in str(service.record(other).submission_error)
    assert service.record(strange).slurm_job_id == 999


@pytest.mark.parametrize("has_accounting", [True, False])
@pytest.mark.parametrize("comment", ["set by the site", None])
def test_a_job_whose_comment_the_site_replaced_keeps_its_uuid(
    service: Service, has_accounting: bool, comment: str | None
) -> None:
    """A submit plugin may do that, and the comment is the only proof in slurmctld."""
    service.slurm.has_accounting = has_accounting
    task, other = left_open(service, exists=True), left_open(service, exists=False, cwd="/elsewhere")
    (job_id,) = service.slurm.jobs
    service.slurm.put(job_id, comment=comment)
    service.reconcile(utc_now() + 3 * MINUTE)
    record = service.record(task)
    assert record.slurm_job_state is JobState.UNKNOWN
    assert "another comment" in str(record.submission_error)
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task})
    assert "may be used again" in str(service.record(other).submission_error)


def test_a_refusal_without_a_reason_is_doubted_where_a_job_looks_like_the_task(service: Service) -> None:
    task = make_task()
    service.slurm.failure, service.slurm.keeps_job = RefusalWithoutReason("-1"), True
    service.slurm.on_submit = lambda job_id: service.slurm.put(job_id, comment="set by the site")
    with pytest.raises(SlurmAmbiguous, match="cannot be told"):
        service.submitter.submit(OPERATOR, {"task": task})
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task})


def test_of_two_that_look_alike_none_is_taken(service: Service) -> None:
    task = left_open(service, exists=True, notification=make_email())
    service.slurm.put(999, username="alice", name="slurm-proxy-test.generic", working_directory="/home/alice")
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    record = service.record(task)
    assert (record.slurm_job_id, record.slurm_job_state) == (None, JobState.UNKNOWN)
    assert "jobs that may be it: 2" in str(record.submission_error)
    assert [item.event for item in record.notifications] == ["end"]
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task})
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task}, task["uuid"])
    service.deliver(utc_now() + 4 * MINUTE)
    assert service.email.messages[0].subject.startswith("[UNKNOWN]")


def test_one_job_is_not_given_to_two_that_both_fit(service: Service) -> None:
    first, second = left_open(service, exists=True), left_open(service, exists=False)
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    for task in (first, second):
        assert service.record(task).slurm_job_state is JobState.UNKNOWN


def test_a_job_that_a_record_owns_is_not_given_away(service: Service) -> None:
    service.submit()
    lost = left_open(service, exists=False)
    purge(service)
    service.reconcile(utc_now() + 3 * MINUTE)
    assert service.record(lost).slurm_job_id is None
    assert "may be used again" in str(service.record(lost).submission_error)


def test_without_slurmdbd_an_old_reservation_is_not_guessed(service: Service) -> None:
    service.slurm.has_accounting = False
    early, late = left_open(service, exists=False), left_open(service, exists=False)
    service.reconcile(utc_now() + 4 * MINUTE)
    assert service.record(early).submission_error == service.record(late).submission_error
    lost = left_open(service, exists=False)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(lost).slurm_job_state is JobState.UNKNOWN


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_is_freed_while_slurmdbd_is_away(service: Service, exists: bool) -> None:
    task = left_open(service, exists=exists)
    purge(service)
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd")
    for minutes in (3, 60):
        service.reconcile(utc_now() + minutes * MINUTE)
        assert service.record(task).is_reserved
    service.slurm.accounting_down = None
    service.reconcile(utc_now() + 61 * MINUTE)
    assert (service.record(task).slurm_job_id is not None) is exists


@pytest.mark.parametrize("minutes", [3, 60])
def test_a_slurmdbd_that_has_not_heard_all_is_no_proof(service: Service, minutes: int) -> None:
    """After an outage it answers at once, and learns only then what slurmctld has kept for it."""
    task = left_open(service, exists=True)
    purge(service)
    service.slurm.accounting_is_behind = True
    at = utc_now() + minutes * MINUTE + 2 * MINUTE
    service.reconcile(at)
    assert service.record(task).is_reserved
    service.slurm.accounting_is_behind = False
    service.reconcile(at + MINUTE)
    assert service.record(task).slurm_job_id in service.slurm.ended
    assert len(service.slurm.submitted) == 1


def test_nothing_is_freed_before_all_jobs_in_slurmctld_were_read(service: Service) -> None:
    task = left_open(service, exists=False)
    service.slurm.search_is_complete = False
    service.reconcile(utc_now() + 60 * MINUTE)
    assert service.record(task).is_reserved
    service.slurm.search_is_complete = True
    service.reconcile(utc_now() + 61 * MINUTE)
    assert service.record(task).is_freed


def test_what_slurmctld_shows_is_adopted_while_slurmdbd_is_away(service: Service) -> None:
    task = left_open(service, exists=True)
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd")
    service.reconcile(utc_now() + MINUTE)
    assert service.record(task).slurm_job_id in service.slurm.jobs
    service.slurm.failure, service.slurm.keeps_job = SlurmAmbiguous("time-out"), True
    assert service.submit()[1] in service.slurm.jobs, "the submission itself finds it, too"


@pytest.mark.parametrize(
    ("name", "kept"), [('say "hi"', "say `hi`"), ("it's", "its"), ("n" * 1000, "n" * 255), ("\\x", "x")]
)
def test_a_name_that_slurmdbd_has_altered_is_still_that_of_the_job(
    service: Service, name: str, kept: str
) -> None:
    task = left_open(service, exists=True, slurm={"job_name": name})
    (job_id,) = service.slurm.jobs
    service.slurm.put(job_id, name=kept)
    purge(service)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(task).slurm_job_id == job_id


def test_a_job_whose_name_is_another_than_a_plain_one_is_another_job(service: Service) -> None:
    task = left_open(service, exists=False)
    service.slurm.put(999, username="alice", name="by hand", working_directory="/home/alice")
    purge(service)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(task).submission_error is not None
    assert service.record(task).slurm_job_state is None


def test_a_nameless_job_of_an_earlier_version_is_still_found_by_the_name_that_slurmdbd_gives_it(
    service: Service,
) -> None:
    task = left_open(service, exists=True, slurm={"output": "o"})
    (job_id,) = service.slurm.jobs
    service.slurm.put(job_id, name="allocation")
    purge(service)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(task).slurm_job_id == job_id


def test_a_name_that_slurmdbd_may_have_altered_beyond_recognition_is_no_reason_to_guess(
    service: Service,
) -> None:
    task = left_open(service, exists=True, slurm={"job_name": "größer?"})
    (job_id,) = service.slurm.jobs
    service.slurm.put(job_id, name="gr??er?")
    purge(service)
    service.reconcile(utc_now() + 6 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.UNKNOWN
    with pytest.raises(DuplicateUuid):
        service.submitter.submit(OPERATOR, {"task": task}, task["uuid"])


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


def test_a_job_of_another_task_is_not_followed_however_often_it_was_requeued(service: Service) -> None:
    """Its id was used again; a requeued job may have any submit time, but it keeps its tag."""
    task, job_id = service.submit(notification=make_email())
    service.move(job_id, JobState.RUNNING)
    submitted = service.slurm.jobs[job_id].submit_time
    assert submitted is not None
    others = {"submit_time": submitted + MINUTE, "restarts": 1, "comment": "slurm-proxy:another"}
    service.slurm.accounts_at_once = False
    service.move(job_id, JobState.COMPLETED, **others)
    assert service.record(task).slurm_job_state is JobState.RUNNING
    service.refresh(utc_now() + 11 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.UNKNOWN


@pytest.mark.parametrize("key", [None, "a key"])
def test_a_uuid_that_is_freed_while_its_next_owner_looks_is_taken(service: Service, key: str | None) -> None:
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


@pytest.mark.parametrize(("first", "then"), [(1, True), (1, 1.0), (0, False), ("1", 1), (None, False)])
def test_a_key_tells_values_apart_that_python_does_not(service: Service, first: Any, then: Any) -> None:
    task = make_task(meta=first)
    service.submitter.submit(OPERATOR, {"task": task}, "k")
    with pytest.raises(IdempotencyKeyReused):
        service.submitter.submit(OPERATOR, {"task": {**task, "meta": then}}, "k")


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


def test_many_reservations_cost_one_look(service: Service) -> None:
    for exists in (True, False, True):
        left_open(service, exists=exists)
    service.slurm.calls.clear()
    service.reconcile(utc_now() + 3 * MINUTE)
    assert service.slurm.calls == ["search"]


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


def test_a_leader_that_was_paused_writes_nothing(service: Service) -> None:
    task, job_id = service.submit()
    fence = service.fence()
    service.slurm.put(job_id, JobState.COMPLETED)
    assert service.store.acquire_lease("another", utc_now(), utc_now() + MINUTE) == fence + 1
    assert service.poller.poll_once(utc_now(), fence) == 0
    assert service.record(task).slurm_job_state is JobState.PENDING


# --- taking over -----------------------------------------------------------------------------


def watch(service: Service, job_id: int, **fields: Any) -> dict[str, Any]:
    task = {"username": "alice", "uuid": make_task()["uuid"], **fields.pop("task", {})}
    monitor = {"task": task, "slurm_job_id": job_id, **fields}
    return body_of(service.registration.register(OPERATOR, {"monitor": monitor}))


def test_a_job_from_elsewhere_is_taken_over(service: Service) -> None:
    service.slurm.put(5, JobState.RUNNING)
    answer = watch(service, 5, slurm_job_state="PENDING", task={"notification": make_email()})
    assert answer["slurm_job_state"] == "RUNNING", "Slurm's word counts"
    assert {"slurm_username", "slurm_job_id", "task", "created_at", "updated_at"} <= answer.keys()
    service.move(5, JobState.FAILED, exit_code=2)
    service.deliver()
    assert service.email.messages[0].subject == "[FAILED] the test job has ended"


def test_a_job_that_has_ended_already_is_announced_at_once(service: Service) -> None:
    service.slurm.put(5, JobState.TIMEOUT)
    watch(service, 5, task={"notification": make_email()})
    service.refresh(utc_now())
    service.deliver()
    assert len(service.email.messages) == 1


def test_a_foreign_or_unknown_job_is_not_taken_over(service: Service) -> None:
    service.slurm.put(5, username="bob")
    with pytest.raises(NotTheOwner, match=r"^monitor\.task\.username"):
        watch(service, 5)
    with pytest.raises(UnknownJob, match=r"^monitor\.slurm_job_id"):
        watch(service, 6)


def test_a_stated_state_must_be_one_of_slurms(service: Service) -> None:
    service.slurm.put(5)
    with pytest.raises(InvalidRequest, match=r"monitor\.slurm_job_state"):
        watch(service, 5, slurm_job_state="DONE")


# --- watching --------------------------------------------------------------------------------

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


def test_a_job_that_nobody_knows_is_unknown_after_a_while_and_never_a_success(service: Service) -> None:
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
            raise ValueError("a record that nobody can read")
        return super().find_by_uuids(uuids, within)

    def apply_changes(self, changes: Iterable[Change], fence: int) -> int:
        changes = list(changes)
        large = [item for change in changes if change.uuid == self.too_large for item in change.notifications]
        if any(item.content for item in large):
            raise RecordTooLarge("too large")
        return super().apply_changes(changes, fence)


@pytest.mark.parametrize("fault", ["unreadable", "too_large", "odd"])
def test_one_task_that_cannot_be_handled_keeps_no_other_from_its_end(
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
        assert (item.status, item.last_error) == (NotificationStatus.DEAD, "it was too large to be kept")
    store.close()
    service.store.close()


def test_what_hinders_watching_does_not_hinder_reconciling(service: Service) -> None:
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


def test_messages_that_would_fill_the_database_are_refused(service: Service) -> None:
    people = [f"p{number}@example.com" for number in range(100)]
    with pytest.raises(InvalidRequest, match="must not take more than 262144 bytes"):
        service.submit(notification=make_email(recipient=people, body="x" * 10_000))
    assert service.slurm.calls == []
    service.submit(notification=make_email(body="x" * 200_000))
    service.submit(notification=make_email(recipient=people, body="x" * 2_000))


def test_a_hundred_long_addresses_are_not_too_many(service: Service) -> None:
    people = [f"somebody.with.a.long.name.{number:03}@a-long-domain.example.com" for number in range(100)]
    task, job_id = service.submit(notification=make_email(recipient=people))
    service.move(job_id, JobState.COMPLETED)
    assert len(service.record(task).notifications) == 100


class TellsNothing(FakeSlurm):
    """As v0.0.40 and v0.0.41: what cannot be cancelled looks like a success."""

    def cancel(self, job_id: int, username: str) -> bool:
        super().cancel(job_id, username)
        return True


def test_what_has_ended_is_not_said_to_be_cancelled(service: Service) -> None:
    service.slurm.__class__ = TellsNothing
    task, job_id = service.submit()
    service.slurm.put(job_id, JobState.COMPLETED)
    with pytest.raises(AlreadyOver, match="has ended already"):
        Cancellation(service.store, service.client).cancel(OPERATOR, task["uuid"])


def refusal_of_cancelling(service: Service, job_id: int) -> str:
    with pytest.raises((AlreadyOver, NoSuchTask)) as refused:
        Cancellation(service.store, service.client).cancel_job(OPERATOR, str(job_id))
    return str(refused.value)


def test_a_refusal_to_cancel_by_job_id_speaks_of_the_job(service: Service) -> None:
    _, job_id = service.submit()
    _, forgotten = service.submit()
    service.move(job_id, JobState.COMPLETED)
    assert refusal_of_cancelling(service, job_id) == f"slurm_job_id: job {job_id} has ended already"
    service.slurm.forget(forgotten, accounted=False)
    words = f"slurm_job_id: Slurm does not know job {forgotten} any more"
    assert refusal_of_cancelling(service, forgotten) == words
    assert refusal_of_cancelling(service, 999) == "slurm_job_id: no job 999 is monitored here"


def test_a_record_that_is_unknown_to_slurm_is_not_cancelled(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.UNKNOWN)
    words = f"slurm_job_id: Slurm does not know job {job_id} any more"
    assert refusal_of_cancelling(service, job_id) == words
    with pytest.raises(AlreadyOver, match=f"Slurm does not know the job of {task['uuid']} any more"):
        Cancellation(service.store, service.client).cancel(OPERATOR, task["uuid"])


# --- delivering ------------------------------------------------------------------------------


def test_a_passing_failure_is_tried_again_and_then_sent_once(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.email.failures = [DeliveryFailed("busy", permanent=False, retry_after=60.0)]
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    (item,) = service.record(task).notifications
    assert (item.status, item.last_error) == (NotificationStatus.RETRYING, "busy")
    assert item.attempt_after is not None
    assert item.attempt_after >= utc_now() + timedelta(seconds=55)
    service.deliver()
    assert service.email.messages == []
    service.deliver(utc_now() + 2 * MINUTE)
    service.deliver(utc_now() + 9 * MINUTE)
    assert [message.id for message in service.email.messages] == [item.id]
    assert service.record(task).notifications[0].status is NotificationStatus.SENT


def test_a_permanent_failure_is_dead_with_its_reason(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.email.failures = [DeliveryFailed("550 no such user", permanent=True)]
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    service.deliver(utc_now() + timedelta(days=2))
    (item,) = service.record(task).notifications
    assert (item.status, item.last_error) == (NotificationStatus.DEAD, "550 no such user")


def test_waits_double_and_end_when_the_time_is_over(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.email.failures = [DeliveryFailed("busy", permanent=False) for _ in range(100)]
    service.move(job_id, JobState.COMPLETED)
    now, waits = utc_now(), []
    for _ in range(12):
        service.deliver(now)
        (item,) = service.record(task).notifications
        assert item.attempt_after is not None
        waits.append(round((item.attempt_after - now).total_seconds()))
        now = item.attempt_after + timedelta(milliseconds=1)
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800]
    service.deliver(now + timedelta(days=1))
    assert service.record(task).notifications[0].status is NotificationStatus.DEAD


def test_a_fault_in_a_sender_loses_nothing(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.email.failures = [ZeroDivisionError()]
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    assert service.record(task).notifications[0].status is NotificationStatus.RETRYING
    service.deliver(utc_now() + MINUTE)
    assert len(service.email.messages) == 1


def test_a_claimant_that_died_is_followed_by_another(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.move(job_id, JobState.COMPLETED)
    now = utc_now()
    assert service.store.claim("email", "the dead", now, now + MINUTE)
    service.deliver(now)
    assert service.email.messages == []
    service.deliver(now + 2 * MINUTE)
    assert [message.id for message in service.email.messages] == [service.record(task).notifications[0].id]


def test_each_recipient_has_a_message_of_his_own(service: Service) -> None:
    people = ["a@example.com", "b@example.com", "a@example.com"]
    task, job_id = service.submit(notification=make_email(recipient=people))
    service.email.failures = [DeliveryFailed("550 no", permanent=True)]
    service.move(job_id, JobState.COMPLETED)
    service.deliver()
    statuses = {item.params["recipient"]: item.status for item in service.record(task).notifications}
    assert sorted(statuses.values()) == [NotificationStatus.DEAD, NotificationStatus.SENT]
    assert len(service.email.messages) == 1


def test_a_callers_parameters_never_reach_another_task(service: Service) -> None:
    notification = {"methods": ["email"], "params": {"email": {"recipient": "x@example.com"}}}
    service.submit(name="echo_hello_world", cmd=None, params=None, notification=notification)
    task, job_id = service.submit(name="echo_hello_world", cmd=None, params=None)
    service.move(job_id, JobState.COMPLETED)
    (item,) = service.record(task).notifications
    assert (item.method, item.params) == ("test", {"subject": "canned"})
    assert CATALOGUE["echo_hello_world"].notification.params["email"] == {"sender": "op@example.com"}


# --- looking up ------------------------------------------------------------------------------


def test_a_look_up_shows_the_record_and_what_slurm_says_now(service: Service) -> None:
    task, job_id = service.submit()
    service.slurm.put(job_id, JobState.RUNNING, nodes="n1")
    answer = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))
    assert answer == body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))
    assert answer["slurm"]["job_state"] == "RUNNING"
    assert answer["slurm"]["nodes"] == "n1"
    assert answer["monitor"]["slurm_job_state"] == "PENDING"
    assert answer["monitor"]["task"] == task


def test_many_who_ask_at_once_cost_slurm_one_request(service: Service) -> None:
    task, _ = service.submit()
    for _ in range(50):
        service.lookup.find_by_uuid(OPERATOR, task["uuid"])
    assert service.slurm.calls.count("find_job") == 1


def test_a_job_that_ended_is_not_asked_for_again(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.FAILED, exit_code=3)
    service.slurm.forget(job_id)
    answer = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))
    assert (answer["slurm"]["job_state"], answer["slurm"]["exit_code"]) == ("FAILED", 3)
    assert "find_job" not in service.slurm.calls


def test_while_slurm_is_down_the_last_known_facts_are_marked(service: Service) -> None:
    task, _ = service.submit()
    service.slurm.down = SlurmUnavailable("slurmctld is down")
    slurm = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["slurm"]
    assert (slurm["job_state"], slurm["stale"], slurm["error"]) == ("PENDING", True, "slurmctld is down")


def test_another_job_of_the_same_id_is_not_shown(service: Service) -> None:
    task, job_id = service.submit()
    service.slurm.jobs[job_id] = service.slurm.jobs[job_id].model_copy(
        update={"username": "bob", "name": "secret"}
    )
    slurm = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["slurm"]
    assert (slurm["job_state"], slurm["username"]) == ("UNKNOWN", "alice")
    assert "name" not in slurm


def test_what_is_not_recorded_is_said_so(service: Service) -> None:
    with pytest.raises(UnknownTask):
        service.lookup.find_by_uuid(OPERATOR, "none")
    with pytest.raises(UnknownJob):
        service.lookup.find_by_job_id(OPERATOR, "4")


@pytest.mark.parametrize("text", ["abc", "-1", "0", "1.5", "4294967296", "9" * 5000, "٣", "1e3", "+1", " 1"])
def test_what_is_no_job_id_is_said_so(service: Service, text: str) -> None:
    with pytest.raises(InvalidRequest, match="slurm_job_id"):
        service.lookup.find_by_job_id(OPERATOR, text)


# --- the monitor -----------------------------------------------------------------------------


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


# --- figures and events ----------------------------------------------------------------------


def test_an_end_waits_a_little_for_the_figures_of_slurmdbd(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.accounts_at_once = False
    service.slurm.put(job_id, JobState.COMPLETED, exit_code=0, memory_mb=4096)
    now = utc_now()
    assert service.refresh(now) == 0
    assert service.record(task).slurm_job_state is JobState.PENDING
    measured = service.slurm.jobs[job_id].model_copy(
        update={"max_memory_bytes": 2**30, "cpu_seconds": 5.0, "exit_code": None, "comment": None}
    )
    service.slurm.ended[job_id] = measured
    assert service.refresh(now + timedelta(seconds=5)) == 1
    job = service.record(task).job
    assert job is not None
    assert (job.exit_code, job.max_memory_bytes, job.cpu_seconds) == (0, 2**30, 5.0)
    service.deliver(now + timedelta(seconds=6))
    assert "Memory     1.0 GB of 4.0 GB" in service.email.messages[0].text


def test_an_end_does_not_wait_for_long(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.accounts_at_once = False
    service.slurm.put(job_id, JobState.COMPLETED)
    now = utc_now()
    service.refresh(now)
    service.refresh(now + timedelta(seconds=10))
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def array_of(service: Service, spec: str) -> tuple[dict[str, Any], int]:
    options = {"mem": 10, "time": 1, "array": spec}
    return service.submit(slurm=options, notification=make_email(subject="array"))


def test_an_array_whose_failed_tasks_slurmctld_has_forgotten_did_not_succeed(service: Service) -> None:
    task, job_id = array_of(service, "0-3")
    service.slurm.accounts_at_once = False
    job = service.slurm.put(
        job_id, JobState.COMPLETED, exit_code=0, array_tasks={JobState.COMPLETED: 1}, array_job_id=job_id
    )
    now = utc_now()
    whole = {JobState.COMPLETED: 1, JobState.FAILED: 3}
    update = {"job_state": JobState.FAILED, "exit_code": 1, "array_tasks": whole, "comment": None}
    assert service.refresh(now) == 0
    service.slurm.ended[job_id] = job.model_copy(update=update)
    assert service.refresh(now + timedelta(seconds=5)) == 1
    record = service.record(task)
    assert record.slurm_job_state is JobState.FAILED
    assert record.job is not None
    assert record.job.array_tasks == whole
    service.deliver(now + timedelta(seconds=6))
    assert service.email.messages[0].subject == "[FAILED] array"


def test_an_array_waits_for_a_slurmdbd_that_is_away(service: Service) -> None:
    task, job_id = array_of(service, "0-3")
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd")
    service.slurm.put(job_id, JobState.COMPLETED, array_tasks={JobState.COMPLETED: 1}, array_job_id=job_id)
    for minutes in range(30):
        service.refresh(utc_now() + minutes * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING
    service.slurm.accounting_down = None
    whole = service.slurm.jobs[job_id].model_copy(update={"array_tasks": {JobState.COMPLETED: 4}})
    service.slurm.ended[job_id] = whole
    service.refresh(utc_now() + 31 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def test_an_array_waits_for_a_slurmdbd_that_is_back_and_has_yet_to_learn_all(service: Service) -> None:
    task, job_id = array_of(service, "0-2")
    service.slurm.accounting_down = SlurmUnavailable("slurmdbd")
    job = service.slurm.put(
        job_id, JobState.COMPLETED, array_tasks={JobState.COMPLETED: 1}, array_job_id=job_id
    )
    began = utc_now()
    for minutes in range(30):
        service.refresh(began + minutes * MINUTE)
    service.slurm.accounting_down = None
    so_far = {JobState.COMPLETED: 2, JobState.RUNNING: 1}
    service.slurm.ended[job_id] = job.model_copy(
        update={"job_state": JobState.RUNNING, "array_tasks": so_far, "comment": None}
    )
    service.refresh(began + 30 * MINUTE)
    service.refresh(began + 31 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.PENDING
    whole = {"array_tasks": {JobState.COMPLETED: 3}, "comment": None}
    service.slurm.ended[job_id] = job.model_copy(update=whole)
    service.refresh(began + 32 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def test_an_array_that_slurmdbd_never_knows_whole_is_told_in_the_end(service: Service) -> None:
    task, job_id = array_of(service, "0-2")
    service.slurm.accounts_at_once = False
    service.slurm.put(job_id, JobState.COMPLETED, array_tasks={JobState.COMPLETED: 1}, array_job_id=job_id)
    began = utc_now()
    service.refresh(began)
    service.refresh(began + 10 * MINUTE)
    assert service.record(task).slurm_job_state is JobState.UNKNOWN


@pytest.mark.parametrize("error", [SlurmUnavailable("away"), SlurmMisbehaved("the token")])
def test_a_slurmdbd_that_answers_nothing_hides_no_end(service: Service, error: SlurmProxyError) -> None:
    lost, lost_id = service.submit()
    task, job_id = service.submit()
    service.slurm.forget(lost_id)
    service.slurm.put(job_id, JobState.COMPLETED)
    service.slurm.accounting_down = error
    service.refresh(utc_now())
    assert service.record(task).slurm_job_state is JobState.COMPLETED
    assert service.record(lost).slurm_job_state is JobState.PENDING


@pytest.mark.parametrize("options", [True, "x", ["array"], {"array": {}}, {"array": 5}])
def test_what_a_watched_task_holds_for_slurm_stops_nobodys_watch(service: Service, options: Any) -> None:
    other, job_id = service.submit()
    service.slurm.put(5, JobState.RUNNING)
    watch(service, 5, task={"slurm": options})
    service.slurm.put(5, JobState.COMPLETED)
    service.slurm.put(job_id, JobState.COMPLETED)
    service.refresh(utc_now())
    assert service.record(other).slurm_job_state is JobState.COMPLETED
    assert service.store.list_open_jobs() == []


@pytest.mark.parametrize(
    ("state", "told"), [(JobState.COMPLETED, JobState.UNKNOWN), (JobState.FAILED, JobState.FAILED)]
)
def test_without_slurmdbd_an_array_that_is_not_known_whole_is_never_a_success(
    service: Service, state: JobState, told: JobState
) -> None:
    task, job_id = array_of(service, "0-3%2")
    service.slurm.has_accounting = False
    service.move(job_id, state, array_tasks={state: 3}, array_job_id=job_id)
    assert service.record(task).slurm_job_state is told


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ("0", 1),
        ("0-3", 4),
        ("1-9:4", 3),
        ("0-15%4", 16),
        ("1,3,5-7", 5),
        ("0-3,2", 4),
        ("x", None),
        ("0-3:0", None),
        ("1-9999999999", None),
        ("0-000000001" + "9" * 30, None),
        ("000000003-000000005", 3),
        ("0-4000000," * 90 + "1", None),
        ("", None),
    ],
)
def test_the_size_of_an_array(spec: str, size: int | None) -> None:
    assert count_array_tasks(spec) == size


@pytest.mark.parametrize("failure", ["no slurmdbd", "down", "odd"])
def test_without_figures_an_end_is_told_at_once(service: Service, failure: str) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.accounts_at_once = False
    service.slurm.has_accounting = failure != "no slurmdbd"
    service.slurm.accounting_down = {
        "no slurmdbd": None,
        "down": SlurmUnavailable("slurmdbd is down"),
        "odd": SlurmMisbehaved("what?"),
    }[failure]
    service.move(job_id, JobState.COMPLETED)
    assert service.record(task).slurm_job_state is JobState.COMPLETED


def test_the_figures_of_many_ends_cost_one_request(service: Service) -> None:
    ids = [service.submit()[1] for _ in range(50)]
    for job_id in ids:
        service.slurm.put(job_id, JobState.COMPLETED)
    service.slurm.calls.clear()
    assert service.refresh(utc_now()) == 50
    assert service.slurm.calls == ["poll", "read_accounting"]


def test_a_job_that_waits_for_long_is_told_of_by_one_look(service: Service) -> None:
    wish = {**make_email(), "events": ["end", {"pending_over": 30}]}
    tasks = [service.submit(notification=wish) for _ in range(3)]
    now = utc_now()
    service.slurm.calls.clear()
    assert service.refresh(now + 29 * MINUTE) == 0
    assert service.refresh(now + 31 * MINUTE) == 3
    assert service.refresh(now + 40 * MINUTE) == 0
    assert service.slurm.calls == ["poll", "poll", "read_jobs", "poll"]
    service.deliver(now + 40 * MINUTE)
    assert [message.event for message in service.email.messages] == ["pending_over"] * 3
    assert service.email.messages[0].subject == "[still waiting] the test job has ended"
    task, job_id = tasks[0]
    service.move(job_id, JobState.COMPLETED)
    assert [item.event for item in service.record(task).notifications] == ["pending_over", "end"]


def test_a_running_job_is_told_of_its_time_by_slurms_own_clock(service: Service) -> None:
    wish = {**make_email(), "events": ["begin", "time_limit_50", "time_limit_90"]}
    task, job_id = service.submit(notification=wish)
    start = utc_now()
    service.move(job_id, JobState.RUNNING, start_time=start, nodes="n1", time_limit_minutes=100)
    assert service.refresh(start + 49 * MINUTE) == 0
    service.slurm.put(job_id, JobState.RUNNING, time_limit_minutes=200)  # the operator gave it more
    service.refresh(start + 51 * MINUTE)
    assert [item.event for item in service.record(task).notifications] == ["begin"]
    service.refresh(start + 101 * MINUTE)
    service.refresh(start + 181 * MINUTE)
    events = [item.event for item in service.record(task).notifications]
    assert events == ["begin", "time_limit_50", "time_limit_90"]


def test_a_dependency_that_never_comes_true_is_noticed_while_the_job_waits(service: Service) -> None:
    wish = {**make_email(), "events": ["invalid_depend"]}
    task, job_id = service.submit(notification=wish)
    now = utc_now()
    service.refresh(now + 3 * MINUTE)
    service.slurm.put(job_id, JobState.PENDING, reason="DependencyNeverSatisfied")
    service.refresh(now + 3.1 * MINUTE)
    assert service.record(task).notifications == ()
    service.refresh(now + 6 * MINUTE)
    assert [item.event for item in service.record(task).notifications] == ["invalid_depend"]


def test_job_that_can_never_start_is_announced_once(service: Service) -> None:
    task, job_id = service.submit(notification={**make_email(), "events": ["end", "cannot_start"]})
    now = utc_now()
    service.slurm.put(job_id, JobState.PENDING, reason="PartitionTimeLimit")
    service.refresh(now + MINUTE / 2)
    assert service.record(task).notifications == ()
    for minutes in (2, 3, 11, 61, 1441):
        service.refresh(now + minutes * MINUTE)
    (item,) = service.record(task).notifications
    assert item.event == "cannot_start"
    assert item.content is not None
    assert item.content.subject.startswith("[cannot start] ")
    why = "Slurm will not start it as it is: the limits do not allow its time limit (PartitionTimeLimit)."
    assert item.content.hint == why
    assert body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]["hint"] == why
    service.move(job_id, JobState.CANCELLED)
    assert [item.event for item in service.record(task).notifications] == ["cannot_start", "end"]


def test_waiting_job_is_read_four_times_at_most_to_see_whether_it_can_start(service: Service) -> None:
    task, job_id = service.submit(notification={**make_email(), "events": ["cannot_start"]})
    service.slurm.put(job_id, JobState.PENDING, reason="Resources")
    now = utc_now()
    looks: list[float] = []
    for minutes in (0.5, 2, 3, 5, 11, 12, 30, 61, 62, 600, 1441, 1442, 3000, 30_000):
        before = service.slurm.calls.count("read_jobs")
        service.refresh(now + minutes * MINUTE)
        looks += [minutes] * (service.slurm.calls.count("read_jobs") - before)
    assert looks == [2, 11, 61, 1441]
    assert service.record(task).notifications == ()
    assert service.record(task).alarm_at is None


def test_registered_job_that_can_never_start_is_announced(service: Service) -> None:
    long_ago = utc_now() - timedelta(days=50)
    service.slurm.put(5, JobState.PENDING, reason="QOSMaxWallDurationPerJobLimit", submit_time=long_ago)
    body = {"username": "alice", "uuid": "w", "notification": {**make_email(), "events": ["cannot_start"]}}
    service.registration.register(OPERATOR, {"monitor": {"task": body, "slurm_job_id": 5}})
    service.refresh(utc_now() + 2 * MINUTE)
    assert [item.event for item in service.record(body).notifications] == ["cannot_start"]


def test_an_alarm_is_no_reason_to_believe_another_job(service: Service) -> None:
    wish = {**make_email(), "events": [{"pending_over": 1}]}
    task, job_id = service.submit(notification=wish)
    service.slurm.jobs[job_id] = service.slurm.jobs[job_id].model_copy(update={"username": "bob"})
    service.refresh(utc_now() + 2 * MINUTE)
    assert service.record(task).notifications == ()


# --- what a GET says of the job ---------------------------------------------------------------


def test_a_registered_job_has_slurms_own_files_although_its_task_is_a_whole_one(service: Service) -> None:
    service.slurm.put(5, JobState.RUNNING, standard_output="/their/own", standard_error="/their/error")
    task = make_task(notification=make_email(body="see ${output} and ${error_output}"))
    service.registration.register(OPERATOR, {"monitor": {"task": task, "slurm_job_id": 5}})
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, "5"))["slurm"]
    assert (slurm["standard_output"], slurm["standard_error"]) == ("/their/own", "/their/error")
    service.move(5, JobState.COMPLETED, start_time=utc_now(), end_time=utc_now())
    service.deliver()
    (message,) = [message for message in service.email.messages if message.event == "end"]
    assert message.content.words == "see /their/own and /their/error"


def test_a_submitted_jobs_files_are_those_of_its_task(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.FAILED, standard_output="/dev/null", exit_code=3, start_time=utc_now())
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]
    assert slurm["standard_output"] == task["dirs"]["output"] + "/out.txt"
    assert slurm["standard_error"] == task["dirs"]["error"] + "/err.txt"


def test_a_failed_job_has_the_hint_of_its_message(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.put(job_id, JobState.FAILED, exit_code=127, start_time=utc_now())
    live = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["slurm"]
    service.refresh(utc_now())
    service.deliver()
    (message,) = service.email.messages
    stored = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["slurm"]
    assert stored["hint"] == live["hint"] == message.content.hint
    assert "127" in stored["hint"]


def test_a_job_that_did_not_fail_has_no_hint(service: Service) -> None:
    for state in (JobState.RUNNING, JobState.COMPLETED):
        _, job_id = service.submit()
        service.move(job_id, state, memory_mb=4096, max_memory_bytes=2**20, start_time=utc_now())
        assert "hint" not in body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]


def test_facts_say_when_slurm_said_them(service: Service) -> None:
    def as_of(job_id: int) -> datetime:
        return datetime.fromisoformat(
            body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]["as_of"]
        )

    before = utc_now()
    task, job_id = service.submit()
    asked = as_of(job_id)
    assert before <= asked <= utc_now()
    service.move(job_id, JobState.COMPLETED, start_time=utc_now())
    assert as_of(job_id) == service.record(task).updated_at


def test_stale_facts_say_when_slurm_said_them(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.RUNNING)
    service.slurm.down = SlurmUnavailable("away")
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]
    assert slurm["stale"]
    assert datetime.fromisoformat(slurm["as_of"]) == service.record(task).updated_at


def test_the_files_of_a_registered_array_are_kept_where_slurmdbd_does_not_know_them(service: Service) -> None:
    """As on 22.05."""
    service.slurm.put(5, JobState.RUNNING, standard_output="/their/", array_tasks={JobState.RUNNING: 1})
    task = {"uuid": "registered", "username": "alice"}
    service.registration.register(OPERATOR, {"monitor": {"task": task, "slurm_job_id": 5}})
    ended = service.slurm.put(
        5, JobState.COMPLETED, start_time=utc_now(), array_tasks={JobState.COMPLETED: 1}
    )
    more = {"standard_output": None, "array_tasks": {JobState.COMPLETED: 3}}
    service.slurm.ended[5] = ended.model_copy(update=more)
    service.refresh(utc_now())
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, "5"))["slurm"]
    assert (slurm["job_state"], slurm["standard_output"]) == ("COMPLETED", "/their/")
