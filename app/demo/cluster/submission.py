"""Make a local job from a submission, or refuse the submission with the error of Slurm."""

import os
import pwd
import time
from typing import Any, Protocol

from app.demo.cluster.job import LocalJob
from app.demo.cluster.queue import LocalQueue
from app.demo.cluster.wire import plain_number

# The fields of a submission, by slurmrestd's names. The local cluster honours or refuses them, or they mean
# nothing on one node without accounts. Any other field leads to a warning.
KNOWN_FIELDS = frozenset(
    {
        "account",
        "array",
        "begin_time",
        "comment",
        "constraints",
        "cpus_per_task",
        "current_working_directory",
        "deadline",
        "dependency",
        "environment",
        "excluded_nodes",
        "hold",
        "licenses",
        "memory_per_cpu",
        "memory_per_node",
        "minimum_nodes",
        "maximum_nodes",
        "name",
        "nice",
        "nodes",
        "open_mode",
        "partition",
        "prefer",
        "priority",
        "qos",
        "requeue",
        "required_nodes",
        "required_switches",
        "reservation",
        "script",
        "shared",
        "standard_error",
        "standard_input",
        "standard_output",
        "tasks",
        "tasks_per_node",
        "threads_per_core",
        "time_limit",
        "time_minimum",
        "tres_bind",
        "tres_per_job",
        "tres_per_node",
        "tres_per_task",
        "wait_for_switch",
        "wckey",
    }
)
_UNSUPPORTED = ("array", "dependency", "licenses", "constraints", "prefer", "reservation")


class Refused(Exception):
    """Exception: the submission is refused. `code` is the number of Slurm's error."""

    def __init__(self, code: int, words: str) -> None:
        """Keep the number and the text of the error."""
        super().__init__(words)
        self.code = code


class Cluster(Protocol):
    """Limits of the cluster, which decide whether a job is refused."""

    partitions: tuple[str, ...]
    mem_mb: int
    queue: LocalQueue


def make_job(cluster: Cluster, user: str, body: dict[str, Any]) -> tuple[LocalJob, list[dict[str, str]]]:
    """Return the job that `body` describes, and Slurm's warnings.

    Raises:
        Refused: Slurm would refuse this job.
    """
    wanted = body.get("job")
    if not isinstance(wanted, dict):
        raise Refused(9202, "Failure during parsing: no job description")
    script = body.get("script") or wanted.get("script")
    _check(cluster, wanted, script)
    job = LocalJob(
        account=_account(user),
        name=str(wanted.get("name") or "openapi"),
        partition=str(wanted.get("partition") or cluster.partitions[0]),
        script=str(script),
        environment=[str(item) for item in wanted["environment"]],
        cwd=str(wanted["current_working_directory"]),
        standard_output=str(wanted.get("standard_output") or ""),
        standard_error=str(wanted.get("standard_error") or ""),
        cpus=_cpus(wanted),
        memory_mb=plain_number(wanted.get("memory_per_node")),
        time_limit=plain_number(wanted.get("time_limit")),
        comment=str(wanted.get("comment") or ""),
        hold=bool(wanted.get("hold")),
        appends=str(wanted.get("open_mode")).lower() == "append",
        begin=float(plain_number(wanted.get("begin_time")) or 0),
        may_requeue=bool(wanted.get("requeue", True)),
        submit_time=time.time(),
    )
    unknown = sorted(wanted.keys() - KNOWN_FIELDS)
    warnings = [
        {"description": f'Ignoring unknown field "{name}"', "source": "local cluster"} for name in unknown
    ]
    return job, warnings


def _check(cluster: Cluster, wanted: dict[str, Any], script: object) -> None:
    if not script:
        raise Refused(9000, "Populating job script is required")
    environment = wanted.get("environment")
    if not isinstance(environment, list) or not environment:
        raise Refused(2127, "Missing environment")
    if not wanted.get("current_working_directory"):
        raise Refused(2063, "Missing current working directory")
    if wanted.get("partition") not in (None, *cluster.partitions):
        raise Refused(2000, "Invalid partition name specified")
    memory = plain_number(wanted.get("memory_per_node")) or 0
    if memory > cluster.mem_mb or _cpus(wanted) > cluster.queue.cpus or str(wanted.get("nodes", "1")) != "1":
        raise Refused(2014, "Requested node configuration is not available")
    if any("gres/" in str(value) for field, value in wanted.items() if field.startswith("tres_per_")):
        raise Refused(2072, "Invalid generic resource (gres) specification")
    for option in _UNSUPPORTED:
        if wanted.get(option):
            raise Refused(2016, f"The local cluster has no {option}")


def _cpus(wanted: dict[str, Any]) -> int:
    return int(plain_number(wanted.get("cpus_per_task")) or 1) * int(plain_number(wanted.get("tasks")) or 1)


def _account(user: str) -> pwd.struct_passwd:
    """Return the account of `user`; only root can run jobs as another user."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise Refused(2045, "Invalid account or account/partition combination specified") from None
    if os.geteuid() not in (0, account.pw_uid):
        raise Refused(2045, "Invalid account or account/partition combination specified")
    return account
