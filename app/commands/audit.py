"""The lines that commands write to the audit trail."""

import os
import pwd
from typing import Any

import click

from app.access.audit import AuditEntry, open_audit_trail, write_audit_entry
from app.errors import SettingsError
from app.models.record import utc_now
from app.web.request_context import get_settings


def open_audit_file() -> None:
    """Open the audit trail if it is a file; call this before any change.

    Raises:
        ClickException: The file cannot be written.
    """
    path = get_settings().AUDIT_LOG_PATH
    try:
        if path is not None:
            open_audit_trail(path)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def write_command_entry(action: str, **subject: Any) -> None:
    """Write the line about a command; `subject`: fields of AuditEntry, such as the user or the task."""
    entry = AuditEntry(
        at=utc_now(), request_id="-", caller=_operator_name(), address="-", action=action, **subject
    )
    write_audit_entry(entry)


def _operator_name() -> str:
    """Return the user of this process, and the user who logged in at the terminal if that is another."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    try:
        login = os.getlogin()
    except OSError:  # there is no terminal
        login = user
    return f"cli:{user}" if login == user else f"cli:{user} (logged in as {login})"
