"""The script and the request body of a task; the scripts are run by a real bash."""

import os
import pwd
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.errors import InvalidRequest
from app.models.catalogue_entry import CatalogueEntry
from app.models.file_pattern import FilePattern
from app.models.job import SlurmJob
from app.models.output_files import derive_file_patterns, find_first_node, find_output_files
from app.models.record import RecordKind, TaskRecord
from app.models.task import Task, parse_request
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.job_script import EXIT_CANNOT_CREATE, EXIT_NO_WORKING_DIRECTORY, build_job_script
from app.slurm.submission import build_submission
from tests.support.tasks import make_task

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD, NEW = Dialect("v0.0.38"), Dialect("v0.0.45")


def task_in(folder: Path, **fields: Any) -> Task:
    return Task.model_validate(make_task(folder=str(folder / "dirs"), **{"cwd": str(folder), **fields}))


def script_of(task: Task, command: str) -> str:
    """Return the script that redirects the output itself."""
    return build_job_script(task, command, derive_file_patterns(task.model_dump()))


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
    done = run(build_job_script(task, "pwd; ls dirs; false || exit 5"), tmp_path)
    assert (done.returncode, done.stdout) == (5, f"{tmp_path}\nerror\ninput\noutput\n")


def test_the_callers_text_is_evaluated_by_bash_as_it_is(tmp_path: Path) -> None:
    params = [
        "-e",
        '"hello, world! (sent job $SLURM_JOB_ID to $SLURM_JOB_USER at `echo now`)"',
        "'$HOME'",
        "# x",
    ]
    done = run(build_job_script(task_in(tmp_path), " ".join(["echo", *params])), tmp_path)
    assert done.stdout == "hello, world! (sent job 42 to alice at now) $HOME\n"


@pytest.mark.parametrize(
    "entry", [CatalogueEntry(), CatalogueEntry(cmd="printf", default_params=("'<%s>'",))]
)
def test_argv_reaches_the_command_word_by_word(tmp_path: Path, entry: CatalogueEntry) -> None:
    words = [
        "a b",
        "it's",
        "",
        "$HOME",
        "`id`",
        '"',
        "\\",
        "*",
        "a\nb",
        "~",
        "-n",
        "A=b",
        "time",
        "# no",
        "ä",
    ]
    argv = words if entry.cmd else ["printf", "<%s>", *words]
    task = task_in(tmp_path, argv=argv, cmd=None, params=None)
    done = run(build_job_script(task, entry.build_command(task)), tmp_path)
    assert done.stdout == "".join(f"<{word}>" for word in words)


@pytest.mark.parametrize("word", ["time", "A=b", "if", "{", "!", "[["])
def test_first_word_of_argv_is_a_command_and_no_syntax_of_bash(tmp_path: Path, word: str) -> None:
    task = task_in(tmp_path, argv=[word, "true"], cmd=None, params=None)
    done = run(build_job_script(task, CatalogueEntry().build_command(task)), tmp_path, PATH=str(tmp_path))
    assert done.returncode == 127, done
    assert "command not found" in done.stderr


def test_the_script_gives_the_command_the_variables_of_its_user(tmp_path: Path) -> None:
    command = (
        'printf "%s\\n" "$HOME" "$USER" "$LOGNAME" "$SHELL"; env | grep -Ec "^(HOME|USER|LOGNAME|SHELL)="'
    )
    script = build_job_script(task_in(tmp_path), command)
    me = pwd.getpwuid(os.geteuid())
    assert run(script, tmp_path).stdout.split() == [me.pw_dir, "alice", "alice", me.pw_shell, "4"]
    given = {"HOME": "/a", "USER": "b", "LOGNAME": "c", "SHELL": "/d"}
    assert run(script, tmp_path, **given).stdout.split() == [*given.values(), "4"]


