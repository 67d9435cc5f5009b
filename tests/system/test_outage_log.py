"""An outage makes few lines in the log, however long it lasts and however many loops and callers meet it."""

import base64
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.errors import DeliveryFailed
from app.lifecycle.deliver import Delivery
from app.lifecycle.retry_policy import DeliveryPolicy
from app.outages import CALLERS, OutageLog, RepeatFilter
from app.store.sqlite import SqliteStore
from tests.conftest import Cluster, until
from tests.contract.test_delivery import DAY, MINUTE, NOW, Post
from tests.support.fakes import RecordingSender
from tests.support.real.network import Fault, Network
from tests.support.real.processes import free_port
from tests.support.tasks import make_task


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outages(clock: Clock) -> OutageLog:
    return OutageLog({"Slurm": "http://slurm:6820"}, clock)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "app.outages"]


def test_an_outage_is_logged_when_it_begins_once_a_minute_and_when_it_ends(
    outages: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(130):
        for loop in ("monitor", "deliver-email", "deliver-slack"):
            outages.record_failure("Slurm", "it cannot be reached", loop)
        clock.now += 1
    for loop in ("monitor", "deliver-email", "deliver-slack"):
        outages.record_success(loop)
        outages.record_success(loop)
    assert lines(caplog) == [
        "outage of Slurm begins (http://slurm:6820): it cannot be reached",
        "outage of Slurm goes on (http://slurm:6820), 181 failures in 60 s: it cannot be reached",
        "outage of Slurm goes on (http://slurm:6820), 361 failures in 120 s: it cannot be reached",
        "outage of Slurm is over after 130 s, 390 failures",
    ]


def test_an_outage_is_over_when_each_loop_that_met_it_has_succeeded(
    outages: OutageLog, caplog: pytest.LogCaptureFixture
) -> None:
    outages.record_failure("the store", "the disk is full", "monitor")
    outages.record_failure("the store", "the disk is full", "lease")
    outages.record_success("monitor")
    outages.record_success("probe")
    assert len(lines(caplog)) == 1
    outages.record_success("lease")
    assert lines(caplog)[-1] == "outage of the store is over after 0 s, 2 failures"


def test_an_outage_that_only_callers_met_is_over_after_some_quiet(
    outages: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outages.record_failure("the store", "away")
    clock.now += 10
    outages.record_failure("the store", "away", CALLERS)
    outages.record_success("monitor")
    clock.now += 10
    outages.record_success("monitor")
    assert len(lines(caplog)) == 1
    clock.now += 10
    outages.record_success("monitor")
    assert len(lines(caplog)) == 2


def test_a_second_outage_soon_after_the_first_is_logged_too(
    outages: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        outages.record_failure("the store", "away", "monitor")
        clock.now += 10
        outages.record_success("monitor")
    assert [line.split()[4] for line in lines(caplog)] == ["begins:", "is"] * 2


def test_a_part_that_fails_again_and_again_makes_at_most_six_lines_a_minute(
    outages: OutageLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(120):
        outages.record_failure("Slurm", "one job cannot be read", "monitor")
        outages.record_success("monitor")
        clock.now += 1
    assert len(lines(caplog)) == 12


def test_each_part_has_an_outage_of_its_own(outages: OutageLog, caplog: pytest.LogCaptureFixture) -> None:
    for part in ("Slurm", "the store", "the channel email"):
        outages.record_failure(part, "away", part)
    outages.record_success("the store")
    assert [line.split()[-2:] for line in lines(caplog)[3:]] == [["1", "failures"]]


def test_an_unexpected_exception_is_logged_with_its_traceback_once_a_minute(
    outages: OutageLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        outages.record_failure("the loop monitor", "ValueError", "monitor", ValueError("secret"))
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.ERROR, True)


def test_a_repeated_warning_passes_once_and_information_always() -> None:
    def record(level: int, text: str, *values: object) -> logging.LogRecord:
        return logging.LogRecord("app", level, "", 0, text, values, None)

    by_kind, by_message = RepeatFilter(60), RepeatFilter(60, by_message=True)
    for _ in range(2):
        assert by_kind.filter(record(logging.INFO, "%d jobs", 1))
    passed = [by_kind.filter(record(logging.WARNING, "%d jobs", number)) for number in (1, 2)]
    assert passed == [True, False]
    passed = [by_message.filter(record(logging.WARNING, "%d jobs", number)) for number in (1, 2, 1)]
    assert passed == [True, True, False]


# --- whole processes ---------------------------------------------------------------------------


@contextmanager
def running(**settings: Any) -> Iterator[Flask]:
    """Run the loops of a process whose parts are all away, as fast as the settings allow."""
    app = create_app(
        {
            "SLURM_REST_HOST": f"http://127.0.0.1:{free_port()}",
            "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0" * 6,
            "MONITOR_POLLING_SECONDS": 0.1,
            "MONITOR_LEASE_SECONDS": 1,
            "NOTIFICATIONS_SMTP_SERVER": "127.0.0.1",
            "NOTIFICATIONS_SMTP_PORT": free_port(),
            "NOTIFICATIONS_SLACK_BOT_TOKEN": "xoxb-token",
            **settings,
        }
    )
    services = app.extensions["slurm_proxy"]
    services.start()
    try:
        yield app
    finally:
        services.stop()


def test_a_mongodb_that_is_away_makes_one_line_for_all_loops_and_callers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    with running(MONGODB_URI=uri, MONGODB_TIMEOUT_SECONDS=0.1) as app:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            answer = app.test_client().get("/monitor/slurm_job_id/1")
            assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line for line in warnings if "outage of the store begins" in line] == warnings
    assert len(warnings) == 1
    assert str(port) in warnings[0]


def test_a_slurmrestd_that_is_away_makes_a_line_at_the_beginning_and_one_at_the_end(
    local_cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    store.close()
    with Network(local_cluster.url) as network:
        network.fault = Fault.RESET
        settings = {
            "SLURM_REST_HOST": network.url,
            "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(local_cluster.key).decode(),
        }
        with running(SQLITE_PATH=tmp_path / "store.sqlite3", **settings) as app:
            for _ in range(20):
                answer = app.test_client().post("/submit", json={"task": make_task("ann")})
                assert answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
                time.sleep(0.1)
            began = [line for line in lines(caplog) if "Slurm begins" in line]
            assert len(began) == 1
            assert network.url in began[0]
            network.fault = Fault.NONE
            until(lambda: any("Slurm is over" in line for line in lines(caplog)), 40, "the end in the log")
    assert len(lines(caplog)) == 2


def test_a_mail_server_that_is_away_makes_one_line_for_all_messages(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(RecordingSender):
        is_away = True

        def send(self, message: Any, params: Any) -> None:
            if self.is_away:
                raise DeliveryFailed("the mail server is away", permanent=False, is_of_channel=True)
            super().send(message, params)

    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    post, sender = Post(store), Away()
    policy = DeliveryPolicy(claim_timeout=3 * MINUTE, retry_window=DAY)
    delivery = Delivery(store, {"email": sender}, policy, methods=["email"], jitter=lambda: 1.0)
    post.write(30)
    now = NOW
    for _ in range(5):
        while delivery.deliver_one("email", now):
            pass
        now += MINUTE
    sender.is_away = False
    while delivery.deliver_one("email", now + DAY / 2):
        pass
    begins, over = lines(caplog)
    assert begins.startswith("outage of the channel email begins: message ")
    assert begins.endswith(" is retried: the mail server is away")
    assert over.startswith("outage of the channel email is over after ")
    assert [record.name for record in caplog.records] == ["app.outages"] * 2
    store.close()
