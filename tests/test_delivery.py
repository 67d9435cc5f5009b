"""The outbox: what is tried when, what is gathered, what is held up by what; on every store."""

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import DeliveryFailed, InvalidRequest, NotDead, UnknownNotification
from app.job_state import JobState
from app.lifecycle.delivering import Delivery, Patience
from app.lifecycle.outbox import Outbox
from app.models.content import Content
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from tests.fakes import RecordingSender
from tests.real.mongod import Mongod
from tests.tasks import make_task, new_uuid

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
PATIENCE = Patience(claim_for=3 * MINUTE, retry_for=DAY, ceiling=3, window=10 * MINUTE)


class Post:
    """People's and programs' messages on one store; each `Delivery` is a process of its own."""

    def __init__(self, store: TaskStore) -> None:
        self.store = store
        self.people = RecordingSender(for_people=True)
        self.programs = RecordingSender()
        self.delivery = self.new_process()
        self._job_ids = itertools.count(1)

    def new_process(self) -> Delivery:
        senders = {"email": self.people, "webhook": self.programs}
        methods = ["email", "webhook", "slack"]
        return Delivery(self.store, senders, PATIENCE, methods=methods, jitter=lambda: 1.0)

    def write(self, count: int = 1, method: str = "email", recipient: str = "ann@example.com") -> list[str]:
        """So many messages that are due now."""
        ids = []
        for _ in range(count):
            number = next(self._job_ids)
            item = Notification(
                id=new_uuid(),
                event="end",
                method=method,
                params={"recipient": recipient},
                content=Content(subject=f"job {number}", facts={"slurm_job_id": number}),
                status=NotificationStatus.DUE,
                created_at=NOW,
                attempt_after=NOW,
            )
            record = TaskRecord(
                task=make_task(),
                slurm_username="alice",
                slurm_job_id=number,
                slurm_job_state=JobState.COMPLETED,
                created_at=NOW,
                updated_at=NOW,
                notifications=(item,),
            )
            self.store.add(record)
            ids.append(item.id)
        return ids

    def deliver(self, at: datetime = NOW, delivery: Delivery | None = None) -> None:
        for method in ("email", "webhook", "slack"):
            while (delivery or self.delivery).deliver_one(method, at):
                pass

    def item(self, id_: str) -> Notification:
        found = self.store.notification(id_)
        assert found is not None
        return found.notification

    def statuses(self, ids: list[str]) -> set[NotificationStatus]:
        return {self.item(id_).status for id_ in ids}


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.real)])
def post(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Post]:
    if request.param == "sqlite":
        store: Any = SqliteStore(tmp_path / "store.sqlite3")
        drop: Callable[[], object] = lambda: None  # noqa: E731
    else:
        mongod: Mongod = request.getfixturevalue("mongod")
        client, database = connect(mongod.uri, 5), f"test_{new_uuid()}"
        store = MongoStore(client, database, "jobs")
        drop = lambda: client.drop_database(database)  # noqa: E731
    store.prepare()
    yield Post(store)
    drop()
    store.close()


def busy(**options: Any) -> DeliveryFailed:
    return DeliveryFailed("busy", **{"permanent": False, **options})


# --- no floods -------------------------------------------------------------------------------


def test_past_the_ceiling_messages_are_gathered_into_one_that_says_how_many_it_holds(post: Post) -> None:
    ids = post.write(10)
    post.deliver()
    assert len(post.people.messages) == 3
    held = [id_ for id_ in ids if post.item(id_).status is NotificationStatus.GATHERED]
    assert len(held) == 7
    post.deliver(NOW + 9 * MINUTE)
    assert len(post.people.messages) == 3
    post.deliver(NOW + 10 * MINUTE)
    assert len(post.people.messages) == 4
    digest = post.people.messages[-1]
    assert (digest.event, digest.subject) == ("digest", "7 messages about jobs")
    assert digest.id in held
    assert post.statuses(ids) == {NotificationStatus.SENT}
    assert {post.item(id_).digest for id_ in held} == {digest.id}


def test_each_person_has_a_ceiling_of_his_own(post: Post) -> None:
    for name in ("ann", "bob"):
        post.write(4, recipient=f"{name}@example.com")
    post.deliver()
    assert len(post.people.messages) == 6


def test_programs_get_every_message_of_their_own(post: Post) -> None:
    ids = post.write(10, method="webhook")
    post.deliver()
    assert {message.id for message in post.programs.messages} == set(ids)
    assert len(post.programs.messages) == 10


def test_a_digest_comes_again_with_the_same_key_and_the_same_contents_after_a_crash(post: Post) -> None:
    post.write(6)
    post.deliver()
    opens = NOW + 10 * MINUTE
    post.people.failures = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        post.delivery.deliver_one("email", opens)
    late = post.write(1)
    post.deliver(opens + 4 * MINUTE, post.new_process())
    digest, alone = post.people.messages[-2:]
    if digest.id == late[0]:
        digest, alone = alone, digest
    assert digest.subject == "3 messages about jobs"
    assert alone.id == late[0]
    assert not post.store.notifications(NotificationStatus.GATHERED, None, 10)


def test_a_digest_that_fails_is_tried_again_whole(post: Post) -> None:
    ids = post.write(6)
    post.deliver()
    post.people.failures = [busy()]
    post.deliver(NOW + 10 * MINUTE)
    assert len(post.people.messages) == 3
    post.deliver(NOW + 11 * MINUTE)
    assert [message.subject for message in post.people.messages[3:]] == ["3 messages about jobs"]
    assert post.statuses(ids) == {NotificationStatus.SENT}


