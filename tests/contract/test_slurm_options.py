"""A real Slurm holds every option of `task.slurm` as it does from sbatch."""

import os
import re
import shlex
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import SlurmRefused
from app.models.task import Task
from app.slurm.client import SlurmClient
from tests.conftest import REAL_CLUSTERS, Cluster, not_covered, until
from tests.support.sbatch_options import (
    ENVIRONMENTS,
    FOR_AN_ENVIRONMENT,
    ON_ANY_CLUSTER,
    ON_OUR_CLUSTER,
    other_options_for_an_environment,
)
from tests.support.tasks import make_task, new_uuid

# What every job of the comparison has, but for those options that exclude one of them.
_BASE: dict[str, Any] = {"mem": 20, "time_minutes": 30, "hold": True, "job_name": "options"}
# What differs between any two jobs, or is about the submission and not about an option.
_OF_NO_OPTION = frozenset(
    {
        "JobId",
        "ArrayJobId",
        "SubmitTime",
        "AccrueTime",
        "LastSchedEval",
        "StartTime",
        "EndTime",
        "Priority",
        "Scheduler",
        "AllocNode:Sid",
        "Command",
        "StdErr",
        "StdIn",
        "StdOut",
        "SubmitLine",
        "SLUID",
        "OOMKillStep",
        "Power",
        "Reason",
    }
)


# --- on real clusters --------------------------------------------------------------------------


@pytest.fixture
def client(cluster: Cluster) -> Iterator[SlurmClient]:
    client = cluster.client()
    yield client
    client.close()


@pytest.fixture
def shared(cluster: Cluster) -> Iterator[Path]:
    """Make a folder of the user's, which the cluster's nodes and these tests see."""
    folder = Path(f"/home/{cluster.user}/slurm-proxy-tests-{new_uuid()}")
    folder.mkdir()
    shutil.chown(folder, cluster.user)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def submit(cluster: Cluster, client: SlurmClient, folder: Path, command: str, **slurm: Any) -> int:
    task = Task.model_validate(make_task(cluster.user, str(folder / "dirs"), cwd=str(folder), slurm=slurm))
    job_id, _ = client.submit(task, command, "tag", datetime.now(UTC) + timedelta(minutes=1))
    return job_id


def sbatch(cluster: Cluster, folder: Path, arguments: str, wrapped: str) -> str:
    """Return what runs sbatch within a job as an ordinary login would."""
    login = 'PATH="$PATH" SLURM_CONF="$SLURM_CONF" HOME="$HOME" USER="$USER" LOGNAME="$LOGNAME"'
    fixed = f"--parsable --export=NONE --chdir={folder} --output=/dev/null {arguments}"
    return f"( cd {folder} && env -i {login} sbatch {fixed} --wrap={shlex.quote(wrapped)} )"


def fields_of(shown: str) -> dict[str, str]:
    """Return the fields of `scontrol --oneliner show job`; a value may hold spaces."""
    shown = re.sub(r" SubmitLine=.*?(?= WorkDir=)", "", shown)
    return {match[1]: match[2] for match in re.finditer(r"(\S+?)=(.*?)(?=\s+[A-Z]\S*?=|\s*$)", shown)}


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_slurm_holds_every_option_as_it_does_from_sbatch(
    cluster: Cluster, client: SlurmClient, shared: Path
) -> None:
    node = client.send_raw("GET", "nodes").body["nodes"][0]["name"]
    cases = ON_ANY_CLUSTER + (ON_OUR_CLUSTER if cluster.real else [])
    if cluster.real:
        reservation = f"ReservationName=later StartTime=now+3days Duration=1 Nodes={node} Users=alice"
        cluster.real.run("scontrol", "create", "reservation", *reservation.split())
    is_structured = client._session.dialect().is_structured
    ours: dict[int, str] = {}
    show, script = "scontrol --oneliner show job", [f"cd {shared}", "tag=tag"]
    for number, case in enumerate(cases):
        group = case.option.partition("_")[0]
        base = {name: value for name, value in _BASE.items() if name.partition("_")[0] != group}
        given = " ".join(sbatch_argument(name, value) for name, value in base.items())
        given += (
            f" {'' if case.option == 'comment' else '--comment=$tag'} {case.sbatch.replace('NODE', node)}"
        )
        slurm = {name: node if value == "NODE" else value for name, value in case.slurm.items()}
        try:
            ours[number] = str(submit(cluster, client, shared, "true", **base, **slurm))
            script.append(f"{show} {ours[number]} >ours.{number} 2>&1")
        except SlurmRefused as error:
            ours[number] = str(error)
        script += [
            f"id=$({sbatch(cluster, shared, given, 'true')} 2>&1)",
            f"case $id in *[!0-9]*) echo $id ;; *) {show} $id; scancel $id ;; esac >sbatch.{number}",
        ]
    submit(cluster, client, shared, "\n".join([*script, "touch done"]), mem=20, time_minutes=5)
    until((shared / "done").exists, 100, "the end of the job that asks Slurm")
    faults = []
    for number, case in enumerate(cases):
        theirs = (shared / f"sbatch.{number}").read_text().strip()
        if case.is_structured_only and not is_structured:
            if "task.slurm." not in ours[number]:
                faults.append(f"{case.option}={case.value}: {ours[number]!r}")
            continue
        if not ours[number].isdigit() or not theirs.startswith("JobId="):
            if case.shown or ours[number].isdigit() or theirs.startswith("JobId="):
                faults.append(f"{case.option}={case.value}: {ours[number]!r} and {theirs!r}")
            continue
        client.control.cancel(int(ours[number]), cluster.user)
        mine, other = fields_of((shared / f"ours.{number}").read_text()), fields_of(theirs)
        differing = {
            name: (mine.get(name), other.get(name))
            for name in (mine.keys() | other.keys()) - _OF_NO_OPTION
            if mine.get(name) != other.get(name)
        }
        shown = tuple((case.shown or "").replace("NODE", node).split("|"))
        if differing or not any(f"{name}={value}".startswith(shown) for name, value in mine.items()):
            faults.append(f"{case.option}={case.value}: not {shown} or {differing} in {mine}")
    if cluster.real:
        cluster.real.run("scontrol", "delete", "ReservationName=later")
    assert not faults, "\n".join(faults)


