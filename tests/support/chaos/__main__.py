"""Kill and cut everything at random while clients submit, then compare Slurm's own list with the records.

python -m tests.support.chaos [--store mongodb|sqlite] [--cluster given|distribution] [--submissions N]
    [--faults N] [--pace SECONDS]
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import Cluster
from tests.support.chaos.hosts import APPLICATION
from tests.support.chaos.stage import Control, ReplicaSetStage, SqliteStage, Stage
from tests.support.chaos.storm import Storm, control_of
from tests.support.real.replica_set import ReplicaSet
from tests.support.real.slurm_cluster import SlurmCluster


def main() -> int:
    options = parse_options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends with its servers stopped
    with ExitStack() as stack:
        folder = options.logs or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-proxy-chaos-"))
        )
        folder.mkdir(exist_ok=True)
        cluster, control = find_cluster(options.cluster, stack)
        stage: Stage
        if options.store == "sqlite":
            stage = SqliteStage(cluster, folder, options.application)
        else:
            replica_set = stack.enter_context(ReplicaSet())
            stage = ReplicaSetStage(cluster, folder, replica_set, options.application)
        stack.enter_context(stage)
        began = time.monotonic()
        result = Storm(stage, control).run(
            options.submissions, options.faults, options.pace, options.stall_timeout
        )
        print(f"{options.store}, {options.cluster}, {time.monotonic() - began:.0f} s: {result.summary()}")
        print("\n".join(result.faulty))
    return 1 if result.faulty else 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=["mongodb", "sqlite"], default="mongodb")
    parser.add_argument("--cluster", choices=["given", "distribution"], default="given")
    parser.add_argument("--submissions", type=int, default=3000)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--pace", type=float, default=1.0, help="seconds between two faults, on average")
    parser.add_argument(
        "--stall-timeout",
        type=float,
        default=300.0,
        help="seconds in which some progress must be made at the end",
    )
    parser.add_argument("--logs", type=Path, help="a folder in which the logs of the hosts stay afterwards")
    parser.add_argument(
        "--application",
        default=APPLICATION,
        help="what gunicorn serves; tests.support.chaos.without_adoption:create_app() loses jobs, which shows"
        " that the run notices it",
    )
    return parser.parse_args()


def find_cluster(name: str, stack: ExitStack) -> tuple[Cluster, Control | None]:
    """Return the given cluster or a new one, and what stops its daemons."""
    if name == "given":
        key = Path(os.environ["TEST_SLURM_KEY_PATH"]).read_bytes()
        return Cluster(name, os.environ["TEST_SLURM_URL"], key, "alice", "bob"), find_given_control()
    slurm = stack.enter_context(SlurmCluster())
    return Cluster(name, slurm.url, slurm.key_path.read_bytes(), "alice", "bob"), control_of(slurm)


def find_given_control() -> Control | None:
    """Return what runs TEST_SLURM_CONTROL, a command with the words {verb} (stop, start) and {daemon}."""
    command = shlex.split(os.environ.get("TEST_SLURM_CONTROL", ""))
    if not command:
        return None

    def control(verb: str, name: str) -> None:
        argv = [word.format(verb=verb, daemon=name) for word in command]
        subprocess.run(  # no pipes: a daemon that it starts would hold them
            argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60
        )

    return control


if __name__ == "__main__":
    sys.exit(main())
