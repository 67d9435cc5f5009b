"""Changes of records as conditional updates."""

from pymongo import UpdateOne

from app.models.record import Change
from app.store.mongo.documents import dump_notifications, state_fields, without_enums
from app.store.mongo.lease import not_fenced_after
from app.store.mongo.older_server import stored_words
from app.store.mongo.types import Document


def change_to_update(change: Change, fence: int) -> UpdateOne:
    """Return the update for a change.

    It finds nothing if the record has another state by now, if a later leader than the one with the token
    `fence` has marked the record, or if the record has one of the notifications already.
    """
    changes: Document = {
        **state_fields(change.after),
        "is_reserved": False,
        "updated_at": change.at,
        "fence": fence,
        "alarm_at": change.alarm_at,
    }
    wanted: Document = {"uuid": change.uuid, "slurm_job_state": None, **not_fenced_after(fence)}
    if change.before is None:
        wanted |= {"is_reserved": True, "created_at": change.reserved_at}
        changes["submission_error"] = change.submission_error
    else:
        wanted["slurm_job_state"] = stored_words(change.before)
    if change.job is not None:
        changes["job"] = without_enums(change.job.model_dump())
    update: Document = {"$set": changes}
    if change.notifications:
        wanted["notifications.id"] = {"$nin": [item.id for item in change.notifications]}
        update["$push"] = {"notifications": {"$each": dump_notifications(change.notifications)}}
    return UpdateOne(wanted, update)
