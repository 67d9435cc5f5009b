"""Write the jobs of the local cluster as slurmrestd v0.0.45 does."""

import os
import time
from typing import Any

from app.demo.cluster.job import CLUSTER, NODE, LocalJob
from app.job_state import JobState

API = "v0.0.45"


def structured_number(value: float | None) -> dict[str, Any]:
    """Return a number as slurmrestd writes it; None for a number that is not set."""
    return {"set": value is not None, "infinite": False, "number": int(value or 0)}


def plain_number(value: Any) -> Any:
    """Return a submitted number, plain or structured; None if the number is not set."""
    if isinstance(value, dict):
        return value.get("number") if value.get("set") else None
    return value


def make_answer(**content: Any) -> dict[str, Any]:
    """Return the body of an answer with this content."""
    meta = {
        "plugin": {"data_parser": f"data_parser/{API}"},
        "slurm": {"release": "local", "cluster": CLUSTER},
    }
    return {
        **content,
        "meta": meta,
        "errors": content.get("errors", []),
        "warnings": content.get("warnings", []),
    }


def make_error(code: int, words: str, description: str = "") -> dict[str, Any]:
    """Return an item of `errors`."""
    return {
        "description": description or words,
        "error_number": code,
        "error": words,
        "source": "local cluster",
    }


def make_kill_error(job_id: str, code: int, words: str) -> dict[str, Any]:
    """Return the item of `status` that says why a job is not cancelled."""
    number = int(job_id) if job_id.isdigit() else None
    return {
        "error": {"code": code, "string": words, "message": words},
        "step_id": job_id,
        "job_id": structured_number(number),
    }


def exit_code(job: LocalJob) -> dict[str, Any]:
    """Return the exit code of a job, or the signal that killed the job."""
    killed = os.WIFSIGNALED(job.status)
    if not job.state.is_final:
        status = "PENDING"
    else:
        status = "SIGNALED" if killed else "ERROR" if job.status else "SUCCESS"
    return {
        "status": [status],
        "return_code": structured_number(None if killed else os.waitstatus_to_exitcode(job.status)),
        "signal": {"id": structured_number(os.WTERMSIG(job.status) if killed else None), "name": ""},
    }


def to_controller_json(job: LocalJob) -> dict[str, Any]:
    """Return an item of `jobs` below /slurm."""
    return {
        "job_id": job.job_id,
        "array_job_id": structured_number(0),
        "array_task_id": structured_number(None),
        "array_task_string": "",
        "cluster": CLUSTER,
        "comment": job.comment,
        "cpus": structured_number(job.cpus),
        "current_working_directory": job.cwd,
        "end_time": structured_number(job.end_time),
        "exit_code": exit_code(job),
        "group_id": job.account.pw_gid,
        "hold": job.hold,
        "job_state": job.states(),
        "memory_per_node": structured_number(job.memory_mb),
        "name": job.name,
        "nodes": NODE if job.start_time else "",
        "partition": job.partition,
        "priority": structured_number(0 if job.hold else 1),
        "requeue": job.may_requeue,
        "restart_cnt": job.restarts,
        "standard_error": job.standard_error,
        "standard_output": job.standard_output,
        "start_time": structured_number(job.start_time),
        "state_reason": job.reason,
        "stdout_expanded": job.path(job.standard_output or "slurm-%j.out"),
        "stderr_expanded": job.path(job.standard_error) if job.standard_error else "",
        "submit_time": structured_number(job.submit_time),
        "time_limit": structured_number(job.time_limit),
        "user_id": job.account.pw_uid,
        "user_name": job.account.pw_name,
    }


def to_accounting_json(job: LocalJob) -> dict[str, Any]:
    """Return an item of `jobs` below /slurmdb."""
    return {
        "job_id": job.job_id,
        "array": {"job_id": 0, "task_id": structured_number(None), "task": ""},
        "association": {"cluster": CLUSTER, "user": job.account.pw_name},
        "cluster": CLUSTER,
        "comment": {"administrator": "", "job": job.comment, "system": ""},
        "exit_code": exit_code(job),
        "name": job.name,
        "nodes": NODE if job.start_time else "None assigned",
        "partition": job.partition,
        "required": {
            "CPUs": job.cpus,
            "memory_per_cpu": structured_number(None),
            "memory_per_node": structured_number(job.memory_mb),
        },
        "state": {"current": [job.state], "reason": job.reason},
        "stdout": job.standard_output,
        "stderr": job.standard_error,
        "stdout_expanded": job.path(job.standard_output or "slurm-%j.out"),
        "stderr_expanded": job.path(job.standard_error) if job.standard_error else "",
        "steps": [_batch_step(job)] if job.end_time else [],
        "time": {
            "submission": int(job.submit_time),
            "start": int(job.start_time),
            "end": int(job.end_time),
            "elapsed": int((job.end_time or job.start_time) - job.start_time),
            "limit": structured_number(job.time_limit),
        },
        "user": job.account.pw_name,
        "working_directory": job.cwd,
    }


def _batch_step(job: LocalJob) -> dict[str, Any]:
    # The kernel reports a peak of memory that includes this program's own, from before the exec of the job.
    peak = [{"type": "mem", "name": "", "id": 2, "count": 0}]
    total = {"seconds": int(job.cpu_seconds), "microseconds": int(job.cpu_seconds % 1 * 1e6)}
    return {
        "step": {"id": f"{job.job_id}.batch", "name": "batch"},
        "state": [job.state],
        "time": {"total": total},
        "tres": {"requested": {"max": peak}},
    }


def count_jobs(jobs: list[LocalJob]) -> dict[str, int]:
    """Return the statistics of slurmctld for these jobs."""

    def count(*states: JobState) -> int:
        return sum(job.state in states for job in jobs)

    return {
        "req_time": int(time.time()),
        "jobs_submitted": len(jobs),
        "jobs_started": sum(job.start_time > 0 for job in jobs),
        "jobs_pending": count(JobState.PENDING),
        "jobs_running": count(JobState.RUNNING),
        "jobs_completed": count(JobState.COMPLETED),
        "jobs_canceled": count(JobState.CANCELLED),
        "jobs_failed": count(JobState.FAILED, JobState.TIMEOUT),
        "dbd_agent_queue_size": 0,
    }
