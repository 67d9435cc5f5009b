"""The commands that back up, export and import the records."""

import gzip
import json
import os
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest

from app import commands
from app.commands.backup import repeat_backup
from app.commands.durations import DURATION
from app.errors import SettingsError
from app.lifecycle.back_up import find_backup_age
from app.lifecycle.new_file import writing_new_file
from app.store.schema_version import SCHEMA_VERSION
from tests.support.access import Site
from tests.support.web import prepared_app


def run(site: Site, *arguments: object) -> Any:
    return site.app.test_cli_runner().invoke(args=["records", *map(str, arguments)])


@pytest.fixture
def key(site: Site) -> str:
    """The key of a site that has one task."""
    text = site.key()
    assert site.submit(text, uuid="one").status_code == 200
    return text


def test_a_backup_is_a_private_database_with_all_records(site: Site, key: str, tmp_path: Path) -> None:
    file = tmp_path / "backup.sqlite3"
    result = run(site, "backup", file)
    assert (result.exit_code, result.stderr) == (0, f"The backup {file} is complete.\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with prepared_app(file, site.slurm, ACCESS_METHODS="keys") as app:
        headers = {"Authorization": f"Bearer {key}"}
        assert app.test_client().get("/monitor/task_uuid/one", headers=headers).status_code == 200


@pytest.mark.parametrize("command", ["backup", "export"])
def test_a_file_is_overwritten_by_force_alone(site: Site, key: str, tmp_path: Path, command: str) -> None:
    file = tmp_path / "copy"
    file.write_text("notes")
    result = run(site, command, file)
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {file} exists already: name another file, or give --force\n",
    )
    assert file.read_text() == "notes"
    assert run(site, command, "--force", file).exit_code == 0
    assert b"notes" not in file.read_bytes()
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy"]


@pytest.mark.parametrize("command", ["backup", "export"])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_the_database_itself_is_never_overwritten(site: Site, key: str, command: str, suffix: str) -> None:
    path = Path(f"{site.app.config['SLURM_PROXY_SETTINGS'].SQLITE_PATH}{suffix}")
    before = path.stat()
    link = path.with_name("link")
    link.symlink_to(path)
    for file in (path, link):
        result = run(site, command, "--force", file)
        assert (result.exit_code, result.stderr) == (
            1,
            f"Error: {file} is the database itself: name another file\n",
        )
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_size >= before.st_size > 0


