"""Measure a thousand callers that each ask for a different job once a second.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.herd [--mongodb mongodb://…]

Every caller asks for one held job, on a new connection each time: slurmrestd itself, then a service on each
store. A gateway counts the requests that reach slurmrestd. "Served" is the share of the requests that there
would be if every caller were answered within a second. slurmrestd stops answering at 124 connections, so its
own callers share fewer. The jobs are cancelled afterwards.
"""

import argparse
import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.callers import HerdResult, run_herd
from benchmarks.cluster import Cluster, RawSlurm, open_cluster, submit_jobs
from benchmarks.command import list_stores, make_parser, print_conditions
from benchmarks.fill import fill_store
from benchmarks.gateway import Gateway
from benchmarks.http_connection import encode_request
from benchmarks.measuring import Cell, divide, format_table, percentile
from benchmarks.service import Service, run_service

COLUMNS = ("asked", "served", "p50 ms", "p95 ms", "p95 ÷ raw", "failed", "to Slurm a second", "CPU ms each")
_RAW_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Herd:
    """What callers got, the requests to Slurm, and the processor time of the service."""

    name: str
    result: HerdResult
    to_slurm: int
    cpu_seconds: float = math.nan


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--callers", type=int, default=1000, help="each asks for another job")
    parser.add_argument("--seconds", type=float, default=15.0, help="how long they ask each server")
    parser.add_argument("--workers", type=int, default=2, help="processes of each service")
    parser.add_argument(
        "--without-keys",
        action="store_true",
        help="let the service find out for each connection which user's process has opened it, as a service"
        " without authentication does",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    stores = list_stores(options)
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster(use_stand_in=options.stand_in))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gateway = stack.enter_context(Gateway(cluster.url))
        print_conditions(cluster, stores)
        jobs = submit_jobs(cluster, options.callers)
        job_ids = [job_id for _, job_id in jobs]
        herds = [ask_slurm(cluster, job_ids, options.seconds)]
        for number, store in enumerate(stores):
            fill_store(store, folder / str(number), jobs)
            context = run_service(
                cluster.behind(gateway.url),
                store,
                folder / str(number),
                with_key=not options.without_keys,
                workers=options.workers,
            )
            with context as service:
                herds.append(ask_service(store.name, service, gateway, job_ids, options.seconds))
        rows = [describe(herd, herds[0], options.seconds) for herd in herds]
        print(f"\n{format_table(COLUMNS, rows)}")


def ask_slurm(cluster: Cluster, job_ids: Sequence[int], seconds: float) -> Herd:
    slurm = RawSlurm(cluster)
    requests = [slurm.encode("GET", f"job/{job_id}") for job_id in job_ids]
    result = run_herd(cluster.url, requests, seconds, min(_RAW_CONNECTIONS, len(requests)))
    return Herd("slurmrestd", result, len(result.times))


def ask_service(
    name: str, service: Service, gateway: Gateway, job_ids: Sequence[int], seconds: float
) -> Herd:
    requests = [
        encode_request("GET", f"/monitor/slurm_job_id/{job_id}", service.headers) for job_id in job_ids
    ]
    traffic, cpu_seconds = gateway.read_traffic(), service.read_cpu_seconds()
    result = run_herd(service.url, requests, seconds, len(requests))
    to_slurm = (gateway.read_traffic() - traffic).total
    return Herd(name, result, to_slurm, service.read_cpu_seconds() - cpu_seconds)


def describe(herd: Herd, raw: Herd, seconds: float) -> list[Cell]:
    """Return a row, with a ratio to what the same callers got of slurmrestd."""
    times = herd.result.times
    p95 = percentile(times, 0.95)
    return [
        herd.name,
        f"{100 * herd.result.served:.0f} %",
        1000 * percentile(times, 0.5),
        1000 * p95,
        divide(p95, percentile(raw.result.times, 0.95)),
        herd.result.failed,
        herd.to_slurm / seconds,
        divide(1000 * herd.cpu_seconds, len(times)),
    ]


if __name__ == "__main__":
    main()
