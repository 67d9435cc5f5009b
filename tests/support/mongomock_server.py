"""mongomock in place of a MongoDB, for the contract tests of the stores; and what it cannot show.

A test that mongomock fails is expected to fail, so that a version that can do more is noticed.
"""

from collections.abc import Mapping
from typing import Any

import mongomock.collection
import pytest
from mongomock.store import ServerStore

# What mongomock 4.3 lacks, and the contract tests that fail for this reason.
UNSUPPORTED: Mapping[str, tuple[str, ...]] = {
    "updates with array filters": (
        "test_a_digest_contains_all_deferred_messages_of_the_same_person",
        "test_a_digest_that_is_sent_again_holds_the_same",
        "test_the_messages_of_a_dead_digest_are_dead_and_all_can_be_retried",
        "test_a_digest_holds_what_is_for_the_same_person_by_the_same_method_alone",
        "test_an_expired_claim_forms_no_other_digest_and_settles_nothing",
        "test_a_retried_head_does_not_retry_the_dead_others_of_its_digest",
        "test_a_retried_head_that_waits_keeps_its_digest",
    ),
    "find_one_and_update of an array's element other than the first": (
        "test_a_settled_notification_is_never_claimed_again",
        "test_a_message_waits_no_longer_than_it_can",
        "test_dead_ones_are_found_and_made_due_once_more",
    ),
    "which index a duplicate key belongs to": ("test_a_key_is_taken_once",),
    "null as the value of each field of an object that is null": (
        "test_all_pages_together_hold_each_record_that_is_wanted_once",
    ),
    "times that Python does not have": ("test_an_altered_cursor_fails_in_no_other_way",),
    "the command hello, which tells the server's time": ("test_stores_of_one_database_tell_the_same_time",),
}
# These may pass by chance, or never end.
NOT_ATOMIC = (
    "test_one_of_many_simultaneous_requests_gets_the_uuid",
    "test_no_notification_is_claimed_twice",
    "test_a_digest_formed_by_many_processes_contains_each_message_once",
    "test_a_window_never_takes_more_than_it_may",
    "test_uses_that_processes_add_at_once_are_all_counted",
)
# What no contract test of the stores asks for, and other tests need a real MongoDB for.
REAL_ONLY = (
    "durability, failover, query plans, copies of a whole store, and the take-over of the older server's"
    " documents, whose updates use $convert"
)


class _BulkOperationBuilder(mongomock.collection.BulkOperationBuilder):
    """mongomock 4.3 does not know the argument `sort`, which pymongo has passed since 4.11."""

    def add_update(self, *args: Any, sort: None = None, **options: Any) -> Any:
        return super().add_update(*args, **options)  # type: ignore[no-untyped-call]


class MongomockServer:
    """A database in memory, for any number of clients."""

    def __init__(self) -> None:
        self._store = ServerStore()
        mongomock.collection.BulkOperationBuilder = _BulkOperationBuilder  # type: ignore[misc]

    def connect(self) -> Any:
        """Return a new client."""
        return mongomock.MongoClient(tz_aware=True, _store=self._store)


def mark_unsupported(request: pytest.FixtureRequest) -> None:
    """Skip a test that needs atomic operations, and expect one to fail that needs what mongomock lacks."""
    name = request.node.originalname
    if name in NOT_ATOMIC:
        pytest.skip("mongomock's operations are not atomic")
    for reason, names in UNSUPPORTED.items():
        if name in names:
            request.applymarker(pytest.mark.xfail(reason=f"mongomock lacks {reason}"))


def uncovered() -> list[str]:
    """Return what mongomock does not cover, one line for each reason."""
    reasons = {"atomic operations": NOT_ATOMIC, **UNSUPPORTED}
    return [
        *(
            f"not covered on mongomock: {reason} ({len(names)} of the tests)"
            for reason, names in reasons.items()
        ),
        f"not covered on mongomock: {REAL_ONLY}",
    ]
