"""The service of the recorded scenarios. No other file of this folder imports anything of `app`."""

import base64
import json
import logging
import sqlite3
import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

import jwt
from flask import Flask
from pika import frame, spec

from app import create_app
from app.constants import MAX_BODY_BYTES, TASK_METADATA, Settings
from app.demo.cluster import LocalCluster
from app.errors import SlurmAmbiguous, SlurmMisbehaved, SlurmRefused, SlurmUnavailable
from app.job_state import JobState
from app.slurm.reply import Reply
from tests.contract.recording import Recording, row_as_json
from tests.support.fakes import FakeSlurm
from tests.support.real.http_services import (
    Answer,
    HttpService,
    Request,
    SlackService,
    WebhookReceiver,
    json_answer,
)
from tests.support.real.scripted import ScriptedBroker
from tests.support.real.smtp import SmtpServer
from tests.support.web import make_app

__all__ = [
    "MAX_BODY_BYTES",
    "TASK_METADATA",
    "JobState",
    "Reply",
    "Settings",
    "SlurmAmbiguous",
    "SlurmMisbehaved",
    "SlurmRefused",
    "SlurmUnavailable",
]

KEY = b"a key for the tests alone, of 32+ bytes"


def settings_without_environment() -> Settings:
    """Return the settings of a server for which nothing is configured."""
    return Settings.model_validate({})


