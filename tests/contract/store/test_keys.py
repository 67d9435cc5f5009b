"""API keys, in every store."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app.models.api_key import ApiKey
from app.models.caller import OPERATOR, ORDINARY_SCOPES, Grant
from app.store import TaskStore
from tests.support.databases import SharedDatabase
from tests.support.stores import LATER, NOW, Factory
from tests.support.tasks import new_uuid


def make_key(**fields: Any) -> ApiKey:
    limits: dict[str, Any] = {"groups": ("chem",), "partitions": ("short",), "accounts": ()}
    grant = Grant(scopes=ORDINARY_SCOPES, users=("alice",), **limits)
    base = {"id": new_uuid(), "name": new_uuid(), "hash": "0f", "grant": grant, "created_at": NOW}
    return ApiKey.model_validate({**base, **fields})


def test_a_key_comes_back_whole(store: TaskStore) -> None:
    plain, whole = make_key(), make_key(grant=OPERATOR.grants[0], expires_at=LATER, name="$k.ü")
    for key in (plain, whole):
        store.add_key(key)
    assert store.list_keys() == [plain, whole]
    assert store.find_key(whole.id) == whole
    assert store.find_key("none") is None


def test_a_key_is_revoked_once_and_its_use_is_kept(store: TaskStore) -> None:
    key, other = make_key(), make_key(created_at=LATER)
    for item in (key, other):
        store.add_key(item)
    store.record_key_use(key.id, LATER)
    assert store.revoke_key(key.id, LATER)
    assert not store.revoke_key(key.id, NOW)
    assert not store.revoke_key("none", NOW)
    revoked = key.model_copy(update={"last_used_at": LATER, "revoked_at": LATER})
    assert store.list_keys() == [revoked, other]


def test_a_name_of_a_key_is_free_again_once_its_key_is_revoked_or_expired(store: TaskStore) -> None:
    first = make_key(name="ci", expires_at=LATER)
    assert store.add_key(first)
    assert not store.add_key(make_key(name="ci"))
    second = make_key(name="ci", created_at=LATER)
    assert store.add_key(second), "the first has expired"
    assert not store.add_key(make_key(name="ci", created_at=LATER))
    assert store.revoke_key(second.id, LATER)
    third = make_key(name="ci", created_at=LATER)
    assert store.add_key(third)
    assert [key.id for key in store.list_keys()] == [first.id, second.id, third.id]


def test_of_several_keys_with_one_name_that_are_created_at_once_one_is_stored(factory: Factory) -> None:
    stores = [factory(), factory()]
    for round_ in range(20):
        barrier = threading.Barrier(6)

        def add(number: int, barrier: threading.Barrier = barrier, name: str = f"ci {round_}") -> bool:
            barrier.wait()
            return stores[number % 2].add_key(make_key(name=name))

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(add, range(6))) == 1
    assert len(stores[0].list_keys()) == 20


@pytest.mark.real
def test_a_key_of_an_earlier_version_keeps_its_name(mongo_database: SharedDatabase) -> None:
    store = mongo_database.store()
    store.prepare()
    old = make_key(name="ci")
    assert store.add_key(old)
    store.api_keys.update_one({"_id": old.id}, {"$unset": {"valid_name": ""}})
    assert not store.add_key(make_key(name="ci"))
    assert store.revoke_key(old.id, LATER)
    assert store.add_key(make_key(name="ci"))
    store.close()
