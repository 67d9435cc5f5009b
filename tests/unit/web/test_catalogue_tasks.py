"""Tasks whose catalogue entry has parameters and defaults, over HTTP."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from app.job_state import JobState
from app.models.caller import ORDINARY_SCOPES, Grant
from app.models.record import utc_now
from tests.support.access import ALICE, Site
from tests.support.tasks import make_email, new_uuid

HOW_TO = Path(__file__).parents[3] / "docs/how-to/offer-a-task-with-parameters.md"
FOLDERS = {name: f"/scratch/${{username}}/{name}" for name in ("parent", "input", "output", "error")}
ALIGN = {
    "description": "Align the reads of a sample.",
    "cmd": "bwa mem",
    "default_params": ["-t ${threads}", "--sample=${sample}", "${files}"],
    "slurm": {"mem": "4G", "time": 2, "partition": "long", "output": "align.txt", "job_name": "align-job"},
    "dirs": FOLDERS,
    "parameters": {
        "properties": {
            "sample": {"type": "string", "maxLength": 20},
            "threads": {"$ref": "#/$defs/count", "default": 4},
            "files": {"type": "array", "items": {"type": "string"}, "default": []},
        },
        "required": ["sample"],
        "$defs": {"count": {"type": "integer", "minimum": 1}},
    },
}
HALF = {"cmd": "true", "slurm": {}, "dirs": {"parent": "/p", "input": "/i"}}
NAMES = {"align": ALIGN, "half": HALF}


@pytest.fixture
def site(tmp_path: Path) -> Any:
    site = Site(tmp_path / "store.sqlite3", TASK_METADATA=NAMES)
    yield site
    site.services.store.close()


def task_of(**fields: Any) -> dict[str, Any]:
    task = {"name": "align", "username": "alice", "uuid": new_uuid(), "cwd": "/home/alice", **fields}
    return {"parameters": {"sample": "it's $(id)"}, **task}


def submit(site: Site, task: dict[str, Any], proof: str | None = None, query: str = "") -> Any:
    return site.call("POST", f"/submit{query}", proof or site.key(), {"task": task})


def monitor_of(site: Site, task: dict[str, Any]) -> Any:
    return site.call("GET", f"/monitor/task_uuid/{task['uuid']}", site.key()).json


def test_a_task_is_completed_by_its_entry_and_stored_verbatim(site: Site) -> None:
    task = task_of(slurm={"mem_per_cpu": 500})
    assert submit(site, task).status_code == 200
    ((sent, command, _),) = site.slurm.submitted
    assert command == "bwa mem -t '4' --sample='it'\\''s $(id)'"
    options = (sent.slurm.mem, sent.slurm.mem_per_cpu, sent.slurm.time, sent.slurm.partition)
    assert options == (None, 500, 2, "long")
    assert sent.dirs.output == "/scratch/alice/output"
    shown = monitor_of(site, task)
    assert shown["monitor"]["task"] == task
    assert shown["monitor"]["defaults"] == {
        "slurm": {"time": 2, "partition": "long", "output": "align.txt", "job_name": "align-job"},
        "dirs": {name: f"/scratch/alice/{name}" for name in FOLDERS},
    }


def test_files_and_name_of_the_job_follow_from_the_defaults(site: Site) -> None:
    task = task_of(notification=make_email())
    job_id = submit(site, task).json["slurm_job_id"]
    site.slurm.put(job_id, JobState.COMPLETED, name="align-job", start_time=utc_now(), end_time=utc_now())
    site.services.monitor.run_cycle(utc_now())
    shown = monitor_of(site, task)
    assert shown["slurm"]["standard_output"] == "/scratch/alice/output/align.txt"
    (message,) = shown["monitor"]["notifications"]
    assert "/scratch/alice/output/align.txt" in message["text"]


def test_a_record_keeps_the_defaults_of_its_time(site: Site, tmp_path: Path) -> None:
    task = task_of()
    submit(site, task)
    later = Site(tmp_path / "store.sqlite3", TASK_METADATA={"align": {"cmd": "other"}})
    shown = later.call("GET", f"/monitor/task_uuid/{task['uuid']}", later.key()).json
    assert shown["monitor"]["defaults"]["dirs"]["output"] == "/scratch/alice/output"
    later.services.store.close()


def test_a_task_without_defaults_says_nothing_of_them(site: Site) -> None:
    answer = site.submit(site.key())
    shown = monitor_of(site, answer.json)
    assert "defaults" not in shown["monitor"]


def test_a_resubmission_patches_the_stored_task_and_gets_the_defaults_again(site: Site) -> None:
    task = task_of()
    submit(site, task)
    patch = {"task": {"slurm": {"mem": 8000}, "parameters": {"threads": 8}}}
    answer = site.call("POST", f"/monitor/task_uuid/{task['uuid']}/resubmit", site.key(), patch)
    assert answer.status_code == 200, answer.text
    sent, command, _ = site.slurm.submitted[-1]
    assert (sent.slurm.mem, sent.slurm.partition) == (8000, "long")
    assert command.startswith("bwa mem -t '8' ")
    stored = monitor_of(site, answer.json)["monitor"]["task"]
    assert stored == {
        **task,
        "uuid": answer.json["uuid"],
        "slurm": {"mem": 8000},
        "parameters": {"sample": "it's $(id)", "threads": 8},
    }


@pytest.mark.parametrize(
    ("fields", "faults"),
    [
        ({"parameters": {"sample": 5, "thread": 1}}, [".sample: must be a string", ".thread: is not known"]),
        ({"parameters": None}, [".sample: is required"]),
        ({"parameters": []}, [": must be an object"]),
        ({"parameters": {"sample": "x" * 21}}, [".sample: must have at most 20 characters"]),
        ({"parameters": {"sample": "x", "threads": 0}}, [".threads: must be at least 1"]),
    ],
)
def test_faults_of_parameters_are_listed_with_all_others(
    site: Site, fields: dict[str, Any], faults: list[str]
) -> None:
    answer = submit(site, task_of(**fields, cwd="x", slurm={"mem": -1}))
    assert answer.status_code == 400
    expected = ["task.cwd: ", "task.slurm.mem: ", *(f"task.parameters{fault}" for fault in faults)]
    assert len(answer.json["details"]) == len(expected), answer.text
    for fault in expected:
        assert any(one.startswith(fault) for one in answer.json["details"]), answer.text


def test_missing_defaults_are_still_required(site: Site) -> None:
    answer = submit(site, task_of(name="half", parameters=[1]))
    assert answer.json["details"] == ["task.dirs.error: is required", "task.dirs.output: is required"]
    generic = submit(site, task_of(name="generic", cmd="x", params=[]))
    assert generic.json["details"] == ["task.dirs: is required", "task.slurm: is required"]
    wrong: Any
    for wrong in (5, [], None):
        answer = submit(site, task_of(slurm=wrong, dirs=wrong))
        assert answer.json["details"] == ["task.dirs: must be an object", "task.slurm: must be an object"]


def test_grants_apply_to_the_options_of_the_entry(site: Site) -> None:
    debug_only = site.key(Grant(scopes=ORDINARY_SCOPES, users=("alice",), partitions=("debug",)))
    refused = submit(site, task_of(), debug_only)
    assert refused.status_code == 403
    assert refused.json["error"].startswith("task.slurm.partition: must be set to one or more of debug")
    assert submit(site, task_of(slurm={"partition": "debug"}), debug_only).status_code == 200
    long_only = site.key(Grant(scopes=ORDINARY_SCOPES, users=("alice",), partitions=("long",)))
    assert submit(site, task_of(), long_only).status_code == 200


def test_a_retry_is_the_same_request_whatever_the_catalogue_says_now(site: Site, tmp_path: Path) -> None:
    task, key = task_of(), site.key(ALICE)
    first = site.call("POST", "/submit", key, {"task": task}, **{"Idempotency-Key": "k"})
    changed = {**ALIGN, "slurm": {"mem": 1}}
    later = Site(tmp_path / "store.sqlite3", TASK_METADATA={"align": changed})
    again = later.call("POST", "/submit", key, {"task": task}, **{"Idempotency-Key": "k"})
    assert again.json == first.json
    later.services.store.close()


def test_a_dry_run_shows_the_filled_command(site: Site) -> None:
    answer = submit(site, task_of(parameters={"sample": "a", "files": ["b c", "d"]}), query="?dry_run=true")
    assert "bwa mem -t '4' --sample='a' 'b c' 'd'\n" in answer.json["script"]
    assert answer.json["slurm"]["job"]["partition"] == "long"


def test_the_document_describes_parameters_and_defaults(site: Site) -> None:
    assert list(OpenAPIV31SpecValidator(site.contract.document).iter_errors()) == []
    fields: dict[str, Any]
    bare = {"name": "half", "dirs": {"error": "/e", "output": "/o"}, "parameters": {"any": [1]}}
    for fields in (
        {},
        {"slurm": {"mem": 1}},
        {"dirs": {"output": "/o"}},
        {"parameters": {"sample": "a", "threads": 2, "files": ["x"]}},
        bare,
    ):
        task = task_of(**fields)
        assert site.contract.request("POST", "/submit").is_valid({"task": task}), fields
        assert submit(site, task).status_code == 200, fields
    for fields in (
        {"parameters": None},
        {"parameters": {"sample": 1}},
        {"parameters": {"sample": "a", "threads": 0}},
        {"parameters": {"sample": "a", "more": 0}},
        {"slurm": None},
        {"name": "half"},
        {"name": "generic", "cmd": "x", "params": [], "dirs": FOLDERS},
        {"name": "generic", "cmd": "x", "params": [], "slurm": {}},
        {"name": "generic", "cmd": "x", "params": [], "slurm": {}, "dirs": {"output": "/o"}},
    ):
        task = task_of(**fields)
        assert not site.contract.request("POST", "/submit").is_valid({"task": task}), fields
        assert submit(site, task).status_code == 400, fields


def test_the_catalogue_shows_them(site: Site) -> None:
    listed = site.call("GET", "/catalogue", site.key()).json["catalogue"]
    align = next(entry for entry in listed if entry["name"] == "align")
    assert align["description"] == ALIGN["description"]
    assert align["slurm"] == ALIGN["slurm"]
    assert align["dirs"] == FOLDERS
    assert align["parameters"]["properties"] == ALIGN["parameters"]["properties"]  # type: ignore[index]
    assert json.dumps(align).count("additionalProperties") == 1


def test_the_entry_of_the_documentation_works(tmp_path: Path) -> None:
    entry, request = re.findall(r"^```json\n(.*?)^```$", HOW_TO.read_text(), re.S | re.M)
    site = Site(tmp_path / "store.sqlite3", TASK_METADATA=json.loads(entry))
    answer = submit(site, json.loads(request)["task"], site.key(Grant(scopes=ORDINARY_SCOPES, users="any")))
    assert answer.status_code == 200, answer.text
    ((sent, command, _),) = site.slurm.submitted
    assert f"The job runs `{command}`." in HOW_TO.read_text()
    assert (sent.slurm.mem, sent.slurm.time) == (16384, 4)
    assert sent.dirs.output == "/scratch/ann/align-17/out"
    site.services.store.close()
