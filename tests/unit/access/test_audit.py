"""The audit trail and the request log."""

import json
import logging
import os
import pwd
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.access import audit
from app.environment import read_settings
from app.errors import (
    StoreUnavailable,
)
from app.job_state import JobState
from app.logs import configure_logging
from app.models.caller import ORDINARY_SCOPES, Grant, Scope
from app.models.job_action import JobAction
from tests.support.access import ALICE, Site, entries
from tests.support.tasks import make_task


def test_the_audit_trail_has_the_caller_the_action_and_the_user(site: Site, trail: Path) -> None:
    _, kept = site.keys.create("pipeline", ALICE, None)
    key = site.key()
    good = site.submit(key)
    made = site.keys.list_all()[-1]
    name = f"key:{made.name}:{made.id}"
    site.submit("sp_wrong_key")
    site.submit(key, username="bob")
    site.call("POST", f"/monitor/task_uuid/{good.json['uuid']}/cancel", key)
    site.call("GET", f"/monitor/task_uuid/{good.json['uuid']}", key)
    site.call("GET", "/slurm/ping", key)
    submitted, wrong, for_bob, cancelled, slurm = entries(trail)
    assert kept.name == "pipeline"
    assert submitted["caller"] == name
    assert submitted["action"] == "POST /submit"
    assert submitted["username"] == "alice"
    assert submitted["task_uuid"] == good.json["uuid"]
    assert submitted["slurm_job_id"] == good.json["slurm_job_id"]
    assert (submitted["status"], submitted["address"]) == (200, "127.0.0.1")
    assert submitted["request_id"] == good.headers["X-Request-Id"]
    assert submitted["at"].endswith(("Z", "+00:00"))
    assert (wrong["caller"], wrong["status"], wrong["code"]) == ("-", 401, "not_authenticated")
    assert (for_bob["username"], for_bob["status"]) == ("bob", 403)
    assert (cancelled["task_uuid"], cancelled["status"]) == (good.json["uuid"], 200)
    assert (cancelled["username"], cancelled["slurm_job_id"]) == ("alice", good.json["slurm_job_id"])
    assert (slurm["action"], slurm["status"]) == ("GET /slurm/ping", 403)


def test_the_audit_trail_tells_a_dry_run_from_a_submission(site: Site, trail: Path) -> None:
    for username in ("alice", "bob"):
        body = {"task": make_task(username=username, uuid="u")}
        site.call("POST", "/submit?dry_run=true", site.key(), body)
    site.call("POST", "/submit?dry_run=false", site.key(), {"task": make_task()})
    allowed, refused, submitted = entries(trail)
    assert (allowed["action"], allowed["status"]) == ("POST /submit?dry_run=true", 200)
    assert (allowed["username"], allowed["task_uuid"]) == ("alice", "u")
    assert "slurm_job_id" not in allowed
    assert (refused["action"], refused["status"]) == ("POST /submit?dry_run=true", 403)
    assert submitted["action"] == "POST /submit"


def test_the_audit_trail_names_both_tasks_of_a_resubmission(site: Site, trail: Path) -> None:
    first = site.submit(site.key()).json
    path = f"/monitor/task_uuid/{first['uuid']}/resubmit"
    answer = site.call("POST", path, site.key(), {"task": {"cmd": "ls"}}).json
    checked = site.call("POST", f"{path}?dry_run=true", site.key(), {"uuid": "third"})
    site.call("POST", path, site.key(Grant(scopes=ORDINARY_SCOPES, users=("bob",))))
    _, again, dry_run, unknown = entries(trail)
    assert again["action"] == "POST /monitor/task_uuid/<task_uuid>/resubmit"
    assert (again["username"], again["task_uuid"]) == ("alice", answer["uuid"])
    assert (again["slurm_job_id"], again["resubmitted_from"]) == (answer["slurm_job_id"], first["uuid"])
    assert checked.status_code == 200
    assert (dry_run["username"], dry_run["task_uuid"], dry_run["resubmitted_from"]) == (
        "alice",
        "third",
        first["uuid"],
    )
    assert (unknown["task_uuid"], unknown["status"]) == (first["uuid"], 404)


def test_the_audit_trail_names_each_task_that_one_request_cancels(site: Site, trail: Path) -> None:
    key = site.key()
    first, second = (site.submit(key).json for _ in range(2))
    site.slurm.put(first["slurm_job_id"], JobState.COMPLETED)
    body = {"filter": {"state": "open"}}
    site.call("POST", "/monitor/cancel", key, {**body, "dry_run": True})
    site.call("POST", "/monitor/cancel", key, body)
    dry_run, request, *tasks = entries(trail)[2:]
    assert dry_run["action"] == "POST /monitor/cancel?dry_run=true"
    assert (request["action"], request["status"]) == ("POST /monitor/cancel", 200)
    assert [(task["task_uuid"], task["slurm_job_id"], task["outcome"]) for task in tasks] == [
        (second["uuid"], second["slurm_job_id"], "cancelled"),
        (first["uuid"], first["slurm_job_id"], "already_over"),
    ]
    assert {(task["action"], task["username"]) for task in tasks} == {("POST /monitor/cancel", "alice")}