@pytest.mark.parametrize(
    "name", ["a b", "it's", '"q"', "$HOME", "$(id)", "`id`", ";id", "-rf", "é", "*", "%j %%", "~"]
)
def test_odd_folders_stay_what_they_are(tmp_path: Path, name: str) -> None:
    task = task_in(tmp_path / name, cwd=str(tmp_path / name / "dirs"))
    done = run(script_of(task, "pwd; echo problem >&2"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "dirs/output/out.txt").read_text() == f"{tmp_path / name / 'dirs'}\n"
    assert (tmp_path / name / "dirs/error/err.txt").read_text() == "problem\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({name, "script"})


PATTERNS = [
    ("%j.txt", "42.txt"),
    ("%A_%a", "42_4294967294"),
    ("%x-%u@%N", "my job-alice@n1"),
    ("100%%", "100%"),
    ("%6j %6x %3N", "000042 my job n1"),
    ("%0j%00A%12a", "42424294967294"),
    ("%99999999999999999999A", "0000000042"),
    ("$SLURM_JOB_ID `id` 'x' %%q", "$SLURM_JOB_ID `id` 'x' %q"),
]


def record_of(task: Task, kind: RecordKind = RecordKind.SUBMITTED) -> TaskRecord:
    sent = task.model_dump(mode="json", exclude_none=True)
    return TaskRecord(kind=kind, task=sent, slurm_username="alice", created_at=NOW, updated_at=NOW)


def job_of(state: str = "RUNNING", **fields: Any) -> SlurmJob:
    base = {"job_id": 42, "username": "alice", "job_state": state, "name": "my job", "nodes": "n1"}
    return SlurmJob.model_validate({**base, "start_time": NOW, **fields})


@pytest.mark.parametrize(("pattern", "name"), PATTERNS)
def test_slurms_patterns_work_where_the_script_redirects(tmp_path: Path, pattern: str, name: str) -> None:
    task = task_in(tmp_path, slurm={"output": pattern, "job_name": "my job"})
    run(script_of(task, "echo out; echo err >&2"), tmp_path)
    assert (tmp_path / "dirs/output" / name).read_text() == "out\nerr\n", (
        "without a file of its own, error joins"
    )
    path = str(tmp_path / "dirs/output" / name)
    assert find_output_files(record_of(task), job_of()) == (path, path)


def test_an_array_tasks_pattern_takes_its_numbers(tmp_path: Path) -> None:
    task = task_in(tmp_path, slurm={"output": "%A_%3a", "array": "0-9"})
    run(script_of(task, "echo x"), tmp_path, SLURM_ARRAY_JOB_ID="40", SLURM_ARRAY_TASK_ID="7")
    assert (tmp_path / "dirs/output/40_007").exists()


def test_the_callers_variables_do_not_name_the_files_of_a_job_that_is_no_array(tmp_path: Path) -> None:
    task = task_in(tmp_path, slurm={"output": "%A_%a"})
    run(script_of(task, "echo x"), tmp_path, SLURM_ARRAY_JOB_ID="../1", SLURM_ARRAY_TASK_ID="7")
    assert (tmp_path / "dirs/output/42_4294967294").exists()


@pytest.mark.parametrize("array", [None, "0-9"])
def test_without_a_name_output_goes_to_slurms_default_file_in_the_working_directory(
    tmp_path: Path, array: str | None
) -> None:
    task = task_in(tmp_path, cwd=str(tmp_path / "dirs/50%j"), slurm={"error": "e", "array": array})
    task = task.model_copy(update={"dirs": task.dirs.model_copy(update={"parent": task.cwd})})
    run(
        script_of(task, "echo out; echo err >&2"),
        tmp_path,
        SLURM_ARRAY_JOB_ID="40",
        SLURM_ARRAY_TASK_ID="7",
    )
    name = "slurm-40_7.out" if array else "slurm-42.out"
    assert (Path(task.cwd) / name).read_text() == "out\n"
    assert (tmp_path / "dirs/error/e").read_text() == "err\n"


@pytest.mark.parametrize(
    ("slurm", "output", "error"),
    [
        ({}, "/c/slurm-42.out", "/c/slurm-42.out"),
        ({"error": "e"}, "/c/slurm-42.out", "/d/error/e"),
        ({"output": "o.%x", "error": "e.%j"}, "/d/output/o.my job", "/d/error/e.42"),
        ({"array": "0-9"}, "/c/slurm-42_%a.out", "/c/slurm-42_%a.out"),
        ({"array": "0-9", "output": "%x.%4A.%2a"}, "/d/output/my job.0042.%2a", "/d/output/my job.0042.%2a"),
        ({"array": "0-9", "output": "%j%%", "error": "100%%"}, "/d/output/%j%%", "/d/error/100%"),
    ],
)
def test_a_submitted_tasks_files_follow_from_the_task(slurm: dict[str, Any], output: str, error: str) -> None:
    record = record_of(Task.model_validate(make_task(folder="/d", cwd="/c", slurm=slurm)))
    assert find_output_files(record, job_of(standard_output="/dev/null")) == (output, error)
    registered = record.model_copy(update={"kind": RecordKind.REGISTERED})
    slurms = job_of(standard_output="/their/own", standard_error="/their/error")
    assert find_output_files(registered, slurms) == ("/their/own", "/their/error")


def test_unknown_parts_of_a_path_stay_a_pattern() -> None:
    record = record_of(Task.model_validate(make_task(folder="/50%", slurm={"output": "%j.%N%%"})))
    assert find_output_files(record, job_of(nodes=None)).output == "/50%%/output/42.%N%%"
    assert find_output_files(record, job_of(job_id=0)).output == "/50%%/output/%j.n1%%"
    assert find_output_files(record, job_of()).output == "/50%/output/42.n1%"


def test_a_job_that_never_ran_has_no_files_unless_it_ran_before_it_was_requeued() -> None:
    record = record_of(Task.model_validate(make_task(folder="/d")))
    never = job_of("CANCELLED", start_time=None)
    assert never.never_ran
    assert find_output_files(record, never) == (None, None)
    assert find_output_files(record, never.model_copy(update={"restarts": 1})).output == "/d/output/out.txt"
    assert find_output_files(record, job_of("CANCELLED")).output == "/d/output/out.txt"


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("n1", "n1"),
        ("n1,m[3-4]", "n1"),
        ("n[07-09,12],m1", "n07"),
        ("r[2,1]n[5-6]-ib", "r2n5-ib"),
    ],
)
def test_the_first_of_several_nodes_runs_the_script(nodes: str, first: str) -> None:
    assert find_first_node(nodes) == first


