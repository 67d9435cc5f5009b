"""Run the benchmarks of docs/explanation/performance.md one after another, and write one report.

    TEST_SLURM_URL=… TEST_SLURM_KEY_PATH=… python -m benchmarks.report [--output FILE]

Measures on SQLite, and on a MongoDB replica set of one member, which it starts. Submissions are also measured
on the MongoDB of TEST_MONGODB_URI. The run takes about a quarter of an hour. Nothing else should run on the
machine meanwhile.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.support.real import RealPartMissing
from tests.support.real.mongod import Mongod

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark of the report; `on_mongodb_alone`: also on a MongoDB that is no replica set."""

    title: str
    module: str
    arguments: tuple[str, ...] = ()
    on_mongodb_alone: bool = False


PARTS = (
    Part("Submissions", "submit", on_mongodb_alone=True),
    Part("GETs of one task", "look_up"),
    Part("A thousand callers", "herd"),
    Part("Polling", "poll", ("--jobs", "100", "1000", "100000", "--array", "20000")),
    Part("Ends", "ends", ("--among", "100000")),
    Part("An outage of slurmctld", "outage"),
    Part("Workers", "workers"),
    Part("Many records", "million", ("--records", "1000000", "--number", "100")),
)


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks.md"), help="the file of the report")
    parser.add_argument("--stand-in", action="store_true", help="use a stand-in for Slurm")
    parser.add_argument("--no-mongodb", action="store_true", help="measure on SQLite only")
    parser.add_argument(
        "--only", nargs="+", choices=[part.module for part in PARTS], help="these benchmarks, and no others"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None, parts: Sequence[Part] = PARTS) -> int:
    options = parse_options(arguments)
    failed = []
    with ExitStack() as stack, options.output.open("w") as report:
        replica_set = None if options.no_mongodb else start_replica_set(stack)
        for part in parts:
            if options.only and part.module not in options.only:
                continue
            began = time.monotonic()
            status, output = run(make_command(part, replica_set, stand_in=options.stand_in))
            failed += [part.module] * (status != 0)
            text = f"## {part.title}\n\n```\n{output}```\n\nIt took {time.monotonic() - began:.0f} s.\n"
            print(text, flush=True)
            report.write(f"{text}\n")
            report.flush()
    print(f"The report is in {options.output}; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def start_replica_set(stack: ExitStack) -> str | None:
    """Start a replica set, and return its address; None if there is no mongod."""
    try:
        return stack.enter_context(Mongod(own_replica_set=True)).uri
    except RealPartMissing as missing:
        print(f"Without a replica set: {missing}")
        return None


def make_command(part: Part, replica_set: str | None, *, stand_in: bool) -> list[str]:
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *part.arguments]
    alone = os.environ.get("TEST_MONGODB_URI")
    if replica_set is not None:
        command += ["--mongodb", alone] if part.on_mongodb_alone and alone else []
        command += ["--mongodb", replica_set]
    return [*command, *["--stand-in"] * stand_in]


def run(command: list[str]) -> tuple[int, str]:
    """Run a benchmark, and return its exit status and all that it prints."""
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    return done.returncode, done.stdout


if __name__ == "__main__":
    sys.exit(main())
