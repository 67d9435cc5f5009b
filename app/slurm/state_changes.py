"""Decide which listed states of jobs are changes."""

from collections.abc import Mapping

from app.job_state import JobState
from app.models.job import SlurmJob


def find_changes(
    known: Mapping[int, JobState], found: Mapping[int, SlurmJob | None]
) -> dict[int, SlurmJob | None]:
    """Return the jobs whose state changed, and those that slurmctld does not know."""
    return {
        job_id: job for job_id, job in found.items() if job is None or is_change(known[job_id], job.job_state)
    }


def is_change(before: JobState, state: JobState) -> bool:
    """Return whether a listed state is a change; for an ended job only an active state is one."""
    return not state.is_final if before.is_final else state is not before


def is_worth_reading(before: JobState, state: JobState | None) -> bool:
    """Return whether to read a job; a job with an unreadable state is read unless it had ended."""
    return not before.is_final if state is None else is_change(before, state)
