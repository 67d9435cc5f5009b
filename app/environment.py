"""Read the settings from the environment, which no other module does, and warn of names that may be wrong."""

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
from app.setting_names import (
    OLDER_NAMES,
    OLDER_UNITS,
    advise_replacement,
    convert_older_unit,
    find_similar_name,
)


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
    given, faults = _read_values()
    older_names = {name: older for older, name, has_effect in find_older_names() if has_effect}
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


def find_older_names() -> Iterator[tuple[str, str, bool]]:
    """Yield each variable of the older server, the name of its setting, and whether the variable counts."""
    for older, name in OLDER_NAMES.items():
        if os.environ.get(older):
            yield older, name, not (os.environ.get(name) or os.environ.get(f"{name}_FILE"))


def find_misspelt_names() -> Iterator[tuple[str, str]]:
    """Yield each variable with a name similar to a setting's, and the name of the setting."""
    known = [name + ending for name in Settings.model_fields for ending in ("", "_FILE")]
    for name in sorted(os.environ.keys() - set(known) - OLDER_NAMES.keys()):
        if (meant := find_similar_name(name.upper(), known)) is not None:
            yield name, meant


def list_setting_warnings(settings: Settings) -> Iterator[str]:
    """Yield a warning for each setting that may not have the effect that its operator expects."""
    yield from list_name_warnings()
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


def list_name_warnings() -> Iterator[str]:
    """Yield a warning for each variable that may be a misspelt setting or has a name of the older server."""
    for name, meant in find_misspelt_names():
        yield f"{name} is no setting: did you mean {meant}?"
    for older, name, has_effect in find_older_names():
        if has_effect:
            advice = advise_replacement(older, os.environ[older])
            yield f"{older} is the older server's name for {name}: {advice}"
        else:
            yield f"{older} is ignored, because {name} is set: remove it"


def _read_values() -> tuple[dict[str, Any], list[str]]:
    """Return the values that are set, and a sentence about each value that cannot be read."""
    given: dict[str, Any] = {}
    faults: list[str] = []
    older_names = {name: older for older, name, has_effect in find_older_names() if has_effect}
    for name in Settings.model_fields:
        older = older_names.get(name)
        try:
            if older in OLDER_UNITS:
                value: object = convert_older_unit(older, os.environ[older])
            else:
                value = _read_variable(older or name)
        except SettingsError as error:
            faults.append(str(error))
        else:
            if value:
                given[name] = value
    return given, faults


def _read_variable(name: str) -> str | None:
    """Return the value of a variable, or of the file that NAME_FILE names; None if neither is set.

    Raises:
        SettingsError: The file cannot be read.
    """
    path = os.environ.get(f"{name}_FILE")
    if not path or os.environ.get(name):
        return os.environ.get(name)
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{name}_FILE: {error}") from error


def require_readable_file(path: Path) -> None:
    """Check that each line of a file sets a variable; a file that does not exist is fine.

    Raises:
        SettingsError: The file or a line of it cannot be read; python-dotenv would only skip the line.
    """
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
    """A file of variables such as `.env`; variables that the environment had before win."""

    def __init__(self, path: Path) -> None:
        """Name the file; `load` reads it."""
        self._path = path
        self.variables: Mapping[str, str] = {}

    def load(self) -> None:
        """Put the file's variables into the environment, in place of the variables of the previous call.

        Raises:
            SettingsError: The file exists, but cannot be read. The environment stays as it was.
        """
        require_readable_file(self._path)
        self.restore({})
        given = set(os.environ)
        load_dotenv(self._path)
        self.variables = {name: os.environ[name] for name in os.environ.keys() - given}

    def restore(self, variables: Mapping[str, str]) -> None:
        """Put the variables of an earlier call back into the environment, in place of the latest ones."""
        for name in self.variables:
            os.environ.pop(name, None)
        os.environ.update(variables)
        self.variables = variables
