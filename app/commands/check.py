"""Run the command `flask --app app check`: try all that the server needs, and show all faults at once."""

import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from flask import current_app
from pydantic import ValidationError

from app.access.keys import ApiKeys
from app.access.request_guard import RequestGuard
from app.builders import build_catalogue, build_request_guard, build_store
from app.commands.application import require_readable_files
from app.constants import Settings
from app.environment import list_setting_warnings, read_usable_settings
from app.errors import SettingsError, SlurmProxyError, StoreUnavailable
from app.models.content import Content
from app.models.notification_request import METHOD_ALIASES
from app.senders import SENDERS, Message, Sender, settings_prefix
from app.slurm.diagnosis import check_accounting, check_slurm
from app.startup import describe_store, find_socket_folder_faults, format_record_count
from app.store.schema_version import require_known_version
from app.unwritable_file import explain_unwritable

_CONTENT = Content(
    subject="A test message of slurm-proxy",
    words="The command `flask --app app check --send` has sent this. Nothing needs to be done.",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    status: str
    subject: str
    words: str

    def __str__(self) -> str:
        """Return the finding as one line."""
        return f"{self.status:<8}{self.subject}: {' '.join(self.words.split())}"


def _ok(subject: str, words: str) -> Finding:
    return Finding("ok", subject, words)


def _failed(subject: str, words: object) -> Finding:
    return Finding("FAILED", subject, str(words))


@click.command("check")
@click.option("--send", metavar="METHOD:RECEIVER", help="Send a test message, such as email:ann@example.com.")
def check(send: str | None) -> None:
    """Check settings, Slurm, the store and the channels; exit with 1 if one of them fails.

    Nothing is changed, and nothing is sent without --send. Run it as the service's user.
    """
    if (services := current_app.extensions.get("slurm_proxy")) is not None:
        services.store.close()  # the checks have connections of their own
    has_failed = False
    for finding in _findings(send):
        click.echo(str(finding))
        has_failed |= finding.status == "FAILED"
    sys.exit(1 if has_failed else 0)


def _findings(send: str | None) -> Iterator[Finding]:
    settings, faults = read_usable_settings()
    try:
        require_readable_files()
    except SettingsError as error:
        faults.insert(0, str(error))
    yield from _check_settings(settings, faults)
    yield from _check_slurm(settings, faults)
    yield _check_store(settings, faults)
    for method, sender in SENDERS.items():
        if method != "test":
            yield from _check_channel(method, sender, settings)
    if send is not None:
        yield _send_test(send, settings)


def _build_guard(settings: Settings) -> RequestGuard:
    store = build_store(settings)
    return build_request_guard(settings, store, ApiKeys(store))


def _check_settings(settings: Settings, faults: list[str]) -> Iterator[Finding]:
    """Yield a line for each fault, including the faults that show when the parts are built."""
    faults = [*faults]
    parts: list[Callable[[], object]] = [
        lambda: build_catalogue(settings),
        lambda: _build_guard(settings) if "oidc" in settings.ACCESS_METHODS else None,
        lambda: settings.check_address(settings.FLASK_APP_HOST, "FLASK_APP_HOST"),
        *(partial(settings.check_address, host, "GUNICORN_BIND") for host in _gunicorn_hosts(settings)),
    ]
    for part in parts:
        try:
            part()
        except SlurmProxyError as error:
            if not str(error).startswith("MONGODB_URI"):  # the line about the store reports this
                faults.append(str(error))
    audit = settings.AUDIT_LOG_PATH
    if audit is not None and (audit.is_dir() or not _can_write(audit)):
        faults.append(f"AUDIT_LOG_PATH: {explain_unwritable(audit)}")
    yield from (_failed("settings", fault) for fault in faults)
    if not faults:
        yield _ok("settings", "every value can be used")
    warnings = [
        *list_setting_warnings(settings),
        *map(_add_systemd_hint, find_socket_folder_faults(settings)),
    ]
    yield from (Finding("warning", "settings", sentence) for sentence in warnings)


def _add_systemd_hint(sentence: str) -> str:
    """Extend a sentence about a folder that has to exist only while gunicorn runs."""
    return f"{sentence} (with RuntimeDirectory systemd creates it at the start)"


def _gunicorn_hosts(settings: Settings) -> list[str]:
    """Return the hosts that gunicorn listens on; of a Unix socket its whole address."""
    return [
        address
        if address.startswith("unix:")
        else re.sub(r":\d+$", "", address).strip("[]") or "all addresses"
        for address in settings.gunicorn_addresses()
    ]


def _check_slurm(settings: Settings, faults: list[str]) -> Iterator[Finding]:
    if settings.SLURM_REST_HOST is None and any(fault.startswith("SLURM_") for fault in faults):
        yield _failed("slurmrestd", "not tried, because its settings are wrong (see above)")
        return
    try:
        info = check_slurm(settings)
    except SlurmProxyError as error:
        yield _failed("slurmrestd", error)
        return
    words = f"Slurm {info.release} accepts the token; {info.address} offers {info.api}"
    yield _ok("slurmrestd", words)
    try:
        has_accounting = check_accounting(settings, info.api)
    except SlurmProxyError as error:
        yield _failed("slurmdbd", error)
        return
    none = "the cluster has none: set SLURM_MIN_JOB_AGE_SECONDS to its MinJobAge"
    yield _ok("slurmdbd", "it answers" if has_accounting else none)


def _check_store(settings: Settings, faults: list[str]) -> Finding:
    """Check whether the store can be written, without changing anything in it."""
    if any(fault.startswith(("MONGODB_", "SQLITE_")) for fault in faults):
        return _failed("store", "not tried, because its settings are wrong (see above)")
    path = settings.SQLITE_PATH
    name = "MONGODB_URI" if settings.MONGODB_URI else "SQLITE_PATH"
    if settings.MONGODB_URI is None and not path.exists() and _can_write(path):
        return _ok("store", f"{path} will be created at the first start")
    try:
        store = build_store(settings)
    except SlurmProxyError as error:
        return _failed("store", error)
    try:
        require_known_version(store.read_schema_version())
        store.release_lease("check")  # a write that changes nothing
        count = store.count_records()
    except StoreUnavailable as error:
        return _failed("store", f"{name}: {error}")
    finally:
        store.close()
    if count is None:
        return _ok("store", f"{describe_store(settings)} does not exist yet and will be created")
    return _ok("store", f"{describe_store(settings)} can be written and has {format_record_count(count)}")


def _check_channel(method: str, kind: type[Sender], settings: Settings) -> Iterator[Finding]:
    """Yield the channel's line, if it is configured."""
    prefix = settings_prefix(method)
    try:
        sender = kind.from_settings(settings)
        if sender is None:
            return
        has_login = sender.check_login()
        sender.close_idle()
    except SlurmProxyError as error:
        is_named = prefix in str(error)
        yield _failed(method, error if is_named else f"{error} (correct {prefix}*)")
        return
    yield _ok(method, "the login works" if has_login else "there is no login to try: use --send")


def _send_test(send: str, settings: Settings) -> Finding:
    word, _, receiver = send.partition(":")
    method = METHOD_ALIASES.get(word, word)
    subject = f"message by {method}"
    kind = SENDERS.get(method)
    if kind is None:
        return _failed("message", f"{method} is not a method: --send takes one of {', '.join(SENDERS)}")
    try:
        sender = kind.from_settings(settings)
        if sender is None:
            return _failed(subject, "the method is not configured (see .env.example)")
        params = kind.Params.model_validate(
            kind.params_for_receiver(receiver, settings), context={"settings": settings}
        )
        sender.send(Message(f"check-{secrets.token_hex(8)}", "test", _CONTENT), params)
        sender.close_idle()
    except ValidationError as error:
        fault = error.errors(include_input=False)[0]
        return _failed(subject, f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}")
    except SlurmProxyError as error:
        return _failed(subject, error)
    return _ok(subject, f"it was sent to {receiver}" if receiver else "it was sent")


def _can_write(path: Path) -> bool:
    """Return whether the file can be written, or made in its folder."""
    return os.access(path if path.exists() else path.parent, os.W_OK)
