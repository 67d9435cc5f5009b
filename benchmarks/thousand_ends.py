"""A thousand jobs that end together, told by four channels of which one is dead.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.thousand_ends [--mongodb mongodb://…]

Submits held jobs to a real Slurm of 24.11 or newer through gunicorn with one worker, cancels them with one
request, and waits until the messages of `email`, `rabbitmq` and `webhook` are out, each to a real server of
its protocol on loopback; `slack` leads to a server that takes connections and never answers. Prints how fast
each channel was drained, as a ratio to what its sender does with the same server and nothing else around it,
alone and beside the other two; how regularly Slurm was polled; and what came twice.

The mail server and the receiver of webhooks take `--latency` milliseconds for a message; those that one meets
behind a network do. With 0 the machine is the limit.
"""

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import datetime
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any

from app.environment import read_settings
from app.models.content import Content
from app.senders import SENDERS, Message
from benchmarks.cluster import RawSlurm, open_cluster
from benchmarks.command import Store
from benchmarks.service import Service, run_service
from tests.support.real.http_services import Answer, Request, WebhookReceiver
from tests.support.real.network import Fault, Network
from tests.support.real.rabbitmq import RabbitMq
from tests.support.real.smtp import SmtpServer

QUEUE = "benchmark"
POLLING_SECONDS = 1.0
ALIVE = ("email", "rabbitmq", "webhook")
ALONE_SECONDS = 3.0  # that the senders are measured with nothing around them
TIMEOUT = 600.0


class SlowSmtp(SmtpServer):
    latency = 0.0  # seconds

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.latency)
        return await super().handle_DATA(server, session, envelope)


class SlowWebhooks(WebhookReceiver):
    latency = 0.0  # seconds

    def take(self, request: Request) -> Answer:
        time.sleep(self.latency)
        return super().take(request)


class Receivers:
    """The servers of the channels, in a process of their own, and the keys of what they took."""

    def __init__(self, folder: str, latency: float) -> None:
        SlowSmtp.latency = SlowWebhooks.latency = latency
        self._parts = ExitStack()
        self._webhook = self._parts.enter_context(SlowWebhooks())
        slack = self._parts.enter_context(Network(self._webhook.url))
        slack.fault = Fault.HANG
        smtp = self._parts.enter_context(SlowSmtp(Path(folder)))
        self._rabbitmq = self._parts.enter_context(RabbitMq())
        self._smtp, self._slack = smtp, slack
        self._channel = self._rabbitmq.connect().channel()
        self._channel.queue_declare(QUEUE, durable=True)

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

    def taken(self) -> dict[str, int]:
        """How many messages have come since the last `keys`."""
        queue = self._channel.queue_declare(QUEUE, passive=True)
        return {
            "email": len(self._smtp.mails),
            "rabbitmq": queue.method.message_count,
            "webhook": len(self._webhook.events),
        }

    def keys(self) -> dict[str, list[str]]:
        """Their keys; they are forgotten."""
        mails, events = list(self._smtp.mails), list(self._webhook.events)
        self._smtp.mails.clear()
        self._webhook.events.clear()
        queued: list[str] = []
        while (taken := self._channel.basic_get(QUEUE, auto_ack=True))[0] is not None:
            queued.append(taken[1].message_id)
        return {
            "email": [str(mail.message["Message-ID"]).strip("<>").split("@")[0] for mail in mails],
            "rabbitmq": queued,
            "webhook": [event["id"] for _, event in events],
        }

    def close(self) -> None:
        with suppress(Exception):
            self._channel.connection.close()
        self._parts.close()


class Manager(BaseManager):
    """Starts the process of the receivers."""


Manager.register("Receivers", Receivers)


def rates(receivers: Receivers, methods: tuple[str, ...]) -> dict[str, float]:
    """Messages a second that the senders deliver at the same time, with nothing around them."""
    settings, params = read_settings(receivers.settings()), receivers.params()
    found: dict[str, float] = {}

    def send(method: str) -> None:
        sender = SENDERS[method].from_settings(settings)
        assert sender is not None
        checked, count, began = sender.Params.model_validate(params[method]), 0, time.perf_counter()
        while time.perf_counter() - began < ALONE_SECONDS:
            sender.send(Message(f"alone-{count}", "end", Content(subject="a job has ended")), checked)
            count += 1
        found[method] = count / (time.perf_counter() - began)

    threads = [threading.Thread(target=send, args=(method,)) for method in methods]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def submit_all(service: Service, params: dict[str, dict[str, Any]], number: int) -> list[int]:
    notification = {"methods": list(params), "params": params}
    client = service.connect()
    return [client.submit(notification=notification) for _ in range(number)]


