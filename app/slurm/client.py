"""What slurm-proxy asks of Slurm, in our own types; slurmrestd's oddities end here.

Every method may raise SlurmUnavailable ("ask again later; nothing is known") and SlurmMisbehaved.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob, one_job
from app.models.task import Task
from app.slurm import reading
from app.slurm.answers import (
    by_id,
    is_tagged,
    is_unchanged,
    raw_jobs,
    read_jobs,
    submission_failure,
    warnings,
)
from app.slurm.connection import Connection, Query, Reply
from app.slurm.dialect import SPOKEN, Dialect
from app.slurm.submission import submission

logger = logging.getLogger(__name__)

_IDS_PER_REQUEST = 500
_SINGLE_LOOKS = 10  # up to so many changed jobs are read one by one without a thought
_MOST_SINGLE_LOOKS = 100  # in one poll; the rest waits for the next
_CLOCK_SKEW = 30  # seconds that this machine's clock may run ahead of slurmctld's
_FULL_LIST_EVERY = 300  # seconds; heals what a larger skew would hide

_NOT_FOUND = 2017
_BAD_TOKEN = 1007
_NO_ACCOUNTING_ENTRY = 9003


class SlurmClient:
    """One cluster. Thread-safe; nothing is asked before the first call."""

    def __init__(self, connection: Connection, service_user: str, time_unit: str = "hours") -> None:
        self._connection = connection
        self._service_user = service_user
        self._time_unit = time_unit
        self._dialect: Dialect | None = None
        self._discovery = threading.Lock()
        self._has_state_list = True
        self._list_since = 0
        self._listed_at = 0.0

    # --- submitting -------------------------------------------------------------------------

    def submit(self, task: Task, command: str, tag: str) -> tuple[int, list[str]]:
        """Submits once, as the task's user; the job id, and Slurm's warnings.

        SlurmRefused: no job exists. SlurmUnavailable: it was never sent. SlurmAmbiguous: it may exist.
        """
        dialect = self._speak()
        body = submission(task, command, tag, dialect, self._time_unit)
        reply = self._send("POST", f"/slurm/{dialect.api}/job/submit", user=task.username, json=body)
        job_id = reply.body.get("job_id")
        if reply.status == 200 and isinstance(job_id, int) and job_id > 0:
            return job_id, warnings(reply)
        raise submission_failure(reply)

    def find_tagged(self, tag: str, username: str, since: datetime) -> SlurmJob | None:
        """The job of `username` whose comment begins with `tag`; None only if both daemons know none.

        slurmdbd keeps comments only with AccountingStoreFlags=job_comment.
        """
        for job in [*self._listed(), *self._accounting_since(username, since)]:
            if job.username == username and is_tagged(job, tag):
                return self.job(job.array_job_id or job.job_id) or job
        return None

    # --- watching ---------------------------------------------------------------------------

    def poll(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """What differs from `known`: a job that slurmctld now describes otherwise, or None for one
        that it does not know. A job that is not in the answer is as it was."""
        if not known:
            return {}
        if self._speak().is_structured and self._has_state_list:
            states = self._states(known)
            if states is not None:
                changed = [job_id for job_id in known if states.get(job_id) is not known[job_id]]
                return _news(known, self._details(changed))
        return self._differences_in_list(known)

    def accounting(self, job_ids: Collection[int]) -> dict[int, SlurmJob]:
        """What slurmdbd knows of these jobs; {} where there is no slurmdbd.

        SlurmUnavailable while slurmdbd is down: that is no proof of anything.
        """
        found: dict[int, SlurmJob] = {}
        for chunk in _chunks(list(job_ids)):
            parts = self._accounting(self._speak().step_queries(chunk))
            found |= by_id(parts, chunk)
        return found

    def job(self, job_id: int) -> SlurmJob | None:
        """One job: from slurmctld, and from slurmdbd only what slurmctld no longer knows."""
        return self._controller_job(job_id) or self.accounting([job_id]).get(job_id)

    # --- diagnostics ------------------------------------------------------------------------

    def raw(self, method: str, path: str, *, user: str = "", query: Query = (), json: object = None) -> Reply:
        """slurmrestd's own answer to `path` below /slurm/<version>/, for operators."""
        path = f"/slurm/{self._speak().api}/{path}"
        return self._send(method, path, user=user or self._service_user, query=query, json=json)

    def raw_list(self, update_time: int) -> Reply:
        query = [("update_time", self._speak().update_time(update_time))] if update_time else []
        return self.raw("GET", "jobs", query=query)

    def close(self) -> None:
        self._connection.close()

    # --- discovery --------------------------------------------------------------------------

    def _speak(self) -> Dialect:
        """The newest form that both sides know; found out once."""
        with self._discovery:
            if self._dialect is None:
                self._dialect = self._discover()
                logger.info("slurmrestd at %s: %s", self._connection.host, self._dialect.api)
            return self._dialect

    def _discover(self) -> Dialect:
        self._has_state_list = True
        for api in SPOKEN:
            if self._get(f"/slurm/{api}/ping").status != 404:
                return Dialect(api)
        paths = self._get("/openapi/v3").body.get("paths") or {}
        offered = sorted({path.split("/")[2] for path in paths if path.startswith("/slurm/v")})
        raise SlurmMisbehaved(
            f"slurmrestd offers {', '.join(offered) or 'no version'}; "
            f"slurm-proxy speaks {SPOKEN[-1]} to {SPOKEN[0]}"
        )

    # --- requests ---------------------------------------------------------------------------

    def _get(self, path: str, query: Query = ()) -> Reply:
        return self._send("GET", path, user=self._service_user, query=query)

    def _send(self, method: str, path: str, *, user: str, query: Query = (), json: object = None) -> Reply:
        reply = self._connection.request(method, path, user=user, query=query, json=json)
        if reply.status in (401, 511) or any(number == _BAD_TOKEN for number, _ in reply.errors()):
            raise SlurmMisbehaved("Slurm does not accept this service's token: is the key the cluster's?")
        if reply.status == 404 and not reply.body and path.startswith("/slurm/"):
            self._dialect = None  # the version is gone: find out again at the next call
        return reply

    def _states(self, job_ids: Collection[int]) -> dict[int, JobState] | None:
        """The states of those jobs that slurmctld knows; None where the server has no such list."""
        states: dict[int, JobState] = {}
        for chunk in _chunks(list(job_ids)):
            reply = self._get(self._path("jobs/state"), [("job_id", job_id) for job_id in chunk])
            if reply.status == 404:
                self._has_state_list = False
                return None
            for item in raw_jobs(reply):
                # "123", or "123_4" for a task of an array, whose last task keeps the array's own id
                states[int(str(item["job_id"]).partition("_")[0])] = reading.state(item["state"])
        return states

    def _details(self, job_ids: list[int]) -> dict[int, SlurmJob | None]:
        """Reads changed jobs one by one, or all at once where that is less work for slurmctld."""
        if len(job_ids) > _SINGLE_LOOKS and self._count_jobs() <= 8 * len(job_ids):
            found = by_id(self._listed(), job_ids)
            return {job_id: found.get(job_id) for job_id in job_ids}
        return {job_id: self._controller_job(job_id) for job_id in job_ids[:_MOST_SINGLE_LOOKS]}

    def _count_jobs(self) -> int:
        return len(raw_jobs(self._get(self._path("jobs/state"))))

    def _controller_job(self, job_id: int) -> SlurmJob | None:
        reply = self._get(self._path(f"job/{job_id}"))
        missing = reply.status == 404 and bool(reply.body)
        if missing or any(number == _NOT_FOUND for number, _ in reply.errors()):
            return None
        parts = [reading.controller_job(raw) for raw in raw_jobs(reply)]
        return one_job(job_id, parts) if parts else None

    def _differences_in_list(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """For servers without a list of states: the whole list, and only where something moved.

        The mark moves on only after a list that held no news: news that could not be stored comes again.
        """
        asked_at = time.time()
        since = 0 if asked_at - self._listed_at > _FULL_LIST_EVERY else self._list_since
        reply = self._get(self._path("jobs"), self._since(since))
        if is_unchanged(reply):
            return {}
        found = by_id(read_jobs(raw_jobs(reply)), known)
        self._listed_at = asked_at if since == 0 else self._listed_at
        news = _news(known, {job_id: found.get(job_id) for job_id in known})
        if not news:
            self._list_since = int(asked_at) - _CLOCK_SKEW
        return news

    def _since(self, seconds: int) -> Query:
        return [("update_time", self._speak().update_time(seconds))] if seconds else []

    def _listed(self) -> list[SlurmJob]:
        return read_jobs(raw_jobs(self._get(self._path("jobs"))))

    def _accounting(self, query: Query) -> list[SlurmJob]:
        reply = self._get(f"/slurmdb/{self._speak().api}/jobs", query)
        if reply.status == 404 and not reply.body:
            return []
        errors = [(number, words) for number, words in reply.errors() if number != _NO_ACCOUNTING_ENTRY]
        if reply.status != 200 or errors:
            raise SlurmUnavailable(f"slurmdbd does not answer: {errors[0][1] if errors else reply.status}")
        return [reading.accounting_job(raw) for raw in reply.body.get("jobs") or []]

    def _accounting_since(self, username: str, since: datetime) -> list[SlurmJob]:
        start = self._speak().moment(int(since.timestamp()) - _CLOCK_SKEW)
        users = [("users", username)] if self._speak().is_structured else []
        return self._accounting([("start_time", start), *users])

    def _path(self, rest: str) -> str:
        return f"/slurm/{self._speak().api}/{rest}"


def _news(known: Mapping[int, JobState], found: Mapping[int, SlurmJob | None]) -> dict[int, SlurmJob | None]:
    return {job_id: job for job_id, job in found.items() if job is None or job.job_state is not known[job_id]}


def _chunks(job_ids: list[int]) -> Iterable[list[int]]:
    return (job_ids[i : i + _IDS_PER_REQUEST] for i in range(0, len(job_ids), _IDS_PER_REQUEST))
