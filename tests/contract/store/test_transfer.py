"""Exports and imports: from either store to either store."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import bson
import pytest

from app.errors import CopyFailed
from app.job_state import JobState
from app.models.record import NotificationStatus
from app.store import TaskStore
from app.store.mongo import MongoStore, connect
from app.store.sqlite import SqliteStore
from app.store.transfer import release_claims
from tests.support.databases import SharedDatabase
from tests.support.older_server import older_document, two_with_one_uuid
from tests.support.stores import LATER, find, make_notification, make_record, make_running
from tests.support.transfers import LEASE, content_of, export, fill, import_file, make_key

STORES = ["sqlite", pytest.param("mongodb", marks=pytest.mark.real)]


def make_store(request: pytest.FixtureRequest, folder: Path, kind: str, name: str) -> Iterator[TaskStore]:
    if kind == "sqlite":
        store: TaskStore = SqliteStore(folder / f"{name}.sqlite3")
    else:
        database: SharedDatabase = request.getfixturevalue("mongo_database")
        store = MongoStore(connect(database.uri, 5), database.name, name)
    store.prepare()
    yield store
    store.close()


@pytest.fixture(params=STORES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TaskStore]:
    yield from make_store(request, tmp_path, request.param, "jobs")


@pytest.fixture(params=STORES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TaskStore]:
    yield from make_store(request, tmp_path, request.param, "moved")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "export.jsonl"


def test_a_moved_store_has_the_same_content(source: TaskStore, target: TaskStore, file: Path) -> None:
    records = fill(source)
    exported = export(source, file)
    report, conflicts = import_file(target, file)
    assert (report.added, report.present, conflicts) == (len(records) + 3, 0, [])
    assert export(target, file) == exported
    for record in records[:-1]:
        assert find(target, record.uuid) == record
    assert target.list_keys() == source.list_keys()
    assert {job.uuid for job in target.list_open_jobs()} == {job.uuid for job in source.list_open_jobs()}
    assert len(target.list_reservations(LATER)) == 1


def test_a_record_whose_uuid_is_a_number_can_be_imported_again(
    source: TaskStore, target: TaskStore, file: Path
) -> None:
    record = make_running()
    source.add_record(record.model_copy(update={"task": {**record.task, "uuid": 77}}))
    export(source, file)
    import_file(target, file)
    report, conflicts = import_file(target, file)
    assert (report.added, report.present, conflicts) == (0, 1, [])


def test_an_import_that_is_repeated_changes_nothing(source: TaskStore, target: TaskStore, file: Path) -> None:
    records = fill(source)
    exported = export(source, file)
    import_file(target, file)
    report, conflicts = import_file(target, file)
    assert (report.added, report.present, conflicts) == (0, len(records) + 3, [])
    assert export(target, file) == exported


def test_an_import_into_the_same_store_changes_nothing(source: TaskStore, file: Path) -> None:
    records = fill(source)
    export(source, file)
    report, conflicts = import_file(source, file)
    assert (report.added, report.present, conflicts) == (0, len(records) + 3, [])


def test_a_claimed_message_becomes_due_again_with_the_same_id(
    source: TaskStore, target: TaskStore, file: Path
) -> None:
    record = make_running(notifications=(make_notification(),))
    source.add_record(record)
    before = source.claim("email", "a sender", LATER, LATER + timedelta(minutes=1))
    assert before is not None
    export(source, file)
    import_file(target, file)
    (moved,) = target.list_notifications(NotificationStatus.DUE, "email", 10)
    assert moved.notification.claim is None
    assert target.claim("email", "b", LATER, LATER + timedelta(minutes=2)) is None
    again = target.claim("email", "b", LATER + timedelta(minutes=1), LATER + timedelta(minutes=2))
    assert again is not None
    assert again.notification.id == before.notification.id


def test_other_content_is_reported_and_not_overwritten(
    source: TaskStore, target: TaskStore, file: Path
) -> None:
    same, ours, theirs = make_running(), make_running(), make_running()
    for record in (same, ours):
        source.add_record(record)
    source.add_record(theirs.model_copy(update={"idempotency_key": "a key"}))
    other = ours.model_copy(update={"slurm_job_id": 8})
    owner = make_running(idempotency_key="a key")
    for record in (same, other, owner):
        target.add_record(record)
    source.add_key(make_key("one"))
    source.add_key(make_key("two"))
    target.add_key(make_key("one", hash="1" * 64))
    target.add_key(make_key("two", id="another"))
    export(source, file)
    report, conflicts = import_file(target, file)
    assert (report.added, report.present, report.conflicts) == (0, 1, 4)
    assert sorted(conflicts) == sorted(
        [
            f"the task {ours.uuid} is in the store with other content",
            f"the idempotency key of the task {theirs.uuid} belongs to the task {owner.uuid}",
            "the key id-of-one (one) is in the store with other content",
            "the key id-of-two (two) has the name of another valid key",
        ]
    )
    assert find(target, ours.uuid) == other
    assert find(target, theirs.uuid) is None
    assert [key.hash for key in target.list_keys() if key.name == "one"] == ["1" * 64]


def test_a_record_whose_message_belongs_to_another_task_is_reported(tmp_path: Path, file: Path) -> None:
    message = make_notification()
    one, other = make_running(notifications=(message,)), make_running(notifications=(message,))
    for name, record in (("source", one), ("target", other)):
        store = SqliteStore(tmp_path / f"{name}.sqlite3")
        store.prepare()
        store.add_record(record)
        if name == "source":
            export(store, file)
        else:
            _, conflicts = import_file(store, file)
            assert conflicts == [f"a message of the task {one.uuid} is in the store with another task"]
        store.close()


def test_a_revoked_key_stays_revoked_and_frees_its_name(
    source: TaskStore, target: TaskStore, file: Path
) -> None:
    source.add_key(make_key())
    source.revoke_key("id-of-pipeline", LATER)
    export(source, file)
    import_file(target, file)
    assert [key.revoked_at for key in target.list_keys()] == [LATER]
    assert target.add_key(make_key(id="another"))


def test_an_export_without_keys_has_none(source: TaskStore, file: Path) -> None:
    source.add_key(make_key())
    assert export(source, file, with_keys=False) == []


def test_a_server_that_uses_the_store_stops_an_import_unless_forced(
    source: TaskStore, target: TaskStore, file: Path
) -> None:
    record = make_running()
    source.add_record(record)
    export(source, file)
    now = target.now()
    assert target.acquire_lease("a server", now, now + LEASE) is not None
    with pytest.raises(CopyFailed, match="a server uses the store, or was killed less than 30 seconds ago"):
        import_file(target, file)
    assert find(target, record.uuid) is None
    assert import_file(target, file, force=True)[0].added == 1
    target.release_lease("a server")
    assert import_file(target, file)[0].present == 1
    assert target.acquire_lease("a server", now, now + LEASE) is not None


# --- records of the older server ------------------------------------------------------------------


@pytest.fixture
def older(mongo_database: SharedDatabase) -> Iterator[MongoStore]:
    store = mongo_database.store()
    yield store
    store.close()


def bson_of(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [bson.decode(base64.b64decode(line["bson"])) for line in lines]


@pytest.mark.real
@pytest.mark.parametrize("is_taken_over", [False, True])
@pytest.mark.parametrize("state", ["RUNNING", "COMPLETED"])
def test_documents_of_the_older_server_move_verbatim_to_mongodb(
    older: MongoStore, mongo_database: SharedDatabase, file: Path, state: str, is_taken_over: bool
) -> None:
    odd = older_document("x", state, task={"username": None, "uuid": 42, "n": bson.Int64(5)})
    without_time = older_document(7, state, created_at="never", slurm_username=["a list"])
    documents = [*two_with_one_uuid(state), odd, without_time]
    older.tasks.insert_many(documents)
    if is_taken_over:
        older.prepare()
    before = {document["_id"]: document for document in older.tasks.find()}
    exported = export(older, file)
    assert {document["_id"]: document for document in older.tasks.find()} == before
    target = MongoStore(connect(mongo_database.uri, 5), mongo_database.name, "moved")
    target.prepare()
    assert import_file(target, file)[0].added == 4
    assert export(target, file) == exported
    assert bson_of(content_of(file)) == bson_of(exported)
    target.prepare()
    report, conflicts = import_file(target, file)
    assert (report.present, conflicts) == (4, [])
    target.close()


@pytest.mark.real
def test_documents_of_the_older_server_move_to_sqlite_as_records(
    older: MongoStore, tmp_path: Path, file: Path
) -> None:
    first, second = two_with_one_uuid("COMPLETED")
    still_running = older_document(13)
    number = older_document(14, "COMPLETED", task={"uuid": 42, "username": "ann"})
    older.tasks.insert_many([second, first, still_running, number])
    older.prepare()
    export(older, file)
    target = SqliteStore(tmp_path / "moved.sqlite3")
    target.prepare()
    report, conflicts = import_file(target, file)
    assert (report.added, conflicts) == (4, [])
    report, conflicts = import_file(target, file)
    assert (report.present, conflicts) == (4, [])
    uuid = first["task"]["uuid"]
    newest, other = find(target, uuid), target.find_by_job_id(11)
    assert newest is not None
    assert other is not None
    assert (newest.slurm_job_id, other.uuid) == (12, uuid)
    (job,) = target.list_open_jobs()
    assert (job.slurm_job_id, job.is_taken_over) == (13, True)
    running = find(target, still_running["task"]["uuid"])
    assert running is not None
    assert running.slurm_job_state is JobState.RUNNING
    assert find(target, "42") is not None
    target.close()


@pytest.mark.real
def test_an_import_refuses_a_record_whose_uuid_the_older_server_used(
    older: MongoStore, tmp_path: Path, file: Path
) -> None:
    document = older_document(11, "COMPLETED")
    older.tasks.insert_one(document)
    source = SqliteStore(tmp_path / "store.sqlite3")
    source.prepare()
    source.add_record(make_record(task=document["task"]))
    export(source, file)
    _, conflicts = import_file(older, file)
    assert conflicts == [f"the task {document['task']['uuid']} is in the store with other content"]
    source.close()


# --- files that cannot be used --------------------------------------------------------------------


def rewrite(file: Path, change: Callable[[list[str]], list[str]]) -> None:
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")


def altered(line: str, **fields: Any) -> str:
    return json.dumps({**json.loads(line), **fields})


FAULTS: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "a torn last record": (lambda lines: [*lines[:-2], lines[-2][:50]], "ends too early"),
    "no last line": (lambda lines: lines[:-1], "ends too early"),
    "a missing record": (lambda lines: [*lines[:2], *lines[3:]], "is damaged: its content does not match"),
    "an altered record": (
        lambda lines: [lines[0], lines[1].replace("alice", "alicf"), *lines[2:]],
        "is damaged: its content does not match",
    ),
    "a line that is not JSON": (lambda lines: [*lines[:2], "{", *lines[3:]], "line 3: not JSON"),
    "a line that is something else": (
        lambda lines: [*lines[:2], "{}", *lines[3:]],
        "line 3: neither a key nor a record",
    ),
    "two lines with faults": (
        lambda lines: [lines[0], "[]", '{"record": {}}', *lines[3:]],
        "line 2: not a JSON object; line 3: task: Field required",
    ),
    "a field of a newer release": (
        lambda lines: [
            *lines[:1],
            altered(lines[1], record={**json.loads(lines[1])["record"], "news": 1}),
            *lines[2:],
        ],
        "line 2: record.news: this release does not know the field",
    ),
    "bson that is no base64": (
        lambda lines: [lines[0], altered(lines[1], bson="?"), *lines[2:]],
        "line 2: bson: not base64",
    ),
    "no first line": (lambda lines: lines[1:], "is not an export of slurm-proxy"),
    "a newer form": (
        lambda lines: [altered(lines[0], slurm_proxy_export=2, release="9.0"), *lines[1:]],
        "has form 2 of slurm-proxy 9.0, and this release reads forms up to 1",
    ),
    "a newer schema": (
        lambda lines: [altered(lines[0], schema_version=99), *lines[1:]],
        "has schema version 99, and slurm-proxy",
    ),
    "nothing": (lambda _: [], "is not an export of slurm-proxy"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_damaged_file_is_refused_before_anything_is_added(tmp_path: Path, file: Path, name: str) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    for _ in range(3):
        store.add_record(make_running())
    export(store, file)
    store.close()
    change, words = FAULTS[name]
    rewrite(file, change)
    empty = SqliteStore(tmp_path / "empty.sqlite3")
    empty.prepare()
    with pytest.raises(Exception, match=words) as caught:
        import_file(empty, file)
    assert str(file) in str(caught.value)
    assert empty.count_records() == 0
    empty.close()


def test_release_claims_changes_claimed_messages_only() -> None:
    sent = make_notification(status=NotificationStatus.SENT, claim=None)
    record = make_running(notifications=(sent,))
    assert release_claims(record) is record
