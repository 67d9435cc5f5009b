"""Adopt the jobs in Slurm that carry a task's tag and that no record knows: `records adopt`.

The restore of an older backup loses the tasks that were submitted since. Their uuids would count as unused,
and a second submission would run the task again. Each such uuid gets a record, by the first rule that fits:

1. The store has a record with a job, or one that is UNKNOWN: nothing changes.
2. The store has a reservation of the same user: it gets the job, as from the reconciler. Its task is known,
   and so its messages are sent.
3. The store has a reservation or, without a line of the audit trail, a failed submission of another user:
   nothing changes. Any user can write any comment.
4. Nothing, or a submission that failed: a new record. What the task was is not known, apart from what Slurm
   tells about the job. So nobody is notified, and the record cannot be submitted again as it is.

A tag proves nothing, because every user can copy one. A line of the audit trail, which only this service
writes, comes before all tags. Of several jobs with one tag, the one that was submitted first counts: a copy
is made from a job that exists. A uuid that a forged tag takes is lost for its caller, who gets
`duplicate_uuid`; but no task runs twice, and no user sees the job of another.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from app.errors import DuplicateUuid
from app.job_state import JobState
from app.lifecycle.job_identity import is_same_job
from app.models.audited_submission import AuditedSubmission
from app.models.job import SlurmJob
from app.models.record import JOB_TAG, OpenJob, RecordKind, TaskRecord, utc_now
from app.slurm.client import SlurmClient
from app.slurm.tagged_jobs import ReportProgress, TaggedJobs
from app.store.records import RecordStore

_BATCH_SIZE = 200  # jobs; their facts are read in one request to slurmdbd
_UUID = re.compile("[A-Za-z0-9._:-]{1,128}")
_WARNING = (
    "adopted from Slurm after the record was lost: the task is not known beyond what Slurm reports, and no"
    " message is sent"
)


class AdoptionOutcome(StrEnum):
    """Kind of result of adoption for one job."""

    ADOPTED = "adopted"
    SETTLED = "settled"  # a reservation of the store got its job
    KNOWN = "known"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class FoundJob:
    """A job that claims a uuid by its tag, or by a line of the audit trail."""

    uuid: str
    username: str
    job_id: int
    submitted_at: datetime | None
    audited: AuditedSubmission | None = None


@dataclass(frozen=True, slots=True)
class Adoption:
    """Result of adoption for one job that was found, with its state in Slurm."""

    outcome: AdoptionOutcome
    found: FoundJob
    reason: str = ""
    state: JobState | None = None


class JobAdoption:
    """The use case of `records adopt`."""

    def __init__(self, store: RecordStore, slurm: SlurmClient, refused_users: Collection[str]) -> None:
        """Create the use case; `refused_users`: those for which this service submits no task."""
        self._store = store
        self._slurm = slurm
        self._refused_users = refused_users

    def find_jobs(self, since: datetime, progress: ReportProgress) -> TaggedJobs:
        """Return the jobs in Slurm that carry a tag: see TaggedJobReader.read."""
        return self._slurm.find_tagged_jobs(since, progress)

    def adopt(
        self, jobs: Iterable[SlurmJob], audited: Iterable[AuditedSubmission], *, dry_run: bool
    ) -> Iterator[Adoption]:
        """Adopt jobs by the rules above, and yield the outcome for each; a dry run changes nothing.

        Repeating this changes nothing.

        Raises:
            StoreUnavailable: The store does not answer.
            SlurmUnavailable: Slurm does not answer.
        """
        chosen, others = _choose_jobs(_list_found_jobs(jobs, audited))
        for found in others:
            yield Adoption(AdoptionOutcome.IGNORED, found, "another job has this uuid")
        for begin in range(0, len(chosen), _BATCH_SIZE):
            yield from self._adopt_batch(chosen[begin : begin + _BATCH_SIZE], dry_run=dry_run)

    def _adopt_batch(self, batch: Sequence[FoundJob], *, dry_run: bool) -> Iterator[Adoption]:
        records = self._store.find_by_uuids([found.uuid for found in batch])
        unknown = []
        for found in batch:
            record = records.get(found.uuid)
            if not found.username or found.username in self._refused_users:
                yield Adoption(AdoptionOutcome.IGNORED, found, "no task runs as this user")
            elif record is None or (record.is_freed and _may_take(found, record)):
                unknown.append(found)
            elif record.is_freed:
                yield Adoption(AdoptionOutcome.IGNORED, found, "another user has used this uuid")
            elif not record.is_reserved:
                is_same = record.slurm_job_id == found.job_id
                yield Adoption(AdoptionOutcome.KNOWN, found, "" if is_same else "its record has another job")
            elif record.slurm_username != found.username:
                yield Adoption(AdoptionOutcome.IGNORED, found, "another user has reserved this uuid")
            else:
                yield self._settle(record, found, dry_run=dry_run)
        if unknown:
            facts = self._read_facts(unknown)
            for found in unknown:
                yield self._add_record(found, facts.get(found.uuid), dry_run=dry_run)

    def _settle(self, record: TaskRecord, found: FoundJob, *, dry_run: bool) -> Adoption:
        """Give a reservation its job; the poller reads the state."""
        if not dry_run:
            self._store.accept_job(record, found.job_id, JobState.PENDING, self._store.now())
        return Adoption(AdoptionOutcome.SETTLED, found)

    def _read_facts(self, batch: Sequence[FoundJob]) -> dict[str, SlurmJob]:
        """Return these jobs as slurmctld, or else slurmdbd, describes them, by uuid."""
        facts = {
            job_id: job
            for job_id, job in self._slurm.read_jobs(_ids_of_found(batch)).items()
            if job is not None
        }
        missing = [found for found in batch if found.job_id not in facts]
        if missing:
            facts |= self._slurm.read_accounting(_ids_of_found(missing)) or {}
        return {
            found.uuid: job
            for found in batch
            if (job := facts.get(found.job_id)) is not None and is_same_job(_to_open_job(found), job)
        }

    def _add_record(self, found: FoundJob, job: SlurmJob | None, *, dry_run: bool) -> Adoption:
        record = _make_adopted_record(found, job, self._store.now())
        if not dry_run:
            try:
                self._store.add_record(record)
            except DuplicateUuid:  # a server has recorded it meanwhile
                return Adoption(AdoptionOutcome.KNOWN, found)
        return Adoption(AdoptionOutcome.ADOPTED, found, state=record.slurm_job_state)


def _list_found_jobs(jobs: Iterable[SlurmJob], audited: Iterable[AuditedSubmission]) -> Iterator[FoundJob]:
    for line in audited:
        yield FoundJob(line.uuid, line.username, line.job_id, line.at, line)
    for job in jobs:
        uuid = (job.comment or "").partition(" ")[0].removeprefix(JOB_TAG)
        if _UUID.fullmatch(uuid):
            yield FoundJob(uuid, job.username, job.array_job_id or job.job_id, job.submit_time)


def _may_take(found: FoundJob, failed: TaskRecord) -> bool:
    """Return whether the job may replace a submission that failed, which shows its user what was wrong."""
    return found.audited is not None or failed.slurm_username == found.username


def _choose_jobs(found: Iterable[FoundJob]) -> tuple[list[FoundJob], list[FoundJob]]:
    """Return one job for each uuid, and the other jobs: those of the audit trail first, then the oldest."""
    by_uuid: dict[str, dict[tuple[str, int], FoundJob]] = {}
    for job in found:  # a job may be in both, and an array has many tasks: its first mention counts
        by_uuid.setdefault(job.uuid, {}).setdefault((job.username, job.job_id), job)
    chosen, others = [], []
    for jobs in by_uuid.values():
        first, *rest = sorted(jobs.values(), key=_precedence)
        chosen.append(first)
        others += rest
    return chosen, others


def _precedence(found: FoundJob) -> tuple[bool, float, int]:
    """Return a sort key that puts the most likely job of the task first."""
    at = found.submitted_at.timestamp() if found.submitted_at else float("inf")
    return found.audited is None, at, found.job_id


def _to_open_job(found: FoundJob) -> OpenJob:
    """Return what identifies the job: since a line of the audit trail, Slurm may have reused its id."""
    created_at = found.submitted_at or utc_now()
    return OpenJob(found.uuid, found.job_id, JobState.UNKNOWN, found.username, created_at, None)


def _ids_of_found(batch: Iterable[FoundJob]) -> list[int]:
    return [found.job_id for found in batch]


def _make_adopted_record(found: FoundJob, job: SlurmJob | None, now: datetime) -> TaskRecord:
    """Return the record of an adopted job.

    Its kind is REGISTERED, so that no output path is derived from the incomplete task.
    """
    audited = found.audited
    return TaskRecord(
        kind=RecordKind.REGISTERED,
        task=_describe_task(found, job),
        slurm_username=found.username,
        slurm_job_id=found.job_id,
        slurm_job_state=job.job_state if job else JobState.UNKNOWN,
        created_at=found.submitted_at or (job and job.submit_time) or now,
        updated_at=now,
        job=job,
        warnings=(_WARNING,),
        caller=audited.caller if audited else None,
        resubmitted_from=audited.resubmitted_from if audited else None,
    )


def _describe_task(found: FoundJob, job: SlurmJob | None) -> dict[str, Any]:
    """Return the known fields of the task."""
    options: Mapping[str, Any] = {"job_name": job.name, "partition": job.partition} if job else {}
    known = {name: value for name, value in options.items() if value is not None}
    task: dict[str, Any] = {"uuid": found.uuid, "username": found.username}
    if job and job.working_directory:
        task["cwd"] = job.working_directory
    return {**task, "slurm": known, "adopted_from_slurm": True}
