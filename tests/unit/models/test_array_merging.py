"""The state of an array as a table: from the states of its tasks to the state of the whole array."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from app.job_state import JobState
from app.models.array_indices import parse_index_list
from app.models.array_merging import merge_array_tasks, merge_states, require_all_array_tasks
from app.models.job import SlurmJob

ARRAY = 100
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

# The states of the tasks, and the state of their array. Each row holds in every order of the tasks.
STATES = [
    # All tasks ended, and all of them succeeded.
    ("COMPLETED", "COMPLETED"),
    ("COMPLETED COMPLETED COMPLETED", "COMPLETED"),
    # All tasks ended, and one of them did not succeed: never COMPLETED.
    ("COMPLETED FAILED", "FAILED"),
    ("COMPLETED OUT_OF_MEMORY", "OUT_OF_MEMORY"),
    ("COMPLETED TIMEOUT", "TIMEOUT"),
    ("COMPLETED NODE_FAIL", "NODE_FAIL"),
    ("COMPLETED CANCELLED", "CANCELLED"),
    ("COMPLETED BOOT_FAIL", "BOOT_FAIL"),
    ("COMPLETED DEADLINE", "DEADLINE"),
    ("COMPLETED LAUNCH_FAILED", "LAUNCH_FAILED"),
    ("COMPLETED PREEMPTED", "PREEMPTED"),
    ("COMPLETED REVOKED", "REVOKED"),
    # Several tasks failed: the worst state counts, whatever the number of the others.
    ("FAILED OUT_OF_MEMORY", "FAILED"),
    ("OUT_OF_MEMORY TIMEOUT", "OUT_OF_MEMORY"),
    ("TIMEOUT NODE_FAIL", "TIMEOUT"),
    ("NODE_FAIL CANCELLED", "NODE_FAIL"),
    ("CANCELLED BOOT_FAIL", "CANCELLED"),
    ("CANCELLED PREEMPTED", "CANCELLED"),
    ("DEADLINE PREEMPTED", "DEADLINE"),
    ("BOOT_FAIL LAUNCH_FAILED REVOKED", "BOOT_FAIL"),
    ("CANCELLED CANCELLED CANCELLED FAILED", "FAILED"),
    ("COMPLETED COMPLETED COMPLETED TIMEOUT", "TIMEOUT"),
    # A task runs: so does the array, whatever else has happened.
    ("RUNNING", "RUNNING"),
    ("RUNNING PENDING", "RUNNING"),
    ("RUNNING COMPLETED", "RUNNING"),
    ("RUNNING FAILED", "RUNNING"),
    ("RUNNING PENDING COMPLETED FAILED", "RUNNING"),
    ("RUNNING REQUEUED", "RUNNING"),
    ("SUSPENDED PENDING COMPLETED", "SUSPENDED"),
    ("COMPLETING PENDING FAILED", "COMPLETING"),
    ("CONFIGURING PENDING", "CONFIGURING"),
    ("RUNNING SUSPENDED", "RUNNING"),
    ("RUNNING COMPLETING CONFIGURING UNKNOWN", "RUNNING"),
    ("SUSPENDED COMPLETING", "SUSPENDED"),
    ("UNKNOWN COMPLETED", "UNKNOWN"),
    ("UNKNOWN FAILED", "UNKNOWN"),
    # No task runs, and one of them waits: the array waits, although another task has failed.
    ("PENDING", "PENDING"),
    ("PENDING COMPLETED", "PENDING"),
    ("PENDING FAILED", "PENDING"),
    ("PENDING CANCELLED TIMEOUT", "PENDING"),
    ("PENDING SPECIAL_EXIT", "PENDING"),
    ("PENDING REQUEUE_HOLD COMPLETED", "PENDING"),
    ("SPECIAL_EXIT COMPLETED", "SPECIAL_EXIT"),
    ("REQUEUED FAILED", "REQUEUED"),
    ("REQUEUED REQUEUE_HOLD", "REQUEUED"),
]


def states_of(names: str) -> list[JobState]:
    return [JobState(name) for name in names.split()]


def task(job_id: int, state: str, index: int | str = "", **fields: Any) -> SlurmJob:
    """Return one task with an index, or all tasks in a list of indices such as "2-9"."""
    own = {"task_index": index} if isinstance(index, int) else {"task_mask": parse_index_list(index)}
    return SlurmJob(
        job_id=job_id,
        username="alice",
        job_state=JobState(state),
        array_job_id=ARRAY,
        **own,  # type: ignore[arg-type]
        **fields,
    )


def array_of(names: str) -> list[SlurmJob]:
    """Return tasks in these states. The last one has the job id of the array, as in Slurm."""
    states = states_of(names)
    last = len(states) - 1
    return [task(ARRAY if n == last else ARRAY + 1 + n, state, n) for n, state in enumerate(states)]


@pytest.mark.parametrize(("tasks", "expected"), STATES)
def test_merge_states_follows_the_table_in_every_order(tasks: str, expected: str) -> None:
    assert {merge_states(order) for order in permutations(states_of(tasks))} == {JobState(expected)}


@pytest.mark.parametrize(("tasks", "expected"), STATES)
def test_merge_array_tasks_takes_its_state_from_the_table(tasks: str, expected: str) -> None:
    job = merge_array_tasks(ARRAY, array_of(tasks))
    assert (job.job_id, job.job_state) == (ARRAY, JobState(expected))


@pytest.mark.parametrize("state", JobState)
def test_merge_states_of_equal_tasks_is_their_state(state: JobState) -> None:
    assert merge_states([state]) is state
    assert merge_states([state, state]) is state


@pytest.mark.parametrize("state", [state for state in JobState if not state.is_success])
def test_merge_states_is_never_completed_with_a_task_that_is_not(state: JobState) -> None:
    assert merge_states([JobState.COMPLETED, state]) is state
    assert merge_states([state, JobState.COMPLETED]) is state


@pytest.mark.parametrize("active", [state for state in JobState if not state.is_final])
def test_merge_states_is_not_final_while_a_task_is_active(active: JobState) -> None:
    final = [state for state in JobState if state.is_final]
    assert all(merge_states([state, active]) is active for state in final)


# --- counts, and the indices of failed tasks ------------------------------------------------------

# The tasks, how many are in which state, and the indices of those that did not succeed.
COUNTS: list[tuple[list[SlurmJob], dict[str, int], str | None]] = [
    ([task(100, "PENDING", "0-9")], {"PENDING": 10}, None),
    ([task(100, "PENDING", "1-9"), task(101, "RUNNING", 0)], {"PENDING": 9, "RUNNING": 1}, None),
    ([task(100, "PENDING", "0-8:4")], {"PENDING": 3}, None),
    ([task(100, "CANCELLED", "0-9")], {"CANCELLED": 10}, "0-9"),
    (
        [task(100, "CANCELLED", "5-9"), task(101, "COMPLETED", 0), task(102, "FAILED", 1)],
        {"CANCELLED": 5, "COMPLETED": 1, "FAILED": 1},
        "1,5-9",
    ),
    (
        [task(100, "COMPLETED", 2), task(101, "TIMEOUT", 0), task(102, "TIMEOUT", 1)],
        {"COMPLETED": 1, "TIMEOUT": 2},
        "0-1",
    ),
    # slurmdbd of 22.05 lists a task that has begun among those that have not, too: it counts once.
    ([task(100, "CANCELLED", "1-9"), task(101, "COMPLETED", 1)], {"CANCELLED": 8, "COMPLETED": 1}, "2-9"),
    ([task(100, "CANCELLED", "0-1"), task(101, "FAILED", 0)], {"CANCELLED": 1, "FAILED": 1}, "0-1"),
    # A part without indices is one task.
    ([task(100, "PENDING")], {"PENDING": 1}, None),
    ([task(100, "FAILED")], {"FAILED": 1}, None),
    # A task that still runs has not failed, and neither has one that waits to run again.
    ([task(100, "RUNNING", 1), task(101, "SPECIAL_EXIT", 0)], {"RUNNING": 1, "SPECIAL_EXIT": 1}, None),
]


@pytest.mark.parametrize(("tasks", "counts", "failed"), COUNTS)
def test_merge_array_tasks_counts_each_task_once(
    tasks: list[SlurmJob], counts: dict[str, int], failed: str | None
) -> None:
    for order in permutations(tasks):
        job = merge_array_tasks(ARRAY, order)
        assert job.array_tasks == {JobState(state): count for state, count in counts.items()}
        assert job.failed_tasks == failed
        assert job.array_task_count == sum(counts.values())


# --- the other fields of the merged job -----------------------------------------------------------


def at(minutes: int) -> datetime:
    return START + timedelta(minutes=minutes)


def ended_array() -> list[SlurmJob]:
    return [
        task(
            100,
            "COMPLETED",
            2,
            exit_code=0,
            reason="Fine",
            start_time=at(4),
            end_time=at(9),
            restarts=1,
            suspended_seconds=60,
            max_memory_bytes=10,
            cpu_seconds=1.5,
            nodes="node3",
            standard_output="/home/alice/out-2.txt",
            standard_error="/home/alice/errors/2.txt",
        ),
        task(
            101,
            "TIMEOUT",
            0,
            signal=15,
            reason="TimeLimit",
            start_time=at(1),
            end_time=at(7),
            restarts=2,
            suspended_seconds=30,
            max_memory_bytes=30,
            cpu_seconds=2.5,
            nodes="node1",
            standard_output="/home/alice/out-0.txt",
            standard_error="/home/alice/errors/0.txt",
        ),
        task(102, "CANCELLED", 1, reason="Dependency", end_time=at(8)),
    ]


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("exit_code", None),  # of the task whose state counts
        ("signal", 15),
        ("reason", "TimeLimit"),
        ("start_time", at(1)),  # the first start
        ("end_time", at(9)),  # the last end
        ("restarts", 3),  # of all tasks
        ("suspended_seconds", 30),  # the shortest, of tasks that began
        ("max_memory_bytes", 30),  # the largest
        ("cpu_seconds", 4.0),  # of all tasks
        ("nodes", "node3"),  # of the task with the id of the array
        ("username", "alice"),
    ],
)
def test_merge_array_tasks_merges_each_field_by_its_rule(field: str, expected: object) -> None:
    for order in permutations(ended_array()):
        assert getattr(merge_array_tasks(ARRAY, order), field) == expected


def test_merge_array_tasks_has_no_end_while_a_task_is_active() -> None:
    parts = [*ended_array()[1:], task(100, "PENDING", 2)]
    job = merge_array_tasks(ARRAY, parts)
    assert (job.job_state, job.start_time, job.end_time) == (JobState.PENDING, at(1), None)


def test_merge_array_tasks_names_the_folder_of_the_output_files() -> None:
    job = merge_array_tasks(ARRAY, ended_array())
    assert (job.standard_output, job.standard_error) == ("/home/alice/", "/home/alice/errors/")


def test_merge_array_tasks_without_figures_has_none() -> None:
    job = merge_array_tasks(ARRAY, array_of("COMPLETED COMPLETED"))
    assert (job.max_memory_bytes, job.cpu_seconds, job.suspended_seconds) == (None, None, 0)


def test_merge_array_tasks_has_the_id_of_the_array_although_no_task_has_it() -> None:
    job = merge_array_tasks(ARRAY, [task(101, "COMPLETED", 0), task(102, "COMPLETED", 1)])
    assert (job.job_id, job.array_job_id, job.job_state) == (ARRAY, ARRAY, JobState.COMPLETED)


def test_merge_array_tasks_returns_a_job_that_is_no_array_unchanged() -> None:
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.FAILED)
    assert merge_array_tasks(7, [job]) is job


def test_merge_array_tasks_returns_a_single_task_of_another_array_unchanged() -> None:
    one = task(101, "FAILED", 0)
    assert merge_array_tasks(101, [task(102, "RUNNING", 1), one]) is one


# --- arrays of which Slurm has forgotten tasks ----------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "expected", "state"),
    [
        ("COMPLETED COMPLETED", 2, "COMPLETED"),
        ("COMPLETED COMPLETED", 1, "COMPLETED"),
        ("COMPLETED COMPLETED", 3, "UNKNOWN"),  # the third one may have failed
        ("COMPLETED FAILED", 3, "FAILED"),  # which is true whatever the third one did
        ("COMPLETED RUNNING", 3, "RUNNING"),
    ],
)
def test_require_all_array_tasks_trusts_no_success_of_a_part(tasks: str, expected: int, state: str) -> None:
    job = merge_array_tasks(ARRAY, array_of(tasks)).model_copy(update={"exit_code": 0})
    checked = require_all_array_tasks(job, expected)
    assert checked.job_state is JobState(state)
    assert checked.exit_code == (None if state == "UNKNOWN" else 0)
