"""Read jobs from slurmdbd, and decide whether a job that slurmdbd does not know can exist."""

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from app.errors import SlurmUnavailable
from app.models.job import SlurmJob
from app.slurm import reading
from app.slurm.answers import merge_by_id, read_jobs, require_job_list, require_jobs_of_users
from app.slurm.id_chunks import PROXY_SAFE_IDS, IdChunks
from app.slurm.reply import Reply
from app.slurm.request import Query
from app.slurm.session import Session
from app.slurm.values import as_number, as_object

_NO_ENTRY = 9003
_ANY_JOB: Query = (("step", "1"),)  # a query whose answer is small


class AccountingState(Enum):
    """State of slurmdbd, which decides whether a job that slurmdbd does not know can exist."""

    CURRENT = "slurmdbd knows all jobs that slurmctld has forgotten"
    BEHIND = "slurmctld has not sent everything to slurmdbd yet"
    AWAY = "slurmdbd does not answer"
    NONE = "there is no slurmdbd"


class AccountingReader:
    """Reader of slurmdbd, through slurmrestd."""

    def __init__(self, session: Session, clock_skew: float) -> None:
        """Make a reader.

        Args:
            session: The session with slurmrestd.
            clock_skew: Seconds that this machine's clock may run ahead of Slurm's.
        """
        self._session = session
        self._clock_skew = clock_skew
        self._has_answered = False
        self._requests = IdChunks(PROXY_SAFE_IDS)

    def read_jobs(
        self, job_ids: Collection[int], timeout: float | None, not_before: Mapping[int, datetime]
    ) -> dict[int, SlurmJob] | None:
        """Return those of these jobs that slurmdbd knows; None if there is no slurmdbd.

        slurmdbd also lists the tasks of an older array with the same id.

        Args:
            job_ids: The ids of the jobs.
            timeout: Seconds for each request, instead of the configured time.
            not_before: By job id, the time before which the job cannot have been submitted.

        Raises:
            SlurmUnavailable: slurmdbd does not answer, which proves nothing.
        """
        found: dict[int, SlurmJob] = {}
        for chunk in self._requests.split(job_ids):
            for ids, parts in self._requests.ask(chunk, lambda ids: self._request_by_id(ids, timeout)):
                if parts is None:
                    return None
                jobs = read_jobs(parts, reading.read_accounting_job)
                found |= merge_by_id((job for job in jobs if not _is_older(job, not_before)), ids)
        return found

    def check(self) -> bool:
        """Return whether the cluster has a slurmdbd, which answers; ask even while slurmctld is down.

        Raises:
            SlurmUnavailable: slurmdbd does not answer.
            SlurmTokenRefused: slurmdbd does not accept the token.
        """
        return self._require_jobs(self._session.read_accounting(_ANY_JOB, even_while_down=True)) is not None

    def read_jobs_of_users(
        self, usernames: Collection[str], since: datetime, timeout: float | None
    ) -> tuple[list[SlurmJob], AccountingState]:
        """Return the jobs of these users since then, and the state of slurmdbd.

        Call this method after a request to slurmctld: a job that slurmctld has forgotten by then is either in
        slurmdbd, or still in the queue whose length is read first.

        Raises:
            SlurmUnavailable: slurmdbd or slurmctld does not answer.
        """
        is_behind = self.is_behind(timeout)
        start = math.floor(since.timestamp() - self._clock_skew)
        queries = self._session.dialect().users_queries(usernames, start)
        parts = [self._request_jobs(query, timeout) for query in queries]
        if None in parts:
            return [], AccountingState.NONE
        items = [raw for part in parts for raw in part or []]
        found = require_jobs_of_users(
            usernames, items, reading.identify_accounting_job, reading.read_accounting_owner
        )
        return found, AccountingState.BEHIND if is_behind else AccountingState.CURRENT

    def read_window(self, start: datetime, end: datetime) -> list[SlurmJob] | None:
        """Return the jobs of all users that slurmdbd has in a window of time; None if there is no slurmdbd.

        A job belongs to each window in which it waited or ran. Its state is UNKNOWN, whatever it is.

        Raises:
            SlurmUnavailable: slurmdbd does not answer.
        """
        seconds = math.floor(start.timestamp()), math.ceil(end.timestamp())
        parts = self._request_jobs(self._session.dialect().window_query(*seconds), None)
        return None if parts is None else read_jobs(parts, reading.identify_accounting_job)

    def is_behind(self, timeout: float | None) -> bool:
        """Return whether slurmctld still has messages to send to slurmdbd, as after an outage.

        Raises:
            SlurmUnavailable: slurmctld does not report it.
        """
        reply = self._session.get("diag", timeout=timeout)
        size = as_number(as_object(reply.body.get("statistics")).get("dbd_agent_queue_size"))
        if reply.status != 200 or size is None:
            raise SlurmUnavailable(f"slurmctld does not report its queue for slurmdbd: {reply.complaint()}")
        return size > 0

    def _request_by_id(self, job_ids: Sequence[int], timeout: float | None) -> list[dict[str, Any]] | None:
        return self._request_jobs(self._session.dialect().jobs_query(job_ids), timeout)

    def _request_jobs(self, query: Query, timeout: float | None) -> list[dict[str, Any]] | None:
        """Return the jobs that match a query; None where there is no slurmdbd.

        Raises:
            SlurmUnavailable: slurmdbd does not answer.
        """
        return self._require_jobs(self._session.read_accounting(query, timeout))

    def _require_jobs(self, reply: Reply) -> list[dict[str, Any]] | None:
        """Return the jobs in an answer of slurmdbd; None where there is no slurmdbd.

        Raises:
            SlurmUnavailable: slurmdbd has not answered.
        """
        if reply.status == 404 and not reply.body:
            if self._has_answered:  # a cluster does not lose its slurmdbd: a proxy may have answered
                raise SlurmUnavailable("slurmdbd does not answer: status 404")
            return None
        errors = [(number, words) for number, words in reply.errors() if number != _NO_ENTRY]
        if reply.status != 200 or errors:
            raise SlurmUnavailable(
                f"slurmdbd does not answer: {errors[0][1] if errors else reply.complaint()}"
            )
        self._has_answered = True
        return require_job_list(reply)


def _is_older(job: SlurmJob, not_before: Mapping[int, datetime]) -> bool:
    earliest = not_before.get(job.array_job_id or job.job_id)
    return earliest is not None and job.submit_time is not None and job.submit_time < earliest
