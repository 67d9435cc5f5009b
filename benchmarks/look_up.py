"""Measure a GET of one task, as a ratio to slurmrestd's own GET of its job in the same run.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.look_up [--mongodb mongodb://…]

Submits held jobs to slurmrestd, which are then recorded in each store. In turns, one client gets a job from
slurmrestd and from a service with one worker on each store, without and with keys: always the same job, which
a service has in its cache, or another job each time, which it has not. Then several clients get the same jobs
at a time. Every client keeps its connection. The jobs are cancelled afterwards.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

from benchmarks.cluster import Cluster, MakeConnection, RawSlurm, open_cluster, submit_jobs
from benchmarks.command import (
    add_load_options,
    choose_connection,
    list_stores,
    make_parser,
    print_conditions,
)
from benchmarks.comparison import (
    COLUMNS,
    LOAD_COLUMNS,
    RAW,
    compare,
    measure_load,
    name_folder,
    start_services,
)
from benchmarks.fill import fill_store
from benchmarks.http_connection import HttpConnection
from benchmarks.measuring import Call, format_table, time_in_turns
from benchmarks.service import Service


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_load_options(parser, 300)
    parser.add_argument("--jobs", type=int, default=300, help="how many different jobs there are")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    stores = list_stores(options)
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster(use_stand_in=options.stand_in))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print_conditions(cluster, stores)
        jobs = submit_jobs(cluster, options.jobs)
        for number, store in enumerate(stores):
            for with_key in (False, True):
                fill_store(store, name_folder(folder, number, with_key=with_key), jobs)
        services = start_services(stack, cluster, stores, folder, options.workers)
        measure(cluster, services, [job_id for _, job_id in jobs], options)


def measure(
    cluster: Cluster, services: dict[str, Service], job_ids: Sequence[int], options: argparse.Namespace
) -> None:
    connection = choose_connection(options)
    for title, wanted in (("the same job", job_ids[:1]), ("another job each", job_ids)):
        calls = make_calls(cluster, services, connection, wanted, 1)
        single = {name: call for name, (call,) in calls.items()}
        rows = compare(time_in_turns(single, options.number))
        print(f"\n{title}\n{format_table(COLUMNS, rows)}")
    calls = make_calls(cluster, services, HttpConnection, job_ids[: options.clients], options.clients)
    rows = measure_load(calls, services, options.seconds)
    print(f"\na job for each client\n{format_table(LOAD_COLUMNS, rows)}")


def make_calls(
    cluster: Cluster,
    services: dict[str, Service],
    connection: MakeConnection,
    job_ids: Sequence[int],
    clients: int,
) -> dict[str, list[Call]]:
    """Return the calls of the clients of each server; each client begins with another of the jobs."""

    def repeat(look_up: Callable[[int], object], first: int) -> Call:
        ids = cycle([*job_ids[first % len(job_ids) :], *job_ids[: first % len(job_ids)]])
        return lambda: look_up(next(ids))

    calls = {RAW: [repeat(RawSlurm(cluster, connection).look_up, number) for number in range(clients)]}
    for name, service in services.items():
        calls[name] = [repeat(service.connect(connection).look_up, number) for number in range(clients)]
    return calls


if __name__ == "__main__":
    main()