@pytest.mark.parametrize("action", JobAction)
def test_the_audit_trail_names_each_action(site: Site, trail: Path, action: JobAction) -> None:
    key = site.key()
    task = site.submit(key).json
    for where in (f"task_uuid/{task['uuid']}", f"slurm_job_id/{task['slurm_job_id']}"):
        site.call("POST", f"/monitor/{where}/{action}", key)
    _, by_uuid, by_job_id = entries(trail)
    assert by_uuid["action"] == f"POST /monitor/task_uuid/<task_uuid>/{action}"
    assert by_job_id["action"] == f"POST /monitor/slurm_job_id/<slurm_job_id>/{action}"
    status = 409 if action is JobAction.REQUEUE else 200
    assert {by_uuid["status"], by_job_id["status"]} == {status}
    assert (by_uuid["task_uuid"], by_job_id["slurm_job_id"]) == (task["uuid"], task["slurm_job_id"])


def test_a_deleted_job_is_an_audit_line_like_a_cancelled_task(site: Site, trail: Path) -> None:
    good = site.submit(site.key()).json
    path = f"/monitor/slurm_job_id/{good['slurm_job_id']}"
    site.call("DELETE", path, site.key(Grant(scopes=ORDINARY_SCOPES, users=("bob",))))
    site.call("DELETE", path, site.key())
    _, unknown, cancelled = entries(trail)
    assert (unknown["status"], unknown["slurm_job_id"]) == (404, good["slurm_job_id"])
    assert cancelled["action"] == "DELETE /monitor/slurm_job_id/<slurm_job_id>"
    assert (cancelled["task_uuid"], cancelled["slurm_job_id"]) == (good["uuid"], good["slurm_job_id"])
    assert (cancelled["username"], cancelled["status"]) == ("alice", 200)


def test_the_audit_trail_takes_user_and_task_only_from_the_request_itself(site: Site, trail: Path) -> None:
    task = make_task()
    site.call("POST", "/submit?username=bob&uuid=b&task_uuid=b", site.key(), {"task": task})
    admin = site.key(Grant(scopes=frozenset({Scope.ADMIN}), users="any"))
    site.call("POST", "/slurm/job/submit?username=alice", admin, {"task": {"username": "bob", "uuid": "b"}})
    first, second = entries(trail)
    assert (first["username"], first["task_uuid"]) == ("alice", task["uuid"])
    assert (second["username"], second.get("task_uuid")) == ("alice", None)


def test_the_trail_is_only_added_to_and_only_its_owner_reads_it(site: Site, trail: Path) -> None:
    assert trail.stat().st_mode & 0o777 == 0o600
    site.submit(site.key())
    before = trail.read_text()
    audit.open_audit_trail(trail)  # a restart
    site.submit(site.key())
    assert trail.read_text().startswith(before)
    assert len(entries(trail)) == 2
    trail.rename(trail.with_suffix(".1"))  # as logrotate does
    site.submit(site.key())
    assert len(entries(trail)) == 1
    assert trail.stat().st_mode & 0o777 == 0o600


