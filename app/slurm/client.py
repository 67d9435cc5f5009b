"""The client of one Slurm cluster, in types of this project; no other package sees the forms of slurmrestd.

Every method that asks Slurm raises SlurmUnavailable if there is no answer, and SlurmMisbehaved if the answer
cannot be used. A missing answer proves nothing about a job.
"""

import time
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from app.errors import SlurmMisbehaved
from app.job_state import JobState
from app.models.cluster_answers import Partition
from app.models.job import SlurmJob
from app.models.task import Task
from app.slurm.accounting import AccountingReader
from app.slurm.answers import read_controller_time
from app.slurm.cluster_reader import read_partitions
from app.slurm.health_check import SlurmHealth, check_slurm_health
from app.slurm.job_control import JobControl
from app.slurm.job_reader import JobReader
from app.slurm.job_search import JobSearch, Search
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest
from app.slurm.session import Session
from app.slurm.state_list import StateList
from app.slurm.submission import build_submission
from app.slurm.submission_answer import make_submission_error, read_job_id, read_warnings
from app.slurm.tagged_jobs import ReportProgress, TaggedJobReader, TaggedJobs


class SlurmClient:
    """Client of one cluster. Thread-safe.

    Attributes:
        control: Cancels, holds, releases and requeues jobs.
    """

    def __init__(self, session: Session, time_unit: str = "hours", clock_skew: float = 60) -> None:
        """Make a client, which asks nothing before the first call.

        Args:
            session: The session with slurmrestd.
            time_unit: The unit of a task's time limit, "hours" or "minutes".
            clock_skew: Seconds that this machine's clock may run ahead of Slurm's.
        """
        self._session = session
        self._accounting = AccountingReader(session, clock_skew)
        self._reader = JobReader(session, clock_skew)
        self._search = JobSearch(session, self._reader, self._accounting, clock_skew)
        self.control = JobControl(session, clock_skew)
        self._looked_up = StateList(session)
        self._tagged = TaggedJobReader(session, self._reader, self._accounting)
        self._time_unit = time_unit

    @property
    def max_call_seconds(self) -> float:
        """Return the seconds that one call may take at most: the time-outs of the settings."""
        return self._session.max_call_seconds

    @property
    def busy_seconds(self) -> float:
        """Return for how long slurmrestd has been busy with the requests of this client: see BusyTime."""
        return self._session.busy_seconds

    def require_up(self) -> None:
        """Check the circuit breaker, without a request.

        Raises:
            SlurmUnavailable: Slurm is known to be down.
        """
        self._session.require_up()

    @property
    def outage(self) -> str | None:
        """Return why Slurm is known to be down, without a request; None while it is not."""
        return self._session.outage

    def open_circuit(self, reason: str) -> None:
        """Open the circuit breaker because another process has reported an outage, and probe at once."""
        self._session.breaker.open_on_report(reason)

    def watch(self) -> None:
        """Probe Slurm if a probe is due, and ping it while calls wait: see Session.watch."""
        self._session.watch()

    @property
    def token_fault(self) -> str | None:
        """Return why Slurm refused the token of this client's last request; None if it did not."""
        return self._session.token_fault

    def check_health(self) -> SlurmHealth:
        """Find out whether slurmctld and slurmdbd answer: see check_slurm_health."""
        return check_slurm_health(self._session, self._accounting)

    def read_partitions(self) -> list[Partition]:
        """Return the partitions and their free CPUs, with one request each for partitions and nodes."""
        return read_partitions(self._session)

    def discover_dialect(self) -> None:
        """Discover the API version of slurmrestd, unless it is known; a probe begins while Slurm is down."""
        self._session.require_up()
        self._session.dialect()

    def read_controller_time(self, expires: datetime | None = None) -> datetime:
        """Return the time of slurmctld, rounded down to whole seconds.

        Args:
            expires: The end of the token, for a host whose clock is so far behind that its ordinary tokens
                have expired. Such a request is made even while the circuit breaker is open.

        Raises:
            SlurmUnavailable: Slurm does not answer.
            SlurmMisbehaved: The answer of slurmrestd cannot be used.
        """
        reply = self._session.read_diagnostics(expires) if expires else self._session.get("diag")
        return read_controller_time(reply)

    # --- submitting -------------------------------------------------------------------------

    def submit(self, task: Task, command: str, tag: str, expires: datetime) -> tuple[int, list[str]]:
        """Submit a task once, as its user, and return the job id and Slurm's warnings.

        Args:
            task: The task.
            command: The shell text to run.
            tag: The beginning of the job's comment.
            expires: From then on Slurm does not accept the submission, however late it arrives.

        Raises:
            SlurmRefused: Slurm refused the job; there is none.
            SlurmUnavailable: Slurm did not receive the submission; there is no job.
            SlurmMisbehaved: slurmrestd, or a proxy, did not pass the submission on; there is no job.
            RefusalWithoutReason: Slurm answered with an error that has no reason.
            SlurmAmbiguous: There may be a job.
        """
        body = self.build_submission(task, command, tag)
        reply = self._session.send(
            SlurmRequest("POST", "job/submit", user=task.username, body=body, expires=expires)
        )
        if (job_id := read_job_id(reply)) is not None:
            return job_id, read_warnings(reply)
        raise make_submission_error(reply)

    def build_submission(self, task: Task, command: str, tag: str) -> dict[str, Any]:
        """Return the body that `submit` sends, in the dialect of this cluster; the arguments are the same.

        The only request that this may make is the one that discovers the dialect.

        Raises:
            SlurmRefused: The dialect has no field for an option.
        """
        return build_submission(task, command, tag, self._session.dialect(), self._time_unit)

    def search(
        self,
        usernames: Collection[str],
        since: datetime,
        tags: Collection[str],
        timeout: float | None = None,
        until: datetime | None = None,
    ) -> Search:
        """Return the jobs of lost submissions: see JobSearch.search."""
        return self._search.search(usernames, since, tags, timeout, until)

    def read_recent_jobs(self, since: datetime, timeout: float | None = None) -> list[SlurmJob]:
        """Return the jobs in slurmctld that were submitted since then: see JobSearch.read_recent_jobs."""
        return self._search.read_recent_jobs(since, timeout)

    def find_tagged_jobs(self, since: datetime, progress: ReportProgress) -> TaggedJobs:
        """Return the jobs since `since` that carry a tag of this service: see TaggedJobReader.read."""
        return self._tagged.read(since, self.read_controller_time() + timedelta(minutes=1), progress)

    # --- polling ----------------------------------------------------------------------------

    def poll(
        self, known: Mapping[int, JobState], ended_arrays: Collection[int] = ()
    ) -> dict[int, SlurmJob | None]:
        """Return the jobs whose state changed: see JobReader.poll."""
        return self._reader.poll(known, ended_arrays)

    @property
    def unread_jobs(self) -> frozenset[int]:
        """Return the ids of the jobs whose state the last poll did not find out: see JobReader.unread."""
        return self._reader.unread

    def read_jobs(self, job_ids: Collection[int]) -> dict[int, SlurmJob | None]:
        """Return these jobs as slurmctld describes them, without unreadable jobs: see JobReader.read."""
        return self._reader.read(job_ids)

    def read_accounting(
        self,
        job_ids: Collection[int],
        timeout: float | None = None,
        not_before: Mapping[int, datetime] | None = None,
    ) -> dict[int, SlurmJob] | None:
        """Return those of these jobs that slurmdbd knows; None if there is no slurmdbd.

        Args:
            job_ids: The ids of the jobs.
            timeout: Seconds for each request, instead of the configured time.
            not_before: By job id, the time before which the job cannot have been submitted.

        Raises:
            SlurmUnavailable: slurmdbd does not answer, which proves nothing.
        """
        return self._accounting.read_jobs(job_ids, timeout, not_before or {})

    def read_job(self, job_id: int) -> SlurmJob | None:
        """Return one job as slurmctld describes it; None for a job that slurmctld does not know."""
        found = self._reader.single.read_one(job_id)
        if job_id not in found:
            raise SlurmMisbehaved(f"slurmctld's answer about job {job_id} cannot be read")
        return found[job_id]

    def find_job(self, job_id: int) -> SlurmJob | None:
        """Return one job from slurmctld, or from slurmdbd if slurmctld no longer knows the job."""
        began = time.monotonic()
        job = self.read_job(job_id)
        left = self.max_call_seconds - (time.monotonic() - began)
        return job or (self.read_accounting([job_id], max(left, 1)) or {}).get(job_id)

    def offers_states(self) -> bool:
        """Return whether slurmrestd offers a list of states (24.05 and newer)."""
        return self._looked_up.is_offered()

    def read_states(self, job_ids: Collection[int]) -> dict[int, JobState | None] | None:
        """Return the states of jobs in slurmctld's list; None if slurmrestd has no such list.

        A job of which the list does not tell the state has None: an array, a job that slurmctld does not
        know, or an unreadable one. A job whose request failed is left out. Not thread-safe.
        """
        read = self._looked_up.read(job_ids)
        if read is None:
            return None
        return {job_id: None if read.own_tasks[job_id] else read.states.get(job_id) for job_id in read.asked}

    # --- diagnostics ------------------------------------------------------------------------

    def send_raw(self, method: str, path: str, *, user: str = "", json: object = None) -> Reply:
        """Return slurmrestd's own answer to a request, for operators: see Session.send."""
        return self._session.send(SlurmRequest(method, path, user=user, body=json))

    def send_raw_list(self, update_time: int) -> Reply:
        """Return slurmrestd's own list of all jobs, which is only sent if a job changed since then."""
        return self._session.get("jobs", self._reader.list.since(update_time))

    def close(self) -> None:
        """Close all connections to slurmrestd."""
        self._session.close()
