"""Turns a task into the body of `POST /slurm/<version>/job/submit`."""

from typing import Any

from app.models.file_pattern import FilePattern
from app.models.output_files import file_patterns
from app.models.slurm_options import SlurmOptions
from app.models.task import Task
from app.slurm.dialect import Dialect
from app.slurm.job_script import job_script

# Options that only change their name on the way; the older form (v0.0.38) where it differs.
_NAMES = {
    "account": "account",
    "array": "array",
    "constraint": "constraints",
    "cpus_per_task": "cpus_per_task",
    "dependency": "dependency",
    "exclude": "excluded_nodes",
    "hold": "hold",
    "job_name": "name",
    "licenses": "licenses",
    "mem": "memory_per_node",
    "mem_per_cpu": "memory_per_cpu",
    "nice": "nice",
    "nodelist": "required_nodes",
    "ntasks": "tasks",
    "ntasks_per_node": "tasks_per_node",
    "open_mode": "open_mode",
    "partition": "partition",
    "prefer": "prefer",
    "qos": "qos",
    "requeue": "requeue",
    "reservation": "reservation",
    "threads_per_core": "threads_per_core",
    "time_min": "time_minimum",
    "wckey": "wckey",
}
_OLD_NAMES = {"exclude": "exclude_nodes", "nodelist": "nodelist"}
_GPU_OPTIONS = ("gres", "gpus", "gpus_per_node", "gpus_per_task")


def submission(task: Task, command: str, tag: str, dialect: Dialect, time_unit: str) -> dict[str, Any]:
    """The request body; absent options are not sent, so that the cluster's defaults apply."""
    options = task.slurm
    names = _NAMES if dialect.is_structured else {**_NAMES, **_OLD_NAMES}
    job: dict[str, Any] = {
        field: value for option, field in names.items() if (value := getattr(options, option)) is not None
    }
    job |= _generic_resources(options, dialect) | _times(options, dialect, time_unit) | _shape(options)
    job.setdefault("name", task.name)
    files = file_patterns(task.model_dump(include={"cwd", "dirs", "slurm"}))
    is_slurms = dialect.makes_output_folders and not options.has_pattern("N")
    job |= _files(*files) if is_slurms else {"standard_output": "/dev/null"}
    job["comment"] = f"{tag} {options.comment}" if options.comment else tag
    job["current_working_directory"] = task.cwd
    job["environment"] = dialect.environment(options.environment)
    if options.exclusive:
        job |= dialect.exclusive(user_only=options.exclusive == "user")
    script = job_script(task, command, None if is_slurms else files)
    return {"script": script, "job": job}


def _generic_resources(options: SlurmOptions, dialect: Dialect) -> dict[str, Any]:
    """GRES and GPUs: fields of their own in the older form, trackable resources in the newer one."""
    given = {name: str(value) for name in _GPU_OPTIONS if (value := getattr(options, name)) is not None}
    if not dialect.is_structured:
        return given
    gpus = {name: f"gres/gpu:{value}" for name, value in given.items() if name != "gres"}
    gres = [f"gres/{item}" for item in given["gres"].split(",")] if "gres" in given else []
    per_node = ",".join([*gres, *filter(None, [gpus.get("gpus_per_node")])])
    fields = {
        "tres_per_node": per_node,
        "tres_per_job": gpus.get("gpus"),
        "tres_per_task": gpus.get("gpus_per_task"),
    }
    return {field: value for field, value in fields.items() if value}


def _times(options: SlurmOptions, dialect: Dialect, time_unit: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if (minutes := options.minutes(time_unit)) is not None:
        fields["time_limit"] = minutes
    if options.begin is not None:
        fields["begin_time"] = dialect.moment(options.begin)
    if options.deadline is not None:
        fields["deadline"] = dialect.moment(options.deadline)
    return fields


def _shape(options: SlurmOptions) -> dict[str, Any]:
    """Nodes as the range that Slurm wants, and the number of tasks that sbatch would derive."""
    fields: dict[str, Any] = {}
    if options.nodes is not None:
        fields["nodes"] = str(options.nodes)
    if options.ntasks is None and options.ntasks_per_node is not None:
        fields["tasks"] = (options.nodes or 1) * options.ntasks_per_node
    return fields


def _files(output: FilePattern, error: FilePattern) -> dict[str, Any]:
    """Return the files that Slurm itself writes; error without one of its own joins the output."""
    out, err = output.for_slurm(), error.for_slurm()
    return {"standard_output": out} | ({} if err == out else {"standard_error": err})