# Why a job's environment is not quite that of `sbatch --export=NONE`.
NOT_AS_SBATCH = {
    "MAIL": "of the login that sbatch has the node run; SLURM_GET_USER_ENV=1 asks for the same",
    "SLURM_GET_USER_ENV": "asks the node for that login, whose profile may hang or fail",
    "SLURM_EXPORT_ENV": "would have each srun start without the job's variables",
}
if os.nice(0):
    NOT_AS_SBATCH["SLURM_PRIO_PROCESS"] = (
        "is that of the process that ran sbatch, which gives way to others here"
    )
_OF_THE_JOB_ALONE = frozenset(
    {
        "_",
        "SHLVL",
        "OLDPWD",
        "PATH",
        "SLURM_JOB_ID",
        "SLURM_JOBID",
        "SLURM_ARRAY_JOB_ID",
        "SLURM_JOB_SLUID",
        "SLURM_JOB_START_TIME",
        "SLURM_JOB_END_TIME",
        "SLURM_TASK_PID",
        "SLURM_SUBMIT_HOST",
        "SLURM_JOB_GPUS",
        "CUDA_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "ZE_AFFINITY_MASK",
    }
)


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
@pytest.mark.parametrize("options", ENVIRONMENTS)
def test_a_job_has_the_environment_that_sbatch_gives(
    cluster: Cluster, client: SlurmClient, shared: Path, options: str, request: pytest.FixtureRequest
) -> None:
    if "gpus" in options and not cluster.real:
        not_covered(request, f"GPUs on {cluster.name}", "it need not have any")
    slurm = {**FOR_AN_ENVIRONMENT, **ENVIRONMENTS[options]}
    arguments = " ".join(sbatch_argument(name, value) for name, value in slurm.items())
    compare_environments(cluster, client, shared, slurm, arguments)


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_a_job_with_all_other_options_has_the_environment_that_sbatch_gives(
    cluster: Cluster, client: SlurmClient, shared: Path
) -> None:
    is_structured = client._session.dialect().is_structured
    node = client.send_raw("GET", "nodes").body["nodes"][0]["name"]
    slurm: dict[str, Any] = {"job_name": "environment"}
    arguments = "--job-name=environment"
    for case in other_options_for_an_environment(cluster.real is not None, is_structured):
        slurm |= {name: node if value == "NODE" else value for name, value in case.slurm.items()}
        arguments += f" {case.sbatch.replace('NODE', node)}"
    compare_environments(cluster, client, shared, slurm, arguments)


def compare_environments(
    cluster: Cluster, client: SlurmClient, shared: Path, slurm: dict[str, Any], arguments: str
) -> None:
    """Run a job that runs sbatch, and compare the variables of both jobs."""
    dump = "env -0 >{0}.part && mv {0}.part {0}"
    there = sbatch(cluster, shared, arguments, dump.format(f"{shared}/sbatch"))
    submit(cluster, client, shared, f"{dump.format(f'{shared}/ours')}; {there} >{shared}/said 2>&1", **slurm)
    until((shared / "sbatch").exists, 60, "both jobs' environments")
    ours, theirs = (environment_of(shared / name) for name in ("ours", "sbatch"))
    assert ours["PATH"] == "/bin/:/usr/bin/:/sbin/"
    assert {"SLURM_SUBMIT_HOST", "PATH"} <= ours.keys()
    differing = {
        name: (ours.get(name), theirs.get(name))
        for name in (ours.keys() | theirs.keys()) - _OF_THE_JOB_ALONE
        if ours.get(name) != theirs.get(name)
    }
    assert differing.keys() <= NOT_AS_SBATCH.keys(), differing


