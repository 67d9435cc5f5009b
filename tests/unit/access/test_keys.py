"""API keys: stored as hashes, named, revoked."""

import hashlib
import hmac
from pathlib import Path

import pytest

from app.errors import (
    InvalidRequest,
)
from app.models.record import utc_now
from tests.support.access import ALICE, Site


def test_only_the_hash_of_a_key_is_kept(site: Site, tmp_path: Path) -> None:
    key = site.key()
    assert site.submit(key).status_code == 200
    site.services.store.close()
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("store.sqlite3*"))
    assert key.encode() not in kept
    assert key.split("_", 2)[2].encode() not in kept
    assert hashlib.sha256(key.encode()).hexdigest().encode() in kept


def test_a_revoked_key_is_refused_at_once_by_every_process(site: Site) -> None:
    key, other = site.key(), site.another()
    headers = {"Authorization": f"Bearer {key}"}
    path = "/monitor/task_uuid/none"
    assert other.test_client().get(path, headers=headers).status_code == 400
    assert site.keys.revoke(key.split("_")[1])
    assert other.test_client().get(path, headers=headers).status_code == 401
    other.extensions["slurm_proxy"].store.close()


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
