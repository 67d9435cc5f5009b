"""Builds the environment of a job: what sbatch would give it, and what the caller gives."""

import socket
from collections.abc import Mapping
from typing import Any

from app.models.slurm_options import SlurmOptions
from app.models.task import Task
from app.slurm.dialect import Dialect

# What sbatch sets itself; the rest of SLURM_* comes from slurmd. HOME and its like are the script's work.
_OF_OPTIONS = {
    "SLURM_CPUS_PER_TASK": "cpus_per_task",
    "SLURM_GPUS": "gpus",
    "SLURM_GPUS_PER_NODE": "gpus_per_node",
    "SLURM_NTASKS_PER_NODE": "ntasks_per_node",
    "SLURM_THREADS_PER_CORE": "threads_per_core",
}
_OF_OPTIONS_BEFORE_TRES = {**_OF_OPTIONS, "SLURM_GPUS_PER_TASK": "gpus_per_task"}
_OF_FIELDS = {"SLURM_TRES_BIND": "tres_bind", "SLURM_TRES_PER_TASK": "tres_per_task"}
# From 23.11 on sbatch has mpirun start its processes through `srun --external-launcher`.
_MPI = dict.fromkeys(("OMPI_MCA_plm_slurm_args", "PRTE_MCA_plm_slurm_args"), "--external-launcher")
_HYDRA = {
    "HYDRA_BOOTSTRAP": "HYDRA_LAUNCHER_EXTRA_ARGS",
    "I_MPI_HYDRA_BOOTSTRAP": "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS",
}


def job_environment(task: Task, job: Mapping[str, Any], dialect: Dialect) -> dict[str, str]:
    """Return the variables to submit; those of the caller win.

    `job`: the fields of the request body that are made from the options.
    """
    given = task.slurm.environment
    variables = {
        "SLURM_PRIO_PROCESS": "0",
        "SLURM_SUBMIT_DIR": task.cwd,
        "SLURM_SUBMIT_HOST": socket.gethostname().partition(".")[0],
    }
    if dialect.is_structured:
        variables |= _named(_OF_OPTIONS, task.slurm) | _mpi(given)
        variables |= {name: job[field] for name, field in _OF_FIELDS.items() if field in job}
    else:
        variables |= _named(_OF_OPTIONS_BEFORE_TRES, task.slurm)
    return variables | given


def _named(names: Mapping[str, str], options: SlurmOptions) -> dict[str, str]:
    values = {name: getattr(options, option) for name, option in names.items()}
    return {name: str(value) for name, value in values.items() if value is not None}


def _mpi(given: Mapping[str, str]) -> dict[str, str]:
    """Return what mpirun reads; nothing for a Hydra that the caller has start its processes otherwise."""
    variables = dict(_MPI)
    for bootstrap, arguments in _HYDRA.items():
        if given.get(bootstrap, "slurm") == "slurm":
            variables |= {bootstrap: "slurm", arguments: "--external-launcher"}
    return variables
