"""How the indices of an array's tasks are read, counted and written."""

import tracemalloc

import pytest

from app.job_state import JobState
from app.models.array_indices import format_index_list, parse_hex_mask, parse_index_list
from app.models.array_merging import merge_array_tasks
from app.models.job import SlurmJob


def indices(mask: int) -> list[int]:
    return [index for index in range(mask.bit_length()) if mask >> index & 1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0-9%1", list(range(10))),
        ("2-9%1", list(range(2, 10))),
        ("7", [7]),
        ("0-8:4,5", [0, 4, 5, 8]),
        ("1,3,5,...", [1, 3, 5]),
        ("", []),
        ("9-2", []),
        ("0-4:0", []),
        ("0-99999999", []),
        ("nonsense", []),
    ],
)
def test_parse_index_list_has_the_listed_indices(text: str, expected: list[int]) -> None:
    assert indices(parse_index_list(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0x1C", [2, 3, 4]), ("0x3FC", list(range(2, 10))), ("", []), ("1C", []), ("0xZZ", [])],
)
def test_parse_hex_mask_has_the_set_bits(text: str, expected: list[int]) -> None:
    assert indices(parse_hex_mask(text)) == expected


@pytest.mark.parametrize("text", ["", "0", "2,7-9", "0-3", "1,3,5", "4000000"])
def test_format_index_list_writes_what_parse_index_list_reads(text: str) -> None:
    assert format_index_list(parse_index_list(text)) == text


def test_format_index_list_of_very_many_ranges_is_cut() -> None:
    text = format_index_list(parse_index_list("0-100000:2"))
    assert text.startswith("0,2,4,")
    assert text.endswith(",198,…")


def part(job_id: int, state: JobState, tasks: str, **fields: int) -> SlurmJob:
    return SlurmJob(
        job_id=job_id,
        username="alice",
        job_state=state,
        array_job_id=100,
        task_index=int(tasks) if tasks.isdigit() else None,
        task_mask=0 if tasks.isdigit() else parse_index_list(tasks),
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("parts", "state", "counts", "failed"),
    [
        (
            [part(100, JobState.PENDING, "1-9"), part(101, JobState.RUNNING, "0")],
            JobState.RUNNING,
            {JobState.PENDING: 9, JobState.RUNNING: 1},
            None,
        ),
        ([part(100, JobState.CANCELLED, "0-9")], JobState.CANCELLED, {JobState.CANCELLED: 10}, "0-9"),
        (  # slurmdbd of 22.05 names a started task also in the mask of those that are not
            [part(100, JobState.CANCELLED, "1-9"), part(101, JobState.COMPLETED, "1")],
            JobState.CANCELLED,
            {JobState.CANCELLED: 8, JobState.COMPLETED: 1},
            "2-9",
        ),
        (
            [
                part(100, JobState.COMPLETED, "3"),
                part(101, JobState.FAILED, "0"),
                part(102, JobState.TIMEOUT, "1"),
                part(103, JobState.COMPLETED, "2"),
            ],
            JobState.FAILED,
            {JobState.COMPLETED: 2, JobState.FAILED: 1, JobState.TIMEOUT: 1},
            "0-1",
        ),
        (
            [part(100, JobState.COMPLETED, "1"), part(101, JobState.SPECIAL_EXIT, "0")],
            JobState.SPECIAL_EXIT,
            {JobState.COMPLETED: 1, JobState.SPECIAL_EXIT: 1},
            None,
        ),
        (
            [part(100, JobState.PENDING, "1"), part(101, JobState.SPECIAL_EXIT, "0")],
            JobState.PENDING,
            {JobState.PENDING: 1, JobState.SPECIAL_EXIT: 1},
            None,
        ),
        (
            [part(100, JobState.COMPLETED, "0"), part(101, JobState.COMPLETED, "1")],
            JobState.COMPLETED,
            {JobState.COMPLETED: 2},
            None,
        ),
        ([part(100, JobState.PENDING, "")], JobState.PENDING, {JobState.PENDING: 1}, None),
    ],
)
def test_an_array_is_merged_from_its_tasks(
    parts: list[SlurmJob], state: JobState, counts: dict[JobState, int], failed: str | None
) -> None:
    job = merge_array_tasks(100, parts)
    assert (job.job_id, job.job_state, job.failed_tasks) == (100, state, failed)
    assert job.array_tasks == counts


def test_an_array_counts_the_restarts_of_its_tasks() -> None:
    parts = [part(100, JobState.COMPLETED, "0"), part(101, JobState.PENDING, "1", restarts=2)]
    assert merge_array_tasks(100, parts).restarts == 2


@pytest.mark.parametrize("name", ["task_mask", "task_index"])
def test_the_indices_of_a_part_are_not_stored(name: str) -> None:
    assert name not in part(100, JobState.PENDING, "0-9").model_dump()
    assert name not in part(100, JobState.PENDING, "0").model_dump_json()


def test_ten_thousand_tasks_with_large_indices_are_merged_with_little_memory() -> None:
    parts = [part(101 + index, JobState.FAILED, str(3_980_000 + index)) for index in range(10_000)]
    tracemalloc.start()
    job = merge_array_tasks(100, [part(100, JobState.PENDING, ""), *parts])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert job.array_tasks == {JobState.PENDING: 1, JobState.FAILED: 10_000}
    assert job.failed_tasks == "3980000-3989999"
    assert peak < 10_000_000