def sbatch_argument(option: str, value: Any) -> str:
    name = {"time_minutes": "time"}.get(option, option.replace("_", "-"))
    return f"--{name}" if value is True else f"--{name}={value}"


def environment_of(path: Path) -> dict[str, str]:
    return dict(item.split("=", 1) for item in path.read_text().split("\0") if item)


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_the_login_environment_is_there_for_those_who_ask(
    cluster: Cluster, client: SlurmClient, shared: Path
) -> None:
    variables = {"SLURM_GET_USER_ENV": "1", "HOME": "/tmp"}
    dump = f"env -0 >{shared}/part && mv {shared}/part {shared}/ours"
    submit(cluster, client, shared, dump, mem=20, time_minutes=5, environment=variables)
    until((shared / "ours").exists, 60, "the job's environment")
    found = environment_of(shared / "ours")
    assert found["MAIL"].endswith(cluster.user)
    assert (found["HOME"], found["PATH"]) == ("/tmp", "/bin/:/usr/bin/:/sbin/")


# --- output that exists already ------------------------------------------------------------------


def outputs(folder: Path) -> tuple[str, str]:
    return (folder / "dirs/output/o").read_text(), (folder / "dirs/error/e").read_text()


def run_again(cluster: Cluster, client: SlurmClient, folder: Path, **slurm: Any) -> tuple[str, str]:
    """Return what both files hold after a job, if they held `old` before."""
    for path in (folder / "dirs/output/o", folder / "dirs/error/e"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old\n")
    for path in (folder / "dirs").rglob("*"):
        shutil.chown(path, cluster.user)
    shutil.chown(folder / "dirs", cluster.user)
    files = {"output": "o", "error": "e", "mem": 20, "time_minutes": 5}
    job_id = submit(cluster, client, folder, "echo out; echo err >&2", **files, **slurm)
    ended(client, job_id)
    return outputs(folder)


def ended(client: SlurmClient, job_id: int) -> None:
    until(lambda: (job := client.find_job(job_id)) is not None and job.job_state.is_final, 60, "its end")


@pytest.mark.parametrize("cluster", ["local", *REAL_CLUSTERS], indirect=True)
def test_output_files_are_kept_or_emptied_as_asked_for(
    cluster: Cluster, client: SlurmClient, shared: Path
) -> None:
    assert run_again(cluster, client, shared, open_mode="append") == ("old\nout\n", "old\nerr\n")
    assert run_again(cluster, client, shared, open_mode="truncate") == ("out\n", "err\n")
    assert run_again(cluster, client, shared) == ("out\n", "err\n")


@pytest.mark.parametrize("cluster", REAL_CLUSTERS[:1], indirect=True)
def test_the_clusters_own_mode_holds_where_none_is_asked_for(
    cluster: Cluster, client: SlurmClient, shared: Path
) -> None:
    assert cluster.real is not None
    with cluster.real.configured("JobFileAppend=1"):
        assert run_again(cluster, client, shared) == ("old\nout\n", "old\nerr\n")
        assert run_again(cluster, client, shared, open_mode="truncate") == ("out\n", "err\n")
    assert run_again(cluster, client, shared) == ("out\n", "err\n")


@pytest.mark.parametrize("cluster", REAL_CLUSTERS[:1], indirect=True)
def test_a_job_that_starts_again_keeps_its_output_where_append_is_asked_for(
    cluster: Cluster, client: SlurmClient, shared: Path
) -> None:
    assert cluster.real is not None
    slurm = {"output": "o", "mem": 20, "time_minutes": 5, "open_mode": "append"}
    job_id = submit(cluster, client, shared, "echo run ${SLURM_RESTART_COUNT:-0}", **slurm)
    ended(client, job_id)
    cluster.real.run("scontrol", "requeue", str(job_id), user=cluster.user)
    # In the second of its first end, the node would still refuse the job: its credential counts as revoked.
    cluster.real.run("scontrol", "update", f"jobid={job_id}", "StartTime=now+2", user=cluster.user)
    output = shared / "dirs/output/o"
    until(lambda: output.read_text() == "run 0\nrun 1\n", 150, "its second start")
