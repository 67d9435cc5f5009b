"""Measure the cost of a polling cycle for Slurm and the service, at different numbers of open jobs.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.poll [--mongodb mongodb://…] [--jobs 100000]

Records open jobs in each store, and lets a service with one worker poll them. A gateway counts requests and
bytes, and the time in which slurmrestd has a request. The base of the ratio is a caller who reads the states
of the same jobs from slurmrestd itself, through the same gateway. Up to --real jobs are held jobs of the
real cluster. For more jobs, and for an array with many waiting tasks, a stand-in answers: these figures show
the service, and not slurmctld. The requests of a cycle do not include the checks of Slurm, slurmdbd and the
clock, which come at intervals of MONITOR_POLLING_SECONDS, which is 1 here.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.cluster import Cluster, RawSlurm, open_cluster, submit_jobs
from benchmarks.command import Store, list_stores, make_parser, print_conditions
from benchmarks.fill import Job, fill_store
from benchmarks.gateway import Gateway
from benchmarks.measuring import Cell, Timings, divide, format_table, seconds_of
from benchmarks.service import run_service
from benchmarks.stand_in import list_jobs

COLUMNS = (
    "open jobs",
    "cluster",
    "cycle ms",
    "÷ raw",
    "requests",
    "kB",
    "CPU ms",
    "Slurm busy",
    "checks a s",
    "every s",
    "RSS MB",
)
_SETTINGS = {"MONITOR_POLLING_SECONDS": "1"}
_RAW_READINGS = 3
_POLLED = ("jobs/state", "job", "jobs")  # the kinds of requests of a cycle; others check Slurm and its clock


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--jobs", type=int, nargs="+", default=[100, 1000, 10_000], help="numbers of open jobs"
    )
    parser.add_argument("--array", type=int, default=20_000, help="tasks of one waiting array; 0 for none")
    parser.add_argument("--real", type=int, default=1000, help="the most jobs to submit to a real cluster")
    parser.add_argument("--seconds", type=float, default=8.0, help="how long each is polled")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    stores = list_stores(options)
    with open_cluster(use_stand_in=options.stand_in) as cluster:
        print_conditions(cluster, stores)
    sizes = [(number, 0) for number in options.jobs] + [(1, options.array)] * bool(options.array)
    rows: dict[str, list[list[Cell]]] = {store.name: [] for store in stores}
    for jobs, tasks in sizes:
        with open_polled_cluster(options, jobs, tasks) as (cluster, gateway, recorded):
            raw = time_raw(cluster.behind(gateway.url), recorded)
            for store in stores:
                name = f"array of {tasks:,}" if tasks else f"{jobs:,}"
                row = measure(cluster, gateway, store, recorded, raw, options.seconds)
                rows[store.name].append([name, *row])
    for name, found in rows.items():
        print(f"\n{name}, for each cycle\n{format_table(COLUMNS, found)}")


@contextmanager
def open_polled_cluster(
    options: argparse.Namespace, jobs: int, tasks: int
) -> Iterator[tuple[Cluster, Gateway, list[Job]]]:
    """Yield a cluster with so many jobs, a gateway in front of it, and the jobs."""
    use_stand_in = options.stand_in or jobs > options.real or tasks > 0
    with (
        open_cluster(use_stand_in=use_stand_in, jobs=jobs, array_tasks=tasks) as cluster,
        Gateway(cluster.url) as gateway,
    ):
        yield cluster, gateway, list_jobs(jobs) if cluster.is_stand_in else submit_jobs(cluster, jobs)


def time_raw(cluster: Cluster, jobs: list[Job]) -> Timings:
    slurm, job_ids = RawSlurm(cluster), [job_id for _, job_id in jobs]
    return Timings([seconds_of(lambda: slurm.read_states(job_ids)) for _ in range(_RAW_READINGS)])


def measure(
    cluster: Cluster, gateway: Gateway, store: Store, jobs: list[Job], raw: Timings, seconds: float
) -> list[Cell]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        fill_store(store, folder, jobs)
        service = stack.enter_context(run_service(cluster.behind(gateway.url), store, folder, _SETTINGS))
        service.wait_for_cycle()
        traffic, cpu, began = gateway.read_traffic(), service.read_cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        parts = service.wait_for_cycle()
        elapsed, cycle = time.monotonic() - began, parts["cycle"]
        traffic = gateway.read_traffic() - traffic
        return [
            cluster.release,
            cycle["median"],
            divide(cycle["median"], raw.milliseconds(0.5)),
            sum(traffic.requests[kind] for kind in _POLLED) / cycle["count"],
            traffic.answer_bytes / 1000 / cycle["count"],
            1000 * (service.read_cpu_seconds() - cpu) / cycle["count"],
            f"{100 * traffic.busy_seconds / elapsed:.1f} %",
            (traffic.total - sum(traffic.requests[kind] for kind in _POLLED)) / elapsed,
            elapsed / cycle["count"],
            service.read_memory() / 1e6,
        ]


if __name__ == "__main__":
    main()
