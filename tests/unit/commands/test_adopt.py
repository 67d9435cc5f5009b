"""The command that adopts jobs after a restore."""

import gzip
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import SlurmUnavailable
from app.job_state import JobState
from app.lifecycle.job_identity import make_tag
from app.models.record import utc_now
from tests.support.access import Site
from tests.support.stores import make_record


def run(site: Site, *arguments: object) -> Any:
    return site.app.test_cli_runner().invoke(args=["records", "adopt", *map(str, arguments)])


@pytest.fixture
def restored(new_site: Callable[..., Site], tmp_path: Path) -> Site:
    """A site whose store is older than its task "one"."""
    site = new_site(AUDIT_LOG_PATH=tmp_path / "audit.jsonl")
    key = site.key()
    backup = tmp_path / "backup.sqlite3"
    made = site.app.test_cli_runner().invoke(args=["records", "backup", str(backup)])
    assert made.exit_code == 0, made.output
    assert site.submit(key, uuid="one").status_code == 200
    site.services.store.close()
    path = tmp_path / "store.sqlite3"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    backup.rename(path)
    site.app = site.another()
    site.client = site.app.test_client()
    site.restored_key = key  # type: ignore[attr-defined]
    return site


def test_a_uuid_that_was_used_after_the_backup_is_taken_again(restored: Site, trail: Path) -> None:
    key = restored.restored_key  # type: ignore[attr-defined]
    listed = run(restored, "--dry-run")
    assert listed.stdout == "adopted  one  job 1001 of alice, PENDING\n"
    assert "1 would be adopted, 0 reservations would be settled, 0 known, 0 ignored." in listed.stderr
    adopted = run(restored)
    assert (adopted.exit_code, adopted.stdout) == (0, listed.stdout)
    assert ": 1 adopted, 0 reservations settled, 0 known, 0 ignored.\n" in adopted.stderr
    answer = restored.submit(key, uuid="one")
    assert (answer.status_code, answer.json["code"]) == (400, "duplicate_uuid")
    assert answer.json["slurm_job_id"] == 1001
    shown = restored.call("GET", "/monitor/task_uuid/one", key)
    assert shown.status_code == 200
    assert shown.json["monitor"]["task"]["adopted_from_slurm"] is True
    assert len(restored.slurm.submitted) == 1
    again = run(restored)
    assert (again.exit_code, again.stdout) == (0, "")


def test_an_adopted_task_is_listed_and_cannot_be_submitted_again_without_its_command(restored: Site) -> None:
    key = restored.restored_key  # type: ignore[attr-defined]
    run(restored)
    (listed,) = restored.call("GET", "/monitor", key).json["tasks"]
    assert (listed["uuid"], listed["slurm_job_id"], listed["ended"]) == ("one", 1001, False)
    again = restored.call("POST", "/monitor/task_uuid/one/resubmit", key, {})
    assert again.status_code in (400, 422)
    assert "task.name" in again.json["error"]
    assert len(restored.slurm.submitted) == 1


def test_an_adoption_is_in_the_audit_trail(restored: Site, tmp_path: Path) -> None:
    run(restored)
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    (entry,) = [line for line in lines if line["action"] == "records adopt"]
    assert (entry["username"], entry["task_uuid"], entry["slurm_job_id"]) == ("alice", "one", 1001)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_audit_trail_shows_the_jobs_that_slurm_has_forgotten(
    site: Site, tmp_path: Path, suffix: str
) -> None:
    site.slurm.put(7, JobState.COMPLETED, comment=make_tag("two"))
    site.slurm.forget(7)
    without = run(site, "--since", "2h")
    assert without.exit_code == 0
    assert "no comment, so that nothing shows which of them are tasks. Give the audit trail" in without.stderr
    trail = tmp_path / f"trail{suffix}"
    entry = {
        "at": utc_now().isoformat(),
        "request_id": "1",
        "caller": "alice",
        "address": "-",
        "action": "POST /submit",
        "username": "alice",
        "task_uuid": "two",
        "slurm_job_id": 7,
        "status": 200,
    }
    line = json.dumps(entry).encode() + b"\n"
    trail.write_bytes(gzip.compress(line) if suffix else line)
    found = run(site, "--audit", trail, "--audit", trail)
    assert found.stdout == "adopted  two  job 7 of alice, COMPLETED\n"
    assert "Give the audit trail" not in found.stderr
    assert "only the audit trail shows which of them are tasks. Give its rotated files" in found.stderr


def test_a_trail_that_cannot_be_read_stops_the_command(site: Site, tmp_path: Path) -> None:
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"x" * 1000)[:15])
    packed = bytearray(gzip.compress(bytes(range(256)) * 9))
    packed[10] ^= 0x06  # a kind of block that does not exist
    (tmp_path / "damaged.gz").write_bytes(packed)
    (tmp_path / "not.gz").write_bytes(b"not packed")
    for name, words in (
        ("none", "No such file or directory"),
        (".", "Is a directory"),
        ("torn.gz", "ended before"),
        ("damaged.gz", "invalid"),
        ("not.gz", "Not a gzipped file"),
    ):
        result = run(site, "--audit", tmp_path / name)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: --audit: {tmp_path / name} cannot be read: ")
        assert words in result.stderr


def test_an_outage_of_slurm_stops_the_command(site: Site) -> None:
    site.slurm.down = SlurmUnavailable("slurmrestd does not answer")
    result = run(site)
    assert (result.exit_code, result.stderr) == (1, "Error: slurmrestd does not answer\n")


def test_a_search_that_is_not_complete_fails_after_its_work(site: Site) -> None:
    site.slurm.put(7, comment=make_tag("two"))
    site.slurm.accounting_down = SlurmUnavailable("slurmdbd does not answer")
    result = run(site)
    assert (result.exit_code, result.stdout) == (1, "adopted  two  job 7 of alice, PENDING\n")
    assert "Warning: slurmdbd was not searched: slurmdbd does not answer\n" in result.stderr


def test_a_time_without_a_unit_is_refused(site: Site) -> None:
    result = run(site, "--since", "7")
    assert result.exit_code == 2
    assert "7 must be a number with a unit, such as 30m, 24h or 7d" in result.output


def test_a_search_reaches_back_to_the_newest_record_unless_told_otherwise(site: Site) -> None:
    month_ago = utc_now() - timedelta(days=30)
    site.services.store.add_record(make_record(created_at=month_ago))
    found = run(site)
    assert found.stderr.startswith(f"Jobs since {month_ago - timedelta(hours=1):%Y-%m-%d %H:%MZ}: ")
    assert "Warning" not in found.stderr
    short = run(site, "--since", "2d")
    assert f"Warning: the newest record is of {month_ago:%Y-%m-%d %H:%MZ}, before" in short.stderr
    site.services.store.add_record(make_record(created_at=utc_now()))
    assert run(site).stderr.startswith(f"Jobs since {utc_now() - timedelta(days=7):%Y-%m-%d}")
