"""A file of certificate authorities that cannot be used stops the start."""

from pathlib import Path
from typing import Any

import pytest

from app.environment import read_settings
from app.errors import SettingsError
from app.senders import SENDERS
from tests.support.real.http_services import WebhookReceiver

CHANNELS: dict[str, dict[str, Any]] = {
    "email": {"NOTIFICATIONS_SMTP_SERVER": "mail.example.com"},
    "rabbitmq": {"NOTIFICATIONS_RABBITMQ_HOST": "mq.example.com", "NOTIFICATIONS_RABBITMQ_TLS": True},
    "webhook": {"NOTIFICATIONS_WEBHOOK_RECEIVERS": {"example.com": WebhookReceiver().secret}},
}
NAMES = {
    "email": "NOTIFICATIONS_SMTP_CA_PATH",
    "rabbitmq": "NOTIFICATIONS_RABBITMQ_CA_PATH",
    "webhook": "NOTIFICATIONS_WEBHOOK_CA_PATH",
}


@pytest.mark.parametrize("content", [None, "no certificate"])
@pytest.mark.parametrize("method", CHANNELS)
def test_authorities_that_cannot_be_read_stop_the_start(
    tmp_path: Path, method: str, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    settings = read_settings({**CHANNELS[method], NAMES[method]: path})
    with pytest.raises(
        SettingsError, match=f"{NAMES[method]}: must name a file of certificate authorities in PEM"
    ):
        SENDERS[method].from_settings(settings)
