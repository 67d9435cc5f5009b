"""The whole service, as a process, on every cluster: real Slurm, real MongoDB, real SMTP."""

import copy
import json
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from app.job_state import JobState
from app.models.job_action import JobAction
from tests.conftest import REAL_CLUSTERS, Cluster, until
from tests.support.real.processes import install
from tests.support.real.smtp import Mail, SmtpServer
from tests.support.service import ROOT, Service
from tests.support.tasks import make_email, make_task, new_uuid

HOG = 'x=$(head -c 400000000 /dev/zero | tr "\\0" x); sleep 30'

# What each job does, and the states in which Slurm may then say it ended.
STORY: dict[str, tuple[str, dict[str, Any], set[str]]] = {
    "good": ("true", {}, {"COMPLETED"}),
    "failed": ("sleep 6; exit 3", {}, {"FAILED"}),
    "killed": ("sleep 6; kill -9 $$", {}, {"FAILED"}),
    "cancelled": ("sleep 600", {}, {"CANCELLED"}),
    "timeout": ("sleep 600", {"time": None, "time_minutes": 1}, {"TIMEOUT"}),
    # Slurm says OUT_OF_MEMORY only where it has cgroups; without them it kills, and says FAILED.
    "memory": (HOG, {"mem": 60}, {"OUT_OF_MEMORY", "FAILED"}),
    "no folder": ("true", {"mem": 50}, {"FAILED"}),
}


class Stage:
    """A service on one cluster, and the tasks that were submitted to it at once."""

    def __init__(self, service: Service, cluster: Cluster, smtp: SmtpServer, folder: Path) -> None:
        self.service = service
        self.cluster = cluster
        self.smtp = smtp
        self.folder = folder
        self.tasks: dict[str, dict[str, Any]] = {}

    def task(self, name: str, command: str, **fields: Any) -> dict[str, Any]:
        words = {"subject": f"about {name}", "body": f"the {name} job has completed"}
        base = {"cwd": str(self.folder), "cmd": command, "params": [], "notification": make_email(**words)}
        return make_task(self.cluster.user, str(self.folder / name), **{**base, **fields})

    def submit(self, name: str, command: str, **fields: Any) -> int:
        self.tasks[name] = self.task(name, command, **fields)
        response = self.service.post("/submit", {"task": self.tasks[name]})
        assert response.status_code == 200, response.text
        return int(response.json()["slurm_job_id"])

    def cancel(self, job_id: int) -> None:
        client = self.cluster.client()
        assert client.send_raw("DELETE", f"job/{job_id}", user=self.cluster.user).status == 200
        client.close()

    def state(self, name: str) -> str:
        return str(self.service.record(self.tasks[name])["slurm_job_state"])

    def ended(self, name: str) -> Any:
        """The record once its end has been announced."""

        def announced() -> Any:
            record = self.service.record(self.tasks[name])
            items = record["notifications"]
            return record if items and all(item["status"] == "sent" for item in items) else None

        return until(announced, 150, f"the announced end of {name}")

    def mails(self, name: str) -> list[Mail]:
        return [mail for mail in self.smtp.mails if mail.message["Subject"].endswith(f"about {name}")]


@pytest.fixture(scope="module")
def stage(cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Stage]:
    """Submits the story, and kills the service with -9 while its jobs run."""
    folder = tmp_path_factory.mktemp("service")
    settings = {}
    if cluster.name == "local":
        settings["TASK_ALLOWED_SERVICE_USERS"] = cluster.user
    elif (mongod := request.getfixturevalue("mongod_if_any")) is not None:
        settings = {"MONGODB_URI": mongod.uri, "MONGODB_MONITOR_DB": new_uuid()}
    home = Path(pwd.getpwnam(cluster.user).pw_dir) / f"slurm-proxy-tests-{new_uuid()[:8]}"
    _make_folder(home, cluster.user)
    with SmtpServer(folder) as smtp, Service(folder, cluster, smtp, **settings) as service:
        stage = Stage(service, cluster, smtp, home)
        service.start()
        _tell(stage)
        yield stage
        assert service.stop() == 0
    shutil.rmtree(home)


