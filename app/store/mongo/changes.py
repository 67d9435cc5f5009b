"""Changes of records as conditional updates."""

from pymongo import UpdateOne

from app.models.record import Change
from app.store.mongo.documents import build_state_fields, notifications_to_documents, replace_enums
from app.store.mongo.lease import match_not_fenced_after
from app.store.mongo.older_server import match_state
from app.store.mongo.types import Document


def change_to_update(change: Change, fence: int) -> UpdateOne:
    """Return the update for a change, by the leader with the fencing token `fence`.

    The update finds no document if the record has another state by now, or one of the notifications. The
    same holds if a later leader has marked the record.
    """
    changes: Document = {
        **build_state_fields(change.after),
        "is_reserved": False,
        "updated_at": change.at,
        "fence": fence,
        "alarm_at": change.alarm_at,
    }
    wanted: Document = {"uuid": change.uuid, "slurm_job_state": None, **match_not_fenced_after(fence)}
    if change.before is None:
        wanted |= {"is_reserved": True, "created_at": change.reserved_at}
        changes["submission_error"] = change.submission_error
    else:
        wanted["slurm_job_state"] = match_state(change.before)
    if change.job is not None:
        changes["job"] = replace_enums(change.job.model_dump())
    update: Document = {"$set": changes}
    if change.notifications:
        wanted["notifications.id"] = {"$nin": [item.id for item in change.notifications]}
        update["$push"] = {"notifications": {"$each": notifications_to_documents(change.notifications)}}
    return UpdateOne(wanted, update)
