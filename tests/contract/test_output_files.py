"""The files that are announced are those that a job writes, on every cluster."""

import pwd
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.job_state import JobState
from app.models.file_pattern import expand
from app.models.job import SlurmJob
from app.models.output_files import OutputFiles, find_output_files
from app.models.record import RecordKind, TaskRecord, utc_now
from app.models.task import Task
from app.slurm.client import SlurmClient
from tests.conftest import REAL_CLUSTERS, Cluster, not_covered, until
from tests.support.tasks import make_task, new_uuid

_WIDTHS = ("", "0", "3", "10", "99", "005")
PATTERNS = [
    *("-".join(f"%{width}{letter}" for width in _WIDTHS) for letter in "jAaxuN"),
    "%j%%",
    "%%j-%%%A",
    "%x-%u-%N-%A-%a-%j",
    'it\'s "$x" `y` é;#',
]
BOTH = "echo out; echo err >&2"


@pytest.fixture
def client(cluster: Cluster) -> Iterator[SlurmClient]:
    client = cluster.client()
    yield client
    client.close()


@pytest.fixture
def folder(cluster: Cluster) -> Iterator[Path]:
    """Return a folder of the cluster's user, which every node sees."""
    path = Path(pwd.getpwnam(cluster.user).pw_dir) / f"slurm-proxy-{new_uuid()}"
    path.mkdir()
    shutil.chown(path, cluster.user, cluster.user)
    yield path
    shutil.rmtree(path)


class Submitted:
    """A task on a cluster, and what is announced of it."""

    def __init__(
        self,
        cluster: Cluster,
        client: SlurmClient,
        folder: Path,
        command: str,
        cwd: Path | None = None,
        **slurm: Any,
    ) -> None:
        options = {"mem": 20, **slurm}
        self.task = make_task(cluster.user, str(folder / "dirs"), cwd=str(cwd or folder), slurm=options)
        self.client = client
        self.record = TaskRecord(
            task=self.task, slurm_username=cluster.user, created_at=utc_now(), updated_at=utc_now()
        )
        soon = datetime.now(UTC) + timedelta(minutes=1)
        task = Task.model_validate(self.task)
        self.job_id, _ = client.submit(task, command, f"slurm-proxy:{task.uuid}", soon)

    def ended(self) -> SlurmJob:
        return until_ended(self.client, self.job_id)

    def files(self) -> OutputFiles:
        return find_output_files(self.record, self.ended())


def until_ended(client: SlurmClient, job_id: int) -> SlurmJob:
    def look() -> SlurmJob | None:
        job = client.find_job(job_id)
        return job if job is not None and job.job_state.is_final else None

    found: SlurmJob = until(look, 120, f"the end of job {job_id}")
    return found


def ended_in_slurmdbd(client: SlurmClient, job_id: int) -> SlurmJob:
    def look() -> SlurmJob | None:
        job = (client.read_accounting([job_id]) or {}).get(job_id)
        return job if job is not None and job.job_state.is_final else None

    found: SlurmJob = until(look, 60, f"the end of job {job_id} in slurmdbd")
    return found


def text_of(path: str | None) -> str:
    assert path is not None
    until(Path(path).exists, 10, path)
    return Path(path).read_text()


def below(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if path.is_file()}


def test_every_pattern_names_the_file_that_is_announced(
    cluster: Cluster, client: SlurmClient, folder: Path
) -> None:
    sent = {}
    for number, pattern in enumerate(PATTERNS):
        place = folder / str(number)
        place.mkdir()
        shutil.chown(place, cluster.user)
        sent[pattern] = Submitted(cluster, client, place, BOTH, output=pattern, error=f"e{pattern}")
    for pattern, one in sent.items():
        output, error = one.files()
        assert (text_of(output), text_of(error)) == ("out\n", "err\n"), pattern
        assert below(Path(one.task["cwd"])) == {output, error}, pattern


def test_error_without_a_file_joins_the_output(cluster: Cluster, client: SlurmClient, folder: Path) -> None:
    choices: list[dict[str, Any]] = [{}, {"output": "o.%j"}]
    for slurm in choices:
        one = Submitted(cluster, client, folder, BOTH, **slurm)
        output, error = one.files()
        assert output == error
        assert text_of(output) == "out\nerr\n"
        Path(str(output)).unlink()


def test_an_error_file_can_be_named_without_an_output_file(
    cluster: Cluster, client: SlurmClient, folder: Path
) -> None:
    output, error = Submitted(cluster, client, folder, BOTH, error="e").files()
    assert (text_of(output), text_of(error)) == ("out\n", "err\n")
    assert output is not None
    assert Path(output).parent == folder


@pytest.mark.parametrize("name", ["output", "50%j"])
def test_the_working_directory_may_be_one_of_the_folders_that_the_job_makes(
    cluster: Cluster, client: SlurmClient, folder: Path, name: str
) -> None:
    dirs = folder / name
    one = Submitted(cluster, client, dirs, "pwd", cwd=dirs / "dirs/output")
    assert one.ended().job_state is JobState.COMPLETED
    output, _ = one.files()
    assert text_of(output) == f"{dirs}/dirs/output\n"


