"""Read the settings from the environment, which no other module does, and find names that may be wrong."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dotenv import load_dotenv
from dotenv.parser import Binding, parse_stream
from pydantic import ValidationError

from app.constants import Settings
from app.errors import SettingsError

_CHANNELS = "NOTIFICATIONS_"  # the prefix of the settings that belong to channels
_ALIKE_WITH_PREFIX = 0.92  # with the prefix; SLACK_TOKEN reaches it, CACHE_RETRY_SECONDS does not
_ALIKE = 0.88  # of a misspelt name with a setting; SLURM_SUBMIT_HOST and MONGODB_USER do not reach it

# The environment names of the server that this one replaces, each with the setting that it means now.
OLDER_NAMES: Mapping[str, str] = {
    **{
        name: f"NOTIFICATIONS_{name}"
        for name in (
            "RABBITMQ_HOST",
            "RABBITMQ_PORT",
            "RABBITMQ_USERNAME",
            "RABBITMQ_PASSWORD",
            "RABBITMQ_PATH",
            "SMTP_SERVER",
            "SMTP_PORT",
            "SMTP_USERNAME",
            "SMTP_PASSWORD",
            "GMAIL_CREDENTIALS_PATH",
            "SLACK_BOT_TOKEN",
            "SLACK_CHANNEL",
        )
    },
    "MONGODB_TIMEOUT": "MONGODB_TIMEOUT_SECONDS",
    "MONITOR_POLLING_INTERVAL": "MONITOR_POLLING_SECONDS",
}
_OTHER_NAMES = {  # that operators try, and that are not similar enough to a setting
    "MONGODB_COLLECTION": "MONGODB_MONITOR_JOBS_COLLECTION",
    "MONGODB_DATABASE": "MONGODB_MONITOR_DB",
    "MONGODB_DB": "MONGODB_MONITOR_DB",
    "MONGODB_JOBS_COLLECTION": "MONGODB_MONITOR_JOBS_COLLECTION",
    "SLURM_JWT_KEY": "SLURM_JWT_HS256_KEY_PATH",
    "SLURM_JWT_KEY_FILE": "SLURM_JWT_HS256_KEY_PATH",
    "SLURM_JWT_KEY_PATH": "SLURM_JWT_HS256_KEY_PATH",
}
_OLDER_UNITS = {"MONGODB_TIMEOUT": ("milliseconds", 0.001), "MONITOR_POLLING_INTERVAL": ("minutes", 60)}


def read_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of the environment, with `overrides` on top; an empty variable counts as not set.

    Raises:
        SettingsError: Values cannot be used; the message names each of their variables.
    """
    settings, faults = read_usable_settings(overrides)
    if faults:
        raise SettingsError("; ".join(faults))
    return settings


def read_usable_settings(overrides: Mapping[str, Any] | None = None) -> tuple[Settings, list[str]]:
    """Return the settings without the wrong ones, and a sentence about each wrong one."""
    given, faults = _values_in_environment()
    older_names = {name: older for older, name, has_effect in older_names_in_use() if has_effect}
    given.update(overrides or {})
    while True:
        try:
            return Settings.model_validate(given), faults
        except ValidationError as error:
            for fault in error.errors(include_input=False):
                first, *rest = fault["loc"]
                keys = [part for part in rest if isinstance(part, str)]  # not the place in a list
                name = ".".join([older_names.get(str(first), str(first)), *keys])
                faults.append(f"{name}: {_in_plain_words(fault['msg'])}")
                given.pop(str(first), None)
        except SettingsError as error:  # there is no key
            if not any(fault.startswith("SLURM_JWT_HS256_KEY_") for fault in faults):
                faults.append(str(error))
            given.pop("SLURM_REST_HOST")


def _in_plain_words(message: str) -> str:
    """Return a message of pydantic in the wording of this project's own errors."""
    plain = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return plain.replace("a valid integer", "a whole number").split(", unable to ")[0]


