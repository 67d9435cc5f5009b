"""Build the environment of a job: the variables that sbatch would set, and the caller's own."""

import socket
from collections.abc import Mapping
from typing import Any

from app.models.slurm_options import SlurmOptions
from app.models.task import Task
from app.slurm.dialect import Dialect

# Variables that sbatch sets. slurmd sets the other SLURM_*, and the job's script sets HOME and the like.
_FROM_OPTIONS = {
    "SLURM_CPUS_PER_TASK": "cpus_per_task",
    "SLURM_GPUS": "gpus",
    "SLURM_GPUS_PER_NODE": "gpus_per_node",
    "SLURM_NTASKS_PER_NODE": "ntasks_per_node",
    "SLURM_THREADS_PER_CORE": "threads_per_core",
}
_FROM_OPTIONS_WITH_TRES = {**_FROM_OPTIONS, "SLURM_JOB_DEPENDENCY": "dependency"}
_FROM_OPTIONS_BEFORE_TRES = {**_FROM_OPTIONS, "SLURM_GPUS_PER_TASK": "gpus_per_task"}
_FROM_FIELDS = {"SLURM_TRES_BIND": "tres_bind", "SLURM_TRES_PER_TASK": "tres_per_task"}
# From 23.11 on sbatch makes mpirun start its processes through `srun --external-launcher`.
_MPI = dict.fromkeys(("OMPI_MCA_plm_slurm_args", "PRTE_MCA_plm_slurm_args"), "--external-launcher")
_HYDRA = {
    "HYDRA_BOOTSTRAP": "HYDRA_LAUNCHER_EXTRA_ARGS",
    "I_MPI_HYDRA_BOOTSTRAP": "I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS",
}


def build_environment(task: Task, job: Mapping[str, Any], dialect: Dialect) -> dict[str, str]:
    """Return the variables to submit; those of the caller override the others.

    Args:
        task: The task.
        job: The fields of the request body that were made from the options.
        dialect: The dialect of slurmrestd.
    """
    given = task.slurm.environment
    variables = {
        "SLURM_PRIO_PROCESS": "0",
        "SLURM_SUBMIT_DIR": task.cwd,
        "SLURM_SUBMIT_HOST": socket.gethostname().partition(".")[0],
    }
    if dialect.has_tres_fields:
        variables |= _from_options(_FROM_OPTIONS_WITH_TRES, task.slurm) | _mpi_variables(given)
        variables |= {name: job[field] for name, field in _FROM_FIELDS.items() if field in job}
    else:
        variables |= _from_options(_FROM_OPTIONS_BEFORE_TRES, task.slurm)
    return variables | given


def _from_options(names: Mapping[str, str], options: SlurmOptions) -> dict[str, str]:
    values = {name: getattr(options, option) for name, option in names.items()}
    return {name: str(value) for name, value in values.items() if value is not None}


def _mpi_variables(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for mpirun, without those of a Hydra whose bootstrap the caller chose."""
    variables = dict(_MPI)
    for bootstrap, arguments in _HYDRA.items():
        if given.get(bootstrap, "slurm") == "slurm":
            variables |= {bootstrap: "slurm", arguments: "--external-launcher"}
    return variables
