"""Tasks to send in tests."""

import itertools
import uuid
from typing import Any

_counter = itertools.count(1)


def new_uuid() -> str:
    return str(uuid.uuid4())


def make_task(username: str = "alice", folder: str | None = None, **fields: Any) -> dict[str, Any]:
    """Return a valid hello-world task; `fields` replace its own, and None leaves one out."""
    folder = folder or f"/home/{username}/slurm-proxy-tests/{next(_counter)}"
    task: dict[str, Any] = {
        "uuid": new_uuid(),
        "username": username,
        "cwd": f"/home/{username}",
        "name": "generic",
        "cmd": "echo",
        "params": ["-e", '"hello, world! (sent job $SLURM_JOB_ID to $SLURM_JOB_USER at `date`)"'],
        "dirs": {
            "parent": folder,
            "input": f"{folder}/input",
            "output": f"{folder}/output",
            "error": f"{folder}/error",
        },
        "slurm": {
            "job_name": "slurm-proxy-test.generic",
            "time": 1,
            "nodes": 1,
            "ntasks_per_node": 1,
            "cpus_per_task": 1,
            "mem": 100,
            "output": "out.txt",
            "error": "err.txt",
        },
        **fields,
    }
    return {key: value for key, value in task.items() if value is not None}


def make_email(**fields: Any) -> dict[str, Any]:
    """A notification request for one e-mail."""
    params = {
        "sender": "cluster@example.com",
        "recipient": "someone@example.com",
        "subject": "the test job has ended",
        "body": "hello from the caller",
        **fields,
    }
    return {"methods": ["email"], "params": {"email": params}}
