"""Every option of `task.slurm` with a value, and the option of sbatch that means the same.

A new option needs a `Case` here.
"""

import time
from dataclasses import dataclass
from typing import Any

TOMORROW = int(time.time()) // 60 * 60 + 86400


@dataclass(frozen=True)
class Case:
    """A value of an option, the same option of sbatch, and what `scontrol show job` then shows.

    `shown`: beginnings, one of which a field has. None where scontrol shows nothing of it, or where the job
    is refused for this value. `is_structured_only`: v0.0.38 cannot express it, so that the task is refused.
    """

    option: str
    value: Any
    sbatch: str
    shown: str | None = None
    beside: dict[str, Any] | None = None  # further options that this one needs
    is_structured_only: bool = False

    @property
    def slurm(self) -> dict[str, Any]:
        return {self.option: self.value} | (self.beside or {})


ON_ANY_CLUSTER = [
    Case("account", "no-such-account", "--account=no-such-account"),
    Case("array", "1-5:2%2", "--array=1-5:2%2", "ArrayTaskId=1"),
    Case("begin", TOMORROW, f"--begin=$(date -d @{TOMORROW} +%FT%T)", "EligibleTime="),
    Case("comment", "mine", '--comment="$tag mine"', "Comment=tag mine"),
    Case("constraint", "no-such-feature", "--constraint=no-such-feature"),
    Case("cpus_per_task", 2, "--cpus-per-task=2", "CPUs/Task=2"),
    Case("deadline", TOMORROW, f"--deadline=$(date -d @{TOMORROW} +%FT%T)", "Deadline="),
    Case("dependency", "singleton", "--dependency=singleton", "Dependency=singleton"),
    Case("exclude", "no-such-node", "--exclude=no-such-node"),
    Case("exclusive", True, "--exclusive", "OverSubscribe=NO"),
    Case("exclusive", "user", "--exclusive=user", "OverSubscribe=USER|Exclusive=USER"),
    Case("gpus", "none-of-this:1", "--gpus=none-of-this:1"),
    Case("gpus_per_node", "none-of-this:1", "--gpus-per-node=none-of-this:1"),
    Case("gpus_per_task", "none-of-this:1", "--gpus-per-task=none-of-this:1 --ntasks=1", None, {"ntasks": 1}),
    Case("gres", "none-of-this:1", "--gres=none-of-this:1"),
    Case("gres", "none", "--gres=none"),
    Case("hold", True, "--hold", "Reason=JobHeldUser"),
    Case("job_name", "a name", "--job-name='a name'", "JobName=a name"),
    Case("licenses", "no-such-license:1", "--licenses=no-such-license:1"),
    Case("mem", 30, "--mem=30", "MinMemoryNode=30M"),
    Case("mem", 0, "--mem=0", "MinMemoryNode=0"),
    Case("mem", "1G", "--mem=1G", "MinMemoryNode=1G"),
    Case("mem", "30000k", "--mem=30000k", "MinMemoryNode=30M"),
    Case("mem_per_cpu", 30, "--mem-per-cpu=30", "MinMemoryCPU=30M"),
    Case("mem_per_cpu", 0, "--mem-per-cpu=0", "MinMemoryNode=0"),
    Case("mem_per_cpu", "20MB", "--mem-per-cpu=20MB", "MinMemoryCPU=20M"),
    Case("nice", 50, "--nice=50", "Nice=50"),
    Case("nodelist", "NODE", "--nodelist=NODE", "ReqNodeList=NODE"),
    Case("nodes", 1, "--nodes=1", "NumNodes=1"),
    Case("ntasks", 2, "--ntasks=2", "NumTasks=2"),
    Case("ntasks_per_node", 2, "--ntasks-per-node=2", "NtasksPerN:B:S:C=2:0:*:"),
    Case("partition", "hpcz-test", "--partition=hpcz-test", "Partition=hpcz-test"),
    Case("prefer", "no-such-feature", "--prefer=no-such-feature"),
    Case("qos", "no-such-qos", "--qos=no-such-qos"),
    Case("requeue", False, "--no-requeue", "Requeue=0"),
    Case("requeue", True, "--requeue", "Requeue=1"),
    Case("reservation", "no-such-reservation", "--reservation=no-such-reservation"),
    Case("switches", 1, "--switches=1", "Switches=1@00:05:00", is_structured_only=True),
    Case("switches", "1@2", "--switches=1@2", "Switches=1@00:02:00", is_structured_only=True),
    Case("switches", "2@0:00:30", "--switches=2@0:00:30", "Switches=2@00:00:30", is_structured_only=True),
    Case("threads_per_core", 1, "--threads-per-core=1", "ReqB:S:C:T=0:0:*:1"),
    Case("time", 2, "--time=2:00:00", "TimeLimit=02:00:00"),
    Case("time", 0, "--time=0", "TimeLimit=UNLIMITED"),
    Case("time", "1-02:30:00", "--time=1-02:30:00", "TimeLimit=1-02:30:00"),
    Case("time", "90:30", "--time=90:30", "TimeLimit=01:31:00"),
    Case("time", "1-2", "--time=1-2", "TimeLimit=1-02:00:00"),
    Case("time", "UNLIMITED", "--time=UNLIMITED", "TimeLimit=UNLIMITED"),
    Case("time_min", "0:30", "--time-min=0:30", "TimeMin=00:01:00"),
    Case("time_min", 3, "--time-min=3", "TimeMin=00:03:00"),
    Case("time_minutes", 7, "--time=7", "TimeLimit=00:07:00"),
    Case("time_minutes", 0, "--time=0", "TimeLimit=UNLIMITED"),
    Case("time_minutes", "90", "--time=90", "TimeLimit=01:30:00"),
    Case("wckey", "mykey", "--wckey=mykey"),
]
# What only the tests' own cluster has: see its slurm.conf.
ON_OUR_CLUSTER = [
    Case("account", "users", "--account=users", "Account=users"),
    Case("constraint", "fast&slow", "--constraint='fast&slow'", "Features=fast&slow"),
    Case("gpus", 2, "--gpus=2", "TresPerJob=gres:gpu:2"),
    Case("gpus_per_node", 1, "--gpus-per-node=1", "TresPerNode=gres:gpu:1"),
    Case("gpus_per_task", 1, "--gpus-per-task=1 --ntasks=1", "TresPerTask=gres:gpu:1", {"ntasks": 1}),
    Case("gres", "gpu:1", "--gres=gpu:1", "TresPerNode=gres:gpu:1"),
    Case("licenses", "x:1", "--licenses=x:1", "Licenses=x:1"),
    Case("prefer", "fast", "--prefer=fast", "Prefer=fast"),
    Case("qos", "normal", "--qos=normal", "QOS=normal"),
    Case("reservation", "later", "--reservation=later", "Reservation=later"),
    Case("wckey", "mykey", "--wckey=mykey", "WCKey=mykey"),
]
STRUCTURED_ONLY = {case.option for case in ON_ANY_CLUSTER if case.is_structured_only}
# Not in what scontrol shows: each has a test of its own.
READ_BACK_ELSEWHERE = {"environment", "error", "open_mode", "output"}
# What each job has whose environment is compared with that of a job of sbatch, and what further ones have.
FOR_AN_ENVIRONMENT: dict[str, Any] = {"job_name": "environment", "mem": 20, "time_minutes": 5}
_MANY = {"ntasks_per_node": 2, "nodes": 1, "cpus_per_task": 1, "threads_per_core": 1, "nice": 3, "wckey": "w"}
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "no further options": {},
    "many": {**_MANY, "exclusive": True, "requeue": True, "time_min": 2, "open_mode": "append"},
    "cpus": {"ntasks": 1, "cpus_per_task": 2},
    "array": {"array": "3"},
    "gpus": {"gpus": 1},
    "gpus per node": {"gpus_per_node": 1},
    "gpus per task": {"gpus_per_task": 1, "ntasks": 1},
}
# Of these options no environment is compared.
WITHOUT_ENVIRONMENT = {
    "begin": "the job would not run at once",
    "environment": "the caller's own variables",
    "error": "names a file, which the job's script may open",
    "exclude": "a cluster of one node has no value with which a job runs",
    "hold": "the job would not run at once",
    "output": "names a file, which the job's script may open",
    "reservation": "the job would not run at once",
}


def other_options_for_an_environment(is_ours: bool, is_structured: bool) -> list[Case]:
    """Return a case of each option that is in none of ENVIRONMENTS; one job can have all of them together."""
    named = {*FOR_AN_ENVIRONMENT, *(option for options in ENVIRONMENTS.values() for option in options)}
    cases = {
        case.option: case
        for case in reversed(ON_ANY_CLUSTER + (ON_OUR_CLUSTER if is_ours else []))
        if case.option not in named | WITHOUT_ENVIRONMENT.keys()
        if case.shown and (is_structured or not case.is_structured_only)
    }
    return list(cases.values())


# A value of each option.
EXAMPLES: dict[str, Any] = {"environment": "A=b", "error": "e", "open_mode": "append", "output": "o"} | {
    case.option: case.value for case in [*ON_ANY_CLUSTER, *ON_OUR_CLUSTER]
}
