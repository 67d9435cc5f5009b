"""The script and the request body of a task; the scripts are run by a real bash."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.models.job import SlurmJob
from app.models.output_files import output_path
from app.models.slurm_options import SlurmOptions
from app.models.task import Task
from app.slurm.dialect import SPOKEN, Dialect
from app.slurm.job_script import EXIT_CANNOT_CREATE, EXIT_NO_WORKING_DIRECTORY, job_script, slurm_path
from app.slurm.submission import submission
from tests.tasks import make_task

OLD, NEW = Dialect("v0.0.38"), Dialect("v0.0.45")


def task_in(folder: Path, **fields: Any) -> Task:
    return Task.model_validate(make_task(folder=str(folder / "dirs"), **{"cwd": str(folder), **fields}))


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = folder / "script"
    path.write_text(script)
    env = {
        "PATH": "/usr/bin:/bin",
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NAME": "my job",
        "SLURM_JOB_USER": "alice",
    }
    return subprocess.run(
        ["/bin/bash", path],
        env={**env, "SLURMD_NODENAME": "n1", **environment},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_folders_are_made_and_the_command_runs_in_the_working_directory(tmp_path: Path) -> None:
    task = task_in(tmp_path)
    done = run(job_script(task, "pwd; ls dirs; false || exit 5", redirects=False), tmp_path)
    assert (done.returncode, done.stdout) == (5, f"{tmp_path}\nerror\ninput\noutput\n")


def test_the_callers_text_is_evaluated_by_bash_as_it_is(tmp_path: Path) -> None:
    params = [
        "-e",
        '"hello, world! (sent job $SLURM_JOB_ID to $SLURM_JOB_USER at `echo now`)"',
        "'$HOME'",
        "# x",
    ]
    done = run(job_script(task_in(tmp_path), " ".join(["echo", *params]), redirects=False), tmp_path)
    assert done.stdout == "hello, world! (sent job 42 to alice at now) $HOME\n"


@pytest.mark.parametrize(
    "name", ["a b", "it's", '"q"', "$HOME", "$(id)", "`id`", ";id", "-rf", "é", "*", "%j %%", "~"]
)
def test_odd_folders_stay_what_they_are(tmp_path: Path, name: str) -> None:
    task = task_in(tmp_path / name, cwd=str(tmp_path / name / "dirs"))
    done = run(job_script(task, "pwd; echo problem >&2", redirects=True), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "dirs/output/out.txt").read_text() == f"{tmp_path / name / 'dirs'}\n"
    assert (tmp_path / name / "dirs/error/err.txt").read_text() == "problem\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({name, "script"})


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("%j.txt", "42.txt"),
        ("%A_%a", "42_4294967294"),
        ("%x-%u@%N", "my job-alice@n1"),
        ("100%%", "100%"),
        ("%6j %6x %6é", "000042 my job %6é"),
        ("%99999999999999999999A", "0000000042"),
        ("$SLURM_JOB_ID `id` 'x' %q", "$SLURM_JOB_ID `id` 'x' %q"),
    ],
)
def test_slurms_patterns_work_where_the_script_redirects(tmp_path: Path, pattern: str, name: str) -> None:
    task = task_in(tmp_path, slurm={"output": pattern, "job_name": "my job"})
    run(job_script(task, "echo out; echo err >&2", redirects=True), tmp_path)
    assert (tmp_path / "dirs/output" / name).read_text() == "out\nerr\n", (
        "without a file of its own, error joins"
    )
    job = SlurmJob(job_id=42, username="alice", job_state="RUNNING", name="my job", nodes="n1")
    assert output_path(task, job) == str(tmp_path / "dirs/output" / name)


def test_an_array_tasks_pattern_takes_its_numbers(tmp_path: Path) -> None:
    task = task_in(tmp_path, slurm={"output": "%A_%3a"})
    run(
        job_script(task, "echo x", redirects=True), tmp_path, SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="7"
    )
    assert (tmp_path / "dirs/output/40_007").exists()


def test_only_the_error_may_have_a_file(tmp_path: Path) -> None:
    done = run(
        job_script(task_in(tmp_path, slurm={"error": "e"}), "echo out; echo err >&2", redirects=True),
        tmp_path,
    )
    assert (done.stdout, (tmp_path / "dirs/error/e").read_text()) == ("out\n", "err\n")


def test_one_file_for_both_is_not_overwritten(tmp_path: Path) -> None:
    task = task_in(tmp_path, slurm={"output": "o", "error": "o"})
    dirs = task.dirs.model_copy(update={"error": task.dirs.output})
    task = task.model_copy(update={"dirs": dirs})
    run(job_script(task, "echo out; echo err >&2; echo out", redirects=True), tmp_path)
    assert (tmp_path / "dirs/output/o").read_text() == "out\nerr\nout\n"


def test_nothing_runs_where_the_folders_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "dirs").write_text("a file is in the way")
    done = run(job_script(task_in(tmp_path), "echo ran", redirects=False), tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_CANNOT_CREATE, "")
    assert "dirs" in done.stderr


@pytest.mark.parametrize("slurm", [{"output": "é" * 200}, {"output": "o", "error": "%x"}])
def test_nothing_runs_where_an_output_file_cannot_be_made(tmp_path: Path, slurm: dict[str, str]) -> None:
    (tmp_path / "dirs/error/my job").mkdir(parents=True)
    done = run(job_script(task_in(tmp_path, slurm=slurm), "touch ran", redirects=True), tmp_path)
    assert (done.returncode, (tmp_path / "ran").exists()) == (EXIT_CANNOT_CREATE, False)


def test_nothing_runs_outside_the_working_directory(tmp_path: Path) -> None:
    done = run(
        job_script(task_in(tmp_path, cwd=str(tmp_path / "gone")), "echo ran", redirects=False), tmp_path
    )
    assert (done.returncode, done.stdout) == (EXIT_NO_WORKING_DIRECTORY, "")


def test_the_folders_are_made_whatever_path_the_caller_sets(tmp_path: Path) -> None:
    done = run(job_script(task_in(tmp_path), "echo ran", redirects=False), tmp_path, PATH="/nowhere")
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_a_folder_is_no_pattern_for_slurm() -> None:
    assert slurm_path("/a/50%j/", "%j.txt") == "/a/50%%j/%j.txt"


@pytest.mark.parametrize("stream", ["output", "error"])
@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        ("job_name", "%x"),
        ("SLURM_JOB_NAME", "%9x"),
        ("SLURM_ARRAY_JOB_ID", "%A"),
        ("SLURM_ARRAY_TASK_ID", "%2a"),
    ],
)
def test_no_pattern_leads_a_file_out_of_its_folder(stream: str, source: str, pattern: str) -> None:
    away = {"job_name": "../x"} if source == "job_name" else {"environment": {source: "../x"}}
    for harmless in ("%j", "%%x", "%%A", "%%a"):
        assert SlurmOptions.model_validate({stream: harmless, **away})
    with pytest.raises(ValidationError, match=f"a / in {source} while the name of a file has %{pattern[-1]}"):
        SlurmOptions.model_validate({stream: f"a{pattern}b", **away})


# --- the request body ------------------------------------------------------------------------


def body(slurm: dict[str, Any], dialect: Dialect, time_unit: str = "hours") -> dict[str, Any]:
    task = Task.model_validate(make_task(folder="/d", slurm=slurm))
    return submission(task, "true", "slurm-proxy:u", dialect, time_unit)


def test_absent_options_are_not_sent() -> None:
    always = {"comment", "current_working_directory", "environment"}
    for api in SPOKEN:
        assert body({}, Dialect(api))["job"].keys() == always


@pytest.mark.parametrize("dialect", [OLD, NEW])
def test_hours_are_hours_and_memory_is_for_the_node(dialect: Dialect) -> None:
    job = body({"time": 5, "mem": 1000, "nodes": 2, "ntasks_per_node": 3, "cpus_per_task": 4}, dialect)["job"]
    assert job["time_limit"] == 300
    assert job["memory_per_node"] == 1000
    assert (job["nodes"], job["tasks_per_node"], job["tasks"], job["cpus_per_task"]) == ("2", 3, 6, 4)
    assert body({"time": 5}, dialect, "minutes")["job"]["time_limit"] == 5
    assert body({"time_minutes": 7}, dialect)["job"]["time_limit"] == 7


def test_the_environment_has_the_form_of_the_version() -> None:
    environment = {"A": "x=y z", "PATH": "/bin"}
    assert body({"environment": environment}, OLD)["job"]["environment"] == environment
    assert body({"environment": environment}, NEW)["job"]["environment"] == ["A=x=y z", "PATH=/bin"]
    for given in ("PATH=/bin/:/usr/bin/:/sbin/", [], {}):
        assert body({"environment": given}, NEW)["job"]["environment"] == ["PATH=/bin/:/usr/bin/:/sbin/"]


def test_the_tag_comes_before_the_callers_comment() -> None:
    assert body({"comment": "mine"}, NEW)["job"]["comment"] == "slurm-proxy:u mine"


def test_slurm_owns_the_files_where_it_makes_folders() -> None:
    new, old = body({"output": "o.%j", "error": "e"}, NEW), body({"output": "o.%j", "error": "e"}, OLD)
    assert (new["job"]["standard_output"], new["job"]["standard_error"]) == ("/d/output/o.%j", "/d/error/e")
    assert "exec" not in new["script"]
    assert old["job"]["standard_output"] == "/dev/null"
    assert "standard_error" not in old["job"]
    assert 'exec >/d/output/o."$SLURM_JOB_ID" 2>/d/error/e' in old["script"]


def test_each_version_has_its_names() -> None:
    slurm = {
        "constraint": "c",
        "exclusive": True,
        "begin": 1800000000,
        "gres": "gpu:1,shard:2",
        "gpus_per_node": 3,
        "nodelist": "n[1-2]",
        "exclude": "n3",
        "time_min": 9,
        "gpus": "a100:4",
    }
    new, old = body(slurm, NEW)["job"], body(slurm, OLD)["job"]
    assert (new["constraints"], old["constraints"]) == ("c", "c")
    assert (new["shared"], old["exclusive"]) == (["none"], "exclusive")
    assert (new["begin_time"], old["begin_time"]) == (1800000000, "uts1800000000")
    assert new["tres_per_node"] == "gres/gpu:1,gres/shard:2,gres/gpu:3"
    assert (old["gres"], old["gpus_per_node"]) == ("gpu:1,shard:2", "3")
    assert (new["tres_per_job"], old["gpus"]) == ("gres/gpu:a100:4", "a100:4")
    assert (new["required_nodes"], old["nodelist"]) == ("n[1-2]", "n[1-2]")
    assert (new["excluded_nodes"], old["exclude_nodes"]) == ("n3", "n3")
    assert new["time_minimum"] == old["time_minimum"] == 9
    assert "shared" not in body({"exclusive": False}, NEW)["job"]
