"""The cluster of a benchmark, which is a real one or the stand-in, and a caller of slurmrestd itself."""

import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.models.record import JOB_TAG
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.tokens import TokenMint
from benchmarks.http_connection import HttpAnswer, HttpConnection, encode_request
from benchmarks.stand_in import USER, StandIn
from tests.support.tasks import new_uuid

_TOKEN_SECONDS = 3600
MakeConnection = Callable[[str], HttpConnection]


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs, and the ids of the jobs that are cancelled at the end.

    Attributes:
        url: The address of slurmrestd.
        key_path: The file of the key of its tokens.
        api: The version of its API.
        release: The release of Slurm, or what replaces it.
        is_stand_in: Whether it is the stand-in.
        job_ids: The jobs of this benchmark.
    """

    url: str
    key_path: Path
    api: str
    release: str
    is_stand_in: bool = False
    job_ids: list[int] = field(default_factory=list)

    def behind(self, url: str) -> "Cluster":
        """Return the same cluster by way of another address."""
        return replace(self, url=url)


class RawSlurm:
    """A caller that uses slurmrestd directly, on one kept connection. For one thread."""

    def __init__(self, cluster: Cluster, make_connection: MakeConnection = HttpConnection) -> None:
        """Make the token, which lasts for the whole benchmark."""
        self._cluster = cluster
        self._dialect = Dialect(cluster.api)
        self._headers = TokenMint(cluster.key_path.read_bytes(), _TOKEN_SECONDS).make_headers(USER)
        self._connection = make_connection(cluster.url)

    def request(self, method: str, path: str, body: object = None) -> HttpAnswer:
        """Send a request to slurmctld; the path is relative to /slurm/<version>/."""
        return self._connection.request(method, f"/slurm/{self._cluster.api}/{path}", self._headers, body)

    def encode(self, method: str, path: str) -> bytes:
        """Return the same request as it is sent."""
        return encode_request(method, f"/slurm/{self._cluster.api}/{path}", self._headers)

    def submit(self, comment: str = "") -> int:
        """Submit a held job, and return its id.

        Raises:
            RuntimeError: Slurm refuses the job.
        """
        is_structured = self._dialect.is_structured
        job: dict[str, Any] = {
            "name": "benchmark",
            "current_working_directory": "/tmp",
            "environment": ["PATH=/bin"] if is_structured else {"PATH": "/bin"},
            "hold": True if is_structured else "true",
            "memory_per_node": {"set": True, "number": 10} if is_structured else 10,
            "comment": comment,
        }
        answer = self.request("POST", "job/submit", {"script": "#!/bin/bash\ntrue\n", "job": job})
        if not (job_id := answer.json().get("job_id")):
            raise RuntimeError(f"slurmrestd refused a job: {answer.content[:500]!r}")
        self._cluster.job_ids.append(job_id)
        return int(job_id)

    def look_up(self, job_id: int) -> None:
        """Get one job.

        Raises:
            RuntimeError: There is no such job.
        """
        if (answer := self.request("GET", f"job/{job_id}")).status != 200:
            raise RuntimeError(f"slurmrestd does not show job {job_id}: {answer.content[:500]!r}")

    def read_states(self, job_ids: Sequence[int], per_request: int = 400) -> None:
        """Read the states of jobs in the cheapest way that slurmrestd has: a list of states in chunks."""
        for first in range(0, len(job_ids), per_request):
            chunk = job_ids[first : first + per_request]
            self.request("GET", "jobs/state?" + "&".join(f"job_id={job_id}" for job_id in chunk))

    def cancel(self, job_ids: Sequence[int]) -> None:
        """Cancel jobs, a thousand with one request where the release offers that."""
        for first in range(0, len(job_ids), 1000):
            chunk = [str(job_id) for job_id in job_ids[first : first + 1000]]
            if self.request("DELETE", "jobs/", {"jobs": chunk}).status != 200:
                for job_id in chunk:
                    self.request("DELETE", f"job/{job_id}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def submit_jobs(cluster: Cluster, number: int) -> list[tuple[str, int]]:
    """Submit held jobs with the tags of tasks, and return uuid and id of each."""
    slurm = RawSlurm(cluster)
    uuids = [new_uuid() for _ in range(number)]
    return [(uuid, slurm.submit(JOB_TAG + uuid)) for uuid in uuids]


@contextmanager
def open_cluster(*, use_stand_in: bool, jobs: int = 0, array_tasks: int = 0) -> Iterator[Cluster]:
    """Yield the cluster of TEST_SLURM_URL, or a stand-in; cancel the jobs of the benchmark at the end.

    Args:
        use_stand_in: Whether to start a stand-in. Without TEST_SLURM_URL there is one in any case.
        jobs: How many jobs the stand-in has from the start.
        array_tasks: How many tasks each of these jobs has, if they are arrays.
    """
    url, key_path = os.environ.get("TEST_SLURM_URL"), os.environ.get("TEST_SLURM_KEY_PATH")
    if use_stand_in or not url or not key_path:
        with tempfile.TemporaryDirectory() as folder, StandIn(jobs, array_tasks) as stand_in:
            path = Path(folder) / "key"
            path.write_bytes(secrets.token_bytes(32))
            yield replace(_describe(stand_in.url, path), release="stand-in", is_stand_in=True)
        return
    cluster = _describe(url, Path(key_path))
    try:
        yield cluster
    finally:
        slurm = RawSlurm(cluster)
        slurm.cancel(cluster.job_ids)
        slurm.close()


def _describe(url: str, key_path: Path) -> Cluster:
    """Return the cluster at an address, with the newest version of the API that slurm-proxy knows.

    Raises:
        RuntimeError: The server offers no such version.
    """
    for api in SUPPORTED_API_VERSIONS:
        cluster = Cluster(url, key_path, api, "")
        answer = RawSlurm(cluster).request("GET", "ping")
        if answer.status != 404:
            meta = {name.lower(): part for name, part in answer.json().get("meta", {}).items()}
            return replace(
                cluster, release=str(meta.get("slurm", {}).get("release", "of an unknown release"))
            )
    raise RuntimeError(f"{url} offers no API version that slurm-proxy supports")
