"""A thousand jobs that end together, told by four channels of which one is dead.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.thousand_ends [--mongodb mongodb://…]

Submits held jobs to a real Slurm through gunicorn with one worker, cancels them all, and waits until the
messages of `email`, `rabbitmq` and `webhook` are out, each to a real server of its protocol on loopback;
`slack` leads to a server that takes connections and never answers. Prints how fast each channel was drained,
as a ratio to its sender alone with the same server, how regularly Slurm was polled, and what came twice.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import requests

from app.constants import read_settings
from app.models.content import Content
from app.senders import SENDERS, Message
from app.slurm.connection import Connection
from app.slurm.session import Session
from app.slurm.tokens import TokenMint
from app.store.mongo import connect
from tests.real.http_services import WebhookReceiver
from tests.real.network import Fault, Network
from tests.real.processes import answers, free_port, until
from tests.real.rabbitmq import RabbitMq
from tests.real.smtp import SmtpServer
from tests.tasks import make_task, new_uuid

ROOT = Path(__file__).parent.parent
USER = "alice"
QUEUE = "benchmark"
POLLING_SECONDS = 1.0
ALIVE = ("email", "rabbitmq", "webhook")
ALONE = 200  # messages that a sender sends with nothing around it


class Sinks:
    """The receivers, and the keys of what they took."""

    def __init__(
        self, smtp: SmtpServer, rabbitmq: RabbitMq, webhook: WebhookReceiver, slack: Network
    ) -> None:
        self._smtp, self._rabbitmq, self._webhook, self._slack = smtp, rabbitmq, webhook, slack
        self._drained: list[str] = []

    def settings(self) -> dict[str, str]:
        return {
            "NOTIFICATIONS_CEILING": "0",
            "NOTIFICATIONS_SMTP_SERVER": self._smtp.host,
            "NOTIFICATIONS_SMTP_PORT": str(self._smtp.port),
            "NOTIFICATIONS_SMTP_SECURITY": "none",
            "NOTIFICATIONS_RABBITMQ_HOST": self._rabbitmq.host,
            "NOTIFICATIONS_RABBITMQ_PORT": str(self._rabbitmq.port),
            "NOTIFICATIONS_RABBITMQ_USERNAME": self._rabbitmq.username,
            "NOTIFICATIONS_RABBITMQ_PASSWORD": self._rabbitmq.password,
            "NOTIFICATIONS_WEBHOOK_RECEIVERS": json.dumps(
                {f"127.0.0.1:{self._webhook.port}": self._webhook.secret}
            ),
            "NOTIFICATIONS_SLACK_BOT_TOKEN": "xoxb-none",
            "NOTIFICATIONS_SLACK_API_URL": self._slack.url,
        }

    def params(self) -> dict[str, dict[str, Any]]:
        return {
            "email": {"sender": "cluster@example.com", "recipient": "someone@example.com"},
            "rabbitmq": {"queue": QUEUE},
            "webhook": {"url": f"{self._webhook.url}/jobs"},
            "slack": {"channel": "#jobs"},
        }

    def keys(self, method: str) -> list[str]:
        if method == "email":
            return [
                str(mail.message["Message-ID"]).strip("<>").split("@")[0] for mail in list(self._smtp.mails)
            ]
        if method == "webhook":
            return [event["id"] for _, event in list(self._webhook.events)]
        with self._rabbitmq.connect() as connection:
            channel = connection.channel()
            channel.queue_declare(QUEUE, durable=True)
            while (taken := channel.basic_get(QUEUE, auto_ack=True))[0] is not None:
                self._drained.append(taken[1].message_id)
        return self._drained


def rate_alone(sinks: Sinks, method: str) -> float:
    """Messages a second that the sender delivers with nothing around it."""
    sender = SENDERS[method].configured(read_settings(sinks.settings()))
    assert sender is not None
    params = sender.Params.model_validate(sinks.params()[method])
    began = time.perf_counter()
    for count in range(ALONE):
        sender.send(Message(f"alone-{count}", "end", Content(subject="a job has ended")), params)
    return ALONE / (time.perf_counter() - began)


def submit_all(url: str, sinks: Sinks, number: int) -> list[int]:
    def task() -> dict[str, Any]:
        notification = {"methods": list(sinks.params()), "params": sinks.params()}
        slurm = {"mem": 10, "hold": True}
        return make_task(
            USER, "/tmp/slurm-proxy-benchmark", cwd="/tmp", slurm=slurm, notification=notification
        )

    with requests.Session() as http:
        replies = [http.post(f"{url}/submit", json={"task": task()}, timeout=60) for _ in range(number)]
    return [reply.json()["slurm_job_id"] for reply in replies]


def cancel_all(slurm: Session, ids: list[int]) -> float:
    """The moment at which the last one was cancelled."""
    for job_id in ids:
        slurm.send("DELETE", f"job/{job_id}", user=USER)
    return time.time()


def drain(url: str, sinks: Sinks, number: int) -> dict[str, float]:
    """When each channel was empty."""
    over: dict[str, float] = {}

    def watch(method: str) -> None:
        key = f"{url}/notifications?status=due&method={method}&limit=1"
        while not over.get(method):
            counted = len(set(sinks.keys(method)))
            if counted >= number and not requests.get(key, timeout=30).json()["notifications"]:
                over[method] = time.time()
            time.sleep(0.1)

    threads = [threading.Thread(target=watch, args=(method,)) for method in ALIVE]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return over


def poll_gaps(log: Path, since: float, until_: float) -> list[float]:
    """Seconds between the polls of Slurm that the log tells of."""
    pattern = re.compile(r"^(\S+ \S+),(\d+) DEBUG .* GET /slurm/[^/]+/jobs(/state)? as")
    moments = []
    for line in log.read_text().splitlines():
        if match := pattern.match(line):
            moment = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").astimezone().timestamp()
            moments.append(moment + int(match[2]) / 1000)
    within = [moment for moment in moments if since - POLLING_SECONDS <= moment <= until_]
    return [later - earlier for earlier, later in pairwise(within) if later - earlier > POLLING_SECONDS / 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mongodb", help="the address of a MongoDB; without it SQLite")
    parser.add_argument("--number", type=int, default=1000)
    options = parser.parse_args()
    url, key_path = os.environ["TEST_SLURM_URL"], Path(os.environ["TEST_SLURM_KEY_PATH"])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        slack = stack.enter_context(Network("http://127.0.0.1:9"))
        webhook = stack.enter_context(WebhookReceiver())
        slack.target, slack.fault = ("127.0.0.1", webhook.port), Fault.HANG
        sinks = Sinks(
            stack.enter_context(SmtpServer(folder)), stack.enter_context(RabbitMq()), webhook, slack
        )
        alone = {method: rate_alone(sinks, method) for method in ALIVE}
        before = {method: len(sinks.keys(method)) for method in ALIVE}
        port, database = free_port(), new_uuid()
        environment = {
            "PATH": os.environ["PATH"],
            "GUNICORN_BIND": f"127.0.0.1:{port}",
            "GUNICORN_WORKERS": "1",
            "LOG_LEVEL": "DEBUG",
            "SLURM_REST_HOST": url,
            "SLURM_JWT_HS256_KEY_PATH": str(key_path),
            "SQLITE_PATH": str(folder / "store.sqlite3"),
            "MONITOR_POLLING_SECONDS": str(POLLING_SECONDS),
            **sinks.settings(),
        }
        if options.mongodb:
            environment |= {"MONGODB_URI": options.mongodb, "MONGODB_MONITOR_DB": database}
        argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py", "app:create_app()"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=log, stderr=log)
        slurm = Session(
            Connection(url, TokenMint(key_path.read_bytes(), 300), connect_timeout=3, read_timeout=30),
            "slurm",
        )
        try:
            until(lambda: answers(port), 30, "gunicorn")
            base = f"http://127.0.0.1:{port}"
            open_ids = submit_all(base, sinks, 5)  # that Slurm is polled for all the time
            ids = submit_all(base, sinks, options.number)
            cancelled = cancel_all(slurm, ids)
            over = drain(base, sinks, options.number + ALONE)
            waiting = sum(
                len(requests.get(f"{base}/notifications?{query}", timeout=30).json()["notifications"])
                for query in ("status=retrying&method=slack&limit=1000", "status=due&method=slack&limit=1000")
            )
            cancel_all(slurm, open_ids)
        finally:
            server.terminate()
            server.wait(60)
            slurm.close()
            if options.mongodb:
                with connect(options.mongodb, 5) as client:
                    client.drop_database(database)
        print(f"{'MongoDB' if options.mongodb else 'SQLite'}, {options.number} jobs that ended together:")
        for method in ALIVE:
            counts = Counter(sinks.keys(method)[before[method] :])
            rate = options.number / (over[method] - cancelled)
            print(
                f"  {method:<8} {len(counts)} messages, {sum(counts.values()) - len(counts)} of them twice,"
                f" drained in {over[method] - cancelled:.1f} s: {rate:.0f}/s,"
                f" {rate / alone[method]:.2f} of its sender alone ({alone[method]:.0f}/s)"
            )
        print(f"  slack    dead: {waiting} messages wait")
        gaps = poll_gaps(folder / "log", cancelled, max(over.values()))
        print(
            f"  Slurm was polled every {statistics.median(gaps):.2f} s at the median,"
            f" {max(gaps):.2f} s at most (set to {POLLING_SECONDS:.0f} s)"
        )


if __name__ == "__main__":
    main()
