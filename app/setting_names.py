"""Recognise other names of settings: names of the older server, and misspelt names."""

import difflib
from collections.abc import Collection, Mapping
from contextlib import suppress

from app.errors import SettingsError

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
# The older names with another unit than seconds: the unit, and the number of seconds in it.
OLDER_UNITS = {"MONGODB_TIMEOUT": ("milliseconds", 0.001), "MONITOR_POLLING_INTERVAL": ("minutes", 60)}

_OTHER_NAMES = {  # that operators try, and that are not similar enough to a setting
    "MONGODB_COLLECTION": "MONGODB_MONITOR_JOBS_COLLECTION",
    "MONGODB_DATABASE": "MONGODB_MONITOR_DB",
    "MONGODB_DB": "MONGODB_MONITOR_DB",
    "MONGODB_JOBS_COLLECTION": "MONGODB_MONITOR_JOBS_COLLECTION",
    "SLURM_JWT_KEY": "SLURM_JWT_HS256_KEY_PATH",
    "SLURM_JWT_KEY_FILE": "SLURM_JWT_HS256_KEY_PATH",
    "SLURM_JWT_KEY_PATH": "SLURM_JWT_HS256_KEY_PATH",
}
_CHANNEL_PREFIX = "NOTIFICATIONS_"
# How similar two names must be, as difflib measures it.
_MIN_SIMILARITY = 0.88  # SLURM_SUBMIT_HOST and MONGODB_USER are less similar to any setting
_MIN_SIMILARITY_WITH_PREFIX = 0.92  # with the prefix; SLACK_TOKEN is more similar, CACHE_RETRY_SECONDS less


def find_similar_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name that is most similar, with or without a prefix; None if none is similar."""
    plain = name.removeprefix("SLURM_PROXY_")
    if plain in _OTHER_NAMES:
        return _OTHER_NAMES[plain]
    for candidate in (
        plain,
        _CHANNEL_PREFIX + plain,
        _CHANNEL_PREFIX + plain.replace("HOST", "SERVER"),
    ):
        if candidate in known:
            return candidate
    close = difflib.get_close_matches(name, known, 1, _MIN_SIMILARITY)
    close += difflib.get_close_matches(_CHANNEL_PREFIX + name, known, 1, _MIN_SIMILARITY_WITH_PREFIX)
    return close[0] if close else None


def convert_older_unit(older: str, value: str) -> float:
    """Return the value of the older server's variable in seconds.

    Raises:
        SettingsError: The value is not a number.
    """
    unit, seconds = OLDER_UNITS[older]
    try:
        return float(value) * seconds
    except ValueError:
        raise SettingsError(f"{older} must be a number of {unit}, not {value!r}") from None


def advise_replacement(older: str, value: str) -> str:
    """Return the advice for an operator who has set a variable of the older server to this value."""
    if older not in OLDER_UNITS:
        return "rename it"
    assignment = OLDER_NAMES[older]
    with suppress(SettingsError):  # the value is reported as a fault
        assignment += f"={convert_older_unit(older, value):.10g}"
    return f"write {assignment} instead (seconds, no longer {OLDER_UNITS[older][0]})"
