"""`task.slurm`: the documented keys, and sbatch's long options with underscores."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.models.rules import (
    Count,
    CountOrText,
    FileName,
    Flag,
    Hours,
    Line,
    Megabytes,
    Minutes,
    Moment,
    Nice,
    must,
)

_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?\Z")
DEFAULT_ENVIRONMENT = {"PATH": "/bin/:/usr/bin/:/sbin/"}
_MOST_INDEX = 4_000_000  # Slurm's own largest MaxArraySize
# What takes the place of a pattern in a file's name: an option, or a variable that Slurm does not always set.
_IN_FILE_NAMES = {
    "job_name": "x",
    "SLURM_JOB_NAME": "x",
    "SLURM_ARRAY_JOB_ID": "A",
    "SLURM_ARRAY_TASK_ID": "a",
}
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _environment(value: object) -> object:
    """One "K=V", a list of them, or an object, as an object; nothing given means the default."""
    if value in ([], {}):
        return dict(DEFAULT_ENVIRONMENT)
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) and "=" in item for item in items):
            raise ValueError("not K=V")
        pairs = [tuple(item.split("=", 1)) for item in items]
    if not all(_VARIABLE.match(name) and isinstance(text, str) for name, text in pairs):
        raise ValueError("not a variable")
    return dict(pairs)


Environment = Annotated[
    dict[str, str],
    BeforeValidator(_environment),
    must('be "K=V", a list of such strings, or an object of strings; K is a shell variable name'),
]


def array_size(spec: str) -> int | None:
    """How many tasks an `--array` such as "0-15:4,20%2" has; None for what is none."""
    indices: set[int] = set()
    for part in spec.partition("%")[0].split(","):
        match = _RANGE.match(part.strip())
        if match is None or int(match[1][:9]) > _MOST_INDEX or int((match[2] or "0")[:9]) > _MOST_INDEX:
            return None
        first, step = int(match[1]), int(match[3] or 1)
        if step == 0:
            return None
        indices |= set(range(first, int(match[2] or first) + 1, step))
    return len(indices)


class SlurmOptions(BaseModel):
    """An unknown key is an error that names the nearest known one: dropping it would change the job."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: FileName | None = None
    error: FileName | None = None
    job_name: Line | None = None
    mem: Megabytes | None = None
    cpus_per_task: Count | None = None
    nodes: Count | None = None
    ntasks_per_node: Count | None = None
    partition: Line | None = None
    time: Hours | None = None
    time_minutes: Minutes | None = None
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
    mem_per_cpu: Megabytes | None = None
    nice: Nice | None = None
    nodelist: Line | None = None
    ntasks: Count | None = None
    open_mode: Annotated[Literal["append", "truncate"], must('be "append" or "truncate"')] | None = None
    prefer: Line | None = None
    qos: Line | None = None
    requeue: Flag | None = None
    reservation: Line | None = None
    threads_per_core: Count | None = None
    time_min: Minutes | None = None
    wckey: Line | None = None

    @model_validator(mode="after")
    def _exclusive_pairs(self) -> Self:
        for one, other in (("time", "time_minutes"), ("mem", "mem_per_cpu")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise PydanticCustomError("rule", "must not give both {a} and {b}", {"a": one, "b": other})
        return self

    @model_validator(mode="after")
    def _files_stay_in_their_folders(self) -> Self:
        files = " ".join(name.replace("%%", "") for name in (self.output, self.error) if name)
        values = {**self.environment, "job_name": self.job_name or ""}
        for source, letter in _IN_FILE_NAMES.items():
            if "/" in values.get(source, "") and re.search(f"%[0-9]*{letter}", files):
                words = "must not have a / in {source} while the name of a file has %{letter}"
                raise PydanticCustomError("rule", words, {"source": source, "letter": letter})
        return self

    def minutes(self, time_unit: str) -> int | None:
        """The time limit in minutes; `time` counts `time_unit`: "hours" or "minutes"."""
        if self.time is None:
            return self.time_minutes
        return self.time * 60 if time_unit == "hours" else self.time
