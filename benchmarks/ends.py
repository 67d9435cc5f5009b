"""Measure the time from the end of a job to its message, for single ends and for many together.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.ends [--mongodb mongodb://…] [--among 100000]

First, single held jobs are cancelled at random moments, --number of them; each has a webhook, whose server is
in this process. Then --together jobs among --among others are cancelled at once, and the records are counted
until all of them have ended. More than --real jobs are on a stand-in for Slurm. The base of the ratio is a
caller who asks slurmrestd itself for the job once a second: such a caller knows of an end after half a second
at the median, and after 0.95 s at the 95th percentile.
"""

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.cluster import Cluster, RawSlurm, open_cluster, submit_jobs
from benchmarks.command import Store, list_stores, make_parser, print_conditions
from benchmarks.fill import count_cancelled, fill_store
from benchmarks.measuring import Cell, format_table, percentile
from benchmarks.processes import find_server, read_memory
from benchmarks.service import run_service
from benchmarks.stand_in import list_jobs
from tests.support.real.http_services import Answer, Request, WebhookReceiver
from tests.support.real.processes import until

COLUMNS = ("an end and its message", "p50 s", "p95 s", "most s", "p50 ÷ raw", "p95 ÷ raw", "twice")
TOGETHER_COLUMNS = (
    "ends together",
    "among",
    "recorded",
    "half s",
    "all s",
    "RSS MB",
    "CPU s",
    "slurmrestd grew by MB",
)
_ASKING_EVERY = 1.0  # seconds, of the caller who asks slurmrestd
_MAX_PAUSE = 1.0  # seconds between two single ends
_TIMEOUT = 120.0
_COUNTING_EVERY = 0.2  # seconds


class TimedReceiver(WebhookReceiver):
    """A server of webhooks that remembers when a message came to each of its paths."""

    def __init__(self) -> None:
        super().__init__()
        self.came: dict[str, list[float]] = {}

    def take(self, request: Request) -> Answer:
        self.came.setdefault(request.path, []).append(time.monotonic())
        return super().take(request)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--number", type=int, default=30, help="single ends")
    parser.add_argument("--together", type=int, default=1000, help="ends together; 0 for none")
    parser.add_argument("--among", type=int, default=1000, help="other open jobs beside these")
    parser.add_argument("--real", type=int, default=2000, help="the most jobs to submit to a real cluster")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds until the rest is given up")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    stores = list_stores(options)
    with open_cluster(use_stand_in=options.stand_in) as cluster:
        print_conditions(cluster, stores)
        rows = [measure_single(cluster, store, options.number) for store in stores]
    print(f"\n{format_table(COLUMNS, rows)}", flush=True)
    if options.together:
        rows = [measure_together(store, options) for store in stores]
        print(f"\n{format_table(TOGETHER_COLUMNS, rows)}")


def measure_single(cluster: Cluster, store: Store, number: int) -> list[Cell]:
    """Cancel jobs one by one at random moments, and compare the times of their messages."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        receiver = stack.enter_context(TimedReceiver())
        host = f"127.0.0.1:{receiver.port}"
        settings = {"NOTIFICATIONS_WEBHOOK_RECEIVERS": json.dumps({host: receiver.secret})}
        service = stack.enter_context(run_service(cluster, store, folder, settings))
        client, slurm = service.connect(), RawSlurm(cluster)
        job_ids = {
            f"/{index}": client.submit(notification=call_webhook(f"{receiver.url}/{index}"))
            for index in range(number)
        }
        ended = cancel_singly(slurm, job_ids)
        until(lambda: len(receiver.came) == number, _TIMEOUT, "the messages")
    waits = [receiver.came[path][0] - at for path, at in ended.items()]
    p50, p95 = percentile(waits, 0.5), percentile(waits, 0.95)
    twice = sum(len(times) - 1 for times in receiver.came.values())
    return [
        store.name,
        p50,
        p95,
        max(waits),
        p50 / (0.5 * _ASKING_EVERY),
        p95 / (0.95 * _ASKING_EVERY),
        twice,
    ]


def call_webhook(url: str) -> dict[str, Any]:
    return {"methods": ["webhook"], "params": {"webhook": {"url": url}}}


def cancel_singly(slurm: RawSlurm, job_ids: Mapping[str, int]) -> dict[str, float]:
    """Cancel jobs with random pauses, and return when each had ended, by the path of its webhook."""
    ended = {}
    for path, job_id in job_ids.items():
        time.sleep(random.uniform(0, _MAX_PAUSE))  # noqa: S311 - no secret
        slurm.cancel([job_id])
        ended[path] = time.monotonic()
    return ended


def measure_together(store: Store, options: argparse.Namespace) -> list[Cell]:
    """Cancel many jobs at once, and count the records that have ended."""
    number = options.together + options.among
    use_stand_in = options.stand_in or number > options.real
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster(use_stand_in=use_stand_in, jobs=number))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jobs = list_jobs(number) if cluster.is_stand_in else submit_jobs(cluster, number)
        fill_store(store, folder, jobs)
        service = stack.enter_context(run_service(cluster, store, folder))
        service.wait_for_cycle()
        cpu, slurmrestd = service.read_cpu_seconds(), find_server(cluster.url)
        memory = read_memory(slurmrestd) if slurmrestd else math.nan
        RawSlurm(cluster).cancel([job_id for _, job_id in jobs[: options.together]])
        times = wait_for_ends(store, folder, options.together, options.timeout)
        return [
            store.name,
            f"{options.among:,} ({cluster.release})",
            f"{len(times)} of {options.together}",
            percentile(times, 0.5),
            max(times, default=math.nan),
            service.read_memory() / 1e6,
            service.read_cpu_seconds() - cpu,
            (read_memory(slurmrestd) - memory) / 1e6 if slurmrestd else math.nan,
        ]


def wait_for_ends(store: Store, folder: Path, number: int, timeout: float) -> list[float]:
    """Return after how many seconds each end was recorded, without those that are still missing."""
    began = time.monotonic()
    times: list[float] = []
    with count_cancelled(store, folder) as count:
        while len(times) < number and (elapsed := time.monotonic() - began) < timeout:
            times += [elapsed] * (count() - len(times))
            time.sleep(_COUNTING_EVERY)
    return times


if __name__ == "__main__":
    main()