@pytest.mark.parametrize("stream", ["output", "error"])
@pytest.mark.parametrize("pattern", ["%J", "%s", "%t", "%n", "%b", "%3b", "%q", "%5%", "%5", "% ", "%é", "%"])
def test_a_pattern_that_releases_treat_differently_is_refused_by_name(stream: str, pattern: str) -> None:
    for name in (f"%%%j{pattern}", f"a{pattern}") if pattern[-1] not in "%5" else (f"a{pattern}",):
        with pytest.raises(InvalidRequest) as error:
            parse_request(Task, make_task(slurm={stream: name}))
        assert f'slurm.{stream}: must not have "{pattern}"' in str(error.value)


def test_a_file_for_both_output_and_error_is_not_overwritten(tmp_path: Path) -> None:
    task = task_in(tmp_path, slurm={"output": "o", "error": "o"})
    dirs = task.dirs.model_copy(update={"error": task.dirs.output})
    task = task.model_copy(update={"dirs": dirs})
    run(script_of(task, "echo out; echo err >&2; echo out"), tmp_path)
    assert (tmp_path / "dirs/output/o").read_text() == "out\nerr\nout\n"


def test_nothing_runs_where_the_folders_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "dirs").write_text("a file is in the way")
    done = run(build_job_script(task_in(tmp_path), "echo ran"), tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_CANNOT_CREATE, "")
    assert "dirs" in done.stderr


@pytest.mark.parametrize("slurm", [{"output": "é" * 200}, {"output": "o", "error": "%x"}])
def test_nothing_runs_where_an_output_file_cannot_be_made(tmp_path: Path, slurm: dict[str, str]) -> None:
    (tmp_path / "dirs/error/my job").mkdir(parents=True)
    done = run(script_of(task_in(tmp_path, slurm=slurm), "touch ran"), tmp_path)
    assert (done.returncode, (tmp_path / "ran").exists()) == (EXIT_CANNOT_CREATE, False)


def test_nothing_runs_outside_the_working_directory(tmp_path: Path) -> None:
    done = run(build_job_script(task_in(tmp_path, cwd=str(tmp_path / "gone")), "echo ran"), tmp_path)
    assert (done.returncode, done.stdout) == (EXIT_NO_WORKING_DIRECTORY, "")


def test_the_folders_are_made_whatever_path_the_caller_sets(tmp_path: Path) -> None:
    done = run(build_job_script(task_in(tmp_path), "echo ran"), tmp_path, PATH="/nowhere")
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_a_folder_is_no_pattern_for_slurm() -> None:
    assert FilePattern("/a/50%j/", "%j.txt").to_slurm() == "/a/50%%j/%j.txt"


