"""Poll jobs on servers without a list of states (22.05): by the list of all jobs, or one by one.

The list has every job of the cluster, 3.5 kB and 0.2 ms each. slurmrestd sends it only if a job changed
since the time in the request, but on a busy cluster some job always has. Reading one job takes 1.4 ms. So
the list is read while it costs no more than reading our own jobs. Both costs are computed from the numbers of
jobs, because a measured time would count the load of the machine on one side alone.
"""

import logging
import time
from collections.abc import Callable, Mapping

from app.errors import SlurmAnswerTooLarge, SlurmUnavailable
from app.job_state import JobState
from app.models.job import SlurmJob
from app.outages import RepeatFilter
from app.slurm.answers import is_unchanged, jobs_by_id_or_none, require_jobs
from app.slurm.request import Query
from app.slurm.session import Session
from app.slurm.single_reads import SingleReader
from app.slurm.state_changes import find_changes

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

_MAX_LIST_BYTES = 32 * 1024 * 1024  # about 10,000 jobs of 22.05, and 150 MB of memory while it is parsed
_CHEAP_LIST_SECONDS = 0.25  # such a list is read however few jobs are ours
_SECONDS_PER_LISTED_JOB = 0.0002
_SECONDS_PER_READ = 0.0015  # of one job
_SLOW_SECONDS = 5.0  # of a request that fails: an outage of slurmctld itself is answered
_TRIED_AGAIN_AFTER = 600.0  # seconds after which an expensive list is tried again
_REFUSED_AGAIN_AFTER = 3600.0  # seconds after which a list that was too large is tried again
_FULL_LIST_EVERY = 300  # seconds; finds changes that a larger clock skew would hide
_MANY_RECORDS = 20  # of an array; its reading takes as long as that of so many jobs
_REST_FACTOR = 20  # such an array is read for at most a twentieth of the time
_MAX_REST = 60.0  # seconds
_MAX_ENDED_READS = 100  # in one poll; ended jobs are read only to see whether they were requeued


class JobList:
    """Poller of servers without a list of states. Not thread-safe.

    Attributes:
        unread: The ids of the jobs whose state the last poll did not find out.
    """

    def __init__(
        self,
        session: Session,
        single: SingleReader,
        clock_skew: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a poller that has read nothing yet.

        Args:
            session: The session with slurmrestd.
            single: Reads jobs one by one.
            clock_skew: Seconds that this machine's clock may run ahead of Slurm's.
            clock: Seconds of a monotonic clock.
        """
        self._session = session
        self._single = single
        self._clock_skew = clock_skew
        self._clock = clock
        self._list_seconds = 0.0  # that the last whole list costs
        self._avoided_until = 0.0  # an expensive list is not read before this time
        self._resting: dict[int, float] = {}  # arrays that are not read before a time
        self._unchanged_since = 0
        self._compared: dict[int, JobState] = {}  # the states that agreed with the list at that time
        self._listed_at = 0.0
        self.unread: frozenset[int] = frozenset()

    def poll(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """Return the jobs whose state changed: see JobReader.poll.

        Raises:
            SlurmUnavailable: Nothing could be read.
        """
        if not known:
            return {}
        if self._is_too_expensive(len(known)):
            return self._poll_one_by_one(known)
        try:
            return self._poll_list(known)
        except SlurmAnswerTooLarge as error:
            logger.warning("the list of all jobs is not read for an hour, but each job alone: %s", error)
            self._avoid_list(float("inf"), _REFUSED_AGAIN_AFTER)
            return self._poll_one_by_one(known)

    def since(self, seconds: int) -> Query:
        """Return the query for a list of jobs that slurmrestd sends only if a job changed since a time."""
        return [("update_time", self._session.dialect().update_time(seconds))] if seconds else []

    def _avoid_list(self, seconds: float, pause: float) -> None:
        """Note the cost of the list, and do not read an expensive list again before the pause is over."""
        self._list_seconds = seconds
        self._avoided_until = self._clock() + pause

    def _is_too_expensive(self, count: int) -> bool:
        """Return whether reading `count` jobs one by one costs less than the list of all jobs."""
        is_avoided = self._clock() < self._avoided_until
        return is_avoided and self._list_seconds > max(_CHEAP_LIST_SECONDS, count * _SECONDS_PER_READ)

    def _poll_one_by_one(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """Read the jobs whose last reading is longest ago; few of those that have ended.

        An array of many tasks that have begun is read less often, so that it does not delay the others.
        """
        now = self._clock()
        self._resting = {job_id: until for job_id, until in self._resting.items() if until > now}
        due = {job_id: state for job_id, state in known.items() if job_id not in self._resting}
        ended = self._single.longest_unread([job_id for job_id, state in due.items() if state.is_final])
        wanted = [job_id for job_id, state in due.items() if not state.is_final]
        reads = self._single.read([*wanted, *ended[:_MAX_ENDED_READS]])
        for job_id, read in reads.items():
            if read.records > _MANY_RECORDS:
                self._resting[job_id] = self._clock() + min(_REST_FACTOR * read.seconds, _MAX_REST)
        self.unread = frozenset(known.keys() - reads.keys())
        return find_changes(known, {job_id: read.job for job_id, read in reads.items()})

    def _poll_list(self, known: Mapping[int, JobState]) -> dict[int, SlurmJob | None]:
        """Return the changes in the list of all jobs.

        slurmrestd sends the list only if a job changed since `_unchanged_since`. That time advances only
        after a list without changes, so that a change that could not be stored is read again. It counts only
        for the states that were compared: a job may have changed before its record was stored.
        """
        asked_at, began = time.time(), self._clock()
        is_recent = asked_at - self._listed_at <= _FULL_LIST_EVERY
        since = self._unchanged_since if is_recent and known.items() <= self._compared.items() else 0
        try:
            reply = self._session.get("jobs", self.since(since), max_bytes=_MAX_LIST_BYTES)
        except SlurmUnavailable:  # perhaps the list takes longer than the time-out
            if self._clock() - began > _SLOW_SECONDS:
                self._avoid_list(self._clock() - began, _TRIED_AGAIN_AFTER)
            raise
        if is_unchanged(reply):
            self.unread = self.unread.intersection(known)
            return {}
        jobs = require_jobs(reply)
        self._avoid_list(len(jobs) * _SECONDS_PER_LISTED_JOB, _TRIED_AGAIN_AFTER)
        self._listed_at = asked_at if since == 0 else self._listed_at
        found = jobs_by_id_or_none(list(known), jobs)
        self.unread = frozenset(known.keys() - found.keys())
        changes = find_changes(known, found)
        if not changes:
            self._unchanged_since, self._compared = int(asked_at - self._clock_skew), dict(known)
        return changes
