"""Random faults while callers submit, and what is found afterwards."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from math import ceil

from tests.support.chaos.callers import Callers
from tests.support.chaos.hosts import send_signal
from tests.support.chaos.stage import LEASE, Control, ReplicaSetStage, SqliteStage, Stage
from tests.support.chaos.verdict import STALL_TIMEOUT, Evidence, find_violations, gather_evidence, settle
from tests.support.real.network import Fault
from tests.support.real.slurm_cluster import SlurmCluster


@dataclass
class Result:
    """What happened in a storm, and every violation of a promise."""

    submitted: int = 0
    abandoned: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    evidence: Evidence = field(default_factory=Evidence)
    faulty: list[str] = field(default_factory=list)

    def summary(self) -> str:
        jobs = self.evidence.jobs.values()
        messages = self.evidence.messages.values()
        return (
            f"{self.submitted} submissions, {self.faults.total()} faults {dict(self.faults)}: "
            f"{len(jobs)} uuids ran, {sum(len(ids) > 1 for ids in jobs)} twice; "
            f"{len(self.evidence.answered)} answered with a job, "
            f"{self.abandoned} of them after all had settled; "
            f"{len(messages)} announced, {sum(len(ids) > 1 for ids in messages)} more than once; "
            f"{len(self.faulty)} violations"
        )


class Storm:
    """The faults of one stage."""

    def __init__(self, stage: Stage, control: Control | None = None) -> None:
        """Describe a storm; `control` stops and starts a daemon of the cluster, where that may be done."""
        self._stage = stage
        self._faults: list[Callable[[], str | None]] = [
            self.kill_worker,
            self.freeze_worker,
            self.kill_host,
            self.cut,
            self.lose_answers,
            self.hang,
            self.kill_worker_before_accept,
            self.kill_worker_at_accept,
        ]
        if isinstance(stage, SqliteStage):
            self._faults += 2 * [_named("lose_power_at_accept", stage.lose_accept)]
        if isinstance(stage, ReplicaSetStage):
            self._faults += [
                _named("kill_primary", stage.replica_set.kill_primary),
                _named("step_down", stage.replica_set.step_down),
                *2 * [_named("lose_primary_at_accept", stage.lose_accept)],
                _named("step_down_at_accept", stage.step_down_at_accept),
            ]
        if control is not None:
            self._faults += [partial(stop_daemon, control, name) for name in ("slurmdbd", "slurmctld")]

    def run(self, submissions: int, faults: int, pace: float, stall_timeout: float = STALL_TIMEOUT) -> Result:
        """Submit tasks and cause faults at the same time; the submissions are spread over the faults.

        Args:
            submissions: The tasks that are submitted.
            faults: The faults that happen.
            pace: Seconds between two faults, on average.
            stall_timeout: Seconds in which some progress must be made, until all has settled.
        """
        began, counts = datetime.now(UTC), Counter[str]()
        callers = Callers(self._stage, 2 * stall_timeout)
        callers.start()
        while counts.total() < faults:
            callers.allowed = ceil(submissions * (counts.total() + 1) / faults)
            fault = random.choice(self._faults)
            counts[str(fault() or getattr(fault, "__name__", "?"))] += 1
            time.sleep(random.uniform(0, 2 * pace))
        self._stage.start_hosts()
        callers.finish()
        return conclude(self._stage, callers, began, counts, stall_timeout)

    # --- faults ---------------------------------------------------------------------------------

    def _random_worker(self) -> int | None:
        workers = random.choice(self._stage.hosts).workers()
        return random.choice(workers) if workers else None

    def kill_worker(self) -> None:
        if (pid := self._random_worker()) is not None:
            send_signal(pid, signal.SIGKILL)

    def freeze_worker(self) -> None:
        if (pid := self._random_worker()) is not None:
            send_signal(pid, signal.SIGSTOP)
            is_long = random.random() < 0.2  # beyond the life of a submission, and of its token
            seconds = random.uniform(18, 25) if is_long else random.uniform(1, 3 * LEASE)
            threading.Timer(seconds, send_signal, (pid, signal.SIGCONT)).start()

    def kill_host(self) -> None:
        host = random.choice(self._stage.hosts)
        host.kill()
        host.start()

    def cut(self) -> None:
        self._stage.network.cut()

    def lose_answers(self) -> None:
        self._for_a_while(Fault.SWALLOW, 0.3)

    def hang(self) -> None:
        self._for_a_while(Fault.HANG, 1.0)

    def kill_worker_before_accept(self) -> None:
        self._stage.kill_worker_before_accept()

    def kill_worker_at_accept(self) -> None:
        self._stage.kill_worker_at_accept()

    def _for_a_while(self, fault: Fault, seconds: float) -> None:
        self._stage.network.fault = fault
        time.sleep(random.uniform(0, 2 * seconds))
        self._stage.network.fault = Fault.NONE


def conclude(
    stage: Stage,
    callers: Callers,
    began: datetime,
    faults: Counter[str],
    stall_timeout: float = STALL_TIMEOUT,
) -> Result:
    """Wait until all has settled, send the abandoned tasks again, and look for violations."""
    faulty = settle(stage, callers, stall_timeout)
    callers.submit_abandoned()
    faulty += settle(stage, callers, stall_timeout)
    evidence = gather_evidence(stage, callers, began)
    faulty += [*callers.faulty, *find_violations(evidence)]
    return Result(callers.submitted, len(callers.abandoned), faults, evidence, faulty)


def stop_daemon(control: Control, name: str) -> str:
    """Stop a daemon of the cluster for some seconds, and return the name of the fault."""
    control("stop", name)
    time.sleep(random.uniform(0, 5))
    control("start", name)
    return f"stop_{name}"


def control_of(slurm: SlurmCluster) -> Control:
    """Return what stops and starts the daemons of a cluster."""
    return lambda verb, name: slurm.start_daemon(name) if verb == "start" else slurm.stop_daemon(name)


def _named(name: str, fault: Callable[[], object]) -> Callable[[], str]:
    def make() -> str:
        fault()
        return name

    return make