def older_names_in_use() -> Iterator[tuple[str, str, bool]]:
    """Yield each variable with a name of the older server, the name of the setting, and whether it counts."""
    for older, name in OLDER_NAMES.items():
        if os.environ.get(older):
            yield older, name, not (os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def _from_older_unit(older: str) -> float:
    """Return the value of the older server's variable in seconds.

    Raises:
        SettingsError: The value is not a number.
    """
    value = os.environ[older]
    unit, seconds = _OLDER_UNITS[older]
    try:
        return float(value) * seconds
    except ValueError:
        raise SettingsError(f"{older} must be a number of {unit}, not {value!r}") from None


def misspelt() -> Iterator[tuple[str, str]]:
    """Yield variables whose names are similar to a setting, each with that setting."""
    known = [name + ending for name in Settings.model_fields for ending in ("", "_FILE")]
    for name in sorted(os.environ.keys() - set(known) - OLDER_NAMES.keys()):
        if (meant := _nearest_name(name.upper(), known)) is not None:
            yield name, meant


def setting_warnings(settings: Settings) -> Iterator[str]:
    """Yield a warning for each setting that may not have the effect that its operator expects."""
    yield from name_warnings()
    if settings.SLURM_JWT_HS256_KEY_BASE64 and settings.SLURM_JWT_HS256_KEY_PATH:
        yield (
            "SLURM_JWT_HS256_KEY_PATH is ignored, because SLURM_JWT_HS256_KEY_BASE64 is set:"
            " remove one of them"
        )
    uri = settings.MONGODB_URI.get_secret_value() if settings.MONGODB_URI else ""
    named = re.fullmatch(r"[a-z+]+://[^/?]+/([\w-]+)(\?[^@]*)?", uri)
    if named is not None and named[1] not in ("admin", settings.MONGODB_MONITOR_DB):
        yield (
            f"MONGODB_URI names the database {named[1]}, which counts only for the login: the records are in"
            f" {settings.MONGODB_MONITOR_DB}; if they are in {named[1]}, set MONGODB_MONITOR_DB={named[1]}"
        )


def name_warnings() -> Iterator[str]:
    """Yield a warning for each variable that may be a misspelt setting or has a name of the older server."""
    for name, meant in misspelt():
        yield f"{name} is no setting: did you mean {meant}?"
    for older, name, has_effect in older_names_in_use():
        if has_effect:
            yield f"{older} is the older server's name for {name}: {_replacement(older, name)}"
        else:
            yield f"{older} is ignored, because {name} is set: remove it"


def _replacement(older: str, name: str) -> str:
    """Return what an operator has to do about the older server's variable."""
    if older not in _OLDER_UNITS:
        return "rename it"
    try:
        assignment = f"{name}={_from_older_unit(older):.10g}"
    except SettingsError:  # the value is reported as a fault
        assignment = name
    return f"write {assignment} instead (seconds, no longer {_OLDER_UNITS[older][0]})"


def _nearest_name(name: str, known: list[str]) -> str | None:
    """Return the known name that is most similar, with or without a prefix; None if none is similar."""
    plain = name.removeprefix("SLURM_PROXY_")
    if plain in _OTHER_NAMES:
        return _OTHER_NAMES[plain]
    for candidate in (plain, _CHANNELS + plain, _CHANNELS + plain.replace("HOST", "SERVER")):
        if candidate in known:
            return candidate
    close = difflib.get_close_matches(name, known, 1, _ALIKE)
    close += difflib.get_close_matches(_CHANNELS + name, known, 1, _ALIKE_WITH_PREFIX)
    return close[0] if close else None


def _values_in_environment() -> tuple[dict[str, Any], list[str]]:
    """Return the settings that are given, and a sentence about each that cannot be read."""
    given: dict[str, Any] = {}
    faults: list[str] = []
    older_names = {name: older for older, name, has_effect in older_names_in_use() if has_effect}
    for name in Settings.model_fields:
        older = older_names.get(name)
        try:
            value = _from_older_unit(older) if older in _OLDER_UNITS else _from_environment(older or name)
        except SettingsError as error:
            faults.append(str(error))
        else:
            if value:
                given[name] = value
    return given, faults


def _from_environment(name: str) -> str | None:
    path = os.environ.get(f"{name}_FILE")
    if not path or os.environ.get(name):
        return os.environ.get(name)
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE: {error}") from error


def require_readable(path: Path) -> None:
    """Raise SettingsError if the file exists, but a line of it sets nothing: python-dotenv only skips it."""
    if not path.exists():
        return
    try:
        with path.open(encoding="utf-8") as file:
            wrong = [found.original.line for found in parse_stream(file) if found.error or _is_bare(found)]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    if wrong:
        raise SettingsError(f"{path}: line {wrong[0]} cannot be read; it must be NAME=value")


def _is_bare(binding: Binding) -> bool:
    """Return whether a line consists of a name only, without `=`."""
    return binding.key is not None and binding.value is None


class EnvironmentFile:
    """Loads the variables of a file such as `.env`; variables that the environment had before win."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.variables: Mapping[str, str] = {}

    def load(self) -> None:
        """Put the file's variables into the environment, in place of those of the previous call.

        Raises:
            SettingsError: The file exists, but cannot be read. The environment stays as it was.
        """
        require_readable(self._path)
        self.restore({})
        given = set(os.environ)
        load_dotenv(self._path)
        self.variables = {name: os.environ[name] for name in os.environ.keys() - given}

    def restore(self, variables: Mapping[str, str]) -> None:
        """Put the variables of an earlier call back into the environment, in place of those of the latest."""
        for name in self.variables:
            os.environ.pop(name, None)
        os.environ.update(variables)
        self.variables = variables
