"""Search slurmctld and slurmdbd for the jobs of submissions whose answers were lost."""

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.errors import SlurmMisbehaved, SlurmUnavailable
from app.models.job import SlurmJob
from app.models.record import JOB_TAG
from app.outages import RepeatFilter
from app.slurm import reading
from app.slurm.accounting import AccountingReader, AccountingState
from app.slurm.answers import read_jobs, require_jobs
from app.slurm.job_reader import JobReader
from app.slurm.session import Session

logger = logging.getLogger(__name__)
logger.addFilter(RepeatFilter(60))

_MAX_READING_SECONDS = 3.0  # of one search; the next one goes on where it ended
_MAX_TAG_LENGTH = 200  # characters; a task's uuid has at most 128


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
    """

    controller: list[SlurmJob]
    untagged: list[SlurmJob]
    controller_ids: set[int]
    is_complete: bool
    accounted: list[SlurmJob]
    accounting: AccountingState

    def jobs(self) -> list[SlurmJob]:
        """Return the jobs of slurmctld and of slurmdbd."""
        return [*self.controller, *self.accounted]


@dataclass(frozen=True, slots=True)
class _Read:
    """Note about a job that was read.

    Attributes:
        at: the time of reading, in seconds since the epoch.
        tag: the first word of the job's comment.
        untagged: the job itself if it was new then and has no tag of this service.
    """

    at: float
    tag: str
    untagged: SlurmJob | None


class JobSearch:
    """Searcher that reads the jobs in slurmctld one by one, the newest first, each only once. Thread-safe.

    The list of all jobs is read only from servers that have no list of states: with 43,000 jobs it exceeds
    every time-out. A search is limited in time, and may take several calls to be complete.
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
        self._read: dict[int, _Read] = {}

    def search(
        self, usernames: Collection[str], since: datetime, tags: Collection[str], timeout: float | None
    ) -> Search:
        """Return jobs of these users: the tagged jobs of slurmctld, and the jobs in slurmdbd since then.

        Args:
            usernames: The users whose jobs are wanted.
            since: A time before the submissions. Jobs that were read before this time are read again, because
                Slurm reuses job ids.
            tags: The first words of the wanted jobs' comments; reading ends when all tags are found.
            timeout: Seconds for each request, and for all reading, instead of the configured time.

        Raises:
            SlurmUnavailable: slurmctld does not answer.
        """
        ids = self._reader.states.read_all_ids(timeout)
        if ids is None:
            jobs, complete, ids = self._read_list(timeout)
        else:
            jobs, complete = self._read_one_by_one(ids, since, set(tags), timeout)
        jobs = [job for job in jobs if job.username in usernames]
        found = [job for job in jobs if _tag(job) in tags]
        untagged = [job for job in jobs if not _tag(job).startswith(JOB_TAG)]
        try:
            return Search(
                found,
                untagged,
                ids,
                complete,
                *self._accounting.read_jobs_of_users(usernames, since, timeout),
            )
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            logger.warning("only slurmctld was searched: %s", error)
            return Search(found, untagged, ids, complete, [], AccountingState.AWAY)

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
        is_split_off = job.array_job_id not in (None, job.job_id)
        return not is_split_off and job.submit_time is not None and job.submit_time < since - self._clock_skew

    def _read_list(self, timeout: float | None) -> tuple[list[SlurmJob], bool, set[int]]:
        """Return the jobs in the list of all jobs, whether all could be read, and their ids."""
        raw = require_jobs(self._session.get("jobs", timeout=timeout))
        jobs = read_jobs(raw, reading.identify_controller_job)
        return jobs, len(jobs) == len(raw), {job.job_id for job in jobs}

    def _read_one_by_one(
        self, ids: set[int], since: datetime, tags: set[str], timeout: float | None
    ) -> tuple[list[SlurmJob], bool]:
        """Read the jobs that were not read since then; remove forgotten jobs from `ids`.

        Returns:
            The jobs with one of the tags and the new jobs without a tag, and whether no job is left to read.
        """
        done = self._already_read(ids, (since + self._clock_skew).timestamp(), tags)
        found = [job for job_id in done if (job := self._read[job_id].untagged) is not None]
        missing = set(tags)
        failure: SlurmUnavailable | None = None
        was_read = False
        ends = time.monotonic() + min(timeout or _MAX_READING_SECONDS, _MAX_READING_SECONDS)
        for job_id in sorted(ids - done, reverse=True):
            if not missing or time.monotonic() > ends:
                break
            try:
                raw = self._reader.single.raw_job(job_id, timeout)
            except SlurmUnavailable as error:  # the request for one job may always fail
                failure = error
                continue
            was_read = True
            jobs = read_jobs(raw, reading.identify_controller_job)
            if not raw:
                ids.discard(job_id)
            elif len(jobs) == len(raw):
                done.add(job_id)
                job, tag = jobs[0], _tag(jobs[0])
                is_new = job.submit_time is not None and job.submit_time >= since - self._clock_skew
                untagged = job if is_new and not tag.startswith(JOB_TAG) else None
                self._read[job_id] = _Read(time.time(), tag, untagged)
                if tag in tags or untagged is not None:
                    found.append(job)
                    missing.discard(tag)
        if failure is not None and not was_read:
            raise failure
        return found, ids <= done

    def _already_read(self, ids: set[int], since: float, tags: set[str]) -> set[int]:
        """Return the ids that were read since then and have none of the tags; forget unlisted ids."""
        known = self._read.copy()
        for job_id in known.keys() - ids:
            self._read.pop(job_id, None)
        return {
            job_id
            for job_id, read in known.items()
            if job_id in ids and read.at >= since and read.tag not in tags
        }


def _tag(job: SlurmJob) -> str:
    return (job.comment or "").partition(" ")[0][:_MAX_TAG_LENGTH]