def test_a_refusal_is_on_record_while_the_store_is_away(
    site: Site, trail: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(site.services.store, "find_key", away)
    answer = site.submit(f"sp_{'0' * 12}_x")
    assert answer.status_code == 503
    assert entries(trail)[-1]["code"] == "store_unavailable"


def test_each_answer_names_its_request(site: Site) -> None:
    given = site.call("GET", "/ping", **{"X-Request-Id": "from-the-caller.1"})
    assert given.headers["X-Request-Id"] == "from-the-caller.1"
    made = [
        site.call("GET", "/ping", **{"X-Request-Id": bad}).headers["X-Request-Id"]
        for bad in ("", "a b", "x" * 65)
    ]
    assert all(re.fullmatch(r"[0-9a-f]{16}", name) for name in made)
    assert len(set(made)) == 3
    assert site.call("GET", "/nowhere").headers["X-Request-Id"]


@pytest.fixture
def logged(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., str]]:
    """Configures the log, and gives what was written."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def read(**settings: Any) -> str:
        if settings:
            configure_logging(read_settings(settings))
        return capfd.readouterr().err

    yield read
    root.handlers[:], root.level = handlers, level
    logging.getLogger("app").setLevel("INFO")


def test_the_log_is_json_where_programs_read_it(site: Site, logged: Callable[..., str]) -> None:
    logged(LOG_FORMAT="json")
    answer = site.submit(site.key())
    lines = [json.loads(line) for line in logged().splitlines()]
    mine = [line for line in lines if line["request_id"] == answer.headers["X-Request-Id"]]
    (request,) = [line for line in mine if line["name"] == "app.requests"]
    assert request["levelname"] == "INFO"
    assert re.fullmatch(r"POST /submit 200 by key:key-\S+ from 127\.0\.0\.1 in \d+ ms", request["message"])


def test_caller_cannot_write_lines_into_the_log(site: Site, logged: Callable[..., str]) -> None:
    logged(LOG_FORMAT="text")
    forged = "x\n2026-01-01 00:00:00,000 INFO app.requests [-]: forged"
    logging.getLogger("app.test").warning("a caller said %s", forged)
    try:
        raise ValueError(forged)
    except ValueError:
        logging.getLogger("app.test").exception("it failed")
    site.call("GET", "/monitor/task_uuid/%0Aforged%0D%1B[2J", site.key())
    text = logged()
    assert "forged" in text
    assert "\x1b" not in text
    assert not any(line.startswith(("2026-01-01", "forged")) for line in text.splitlines())


def test_keys_that_are_made_and_revoked_are_in_the_trail(site: Site, trail: Path) -> None:
    runner = site.app.test_cli_runner()
    made = runner.invoke(args=["keys", "create", "pipeline", "--user", "alice", "--scope", "read"])
    id_ = made.stdout.split("_")[1]
    assert runner.invoke(args=["keys", "create", "pipeline", "--any-user"]).exit_code == 1
    assert runner.invoke(args=["keys", "revoke", id_]).exit_code == 0
    assert runner.invoke(args=["keys", "revoke", id_]).exit_code == 1
    created, revoked = entries(trail)
    for entry, action in ((created, "keys create"), (revoked, "keys revoke")):
        assert (entry["action"], entry["key"]) == (action, f"key:pipeline:{id_}")
        assert entry["grant"] == "read for alice"
        assert entry["caller"].startswith(f"cli:{pwd.getpwuid(os.getuid()).pw_name}")
    assert made.stdout.strip() not in trail.read_text()


def test_no_line_separator_or_control_character_stands_raw_in_the_trail(site: Site, trail: Path) -> None:
    odd = "".join(
        map(chr, [*range(1, 32), 0x7F, *range(0x80, 0xA0), 0x2028, 0x2029, 0x202E, 0xFEFF, 0xE0001])
    )
    names = [odd[:50], odd[50:], 'quo"te\\', "Zoë 漢字 🦠"]
    for name in names:
        assert site.submit(site.key(), username=name).status_code == 400
    names.append("half \ud800")
    audit.write_audit_entry(audit.AuditEntry.model_validate({**entries(trail)[0], "username": names[-1]}))
    text = trail.read_bytes().decode()
    assert all(character.isprintable() for line in text.split("\n") for character in line)
    assert [entry["username"] for entry in entries(trail)] == names
    assert "Zoë 漢字 🦠" in text


def test_the_access_line_has_fields_where_programs_read_it(site: Site, logged: Callable[..., str]) -> None:
    logged(LOG_FORMAT="json")
    key, task = site.key(), make_task()
    job_id = site.call("POST", "/submit", key, {"task": task}).json["slurm_job_id"]
    paths = [
        f"/monitor/task_uuid/{task['uuid']}",
        f"/monitor/slurm_job_id/{job_id}",
        "/monitor/task_uuid/none",
    ]
    for path in paths:
        site.call("GET", path, key)
    site.call("GET", f"/monitor/task_uuid/{task['uuid']}")
    site.call("GET", "/ping")
    lines = [json.loads(line) for line in logged().splitlines()]
    found = [line for line in lines if line["name"] == "app.requests"]
    assert all(isinstance(line["duration"], float) and 0 <= line["duration"] < 10 for line in found)
    assert [
        (line["method"], line["status"], line["user"], line["uuid"], line["slurm_job_id"]) for line in found
    ] == [
        ("POST", 200, "alice", task["uuid"], job_id),
        ("GET", 200, "alice", task["uuid"], job_id),
        ("GET", 200, "alice", task["uuid"], job_id),
        ("GET", 400, None, "none", None),
        ("GET", 401, None, task["uuid"], None),
        ("GET", 200, None, None, None),
    ]
    assert found[0]["caller"].startswith("key:key-")
    assert (found[0]["route"], found[0]["address"]) == ("/submit", "127.0.0.1")
    assert found[4]["caller"] == "-"
