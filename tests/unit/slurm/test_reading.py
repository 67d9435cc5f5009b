"""How jobs are read, in the words of real servers of each release."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.job_state import JobState
from app.models.array_merging import merge_array_tasks
from app.models.job import SlurmJob
from app.slurm.reading import read_accounting_job, read_controller_job

AT = 1795637783


def number(value: int | None) -> dict[str, Any]:
    return {"set": value is not None, "infinite": False, "number": value or 0}


def of_22_05(state: str = "COMPLETED", **fields: Any) -> dict[str, Any]:
    base = {"job_id": 7, "user_name": "alice", "name": "nm", "job_state": state, "batch_flag": True}
    times = {"submit_time": AT, "start_time": AT, "end_time": AT, "suspend_time": 0, "pre_sus_time": 0}
    files = {"current_working_directory": "/home/alice", "standard_output": "", "standard_error": ""}
    array = {"array_job_id": 0, "array_task_id": None}
    return {**base, **times, **files, **array, "nodes": "n1", "exit_code": 0, **fields}


def of_24_11(state: str = "COMPLETED", **fields: Any) -> dict[str, Any]:
    old = of_22_05(state, **fields)
    words = {"job_state": [state], "exit_code": {"status": ["SUCCESS"], "return_code": number(0)}}
    numbers = ("start_time", "end_time", "suspend_time", "pre_sus_time", "array_job_id", "array_task_id")
    return {**old, **words, **{name: number(old[name]) for name in numbers}}


def of_slurmdbd(state: str = "COMPLETED", **fields: Any) -> dict[str, Any]:
    times = {"submission": AT, "start": AT, "end": AT, "elapsed": 0, "suspended": 0}
    words = {"state": {"current": [state]}, "exit_code": {"status": ["SUCCESS"], "return_code": number(0)}}
    array = {"job_id": 0, "task_id": number(None)}
    return {"job_id": 7, "user": "alice", **words, "time": times, "nodes": "n1", "array": array, **fields}


@pytest.mark.parametrize(
    "job",
    [
        read_controller_job(of_22_05("CANCELLED", nodes="")),
        read_controller_job(of_24_11("CANCELLED", nodes="")),
        read_controller_job(of_24_11("DEADLINE", nodes="")),
        read_accounting_job(of_slurmdbd("CANCELLED", nodes="None assigned")),
        read_accounting_job(
            of_slurmdbd(
                "CANCELLED",
                nodes="None assigned",
                time={"submission": AT, "start": 4294967294, "end": AT, "suspended": 0},
            )
        ),
    ],
)
def test_a_job_that_was_cancelled_before_it_began_never_ran(job: SlurmJob) -> None:
    assert job.never_ran
    assert (job.start_time, job.elapsed_seconds(), job.exit_code, job.signal) == (None, None, None, None)
    assert job.end_time == datetime.fromtimestamp(AT, UTC)


def test_a_job_that_was_cancelled_while_it_ran_did_run() -> None:
    for job in (
        read_controller_job(of_24_11("CANCELLED")),
        read_accounting_job(of_slurmdbd("CANCELLED")),
        read_controller_job(of_22_05()),
    ):
        assert (job.never_ran, job.elapsed_seconds()) == (False, 0)


@pytest.mark.parametrize("form", [of_22_05, of_24_11])
def test_suspended_time_is_left_out_of_the_run_time(form: Any) -> None:
    times = {"start_time": AT, "suspend_time": AT + 13, "pre_sus_time": 3}
    ended = read_controller_job(form(end_time=AT + 20, **times))
    assert (ended.suspended_seconds, ended.elapsed_seconds()) == (10, 10)
    running = read_controller_job(form("RUNNING", **times))
    assert running.elapsed_seconds_until(datetime.fromtimestamp(AT + 33, UTC)) == 23
    killed = {"suspend_time": AT + 3, "pre_sus_time": 3, "end_time": AT + 3}
    assert read_controller_job(form("CANCELLED", **killed)).elapsed_seconds() == 3
    requeued = {"suspend_time": AT - 60, "pre_sus_time": 5, "end_time": AT + 9}
    assert read_controller_job(form(**requeued)).elapsed_seconds() == 9


def test_slurmdbd_tells_the_suspended_time() -> None:
    times = {"submission": AT, "start": AT, "end": AT + 13, "elapsed": 3, "suspended": 10}
    assert read_accounting_job(of_slurmdbd(time=times)).elapsed_seconds() == 3


@pytest.mark.parametrize(
    ("fields", "output", "error"),
    [
        ({}, "/home/alice/slurm-7.out", "/home/alice/slurm-7.out"),
        ({"standard_output": "/o/%x.%j%%"}, "/o/nm.7%", "/o/nm.7%"),
        ({"standard_output": "o", "standard_error": "/e/%6A.%a"}, "/home/alice/o", "/e/000007.4294967294"),
        ({"standard_output": "/o.%N"}, "/o.%N", "/o.%N"),
        ({"name": "", "standard_output": "/%x"}, "/(null)", "/(null)"),
        ({"array_job_id": 5, "array_task_id": 3}, "/home/alice/slurm-5_3.out", "/home/alice/slurm-5_3.out"),
        ({"array_job_id": 7}, "/home/alice/slurm-7_%a.out", "/home/alice/slurm-7_%a.out"),
        ({"batch_flag": False}, None, None),
    ],
)
def test_the_files_of_a_job_elsewhere_are_worked_out_where_slurm_22_05_gives_patterns(
    fields: dict[str, Any], output: str | None, error: str | None
) -> None:
    job = read_controller_job(of_22_05(**fields))
    assert (job.standard_output, job.standard_error) == (output, error)


def test_the_files_of_a_job_elsewhere_are_slurms_word_on_newer_releases() -> None:
    job = read_controller_job(of_24_11(standard_output="/o/100%", standard_error="/e/%j"))
    assert (job.standard_output, job.standard_error) == ("/o/100%", "/e/%j"), "expanded already"
    expanded = {"standard_output": "o-%j", "stdout_expanded": "/h/o-7", "stderr_expanded": ""}
    job = read_controller_job(of_24_11(**expanded))
    assert (job.standard_output, job.standard_error) == ("/h/o-7", "/h/o-7")
    interactive: dict[str, Any] = {"batch_flag": False, "stdout_expanded": "", "stderr_expanded": ""}
    assert read_controller_job(of_24_11(**interactive)).standard_output is None
    waiting = read_controller_job(
        of_24_11("PENDING", array_job_id=7, standard_output="/h/slurm-7_4294967294.out")
    )
    assert waiting.standard_output == "/h/slurm-7_%a.out"
    job = read_accounting_job(
        of_slurmdbd(stdout="o-%j", stdout_expanded="/h/o-7", stderr="", stderr_expanded="")
    )
    assert (job.standard_output, job.standard_error) == ("/h/o-7", "/h/o-7")
    assert read_accounting_job(of_slurmdbd(stdout=None, stdout_expanded=None)).standard_output is None


def test_an_array_elsewhere_names_the_one_file_or_the_folder_of_its_tasks() -> None:
    def array(*paths: str | None) -> SlurmJob:
        parts = [
            SlurmJob(
                job_id=7 + task,
                username="alice",
                job_state=JobState.RUNNING,
                array_job_id=7,
                standard_output=path,
            )
            for task, path in enumerate(paths)
        ]
        return merge_array_tasks(7, parts)

    assert array("/h/one", "/h/one").standard_output == "/h/one"
    assert array("/h/a/1.out", "/h/a/2.out", None).standard_output == "/h/a/"
    assert array("/h/1/out", "/h/22/out").standard_output == "/h/"
    assert array(None).standard_output is None