@pytest.mark.parametrize("command", ["backup", "export"])
def test_a_file_that_cannot_be_written_is_named(site: Site, tmp_path: Path, command: str) -> None:
    missing = run(site, command, tmp_path / "none" / "copy")
    assert missing.exit_code == 1
    assert f"there is no folder {tmp_path}/none: create it" in missing.stderr
    folder = run(site, command, tmp_path)
    assert folder.exit_code == 1
    assert f"{tmp_path} is a folder: name a file in it" in folder.stderr
    pipe = tmp_path / "copy.partial"
    pipe.symlink_to(tmp_path / "elsewhere")
    link = run(site, command, tmp_path / "copy")
    assert link.exit_code == 1
    assert f"{pipe} cannot be written" in link.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_two_backups_to_one_file_are_not_made_at_once(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "copy"
    with writing_new_file(file, overwrite=True):
        result = run(site, "backup", file)
        assert (result.exit_code, result.stderr) == (1, f"Error: another process is writing {file}.partial\n")
        assert (tmp_path / "copy.partial").exists()
    assert run(site, "backup", "--force", file).exit_code == 0


def test_a_folder_keeps_the_newest_backups_and_every_other_file(site: Site, key: str, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    earlier = [f"slurm-proxy-2026010{day}T000000Z.sqlite3" for day in (1, 2, 3)]
    others = ["notes.txt", "slurm-proxy-20260101T000000Z.sqlite3.mine", "slurm-proxy-old.sqlite3"]
    partial = "slurm-proxy-20260101T000000Z.sqlite3.partial"
    for name in (*earlier, *others, partial):
        (folder / name).touch()
    result = run(site, "backup", "--keep", 2, folder)
    assert result.exit_code == 0, result.output
    names = {path.name for path in folder.iterdir()}
    (new,) = names - {*earlier, *others, partial}
    assert names == {earlier[-1], new, *others}
    assert result.stderr == f"The backup {folder / new} is complete.\n"


def test_a_new_backup_stays_beside_one_with_a_later_time(site: Site, tmp_path: Path) -> None:
    later = tmp_path / "slurm-proxy-20990101T000000Z.sqlite3"
    later.touch()
    impossible = tmp_path / "slurm-proxy-99999999T999999Z.sqlite3"
    impossible.touch()
    result = run(site, "backup", "--keep", 1, tmp_path)
    assert result.exit_code == 0, result.output
    assert Path(result.stderr.split()[2]).exists()
    assert not later.exists()
    assert impossible.exists()


@pytest.mark.parametrize("command", ["backup", "export"])
@pytest.mark.parametrize("length", [250, 300])
def test_a_name_that_is_too_long_is_explained(
    site: Site, key: str, tmp_path: Path, command: str, length: int
) -> None:
    result = run(site, command, tmp_path / ("x" * length))
    assert result.exit_code == 1
    assert result.stderr.endswith("cannot be written: File name too long\n")


@pytest.mark.parametrize("command", ["backup", "export"])
def test_no_pipe_or_device_is_replaced_by_force(site: Site, key: str, tmp_path: Path, command: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    result = run(site, command, "--force", pipe)
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: {pipe} is a device, a pipe or a socket: name a file\n",
    )
    assert pipe.is_fifo()


def test_a_backup_that_fails_removes_no_earlier_one(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "slurm-proxy-20260101T000000Z.sqlite3").touch()
    (folder / "slurm-proxy-20260102T000000Z.sqlite3").touch()
    site.services.store.close()
    Path(site.app.config["SLURM_PROXY_SETTINGS"].SQLITE_PATH).write_text("no database " * 1000)
    result = run(site, "backup", "--keep", 1, folder)
    assert result.exit_code == 1
    assert "is no SQLite database" in result.stderr
    assert len(list(folder.iterdir())) == 2
    missing = run(site, "backup", "--keep", 1, tmp_path / "none")
    assert missing.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--every", "24h", "x"], "--every needs --keep"),
        (["--keep", "2", "--force", "x"], "--keep never overwrites a file: leave out --force"),
        (["--keep", "0", "x"], "0 is not in the range x>=1"),
        (["--keep", "2", "--every", "1w", "x"], "1w must be a number with a unit, such as 30m, 24h or 7d"),
        (["--keep", "2", "--every", "0h", "x"], "0h must be a number with a unit"),
        (["--keep", "2", "--every", "3651d", "x"], "3651d must be at most 3650d"),
        ([], "Missing argument 'FILE'"),
    ],
)
def test_wrong_options_of_a_backup_are_explained(site: Site, arguments: list[str], words: str) -> None:
    result = run(site, "backup", *arguments)
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.parametrize(
    ("text", "span"),
    [("90s", timedelta(seconds=90)), ("30m", timedelta(minutes=30)), ("7d", timedelta(days=7))],
)
def test_a_span_of_time_has_a_unit(text: str, span: timedelta) -> None:
    assert DURATION.convert(text, None, None) == span
    assert DURATION.convert(span, None, None) == span