def _make_folder(folder: Path, user: str) -> None:
    folder.mkdir()
    shutil.chown(folder, user)


def _tell(stage: Stage) -> None:
    ids = {}
    for name, (command, slurm, _) in STORY.items():
        if name == "memory" and stage.cluster.name == "local":
            continue  # the stand-in watches nobody's memory
        task = stage.task(name, command)
        options = {key: value for key, value in {**task["slurm"], **slurm}.items() if value is not None}
        fields: dict[str, Any] = {"slurm": options}
        if name == "no folder":
            fields["dirs"] = dict.fromkeys(("parent", "input", "output", "error"), "/proc/nobody/may/write")
        ids[name] = stage.submit(name, command, **fields)
    ids["held"] = stage.submit("held", "true", slurm={"hold": True, "mem": 50})
    if stage.cluster.name != "local":  # which knows no dependencies
        _tell_of_jobs_that_wait(stage, stage.submit("blocker", "true", slurm={"hold": True, "mem": 50}))
    until(lambda: stage.state("cancelled") == "RUNNING", 60, "the start of a job")
    # The kill would make two of a message that is on its way.
    for name in ("good", "no folder", "too long"):
        if name in stage.tasks:
            stage.ended(name)
    until(lambda: is_nothing_to_send(stage), 60, "a moment without messages")
    stage.service.kill()
    stage.cancel(ids["cancelled"])
    stage.service.start()


def is_nothing_to_send(stage: Stage) -> bool:
    records = [stage.service.record(task) for task in stage.tasks.values()]
    return all(item["status"] == "sent" for record in records for item in record["notifications"])


def _tell_of_jobs_that_wait(stage: Stage, blocker: int) -> None:
    """Submit a held job, and a job that depends on one that will fail."""
    wish = {**make_email(), "events": ["begin", "end", "invalid_depend", {"pending_over": 1}]}
    for name, slurm in (("waits", {"hold": True}), ("depends", {"dependency": f"afterok:{blocker}"})):
        wish["params"]["email"]["subject"] = f"about {name}"
        stage.submit(name, "true", slurm={"mem": 50, **slurm}, notification=copy.deepcopy(wish))
    stage.cancel(blocker)
    stage.submit("too long", "true", slurm={"mem": 50, "partition": "hpcz-test", "time": "30-0"})
    last_one_is_good = 'if [ "$SLURM_ARRAY_TASK_ID" != 2 ]; then exit 1; fi; sleep 80'
    stage.submit("array", last_one_is_good, slurm={"mem": 50, "array": "0-2%1", "time": 1})


@pytest.mark.parametrize("name", [name for name in STORY if name not in ("timeout", "memory")])
def test_each_end_is_announced_truthfully_and_once_over_a_kill(stage: Stage, name: str) -> None:
    check_end(stage, name)


def check_end(stage: Stage, name: str) -> None:
    record = stage.ended(name)
    assert record["slurm_job_state"] in STORY[name][2]
    (mail,) = stage.mails(name)
    text = mail.text()
    if name == "good":
        assert mail.message["Subject"] == "about good"
        assert text.startswith("the good job has completed\n")
    else:
        assert mail.message["Subject"] == f"[{record['slurm_job_state']}] about {name}"
        assert text.startswith("The job did not succeed")
    for fact in (record["task"]["uuid"], str(record["slurm_job_id"]), record["slurm_job_state"]):
        assert fact in text


def test_a_pending_job_announces_nothing_until_it_is_cancelled(stage: Stage) -> None:
    record = stage.service.record(stage.tasks["held"])
    assert (record["slurm_job_state"], record["notifications"]) == ("PENDING", [])
    stage.cancel(record["slurm_job_id"])
    assert stage.ended("held")["slurm_job_state"] == "CANCELLED"


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_job_beyond_its_partitions_time_limit_is_announced_once_as_one_that_cannot_start(
    stage: Stage,
) -> None:
    record = stage.ended("too long")
    assert record["slurm_job_state"] == "PENDING"
    (mail,) = stage.mails("too long")
    assert mail.message["Subject"] == "[cannot start] about too long"
    assert "the limits do not allow its time limit (PartitionTimeLimit)." in mail.text()
    slurm = stage.service.get(f"/monitor/slurm_job_id/{record['slurm_job_id']}")["slurm"]
    assert (slurm["reason"], slurm["hint"]) == (
        "PartitionTimeLimit",
        "Slurm will not start the job as it is: the limits do not allow its time limit (PartitionTimeLimit).",
    )
    stage.cancel(record["slurm_job_id"])
    until(lambda: stage.state("too long") == "CANCELLED", 60, "its end")


