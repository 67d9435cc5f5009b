"""Merge the tasks of a job array into one job with one state.

The state of an array follows from the states of its tasks, by the first rule that fits:

1. A task has not ended: a state that is neither final nor waiting, else PENDING, else another waiting state.
2. A task failed: the first of the states in the order of `_WORST_FIRST`, else another failed state.
3. All tasks succeeded: COMPLETED. But an array of which Slurm has forgotten a task is UNKNOWN.

Where several states still fit, the first in the order of `JobState` counts, so RUNNING before SUSPENDED. The
state does not depend on the order in which Slurm lists the tasks: the list of all jobs, the answer about one
array and slurmdbd need not have the same order. The exit code, the signal and the reason are those of the
first listed part in that state.

The record of a small array may say PENDING while tasks run. For the array's own id, the list of states shows
the state of the tasks that wait. While it says PENDING, the poller does not read a small array
(`app/slurm/job_reader.py`). A large array is polled apart (`app/slurm/large_arrays.py`).
"""

from collections import Counter
from collections.abc import Collection, Sequence

from app.job_state import JobState
from app.models.array_indices import format_index_list, indices_to_mask
from app.models.file_pattern import find_common_path
from app.models.job import SlurmJob

_WORST_FIRST = (
    JobState.FAILED,
    JobState.OUT_OF_MEMORY,
    JobState.TIMEOUT,
    JobState.NODE_FAIL,
    JobState.CANCELLED,
)


def merge_array_tasks(job_id: int, parts: Sequence[SlurmJob]) -> SlurmJob:
    """Return the job `job_id`, merged from its tasks if the job is an array.

    Args:
        job_id: The id of the job, or of the whole array.
        parts: What Slurm reports: one part for each task with a job id of its own, one for all others.
    """
    lead = next((part for part in parts if part.job_id == job_id), parts[0])
    if lead.array_job_id != job_id:
        return lead
    counts, failed = _count_tasks(parts)
    state = merge_states(counts)
    decisive = next((part for part in parts if part.job_state is state), lead)
    starts = [part.start_time for part in parts if part.start_time is not None]
    ends = [part.end_time for part in parts if part.end_time is not None]
    return lead.model_copy(
        update={
            "job_id": job_id,
            "job_state": state,
            "exit_code": decisive.exit_code,
            "signal": decisive.signal,
            "reason": decisive.reason,
            "start_time": min(starts, default=None),
            "end_time": max(ends, default=None) if state.is_final else None,
            "restarts": sum(part.restarts for part in parts),
            "held_tasks": sum(part.held_tasks for part in parts),
            "requeued_tasks": sum(part.requeued_tasks for part in parts),
            "array_tasks": counts,
            "failed_tasks": format_index_list(failed) or None,
            "suspended_seconds": min(
                (part.suspended_seconds for part in parts if part.start_time), default=0
            ),
            "standard_output": find_common_path([path for part in parts if (path := part.standard_output)]),
            "standard_error": find_common_path([path for part in parts if (path := part.standard_error)]),
            "nodes": lead.nodes or next((part.nodes for part in parts if part.nodes), None),
            "max_memory_bytes": max((part.max_memory_bytes or 0 for part in parts), default=0) or None,
            "cpu_seconds": sum(part.cpu_seconds or 0 for part in parts) or None,
        }
    )


def _count_tasks(parts: Sequence[SlurmJob]) -> tuple[dict[JobState, int], int]:
    """Return how many tasks are in which state, and the mask of those that ended without success.

    Each task that has a job id of its own is a part, and all others together are one. slurmdbd of 22.05 names
    a task in both, so that the part with fewer tasks counts. A part without indices counts as one task.
    """
    counts = Counter(part.job_state for part in parts if not part.task_mask)
    own = {part.task_index for part in parts if part.task_index is not None}
    failed = indices_to_mask(
        part.task_index for part in parts if part.task_index is not None and part.has_failed
    )
    waiting = ~indices_to_mask(own)
    for part in parts:
        mask = part.task_mask & waiting
        if mask:
            counts[part.job_state] += mask.bit_count()
            failed |= mask if part.has_failed else 0
    return dict(counts), failed


def merge_states(states: Collection[JobState]) -> JobState:
    """Return the state of an array whose tasks are in these states; see the head of this module."""
    found = [state for state in JobState if state in states]
    active = [state for state in found if not state.is_final]
    if active:  # PENDING is the first of all states
        return next((state for state in active if not state.is_waiting), active[0])
    failed = [state for state in found if not state.is_success]
    for state in (*_WORST_FIRST, *failed):
        if state in failed:
            return state
    return JobState.COMPLETED


def require_all_array_tasks(job: SlurmJob, expected: int) -> SlurmJob:
    """Return an array that succeeded as UNKNOWN if tasks are missing.

    Slurm forgets the tasks of an array one by one. A task that is no longer known may have failed.
    """
    if not job.job_state.is_success or job.array_task_count >= expected:
        return job
    return job.model_copy(update={"job_state": JobState.UNKNOWN, "exit_code": None})
