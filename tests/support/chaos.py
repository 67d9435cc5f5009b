"""Kill and cut everything at random while clients submit, then compare Slurm's own list with the records.

python -m tests.support.chaos [--store mongodb|sqlite] [--cluster given|distribution] [--submissions N]
    [--faults N]
"""

import argparse
import base64
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

import requests

from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.record import NotificationStatus, utc_now
from app.slurm.accounting import AccountingState
from app.slurm.answers import read_jobs, require_jobs
from app.slurm.reading import identify_controller_job
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from tests.conftest import Cluster, until
from tests.support.real.mongod import Mongod
from tests.support.real.network import Fault, Network
from tests.support.real.processes import answers, free_port
from tests.support.real.slurm_cluster import SlurmCluster
from tests.support.tasks import make_task

ROOT = Path(__file__).parents[2]
LEASE = 3.0  # seconds
PATIENCE = 300.0  # seconds in which something must move, until all has settled


Control = Callable[[Literal["stop", "start"], str], object]


class Host:
    """One gunicorn with two workers, as on a machine of its own."""

    def __init__(self, settings: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.settings = settings
        self._log = log
        self._master: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Again and again where its store is away: as supervisord does."""
        while not answers(self.port):
            if self._master is None or self._master.poll() is not None:
                with self._log.open("ab") as log:
                    argv = [sys.executable, "-m", "gunicorn", "-c", "docker/gunicorn.conf.py"]
                    bound = {"PATH": os.environ["PATH"], "GUNICORN_BIND": f"127.0.0.1:{self.port}"}
                    self._master = subprocess.Popen(
                        [*argv, "app:create_app()"],
                        cwd=ROOT,
                        env={**bound, **self.settings},
                        stdout=log,
                        stderr=log,
                    )
            time.sleep(0.2)

    def workers(self) -> list[int]:
        assert self._master is not None
        path = Path(f"/proc/{self._master.pid}/task/{self._master.pid}/children")
        return [int(pid) for pid in path.read_text().split()] if path.exists() else []

    def kill(self) -> None:
        """All of it, as a machine that loses its power."""
        assert self._master is not None
        for pid in [self._master.pid, *self.workers()]:
            _signal(pid, signal.SIGKILL)
        self._master.wait(10)

    def stop(self) -> None:
        assert self._master is not None
        self._master.terminate()
        self._master.wait(60)


@dataclass
class Result:
    submitted: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    answered: dict[str, int] = field(default_factory=dict)  # uuid to job id, of answers with 200
    abandoned: set[str] = field(default_factory=set)  # sent once, without an answer
    jobs: dict[str, set[int]] = field(default_factory=dict)  # uuid to job ids, by Slurm's own list
    faulty: list[str] = field(default_factory=list)

    def summary(self) -> str:
        ran_twice = sum(len(ids) > 1 for ids in self.jobs.values())
        return (
            f"{self.submitted} submissions, {self.faults.total()} faults {dict(self.faults)}: "
            f"{len(self.jobs)} uuids ran, {ran_twice} twice; {len(self.answered)} answered with a job, "
            f"{len(self.abandoned)} sent once without an answer; {len(self.faulty)} violations"
        )


class Chaos:
    def __init__(
        self,
        cluster: Cluster,
        store: TaskStore,
        settings: dict[str, str],
        folder: Path,
        control: Control | None = None,
    ) -> None:
        """`control`: stops and starts a daemon of the cluster, where that may be done."""
        self.cluster = cluster
        self.store = store
        self.network = Network(cluster.url)
        base = {
            "SLURM_REST_HOST": self.network.url,
            "SLURM_JWT_HS256_KEY_BASE64": base64.b64encode(cluster.key).decode(),
            "SLURM_REST_CONNECT_TIMEOUT_SECONDS": "1",
            "SLURM_REST_READ_TIMEOUT_SECONDS": "3",
            "SLURM_CLOCK_SKEW_SECONDS": "5",
            "MONITOR_POLLING_SECONDS": "0.5",
            "MONITOR_LEASE_SECONDS": str(LEASE),
            "NOTIFICATIONS_CLAIM_SECONDS": "10",
        }
        self.hosts = [Host({**base, **settings}, folder / f"host{number}.log") for number in (1, 2)]
        self.result = Result()
        self.faults: list[Callable[[], str | None]] = [
            self.kill_worker,
            self.kill_worker,
            self.freeze_worker,
            self.kill_host,
            self.cut,
            self.lose_answers,
            self.hang,
        ]
        if control is not None:
            self.faults += [partial(self.stop_daemon, control, name) for name in ("slurmdbd", "slurmctld")]
        self._lock = threading.Lock()
        self._over = threading.Event()

    def run(self, submissions: int, faults: int, pace: float) -> Result:
        """At least so many of both; `pace`: seconds between two faults, on average."""
        began = datetime.now(UTC)
        with self.network:
            for host in self.hosts:
                host.start()
            clients = [threading.Thread(target=self._client, args=(submissions,)) for _ in range(8)]
            for client in clients:
                client.start()
            while self.result.faults.total() < faults:
                fault = random.choice(self.faults)
                self.result.faults[str(fault() or getattr(fault, "__name__", "?"))] += 1
                time.sleep(random.uniform(0, 2 * pace))
            self._over.set()
            for host in self.hosts:
                host.start()
            for client in clients:
                client.join()
            self._settle()
            self._compare(began)
            for host in self.hosts:
                host.stop()
        return self.result

    # --- faults ---------------------------------------------------------------------------------

    def _random_worker(self) -> int | None:
        workers = random.choice(self.hosts).workers()
        return random.choice(workers) if workers else None

    def kill_worker(self) -> None:
        if (pid := self._random_worker()) is not None:
            _signal(pid, signal.SIGKILL)

    def freeze_worker(self) -> None:
        if (pid := self._random_worker()) is not None:
            _signal(pid, signal.SIGSTOP)
            is_long = random.random() < 0.2  # beyond the life of a submission, and of its token
            seconds = random.uniform(18, 25) if is_long else random.uniform(1, 3 * LEASE)
            threading.Timer(seconds, _signal, (pid, signal.SIGCONT)).start()

    def kill_host(self) -> None:
        host = random.choice(self.hosts)
        host.kill()
        host.start()

    def cut(self) -> None:
        self.network.cut()

    def lose_answers(self) -> None:
        self._for_a_while(Fault.SWALLOW, 0.3)

    def hang(self) -> None:
        self._for_a_while(Fault.HANG, 1.0)

    def stop_daemon(self, control: Control, name: str) -> str:
        control("stop", name)
        time.sleep(random.uniform(0, 5))
        control("start", name)
        return f"stop_{name}"

    def _for_a_while(self, fault: Fault, seconds: float) -> None:
        self.network.fault = fault
        time.sleep(random.uniform(0, 2 * seconds))
        self.network.fault = Fault.NONE

    # --- clients --------------------------------------------------------------------------------

    def _client(self, submissions: int) -> None:
        while True:
            with self._lock:
                if self.result.submitted >= submissions and self._over.is_set():
                    return
                self.result.submitted += 1
                is_enough = self.result.submitted > submissions
            if is_enough:  # while there are still faults to come; Slurm has to run all of them in the end
                time.sleep(random.uniform(0, 2))
            name = f"chaos-{uuid.uuid4()}"
            task = make_task(
                self.cluster.user,
                "/tmp/slurm-proxy-chaos",
                cwd="/tmp",
                cmd="true",
                params=[],
                uuid=name,
                slurm={"mem": 10, "job_name": name, "cpus_per_task": 1, "time": 1, "output": "out.txt"},
                notification={"methods": ["test"]},
            )
            try:
                random.choice([self._insist, self._insist, self._race, self._try_once])(task)
            except Exception as error:
                self.result.faulty.append(f"{name}: a client failed: {error!r}")

    def _insist(self, task: dict[str, Any]) -> None:
        while (answer := self._post(task, {"Idempotency-Key": task["uuid"]})) is None:
            time.sleep(random.uniform(0.2, 1))
        again = self._post(task, {"Idempotency-Key": task["uuid"]})
        if again not in (None, answer):
            self.result.faulty.append(f"{task['uuid']} was answered with {answer}, and again with {again}")
        self.result.answered[task["uuid"]] = answer

    def _race(self, task: dict[str, Any]) -> None:
        """Two clients insist on the same task at once."""
        answers = []
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(self._insist, task) for _ in range(2)]:
                future.result()
                answers.append(self.result.answered[task["uuid"]])
        if len(set(answers)) != 1:
            self.result.faulty.append(f"{task['uuid']} was answered with {answers} to two at once")

    def _try_once(self, task: dict[str, Any]) -> None:
        answer = self._post(task, {})
        if answer is None:
            self.result.abandoned.add(task["uuid"])
        else:
            self.result.answered[task["uuid"]] = answer

    def _post(self, task: dict[str, Any], headers: dict[str, str]) -> int | None:
        """The job id, or None where it is worth another try; a 400 is a violation."""
        url = f"http://127.0.0.1:{random.choice(self.hosts).port}/submit"
        try:
            response = requests.post(url, json={"task": task}, headers=headers, timeout=30)
        except requests.RequestException:
            return None
        if response.status_code == 200:
            return int(response.json()["slurm_job_id"])
        if response.status_code < 500 or response.status_code == 500:
            self.result.faulty.append(f"{task['uuid']}: {response.status_code} {response.text}")
        return None

    # --- the reckoning --------------------------------------------------------------------------

    def _settle(self) -> None:
        """Waits until nothing is reserved, nothing is open, and every message is out."""
        future = utc_now() + timedelta(days=1)
        _until_none(lambda: self.store.list_reservations(future), "reservations")
        _until_none(self.store.list_open_jobs, "open jobs")
        ids = list(self.result.answered)
        _until_none(lambda: self._unsent(ids), "messages that are not out")

    def _unsent(self, uuids: list[str]) -> list[str]:
        return [
            record.uuid
            for record in self.store.find_by_uuids(uuids).values()
            if [item.status for item in record.notifications] != [NotificationStatus.SENT]
        ]

    def _compare(self, began: datetime) -> None:
        known = {*self.result.answered, *self.result.abandoned}
        for job in self._jobs_of_slurm(began):
            if job.name in known:
                self.result.jobs.setdefault(job.name, set()).add(job.job_id)
        records = self.store.find_by_uuids(list(known))
        say = self.result.faulty.append
        for name, ids in self.result.jobs.items():
            record = records.get(name)
            if len(ids) > 1:
                say(f"{name} ran more than once: {ids}")
            elif record is None or record.slurm_job_id not in ids:
                say(f"{name} is job {ids}, but its record says {record and record.slurm_job_id}")
        for name, job_id in self.result.answered.items():
            if self.result.jobs.get(name) != {job_id}:
                say(f"{name} was answered with job {job_id}, but Slurm has {self.result.jobs.get(name)}")
        for record in records.values():
            if record.slurm_job_id is not None and record.slurm_job_state is not JobState.COMPLETED:
                say(f"{record.uuid}: job {record.slurm_job_id} is recorded as {record.slurm_job_state}")
        for name in self._unsent([record.uuid for record in records.values() if record.slurm_job_id]):
            say(f"{name}: its end was not announced once")

    def _jobs_of_slurm(self, began: datetime) -> list[SlurmJob]:
        """Return all jobs of the user by Slurm's own lists, read otherwise than the service does."""
        client = self.cluster.client()
        listed = read_jobs(require_jobs(client.send_raw_list(0)), identify_controller_job)
        accounted, accounting = client._accounting.read_jobs_of_users([self.cluster.user], began, None)
        client.close()
        assert accounting in (AccountingState.CURRENT, AccountingState.NONE), accounting
        return [*(job for job in listed if job.username == self.cluster.user), *accounted]


def _until_none(left: Callable[[], Sized], what: str) -> None:
    """Waits as long as there are fewer and fewer."""
    while count := len(left()):
        until(lambda: len(left()) < count, PATIENCE, f"fewer than {count} {what}")


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def on_sqlite(cluster: Cluster, folder: Path, control: Control | None = None) -> Chaos:
    path = folder / "chaos.sqlite3"
    return Chaos(cluster, SqliteStore(path), {"SQLITE_PATH": str(path)}, folder, control)


def on_mongodb(
    cluster: Cluster, folder: Path, mongod: Mongod, *, may_kill: bool, control: Control | None = None
) -> Chaos:
    """`may_kill`: this mongod is ours alone, and a replica set."""
    database = uuid.uuid4().hex
    settings = {
        "MONGODB_URI": mongod.uri,
        "MONGODB_MONITOR_DB": database,
        "MONGODB_TIMEOUT_SECONDS": "2",
    }
    store = MongoStore(connect(mongod.uri, 30), database, "jobs")
    chaos = Chaos(cluster, store, settings, folder, control)

    def kill_mongodb() -> None:
        mongod.kill()
        time.sleep(random.uniform(0, 1))
        mongod.start()

    if may_kill:
        chaos.faults += [kill_mongodb, mongod.step_down]
    return chaos


def control_of(slurm: SlurmCluster) -> Control:
    return lambda verb, name: slurm.start_daemon(name) if verb == "start" else slurm.stop_daemon(name)


def _given_control() -> Control | None:
    """TEST_SLURM_CONTROL is a command with the words {verb} (stop or start) and {daemon} in it."""
    command = shlex.split(os.environ.get("TEST_SLURM_CONTROL", ""))
    if not command:
        return None

    def control(verb: str, name: str) -> None:
        argv = [word.format(verb=verb, daemon=name) for word in command]
        subprocess.run(  # no pipes: a daemon that it starts would hold them
            argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=60
        )

    return control


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=["mongodb", "sqlite"], default="mongodb")
    parser.add_argument("--cluster", choices=["given", "distribution"], default="given")
    parser.add_argument("--submissions", type=int, default=3000)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--pace", type=float, default=1.0, help="seconds between two faults, on average")
    parser.add_argument("--logs", type=Path, help="a folder in which the logs of the hosts stay afterwards")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = options.logs or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-proxy-chaos-"))
        )
        folder.mkdir(exist_ok=True)
        if options.cluster == "given":
            key = Path(os.environ["TEST_SLURM_KEY_PATH"]).read_bytes()
            cluster = Cluster("given", os.environ["TEST_SLURM_URL"], key, "alice", "bob")
            control = _given_control()
        else:
            slurm = stack.enter_context(SlurmCluster())
            cluster = Cluster("distribution", slurm.url, slurm.key_path.read_bytes(), "alice", "bob")
            control = control_of(slurm)
        if options.store == "sqlite":
            chaos = on_sqlite(cluster, folder, control)
        else:
            mongod = stack.enter_context(Mongod(own_replica_set=True))
            chaos = on_mongodb(cluster, folder, mongod, may_kill=True, control=control)
        began = time.monotonic()
        result = chaos.run(options.submissions, options.faults, options.pace)
        print(f"{options.store}, {options.cluster}, {time.monotonic() - began:.0f} s: {result.summary()}")
        print("\n".join(result.faulty))
        chaos.store.close()
    return 1 if result.faulty else 0


if __name__ == "__main__":
    sys.exit(main())
