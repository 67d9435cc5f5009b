"""Measure how long callers wait while slurmctld or slurmrestd is down, in each of several workers.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.outage [--mongodb mongodb://…]

A gateway in front of slurmrestd plays the outage; nothing is stopped. "slurmctld down" answers every request
with 502 after --delay seconds, and a ping at once, as slurmrestd of 24.11 does; "slurmrestd hangs" answers
nothing. A caller comes every --every seconds, with a connection of its own, and gets a job or submits one in
turns. The base of the ratio is a caller who asks slurmrestd itself: each of them waits --delay seconds, or
for ever.
"""

import argparse
import math
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cluster import Cluster, open_cluster, submit_jobs
from benchmarks.command import Store, list_stores, make_parser, print_conditions
from benchmarks.fill import Job, fill_store
from benchmarks.gateway import Fault, Gateway
from benchmarks.measuring import Cell, divide, format_table, percentile
from benchmarks.service import WORKER_HEADER, Service, held_task, run_service

COLUMNS = (
    "worker",
    "callers",
    "waited > 1 s",
    "of them after 15 s",
    "longest s",
    "longest ÷ raw",
    "others p50 ms",
    "others p95 ms",
)
FAULTS = {"slurmctld down": Fault.CONTROLLER_DOWN, "slurmrestd hangs": Fault.HANG}
_LONG = 1.0  # seconds
_LATER = 15.0  # seconds
_JOBS = 200


@dataclass(frozen=True, slots=True)
class Wait:
    """How long a caller waited, who came so many seconds after the beginning of the outage."""

    worker: str
    came: float
    seconds: float
    status: int


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--seconds", type=float, default=35.0, help="how long each outage lasts")
    parser.add_argument("--every", type=float, default=0.25, help="seconds between two callers")
    parser.add_argument(
        "--delay", type=float, default=9.0, help="seconds that slurmrestd waits for slurmctld"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of the service")
    parser.add_argument("--faults", nargs="+", choices=[*FAULTS], default=["slurmctld down"])
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    stores = list_stores(options)
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster(use_stand_in=options.stand_in))
        print_conditions(cluster, stores)
        jobs = submit_jobs(cluster, _JOBS)
        for store in stores:
            for name in options.faults:
                waits = measure(cluster, store, jobs, FAULTS[name], options)
                base = options.delay if FAULTS[name] is Fault.CONTROLLER_DOWN else math.nan
                print(f"\n{store.name}, {name}\n{format_table(COLUMNS, summarize(waits, base))}", flush=True)


def measure(
    cluster: Cluster, store: Store, jobs: list[Job], fault: Fault, options: argparse.Namespace
) -> list[Wait]:
    """Let callers come during one outage."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gateway = stack.enter_context(Gateway(cluster.url, options.delay))
        fill_store(store, folder, jobs)
        behind = cluster.behind(gateway.url)
        service = stack.enter_context(run_service(behind, store, folder, workers=options.workers))
        service.wait_for_cycle()
        gateway.fail(fault)
        waits = send_callers(service, [job_id for _, job_id in jobs], options)
        gateway.fail(Fault.NONE)
    return waits


def send_callers(service: Service, job_ids: list[int], options: argparse.Namespace) -> list[Wait]:
    """Send a caller every few moments, and return how long each of them waited."""
    began, waits, threads = time.monotonic(), [], []

    def call(number: int) -> None:
        came = time.monotonic() - began
        client = service.connect()
        if number % 2:
            answer = client.post("/submit", {"task": held_task()})
            if answer.status == 200:
                service.cluster.job_ids.append(answer.json()["slurm_job_id"])
        else:
            answer = client.get(f"/monitor/slurm_job_id/{job_ids[number % len(job_ids)]}")
        seconds = time.monotonic() - began - came
        waits.append(Wait(answer.headers.get(WORKER_HEADER, "?"), came, seconds, answer.status))

    for number in range(round(options.seconds / options.every)):
        thread = threading.Thread(target=call, args=(number,), daemon=True)
        threads.append(thread)
        thread.start()
        time.sleep(options.every)
    for thread in threads:
        thread.join(60)
    return waits


def summarize(waits: list[Wait], base: float) -> list[list[Cell]]:
    """Return a row for each worker; `base` is how long a caller of slurmrestd itself waits."""
    by_worker: defaultdict[str, list[Wait]] = defaultdict(list)
    for wait in waits:
        by_worker[wait.worker].append(wait)
    rows: list[list[Cell]] = []
    for number, own in enumerate(by_worker.values(), start=1):
        long = [wait for wait in own if wait.seconds > _LONG]
        others = [wait.seconds for wait in own if wait.seconds <= _LONG]
        longest = max(wait.seconds for wait in own)
        rows.append(
            [
                str(number),
                len(own),
                len(long),
                sum(wait.came > _LATER for wait in long),
                longest,
                divide(longest, base),
                1000 * percentile(others, 0.5),
                1000 * percentile(others, 0.95),
            ]
        )
    return rows


if __name__ == "__main__":
    main()