def drained(receivers: Receivers, number: int) -> tuple[dict[str, float], dict[str, float]]:
    """When each channel had brought the first message, and when so many."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    deadline = time.time() + TIMEOUT
    while len(last) < len(ALIVE):
        assert time.time() < deadline, receivers.taken()
        for method, count in receivers.taken().items():
            if count > 0:
                first.setdefault(method, time.time())
            if count >= number:
                last.setdefault(method, time.time())
        time.sleep(0.05)
    return first, last


def poll_gaps(log: Path, since: float, until: float) -> list[float]:
    """Seconds between the polls of Slurm that the log tells of."""
    pattern = re.compile(r"^(\S+ \S+),(\d+) DEBUG .* GET /slurm/[^/]+/jobs(/state)? as")
    moments = []
    for line in log.read_text().splitlines():
        if match := pattern.match(line):
            moment = datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S").astimezone().timestamp()
            moments.append(moment + int(match[2]) / 1000)
    within = [moment for moment in moments if since - POLLING_SECONDS <= moment <= until]
    return [later - earlier for earlier, later in pairwise(within) if later - earlier > POLLING_SECONDS / 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mongodb", help="the address of a MongoDB; without it SQLite")
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=20, metavar="MILLISECONDS")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        manager = stack.enter_context(Manager(ctx=get_context("spawn")))
        receivers = manager.Receivers(str(folder), options.latency / 1000)  # type: ignore[attr-defined]
        stack.callback(receivers.close)
        alone = {method: rates(receivers, (method,))[method] for method in ALIVE}
        together = rates(receivers, ALIVE)
        receivers.keys()
        cluster = stack.enter_context(open_cluster(use_stand_in=False))
        slurm = RawSlurm(cluster)
        settings = {"LOG_LEVEL": "DEBUG", "MONITOR_POLLING_SECONDS": str(POLLING_SECONDS)}
        settings |= receivers.settings()
        store = Store("MongoDB" if options.mongodb else "SQLite", options.mongodb)
        service = stack.enter_context(run_service(cluster, store, folder, settings))
        submit_all(service, {}, 5)  # that Slurm is polled for all the time
        ids = submit_all(service, receivers.params(), options.number)
        service.read_parts()
        slurm.cancel(ids)
        cancelled = time.time()
        first, last = drained(receivers, options.number)
        spent = service.read_parts()
        time.sleep(2 * POLLING_SECONDS)  # for what comes twice
        keys = receivers.keys()
        waiting = service.connect().get("/notifications?status=sent&method=slack").json()
        gaps = poll_gaps(folder / "log", cancelled, max(last.values()))
    print(f"{store.name}, {options.number} jobs that ended together:")
    for method in ALIVE:
        counts = Counter(keys[method])
        rate = options.number / (last[method] - first[method])
        print(
            f"  {method:<8} {len(counts)} messages, {sum(counts.values()) - len(counts)} of them twice,"
            f" drained from {first[method] - cancelled:.1f} s to {last[method] - cancelled:.1f} s after the"
            f" last end: {rate:.0f}/s, {rate / together[method]:.2f} of what the"
            f" three senders do together ({together[method]:.0f}/s), {rate / alone[method]:.2f} of it alone"
            f" ({alone[method]:.0f}/s)"
        )
    print(f"  slack    dead: {len(waiting['notifications'])} messages taken")
    print(
        f"  Slurm was polled every {statistics.median(gaps):.2f} s at the median, {max(gaps):.2f} s at most"
        f" (set to {POLLING_SECONDS:.0f} s)"
    )
    for name, part in sorted(spent.items()):
        print(
            f"  {name:<18} {part['count']:>6} times, {part['median']:.2f} ms at the median,"
            f" {part['sum'] / 1000:.1f} s in all"
        )


if __name__ == "__main__":
    main()
