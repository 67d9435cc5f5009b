"""Describe the differences between the API versions of slurmrestd that this service supports.

Slurm 22.05 offers v0.0.38, the only version of the older form. These are its differences to v0.0.40 and
newer. Unless another file is named, the methods of Dialect make these differences in requests:

- `jobs/state` is missing: the list of all jobs is read, with status 304 if no job changed.
- slurmdbd takes several ids in one parameter; it cannot be asked for a user.
- A time has the prefix `uts`, in a query of slurmdbd and in `begin` and `deadline` (`timestamp`).
- A time limit of 0 minutes is no limit, and numbers are plain; the environment is an object.
- `exclude` and `nodelist` have other names, and `exclusive` is a field of its own.
- `requeue` is read as true, whatever its value; `no_requeue` means false (`requeue`).
- An unknown field is refused; newer versions ignore it with a warning.
- GRES and GPUs are fields of their own (submission.py).
- The job's environment has SLURM_GPUS_PER_TASK. It has neither SLURM_TRES_PER_TASK, SLURM_TRES_BIND and
  SLURM_JOB_DEPENDENCY nor the variables that make mpirun (Open MPI, PRRTE, Hydra) start its processes through
  srun (environment.py).
- `switches` is refused in every form.
- Both headers of the token are required, which every request has (tokens.py).

The readers of answers accept every form (reading.py, job_files.py, reply.py, answers.py, and where named):

- A job's state is one word, its numbers are plain, and its exit code is a status as of wait(2).
- Paths of output files are as submitted, and empty for Slurm's default.
- slurmdbd reports exit code 0 for every job, and no output files.
- A job that was accepted may come with errors; newer versions call them warnings.
- A wrong key and a slurmctld that is down are both error -1, "Unspecified error", with status 500. For a
  wrong key slurmdbd reports error 1007, as slurmctld does in newer versions (diagnosis.py).
- slurmdbd names a task of an array twice, alone and among all tasks (models/array_merging.py).
- The release of Slurm is in `meta.Slurm`; newer versions have `meta.slurm` (diagnosis.py).
- Cancelling a job that has ended is a success (job_control.py).
- Holding or releasing an array is done, but reported as an error without a number (job_control.py).

The newer versions differ, too:

- v0.0.40 and v0.0.41 report every cancellation as a success, even that of an unknown job (job_control.py).
- From v0.0.43 on the paths of output files, with Slurm's patterns replaced, are in fields of their own
  (job_files.py).
- Up to v0.0.41 Slurm does not create the folders of output files: the job's script does (job_script.py).
- v0.0.40 and v0.0.41 take the time of the last change only with a prefix (`update_time`).
- v0.0.40 separates the count of a task's resource by a colon (`task_resource`).
- v0.0.45 is the first that can requeue a job (job_control.py).
- Not every server of v0.0.40 has `jobs/state`, which came with Slurm 24.05.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.errors import SlurmRefused
from app.slurm.request import Query

# Newest first. v0.0.39 is left out on purpose: every server that offers it offers v0.0.38 or v0.0.40 too.
SUPPORTED_API_VERSIONS = ("v0.0.45", "v0.0.44", "v0.0.43", "v0.0.42", "v0.0.41", "v0.0.40", "v0.0.38")

# Options that the API calls by another name than sbatch.
_NAMES = {
    "constraint": "constraints",
    "exclude": "excluded_nodes",
    "job_name": "name",
    "mem": "memory_per_node",
    "mem_per_cpu": "memory_per_cpu",
    "nodelist": "required_nodes",
    "ntasks_per_node": "tasks_per_node",
    "time_min": "time_minimum",
}
_OLDER_NAMES = {**_NAMES, "exclude": "exclude_nodes", "nodelist": "nodelist"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One version of the API, by its name such as "v0.0.42"."""

    api: str

    @property
    def _minor(self) -> int:
        return int(self.api.rpartition(".")[2])

    @property
    def is_structured(self) -> bool:
        """Return whether numbers may be objects, {set, infinite, number}, as in all forms but 22.05."""
        return self._minor >= 40

    @property
    def has_state_list(self) -> bool:
        """Return whether `jobs/state` may be offered: from 24.05 on, so not by every v0.0.40."""
        return self.is_structured

    @property
    def tolerates_hang_ups(self) -> bool:
        """Return whether a client may close its connection before slurmrestd has answered, as seen on 24.11.

        22.05.8 was seen to poll such a connection without a pause from then on, and to log a line each time.
        No release between these two was tried.
        """
        return self._minor >= 42

    @property
    def has_tres_fields(self) -> bool:
        """Return whether GRES and GPUs are submitted as trackable resources, such as `tres_per_job`."""
        return self.is_structured

    @property
    def makes_output_folders(self) -> bool:
        """Return whether Slurm makes the folder of an output file (24.11); older releases fail the job."""
        return self._minor >= 42

    @property
    def reports_ended_jobs(self) -> bool:
        """Return whether the answer to a cancellation says that the job had ended already."""
        return self._minor >= 42

    @property
    def has_bulk_cancellation(self) -> bool:
        """Return whether several jobs can be cancelled with one request."""
        return self._minor >= 41

    @property
    def has_requeue(self) -> bool:
        """Return whether a job can be requeued (26.05)."""
        return self._minor >= 45

    def field_name(self, option: str) -> str:
        """Return the field of an sbatch option whose value is sent as it is."""
        return (_NAMES if self.is_structured else _OLDER_NAMES).get(option, option)

    def environment(self, variables: Mapping[str, str]) -> dict[str, str] | list[str]:
        """Return the value of the field `environment`."""
        if self.is_structured:
            return [f"{name}={value}" for name, value in variables.items()]
        return dict(variables)

    def exclusive(self, *, user_only: bool) -> dict[str, Any]:
        """Return the field that keeps other jobs, or only those of other users, off the nodes of a job."""
        if self.is_structured:
            return {"shared": ["user" if user_only else "none"]}
        return {"exclusive": "user" if user_only else "exclusive"}

    def requeue(self, *, wanted: bool) -> dict[str, Any]:
        """Return the field that allows or forbids Slurm to requeue the job after a failure of a node.

        v0.0.38 reads `requeue` as true, whatever its value. Its parser also accepts `no_requeue`, which its
        OpenAPI document omits.
        """
        if self.is_structured or wanted:
            return {"requeue": wanted}
        return {"no_requeue": True}

    def task_resource(self, resource: str, count: int) -> str:
        """Return a resource that each task gets; Slurm 23.11 separates the count by a colon."""
        return f"{resource}{':' if self._minor == 40 else '='}{count}"

    def time_limit(self, minutes: int) -> int | dict[str, Any]:
        """Return the field of a time limit; 0 minutes stand for none.

        From v0.0.40 on a plain 0 is a limit of no time at all (24.11).
        """
        if minutes or not self.is_structured:
            return minutes
        return {"set": True, "infinite": True, "number": 0}

    def switches(self, count: int, seconds: int | None) -> dict[str, Any]:
        """Return the fields for at most `count` switches, and how long the job may wait for them.

        Raises:
            SlurmRefused: v0.0.38 refuses the field in every form: "Operation not permitted" (22.05).
        """
        if not self.is_structured:
            raise SlurmRefused(
                f"task.slurm.switches: this cluster's REST API, {self.api}, does not accept it"
            )
        wait = {} if seconds is None else {"wait_for_switch": seconds}
        return {"required_switches": count, **wait}

    def timestamp(self, seconds: int) -> int | str:
        """Return a time in a submission or a query of slurmdbd; `seconds` count from the epoch."""
        return seconds if self.is_structured else f"uts{seconds}"

    def update_time(self, seconds: int) -> str:
        """Return a time in a query of slurmctld; v0.0.40 and v0.0.41 accept it only with a prefix."""
        return f"uts{seconds}" if self._minor in (40, 41) else str(seconds)

    def jobs_query(self, job_ids: Sequence[int]) -> list[tuple[str, str]]:
        """Return the query that asks slurmdbd for several jobs at once."""
        if self.is_structured:
            return [("step", str(job_id)) for job_id in job_ids]
        return [("step", ",".join(map(str, job_ids)))]

    def window_query(self, start: int, end: int) -> Query:
        """Return the query that asks slurmdbd for the jobs of all users in a window of time.

        Args:
            start: The beginning, in seconds since the epoch.
            end: The end, in seconds since the epoch.
        """
        return [("start_time", self.timestamp(start)), ("end_time", self.timestamp(end))]

    def users_queries(self, usernames: Collection[str], since: int) -> list[Query]:
        """Return the queries that ask slurmdbd for the jobs of users; v0.0.38 lists those of all users.

        Args:
            usernames: The users.
            since: Seconds since the epoch.
        """
        start = ("start_time", self.timestamp(since))
        if not self.is_structured:
            return [[start]]
        return [[start, ("users", username)] for username in sorted(usernames)]
