"""The list of job states, `jobs/state`, which slurmrestd offers from 24.05 on."""

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.errors import SlurmBusy, SlurmMisbehaved, SlurmUnavailable
from app.job_state import JobState
from app.outages import RepeatFilter
from app.slurm.answers import read_states, require_jobs
from app.slurm.session import Session

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

IDS_PER_REQUEST = 400  # of nine digits each: a proxy may refuse a request line of more than 8 kB
_OFFERED_AGAIN_AFTER = 60.0  # seconds until a missing list is asked for again


@dataclass(slots=True)
class States:
    """States of jobs. A job that is in `asked` and not in `named` is not in slurmctld."""

    asked: set[int] = field(default_factory=set)
    named: set[int] = field(default_factory=set)
    states: dict[int, JobState] = field(default_factory=dict)

    def add(self, chunk: Sequence[int], items: Sequence[Mapping[str, Any]]) -> None:
        """Add the answer to a request for some ids."""
        self.asked.update(chunk)
        for job_id, state in read_states(items):
            self.named.update(
                chunk if job_id is None else [job_id]
            )  # an unreadable id may stand for any id of the request
            if job_id is not None and state is not None:
                self.states[job_id] = state

    @property
    def missing(self) -> set[int]:
        """Return the ids of the jobs that slurmctld does not know."""
        return self.asked - self.named

    @property
    def has_active(self) -> bool:
        """Return whether a job has not ended."""
        return any(not state.is_final for state in self.states.values())


class StateList:
    """Reader of job states in chunks; the states read before a failed request are kept.

    The next call asks for the ids of a failed request last, and for fewer at a time. So no failed request is
    repeated unchanged.
    """

    def __init__(self, session: Session) -> None:
        """Make a reader, which has no failed requests yet."""
        self._session = session
        self._missing_since: float | None = None
        self._avoided: dict[int, None] = {}  # ids of requests that failed, the latest last
        self._avoided_per_request = IDS_PER_REQUEST

    def is_offered(self) -> bool:
        """Return whether slurmrestd offers the list (24.05 and newer); a 404 counts for a minute."""
        since = self._missing_since
        is_missing = since is not None and time.monotonic() - since < _OFFERED_AGAIN_AFTER
        return self._session.dialect().has_state_list and not is_missing

    def read(self, job_ids: Collection[int]) -> States | None:
        """Return the states that could be read; None if the server has no list of states.

        Raises:
            SlurmUnavailable: Nothing could be read.
        """
        if not self.is_offered():
            return None
        read = States()
        for chunk in self._chunks(job_ids):
            try:
                reply = self._session.get("jobs/state", [("job_id", job_id) for job_id in chunk])
                if reply.status == 404:
                    self._missing_since = time.monotonic()
                    return None
                read.add(chunk, require_jobs(reply))
            except SlurmBusy:
                if not read.asked:
                    raise
                break
            except SlurmUnavailable as error:
                self._avoid(chunk)
                self._avoided_per_request = max(1, min(len(chunk), self._avoided_per_request) // 2)
                if not read.asked:
                    raise
                logger.warning("%d of %d states were read: %s", len(read.asked), len(job_ids), error)
                break
            if not self._avoided.keys().isdisjoint(chunk):
                self._stop_avoiding(chunk)
                self._avoided_per_request = min(2 * self._avoided_per_request, IDS_PER_REQUEST)
        return read

    def _chunks(self, job_ids: Collection[int]) -> Iterator[Sequence[int]]:
        """Yield the ids of each request; the ids of failed requests come last, and fewer at a time."""
        yield from split_ids([job_id for job_id in job_ids if job_id not in self._avoided])
        wanted = set(job_ids)
        avoided = [job_id for job_id in self._avoided if job_id in wanted]
        while avoided:
            yield avoided[: (size := self._avoided_per_request)]
            avoided = avoided[size:]

    def keep_only(self, job_ids: Collection[int]) -> None:
        """Forget the failed requests of all other jobs, which are no longer polled."""
        if self._avoided:
            wanted = set(job_ids)
            self._avoided = {job_id: None for job_id in self._avoided if job_id in wanted}

    def _avoid(self, chunk: Sequence[int]) -> None:
        self._stop_avoiding(chunk)
        self._avoided |= dict.fromkeys(chunk)

    def _stop_avoiding(self, chunk: Sequence[int]) -> None:
        for job_id in chunk:
            self._avoided.pop(job_id, None)

    def read_all_ids(self, timeout: float | None) -> set[int] | None:
        """Return the ids of all jobs in slurmctld; None if the server has no list of states.

        Raises:
            SlurmMisbehaved: One of the ids cannot be read.
        """
        if not self.is_offered():
            return None
        reply = self._session.get("jobs/state", timeout=timeout)
        if reply.status == 404:
            self._missing_since = time.monotonic()
            return None
        ids = {job_id for job_id, _ in read_states(require_jobs(reply))}
        if None in ids:
            raise SlurmMisbehaved("slurmrestd lists a job whose id cannot be read")
        return {job_id for job_id in ids if job_id is not None}


def split_ids(job_ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the ids in chunks; each chunk fits into one request."""
    return (job_ids[i : i + IDS_PER_REQUEST] for i in range(0, len(job_ids), IDS_PER_REQUEST))