class Rig:
    """The application on an embedded store, with a cluster in memory unless `slurm_url` is given."""

    def __init__(
        self, folder: Path, *, slurm_url: str = "", is_prepared: bool = True, **settings: Any
    ) -> None:
        self.path = folder / "store.sqlite3"
        self.record = Recording({str(folder): "<folder>"})
        self.slurm = FakeSlurm()
        config = {
            "SLURM_REST_HOST": slurm_url or "http://127.0.0.1:9",
            "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(KEY).decode(),
            "MONGODB_URI": None,
            "SQLITE_PATH": self.path,
            "SLURM_REQUESTS_PER_SECOND": 1000,  # the scenarios take no time
            **settings,
        }
        self.app: Flask = create_app(config) if slurm_url else make_app(config, self.slurm)
        self.client = self.app.test_client()
        self._services = self.app.extensions["slurm_proxy"]
        if is_prepared:
            self._services.store.prepare()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._services.stop()
        _close_log_files(self.path.parent)

    def ask(self, name: str, method: str, path: str, body: Any = None, **options: Any) -> None:
        """Send one request, and record the answer under that name."""
        self.record.ask(name, self.client, method, path, body, **options)

    def submit(self, task: Mapping[str, Any]) -> int:
        """Submit a task without a record of the answer; return its job id."""
        answer = self.client.post("/submit", data=json.dumps({"task": task}))
        assert answer.status_code == 200, answer.text
        return int((answer.json or {})["slurm_job_id"])

    def poll(self, later: timedelta = timedelta(0)) -> None:
        """Run one polling cycle, as if it were so much later."""
        assert self._services.monitor.run_cycle(self._services.store.now() + later), (
            "this process does not lead"
        )

    def deliver(self, *methods: str, later: timedelta = timedelta(0)) -> None:
        """Send all messages of these methods that are due, as if it were so much later."""
        for method in methods:
            self._services.monitor.deliver(method, self._services.store.now() + later)

    def rows(self, table: str, uuid: str) -> list[dict[str, Any]]:
        """Return the rows of a task as they are in the file."""
        order = "position" if table == "notifications" else "uuid"
        connection = sqlite3.connect(self.path)
        connection.row_factory = sqlite3.Row
        statement = f"SELECT * FROM {table} WHERE uuid = ? ORDER BY {order}"  # noqa: S608 - names of this file
        found = [row_as_json(dict(row)) for row in connection.execute(statement, (uuid,))]
        connection.close()
        return found

    def schema(self) -> list[str]:
        """Return the statements that made the tables and indexes of the file."""
        connection = sqlite3.connect(self.path)
        found = [row[0] for row in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
        connection.close()
        return sorted(found)

    def flask(self, *arguments: str) -> dict[str, Any]:
        """Return what a command of the operator prints, and its exit status."""
        done = self.app.test_cli_runner().invoke(args=list(arguments))
        return {"status": done.exit_code, "stdout": done.stdout, "stderr": done.stderr}


def _close_log_files(folder: Path) -> None:
    """Close the files of loggers below a folder, so that later tests log as if there had been none."""
    loggers: list[Any] = [*logging.root.manager.loggerDict.values()]
    for logger in loggers:
        for handler in [*getattr(logger, "handlers", ())]:
            if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(folder):
                logger.removeHandler(handler)
                logger.propagate = True
                handler.close()


def recent(**ago: float) -> datetime:
    """Return a time so long ago, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**ago)


class Broker(ScriptedBroker):
    """Confirms every message, and keeps its properties and its body."""

    def __init__(self) -> None:
        super().__init__("none", b"")
        self.published: list[dict[str, Any]] = []

    def talk(self, client: Any) -> None:
        stream = client.makefile("rb")
        stream.read(8)  # the protocol's header
        start = spec.Connection.Start(0, 9, self._PROPERTIES, "PLAIN", "en_US")
        self._answer(client, "start", 0, start)
        while head := stream.read(7):
            _, channel, size = struct.unpack(">BHL", head)
            _, got = frame.decode_frame(head + stream.read(size + 1))
            if isinstance(got, frame.Header):
                self.published[-1]["properties"] = _known(got.properties, "timestamp")
            elif isinstance(got, frame.Body):
                self.published[-1]["body"] = got.fragment.decode()
                self._answer(client, "ack", channel, spec.Basic.Ack(len(self.published)))
            elif isinstance(got, frame.Method) and isinstance(got.method, spec.Basic.Publish):
                self.published.append({"publish": _known(got.method)})
            elif isinstance(got, frame.Method):
                for stage, asked, answer in self._ANSWERS:
                    if isinstance(got.method, asked):
                        self._answer(client, stage, channel, answer)


def _known(thing: Any, *omitted: str) -> dict[str, Any]:
    values = vars(thing).items()
    return {name: value for name, value in values if value is not None and name not in omitted}


class Channels:
    """Servers for e-mail, webhooks, RabbitMQ and Slack, and the settings that name them."""

    methods = ("email", "webhook", "rabbitmq", "slack")

    def __init__(self, folder: Path) -> None:
        self.smtp = SmtpServer(folder)
        self.webhook = WebhookReceiver()
        self.slack = SlackService()
        self.broker = Broker()
        self.settings: dict[str, Any] = {
            "NOTIFICATIONS_CEILING": 0,
            "NOTIFICATIONS_SMTP_SERVER": self.smtp.host,
            "NOTIFICATIONS_SMTP_PORT": self.smtp.port,
            "NOTIFICATIONS_SMTP_SECURITY": "none",
            "NOTIFICATIONS_SLACK_BOT_TOKEN": self.slack.token,
            "NOTIFICATIONS_SLACK_API_URL": f"{self.slack.url}/api/",
            "NOTIFICATIONS_RABBITMQ_HOST": self.broker.host,
            "NOTIFICATIONS_RABBITMQ_PORT": self.broker.port,
            "NOTIFICATIONS_WEBHOOK_RECEIVERS": {
                f"{self.webhook.host}:{self.webhook.port}": self.webhook.secret
            },
        }

    def __enter__(self) -> Self:
        for server in (self.smtp, self.webhook, self.slack, self.broker):
            server.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        for server in (self.smtp, self.webhook, self.slack, self.broker):
            server.__exit__(*error)

    def request(self, **own: Any) -> dict[str, Any]:
        """Return `task.notification` for all methods; `own` is added to the parameters of each."""
        params: dict[str, dict[str, Any]] = {
            "email": {
                "sender": "The Cluster <cluster@example.com>",
                "recipient": "someone@example.com",
                **own,
            },
            "webhook": {"url": f"{self.webhook.url}/hooks/jobs?own=1", "body": {"own": ["words", 1, None]}},
            "rabbitmq": {"queue": "jobs", "body": {"own": ["words", 1, None]}},
            "slack": {"channel": "#jobs", **({"msg": own["body"]} if "body" in own else {})},
        }
        return {"methods": list(self.methods), "params": params}


class HtmlService(HttpService):
    """Answers with HTML, as a proxy in front of slurmrestd may."""

    def take(self, request: Request) -> Answer:
        return Answer(200, b"<html>")


class RecordingSlurmrestd(HttpService):
    """Passes requests on to the local cluster, except for those about the job 4711, and keeps all of them."""

    job: Mapping[str, Any]

    def __init__(self) -> None:
        super().__init__()
        self._cluster = LocalCluster(KEY)
        self._url = ""

    def start(self) -> None:
        self._url = self._cluster.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        self._cluster.stop()

    def take(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path.endswith("/job/submit"):
            result = {
                "job_id": 4711,
                "step_id": "batch",
                "job_submit_user_msg": "",
                "error_code": 0,
                "error": "",
            }
            return json_answer({"result": result, "job_id": 4711, "errors": [], "warnings": []})
        if path.endswith("/job/4711") and request.method == "DELETE":
            return json_answer({"status": [], "errors": [], "warnings": []})
        if path.endswith("/job/4711"):
            return json_answer({"jobs": [self.job], "errors": [], "warnings": []})
        return self._passed_on(request)

    def seen(self) -> Iterator[dict[str, Any]]:
        """Yield each request so far, with the user for which its token was made, and forget them."""
        for request in self.requests:
            token = request.headers["x-slurm-user-token"]
            claims = jwt.decode(token, options={"verify_signature": False})
            yield {
                "request": f"{request.method} {request.path}",
                "headers": {name: value for name, value in request.headers.items() if name not in _VARYING},
                "token": {name: value if name == "sun" else "<seconds>" for name, value in claims.items()},
                "body": request.body.decode(),
            }
        self.requests.clear()

    def _passed_on(self, request: Request) -> Answer:
        headers = {name: value for name, value in request.headers.items() if name.startswith("x-slurm")}
        asked = UrlRequest(self._url + request.path, request.body or None, headers, method=request.method)
        try:
            with urlopen(asked, timeout=10) as answer:
                return Answer(answer.status, answer.read(), {"Content-Type": "application/json"})
        except HTTPError as error:
            return Answer(error.code, error.read(), {"Content-Type": str(error.headers["Content-Type"])})


_VARYING = {"host", "user-agent", "content-length", "x-slurm-user-token", "accept-encoding"}
