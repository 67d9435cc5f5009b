"""Measure what more workers bring: submissions and GETs a second of many clients, with 1, 2 and 4 workers.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.workers [--mongodb mongodb://…]

Starts a service on each store for each number of workers, without keys, one service after the other:
slurmrestd stops answering near 124 connections, and each worker keeps up to 13. All clients submit held jobs
and then get one job each, in turns with slurmrestd itself and with the service. Every client keeps its
connection. More workers help only while processors are free: clients, slurmrestd and MongoDB need some, too.
Clients may submit up to 1,500 jobs a second. slurmctld takes 10,000 by default, and the benchmark cancels
them at the end.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cluster import Cluster, RawSlurm, open_cluster, submit_jobs
from benchmarks.command import list_stores, make_parser, print_conditions
from benchmarks.comparison import LOAD_COLUMNS, RAW, measure_load
from benchmarks.fill import fill_store
from benchmarks.http_connection import HttpConnection
from benchmarks.look_up import make_calls
from benchmarks.measuring import Call, format_table
from benchmarks.service import Service, run_service


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="processes of a service")
    parser.add_argument("--clients", type=int, default=16, help="how many ask at a time")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long they ask each server")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    stores = list_stores(options)
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster(use_stand_in=options.stand_in))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print_conditions(cluster, stores)
        jobs = submit_jobs(cluster, options.clients)
        for number, store in enumerate(stores):
            for workers in options.workers:
                own = folder / f"{number}-{workers}"
                fill_store(store, own, jobs)
                with run_service(cluster, store, own, workers=workers) as service:
                    name = f"{store.name}, {workers}"
                    measure(cluster, {name: service}, [job_id for _, job_id in jobs], options)


def measure(
    cluster: Cluster, services: dict[str, Service], job_ids: list[int], options: argparse.Namespace
) -> None:
    submissions: dict[str, list[Call]] = {RAW: [RawSlurm(cluster).submit for _ in job_ids]}
    for name, service in services.items():
        submissions[name] = [service.connect().submit for _ in job_ids]
    look_ups = make_calls(cluster, services, HttpConnection, job_ids, len(job_ids))
    for title, calls in (("submissions", submissions), ("GETs", look_ups)):
        rows = measure_load(calls, services, options.seconds)
        print(f"\n{title}\n{format_table(LOAD_COLUMNS, rows)}", flush=True)


if __name__ == "__main__":
    main()
