"""What a process keeps at hand of the shared status."""

from datetime import timedelta
from pathlib import Path

import pytest

from app.errors import StoreUnavailable
from app.lifecycle.shared_status import LastPoll, StatusReader
from app.store.sqlite import SqliteStore
from tests.support.stores import LATER, NOW

SECOND = timedelta(seconds=1)


def test_the_last_poll_is_known_from_the_last_refresh_and_grows_old(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.prepare()
    seconds = 100.0
    status = StatusReader(store, lambda: seconds)
    status.refresh(NOW)
    assert status.last_poll is None
    store.acquire_lease("leader", NOW, LATER)
    store.update_leader_report("leader", {"polled_at": NOW.isoformat(), "uncovered": [7]})
    assert status.last_poll is None, "a request does not ask the store"
    status.refresh(NOW + SECOND)
    assert status.last_poll == LastPoll(NOW, 1.0, frozenset({7}))
    (tmp_path / "store.sqlite3").unlink()
    seconds = 105.0
    with pytest.raises(StoreUnavailable):
        status.refresh(NOW + 6 * SECOND)
    assert status.last_poll == LastPoll(NOW, 6.0, frozenset({7}))
    store.close()


def test_a_poll_covers_a_record_that_did_not_change_just_before_it(tmp_path: Path) -> None:
    poll = LastPoll(NOW, 0.5, frozenset({7}))
    assert poll.covers(8, NOW - 5 * SECOND)
    assert not poll.covers(8, NOW - 4 * SECOND), "it may have been read before the record was written"
    assert not poll.covers(7, NOW - 60 * SECOND)
