"""Search slurmctld and slurmdbd for the jobs of submissions whose answers were lost."""

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.models.job import SlurmJob
from app.models.record import JOB_TAG
from app.outages import RepeatFilter
from app.slurm import reading
from app.slurm.accounting import AccountingReader, AccountingState
from app.slurm.answers import read_jobs, require_jobs
from app.slurm.job_reader import JobReader
from app.slurm.job_walk import JobWalker, Walk, is_reached, is_split_off, tag_of
from app.slurm.session import Session

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

_MAX_READING_SECONDS = 3.0  # of recent jobs


@dataclass(frozen=True, slots=True)
class Search:
    """Result of a search for jobs of some users.

    Attributes:
        controller: the wanted jobs in slurmctld, as far as they were read.
        untagged: the jobs of these users in slurmctld without a tag of this service.
        controller_ids: the ids of all jobs in slurmctld.
        is_complete: whether all jobs were read, so that `controller` has every wanted job.
        accounted: the jobs in slurmdbd.
        accounting: the state of slurmdbd.
        complete_until: the time of Slurm's clock before which no wanted job was submitted that is not in
            `controller`; None if it is not known.
    """

    controller: list[SlurmJob]
    untagged: list[SlurmJob]
    controller_ids: set[int]
    is_complete: bool
    accounted: list[SlurmJob]
    accounting: AccountingState
    complete_until: datetime | None = None

    def is_complete_until(self, moment: datetime) -> bool:
        """Return whether `controller` has every wanted job that was submitted until then."""
        return self.is_complete or is_reached(self.complete_until, moment)

    def jobs(self) -> list[SlurmJob]:
        """Return the jobs of slurmctld and of slurmdbd."""
        return [*self.controller, *self.accounted]


class JobSearch:
    """Searcher that reads the jobs in slurmctld one by one, the newest first, each only once. Thread-safe.

    The list of all jobs is read only from servers that have no list of states: with 43,000 jobs it exceeds
    every time-out. A search is limited in time, and may take several calls to be complete (`job_walk.py`).
    """

    def __init__(
        self, session: Session, reader: JobReader, accounting: AccountingReader, clock_skew: float
    ) -> None:
        """Make a searcher.

        Args:
            session: The session with slurmrestd.
            reader: Reads jobs from slurmctld.
            accounting: Reads jobs from slurmdbd.
            clock_skew: Seconds that this machine's clock may run ahead of Slurm's.
        """
        self._session = session
        self._clock_skew = timedelta(seconds=clock_skew)
        self._reader = reader
        self._accounting = accounting
        self._walker = JobWalker(reader.single, self._clock_skew)

    def search(
        self,
        usernames: Collection[str],
        since: datetime,
        tags: Collection[str],
        timeout: float | None,
        until: datetime | None = None,
    ) -> Search:
        """Return jobs of these users: the tagged jobs of slurmctld, and the jobs in slurmdbd since then.

        Args:
            usernames: The users whose jobs are wanted.
            since: A time before the submissions. Jobs that were read before this time are read again, because
                Slurm reuses job ids.
            tags: The first words of the wanted jobs' comments; reading ends when all tags are found.
            timeout: Seconds for each request, and for all reading, instead of the configured time.
            until: A time by Slurm's clock after the submissions, if the result has to prove that there are no
                other jobs. Without it, only the jobs that came after the submissions are read.

        Raises:
            SlurmUnavailable: slurmctld does not answer.
        """
        ids = self._reader.states.read_all_ids(timeout)
        if ids is None:
            jobs, is_complete, ids = self._read_list(timeout)
            walk = Walk(jobs, is_complete, None)
        else:
            walk = self._walker.walk(ids, since, tags, timeout, until)
        jobs = [job for job in walk.jobs if job.username in usernames]
        search = partial(
            Search,
            controller=[job for job in jobs if tag_of(job) in tags],
            untagged=[job for job in jobs if not tag_of(job).startswith(JOB_TAG)],
            controller_ids=ids,
            is_complete=walk.is_complete,
            complete_until=walk.complete_until,
        )
        try:
            accounted, state = self._accounting.read_jobs_of_users(usernames, since, timeout)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning("only slurmctld was searched: %s", error)
            return search(accounted=[], accounting=AccountingState.AWAY)
        return search(accounted=accounted, accounting=state)

    def read_recent_jobs(self, since: datetime, timeout: float | None) -> list[SlurmJob]:
        """Return the jobs in slurmctld that were submitted since then, and some older jobs.

        Job ids rise, so the jobs are read from the highest id down until a job is older. A task of an array
        does not end the reading: its id may be new although its submission is old. After `MaxJobId` the ids
        begin again, and a job that is submitted at that moment may be missed.

        Raises:
            SlurmUnavailable: Not all of these jobs could be read in time.
            SlurmMisbehaved: A job cannot be read.
        """
        ids = self._reader.states.read_all_ids(timeout)
        if ids is None:
            jobs, complete, _ = self._read_list(timeout)
            if not complete:
                raise SlurmMisbehaved("slurmrestd lists a job that cannot be read")
            return jobs
        ends = time.monotonic() + _MAX_READING_SECONDS
        found: list[SlurmJob] = []
        for job_id in sorted(ids, reverse=True):
            if time.monotonic() > ends:
                raise SlurmUnavailable("too many jobs were submitted since then")
            raw = self._reader.single.raw_job(job_id, timeout)
            jobs = read_jobs(raw, reading.identify_controller_job)
            if len(jobs) != len(raw):
                raise SlurmMisbehaved(f"slurmctld's answer about job {job_id} cannot be read")
            found += jobs
            if jobs and all(self._is_older(job, since) for job in jobs):
                break
        return found

    def _is_older(self, job: SlurmJob, since: datetime) -> bool:
        return (
            not is_split_off(job)
            and job.submit_time is not None
            and job.submit_time < since - self._clock_skew
        )

    def _read_list(self, timeout: float | None) -> tuple[list[SlurmJob], bool, set[int]]:
        """Return the jobs in the list of all jobs, whether all could be read, and their ids."""
        raw = require_jobs(self._session.get("jobs", timeout=timeout))
        jobs = read_jobs(raw, reading.identify_controller_job)
        return jobs, len(jobs) == len(raw), {job.job_id for job in jobs}
