"""What a process keeps at hand of the shared status."""

from pathlib import Path

import pytest

from app.errors import StoreUnavailable
from app.lifecycle.shared_status import StatusReader
from app.store.sqlite import SqliteStore
from tests.support.stores import LATER, NOW


def test_the_time_of_the_last_poll_is_known_from_the_last_refresh(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    status = StatusReader(store)
    assert status.polled_at is None
    store.acquire_lease("leader", NOW, LATER)
    store.update_leader_report("leader", {"polled_at": NOW.isoformat()})
    assert status.polled_at is None, "a request does not ask the store"
    status.refresh(NOW)
    assert status.polled_at == NOW
    (tmp_path / "store.sqlite3").unlink()
    with pytest.raises(StoreUnavailable):
        status.refresh(NOW)
    assert status.polled_at == NOW
    store.close()
