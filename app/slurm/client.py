"""What slurm-proxy asks of Slurm, in our own types; slurmrestd's oddities end here.

Every method may raise SlurmUnavailable ("ask again later; nothing is known") and SlurmMisbehaved.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.errors import SlurmAmbiguous, SlurmMisbehaved, SlurmRefused, SlurmUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob
from app.models.task import Task
from app.slurm import reading
from app.slurm.accounting import Accounting, Accounts, chunks
from app.slurm.answers import is_unchanged, raw_jobs, said_of, states_of, submission_failure, warnings
from app.slurm.connection import Query, Reply
from app.slurm.dialect import Dialect
from app.slurm.session import Session
from app.slurm.submission import submission

logger = logging.getLogger(__name__)

_SINGLE_LOOKS = 10  # up to so many changed jobs are read one by one without a thought
_MOST_SINGLE_LOOKS = 25  # more are read at once, however many others are in the list
_FULL_LIST_EVERY = 300  # seconds; heals what a larger skew would hide

_NOT_FOUND = 2017
_ENDED = 2021


@dataclass(frozen=True, slots=True)
class Search:
    """What Slurm knows of some users' jobs."""

    controller: list[SlurmJob]
    accounted: list[SlurmJob]
    accounting: Accounting

    def jobs(self) -> list[SlurmJob]:
        return [*self.controller, *self.accounted]