def test_a_failure_does_not_count_against_the_ceiling(post: Post) -> None:
    post.people.failures = [DeliveryFailed("no", permanent=True) for _ in range(5)]
    post.write(8)
    post.deliver()
    assert len(post.people.messages) == 3


# --- who holds up whom -----------------------------------------------------------------------


def test_a_receiver_that_asks_to_wait_is_left_alone_and_others_are_not(post: Post) -> None:
    post.programs.failures = [busy(retry_after=7.0)]
    slow = post.write(3, method="webhook", recipient="slow.example.com")
    quick = post.write(3, method="webhook", recipient="quick.example.com")
    post.deliver()
    assert [message.id for message in post.programs.messages] == quick
    assert [post.item(id_).attempts for id_ in slow] == [1, 0, 0]
    assert {post.item(id_).last_error for id_ in slow} == {"busy"}
    post.deliver(NOW + 6.9 * SECOND)
    assert len(post.programs.messages) == 3
    post.deliver(NOW + 7 * SECOND)
    assert {message.id for message in post.programs.messages} == {*slow, *quick}


def test_a_receiver_that_stays_away_is_tried_less_and_less_however_many_messages_wait(post: Post) -> None:
    post.programs.failures = [busy() for _ in range(1000)]
    post.write(20, method="webhook")
    tried = []
    for second in range(0, 3600, 5):
        left = len(post.programs.failures)
        post.deliver(NOW + second * SECOND)
        tried += [second] * (left - len(post.programs.failures))
    assert len(tried) <= 10, tried
    waits = [later - earlier for earlier, later in itertools.pairwise(tried)]
    assert waits == sorted(waits)


def test_all_that_wait_for_a_dead_receiver_die_in_time(post: Post) -> None:
    post.programs.failures = [busy() for _ in range(1000)]
    ids = post.write(20, method="webhook")
    for minute in range(0, 24 * 60 + 60, 10):
        post.deliver(NOW + minute * MINUTE)
    assert post.statuses(ids) == {NotificationStatus.DEAD}
    assert {post.item(id_).last_error for id_ in ids} == {"busy"}


def test_a_channel_that_was_taken_out_of_the_settings_is_said_and_ends_dead(post: Post) -> None:
    (id_,) = post.write(method="slack")
    post.deliver()
    item = post.item(id_)
    assert item.status is NotificationStatus.RETRYING
    assert item.last_error == "this server is not configured for slack"
    for hour in range(26):
        post.deliver(NOW + hour * 60 * MINUTE)
    assert post.item(id_).status is NotificationStatus.DEAD


# --- what an operator does -------------------------------------------------------------------


def test_a_dead_message_is_found_and_sent_again(post: Post) -> None:
    outbox = Outbox(post.store, ("email", "webhook"))
    post.people.failures = [DeliveryFailed("550 no such user", permanent=True)]
    (id_,) = post.write()
    post.deliver()
    (shown,) = outbox.find("dead", None, "100")["notifications"]
    assert (shown["id"], shown["last_error"], shown["subject"]) == (id_, "550 no such user", "job 1")
    assert "params" not in shown
    assert outbox.retry(id_)["status"] == "retrying"
    post.deliver(datetime.now(UTC))
    assert [message.id for message in post.people.messages] == [id_]
    assert outbox.find("dead", None, "100") == {"notifications": [], "more": False}


def test_a_revived_message_has_its_whole_time_again(post: Post) -> None:
    post.people.failures = [busy() for _ in range(1000)]
    (id_,) = post.write()
    for minute in range(0, 24 * 60 + 60, 10):
        post.deliver(NOW + minute * MINUTE)
    assert post.item(id_).status is NotificationStatus.DEAD
    later = NOW + 5 * DAY
    post.store.revive(later)
    post.deliver(later, post.new_process())
    assert post.item(id_).status is NotificationStatus.RETRYING
    assert post.item(id_).attempts == 1


def test_only_dead_ones_can_be_sent_again(post: Post) -> None:
    outbox = Outbox(post.store, ("email", "webhook"))
    (id_,) = post.write()
    with pytest.raises(NotDead, match="is due; only dead ones"):
        outbox.retry(id_)
    with pytest.raises(UnknownNotification):
        outbox.retry("nothing")


def test_many_are_sent_again_at_once(post: Post) -> None:
    outbox = Outbox(post.store, ("email", "webhook"))
    gone = DeliveryFailed("gone", permanent=True)
    post.people.failures, post.programs.failures = [gone, gone], [gone, gone, gone]
    post.write(2)
    post.write(3, method="webhook")
    post.deliver()
    assert outbox.find("dead", "webhook", "2")["more"] is True
    assert outbox.retry_all("webhook") == {"retried": 3}
    assert outbox.retry_all(None) == {"retried": 2}
    assert outbox.retry_all(None) == {"retried": 0}


@pytest.mark.parametrize(
    ("status", "method", "limit", "fault"),
    [
        ("lost", None, "1", "status: must be one of due, claimed"),
        ("dead", "pigeon", "1", "method: must be one of email, webhook"),
        ("dead", None, "0", "limit: must be a whole number from 1 to 1000"),
        ("dead", None, "1001", "limit: "),
        ("dead", None, "x", "limit: "),
        ("dead", None, "-1", "limit: "),
        ("dead", None, "9" * 9000, "limit: "),
    ],
)
def test_a_wrong_question_names_its_parameter(
    tmp_path: Path, status: str, method: str | None, limit: str, fault: str
) -> None:
    outbox = Outbox(SqliteStore(tmp_path / "never opened"), ("email", "webhook"))
    with pytest.raises(InvalidRequest, match=fault):
        outbox.find(status, method, limit)
