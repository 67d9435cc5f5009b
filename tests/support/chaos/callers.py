"""Callers that submit one task after another; most of them retry until they get an answer."""

import math
import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from tests.support.chaos.stage import Stage
from tests.support.tasks import make_task

_CALLERS = 8


class Callers:
    """Threads that submit tasks, and the answers that they got.

    Attributes:
        answered: The job id in the answer, by uuid.
        abandoned: The uuids of tasks that were sent once and got no answer.
        faulty: Answers that no caller should get.
        submitted: How many tasks were sent.
        allowed: How many may be sent so far.
    """

    def __init__(self, stage: Stage, stall_timeout: float) -> None:
        """Describe the callers; they retry for `stall_timeout` seconds, from now on or from `finish` on."""
        self.answered: dict[str, int] = {}
        self.abandoned: set[str] = set()
        self.faulty: list[str] = []
        self.submitted = 0
        self.allowed = 0
        self._stage = stage
        self._stall_timeout = stall_timeout
        self._gives_up_at = time.monotonic() + stall_timeout
        self._tasks: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._may_end = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the callers; they submit until there are `allowed` tasks, which may grow, and `finish`."""
        self._gives_up_at = math.inf  # while there are faults, nothing has to settle
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(_CALLERS)]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Wait until all callers have an answer."""
        self._gives_up_at = time.monotonic() + self._stall_timeout
        self._may_end.set()
        for thread in self._threads:
            thread.join()

    def submit_abandoned(self) -> None:
        """Send the abandoned tasks again: each is answered with its job, old or new."""
        self._gives_up_at = time.monotonic() + self._stall_timeout
        for name in sorted(self.abandoned):
            self._guard(self._retry_until_answered, self._tasks[name])

    def list_uuids(self) -> list[str]:
        """Return the uuids of all tasks that were sent."""
        return list(self._tasks)

    def submit_until_answered(self) -> str:
        """Submit a new task until there is an answer, and return its uuid."""
        with self._lock:
            task = self._make_task()
        self._guard(self._retry_until_answered, task)
        return str(task["uuid"])

    def _run(self) -> None:
        while True:
            with self._lock:
                task = self._make_task() if self.submitted < self.allowed else None
            if task is None:
                if self._may_end.is_set():
                    return
                time.sleep(random.uniform(0, 1))
                continue
            self._guard(
                random.choice(
                    [self._retry_until_answered, self._retry_until_answered, self._race, self._try_once]
                ),
                task,
            )

    def _guard(self, call: Callable[[dict[str, Any]], None], task: dict[str, Any]) -> None:
        try:
            call(task)
        except Exception as error:
            self.faulty.append(f"{task['uuid']}: {error!r}")

    def _make_task(self) -> dict[str, Any]:
        name = f"chaos-{uuid.uuid4()}"
        task = make_task(
            self._stage.cluster.user,
            "/tmp/slurm-proxy-chaos",
            cwd="/tmp",
            cmd="true",
            params=[],
            uuid=name,
            slurm={"mem": 10, "job_name": name, "cpus_per_task": 1, "time": 1, "output": "out.txt"},
            notification=self._stage.receiver.make_request(name),
        )
        self.submitted += 1
        self._tasks[name] = task
        return task

    def _retry_until_answered(self, task: dict[str, Any]) -> None:
        """Submit a task until there is an answer, and once more.

        Raises:
            TimeoutError: There is no answer after a long time.
            RuntimeError: The task is refused.
        """
        key = {"Idempotency-Key": task["uuid"]}
        while (answer := self._post(task, key)) is None:
            if time.monotonic() > self._gives_up_at:
                raise TimeoutError(f"there was no answer within {self._stall_timeout:.0f} s")
            time.sleep(random.uniform(0.2, 1))
        again = self._post(task, key)
        if again not in (None, answer):
            self.faulty.append(f"{task['uuid']} was answered with {answer}, and again with {again}")
        self.answered[task["uuid"]] = answer

    def _race(self, task: dict[str, Any]) -> None:
        """Let two callers submit the same task at once."""
        found = []
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(self._retry_until_answered, task) for _ in range(2)]:
                future.result()
                found.append(self.answered.get(task["uuid"]))
        if len(set(found)) != 1:
            self.faulty.append(f"{task['uuid']} was answered with {found} to two at once")

    def _try_once(self, task: dict[str, Any]) -> None:
        answer = self._post(task, {})
        if answer is None:
            self.abandoned.add(task["uuid"])
        else:
            self.answered[task["uuid"]] = answer

    def _post(self, task: dict[str, Any], headers: dict[str, str]) -> int | None:
        """Return the job id, or None if another try may help.

        Raises:
            RuntimeError: The answer is another one.
        """
        url = f"http://127.0.0.1:{random.choice(self._stage.hosts).port}/submit"
        try:
            response = requests.post(url, json={"task": task}, headers=headers, timeout=30)
        except requests.RequestException:
            return None
        if response.status_code == 200:
            return int(response.json()["slurm_job_id"])
        if response.status_code <= 500:
            raise RuntimeError(f"{response.status_code} {response.text}")
        return None