@pytest.mark.parametrize("stream", ["output", "error"])
@pytest.mark.parametrize("source", ["job_name", "name"])
def test_no_pattern_leads_a_file_out_of_its_folder(stream: str, source: str) -> None:
    def task(pattern: str) -> dict[str, Any]:
        away = {"job_name": "../x"} if source == "job_name" else {}
        return make_task(slurm={stream: pattern, **away}, **({"name": "../x"} if not away else {}))

    for harmless in ("%j", "%%x", "%%9x"):
        assert Task.model_validate(task(harmless))
    for pattern in ("%x", "%9x"):
        with pytest.raises(ValidationError, match=f"%x in the name of a file while {source} has a /"):
            Task.model_validate(task(f"a{pattern}b"))


@pytest.mark.parametrize(
    ("open_mode", "conf", "kept"),
    [
        ("append", "", True),
        ("truncate", "JobFileAppend=1", False),
        (None, "JobFileAppend=1", True),
        (None, " jobfileappend = 1", True),
        (None, "JobFileAppend=0", False),
        (None, "#JobFileAppend=1", False),
        (None, "", False),
    ],
)
@pytest.mark.parametrize("error", ["e", None])
def test_output_that_exists_is_kept_or_emptied_as_slurm_would(
    tmp_path: Path, open_mode: str | None, conf: str, error: str | None, *, kept: bool
) -> None:
    slurm = {"output": "o", "open_mode": open_mode} | ({"error": error} if error else {})
    task = task_in(tmp_path, slurm=slurm)
    (tmp_path / "slurm.conf").write_text(conf)
    script = build_job_script(task, "echo out; echo err >&2", derive_file_patterns(task.model_dump()))
    for _ in range(2):
        assert run(script, tmp_path, SLURM_CONF=str(tmp_path / "slurm.conf"), PATH="").returncode == 0
    paths = [tmp_path / "dirs/output/o"] + ([tmp_path / "dirs/error/e"] if error else [])
    lines = 2 if error is None else 1
    assert [path.read_text().count("\n") for path in paths] == [lines * (2 if kept else 1)] * len(paths)


# --- the request body ------------------------------------------------------------------------


def body(slurm: dict[str, Any], dialect: Dialect, time_unit: str = "hours") -> dict[str, Any]:
    task = Task.model_validate(make_task(folder="/d", slurm=slurm))
    return build_submission(task, "true", "slurm-proxy:u", dialect, time_unit)


def test_absent_options_are_not_sent() -> None:
    always = {"comment", "current_working_directory", "environment", "name", "standard_output"}
    for api in SUPPORTED_API_VERSIONS:
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
    old, new = (body({"environment": environment}, dialect)["job"]["environment"] for dialect in (OLD, NEW))
    assert environment.items() <= old.items()
    assert {"A=x=y z", "PATH=/bin"} <= set(new)
    assert all(isinstance(value, str) for value in old.values())


@pytest.mark.parametrize("given", ["A=b", ["A=b"], {"A": "b"}, [], {}])
def test_the_default_path_stays_unless_the_caller_names_path(given: Any) -> None:
    for dialect in (OLD, NEW):
        assert "/bin/:/usr/bin/:/sbin/" in variables({"environment": given}, dialect)["PATH"]
    assert variables({"environment": "PATH=/opt/bin"}, NEW)["PATH"] == "/opt/bin"


def variables(slurm: dict[str, Any], dialect: Dialect) -> dict[str, str]:
    sent = body(slurm, dialect)["job"]["environment"]
    return sent if isinstance(sent, dict) else dict(item.split("=", 1) for item in sent)


@pytest.mark.parametrize("api", SUPPORTED_API_VERSIONS)
def test_the_environment_has_what_sbatch_sets_for_the_options(api: str) -> None:
    slurm = {
        "cpus_per_task": 2,
        "ntasks_per_node": 3,
        "threads_per_core": 1,
        "gpus": 4,
        "gpus_per_node": "a:5",
    }
    expected = {
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_NTASKS_PER_NODE": "3",
        "SLURM_THREADS_PER_CORE": "1",
        "SLURM_GPUS": "4",
        "SLURM_GPUS_PER_NODE": "a:5",
        "SLURM_SUBMIT_DIR": "/home/alice",
    }
    assert expected.items() <= variables(slurm, Dialect(api)).items()
    assert variables({"cpus_per_task": 2, "environment": "SLURM_CPUS_PER_TASK=7"}, Dialect(api))[
        "SLURM_CPUS_PER_TASK"
    ] == ("7")