def test_an_export_and_its_import_move_everything(site: Site, key: str, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl.gz"
    result = run(site, "export", file)
    assert (result.exit_code, result.stderr) == (0, f"{file} has 1 records and 1 API keys.\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    header, *_, end = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    assert (header["slurm_proxy_export"], header["schema_version"]) == (1, SCHEMA_VERSION)
    assert (header["source"], header["is_snapshot"], header["records"]) == ("SQLite", True, 1)
    assert (end["records"], end["keys"]) == (1, 1)
    with prepared_app(tmp_path / "new.sqlite3", site.slurm, ACCESS_METHODS="keys") as app:
        imported = app.test_cli_runner().invoke(args=["records", "import", str(file)])
        assert imported.exit_code == 0, imported.output
        assert imported.stderr.startswith("2 added, 0 there already, 0 not imported; ")
        headers = {"Authorization": f"Bearer {key}"}
        assert app.test_client().get("/monitor/task_uuid/one", headers=headers).status_code == 200
        again = app.test_cli_runner().invoke(args=["records", "import", str(file)])
        assert again.stderr.startswith("0 added, 2 there already, 0 not imported; ")


def test_an_import_with_conflicts_fails_and_names_them(site: Site, key: str, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    run(site, "export", "--without-keys", file)
    with prepared_app(tmp_path / "new.sqlite3", site.slurm, ACCESS_METHODS="keys") as app:
        runner = app.test_cli_runner()
        assert runner.invoke(args=["records", "import", str(file)]).exit_code == 0
        store = app.extensions["slurm_proxy"].store
        with store.writing() as connection:
            connection.execute("UPDATE tasks SET slurm_job_id = 5")
        result = runner.invoke(args=["records", "import", str(file)])
    assert result.exit_code == 1
    words, counts = result.stderr.splitlines()
    assert words == "Not imported: the task one is in the store with other content"
    assert counts.startswith("0 added, 0 there already, 1 not imported; ")


def test_an_import_is_in_the_audit_trail(site: Site, key: str, tmp_path: Path, trail: Path) -> None:
    run(site, "export", tmp_path / "export.jsonl")
    run(site, "import", tmp_path / "export.jsonl")
    (line,) = trail.read_text().splitlines()
    entry = json.loads(line)
    assert entry["action"] == "records import"
    assert entry["caller"].startswith("cli:")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("notes.txt", "is not an export of slurm-proxy: its first line is not a header"),
        ("empty", "is not an export of slurm-proxy"),
        ("torn.gz", "ends too early"),
        ("bad.gz", "is damaged: "),
        ("store.sqlite3", "is not an export of slurm-proxy"),
    ],
)
def test_a_file_that_is_no_export_is_not_imported(
    site: Site, key: str, tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "notes.txt").write_text("These are notes.\n")
    (tmp_path / "empty").touch()
    run(site, "export", tmp_path / "good.gz")
    good = (tmp_path / "good.gz").read_bytes()
    (tmp_path / "torn.gz").write_bytes(good[: len(good) // 2])
    (tmp_path / "bad.gz").write_bytes(good[:40] + b"\xff" * 20 + good[60:])
    result = run(site, "import", tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {tmp_path / name} {words}")


@pytest.mark.parametrize("command", ["adopt", "backup", "export", "import"])
def test_a_store_of_a_newer_release_is_refused(site: Site, tmp_path: Path, command: str) -> None:
    (tmp_path / "copy").touch()
    path = site.app.config["SLURM_PROXY_SETTINGS"].SQLITE_PATH
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    arguments = [] if command == "adopt" else [tmp_path / "copy", "--force"]
    result = run(site, command, *arguments)
    assert result.exit_code == 1
    assert "the store has schema version 99" in result.stderr
    assert (tmp_path / "copy").stat().st_size == 0


@pytest.mark.parametrize("command", ["backup", "export"])
def test_a_store_that_does_not_exist_is_not_copied(tmp_path: Path, site: Site, command: str) -> None:
    site.services.store.close()
    path = Path(site.app.config["SLURM_PROXY_SETTINGS"].SQLITE_PATH)
    path.unlink()
    result = run(site, command, tmp_path / "copy")
    assert result.exit_code == 1
    assert result.stderr == "Error: there is no store yet: the first start of the server creates it\n"
    assert not path.exists()
    assert not (tmp_path / "copy").exists()


def test_a_scheduled_backup_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    outcomes = iter([click.ClickException("the disk is full"), None, KeyboardInterrupt()])
    pauses: list[float] = []

    def back_up_once() -> None:
        if (error := next(outcomes)) is not None:
            raise error

    with pytest.raises(KeyboardInterrupt):
        repeat_backup(back_up_once, timedelta(hours=24), pauses.append)
    assert [round(pause) for pause in pauses] == [600, 24 * 3600]
    assert caplog.messages == ["the backup failed: the disk is full"]


@pytest.mark.parametrize(
    ("hours", "pause"), [(None, None), (1, 23 * 3600), (30, None), (-1, 24 * 3600)], ids=str
)
def test_a_scheduled_backup_waits_until_the_newest_one_is_old(hours: int | None, pause: int | None) -> None:
    pauses: list[float] = []

    def back_up_once() -> None:
        raise KeyboardInterrupt

    age = None if hours is None else timedelta(hours=hours)
    with pytest.raises(KeyboardInterrupt):
        repeat_backup(back_up_once, timedelta(hours=24), pauses.append, age)
    assert pauses == ([] if pause is None else [pause])


def test_the_age_of_the_newest_backup_is_in_its_name(tmp_path: Path) -> None:
    assert find_backup_age(tmp_path / "none") is None
    assert find_backup_age(tmp_path) is None
    for hours in (5, 2, 9):
        at = datetime.now(UTC) - timedelta(hours=hours)
        (tmp_path / f"slurm-proxy-{at:%Y%m%dT%H%M%SZ}.jsonl.gz").touch()
    (tmp_path / "slurm-proxy-20990101T000000Z.sqlite3.partial").touch()
    (tmp_path / "slurm-proxy-99999999T999999Z.sqlite3").touch()
    age = find_backup_age(tmp_path)
    assert age is not None
    assert 2 <= age / timedelta(hours=1) < 2.1


@pytest.mark.parametrize("command", ["backup", "export", "import"])
def test_records_commands_report_wrong_settings_in_one_sentence(command: str) -> None:
    app = commands.build_command_application(SettingsError("SLURM_REST_HOST must be set"))
    for found in commands.COMMANDS:
        app.cli.add_command(found)
    result = app.test_cli_runner().invoke(args=["records", command, os.devnull])
    assert (result.exit_code, result.output) == (2, "Error: SLURM_REST_HOST must be set\n")
