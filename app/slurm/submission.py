"""Build the body of `POST /slurm/<version>/job/submit` from a task."""

from typing import Any

from app.models.file_pattern import FilePattern
from app.models.output_files import derive_file_patterns
from app.models.sbatch_values import parse_switches
from app.models.slurm_options import SlurmOptions
from app.models.task import Task
from app.slurm.dialect import Dialect
from app.slurm.environment import build_environment
from app.slurm.job_script import build_job_script

# Options whose values change their form, by a function below. The values of all others are sent as they are.
_SHAPED = frozenset(
    {
        "begin",
        "comment",
        "cpus_per_task",
        "deadline",
        "environment",
        "error",
        "exclusive",
        "gpus",
        "gpus_per_node",
        "gpus_per_task",
        "gres",
        "nodes",
        "ntasks",
        "output",
        "requeue",
        "switches",
        "time",
        "time_minutes",
    }
)


def build_submission(task: Task, command: str, tag: str, dialect: Dialect, time_unit: str) -> dict[str, Any]:
    """Return the request body. Absent options are not sent, so that the cluster's defaults apply.

    Raises:
        SlurmRefused: The dialect has no field for an option.
    """
    options = task.slurm
    job = (
        _unshaped_fields(options, dialect)
        | _resource_fields(options, dialect)
        | _time_fields(options, dialect, time_unit)
    )
    job |= _node_fields(options)
    job.setdefault("name", task.name)
    files = derive_file_patterns(task.model_dump(include={"cwd", "dirs", "slurm"}))
    slurm_redirects = dialect.makes_output_folders and not options.has_pattern("N")
    job |= _file_fields(*files) if slurm_redirects else {"standard_output": "/dev/null"}
    job["comment"] = f"{tag} {options.comment}" if options.comment else tag
    job["current_working_directory"] = task.cwd
    job["environment"] = dialect.environment(build_environment(task, job, dialect))
    if options.exclusive:
        job |= dialect.exclusive(user_only=options.exclusive == "user")
    if options.switches is not None:
        job |= dialect.switches(*parse_switches(options.switches))
    if options.requeue is not None:
        job |= dialect.requeue(wanted=options.requeue)
    script = build_job_script(task, command, None if slurm_redirects else files)
    return {"script": script, "job": job}


def _unshaped_fields(options: SlurmOptions, dialect: Dialect) -> dict[str, Any]:
    """Return the options whose values are sent as they are."""
    given = {
        option: getattr(options, option) for option in SlurmOptions.model_fields if option not in _SHAPED
    }
    return {dialect.field_name(option): value for option, value in given.items() if value is not None}


def _resource_fields(options: SlurmOptions, dialect: Dialect) -> dict[str, Any]:
    """Return CPUs, GRES and GPUs: fields of their own in the older form, trackable resources in the newer.

    The newer form contains a task's CPUs twice, as from sbatch: srun reads them from `tres_per_task`.
    """
    cpus = {} if options.cpus_per_task is None else {"cpus_per_task": options.cpus_per_task}
    names = ("gres", "gpus", "gpus_per_node", "gpus_per_task")
    given = {name: str(value) for name in names if (value := getattr(options, name)) is not None}
    if not dialect.has_tres_fields:
        return cpus | given
    gpus = {name: _prefixed("gres/gpu:", value) for name, value in given.items() if name != "gres"}
    gres = [] if given.get("gres", "none").lower() == "none" else _prefixed("gres/", given["gres"])
    gpus_per_task = [_name_and_count(item) for item in gpus.get("gpus_per_task", [])]
    per_task = [("cpu", count) for count in cpus.values()] + gpus_per_task
    bound_gpus = sum(count for _, count in gpus_per_task)
    fields = {
        "tres_per_node": gres + gpus.get("gpus_per_node", []),
        "tres_per_job": gpus.get("gpus", []),
        "tres_per_task": [dialect.task_resource(name, count) for name, count in per_task],
        "tres_bind": [f"gres/gpu:per_task:{bound_gpus}"] if bound_gpus else [],
    }
    return cpus | {field: ",".join(items) for field, items in fields.items() if items}


def _name_and_count(item: str) -> tuple[str, int]:
    """Return name and count of an item such as "gres/gpu:a100:2"; the count is 1 if there is none."""
    name, _, count = item.rpartition(":")
    return (name, int(count)) if count.isdecimal() else (item, 1)


def _prefixed(prefix: str, items: str) -> list[str]:
    return [f"{prefix}{item}" for item in items.split(",")]


def _time_fields(options: SlurmOptions, dialect: Dialect, time_unit: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if (minutes := options.compute_time_limit(time_unit)) is not None:
        fields["time_limit"] = dialect.time_limit(minutes)
    if options.begin is not None:
        fields["begin_time"] = dialect.timestamp(options.begin)
    if options.deadline is not None:
        fields["deadline"] = dialect.timestamp(options.deadline)
    return fields


def _node_fields(options: SlurmOptions) -> dict[str, Any]:
    """Return the nodes as a range, and the number of tasks that sbatch would derive."""
    fields: dict[str, Any] = {}
    if options.nodes is not None:
        fields["nodes"] = str(options.nodes)
    if options.ntasks is not None:
        fields["tasks"] = options.ntasks
    elif options.ntasks_per_node is not None:
        fields["tasks"] = (options.nodes or 1) * options.ntasks_per_node
    return fields


def _file_fields(output: FilePattern, error: FilePattern) -> dict[str, Any]:
    """Return the files that Slurm itself writes; errors go to the output file if they have none."""
    out, err = output.to_slurm(), error.to_slurm()
    return {"standard_output": out} | ({} if err == out else {"standard_error": err})
