"""Read the jobs in slurmctld one by one, from the highest id down, and decide when none can be missing.

Slurm counts job ids up, but begins again after `MaxJobId`, or if its state was lost. So a low id alone does
not prove that a job is old. But two jobs enclose all that were submitted in a time in question:

- The boundary was submitted before that time, at most an hour before.
- The witness was submitted after that time, and has a higher id than the boundary.

In two hours Slurm does not use up all its ids. So every job that was submitted in between has an id above the
boundary, and all these jobs were read. Without a witness, as on a cluster where nobody submits, all jobs have
to be read.

A task of an array has a newer id than its submission, and a requeued job an older one: neither can be the
boundary or the witness. In a federation each cluster counts in a range of its own, so that ids prove nothing.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.errors import SlurmUnavailable
from app.models.job import SlurmJob
from app.models.record import JOB_TAG
from app.slurm import reading
from app.slurm.answers import read_jobs
from app.slurm.single_reads import SingleReader

_MAX_READING_SECONDS = 3.0  # of one walk; the next one goes on where it ended
_MAX_TAG_LENGTH = 200  # characters; a task's uuid has at most 128
_MAX_BOUNDARY_AGE = timedelta(hours=1)  # at the time in question
_MAX_SPAN = timedelta(hours=2)  # between the submissions of boundary and witness
_MIN_FEDERATED_ID = 2**26  # ids of a federation begin with the number of the cluster
_RESOLUTION = timedelta(seconds=1)  # Slurm reports times in whole seconds


@dataclass(frozen=True, slots=True)
class Walk:
    """Result of a walk.

    Attributes:
        jobs: the jobs with one of the wanted tags, and the new jobs without a tag of this service.
        is_complete: whether all jobs in slurmctld were read.
        complete_until: the time before which all wanted jobs were submitted that were not read; None if it is
            not known.
    """

    jobs: list[SlurmJob]
    is_complete: bool
    complete_until: datetime | None


@dataclass(frozen=True, slots=True)
class _Note:
    """Note about a job that was read.

    Attributes:
        at: the time of reading, in seconds since the epoch.
        tag: the first word of the job's comment.
        id_given_at: the time at which Slurm gave the job its id; None if that may not be its submission.
        untagged: the job itself if it was new then and has no tag of this service.
    """

    at: float
    tag: str
    id_given_at: datetime | None
    untagged: SlurmJob | None


class JobWalker:
    """Walker that reads each job once for a time in question. Thread-safe."""

    def __init__(self, reader: SingleReader, clock_skew: timedelta) -> None:
        """Make a walker.

        Args:
            reader: Reads jobs from slurmctld.
            clock_skew: How far this machine's clock may run ahead of Slurm's.
        """
        self._reader = reader
        self._clock_skew = clock_skew
        self._notes: dict[int, _Note] = {}

    def walk(
        self,
        ids: set[int],
        since: datetime,
        tags: Collection[str],
        timeout: float | None,
        until: datetime | None = None,
    ) -> Walk:
        """Read the jobs that were not read since then; remove forgotten jobs from `ids`.

        Args:
            ids: The ids of all jobs in slurmctld.
            since: A time before the wanted jobs were submitted. Jobs that were read before it are read again,
                because Slurm reuses job ids.
            tags: The tags of the wanted jobs; reading ends when all are found.
            timeout: Seconds for each request, and for all reading, instead of the configured time.
            until: A time by Slurm's clock after the wanted jobs were submitted, if the result has to prove
                that there are no others. Without it, reading ends at the boundary.

        Raises:
            SlurmUnavailable: Nothing could be read.
        """
        ends = time.monotonic() + min(timeout or _MAX_READING_SECONDS, _MAX_READING_SECONDS)
        done = self._already_read(ids, (since + self._clock_skew).timestamp(), set(tags))
        found = [job for job_id in done if (job := self._notes[job_id].untagged) is not None]
        steps = _Steps(since - self._clock_skew, until, is_federated=max(ids, default=0) >= _MIN_FEDERATED_ID)
        missing = set(tags)
        for job_id in sorted(ids, reverse=True):
            if job_id not in done:
                if not missing or time.monotonic() > ends:
                    break
                job = self._try_to_read(job_id, steps, timeout)
                if job is None:
                    continue
                done.add(job_id)
                if tag_of(job) in tags or self._notes[job_id].untagged is not None:
                    found.append(job)
                    missing.discard(tag_of(job))
            if steps.is_last(self._notes[job_id]):
                break
        steps.require_any_read()
        ids -= steps.forgotten
        return Walk(found, is_complete=ids <= done, complete_until=steps.complete_until)

    def _try_to_read(self, job_id: int, steps: "_Steps", timeout: float | None) -> SlurmJob | None:
        """Return a job, with a note about it; None if slurmctld has forgotten it, or it cannot be read."""
        try:
            raw = self._reader.raw_job(job_id, timeout)
        except SlurmUnavailable as error:  # the request for one job may always fail
            steps.failure = error
            steps.has_gap = True
            return None
        steps.was_any_read = True
        if not raw:
            steps.forgotten.add(job_id)
            return None
        jobs = read_jobs(raw, reading.identify_controller_job)
        if len(jobs) != len(raw):
            steps.has_gap = True
            return None
        job = next((job for job in jobs if job.job_id == job_id), jobs[0])
        is_new = job.submit_time is not None and job.submit_time >= steps.earliest
        is_untagged = is_new and not tag_of(job).startswith(JOB_TAG)
        self._notes[job_id] = _Note(time.time(), tag_of(job), _id_given_at(job), job if is_untagged else None)
        return job

    def _already_read(self, ids: set[int], since: float, tags: set[str]) -> set[int]:
        """Return the ids that were read since then and have none of the tags; forget unlisted ids."""
        known = self._notes.copy()
        for job_id in known.keys() - ids:
            self._notes.pop(job_id, None)
        return {
            job_id
            for job_id, note in known.items()
            if job_id in ids and note.at >= since and note.tag not in tags
        }


class _Steps:
    """The steps of one walk, which decide where the walk ends and what its result proves."""

    def __init__(self, earliest: datetime, until: datetime | None, *, is_federated: bool) -> None:
        self.earliest = earliest
        self.complete_until: datetime | None = None
        self.has_gap = False  # a job above the present id was not read
        self.was_any_read = False
        self.forgotten: set[int] = set()
        self.failure: SlurmUnavailable | None = None
        self._until = until
        self._seeks_boundary = not is_federated
        self._witnesses: list[datetime] = []

    def is_last(self, note: _Note) -> bool:
        """Return whether the walk ends with this job, which was read."""
        at = note.id_given_at
        if at is None or not self._seeks_boundary:
            return False
        if not self.earliest - _MAX_BOUNDARY_AGE <= at < self.earliest:
            self._witnesses.append(at)
            return False
        self._seeks_boundary = False
        usable = [witness for witness in self._witnesses if witness <= at + _MAX_SPAN]
        if usable and not self.has_gap:
            self.complete_until = max(usable) - _RESOLUTION
        return self._until is None or is_reached(self.complete_until, self._until)

    def require_any_read(self) -> None:
        """Raise the last failure if nothing was read.

        Raises:
            SlurmUnavailable: slurmctld does not answer.
        """
        if self.failure is not None and not self.was_any_read:
            raise self.failure


def tag_of(job: SlurmJob) -> str:
    """Return the first word of a job's comment, which may be a tag of this service."""
    return (job.comment or "").partition(" ")[0][:_MAX_TAG_LENGTH]


def is_split_off(job: SlurmJob) -> bool:
    """Return whether the job is a task of an array that got its id when it began."""
    return job.array_job_id not in (None, job.job_id)


def is_reached(complete_until: datetime | None, moment: datetime) -> bool:
    """Return whether all jobs that were submitted until `moment` were read."""
    return complete_until is not None and moment <= complete_until


def _id_given_at(job: SlurmJob) -> datetime | None:
    return None if is_split_off(job) or job.restarts > 0 else job.submit_time
