"""API keys: stored as hashes, named, revoked."""

import hashlib
import hmac
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.access.keys import ApiKeys
from app.errors import InvalidRequest, NotAuthenticated, StoreUnavailable
from app.models.api_key import ApiKey
from app.models.record import utc_now
from app.store.sqlite import SqliteStore
from tests.support.access import ALICE, Site


def test_only_the_hash_of_a_key_is_kept(site: Site, tmp_path: Path) -> None:
    key = site.key()
    assert site.submit(key).status_code == 200
    site.services.store.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite3*"))
    assert key.encode() not in kept
    assert key.split("_", 2)[2].encode() not in kept
    assert hashlib.sha256(key.encode()).hexdigest().encode() in kept


def test_a_revoked_key_is_refused_at_once_by_the_process_that_revokes_it(site: Site) -> None:
    key, path = site.key(), "/monitor/task_uuid/none"
    assert site.call("GET", path, key).status_code == 400
    assert site.keys.revoke(key.split("_")[1])
    assert site.call("GET", path, key).status_code == 401


class CountingStore(SqliteStore):
    """A store that counts how often it is asked for a key; `on_find` is called after its answer is known."""

    found = 0

    def find_key(self, id_: str, within: float | None = None) -> ApiKey | None:
        self.found += 1
        key = super().find_key(id_, within)
        self.on_find()
        return key

    def on_find(self) -> None:
        pass


class Process:
    """The keys of a process, whose clock stands still."""

    def __init__(self, path: Path) -> None:
        self.store = CountingStore(path)
        self.store.prepare()
        self.time = 100.0
        self.keys = ApiKeys(self.store, lambda: self.time)

    def accepts(self, text: str) -> bool:
        try:
            self.keys.authenticate(text)
        except NotAuthenticated:
            return False
        return True


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "keys.sqlite3")
    yield process
    process.store.close()


def test_a_revoked_key_is_refused_within_a_second_by_every_process(here: Process, tmp_path: Path) -> None:
    there = Process(tmp_path / "keys.sqlite3")
    text, key = here.keys.create("ci", ALICE, None)
    assert there.accepts(text)
    here.keys.revoke(key.id)
    there.time += 0.999
    assert not there.accepts(text)
    there.store.close()


def test_trust_in_a_key_begins_before_the_store_is_asked(here: Process) -> None:
    text, key = here.keys.create("ci", ALICE, None)

    def revoke_during_a_slow_answer() -> None:
        here.store.revoke_key(key.id, utc_now())
        here.time += 1

    here.store.on_find = revoke_during_a_slow_answer  # type: ignore[method-assign]
    assert here.accepts(text), "the request began before the revocation"
    assert not here.accepts(text)


def test_a_busy_key_is_read_from_the_store_once(here: Process) -> None:
    text, _ = here.keys.create("ci", ALICE, None)
    assert [here.accepts(text) for _ in range(20)] == [True] * 20
    assert here.store.found == 1


def test_an_expired_key_is_refused_at_once(here: Process) -> None:
    text, _ = here.keys.create("ci", ALICE, timedelta(milliseconds=100))
    assert here.accepts(text)
    time.sleep(0.1)
    assert not here.accepts(text)


def test_made_up_keys_are_not_remembered(here: Process) -> None:
    text, _ = here.keys.create("ci", ALICE, None)
    made_up = [text[:-1] + "~", "sp_unknown_secret", "sp_"]
    assert not any(here.accepts(text) for text in made_up * 2)
    assert here.keys._trusted == {}
    assert here.store.found == 4, "each time anew, if it has the form of a key"


def test_a_key_works_for_a_moment_while_the_store_is_unavailable(here: Process) -> None:
    text, _ = here.keys.create("ci", ALICE, None)
    assert here.accepts(text)

    def fail() -> None:
        raise StoreUnavailable("away")

    here.store.on_find = fail  # type: ignore[method-assign]
    assert here.accepts(text)
    here.time += 1
    with pytest.raises(StoreUnavailable):
        here.accepts(text)


def test_keys_are_compared_in_constant_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = hmac.compare_digest

    def noting(one: str, other: str) -> bool:
        compared.append(len(one))
        return compare(one, other)

    monkeypatch.setattr("app.access.keys.hmac.compare_digest", noting)
    for text in (site.key(), site.key()[:-3] + "zzz", "sp_unknown_secret", "sp_", "sp__"):
        site.call("GET", "/monitor/task_uuid/none", text)
    assert compared == [64] * 5, "one comparison of two hashes, whether there is such a key or not"


def test_the_last_use_of_a_key_is_kept(site: Site) -> None:
    key = site.key()
    assert site.keys.list_all()[-1].last_used_at is None
    before = utc_now()
    site.submit(key)
    used = site.keys.list_all()[-1].last_used_at
    assert used is not None
    assert before <= used <= utc_now()


@pytest.mark.parametrize("name", ["", "two\nlines", "x" * 101])
def test_a_key_has_a_decent_name(site: Site, name: str) -> None:
    with pytest.raises(InvalidRequest, match="name: must be one line"):
        site.keys.create(name, ALICE, None)


def test_a_name_is_used_once_until_its_key_is_over(site: Site) -> None:
    _, key = site.keys.create("ci", ALICE, None)
    with pytest.raises(InvalidRequest, match="there is a key called ci already"):
        site.keys.create("ci", ALICE, None)
    site.keys.revoke(key.id)
    site.keys.create("ci", ALICE, None)