def hello_world_of_the_readme() -> list[str]:
    """The wget line of the README, as a shell would split it."""
    (line,) = [line for line in (ROOT / "README.md").read_text().splitlines() if "--post-data" in line]
    return shlex.split(line)


def test_the_hello_world_of_the_readme_by_wget(stage: Stage, cluster: Cluster) -> None:
    """Word for word, except for user, folder, partition, uuid and the address of this service."""
    install({"wget": "wget"})
    uuid = new_uuid()
    replaced = {
        "/home/areynolds": str(stage.folder),  # tests of other clusters may have the same home folder
        "areynolds": cluster.user,
        "hpcz-test": cluster.partition,
        "123e4567-e89b-12d3-a456-426614174000": uuid,
        "127.0.0.1:5001": stage.service.url.removeprefix("http://"),
    }
    wget = hello_world_of_the_readme()
    for old, new in replaced.items():
        wget = [word.replace(old, new) for word in wget]
    answer = json.loads(subprocess.run(wget, capture_output=True, timeout=60, check=True).stdout)
    assert answer["uuid"] == uuid
    stage.tasks["hello"] = {"uuid": uuid}
    record = stage.ended("hello")
    assert record["slurm_job_state"] == "COMPLETED"
    output = stage.folder / "slurm-proxy-test/output/slurm-proxy-test.generic.output.txt"
    job_id = answer["slurm_job_id"]
    assert re.fullmatch(
        rf"hello, world! \(sent job {job_id} to {cluster.user} at .*\d\d:\d\d:\d\d.*\)\n", output.read_text()
    )
    assert output.owner() == cluster.user
    assert all((output.parent.parent / name).owner() == cluster.user for name in ("input", "output", "error"))
    (mail,) = [
        mail for mail in stage.smtp.mails if mail.message["Subject"] == "hello-world test job finished!"
    ]
    assert (mail.sender, mail.recipients) == ("username@gmail.com", ["username@gmail.com"])
    text = mail.text()
    assert text.startswith("hello!\n")
    for fact in (uuid, str(job_id), "slurm-proxy-test.generic", cluster.user, "COMPLETED", str(output)):
        assert fact in text
    shutil.rmtree(output.parent.parent)


def test_the_record_comes_by_both_ids_and_its_task_can_be_sent_again(stage: Stage) -> None:
    task = stage.tasks["good"]
    job_id = stage.service.record(task)["slurm_job_id"]
    for slash in ("", "/"):
        by_id = stage.service.get(f"/monitor/slurm_job_id/{job_id}{slash}")
        by_uuid = stage.service.get(f"/monitor/task_uuid/{task['uuid']}{slash}")
        assert by_id == by_uuid
        assert by_id["monitor"]["task"] == task
        assert (by_id["slurm"]["job_id"], by_id["slurm"]["username"]) == (job_id, stage.cluster.user)
    again = {**by_id["monitor"]["task"], "uuid": new_uuid(), "notification": {"methods": ["test"]}}
    assert stage.service.post("/submit", {"task": again}).status_code == 200
    stage.tasks["again"] = again
    assert stage.ended("again")["slurm_job_state"] == "COMPLETED"
    assert stage.service.post("/submit", {"task": task}).json()["slurm_job_id"] == job_id


