"""A span of time as an argument of a command, such as 30m, 24h or 7d."""

import re
from datetime import timedelta
from typing import Any

import click

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_MAX = timedelta(days=3650)
_TEXT = re.compile(r"([1-9]\d{0,5})([smhd])")


class _Duration(click.ParamType[timedelta]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = _TEXT.fullmatch(str(value))
        if found is None:
            self.fail(f"{value} must be a number with a unit, such as 30m, 24h or 7d", param, ctx)
        duration = timedelta(**{_UNITS[found[2]]: int(found[1])})
        if duration > _MAX:
            self.fail(f"{value} must be at most {_MAX.days}d", param, ctx)
        return duration


DURATION = _Duration()
