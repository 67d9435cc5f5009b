"""A stand-in for a cluster with many jobs, in a process of its own: no job runs, and none waits for anything.

It has the routes of slurmrestd v0.0.45 that the service uses. It shows what the service itself costs, at
numbers of jobs that a small cluster cannot hold; it does not show how fast slurmctld is.
"""

import json
import multiprocessing
import pwd
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from app.demo.cluster.http_server import Reply
from app.demo.cluster.job import LocalJob
from app.demo.cluster.wire import (
    API,
    make_answer,
    make_error,
    structured_number,
    to_accounting_json,
    to_controller_json,
)
from app.job_state import JobState
from app.models.record import JOB_TAG
from benchmarks.http_server import answer_requests, encode_answer, listen, serve, split_request

USER = "alice"
FIRST_ID = 1_000_001
_ACCOUNT = (
    USER,
    "x",
    1000,
    1000,
    "",
    "/tmp",
    "/bin/sh",
)  # of struct_passwd, of which none may live at the exit
_BEGAN = time.time()
Query = dict[str, list[str]]


def uuid_of(job_id: int) -> str:
    """Return the uuid of the task whose job is there from the start."""
    return f"00000000-0000-0000-0000-{job_id:012d}"


def list_jobs(number: int) -> list[tuple[str, int]]:
    """Return uuid and id of the jobs that are there from the start."""
    return [(uuid_of(job_id), job_id) for job_id in range(FIRST_ID, FIRST_ID + number)]


@dataclass(slots=True)
class _Job:
    comment: str
    state: JobState = JobState.PENDING
    end_time: float = 0.0
    array_tasks: int = 0  # all of which wait; 0 for a job that is no array


class StandIn:
    """Enter it to have `url`; its jobs wait until they are cancelled. Every token is accepted."""

    def __init__(self, jobs: int = 0, array_tasks: int = 0) -> None:
        """Describe a cluster.

        Args:
            jobs: How many jobs there are from the start; their ids begin with FIRST_ID.
            array_tasks: How many tasks each of these jobs has, if they are arrays.
        """
        self._listener, self.url = listen()
        context = multiprocessing.get_context("spawn")
        arguments = (self._listener, jobs, array_tasks)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self._listener.close()
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join(10)


def _serve(listener: socket.socket, jobs: int, array_tasks: int) -> None:
    cluster = _Cluster(jobs, array_tasks)

    async def answer(request: bytes) -> bytes:
        try:
            return encode_answer(200, cluster.route(*split_request(request)))
        except Reply as reply:
            return encode_answer(reply.status, reply.body)

    async def handle(reader: StreamReader, writer: StreamWriter) -> None:
        await answer_requests(reader, writer, answer)

    serve(listener, handle)


class _Cluster:
    def __init__(self, jobs: int, array_tasks: int) -> None:
        self._jobs = {
            job_id: _Job(JOB_TAG + uuid, array_tasks=array_tasks) for uuid, job_id in list_jobs(jobs)
        }

    def route(self, method: str, target: str, content: bytes) -> dict[str, Any]:
        """Return the body of an answer.

        Raises:
            Reply: The answer is an error.
        """
        url = urlsplit(target)
        parts = tuple(url.path.strip("/").split("/"))
        if parts[1:2] != (API,):
            raise Reply(404, "Unable find requested URL.")
        query = parse_qs(url.query)
        match (method, parts[0], *parts[2:]):
            case ("GET", "slurm", "ping"):
                return make_answer(pings=[{"hostname": "localhost", "pinged": "UP", "responding": True}])
            case ("GET", "slurm", "diag"):
                return make_answer(statistics={"req_time": int(time.time()), "dbd_agent_queue_size": 0})
            case ("GET", "slurm", "jobs", "state"):
                return make_answer(jobs=list(self._list_states(query)))
            case ("GET", "slurm", "jobs"):
                return make_answer(jobs=self._describe(self._jobs, to_controller_json))
            case ("GET", "slurm", "job", job_id):
                return self._read_job(int(job_id))
            case ("POST", "slurm", "job", "submit"):
                return self._submit(json.loads(content))
            case ("DELETE", "slurm", "job", job_id):
                self._cancel([int(job_id)])
                return make_answer(status=[])
            case ("DELETE", "slurm", "jobs"):
                self._cancel(map(int, json.loads(content)["jobs"]))
                return make_answer(status=[])
            case ("GET", "slurmdb", "jobs"):
                ids = [int(job_id) for text in query.get("step", []) for job_id in text.split(",")]
                return make_answer(jobs=self._describe(ids, to_accounting_json))
        raise Reply(404, "Unable find requested URL.")

    def _list_states(self, query: Query) -> Iterable[dict[str, Any]]:
        wanted = query.get("job_id")
        for job_id in list(self._jobs) if wanted is None else map(int, wanted):
            if (job := self._jobs.get(job_id)) is not None:
                tasks = [f"{job_id}_{task}" for task in range(job.array_tasks)] or [str(job_id)]
                yield from ({"job_id": task, "state": [job.state]} for task in tasks)

    def _read_job(self, job_id: int) -> dict[str, Any]:
        if job_id not in self._jobs:
            raise Reply(404, make_answer(jobs=[], errors=[make_error(2017, "Invalid job id specified")]))
        return make_answer(jobs=self._describe([job_id], to_controller_json))

    def _describe(
        self, ids: Iterable[int], describe: Callable[[LocalJob], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        found = []
        for job_id in list(ids):
            if (job := self._jobs.get(job_id)) is None:
                continue
            described = describe(_to_local_job(job_id, job))
            if job.array_tasks and "array_job_id" in described:
                described["array_job_id"] = structured_number(job_id)
                described["array_task_string"] = f"0-{job.array_tasks - 1}"
            found.append(described)
        return found

    def _submit(self, body: dict[str, Any]) -> dict[str, Any]:
        job_id = FIRST_ID + len(self._jobs)
        self._jobs[job_id] = _Job(str(body["job"].get("comment", "")))
        return make_answer(job_id=job_id, step_id="batch", job_submit_user_msg="")

    def _cancel(self, ids: Iterable[int]) -> None:
        for job_id in ids:
            if (job := self._jobs.get(job_id)) is not None and not job.end_time:
                job.end_time, job.state = time.time(), JobState.CANCELLED


def _to_local_job(job_id: int, job: _Job) -> LocalJob:
    return LocalJob(
        account=pwd.struct_passwd(_ACCOUNT),
        name="benchmark",
        partition="debug",
        script="",
        environment=[],
        cwd="/tmp",
        standard_output="",
        standard_error="",
        cpus=1,
        memory_mb=10,
        time_limit=60,
        comment=job.comment,
        hold=True,
        appends=False,
        may_requeue=False,
        begin=0,
        submit_time=_BEGAN,
        job_id=job_id,
        state=job.state,
        reason="JobHeldUser",
        end_time=job.end_time,
    )
