"""Measure a submission, a GET and a polling cycle beside a million records that have ended.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.million [--mongodb mongodb://…]

Starts two services with one worker on each store: one whose store is empty, one whose store has the records.
One client submits held jobs, and gets them, in turns from slurmrestd itself and from each service. The jobs
are cancelled afterwards. Filling takes most of the time: half a minute on SQLite, more on MongoDB.
"""

import argparse
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from benchmarks.cluster import Cluster, RawSlurm, open_cluster
from benchmarks.command import list_stores, make_parser, print_conditions
from benchmarks.comparison import RAW
from benchmarks.fill import fill_store
from benchmarks.http_connection import LibraryConnection
from benchmarks.measuring import Cell, Timings, divide, format_table, seconds_of, time_in_turns
from benchmarks.service import Client, Service, run_service

EMPTY = "no records"
COLUMNS = ("store", "submit ms", "÷ raw", "÷ empty", "GET ms", "÷ raw", "÷ empty", "cycle ms", "RSS MB")


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--records", type=int, default=1_000_000, help="records that have ended")
    parser.add_argument("--number", type=int, default=150, help="submissions, and GETs, to each server")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    stores = list_stores(options)
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster(use_stand_in=options.stand_in))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print_conditions(cluster, stores)
        services: dict[str, Service] = {}
        for number, store in enumerate(stores):
            for name, records in ((EMPTY, 0), (f"{options.records:,} records", options.records)):
                own = folder / f"{number}-{records}"
                seconds = seconds_of(partial(fill_store, store, own, [], ended=records))
                if records:
                    print(f"{store.name}: {name} were written in {seconds:.0f} s", flush=True)
                context = run_service(cluster, store, own)
                services[f"{store.name}, {name}"] = stack.enter_context(context)
        print(f"\n{format_table(COLUMNS, measure(cluster, services, options.number))}")


def measure(cluster: Cluster, services: dict[str, Service], number: int) -> list[list[Cell]]:
    raw = RawSlurm(cluster, LibraryConnection)
    servers: dict[str, RawSlurm | Client] = {RAW: raw}
    servers |= {name: service.connect(LibraryConnection) for name, service in services.items()}
    job_ids: dict[str, list[int]] = {name: [] for name in servers}

    def submit(name: str) -> None:
        job_ids[name].append(servers[name].submit())

    def look_up(name: str) -> None:
        servers[name].look_up(job_ids[name][0])
        job_ids[name].append(job_ids[name].pop(0))

    submitted = time_in_turns({name: partial(submit, name) for name in servers}, number)
    for service in services.values():
        service.read_parts()
    looked_up = time_in_turns({name: partial(look_up, name) for name in servers}, number)
    rows: list[list[Cell]] = [describe(RAW, RAW, submitted, looked_up)]
    for name, service in services.items():
        empty = f"{name.rpartition(', ')[0]}, {EMPTY}"
        parts = service.wait_for_cycle()
        memory = service.read_memory() / 1e6
        rows.append([*describe(name, empty, submitted, looked_up), parts["cycle"]["median"], memory])
    rows[0] += ["", ""]
    return rows


def describe(
    name: str, empty: str, submitted: dict[str, Timings], looked_up: dict[str, Timings]
) -> list[Cell]:
    """Return medians, with their ratios to slurmrestd and to the service whose store is empty."""
    cells: list[Cell] = [name]
    for timings in (submitted, looked_up):
        median = timings[name].milliseconds(0.5)
        cells += [median, *(divide(median, timings[base].milliseconds(0.5)) for base in (RAW, empty))]
    return cells


if __name__ == "__main__":
    main()