def test_a_job_submitted_elsewhere_is_handed_over_and_announced(stage: Stage) -> None:
    client = stage.cluster.client()
    structured = client._session.dialect().is_structured
    job = {
        "current_working_directory": str(stage.folder),
        "environment": ["PATH=/bin"] if structured else {"PATH": "/bin"},
        "standard_output": "/dev/null",
        "name": "elsewhere",
        "memory_per_node": 50,
    }
    script = "#!/bin/bash\nsleep 2; exit 4\n"
    reply = client.send_raw(
        "POST", "job/submit", user=stage.cluster.user, json={"script": script, "job": job}
    )
    client.close()
    job_id = reply.body["job_id"]
    task = {
        "uuid": new_uuid(),
        "username": stage.cluster.user,
        "notification": make_email(subject="about it"),
    }
    body = {"monitor": {"task": task, "slurm_job_id": job_id}}
    stranger = {"monitor": {"task": {**task, "username": "nobody"}, "slurm_job_id": job_id}}
    assert stage.service.post("/monitor", stranger).json()["code"] == "not_the_owner"
    answer = stage.service.post("/monitor", body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["slurm_job_id"] == job_id
    stage.tasks["it"] = task
    assert stage.ended("it")["slurm_job_state"] == "FAILED"
    (mail,) = stage.mails("it")
    assert mail.message["Subject"] == "[FAILED] about it"
    assert "Exit code  4" in mail.text()
    assert stage.service.post("/monitor", body).json()["code"] == "duplicate_uuid"


def test_a_clean_restart_loses_nothing(stage: Stage) -> None:
    stage.submit("restart", "sleep 2")
    assert stage.service.stop() == 0
    stage.service.start()
    assert stage.ended("restart")["slurm_job_state"] == "COMPLETED"
    assert len(stage.mails("restart")) == 1


def test_a_mail_server_that_was_away_gets_the_message_later(stage: Stage) -> None:
    stage.smtp.__exit__()
    try:
        stage.submit("patience", "true")
        until(
            lambda: [
                item
                for item in stage.service.record(stage.tasks["patience"])["notifications"]
                if item["status"] == "retrying" and item["last_error"]
            ],
            60,
            "a failed attempt",
        )
    finally:
        stage.smtp.__enter__()
    assert stage.ended("patience")["slurm_job_state"] == "COMPLETED"
    assert len(stage.mails("patience")) == 1


def test_a_bad_partition_is_a_400_in_slurms_words_and_the_uuid_stays_free(stage: Stage) -> None:
    task = stage.task("refused", "true", slurm={"partition": "nowhere"})
    response = stage.service.post("/submit", {"task": task})
    assert (response.status_code, response.json()["code"]) == (400, "slurm_refused")
    assert "partition" in response.json()["error"].lower()
    task["slurm"] = {"mem": 50}
    assert stage.service.post("/submit", {"task": task}).status_code == 200


def test_a_dry_run_shows_the_submission_and_leaves_its_uuid_free(stage: Stage) -> None:
    task = stage.task("dry run", "true", slurm={"mem": 50})
    shown = stage.service.post("/submit?dry_run=true", {"task": task})
    assert (shown.status_code, shown.json()["valid"]) == (200, True), shown.text
    jobs = stage.service.get("/slurm/jobs/0")["jobs"]
    assert not [job for job in jobs if task["uuid"] in str(job.get("comment"))]
    assert stage.service.answer(f"/monitor/task_uuid/{task['uuid']}").status_code == 400
    sent = stage.service.post(f"/slurm/job/submit?username={task['username']}", shown.json()["slurm"])
    assert sent.status_code == 200, sent.text


def test_operators_see_slurms_own_answers(stage: Stage) -> None:
    assert stage.service.get("/slurm/ping")["pings"]
    assert "statistics" in stage.service.get("/slurm/diag/")
    assert stage.service.get("/slurm/jobs/0")["jobs"]
    job_id = stage.submit("raw", "true")
    assert stage.service.get(f"/slurm/job/{job_id}")["jobs"][0]["job_id"] == job_id


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_a_job_that_takes_too_much_memory_is_no_success(stage: Stage) -> None:
    check_end(stage, "memory")


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_the_figures_of_a_job_stand_in_its_message_as_slurmdbd_has_them(stage: Stage) -> None:
    # 4 s of a CPU, however busy the machine is, but within 7 s
    busy = "timeout 7 sh -c 'ulimit -t 4; while :; do :; done'; true"
    stage.submit("busy", busy, slurm={"mem": 100, "time": 1})
    record = stage.ended("busy")
    (mail,) = stage.mails("busy")
    facts = dict(re.findall(r"^(CPU|Run time|Memory) +(.*)$", mail.text(), re.MULTILINE))
    assert re.fullmatch(r"0:00:0[45678] of 1:00:00", facts["Run time"])
    share = re.fullmatch(r"(\d+) % of 1 CPU", facts["CPU"])
    assert share is not None
    assert 20 <= int(share[1]) <= 110
    assert facts.get("Memory", "1 MB of 100 MB").endswith(" of 100 MB")
    slurm = stage.service.get(f"/monitor/task_uuid/{record['task']['uuid']}")["slurm"]
    assert 1 <= slurm["cpu_seconds"] <= 8
    assert int(share[1]) == pytest.approx(100 * slurm["cpu_seconds"] / slurm["run_seconds"], abs=1)


def test_a_time_limit_is_announced_over_a_kill(stage: Stage) -> None:
    check_end(stage, "timeout")


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_an_array_whose_failed_tasks_slurmctld_has_forgotten_is_no_success(stage: Stage) -> None:
    record = stage.ended("array")
    assert record["slurm_job_state"] == "FAILED"
    slurm = stage.service.get(f"/monitor/task_uuid/{record['task']['uuid']}")["slurm"]
    assert slurm["array_tasks"] == {"FAILED": 2, "COMPLETED": 1}
    assert slurm["failed_tasks"] == "0-1"
    (mail,) = stage.mails("array")
    assert mail.message["Subject"] == "[FAILED] about array"


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_the_events_of_a_waiting_job_are_announced_over_a_kill(stage: Stage) -> None:
    early = {"depends": {"[still waiting] about depends", "[cannot begin] about depends"}}
    early["waits"] = {"[still waiting] about waits"}
    for name, wanted in early.items():
        until(partial(has_subjects, stage, name, wanted), 150, f"{wanted}")
        stage.cancel(stage.service.record(stage.tasks[name])["slurm_job_id"])
    for name, wanted in early.items():
        wanted = wanted | {f"[CANCELLED] about {name}"}
        until(partial(has_subjects, stage, name, wanted), 60, f"the end of {name}")


def test_callers_with_keys_do_what_was_granted_and_no_more(stage: Stage, tmp_path: Path) -> None:
    """Submitted, looked at and cancelled over HTTP, on Slurm itself, by two callers."""
    user = stage.cluster.user
    settings = {"ACCESS_METHODS": "keys", "AUDIT_LOG_PATH": str(tmp_path / "audit.jsonl")}
    if stage.cluster.name == "local":
        settings["TASK_ALLOWED_SERVICE_USERS"] = user
    with Service(tmp_path, stage.cluster, stage.smtp, **settings) as service:
        proofs = {}
        for name in (user, "somebody-else"):
            key = service.flask("keys", "create", f"{name}'s", "--user", name)
            proofs[name] = {"Authorization": f"Bearer {key}"}
        mine, others = proofs.values()
        service.start()
        task = stage.task("guarded", "sleep 600", slurm={"mem": 50, "time": 1})
        where = f"/monitor/task_uuid/{task['uuid']}"
        assert service.post("/submit", {"task": task}).status_code == 401
        assert service.post("/submit", {"task": task}, **others).status_code == 403
        job_id = service.post("/submit", {"task": task}, **mine).json()["slurm_job_id"]
        until(lambda: service.get(where, **mine)["slurm"]["job_state"] == "RUNNING", 60, "its start")
        for path in (where, f"/monitor/slurm_job_id/{job_id}"):
            assert service.answer(path, **others).json()["code"].startswith("unknown_")
        for action in JobAction:
            assert service.post(f"{where}/{action}", {}, **others).status_code == 404
        nothing = service.post("/monitor/cancel", {"filter": {"state": "open"}}, **others).json()
        assert nothing["tasks"] == []
        assert service.post(f"{where}/hold", {}, **mine).json()["code"] == "already_running"
        assert service.get(where, **mine)["slurm"]["job_state"] == "RUNNING"
        assert service.post(f"{where}/cancel", {}, **mine).json()["slurm_job_id"] == job_id

        def is_announced() -> bool:
            record = service.get(where, **mine)["monitor"]
            is_over: bool = record["slurm_job_state"] == "CANCELLED"
            return is_over and record["notifications"][0]["status"] == "sent"

        until(is_announced, 60, "the announced end")
        assert service.post(f"{where}/cancel", {}, **mine).json()["changed"] is False
        (mail,) = stage.mails("guarded")
        assert mail.message["Subject"] == "[CANCELLED] about guarded"
        service.flask("keys", "revoke", mine["Authorization"].split("_")[1])
        assert service.answer(where, **mine).status_code == 401
        assert service.stop() == 0
        done = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
        commands = [entry["action"] for entry in done if "status" not in entry]
        assert commands == ["keys create", "keys create", "keys revoke"]
        statuses = [entry["status"] for entry in done if "status" in entry]
        assert statuses == [401, 403, 200, *[404] * len(JobAction), 200, 409, 200, 200, 401]


def has_subjects(stage: Stage, name: str, wanted: set[str]) -> bool:
    return set(subjects(stage, name)) == wanted


def subjects(stage: Stage, name: str) -> list[str]:
    return [str(mail.message["Subject"]) for mail in stage.mails(name)]


def run_again(stage: Stage, command: str, job_id: int) -> None:
    """Have the user's own job give a Slurm command, after which another job need not wait for its start.

    In the second of its first end, the node would still refuse that job: its credential counts as revoked.
    """
    commands = f"scontrol {command} {job_id} && scontrol update JobId={job_id} StartTime=now+2"
    stage.submit(command, commands, slurm={"mem": 50, "time": 1})
    assert stage.ended(command)["slurm_job_state"] == "COMPLETED"


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_an_ended_job_that_its_user_requeues_is_announced_at_each_end(stage: Stage) -> None:
    mark = shlex.quote(str(stage.folder / "has-run"))
    once_more = f"if [ -e {mark} ]; then sleep 15; else touch {mark}; exit 3; fi"
    job_id = stage.submit("requeued", once_more, slurm={"mem": 50, "time": 1})
    assert stage.ended("requeued")["slurm_job_state"] == "FAILED"
    run_again(stage, "requeue", job_id)
    until(lambda: len(subjects(stage, "requeued")) == 2, 150, "the second end")
    assert subjects(stage, "requeued") == ["[FAILED] about requeued", "about requeued"]
    assert stage.state("requeued") == "COMPLETED"


@pytest.mark.parametrize("cluster", REAL_CLUSTERS, indirect=True)
def test_a_job_that_is_held_after_its_exit_is_announced_once_it_has_really_ended(stage: Stage) -> None:
    mark = shlex.quote(str(stage.folder / "was-held"))
    held = 'scontrol requeuehold State=SpecialExit "$SLURM_JOB_ID"; sleep 60'
    wish = {**make_email(subject="about special"), "events": ["requeue", "end"]}
    once_held = f"if [ ! -e {mark} ]; then touch {mark}; {held}; fi"
    job_id = stage.submit("special", once_held, slurm={"mem": 50, "time": 1}, notification=wish)
    until(lambda: subjects(stage, "special") == ["[requeued] about special"], 100, "the hold")
    assert "is held there until it is released" in stage.mails("special")[0].text()
    until(lambda: stage.state("special") == "SPECIAL_EXIT", 60, "the end of the held job's processes")
    run_again(stage, "release", job_id)
    until(lambda: len(subjects(stage, "special")) == 2, 100, "the end")
    assert subjects(stage, "special")[1] == "about special"
    assert stage.state("special") == "COMPLETED"


def test_no_message_came_twice_and_no_traceback_was_logged(stage: Stage) -> None:
    ids = [mail.message["Message-ID"] for mail in stage.smtp.mails]
    assert len(ids) == len(set(ids))
    assert "Traceback" not in stage.service.log.read_text()
    assert {JobState(stage.state(name)).is_final for name in STORY if name in stage.tasks} == {True}
