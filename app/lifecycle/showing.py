"""What callers see of a record and of its notifications."""

from typing import Any

from app.messages.layout import as_text
from app.models.record import Notification, TaskRecord
from app.store import Claim

# Parameters that say where a message goes.
_ADDRESSES = ("recipient", "channel", "url", "target", "exchange", "routing_key", "queue")


def shown_record(record: TaskRecord) -> dict[str, Any]:
    body = record.model_dump(
        mode="json", exclude={"task", "job", "notifications", "idempotency_key", "alarm_at", "caller"}
    )
    for name in ("warnings", "submission_error"):
        if not body[name]:
            del body[name]
    notifications = [shown_notification(item) for item in record.notifications]
    return {**body, "task": record.task, "notifications": notifications}


def shown_notification(item: Notification) -> dict[str, Any]:
    """How far it has come, to whom it goes, and what it says."""
    body = item.model_dump(mode="json", exclude={"params", "claim", "content", "recipient"})
    for name in ("revived_at", "digest"):
        if body[name] is None:
            del body[name]
    content = item.content
    body["to"] = ", ".join(str(item.params[name]) for name in _ADDRESSES if item.params.get(name))
    return {
        **body,
        "subject": content.subject if content else "",
        "text": as_text(content) if content else "",
    }


def shown_claim(found: Claim) -> dict[str, Any]:
    return {"task_uuid": found.uuid, **shown_notification(found.notification)}
