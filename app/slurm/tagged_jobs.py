"""Find all jobs with a tag of this service, also those that are not in the store; for `records adopt`."""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from app.errors import SlurmAnswerTooLarge, SlurmMisbehaved, SlurmUnavailable
from app.models.job import SlurmJob
from app.models.record import JOB_TAG
from app.slurm import reading
from app.slurm.accounting import AccountingReader
from app.slurm.answers import read_jobs, require_jobs
from app.slurm.job_reader import JobReader
from app.slurm.session import Session

logger = logging.getLogger(__name__)

ReportProgress = Callable[[int, int], None]

_DUTY = 0.5  # the share of the time for which slurmctld is asked
_FIRST_WINDOW = timedelta(hours=1)
_MIN_WINDOW, _MAX_WINDOW = timedelta(minutes=1), timedelta(days=1)
_MANY_JOBS = 1000  # in one answer of slurmdbd, of 6 MB; then the next window is shorter
_FEW_JOBS = 200
_MAX_FAILURES = 5  # requests for single jobs in a row


@dataclass(slots=True)
class TaggedJobs:
    """The jobs that carry a tag of this service.

    Attributes:
        jobs: these jobs, with the state UNKNOWN: only id, user, times, name, folder and comment are read.
        unread: how many jobs in slurmctld could not be read.
        faults: the gaps of the search, with their reasons.
        without_comment: how many jobs only slurmdbd knows, without any comment.
    """

    jobs: list[SlurmJob]
    unread: int = 0
    faults: list[str] = field(default_factory=list)
    without_comment: int = 0


class TaggedJobReader:
    """Reader of all jobs in slurmctld, one by one, and of those of slurmdbd in windows of time."""

    def __init__(self, session: Session, reader: JobReader, accounting: AccountingReader) -> None:
        """Make a reader."""
        self._session = session
        self._reader = reader
        self._accounting = accounting

    def read(self, since: datetime, until: datetime, progress: ReportProgress) -> TaggedJobs:
        """Return the tagged jobs that were submitted since `since`.

        slurmctld always has a job's comment, slurmdbd only with AccountingStoreFlags=job_comment.

        Args:
            since: The beginning of the search.
            until: The present time of Slurm.
            progress: Called with the number of jobs in slurmctld that were read, and the number of all.

        Raises:
            SlurmUnavailable: slurmctld does not answer.
            SlurmMisbehaved: An answer of slurmrestd cannot be used.
        """
        found = TaggedJobs([])
        known: set[int] = set()
        for raw in self._read_controller(found, known, progress):
            jobs = read_jobs(raw, reading.identify_controller_job)
            found.unread += len(raw) - len(jobs)
            known |= {job.job_id for job in jobs}
            found.jobs += [job for job in jobs if _is_wanted(job, since)]
        try:
            if self._accounting.is_behind(None):
                found.faults.append("slurmctld has not sent everything to slurmdbd yet")
            for jobs in self._read_accounting(since, until):
                unknown = [job for job in jobs if job.job_id not in known]
                known |= {job.job_id for job in unknown}
                found.jobs += [job for job in unknown if _is_wanted(job, since)]
                found.without_comment += sum(not job.comment for job in unknown)
        except (SlurmUnavailable, SlurmMisbehaved) as error:
            found.faults.append(f"slurmdbd was not searched to the end: {error}")
        return found

    def _read_controller(
        self, found: TaggedJobs, known: Collection[int], progress: ReportProgress
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the answers about all jobs in slurmctld; a job in `known` was in the answer about another."""
        ids = self._reader.states.read_all_ids(None)
        if ids is None:
            try:
                yield require_jobs(self._session.get("jobs"))
            except SlurmAnswerTooLarge as error:
                found.faults.append(f"slurmctld has too many jobs to list them: {error}")
            return
        failures = 0
        for number, job_id in enumerate(sorted(ids, reverse=True), start=1):
            if job_id in known:
                continue
            began = time.monotonic()
            try:
                yield self._reader.single.raw_job(job_id, None)
                failures = 0
            except SlurmUnavailable as error:  # the request for one job may always fail
                failures += 1
                if failures == _MAX_FAILURES:
                    raise
                logger.warning("job %s: %s", job_id, error)
                found.unread += 1
            progress(number, len(ids))
            time.sleep((time.monotonic() - began) * (1 / _DUTY - 1))

    def _read_accounting(self, since: datetime, until: datetime) -> Iterator[list[SlurmJob]]:
        """Yield the jobs of one window of time after the other; nothing if there is no slurmdbd."""
        start, length = since, _FIRST_WINDOW
        while start < until:
            end = min(start + length, until)
            jobs = self._accounting.read_window(start, end)
            if jobs is None:
                return
            yield jobs
            start = end
            if len(jobs) > _MANY_JOBS:
                length = max(length / 2, _MIN_WINDOW)
            elif len(jobs) < _FEW_JOBS:
                length = min(length * 2, _MAX_WINDOW)


def _is_wanted(job: SlurmJob, since: datetime) -> bool:
    is_new = job.submit_time is None or job.submit_time >= since
    return is_new and (job.comment or "").startswith(JOB_TAG)