def test_each_kind_of_gpu_is_named_as_one() -> None:
    job = body({"gpus": "a100:1,h100:2", "gpus_per_node": "a100,h100:2", "gpus_per_task": "a100"}, NEW)["job"]
    assert job["tres_per_job"] == "gres/gpu:a100:1,gres/gpu:h100:2"
    assert job["tres_per_node"] == "gres/gpu:a100,gres/gpu:h100:2"
    assert (job["tres_per_task"], job["tres_bind"]) == ("gres/gpu:a100=1", "gres/gpu:per_task:1")
    assert "tres_per_node" not in body({"gres": "none"}, NEW)["job"]


def test_the_environment_has_the_resources_of_a_task_in_the_form_of_the_version() -> None:
    slurm = {"cpus_per_task": 2, "gpus_per_task": "a100:1,h100:2"}
    old, new = variables(slurm, OLD), variables(slurm, NEW)
    assert old["SLURM_GPUS_PER_TASK"] == "a100:1,h100:2"
    assert new["SLURM_TRES_PER_TASK"] == "cpu=2,gres/gpu:a100=1,gres/gpu:h100=2"
    assert new["SLURM_TRES_BIND"] == "gres/gpu:per_task:3"
    assert variables(slurm, Dialect("v0.0.40"))["SLURM_TRES_PER_TASK"].startswith("cpu:2,gres/gpu:a100:1")


def test_mpirun_is_told_to_start_its_processes_by_srun_unless_the_caller_says_otherwise() -> None:
    told = variables({}, NEW)
    assert (told["HYDRA_BOOTSTRAP"], told["HYDRA_LAUNCHER_EXTRA_ARGS"]) == ("slurm", "--external-launcher")
    assert told["OMPI_MCA_plm_slurm_args"] == "--external-launcher"
    assert "HYDRA_BOOTSTRAP" not in variables({}, OLD)
    otherwise = variables({"environment": "HYDRA_BOOTSTRAP=ssh"}, NEW)
    assert otherwise["HYDRA_BOOTSTRAP"] == "ssh"
    assert "HYDRA_LAUNCHER_EXTRA_ARGS" not in otherwise


def test_the_tag_comes_before_the_callers_comment() -> None:
    assert body({"comment": "mine"}, NEW)["job"]["comment"] == "slurm-proxy:u mine"


def test_slurm_owns_the_files_where_it_makes_folders() -> None:
    new, old = body({"output": "o.%j", "error": "e"}, NEW), body({"output": "o.%j", "error": "e"}, OLD)
    assert (new["job"]["standard_output"], new["job"]["standard_error"]) == ("/d/output/o.%j", "/d/error/e")
    assert "exec" not in new["script"]
    assert old["job"]["standard_output"] == "/dev/null"
    assert "standard_error" not in old["job"]
    assert 'exec >/d/output/o."$SLURM_JOB_ID" 2>/d/error/e' in old["script"]


def test_slurm_is_told_its_own_default_file_so_that_it_makes_the_working_directory() -> None:
    for slurm, name in (({}, "slurm-%j.out"), ({"array": "1-2"}, "slurm-%A_%a.out")):
        job = body(slurm, NEW)["job"]
        assert job["standard_output"] == f"/home/alice/{name}"
        assert "standard_error" not in job


def test_the_script_writes_a_file_that_is_named_after_the_node() -> None:
    """Slurm 22.05 and 24.11 take the host's own name for %N, and do not report it; 26.05 takes the node's."""
    made = body({"output": "o.%N"}, NEW)
    assert made["job"]["standard_output"] == "/dev/null"
    assert 'exec >/d/output/o."$SLURMD_NODENAME" 2>&1' in made["script"]


def test_a_job_without_a_name_is_called_as_its_task() -> None:
    assert body({}, NEW)["job"]["name"] == body({}, OLD)["job"]["name"] == "generic"
    assert body({"job_name": "mine"}, NEW)["job"]["name"] == "mine"


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
