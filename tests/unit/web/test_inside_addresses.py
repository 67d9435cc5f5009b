"""Errors for callers during an outage contain no inside address, no path and no driver's message."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from app import create_app
from app.errors import DeliveryFailed, RecordTooLarge, SlurmProxyError, StoreRefused, StoreUnavailable
from app.job_state import JobState
from app.senders.base import make_unusable_server_error
from app.slurm.reply import Reply
from app.store.sqlite import SqliteStore
from tests.support.real.processes import free_port
from tests.support.stores import make_record
from tests.support.tasks import make_task

MADE_UP_KEY = "sp_0123456789ab_made-up"


@contextmanager
def application(**settings: Any) -> Iterator[Flask]:
    app = create_app(
        {
            "SLURM_REST_HOST": "http://127.0.0.1:9",
            "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0" * 6,
            **settings,
        }
    )
    yield app
    app.extensions["slurm_proxy"].stop()


@pytest.mark.parametrize("key", [MADE_UP_KEY, "sp_", "sp_x", "sp_a_b_c", "nonsense"])
def test_a_made_up_key_with_a_mongodb_that_is_away_is_answered_soon_and_without_its_address(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    uri = f"mongodb://user:password@127.0.0.1:{port}/?directConnection=true"
    with application(MONGODB_URI=uri, ACCESS_METHODS="keys") as app:
        began = time.monotonic()
        answer: Any = app.test_client().post(
            "/submit", json={"task": make_task()}, headers={"Authorization": f"Bearer {key}"}
        )
        assert time.monotonic() - began < 2
    is_looked_up = key.count("_") >= 2
    assert (answer.status_code, answer.json["code"]) == (
        (503, "store_unavailable") if is_looked_up else (401, "not_authenticated")
    )
    for words in ("127.0.0.1", str(port), "mongo", "refused", "topology", "password"):
        assert words not in answer.text.lower()
    assert "password" not in caplog.text
    assert (str(port) in caplog.text) is is_looked_up, "the log says what the caller is not told"


def test_a_sqlite_file_that_is_away_is_not_named_to_callers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with application(SQLITE_PATH=tmp_path / "inside" / "store.sqlite3", ACCESS_METHODS="keys") as app:
        answer: Any = app.test_client().get(
            "/monitor/slurm_job_id/1", headers={"Authorization": f"Bearer {MADE_UP_KEY}"}
        )
    assert (answer.status_code, answer.json["code"]) == (503, "store_unavailable")
    assert answer.json["error"] == "the database of this service does not answer"
    assert str(tmp_path) in caplog.text


def test_the_address_of_slurmrestd_and_a_login_in_it_are_shown_to_no_caller(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path, port = tmp_path / "store.sqlite3", free_port()
    store = SqliteStore(path)
    store.prepare()
    store.add_record(record := make_record())
    store.accept_job(record, 4711, JobState.PENDING, datetime.now(UTC))
    store.close()
    host = f"http://ann:secret-word@127.0.0.1:{port}"
    with application(SLURM_REST_HOST=host, SQLITE_PATH=path) as app:
        client = app.test_client()
        answers: list[Any] = [client.get(f"/monitor/task_uuid/{record.uuid}")]
        answers += [client.post("/submit", json={"task": make_task()}) for _ in range(4)]
        answers += [client.get(f"/slurm/{route}") for route in ("ping", "diag", "job/1", "jobs/0")]
        with suppress(SlurmProxyError):
            app.extensions["slurm_proxy"].monitor.run_cycle(datetime.now(UTC))
    assert answers[0].json["slurm"]["stale"] is True
    assert [answer.status_code for answer in answers] == [200] + [503] * 8
    for answer in answers:
        for words in ("127.0.0.1", str(port), "ann:", "secret-word", str(tmp_path)):
            assert words not in answer.text
    assert "secret-word" not in caplog.text


class _ErrorPage(BaseHTTPRequestHandler):
    """A proxy in front of slurmrestd whose page names what is behind it."""

    status = 502

    def do_GET(self) -> None:
        page = b"<html>10.11.12.13:6820 (slurm-inside) cannot be reached</html>"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("status", [200, 400, 403, 404, 413, 429, 500, 502, 503])
def test_the_page_of_a_proxy_in_front_of_slurmrestd_is_shown_to_no_caller(
    tmp_path: Path, status: int
) -> None:
    handler = type("ErrorPage", (_ErrorPage,), {"status": status})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{proxy.server_port}"
        with application(SLURM_REST_HOST=host, SQLITE_PATH=tmp_path / "store.sqlite3") as app:
            app.extensions["slurm_proxy"].store.prepare()
            for _ in range(4):
                answer: Any = app.test_client().post("/submit", json={"task": make_task()})
                assert answer.status_code >= 400
                assert "inside" not in answer.text
                assert "10.11" not in answer.text
        proxy.shutdown()
    assert "inside" in Reply.read(status, b"<html>inside</html>").full_complaint()


def test_errors_of_the_store_have_words_of_their_own_for_callers() -> None:
    for kind in (StoreUnavailable, StoreRefused, RecordTooLarge):
        error = kind("mongo.inside:27017: [Errno 111] Connection refused")
        assert "inside" in str(error)
        assert "inside" not in error.for_callers
        assert "refused" not in error.for_callers


def test_a_record_does_not_show_the_address_of_a_channels_server() -> None:
    error: DeliveryFailed = make_unusable_server_error(
        "the mail server", "smtp.inside", 25, "the certificate is not valid for 'smtp.inside'"
    )
    assert str(error).startswith("the mail server at smtp.inside:25 cannot be used: ")
    assert (
        error.for_callers == "the mail server cannot be used: the certificate is not valid for 'the server'"
    )
