"""Deliver messages: attempts, backoff, rate limits and digests, on every store."""

import itertools
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import DeliveryFailed, InvalidRequest, NotDead, UnknownNotification
from app.job_state import JobState
from app.lifecycle.dead_letters import DeadLetters
from app.lifecycle.deliver import Delivery
from app.lifecycle.retry_policy import DeliveryPolicy
from app.models.content import Content
from app.models.job_facts import JobFacts
from app.models.record import Notification, NotificationStatus, TaskRecord
from app.senders import Message
from app.store import TaskStore
from app.store.notification_queue import Claim, Outcome
from app.store.sqlite import SqliteStore
from tests.support.answers import body_of
from tests.support.databases import SharedDatabase
from tests.support.fakes import RecordingSender
from tests.support.tasks import make_task, new_uuid

NOW = datetime(2099, 1, 2, 3, 4, 5, tzinfo=UTC)  # MongoDB removes rate windows that have passed
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
POLICY = DeliveryPolicy(claim_timeout=3 * MINUTE, retry_window=DAY, rate_limit=3, rate_window=10 * MINUTE)


class Post:
    """People's and programs' messages on one store; each `Delivery` is a process of its own."""

    def __init__(self, store: TaskStore) -> None:
        self.store = store
        self.people = RecordingSender(rate_limited=True)
        self.programs = RecordingSender()
        self.delivery = self.new_process()
        self._job_ids = itertools.count(1)

    def new_process(self) -> Delivery:
        senders = {"email": self.people, "webhook": self.programs}
        methods = ["email", "webhook", "slack"]
        return Delivery(self.store, senders, POLICY, methods=methods, jitter=lambda: 1.0)

    def write(
        self, count: int = 1, method: str = "email", recipient: str = "ann@example.com", **params: str
    ) -> list[str]:
        """So many messages that are due now."""
        ids = []
        for _ in range(count):
            number = next(self._job_ids)
            item = Notification(
                id=new_uuid(),
                event="end",
                method=method,
                params={"recipient": recipient, **params},
                content=Content(subject=f"job {number}", facts=JobFacts(slurm_job_id=number)),
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
            self.store.add_record(record)
            ids.append(item.id)
        return ids

    def deliver(self, at: datetime = NOW, delivery: Delivery | None = None) -> None:
        for method in ("email", "webhook", "slack"):
            while (delivery or self.delivery).deliver_one(method, at):
                pass

    def item(self, id_: str) -> Notification:
        found = self.store.find_notification(id_)
        assert found is not None
        return found.notification

    def statuses(self, ids: list[str]) -> set[NotificationStatus]:
        return {self.item(id_).status for id_ in ids}


@pytest.fixture(params=["sqlite", pytest.param("mongodb", marks=pytest.mark.real)])
def post(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Post]:
    if request.param == "sqlite":
        store: Any = SqliteStore(tmp_path / "store.sqlite3")
    else:
        database: SharedDatabase = request.getfixturevalue("mongo_database")
        store = database.store()
    store.prepare()
    yield Post(store)
    store.close()


def busy(**options: Any) -> DeliveryFailed:
    return DeliveryFailed("busy", **{"permanent": False, **options})


class Endless:
    """A store in which there is always a message due, to one of many receivers."""

    def __init__(self) -> None:
        self.settled = 0

    def claim(self, method: str, token: str, now: datetime, until: datetime, latest: datetime) -> Claim:
        to = {"recipient": f"{random.randrange(300)}@example.com"}
        status = NotificationStatus.CLAIMED
        item = Notification(
            id=token, event="end", method=method, params=to, status=status, created_at=now, attempts=1
        )
        return Claim("a", item)

    def settle(self, claim: Claim, outcome: Outcome) -> None:
        self.settled += 1


class Moody(RecordingSender):
    def send(self, message: Message, params: Any) -> None:
        if random.random() < 0.5:
            raise busy()


@pytest.fixture
def _busy_threads() -> Iterator[None]:
    """They take turns at every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_busy_threads")
def test_channels_that_fail_side_by_side_do_not_get_into_each_others_way() -> None:
    store: Any = Endless()
    methods = ["email", "webhook", "slack"]
    delivery = Delivery(store, dict.fromkeys(methods, Moody()), DeliveryPolicy(MINUTE, DAY), methods=methods)

    def run(method: str) -> None:
        for _ in range(3000):
            delivery.deliver_one(method, NOW)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, methods))
    assert store.settled == 9000


# --- no floods -------------------------------------------------------------------------------


def test_messages_past_the_rate_limit_are_sent_as_one_digest_with_their_number(post: Post) -> None:
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
    assert digest.id not in ids
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
    assert not post.store.list_notifications(NotificationStatus.GATHERED, None, 10)


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
    assert {message.id for message in post.programs.messages} == set(quick)
    assert sorted(post.item(id_).attempts for id_ in slow) == [0, 0, 1]
    errors = {post.item(id_).last_error for id_ in slow}
    assert errors == {"busy", "not sent yet, because other messages failed: busy"}
    post.deliver(NOW + 6.9 * SECOND)
    assert len(post.programs.messages) == 3
    post.deliver(NOW + 7 * SECOND)
    assert {message.id for message in post.programs.messages} == {*slow, *quick}


def test_a_channel_that_is_away_is_tried_less_and_less_however_many_receivers_wait(post: Post) -> None:
    """A refused login, or a mail server that is down, costs no attempt for each of a thousand people."""
    post.programs.failures = [busy(is_of_channel=True) for _ in range(1000)]
    ids = [id_ for number in range(100) for id_ in post.write(1, "webhook", f"{number}.example.com")]
    for second in range(0, 1800, 5):
        post.deliver(NOW + second * SECOND)
    assert 1000 - len(post.programs.failures) <= 30
    assert post.statuses(ids) == {NotificationStatus.RETRYING}
    post.programs.failures = []
    post.deliver(NOW + 2 * 3600 * SECOND)
    assert post.statuses(ids) == {NotificationStatus.SENT}


def test_a_channel_that_is_away_holds_up_no_other_channel(post: Post) -> None:
    post.people.failures = [busy(is_of_channel=True) for _ in range(3)]
    for name in ("ann", "bob", "cid", "dan"):
        post.write(1, recipient=f"{name}@example.com")
    programs = post.write(1, method="webhook")
    post.deliver()
    assert not post.people.messages
    assert not post.people.failures
    assert post.statuses(programs) == {NotificationStatus.SENT}


class Picky(RecordingSender):
    """Takes whatever is not poison to it."""

    poison = ""

    def send(self, message: Message, params: Any) -> None:
        if message.id == self.poison:
            raise busy()
        super().send(message, params)


def test_a_refused_message_delays_no_other_message(post: Post) -> None:
    post.programs = Picky()
    post.delivery = post.new_process()
    poison, *good = post.write(4, method="webhook")
    post.programs.poison = poison
    for second in range(0, 3600, 5):
        post.deliver(NOW + second * SECOND)
    assert {message.id for message in post.programs.messages} == set(good)
    late = post.write(1, method="webhook")
    post.deliver(NOW + 3600 * SECOND)
    assert post.statuses(late) == {NotificationStatus.SENT}
    assert post.item(poison).attempts > 5


def test_a_receiver_that_stays_away_is_tried_less_and_less_however_many_messages_wait(post: Post) -> None:
    post.programs.failures = [busy() for _ in range(1000)]
    post.write(20, method="webhook")
    tried = []
    for second in range(0, 3600, 5):
        left = len(post.programs.failures)
        post.deliver(NOW + second * SECOND)
        tried += [second] * (left - len(post.programs.failures))
    assert len(tried) <= 30, tried
    pauses = [later - earlier for earlier, later in itertools.pairwise(sorted(set(tried)))]
    assert max(pauses) >= 600


def test_all_messages_to_a_dead_receiver_are_tried_and_become_dead_in_time(post: Post) -> None:
    post.programs.failures = [busy() for _ in range(1000)]
    ids = post.write(20, method="webhook")
    for minute in range(0, 24 * 60 + 60, 10):
        post.deliver(NOW + minute * MINUTE)
    assert post.statuses(ids) == {NotificationStatus.DEAD}
    assert {post.item(id_).last_error for id_ in ids} == {"busy"}
    assert min(post.item(id_).attempts for id_ in ids) >= 1


def test_failures_of_one_mail_sender_do_not_delay_mail_of_others_to_the_same_person(post: Post) -> None:
    post.programs.failures = [busy() for _ in range(8)]
    post.write(8, method="webhook", sender="x@nowhere.invalid")
    post.deliver()
    assert len(post.programs.failures) == 5, "the rest is put off"
    post.programs.failures = []
    post.write(1, method="webhook", sender="cluster@example.com")
    post.deliver(NOW + SECOND)
    assert len(post.programs.messages) == 1


def test_no_receiver_can_block_a_channel(post: Post) -> None:
    post.programs.failures = [busy(retry_after=31_536_000.0)]
    ids = post.write(3, method="webhook")
    post.deliver()
    post.deliver(NOW + 60 * MINUTE)
    assert post.statuses(ids) == {NotificationStatus.SENT}


def test_a_message_that_may_have_arrived_already_is_in_no_digest(post: Post) -> None:
    """The receiver would take the digest for the message that has arrived already."""
    (first,) = post.write()
    post.people.failures = [KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        post.delivery.deliver_one("email", NOW)
    post.write(6)
    post.deliver(NOW + MINUTE)
    post.deliver(NOW + 4 * MINUTE)
    post.deliver(NOW + 15 * MINUTE)
    digests = [message for message in post.people.messages if message.event == "digest"]
    assert [message.subject for message in digests] == ["4 messages about jobs"]
    assert first in {message.id for message in post.people.messages if message.event != "digest"}
    assert not {message.id for message in digests} & {first}


def test_a_digest_holds_only_what_has_the_same_sender(post: Post) -> None:
    post.write(3)
    post.write(2, sender="one@example.com")
    post.write(2, sender="two@example.com")
    post.deliver()
    post.deliver(NOW + 10 * MINUTE)
    digests = [message.subject for message in post.people.messages if message.event == "digest"]
    assert digests == ["2 messages about jobs", "2 messages about jobs"]


def test_a_channel_that_was_taken_out_of_the_settings_is_said_and_ends_dead(post: Post) -> None:
    (id_,) = post.write(method="slack")
    post.deliver()
    item = post.item(id_)
    assert item.status is NotificationStatus.RETRYING
    assert item.last_error == "this server is not configured for slack: set NOTIFICATIONS_SLACK_*"
    for hour in range(26):
        post.deliver(NOW + hour * 60 * MINUTE)
    assert post.item(id_).status is NotificationStatus.DEAD


def test_error_of_email_that_is_no_longer_configured_names_its_settings(post: Post) -> None:
    (id_,) = post.write()
    post.deliver(delivery=Delivery(post.store, {}, POLICY, methods=["email"]))
    assert post.item(id_).last_error == "this server is not configured for email: set NOTIFICATIONS_SMTP_*"


# --- what an operator does -------------------------------------------------------------------


def test_a_dead_message_is_found_and_sent_again(post: Post) -> None:
    dead_letters = DeadLetters(post.store, ("email", "webhook"))
    post.people.failures = [DeliveryFailed("550 no such user", permanent=True)]
    (id_,) = post.write()
    post.deliver()
    (shown,) = body_of(dead_letters.find("dead", "100"))["notifications"]
    assert (shown["id"], shown["last_error"], shown["subject"]) == (id_, "550 no such user", "job 1")
    assert "params" not in shown
    assert body_of(dead_letters.retry(id_))["status"] == "retrying"
    post.deliver(datetime.now(UTC))
    assert [message.id for message in post.people.messages] == [id_]
    assert body_of(dead_letters.find("dead", "100")) == {"notifications": [], "more": False}


def test_a_retried_message_has_its_whole_retry_window_again(post: Post) -> None:
    post.people.failures = [busy() for _ in range(1000)]
    (id_,) = post.write()
    for minute in range(0, 24 * 60 + 60, 10):
        post.deliver(NOW + minute * MINUTE)
    assert post.item(id_).status is NotificationStatus.DEAD
    later = NOW + 5 * DAY
    post.store.retry_dead(later)
    post.deliver(later, post.new_process())
    assert post.item(id_).status is NotificationStatus.RETRYING
    assert post.item(id_).attempts == 1


@pytest.mark.parametrize("process", ["the same", "another"])
def test_a_retry_ends_the_wait_for_the_next_attempt_and_the_pause_of_its_receiver(
    post: Post, process: str
) -> None:
    """The mail server was repaired: every message that waits for it goes out, whichever process waited."""
    post.programs.failures = [busy() for _ in range(1000)]
    ids = post.write(20, method="webhook")
    other = post.new_process()
    for minute in range(60):
        post.deliver(NOW + minute * MINUTE, other)
    assert post.statuses(ids) == {NotificationStatus.RETRYING}
    assert any(str(post.item(id_).last_error).startswith("not sent yet") for id_ in ids)
    post.programs.failures = []
    assert post.store.retry_dead(NOW + 60 * MINUTE, method="webhook") == 20
    post.deliver(NOW + 60 * MINUTE, other if process == "the same" else None)
    assert {message.id for message in post.programs.messages} == set(ids)


def test_a_retry_of_one_message_passes_the_pause_of_its_receiver(post: Post) -> None:
    post.programs.failures = [busy(retry_after=1800.0) for _ in range(3)]
    ids = post.write(5, method="webhook")
    for second in range(0, 30, 5):
        post.deliver(NOW + second * SECOND)
    post.programs.failures = []
    assert post.store.retry_dead(NOW + MINUTE, id_=ids[0]) == 1
    post.deliver(NOW + MINUTE)
    assert [message.id for message in post.programs.messages] == [ids[0]]


def test_a_retry_before_the_repair_costs_a_receiver_few_attempts(post: Post) -> None:
    post.programs.failures = [busy() for _ in range(1000)]
    ids = post.write(50, method="webhook")
    for minute in range(60):
        post.deliver(NOW + minute * MINUTE)
    left = len(post.programs.failures)
    assert post.store.retry_dead(NOW + 60 * MINUTE) == 50
    for second in range(1, 31):
        post.deliver(NOW + 60 * MINUTE + second * SECOND)
    assert left - len(post.programs.failures) <= 3
    assert post.statuses(ids) == {NotificationStatus.RETRYING}


def test_a_retried_message_that_may_have_arrived_is_in_no_digest(post: Post) -> None:
    """Its receiver would take the digest for the message that they have."""
    post.people.failures = [busy()]
    (first,) = post.write()
    post.deliver()
    post.write(4)
    post.deliver(NOW + SECOND)
    assert post.store.retry_dead(NOW + 2 * SECOND, id_=first) == 1
    post.deliver(NOW + 2 * SECOND)
    post.deliver(NOW + 15 * MINUTE)
    assert first in {message.id for message in post.people.messages if message.event != "digest"}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (NotificationStatus.DUE, "waits for its first attempt"),
        (NotificationStatus.CLAIMED, "is being sent right now"),
        (NotificationStatus.SENT, "has been sent"),
        (NotificationStatus.GATHERED, "waits until"),
        (NotificationStatus.UNDELIVERABLE, "can never be sent"),
    ],
)
def test_a_message_that_waits_for_no_attempt_cannot_be_retried(
    post: Post, status: NotificationStatus, words: str
) -> None:
    dead_letters = DeadLetters(post.store, ("email", "webhook"))
    (id_,) = post.write()
    if status is not NotificationStatus.DUE:
        claim = post.store.claim("email", "me", NOW, NOW + MINUTE)
        assert claim is not None
        if status is not NotificationStatus.CLAIMED:
            post.store.settle(claim, Outcome(status, NOW))
    with pytest.raises(NotDead, match=words):
        dead_letters.retry(id_)
    assert body_of(dead_letters.retry_all()) == {"retried": 0}
    with pytest.raises(UnknownNotification):
        dead_letters.retry("nothing")


def test_all_dead_letters_of_a_method_are_retried_at_once(post: Post) -> None:
    dead_letters = DeadLetters(post.store, ("email", "webhook"))
    gone = DeliveryFailed("gone", permanent=True)
    post.people.failures, post.programs.failures = [gone, gone], [gone, gone, gone]
    post.write(2)
    post.write(3, method="webhook")
    post.deliver()
    assert body_of(dead_letters.find("dead", "2", "webhook"))["more"] is True
    assert body_of(dead_letters.retry_all("webhook")) == {"retried": 3}
    assert body_of(dead_letters.retry_all("email")) == {"retried": 2}
    assert body_of(dead_letters.retry_all()) == {"retried": 5}, "they wait, and are tried at once"
    post.deliver(datetime.now(UTC))
    assert body_of(dead_letters.retry_all()) == {"retried": 0}


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
    dead_letters = DeadLetters(SqliteStore(tmp_path / "never opened"), ("email", "webhook"))
    with pytest.raises(InvalidRequest, match=fault):
        dead_letters.find(status, limit, method)