class SlurmClient:
    """One cluster. Thread-safe; nothing is asked before the first call.

    `clock_skew`: seconds that this machine's clock may run ahead of Slurm's.
    """

    def __init__(self, session: Session, time_unit: str = "hours", clock_skew: float = 60) -> None:
        self._session = session
        self._accounts = Accounts(session, clock_skew)
        self._time_unit = time_unit
        self._clock_skew = clock_skew
        self._without_state_list: Dialect | None = None
        self._list_since = 0
        self._listed_at = 0.0

    @property
    def longest_call(self) -> float:
        """Seconds that one call may take at most: the time-outs of the settings."""
        return self._session.longest_call

    def check(self) -> None:
        """SlurmUnavailable at once while Slurm is known to be down; asks nothing."""
        self._session.check()

    def prepare(self) -> None:
        """Finds out which version slurmrestd speaks, unless that is known; probes while Slurm is down."""
        self._session.check()
        self._session.speak()

    # --- submitting -------------------------------------------------------------------------

    def submit(self, task: Task, command: str, tag: str, expires: datetime) -> tuple[int, list[str]]:
        """Submits once, as the task's user; the job id, and Slurm's warnings.

        However late the request reaches Slurm, from `expires` on it is not taken.
        SlurmRefused: no job exists. SlurmUnavailable: it was never sent. SlurmAmbiguous: it may exist.
        """
        body = submission(task, command, tag, self._session.speak(), self._time_unit)
        reply = self._session.send("POST", "job/submit", user=task.username, json=body, expires=expires)
        job_id = reply.body.get("job_id")
        if reply.status == 200 and isinstance(job_id, int) and job_id > 0:
            return job_id, warnings(reply)
        raise submission_failure(reply)

    def search(self, usernames: Collection[str], since: datetime, timeout: float | None = None) -> Search:
        """The jobs of these users: those in slurmctld, and those of slurmdbd since then.

        `timeout`: seconds for each request, instead of the configured time.
        SlurmUnavailable if slurmctld does not answer.
        """
        listed = raw_jobs(self._session.get("jobs", timeout=timeout))
        found = [job for job in map(reading.whose_controller_job, listed) if job.username in usernames]
        try:
            return Search(found, *self._accounts.of_users(usernames, since, timeout))
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning("only slurmctld was searched: %s", error)
            return Search(found, [], Accounting.AWAY)

    def cancel(self, job_id: int, username: str) -> bool:
        """As that user; False if the job has ended already. SlurmRefused with Slurm's own words.
        SlurmUnavailable: try again.

        v0.0.40 and v0.0.41 do not tell whether they did it, nor that a job has ended: look before.
        """
        try:
            reply = self._session.send("DELETE", f"job/{job_id}", user=username)
        except SlurmAmbiguous as error:  # to cancel twice does no harm
            raise SlurmUnavailable(f"it cannot be told whether job {job_id} is cancelled: {error}") from error
        statuses = [item.get("error") or {} for item in reply.body.get("status") or []]
        faults = [*reply.errors(), *((item.get("code") or 0, str(item.get("string"))) for item in statuses)]
        if any(number in (_NOT_FOUND, _ENDED) for number, _ in faults):
            return False
        is_silent = reply.status >= 500 or reply.status == 403  # 26.05 says 403 while slurmctld is down
        if is_silent and not reply.refusals():
            raise SlurmUnavailable(f"job {job_id} is not cancelled: slurmctld does not answer")
        if reply.status != 200 or faults:
            words = "; ".join(words for _, words in faults) or f"slurmrestd answered {reply.status}"
            raise SlurmRefused(f"Slurm does not cancel job {job_id}: {words}")
        return True

    # --- watching ---------------------------------------------------------------------------

    def poll(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """What differs from `known`: a job that slurmctld now describes otherwise, or None for one
        that it does not know. A job that is not in the answer is as it was, or cannot be read."""
        if not known:
            return {}
        dialect = self._session.speak()
        if dialect.is_structured and dialect != self._without_state_list:
            states = self._states(known)
            if states is not None:
                changed = [job_id for job_id in known if states.get(job_id) is not known[job_id]]
                return _news(known, self.look(changed))
        return self._differences_in_list(known)

    def look(self, job_ids: Sequence[int]) -> dict[int, SlurmJob | None]:
        """What slurmctld says of these jobs, one by one or all at once; without one that cannot be read."""
        is_many = len(job_ids) > _MOST_SINGLE_LOOKS
        if is_many or (len(job_ids) > _SINGLE_LOOKS and self._count_jobs() <= 8 * len(job_ids)):
            return said_of(job_ids, raw_jobs(self._session.get("jobs")))
        looked: dict[int, SlurmJob | None] = {}
        for job_id in job_ids:
            looked |= said_of([job_id], self._raw_job(job_id))
        return looked

    def accounting(
        self, job_ids: Collection[int], timeout: float | None = None
    ) -> dict[int, SlurmJob] | None:
        """What slurmdbd knows of these jobs; None where there is no slurmdbd.

        SlurmUnavailable while slurmdbd is down: that is no proof of anything.
        """
        return self._accounts.jobs(job_ids, timeout)

    def job(self, job_id: int) -> SlurmJob | None:
        """One job: from slurmctld, and from slurmdbd only what slurmctld no longer knows."""
        began = time.monotonic()
        looked = self.look([job_id])
        if job_id not in looked:
            raise SlurmMisbehaved(f"what slurmctld says of job {job_id} cannot be read")
        job = looked[job_id]
        left = self.longest_call - (time.monotonic() - began)
        return job or (self.accounting([job_id], max(left, 1)) or {}).get(job_id)

    # --- diagnostics ------------------------------------------------------------------------

    def raw(self, method: str, path: str, *, user: str = "", query: Query = (), json: object = None) -> Reply:
        """slurmrestd's own answer to `path` below /slurm/<version>/, for operators."""
        return self._session.send(method, path, user=user, query=query, json=json)

    def raw_list(self, update_time: int) -> Reply:
        return self._session.get("jobs", self._since(update_time))

    def close(self) -> None:
        self._session.close()

    # --- requests ---------------------------------------------------------------------------

    def _states(self, job_ids: Collection[int]) -> dict[int, JobState] | None:
        """The states of those jobs that slurmctld knows; None where the server has no such list."""
        states: dict[int, JobState] = {}
        for chunk in chunks(list(job_ids)):
            reply = self._session.get("jobs/state", [("job_id", job_id) for job_id in chunk])
            if reply.status == 404:
                self._without_state_list = self._session.speak()
                return None
            states |= states_of(raw_jobs(reply))
        return states

    def _count_jobs(self) -> int:
        return len(raw_jobs(self._session.get("jobs/state")))

    def _raw_job(self, job_id: int) -> list[dict[str, Any]]:
        """Several for an array, none where slurmctld does not know it."""
        reply = self._session.get(f"job/{job_id}")
        missing = reply.status == 404 and bool(reply.body)
        if missing or any(number == _NOT_FOUND for number, _ in reply.errors()):
            return []
        return raw_jobs(reply)

    def _differences_in_list(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """For servers without a list of states: the whole list, and only where something moved.

        The mark moves on only after a list that held no news: news that could not be stored comes again.
        """
        asked_at = time.time()
        since = 0 if asked_at - self._listed_at > _FULL_LIST_EVERY else self._list_since
        reply = self._session.get("jobs", self._since(since))
        if is_unchanged(reply):
            return {}
        self._listed_at = asked_at if since == 0 else self._listed_at
        news = _news(known, said_of(list(known), raw_jobs(reply)))
        if not news:
            self._list_since = int(asked_at - self._clock_skew)
        return news

    def _since(self, seconds: int) -> Query:
        return [("update_time", self._session.speak().update_time(seconds))] if seconds else []


def _news(known: Mapping[int, JobState], found: Mapping[int, SlurmJob | None]) -> dict[int, SlurmJob | None]:
    return {job_id: job for job_id, job in found.items() if job is None or job.job_state is not known[job_id]}
