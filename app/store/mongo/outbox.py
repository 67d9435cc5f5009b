"""The notifications inside the records: claimed, gathered, settled."""

from datetime import datetime
from typing import cast

from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from app.models.record import NotificationStatus
from app.store import CLOCK_TOLERANCE, NEVER, Claim, Outcome, log_impossible
from app.store.mongo.database import MongoDatabase, answering
from app.store.mongo.documents import read_notification
from app.store.mongo.types import Document

_BATCH = 1000
_OVER = (NotificationStatus.SENT, NotificationStatus.DEAD)


class MongoOutbox(MongoDatabase):
    def claim(
        self, method: str, token: str, now: datetime, until: datetime, latest: datetime = NEVER
    ) -> Claim | None:
        claimed = {"status": NotificationStatus.CLAIMED.value}
        due = {"method": method, "attempt_after": {"$lte": now}}
        impossible = {  # the clock was set back since
            "method": method,
            "attempt_after": {"$gt": until + CLOCK_TOLERANCE},
            "$or": [claimed, {"attempt_after": {"$gt": latest + CLOCK_TOLERANCE}}],
        }
        if (claim := self._claim_one(due, token, until)) is not None:
            return claim
        if (claim := self._claim_one(impossible, token, until)) is not None:
            log_impossible(f"the wait of message {claim.notification.id}")
        return claim

    def _claim_one(self, due: Document, token: str, until: datetime) -> Claim | None:
        with answering():
            document = self.tasks.find_one_and_update(
                {"notifications": {"$elemMatch": due}},
                {
                    "$set": {
                        "notifications.$.status": NotificationStatus.CLAIMED.value,
                        "notifications.$.claim": token,
                        "notifications.$.attempt_after": until,
                    },
                    "$inc": {"notifications.$.attempts": 1},
                },
                {"uuid": 1, "notifications": {"$elemMatch": {"claim": token}}},
                return_document=ReturnDocument.AFTER,
            )
        if document is None:
            return None
        return Claim(document["uuid"], read_notification(document["notifications"][0]))

    def settle(self, claim: Claim, outcome: Outcome) -> bool:
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
        with answering():
            if outcome.status in _OVER and claim.notification.recipient is not None:
                self._settle_gathered(mine, ending)
            result = self.tasks.update_one(
                {"uuid": claim.uuid, "notifications": {"$elemMatch": mine}}, update
            )
            return result.modified_count == 1

    def _settle_gathered(self, head: Document, ending: Document) -> None:
        """What a digest brought along, before its head: should this process end now, it comes again whole."""
        for found in self._items(head, 1):
            if found.notification.digest is not None:
                status = NotificationStatus.GATHERED.value
                self._update_items({"digest": found.notification.digest, "status": status}, ending)

    def gather(self, claim: Claim, now: datetime, digest: str) -> tuple[str, list[Claim]]:
        head = claim.notification
        mine = {"id": head.id, "claim": head.claim, "digest": None}
        with answering():
            first = self.tasks.update_one(
                {"uuid": claim.uuid, "notifications": {"$elemMatch": mine}},
                {"$set": {"notifications.$.digest": digest}},
            )
            if first.modified_count == 1:
                due = {
                    "method": head.method,
                    "attempt_after": {"$lte": now},
                    "recipient": head.recipient,
                    "status": NotificationStatus.GATHERED.value,
                    "digest": None,
                }
                self._update_items(due, {"digest": digest, "attempt_after": None})
            (whole,) = self._items({"id": head.id}, 1)
            tied = whole.notification.digest or digest
            found = self._items({"digest": tied}, None)
            return tied, [item for item in found if item.notification.id != head.id]

    def take_slot(self, recipient: str, most: int, now: datetime, until: datetime) -> datetime | None:
        latest = until + CLOCK_TOLERANCE
        running = {"_id": recipient, "until": {"$gt": now, "$lte": latest}}
        over = {"_id": recipient, "$or": [{"until": {"$lte": now}}, {"until": {"$gt": latest}}]}
        with answering():
            while True:
                one_more = {**running, "count": {"$lt": most}}
                if self.windows.update_one(one_more, {"$inc": {"count": 1}}).matched_count == 1:
                    return None
                try:
                    began: Document = {"$set": {"until": until, "count": 1}}
                    last = self.windows.find_one_and_update(over, began, upsert=True)
                    if last is not None and last["until"] > latest:
                        log_impossible(f"the rate limit of {recipient} until {last['until']}")
                    return None
                except DuplicateKeyError:  # a window that still runs
                    full = self.windows.find_one({**running, "count": {"$gte": most}})
                    if full is not None:
                        return cast("datetime", full["until"])

    def give_slot_back(self, recipient: str) -> None:
        with answering():
            self.windows.update_one({"_id": recipient, "count": {"$gt": 0}}, {"$inc": {"count": -1}})

    def notification(self, id_: str) -> Claim | None:
        with answering():
            return next(iter(self._items({"id": id_}, 1)), None)

    def notifications(self, status: NotificationStatus, method: str | None, most: int) -> list[Claim]:
        with answering():
            return self._items({"status": status.value, **({"method": method} if method else {})}, most)

    def retry_dead(self, at: datetime, *, id_: str | None = None, method: str | None = None) -> int:
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
        return self._retry(retrying, changes) + self._retry(dead, {**changes, **no_digest})

    def _retry(self, wanted: Document, changes: Document) -> int:
        update = {"$set": {f"notifications.$.{field}": value for field, value in changes.items()}}
        retried = 0
        while found := self._some(wanted):
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
            with answering():
                retried += self.tasks.bulk_write(updates, ordered=False).modified_count
        return retried

    def _some(self, wanted: Document) -> list[Claim]:
        """Return some of the wanted notifications, so few that each operation ends in time."""
        with answering():
            return self._items(wanted, _BATCH, in_order=False)

    def _update_items(self, wanted: Document, changes: Document) -> None:
        """Changes every notification that is as `wanted`; each record atomic by itself."""
        self.tasks.update_many(
            {"notifications": {"$elemMatch": wanted}},
            {"$set": {f"notifications.$[item].{field}": value for field, value in changes.items()}},
            array_filters=[{f"item.{field}": value for field, value in wanted.items()}],
        )

    def _items(self, wanted: Document, most: int | None, *, in_order: bool = True) -> list[Claim]:
        """The notifications that are as `wanted`, the oldest first if `in_order`."""
        stages: list[Document] = [
            {"$match": {"notifications": {"$elemMatch": wanted}}},
            {"$project": {"notifications": 1, "uuid": 1}},
            {"$unwind": "$notifications"},
            {"$match": {f"notifications.{field}": value for field, value in wanted.items()}},
        ]
        if in_order:
            stages.append({"$sort": {"notifications.created_at": 1, "notifications.id": 1}})
        if most is not None:
            stages.append({"$limit": most})
        return [
            Claim(item["uuid"], read_notification(item["notifications"]))
            for item in self.tasks.aggregate(stages)
        ]
