"""`task.slurm`: the documented keys, and sbatch's long options with underscores.

A new option of sbatch takes these steps. `tests/unit/slurm/test_submission.py` fails without step 3 or 4,
`tests/unit/test_docs.py` without step 5, and `tests/contract/test_recorded_responses.py` without step 6.
`tests/unit/slurm/test_submission_fields.py` fails if slurmrestd does not know the name of the field.
`tests/contract/test_slurm_options.py` compares the option with that of sbatch, on a real Slurm, and
the variables of the jobs, too.

1. Add a field to `SlurmOptions`: its type from `rules.py` or `sbatch_values.py`, and a description and an
   example for the documentation. The option then reaches Slurm under its own name.
2. Only where one of these is true:
   - slurmrestd has another name for the option: add the name to `_NAMES` in `app/slurm/dialect.py`, or to
     `_OLDER_NAMES` if only v0.0.38 has that name.
   - The value has another form there: add the option to `_SHAPED` in `app/slurm/submission.py`, and write its
     field in a function of that file.
   - v0.0.38 cannot express the option: write its field in a method of `Dialect` that raises SlurmRefused for
     v0.0.38, as `switches` does.
   - sbatch sets a variable for the option: add the variable to `_FROM_OPTIONS` in `app/slurm/environment.py`.
     If only newer or only older releases set it, add it to `_FROM_OPTIONS_WITH_TRES` or to
     `_FROM_OPTIONS_BEFORE_TRES`.
3. Add slurmrestd's name of the field to `KNOWN_FIELDS` in `app/demo/cluster/submission.py`. Without it, the
   demonstration warns of an unknown field.
4. Add a `Case` to `tests/support/sbatch_options.py`: a value, and the option of sbatch that means the same.
   One `Case` is for all dialects; `is_structured_only` is for an option that v0.0.38 cannot express. If an
   ordinary cluster refuses the value, add a second `Case` with `shown` to `ON_OUR_CLUSTER`. An option without
   a `shown` needs a place in `ENVIRONMENTS`, or in `WITHOUT_ENVIRONMENT` with the reason.
5. Run `make reference`, which writes the table of options in `docs/reference/task.md`.
6. Run `.venv/bin/python -m tests.contract.test_recorded_responses --record`, because the OpenAPI document has
   the option now.
7. Add a line to `CHANGELOG.md`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

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
    LongLine,
    Moment,
    Nice,
    Rule,
)
from app.models.sbatch_values import HoursOrTime, Memory, MinimumTime, Switches, TimeLimit, parse_time_minutes

DEFAULT_ENVIRONMENT = {"PATH": "/bin/:/usr/bin/:/sbin/"}
EXCLUSIVE_OPTIONS = (("time", "time_minutes"), ("mem", "mem_per_cpu"))
_VARIABLE = re.compile(rf"{VARIABLE}\Z")
_ASSIGNMENT = {"type": "string", "pattern": rf"^{VARIABLE}=[^\u0000]*$"}


def _parse_environment(value: object) -> object:
    """Return the variables of "K=V", of a list of such texts, or of an object; PATH has a default."""
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
    BeforeValidator(_parse_environment),
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
    Rule('be "K=V", a list of such strings, or an object of strings; K is a shell variable name'),
]


def _exclude_each_other(one: str, other: str) -> JsonDict:
    given: JsonDict = {one: {"not": {"type": "null"}}, other: {"not": {"type": "null"}}}
    return {"not": {"required": [one, other], "properties": given}}


def _option(description: str, example: Any) -> Any:
    """Return the field of an option that need not be given."""
    return Field(default=None, description=description, examples=[example])


class SlurmOptions(BaseModel):
    """Sbatch's long options, with underscores. Without an option, the cluster's default applies.

    An unknown key is refused, because dropping it would change the job. The error names a known key that is
    similar, if there is one.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"allOf": [_exclude_each_other(*pair) for pair in EXCLUSIVE_OPTIONS]},
    )

    output: FileName | None = _option(
        "The file for standard output, below `dirs.output`. Slurm's patterns %j %x %u %A %a %N and %% work.",
        "align.%j.out",
    )
    error: FileName | None = _option(
        "The file for standard error, below `dirs.error`, with the same patterns.", "align.%j.err"
    )
    job_name: Line | None = _option("The job's name in Slurm; by default the task's `name`.", "align-17")
    mem: Memory | None = _option("Memory for each of the job's nodes; not together with `mem_per_cpu`.", 4000)
    cpus_per_task: Count | None = _option("CPUs for each task.", 4)
    nodes: Count | None = _option("The number of nodes.", 1)
    ntasks_per_node: Count | None = _option("The number of tasks on each node.", 2)
    partition: Line | None = _option("The partition, a group of nodes with limits of its own.", "long")
    time: HoursOrTime | None = _option("The time limit; not together with `time_minutes`.", 30)
    time_minutes: TimeLimit | None = _option("The time limit; not together with `time`.", 90)
    environment: Environment = Field(
        default_factory=lambda: dict(DEFAULT_ENVIRONMENT),
        description="Environment variables, in addition to those that sbatch sets; `PATH` has a default.",
        examples=[{"THREADS": "4"}],
    )

    account: Line | None = _option("The account that the job is charged to.", "genomics")
    array: Line | None = _option(
        "The indices of an array of jobs. A number after % limits how many run at a time.", "0-15%4"
    )
    begin: Moment | None = _option(
        "The earliest time at which the job may start.", "2027-01-31T20:00:00+01:00"
    )
    comment: Line | None = _option("A comment, which Slurm keeps with the job.", "second attempt")
    constraint: Line | None = _option("Features that the nodes must have.", "avx512&ssd")
    deadline: Moment | None = _option(
        "The time by which the job must end. Slurm removes the job if that is not possible.",
        "2027-02-01T08:00:00+01:00",
    )
    dependency: LongLine | None = _option(
        "Other jobs that must have started or ended before this one starts, by their ids or by the uuids of"
        " their tasks.",
        "afterok:align-17:4711",
    )
    exclude: Line | None = _option("Nodes that the job does not run on.", "node[07-09]")
    exclusive: Annotated[Flag | Literal["user"], Rule('be true, false or "user"')] | None = _option(
        'No other job runs on the job\'s nodes; with "user", no job of another user.', True
    )
    gpus: CountOrText | None = _option("GPUs for the whole job: a number, or a type and a number.", "a100:2")
    gpus_per_node: CountOrText | None = _option("GPUs on each node: a number, or a type and a number.", 1)
    gpus_per_task: CountOrText | None = _option("GPUs for each task: a number, or a type and a number.", 1)
    gres: Line | None = _option("Generic resources on each node.", "gpu:a100:1")
    hold: Flag | None = _option("The job is held after submission, until it is released.", True)
    licenses: Line | None = _option("Licenses that the job needs.", "matlab:2")
    mem_per_cpu: Memory | None = _option("Memory for each CPU; not together with `mem`.", 2000)
    nice: Nice | None = _option(
        "The number by which the job's priority is lowered. One below 0 raises it, for operators of Slurm.",
        100,
    )
    nodelist: Line | None = _option("Nodes that the job runs on; Slurm may add others.", "node[01-02]")
    ntasks: Count | None = _option("The maximum number of tasks that the job starts.", 8)
    open_mode: Annotated[Literal["append", "truncate"], Rule('be "append" or "truncate"')] | None = _option(
        "Whether the job appends to existing output files or empties them first.", "append"
    )
    prefer: Line | None = _option("Features that the nodes should have, if possible.", "ssd")
    qos: Line | None = _option("The quality of service, which has a priority and limits of its own.", "short")
    requeue: Flag | None = _option(
        "Whether Slurm may start the job again, for example after a node has failed.", False
    )
    reservation: Line | None = _option("The reservation whose nodes the job uses.", "course-2027")
    switches: Switches | None = _option(
        "The maximum number of leaf switches for the job's nodes; after @ how long the job waits for them.",
        "1@00:30:00",
    )
    threads_per_core: Count | None = _option("How many threads of each core are used.", 1)
    time_min: MinimumTime | None = _option(
        "The minimum time limit: Slurm may lower the time limit to this, so that the job starts earlier.",
        30,
    )
    wckey: Line | None = _option("A key by which accounting groups jobs.", "project-x")

    @model_validator(mode="after")
    def _refuse_exclusive_pairs(self) -> Self:
        for one, other in EXCLUSIVE_OPTIONS:
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise PydanticCustomError("rule", "must not give both {a} and {b}", {"a": one, "b": other})
        return self

    def has_pattern(self, letter: str) -> bool:
        """Return whether the name of an output file has Slurm's pattern of that letter."""
        names = [name for name in (self.output, self.error) if name]
        return any(letter in FilePattern("", name).letters for name in names)

    def compute_time_limit(self, time_unit: str) -> int | None:
        """Return the time limit in minutes, 0 for none; a number in `time` counts `time_unit`.

        `time_unit`: "hours" or "minutes".
        """
        if self.time is None:
            return self.time_minutes
        if isinstance(self.time, str):
            return parse_time_minutes(self.time)
        return self.time * 60 if time_unit == "hours" else self.time
