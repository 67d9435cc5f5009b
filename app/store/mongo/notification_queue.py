"""The notification queue in MongoDB: notifications are inside the documents of their records."""

from datetime import datetime

from pymongo import ReturnDocument, UpdateOne

from app.models.record import NotificationStatus
from app.store.clock import CLOCK_TOLERANCE, NEVER, log_clock_set_back
from app.store.mongo.database import MongoDatabase
from app.store.mongo.documents import document_to_notification
from app.store.mongo.types import Document
from app.store.notification_queue import Claim, NotificationQueue, Outcome, StoredNotification

_BATCH_SIZE = 1000  # notifications; one operation retries so many well within its time-out
_FINAL_STATUSES = (NotificationStatus.SENT, NotificationStatus.DEAD)


class MongoNotificationQueue(MongoDatabase, NotificationQueue):
    """The notifications in the list `notifications` of each record."""

    def claim(
        self, method: str, claim_id: str, now: datetime, until: datetime, latest: datetime = NEVER
    ) -> Claim | None:
        """Claim a notification that is due, else one that waits longer than possible."""
        claimed = {"status": NotificationStatus.CLAIMED.value}
        due = {"method": method, "attempt_after": {"$lte": now}}
        impossible = {  # the clock was set back since
            "method": method,
            "attempt_after": {"$gt": until + CLOCK_TOLERANCE},
            "$or": [claimed, {"attempt_after": {"$gt": latest + CLOCK_TOLERANCE}}],
        }
        if (claim := self._claim_one(due, claim_id, until)) is not None:
            return claim
        if (claim := self._claim_one(impossible, claim_id, until)) is not None:
            log_clock_set_back(f"the wait of message {claim.notification.id}")
        return claim

    def _claim_one(self, due: Document, claim_id: str, until: datetime) -> Claim | None:
        """Claim a notification that matches `due`, with the expiry `until`."""
        with self.operating():
            document = self.tasks.find_one_and_update(
                {"notifications": {"$elemMatch": due}},
                {
                    "$set": {
                        "notifications.$.status": NotificationStatus.CLAIMED.value,
                        "notifications.$.claim": claim_id,
                        "notifications.$.attempt_after": until,
                    },
                    "$inc": {"notifications.$.attempts": 1},
                },
                {"uuid": 1, "notifications": {"$elemMatch": {"claim": claim_id}}},
                return_document=ReturnDocument.AFTER,
            )
        if document is None:
            return None
        return Claim(document["uuid"], document_to_notification(document["notifications"][0]))

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
        """Store the outcome, first for the others in the digest, if any."""
        is_sent = outcome.status is NotificationStatus.SENT
        mine: Document = {"id": claim.notification.id, "claim": claim.notification.claim}
        if is_sent:
            mine = {"id": claim.notification.id, "status": {"$ne": outcome.status.value}}
        ending = {
            "status": outcome.status.value,
            "last_error": outcome.error,
            "sent_at": outcome.at if is_sent else None,
        }
        changes = {**ending, "attempt_after": outcome.attempt_after, "claim": None}
        if outcome.recipient is not None:
            changes["recipient"] = outcome.recipient
        update: Document = {"$set": {f"notifications.$.{field}": value for field, value in changes.items()}}
        if not outcome.was_attempt:
            update["$inc"] = {"notifications.$.attempts": -1}
        with self.operating():
            if outcome.status in _FINAL_STATUSES and claim.notification.recipient is not None:
                self._settle_digest(mine, ending)
            result = self.tasks.update_one(
                {"uuid": claim.uuid, "notifications": {"$elemMatch": mine}}, update
            )
            return result.modified_count == 1

    def _settle_digest(self, head: Document, ending: Document) -> None:
        """Settle the others in the digest of the head.

        The head is settled last: if this process dies in between, the whole digest is sent again.
        """
        for found in self._find_items(head, 1):
            if found.notification.digest is not None:
                status = NotificationStatus.GATHERED.value
                self._update_items({"digest": found.notification.digest, "status": status}, ending)

    def form_digest(
        self, claim: Claim, now: datetime, digest_id: str
    ) -> tuple[str, list[StoredNotification]]:
        """Give the head the id of the digest first, then the others, so that only one call forms it."""
        head = claim.notification
        mine = {"id": head.id, "claim": head.claim, "digest": None}
        with self.operating():
            first = self.tasks.update_one(
                {"uuid": claim.uuid, "notifications": {"$elemMatch": mine}},
                {"$set": {"notifications.$.digest": digest_id}},
            )
            if first.modified_count == 1:
                due = {
                    "method": head.method,
                    "attempt_after": {"$lte": now},
                    "recipient": head.recipient,
                    "status": NotificationStatus.GATHERED.value,
                    "digest": None,
                }
                self._update_items(due, {"digest": digest_id, "attempt_after": None})
            (stored_head,) = self._find_items({"id": head.id}, 1)
            formed = stored_head.notification.digest or digest_id
            found = self._find_items({"digest": formed}, None)
            return formed, [item for item in found if item.notification.id != head.id]

    def find_notification(self, id_: str) -> StoredNotification | None:
        """Find the record that has a notification with that id."""
        with self.operating():
            return next(iter(self._find_items({"id": id_}, 1)), None)

    def list_notifications(
        self, status: NotificationStatus, method: str | None, limit: int
    ) -> list[StoredNotification]:
        """Find the records that have such notifications."""
        with self.operating():
            wanted = {"status": status.value, **({"method": method} if method else {})}
            return self._find_items(wanted, limit)

    def retry_dead(self, at: datetime, *, id_: str | None = None, method: str | None = None) -> int:
        """Make the notifications due in batches, so that each operation ends in time."""
        # A message that fails again meanwhile is not retried twice by the same call.
        wanted: Document = {"revived_at": {"$not": {"$gte": at}}}
        wanted |= {"id": id_} if id_ else {}
        wanted |= {"method": method} if method else {}
        changes: Document = {
            "status": NotificationStatus.RETRYING.value,
            "attempts": 0,
            "attempt_after": at,
            "revived_at": at,
        }
        # The head of a digest that is being retried keeps its digest; a dead one has none any more.
        no_digest: Document = {"recipient": None, "digest": None}
        retrying = {**wanted, "status": NotificationStatus.RETRYING.value}
        dead = {**wanted, "status": NotificationStatus.DEAD.value}
        return self._make_due(retrying, changes) + self._make_due(dead, {**changes, **no_digest})

    def _make_due(self, wanted: Document, changes: Document) -> int:
        """Make `changes` in all notifications that match `wanted`; return their number."""
        update = {"$set": {f"notifications.$.{field}": value for field, value in changes.items()}}
        changed = 0
        while found := self._find_batch(wanted):
            updates = [
                UpdateOne(
                    {
                        "uuid": item.uuid,
                        "notifications": {"$elemMatch": {**wanted, "id": item.notification.id}},
                    },
                    update,
                )
                for item in found
            ]
            with self.operating():
                changed += self.tasks.bulk_write(updates, ordered=False).modified_count
        return changed

    def _find_batch(self, wanted: Document) -> list[StoredNotification]:
        """Return up to _BATCH_SIZE notifications that match `wanted`, in any order."""
        with self.operating():
            return self._find_items(wanted, _BATCH_SIZE, in_order=False)

    def _update_items(self, wanted: Document, changes: Document) -> None:
        """Change every notification that matches `wanted`; each record is changed atomically."""
        self.tasks.update_many(
            {"notifications": {"$elemMatch": wanted}},
            {"$set": {f"notifications.$[item].{field}": value for field, value in changes.items()}},
            array_filters=[{f"item.{field}": value for field, value in wanted.items()}],
        )

    def _find_items(
        self, wanted: Document, limit: int | None, *, in_order: bool = True
    ) -> list[StoredNotification]:
        """Return the notifications that match `wanted`, the oldest first if `in_order`."""
        stages: list[Document] = [
            {"$match": {"notifications": {"$elemMatch": wanted}}},
            {"$project": {"notifications": 1, "uuid": 1}},
            {"$unwind": "$notifications"},
            {"$match": {f"notifications.{field}": value for field, value in wanted.items()}},
        ]
        if in_order:
            stages.append({"$sort": {"notifications.created_at": 1, "notifications.id": 1}})
        if limit is not None:
            stages.append({"$limit": limit})
        return [
            StoredNotification(item["uuid"], document_to_notification(item["notifications"]))
            for item in self.tasks.aggregate(stages)
        ]
