"""The routes of slurmrestd for the local cluster, on loopback alone."""

import json
from email.message import Message
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt

from app.demo.cluster.control import (
    SERVICE_USERS,
    cancel_local_job,
    cancel_local_jobs,
    find_local_job,
    requeue_local_jobs,
    update_local_job,
)
from app.demo.cluster.http_server import HttpServer, Reply
from app.demo.cluster.queue import LocalQueue
from app.demo.cluster.resources import describe_node, describe_partitions
from app.demo.cluster.submission import Refused, make_job
from app.demo.cluster.wire import (
    API,
    count_jobs,
    make_answer,
    make_error,
    structured_number,
    to_accounting_json,
    to_controller_json,
)

_NO_SUCH_URL = "Unable find requested URL. Please view /openapi/v3 for API reference."
Query = dict[str, list[str]]


class LocalCluster:
    """Server of a queue of jobs, which begins with `start`."""

    def __init__(
        self,
        key: bytes,
        cpus: int = 2,
        *,
        mem_mb: int = 8000,
        min_job_age: float = 300.0,
        minute: float = 60.0,
        partitions: tuple[str, ...] = ("debug", "hpcz-test"),
    ) -> None:
        """Make a cluster.

        Args:
            key: The key of the tokens that the cluster accepts.
            cpus: The number of CPUs.
            mem_mb: The memory of its only node.
            min_job_age: Seconds until the controller forgets a job that has ended.
            minute: Seconds in a minute of a time limit; tests have short minutes.
            partitions: The names of the partitions, the default one first.
        """
        self.partitions = partitions
        self.mem_mb = mem_mb
        self.queue = LocalQueue(cpus, min_job_age, minute)
        self._key = key
        self._http: HttpServer | None = None

    def start(self, port: int = 0) -> str:
        """Start on 127.0.0.1, on any free port by default, and return the address."""
        self.queue.start()
        self._http = HttpServer(self._route, port)
        return self._http.url

    def stop(self) -> None:
        """End the server and the processes of all jobs. May be called twice."""
        http, self._http = self._http, None
        if http is not None:
            http.stop()
            self.queue.stop()

    def user_of(self, token: str | None, name: str | None) -> str | None:
        """Return the user that a request acts as; None for a token that is not valid.

        Raises:
            Reply: The request has no token; the status is 401.
        """
        if not token:
            raise Reply(401, "Authentication failure")
        try:
            # 22.05, 24.11 and 26.05 accept a token from the future.
            options: jwt.types.Options = {"verify_iat": False}
            owner = jwt.decode(token, self._key, algorithms=["HS256"], options=options)["sun"]
        except (jwt.InvalidTokenError, KeyError):
            return None
        return (name or owner) if name in (None, owner) or owner in SERVICE_USERS else None

    # --- routes: each returns the body of an answer with status 200, or raises Reply ---------

    def ping(self, user: str | None) -> dict[str, Any]:
        """Return the answer to `ping`, which says whether the token is valid."""
        status = "Protocol authentication error" if user is None else "UP"
        ping = {"hostname": "localhost", "pinged": "UP", "responding": user is not None, "status": status}
        return make_answer(pings=[ping])

    def jobs(self, query: Query) -> dict[str, Any]:
        """Return the list of all jobs, or none if nothing changed since `update_time`."""
        since = float(query.get("update_time", ["0"])[0])
        if since > self.queue.changed_at:
            words = f"No job changes since update_time[{int(since)}]"
            return make_answer(
                last_update=structured_number(0), warnings=[{"description": words, "source": "local cluster"}]
            )
        jobs = [to_controller_json(job) for job in self.queue.recent()]
        return make_answer(jobs=jobs, last_update=structured_number(self.queue.changed_at))

    def states(self, query: Query) -> dict[str, Any]:
        """Return the states of the jobs in the query, or of all jobs."""
        wanted = query.get("job_id")
        jobs = [job for job in self.queue.recent() if wanted is None or str(job.job_id) in wanted]
        return make_answer(jobs=[{"job_id": str(job.job_id), "state": job.states()} for job in jobs])

    def job(self, text: str) -> dict[str, Any]:
        """Return one job.

        Raises:
            Reply: There is no such job.
        """
        return make_answer(jobs=[to_controller_json(find_local_job(self.queue, text))])

    def submit(self, user: str, body: dict[str, Any]) -> dict[str, Any]:
        """Queue a job.

        Raises:
            Reply: The job is refused.
        """
        try:
            job, warnings = make_job(self, user, body)
        except Refused as refusal:
            raise Reply(422, make_answer(errors=[make_error(refusal.code, str(refusal))])) from None
        return make_answer(
            job_id=self.queue.add(job), step_id="batch", job_submit_user_msg="", warnings=warnings
        )

    def accounting(self, query: Query) -> dict[str, Any]:
        """Return the jobs that match a query, as slurmdbd does."""
        jobs = self.queue.all()
        if "step" in query:
            wanted = {item for text in query["step"] for item in text.split(",")}
            jobs = [job for job in jobs if str(job.job_id) in wanted]
        if "users" in query:
            jobs = [job for job in jobs if job.account.pw_name in query["users"][0].split(",")]
        if "start_time" in query:
            since = float(query["start_time"][0])
            jobs = [job for job in jobs if not job.end_time or job.end_time >= since]
        return make_answer(jobs=[to_accounting_json(job) for job in jobs])

    def _route(self, method: str, target: str, headers: Message, content: bytes) -> dict[str, Any]:
        body = _parse_body(content) if content else {}
        url = urlsplit(target)
        query = parse_qs(url.query)
        parts = tuple(url.path.strip("/").split("/"))
        if parts[:2] not in (("slurm", API), ("slurmdb", API)):
            raise Reply(404, _NO_SUCH_URL)
        user = self.user_of(headers.get("X-SLURM-USER-TOKEN"), headers.get("X-SLURM-USER-NAME"))
        if parts == ("slurm", API, "ping"):
            return self.ping(user)
        if user is None:
            raise Reply(511, make_answer(jobs=[], errors=[make_error(1007, "Protocol authentication error")]))
        match (method, parts[0], *parts[2:]):
            case ("GET", "slurm", "diag"):
                return make_answer(statistics=count_jobs(self.queue.all()))
            case ("GET", "slurm", "partitions"):
                return make_answer(partitions=describe_partitions(self.partitions, self.queue.cpus))
            case ("GET", "slurm", "nodes"):
                return make_answer(nodes=[describe_node(self.partitions, self.queue)])
            case ("GET", "slurm", "jobs"):
                return self.jobs(query)
            case ("GET", "slurm", "jobs", "state"):
                return self.states(query)
            case ("POST", "slurm", "job", "submit"):
                return self.submit(user, body)
            case ("GET", "slurm", "job", job_id):
                return self.job(job_id)
            case ("DELETE", "slurm", "job", job_id):
                return cancel_local_job(self.queue, user, job_id, query.get("signal", [None])[0])
            case ("DELETE", "slurm", "jobs"):
                return cancel_local_jobs(self.queue, user, body)
            case ("POST", "slurm", "job", job_id):
                return update_local_job(self.queue, user, job_id, body)
            case ("POST", "slurm", "jobs", "requeue"):
                return requeue_local_jobs(self.queue, user, body)
            case ("GET", "slurmdb", "jobs"):
                return self.accounting(query)
            case ("GET", "slurmdb", "job", job_id):
                return self.accounting({"step": [job_id]})
        raise Reply(404, _NO_SUCH_URL)


def _parse_body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        raise Reply(400, make_answer(errors=[make_error(9202, "Failure during parsing")])) from None
    return body if isinstance(body, dict) else {}
