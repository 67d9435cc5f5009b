"""Compare the service on each store, without and with keys, with slurmrestd itself."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cluster import Cluster
from benchmarks.command import Store
from benchmarks.measuring import Call, Cell, Timings, divide, load_in_turns
from benchmarks.service import Service, run_service

RAW = "slurmrestd"
COLUMNS = ("one client", "p50 ms", "p95 ms", "p99 ms", "p50 ÷ raw", "p99 ÷ raw")
LOAD_COLUMNS = (
    "clients at a time",
    "per second",
    "p50 ms",
    "p99 ms",
    "per second ÷ raw",
    "p99 ÷ raw",
    "CPU ms",
)


def start_services(
    stack: ExitStack, cluster: Cluster, stores: list[Store], folder: Path, workers: int = 1
) -> dict[str, Service]:
    """Start two services on each store, one of which wants keys; `folder` may hold stores already."""
    services = {}
    for number, store in enumerate(stores):
        for with_key in (False, True):
            own = name_folder(folder, number, with_key=with_key)
            context = run_service(cluster, store, own, with_key=with_key, workers=workers)
            services[store.name + ", keys" * with_key] = stack.enter_context(context)
    return services


def name_folder(folder: Path, number: int, *, with_key: bool) -> Path:
    """Return the folder of one of these services: the number of its store, and whether it wants keys."""
    return folder / f"{number}{'-keys' * with_key}"


def compare(timings: Mapping[str, Timings]) -> list[list[Cell]]:
    """Return a row for each name, with ratios to slurmrestd itself."""
    shares, raw = (0.5, 0.95, 0.99), timings[RAW]
    return [
        [
            name,
            *(taken.milliseconds(share) for share in shares),
            *(divide(taken.milliseconds(share), raw.milliseconds(share)) for share in (0.5, 0.99)),
        ]
        for name, taken in timings.items()
    ]


def measure_load(
    clients: Mapping[str, Sequence[Call]], services: Mapping[str, Service], seconds: float
) -> list[list[Cell]]:
    """Let the clients of each server call at a time, in turns, and return a row for each server.

    The processor time is that of the workers for one request. It depends less on other work of the machine
    than the times do.
    """
    meters = {name: service.read_cpu_seconds for name, service in services.items()}
    return compare_load(load_in_turns(clients, seconds, meters=meters))


def compare_load(timings: Mapping[str, Timings]) -> list[list[Cell]]:
    """Return a row for each name: requests a second of all clients, and how long the slowest waited."""
    raw = timings[RAW]
    return [
        [
            name,
            taken.per_second,
            taken.milliseconds(0.5),
            taken.milliseconds(0.99),
            divide(taken.per_second, raw.per_second),
            divide(taken.milliseconds(0.99), raw.milliseconds(0.99)),
            divide(1000 * taken.cpu_seconds, len(taken.times)) if name != RAW else math.nan,
        ]
        for name, taken in timings.items()
    ]
