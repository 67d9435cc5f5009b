"""A job of the local cluster, and its process."""

import os
import pwd
import signal
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.job_state import JobState
from app.models.file_pattern import NO_ARRAY_TASK, expand, pad_values

NODE = "localhost"
CLUSTER = "local"

# Makes the folders of the output files, goes to the working directory, and becomes the script:
# all of it as the job's user.
_LAUNCHER = """
command -p mkdir -p -- "$(command -p dirname -- "$1")" "$(command -p dirname -- "$2")" || exit 1
cd -- "$3" || exit 1
[ "$5" = append ] || : >"$1" >"$2" || exit 1
if [ "$1" = "$2" ]; then exec "$4" >>"$1" 2>&1; else exec "$4" >>"$1" 2>>"$2"; fi
"""


@dataclass
class LocalJob:
    """Job of the local cluster; only code that holds the queue's lock changes it."""

    account: pwd.struct_passwd
    name: str
    partition: str
    script: str
    environment: list[str]
    cwd: str
    standard_output: str
    standard_error: str
    cpus: int
    memory_mb: int | None
    time_limit: int | None  # minutes
    comment: str
    hold: bool
    appends: bool
    begin: float
    may_requeue: bool
    submit_time: float
    job_id: int = 0  # given by the queue
    state: JobState = JobState.PENDING
    reason: str = "None"
    start_time: float = 0.0
    end_time: float = 0.0
    status: int = 0  # as of wait(2)
    restarts: int = 0
    is_held_by_admin: bool = False
    ending: JobState | None = None  # why its processes are being ended; PENDING for a requeue
    cpu_seconds: float = 0.0
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def hold_reason(self) -> str:
        """Return Slurm's reason for the hold, which names who holds the job; meaningless without `hold`."""
        return "JobHeldAdmin" if self.is_held_by_admin else "JobHeldUser"

    @property
    def is_ending(self) -> bool:
        """Return whether the job has ended, or its processes are being ended for good."""
        return self.state.is_final or self.ending not in (None, JobState.PENDING)

    def states(self) -> list[str]:
        """Return the state with its flag, as slurmrestd lists them."""
        return [self.ending, JobState.COMPLETING] if self.ending else [self.state]

    def path(self, pattern: str) -> str:
        """Return an output file's path with its patterns expanded, relative to the working directory."""
        values = {
            "j": str(self.job_id),
            "A": str(self.job_id),
            "a": NO_ARRAY_TASK,
            "x": self.name,
            "u": self.account.pw_name,
            "N": NODE,
        }
        return os.path.join(self.cwd, expand(pattern, pad_values(values)))  # noqa: PTH118 - text, no file

    def launch(self, spool: Path) -> None:
        """Start the process in a session of its own.

        Raises:
            OSError: The process cannot be started.
        """
        handle, script = tempfile.mkstemp(dir=spool, prefix=f"job{self.job_id}-")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(self.script)
        Path(script).chmod(0o700)
        output = self.path(self.standard_output or "slurm-%j.out")
        error = self.path(self.standard_error) if self.standard_error else output
        mode = "append" if self.appends else "truncate"
        self.process = subprocess.Popen(  # noqa: S603 - running what it is given is a scheduler's work
            ["/bin/sh", "-c", _LAUNCHER, "sh", output, error, self.cwd, script, mode],
            env=self._variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **_as_user(self.account, script),
        )

    def wait(self) -> None:
        """Wait until the process has ended, and record its status and CPU time. Needs no lock."""
        if self.process is None:
            return
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.kill(signal.SIGKILL)  # processes that it may have left behind
        self.status = status
        self.cpu_seconds = usage.ru_utime + usage.ru_stime

    def kill(self, number: int) -> None:
        """Send a signal to all processes of the job."""
        if self.process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def _variables(self) -> dict[str, str]:
        given = dict(item.split("=", 1) for item in self.environment)
        return {
            **given,
            "SLURM_CLUSTER_NAME": CLUSTER,
            "SLURM_CPUS_ON_NODE": str(self.cpus),
            "SLURM_JOBID": str(self.job_id),
            "SLURM_JOB_ID": str(self.job_id),
            "SLURM_JOB_NAME": self.name,
            "SLURM_JOB_NODELIST": NODE,
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_PARTITION": self.partition,
            "SLURM_JOB_UID": str(self.account.pw_uid),
            "SLURM_JOB_USER": self.account.pw_name,
            "SLURM_NTASKS": "1",
            "SLURMD_NODENAME": NODE,
        }


def _as_user(account: pwd.struct_passwd, script: str) -> dict[str, Any]:
    """Return the options with which root starts a process as the user, who then owns the script."""
    if os.geteuid() != 0 or account.pw_uid == 0:
        return {}
    os.chown(script, account.pw_uid, account.pw_gid)
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
