"""Record the answers of a real slurmrestd for the tests in tests/unit/slurm/test_recorded_answers.py.

    python -m tests.support.record_slurm_answers URL KEY_FILE RELEASE --api v0.0.42 [--user alice]

URL is the address of slurmrestd, KEY_FILE the file that `jwt_key` in slurm.conf names, and RELEASE a name for
the folder, such as 24.11. The cluster needs a free CPU, a slurmdbd, and a user who may submit jobs.
Recording takes about three minutes, in which jobs of that user run, fail, are cancelled, and exceed their
time limit.

Names of nodes and of the cluster are replaced; tokens are not part of an answer. Nothing else is changed.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests

from app.models.task import Task
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.request import Query
from app.slurm.submission import build_submission
from app.slurm.tokens import TokenMint
from tests.support.tasks import make_task

FOLDER = Path(__file__).parents[1] / "unit" / "slurm" / "recorded_answers"
SECONDS = 400  # for a job to get into a state; a time limit of one minute is noticed after 60 to 80 s
COMMANDS = {"completed": "true", "failed": "exit 3", "killed": "kill -9 $$", "cancelled": "sleep 600"}
ARRAY_STATES = ["COMPLETED", "FAILED", "PENDING", "RUNNING"]
ARRAY = "case $SLURM_ARRAY_TASK_ID in 1) exit 7;; 2) sleep 15;; esac"
_ENDED = {"CANCELLED", "COMPLETED", "FAILED", "TIMEOUT"}


@dataclass(frozen=True)
class Answer:
    """The status of an answer and its JSON value, or its text if it is no JSON."""

    status: int
    value: Any


class Recorder:
    """Asks slurmrestd, and writes each answer that has a name into a file."""

    def __init__(self, url: str, key: bytes, api: str, user: str, folder: Path) -> None:
        self._url, self._key, self._user, self._folder = url, key, user, folder
        self.api = api
        self._dialect = Dialect(api)
        self._aliases: dict[str, str] = {}
        self._submitted: list[int] = []

    def ask(
        self,
        name: str,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: object = None,
        key: bytes | None = None,
    ) -> Answer:
        """Make a request, and return the answer; record the answer if it has a name."""
        route = f"{path}?{urlencode(query)}" if query else path
        headers = TokenMint(key or self._key, 300).make_headers(self._user)
        response = requests.request(method, self._url + route, headers=headers, json=body, timeout=60)
        try:
            value = response.json()
        except ValueError:
            value = response.text
        if name:
            recorded = {"method": method, "path": route, "status": response.status_code, "answer": value}
            text = json.dumps(_without_client(recorded), indent=1, ensure_ascii=False)
            for real, alias in self._aliases.items():
                text = re.sub(rf"\b{re.escape(real)}\b", alias, text)
            (self._folder / f"{name}.json").write_text(text + "\n")
        return Answer(response.status_code, value)

    def get(self, name: str, path: str, query: Query = ()) -> Answer:
        """Ask slurmctld."""
        return self.ask(name, "GET", f"/slurm/{self.api}/{path}", query=query)

    def accounting(self, name: str, job_ids: list[int]) -> list[dict[str, Any]]:
        """Ask slurmdbd for jobs."""
        query = self._dialect.jobs_query(job_ids)
        answer = self.ask(name, "GET", f"/slurmdb/{self.api}/jobs", query=query)
        return list(answer.value["jobs"])

    def replace_names(self) -> None:
        """Learn the names of the nodes and of the cluster, which are not to be recorded."""
        for number, node in enumerate(self.get("", "nodes").value["nodes"], 1):
            self._aliases |= dict.fromkeys((node["name"], node["hostname"]), f"node{number}")

    def alias_cluster(self, job_id: int) -> None:
        """Learn the name of the cluster from a job."""
        (job,) = self.get("", f"job/{job_id}").value["jobs"]
        if job.get("cluster"):
            self._aliases[job["cluster"]] = "cluster1"

    def submit(self, name: str, command: str, **options: Any) -> int:
        """Submit a job; 0 if Slurm refused it."""
        answer = self._post(name, self._body(command, **options))
        job_id = int(answer.value.get("job_id") or 0)
        self._submitted += [job_id] if job_id else []
        return job_id

    def submit_heterogeneous(self) -> int:
        """Submit a held job of two parts."""
        body = self._body("true", hold=True)
        job = body.pop("job")
        return int(self._post("", {**body, "jobs": [job, job]}).value["job_id"])

    def cancel(self, name: str, job_id: int) -> None:
        """Cancel a job."""
        self.ask(name, "DELETE", f"/slurm/{self.api}/job/{job_id}")

    def update(self, name: str, job_id: int, *, hold: bool) -> None:
        """Hold or release a job."""
        self.ask(name, "POST", f"/slurm/{self.api}/job/{job_id}", body={"hold": hold})

    def requeue(self, name: str, job_id: int) -> None:
        """Requeue a job."""
        self.ask(name, "POST", f"/slurm/{self.api}/jobs/requeue", body={"jobs": [str(job_id)]})

    def cancel_all(self) -> None:
        """Cancel all jobs that were submitted."""
        for job_id in self._submitted:
            self.cancel("", job_id)

    def states(self, job_id: int) -> list[str]:
        """Return the state of a job, or of each task of an array."""
        jobs = self.get("", f"job/{job_id}").value["jobs"]
        return [state if isinstance(state := job["job_state"], str) else "+".join(state) for job in jobs]

    def _body(self, command: str, **options: Any) -> dict[str, Any]:
        task = make_task(
            self._user, folder="/tmp/recorded", cwd="/tmp", slurm={"time": 1, "mem": 10, **options}
        )
        return build_submission(
            Task.model_validate(task), command, "slurm-proxy:recorded", self._dialect, "minutes"
        )

    def _post(self, name: str, body: dict[str, Any]) -> Answer:
        return self.ask(name, "POST", f"/slurm/{self.api}/job/submit", body=body)


def _without_client(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return what was recorded without the address and the Unix user of slurmrestd's client."""
    answer = recorded["answer"]
    if not isinstance(answer, dict) or not isinstance(answer.get("meta"), dict):
        return recorded
    meta = {key: value for key, value in answer["meta"].items() if key != "client"}
    return {**recorded, "answer": {**answer, "meta": meta}}


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: It took too long.
    """
    ends = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError(what)
        time.sleep(0.3)


def record(recorder: Recorder) -> None:
    """Record all answers of one version of the API."""
    recorder.replace_names()
    held = recorder.submit("", "true", hold=True)
    recorder.alias_cluster(held)
    recorder.get("job_pending", f"job/{held}")
    unknown = held + 50_000
    record_without_jobs(recorder, unknown)
    record_control(recorder)
    array_held = recorder.submit("", "true", array="0-4", hold=True)
    recorder.get("array_pending", f"job/{array_held}")
    array = record_array(recorder)
    jobs = record_ends(recorder)
    if Dialect(recorder.api).is_structured:  # before slurmctld forgets the jobs that ended
        listed = [held, *jobs.values(), array_held, unknown]
        recorder.get("states", "jobs/state", [("job_id", job_id) for job_id in listed])
    long = recorder.submit("", "sleep 600")
    wait_until(lambda: recorder.states(long) == ["RUNNING"], "a running job")
    recorder.get("job_running", f"job/{long}")
    wait_until(lambda: set(recorder.states(long)) <= _ENDED, "the time limit")
    recorder.get("job_timed_out", f"job/{long}")
    ended = {**jobs, "timed_out": long, "array_ended": array}
    wait_until(
        lambda: _are_ended(recorder.accounting("", list(ended.values())), len(ended) + 3),
        "the ends of all jobs in slurmdbd",
    )
    for name, job_id in ended.items():
        recorder.accounting(f"accounting_{name}", [job_id])
    recorder.accounting("accounting_unknown", [unknown])


def record_without_jobs(recorder: Recorder, unknown: int) -> None:
    """Record what needs no job that runs; there is no job with the id `unknown`."""
    api = recorder.api
    recorder.submit("submission_accepted", "true", hold=True)
    recorder.submit("submission_refused", "true", partition="no-such-partition")
    recorder.get("job_unknown", f"job/{unknown}")
    recorder.cancel("cancel_unknown", unknown)
    recorder.ask("ping", "GET", f"/slurm/{api}/ping")
    recorder.get("diag", "diag")
    recorder.get("partitions", "partitions")
    recorder.get("nodes", "nodes")
    recorder.ask("diag_with_wrong_key", "GET", f"/slurm/{api}/diag", key=b"wrong" * 8)
    recorder.ask("version_unknown", "GET", "/slurm/v0.0.1/ping")
    later = Dialect(api).update_time(int(time.time()) + 3600)
    recorder.get("jobs_unchanged", "jobs", [("update_time", later)])
    heterogeneous = recorder.submit_heterogeneous()
    recorder.get("heterogeneous_pending", f"job/{heterogeneous}")
    recorder.cancel("", heterogeneous)


def record_control(recorder: Recorder) -> None:
    """Record what changes jobs, beside cancelling one."""
    held, array = recorder.submit("", "true", hold=True), recorder.submit("", "true", array="0-4", hold=True)
    ended, running = recorder.submit("", "true"), recorder.submit("", "sleep 600")
    unknown = held + 50_000
    wait_until(lambda: recorder.states(ended) == ["COMPLETED"], "a job that has ended")
    wait_until(lambda: recorder.states(running) == ["RUNNING"], "a job that runs")
    recorder.update("hold_accepted", held, hold=True)
    recorder.update("hold_array", array, hold=True)
    recorder.update("hold_ended", ended, hold=True)
    recorder.update("hold_unknown", unknown, hold=True)
    dialect = Dialect(recorder.api)
    if dialect.has_requeue:
        recorder.requeue("requeue_pending", held)
        recorder.requeue("requeue_unknown", unknown)
        recorder.requeue("requeue_accepted", running)
    recorder.update("release_accepted", held, hold=False)
    if dialect.has_bulk_cancellation:
        jobs = [str(job_id) for job_id in (array, ended, unknown)]
        recorder.ask("cancel_many", "DELETE", f"/slurm/{recorder.api}/jobs/", body={"jobs": jobs})
    for job_id in (held, array, running):
        recorder.cancel("", job_id)


def record_array(recorder: Recorder) -> int:
    """Record an array with a task in each state, and its end; return its id."""
    array = recorder.submit("", ARRAY, array="0-3%1")
    wait_until(lambda: sorted(recorder.states(array)) == ARRAY_STATES, "a task of the array that runs")
    recorder.get("array_partly_run", f"job/{array}")
    wait_until(lambda: _has_running(recorder.accounting("", [array])), "the task in slurmdbd")
    recorder.accounting("accounting_array_partly_run", [array])
    wait_until(lambda: set(recorder.states(array)) <= _ENDED, "the end of the array")
    recorder.get("array_ended", f"job/{array}")
    return array


def record_ends(recorder: Recorder) -> dict[str, int]:
    """Record jobs that end in several ways; return their ids."""
    jobs = {name: recorder.submit("", command) for name, command in COMMANDS.items()}
    wait_until(lambda: recorder.states(jobs["cancelled"]) == ["RUNNING"], "the job to cancel")
    time.sleep(2)  # until its script has come to the command
    recorder.cancel("cancel_accepted", jobs["cancelled"])
    for name, job_id in jobs.items():
        wait_until(lambda ended=job_id: set(recorder.states(ended)) <= _ENDED, name)  # type: ignore[misc]
        recorder.get(f"job_{name}", f"job/{job_id}")
    recorder.cancel("cancel_ended", jobs["completed"])
    return jobs


def _are_ended(jobs: list[dict[str, Any]], count: int) -> bool:
    return len(jobs) >= count and all(job["time"]["end"] for job in jobs)


def _has_running(jobs: list[dict[str, Any]]) -> bool:
    return any("RUNNING" in job["state"]["current"] for job in jobs)


def main() -> None:
    """Record the answers that the arguments ask for."""
    parser = argparse.ArgumentParser(description="Record the answers of a real slurmrestd.")
    parser.add_argument("url")
    parser.add_argument("key_file", type=Path)
    parser.add_argument("release")
    parser.add_argument("--api", choices=SUPPORTED_API_VERSIONS, required=True)
    parser.add_argument("--user", default="alice")
    arguments = parser.parse_args()
    folder = FOLDER / arguments.release / arguments.api
    folder.mkdir(parents=True, exist_ok=True)
    key = arguments.key_file.read_bytes()
    recorder = Recorder(arguments.url, key, arguments.api, arguments.user, folder)
    try:
        record(recorder)
    finally:
        recorder.cancel_all()


if __name__ == "__main__":
    main()
