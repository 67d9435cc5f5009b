"""Compose the content of one message from the caller's own text and the facts of the job."""

from app.job_state import JobState
from app.messages.efficiency import compute_cpu_efficiency, find_hint, format_duration
from app.messages.events import Event
from app.messages.placeholders import fill_placeholders, to_one_line
from app.models.content import Content
from app.models.job import SlurmJob
from app.models.job_facts import JobFacts
from app.models.output_files import choose_job_name, find_output_files
from app.models.record import RecordKind, TaskRecord

_MB = 1024 * 1024
_END_EVENTS = ("end", "fail")
_EVENTS_WITH_HINT = (*_END_EVENTS, "cannot_start")
# What happened to the job, after "The job did not succeed: it ".
_OUTCOMES = {
    JobState.CANCELLED: "was cancelled",
    JobState.OUT_OF_MEMORY: "ran out of memory",
    JobState.TIMEOUT: "reached its time limit",
    JobState.DEADLINE: "could not end before its deadline",
    JobState.NODE_FAIL: "lost its node",
    JobState.PREEMPTED: "was preempted",
    JobState.UNKNOWN: "is no longer known to Slurm, so its outcome is unknown",
}


def compose_content(
    event: Event, own_subject: str, own_text: str, record: TaskRecord, job: SlurmJob
) -> Content:
    """Return the content of a message about `event`, with the caller's own subject and text.

    If the job did not succeed, its state stands first, whatever the caller's own text says. `own_subject` and
    `own_text` are the caller's, with placeholders.
    """
    facts = _job_facts(record, job)
    run_time = job.elapsed_seconds()
    values = {
        **facts.model_dump(),
        "event": event.name,
        "run_time": None if run_time is None else format_duration(run_time),
    }
    is_bad_end = event.name in _END_EVENTS and job.job_state.is_settled and not job.job_state.is_success
    prefix = str(job.job_state) if is_bad_end else event.subject_prefix
    default = f"{facts.name} (job {job.job_id})" + ("" if event.subject_prefix else f": {job.job_state}")
    subject = fill_placeholders(own_subject, values).strip() or default
    return Content(
        subject=to_one_line(f"[{prefix}] {subject}" if prefix else subject),
        headline=_bad_news(job) if is_bad_end else event.headline,
        words=fill_placeholders(own_text, values),
        facts=facts,
        hint=find_hint(job) if event.name in _EVENTS_WITH_HINT else "",
        is_bad_news=is_bad_end,
    )


def _job_facts(record: TaskRecord, job: SlurmJob) -> JobFacts:
    start, end, limit = job.start_time, job.end_time, job.time_limit_minutes
    files = find_output_files(record, job)
    return JobFacts(
        task_uuid=record.uuid,
        slurm_job_id=job.job_id or None,
        slurm_job_state=str(job.job_state),
        name=_title(record, job),
        username=record.slurm_username,
        reason=None if job.job_state.is_success else job.reason,
        exit_code=job.exit_code,
        signal=job.signal,
        array_tasks={str(state): count for state, count in (job.array_tasks or {}).items()} or None,
        failed_tasks=job.failed_tasks,
        start_time=start.isoformat() if start else None,
        end_time=end.isoformat() if end else None,
        run_seconds=job.elapsed_seconds(),
        time_limit_seconds=None if limit is None else 60 * limit,
        cpus=job.cpus,
        cpu_seconds=job.cpu_seconds,
        cpu_efficiency=compute_cpu_efficiency(job),
        max_memory_bytes=job.max_memory_bytes,
        memory_bytes=None if job.memory_mb is None else job.memory_mb * _MB,
        output=files.output,
        error_output=files.error,
    )


def _title(record: TaskRecord, job: SlurmJob) -> str:
    """Return the job's name from the task, or else from Slurm.

    Of a registered task only `name` is read, because nothing else in it was validated.
    """
    is_submitted = record.kind is RecordKind.SUBMITTED
    name = choose_job_name(record.full_task) if is_submitted else record.task.get("name")
    return to_one_line(name or job.name or record.uuid)


def _bad_news(job: SlurmJob) -> str:
    outcome = _OUTCOMES.get(job.job_state, f"ended as {job.job_state}")
    return f"The job did not succeed: it {outcome}{', and never ran' if job.never_ran else ''}."