def test_a_job_without_a_name_is_called_as_its_task(
    cluster: Cluster, client: SlurmClient, folder: Path
) -> None:
    one = Submitted(cluster, client, folder, "true", output="%x")
    output, _ = one.files()
    assert one.ended().name == "generic"
    assert output == f"{folder}/dirs/output/generic"
    text_of(output)


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
@pytest.mark.parametrize("pattern", [None, "%A_%a", "%A.%3a.%j.%N", "%x"])
def test_the_pattern_of_an_array_names_the_files_of_its_tasks(
    cluster: Cluster, client: SlurmClient, folder: Path, pattern: str | None
) -> None:
    one = Submitted(cluster, client, folder, "echo out", array="2-3", output=pattern)
    waiting = client.find_job(one.job_id)
    assert waiting is not None
    announced, _ = find_output_files(one.record, waiting)
    assert one.files().output == announced
    jobs = client.send_raw("GET", f"job/{one.job_id}").body["jobs"]
    wanted = set()
    for raw in jobs:
        task = raw["array_task_id"]
        values = {"a": str(task if isinstance(task, int) else task["number"]), "j": str(raw["job_id"])}
        values |= {"N": raw["nodes"], "%": "%"}
        wanted.add(expand(str(announced), lambda letter, width, v=values: v[letter].zfill(width)))  # type: ignore[misc]
    assert len(jobs) == 2
    assert wanted
    until(lambda: below(folder) == wanted, 10, f"{wanted}")


@pytest.mark.parametrize("array", [None, "0-3"])
def test_a_job_that_is_cancelled_before_it_begins_never_ran(
    cluster: Cluster, client: SlurmClient, folder: Path, array: str | None, request: pytest.FixtureRequest
) -> None:
    if array and cluster.name == "local":
        not_covered(request, "arrays on the stand-in cluster", "it has none")
    one = Submitted(cluster, client, folder, "true", hold=True, array=array)
    client.control.cancel(one.job_id, cluster.user)
    accounted = ended_in_slurmdbd(client, one.job_id)
    for job in (one.ended(), accounted):
        assert job.job_state is JobState.CANCELLED
        assert (job.never_ran, job.start_time, job.elapsed_seconds(), job.exit_code) == (
            True,
            None,
            None,
            None,
        )
        assert find_output_files(one.record, job) == (None, None)
    assert below(folder) == set()


def raw_submit(cluster: Cluster, client: SlurmClient, folder: Path, **fields: Any) -> int:
    """Return the id of a job that was not submitted as a task."""
    variables = {"PATH": "/bin:/usr/bin"}
    structured = client._session.dialect().is_structured
    job = {
        "current_working_directory": str(folder),
        "environment": [f"{k}={v}" for k, v in variables.items()] if structured else variables,
        "memory_per_node": 20,
        "name": "elsewhere",
        **fields,
    }
    script = f"#!/bin/bash\n{BOTH}\n"
    reply = client.send_raw("POST", "job/submit", user=cluster.user, json={"script": script, "job": job})
    return int(reply.body["job_id"])


@pytest.mark.parametrize(
    ("fields", "is_joined"),
    [
        ({}, True),
        ({"standard_output": "{folder}/o.%x.%6j%%"}, True),
        ({"standard_output": "{folder}/o.%u", "standard_error": "{folder}/e.%A.%a"}, False),
    ],
)
def test_the_files_of_a_registered_job_are_those_that_it_writes(
    cluster: Cluster, client: SlurmClient, folder: Path, fields: dict[str, str], is_joined: bool
) -> None:
    files = {name: value.format(folder=folder) for name, value in fields.items()}
    job_id = raw_submit(cluster, client, folder, **files)
    record = TaskRecord(
        kind=RecordKind.REGISTERED,
        task=make_task(cluster.user),
        slurm_username=cluster.user,
        created_at=utc_now(),
        updated_at=utc_now(),
    )
    output, error = find_output_files(record, until_ended(client, job_id))
    assert (output == error) is is_joined
    assert text_of(output).startswith("out\n")
    assert text_of(error).endswith("err\n")
    assert below(folder) == {output, error}


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_suspended_time_is_no_run_time(
    cluster: Cluster, client: SlurmClient, folder: Path, request: pytest.FixtureRequest
) -> None:
    if cluster.real is None:
        not_covered(request, f"suspended jobs on {cluster.name}", "only its administrator can suspend a job")
    one = Submitted(cluster, client, folder, "sleep 3; sleep 3", time=1)
    until(lambda: (job := client.find_job(one.job_id)) and job.job_state is JobState.RUNNING, 60, "its start")
    time.sleep(1)
    cluster.real.run("scontrol", "suspend", str(one.job_id))
    time.sleep(6)
    assert (suspended := client.find_job(one.job_id)) is not None
    assert suspended.job_state is JobState.SUSPENDED
    cluster.real.run("scontrol", "resume", str(one.job_id))
    assert (resumed := client.find_job(one.job_id)) is not None
    assert 4 <= resumed.suspended_seconds <= 8
    accounted = ended_in_slurmdbd(client, one.job_id)
    for job in (one.ended(), accounted):
        assert job.start_time is not None
        assert job.end_time is not None
        whole = (job.end_time - job.start_time).total_seconds()
        assert 4 <= whole - (job.elapsed_seconds() or 0) <= 8
