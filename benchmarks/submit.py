"""What a submission costs, as a ratio to slurmrestd's own in the same run, and where its time goes.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.submit [--mongodb mongodb://…]

Submits held jobs in turns: to slurmrestd itself, and by POST /submit to a service with one worker on each
store, without and with keys. First one client, then several at a time. Every client keeps its connection.
The jobs are cancelled afterwards. With one worker, the second table shows where the time of one client goes:
it is measured inside the service, in the same submissions.
"""

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cluster import Cluster, RawSlurm, open_cluster
from benchmarks.command import (
    add_load_options,
    choose_connection,
    list_stores,
    make_parser,
    print_conditions,
)
from benchmarks.comparison import COLUMNS, LOAD_COLUMNS, RAW, compare, measure_load, start_services
from benchmarks.measuring import Call, Cell, Timings, format_table, time_in_turns
from benchmarks.service import Service

PART_COLUMNS = (
    "median ms of",
    "whole",
    "slurmrestd",
    "two writes",
    "rest of use case",
    "guard",
    "web",
    "around",
)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_load_options(parser, 200)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    stores = list_stores(options)
    with ExitStack() as stack:
        cluster = stack.enter_context(open_cluster(use_stand_in=options.stand_in))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        print_conditions(cluster, stores)
        services = start_services(stack, cluster, stores, folder, options.workers)
        measure(cluster, services, options)


def measure(cluster: Cluster, services: dict[str, Service], options: argparse.Namespace) -> None:
    connection = choose_connection(options)
    calls: dict[str, Call] = {RAW: RawSlurm(cluster, connection).submit}
    calls |= {name: service.connect(connection).submit for name, service in services.items()}
    for service in services.values():
        service.read_parts()
    alone = time_in_turns(calls, options.number)
    print(f"\n{format_table(COLUMNS, compare(alone))}\n")
    if options.workers == 1:  # each worker tells only its own parts
        parts = [tell_parts(name, service, alone[name]) for name, service in services.items()]
        print(f"{format_table(PART_COLUMNS, parts)}\n")
    clients: dict[str, list[Call]] = {RAW: [RawSlurm(cluster).submit for _ in range(options.clients)]}
    for name, service in services.items():
        clients[name] = [service.connect().submit for _ in range(options.clients)]
    print(format_table(LOAD_COLUMNS, measure_load(clients, services, options.seconds)))


def tell_parts(name: str, service: Service, taken: Timings) -> list[Cell]:
    """Return the medians of the parts of a submission; `around` is gunicorn, the network and the client."""
    spent = {part: figures["median"] for part, figures in service.read_parts().items()}
    whole, inner = taken.milliseconds(0.5), spent["use case"]
    writes = spent.get("add_record", 0.0) + spent.get("accept_job", 0.0)
    guard = spent["guard authenticate"] + spent["guard count_request"]
    return [
        name,
        whole,
        spent["slurmrestd"],
        writes,
        inner - spent["slurmrestd"] - writes,
        guard,
        spent["request"] - inner - guard,
        whole - spent["request"],
    ]


if __name__ == "__main__":
    main()
