"""`task.slurm`: the documented keys, and sbatch's long options with underscores."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from app.models.file_pattern import FilePattern
from app.models.rules import (
    NO_NUL,
    VARIABLE,
    Count,
    CountOrText,
    FileName,
    Flag,
    Line,
    Moment,
    Nice,
    must,
)
from app.models.sbatch_values import HoursOrTime, Memory, MinimumTime, Switches, TimeLimit, time_minutes

_RANGE = re.compile(r"0*(\d{1,7})(?:-0*(\d{1,7})(?::(\d{1,7}))?)?\Z")
DEFAULT_ENVIRONMENT = {"PATH": "/bin/:/usr/bin/:/sbin/"}
_EXCLUSIVE = (("time", "time_minutes"), ("mem", "mem_per_cpu"))
_COUNTED_ONE_BY_ONE = 100_000  # tasks of ranges that overlap
_MOST_INDEX = 4_000_000  # Slurm's own largest MaxArraySize
_VARIABLE = re.compile(rf"{VARIABLE}\Z")
_ASSIGNMENT = {"type": "string", "pattern": rf"^{VARIABLE}=[^\u0000]*$"}


def _environment(value: object) -> object:
    """Return one "K=V", a list of them, or an object as an object; PATH has its default unless given."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) and "=" in item for item in items):
            raise ValueError("not K=V")
        pairs = [tuple(item.split("=", 1)) for item in items]
    if not all(_VARIABLE.match(name) and isinstance(text, str) for name, text in pairs):
        raise ValueError("not a variable")
    return DEFAULT_ENVIRONMENT | dict(pairs)


Environment = Annotated[
    dict[str, str],
    BeforeValidator(_environment),
    WithJsonSchema(
        {
            "anyOf": [
                _ASSIGNMENT,
                {"type": "array", "items": _ASSIGNMENT},
                {
                    "type": "object",
                    "propertyNames": {"pattern": f"^{VARIABLE}$"},
                    "additionalProperties": {"type": "string", "pattern": NO_NUL},
                },
            ]
        }
    ),
    must('be "K=V", a list of such strings, or an object of strings; K is a shell variable name'),
]


def array_size(spec: str) -> int | None:
    """How many tasks an `--array` such as "0-15:4,20%2" has; None for what is none."""
    parts = []
    for part in spec.partition("%")[0].split(","):
        match = _RANGE.match(part.strip())
        if match is None:
            return None
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if step == 0 or max(first, last) > _MOST_INDEX:
            return None
        parts.append(range(first, last + 1, step))
    parts.sort(key=lambda part: part.start)
    total = sum(map(len, parts))
    if all(before.stop <= after.start for before, after in pairwise(parts)):
        return total
    return len(set().union(*parts)) if total <= _COUNTED_ONE_BY_ONE else None


def _not_both(one: str, other: str) -> JsonDict:
    given: JsonDict = {one: {"not": {"type": "null"}}, other: {"not": {"type": "null"}}}
    return {"not": {"required": [one, other], "properties": given}}


class SlurmOptions(BaseModel):
    """Sbatch's long options, with underscores. What is not given is not sent: the cluster's defaults apply.

    An unknown key is refused, because dropping it would change the job. The error names a known key that is
    similar, if there is one.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"allOf": [_not_both(*pair) for pair in _EXCLUSIVE]}
    )

    output: FileName | None = None
    error: FileName | None = None
    job_name: Line | None = None
    mem: Memory | None = None
    cpus_per_task: Count | None = None
    nodes: Count | None = None
    ntasks_per_node: Count | None = None
    partition: Line | None = None
    time: HoursOrTime | None = None
    time_minutes: TimeLimit | None = None
    environment: Environment = Field(default_factory=lambda: dict(DEFAULT_ENVIRONMENT))

    account: Line | None = None
    array: Line | None = None
    begin: Moment | None = None
    comment: Line | None = None
    constraint: Line | None = None
    deadline: Moment | None = None
    dependency: Line | None = None
    exclude: Line | None = None
    exclusive: Annotated[Flag | Literal["user"], must('be true, false or "user"')] | None = None
    gpus: CountOrText | None = None
    gpus_per_node: CountOrText | None = None
    gpus_per_task: CountOrText | None = None
    gres: Line | None = None
    hold: Flag | None = None
    licenses: Line | None = None
    mem_per_cpu: Memory | None = None
    nice: Nice | None = None
    nodelist: Line | None = None
    ntasks: Count | None = None
    open_mode: Annotated[Literal["append", "truncate"], must('be "append" or "truncate"')] | None = None
    prefer: Line | None = None
    qos: Line | None = None
    requeue: Flag | None = None
    reservation: Line | None = None
    switches: Switches | None = None
    threads_per_core: Count | None = None
    time_min: MinimumTime | None = None
    wckey: Line | None = None

    @model_validator(mode="after")
    def _exclusive_pairs(self) -> Self:
        for one, other in _EXCLUSIVE:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise PydanticCustomError("rule", "must not give both {a} and {b}", {"a": one, "b": other})
        return self

    def has_pattern(self, letter: str) -> bool:
        """Return whether the name of an output file has Slurm's pattern of that letter."""
        names = [name for name in (self.output, self.error) if name]
        return any(letter in FilePattern("", name).letters for name in names)

    def minutes(self, time_unit: str) -> int | None:
        """Return the time limit in minutes, 0 for none; a number in `time` counts `time_unit`.

        `time_unit`: "hours" or "minutes".
        """
        if self.time is None:
            return self.time_minutes
        if isinstance(self.time, str):
            return time_minutes(self.time)
        return self.time * 60 if time_unit == "hours" else self.time
