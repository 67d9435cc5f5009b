"""The queue of the local cluster: first come, first served, on a number of CPUs."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from app.demo.cluster.job import LocalJob
from app.job_state import JobState

logger = logging.getLogger(__name__)

_KILL_WAIT = 2.0  # seconds between TERM and KILL
_REQUEUE_MINUTES = 2  # that a requeued job waits at least, as in Slurm
_MAX_SLEEP = 1.0  # seconds; how late a `begin` may be noticed


class LocalQueue:
    """Queue that runs each job in a thread of this process. Thread-safe."""

    def __init__(self, cpus: int, min_job_age: float, minute: float) -> None:
        """Make an empty queue.

        Args:
            cpus: How many CPUs running jobs may have in all.
            min_job_age: Seconds until the controller forgets a job that has ended.
            minute: Seconds in a minute of a time limit; tests have short minutes.
        """
        self.cpus = cpus
        self.changed_at = time.time()
        self._min_job_age = min_job_age
        self._minute = minute
        self._jobs: dict[int, LocalJob] = {}
        self._changed = threading.Condition(threading.RLock())
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._spool = Path()

    def start(self) -> None:
        """Start the scheduler."""
        self._spool = Path(tempfile.mkdtemp(prefix="slurm-proxy-local-"))
        self._spool.chmod(0o711)
        self._spawn(self._schedule)

    def stop(self) -> None:
        """End all processes and threads; no job runs afterwards."""
        with self._changed:
            self._stopping = True
            for job in self._jobs.values():
                job.kill(signal.SIGKILL)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(10)
        shutil.rmtree(self._spool, ignore_errors=True)

    def add(self, job: LocalJob) -> int:
        """Queue a job, and return its id."""
        with self._changed:
            job.job_id = len(self._jobs) + 1
            self._jobs[job.job_id] = job
            self._note_change()
            return job.job_id

    def all(self) -> list[LocalJob]:
        """Return every job since the start, as accounting has them."""
        with self._changed:
            return list(self._jobs.values())

    def recent(self) -> list[LocalJob]:
        """Return the jobs that the controller still knows."""
        oldest = time.time() - self._min_job_age
        return [job for job in self.all() if not job.end_time or job.end_time > oldest]

    def signal(self, job: LocalJob, number: int) -> bool:
        """Send a signal to a running job; return False for any other job."""
        with self._changed:
            if job.state is not JobState.RUNNING:
                return False
            job.kill(number)
            return True

    def cancel(self, job: LocalJob) -> None:
        """Cancel a job that waits or runs."""
        with self._changed:
            if job.state is JobState.PENDING:
                job.state, job.end_time = JobState.CANCELLED, time.time()
                self._note_change()
            elif job.ending is not None:  # it is requeued, or has come to its time limit
                job.ending = JobState.CANCELLED if job.ending is JobState.PENDING else job.ending
            elif job.state is JobState.RUNNING:
                self._end(job, JobState.CANCELLED)

    def set_hold(self, job: LocalJob, *, hold: bool, by_admin: bool) -> None:
        """Hold or release a job. A job that runs goes on, and is held once it is requeued."""
        with self._changed:
            job.is_held_by_admin = hold and (by_admin or job.is_held_by_admin)
            job.hold = hold
            job.reason = job.hold_reason if hold else "None"
            self._note_change()

    def requeue(self, job: LocalJob) -> bool:
        """Let a job run again that runs or has ended; return False for a job that waits."""
        with self._changed:
            if JobState.PENDING in (job.state, job.ending):
                return False
            if job.state is JobState.RUNNING:
                self._end(job, JobState.PENDING)
            else:
                self._queue_again(job)
            return True

    def _queue_again(self, job: LocalJob) -> None:
        now = time.time()
        job.state, job.reason, job.restarts = JobState.PENDING, "None", job.restarts + 1
        job.submit_time, job.begin = now, now + _REQUEUE_MINUTES * self._minute
        job.start_time = job.end_time = 0.0
        job.status, job.process = 0, None
        self._note_change()

    def _note_change(self) -> None:
        self.changed_at = time.time()
        self._changed.notify_all()

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads = [*(item for item in self._threads if item.is_alive()), thread]
        thread.start()

    def _schedule(self) -> None:
        with self._changed:
            while not self._stopping:
                for job in self._startable(time.time()):
                    self._launch(job)
                self._changed.wait(_MAX_SLEEP)

    def _startable(self, now: float) -> Iterable[LocalJob]:
        """Yield pending jobs in their order, until a job has to wait for CPUs."""
        free = self.cpus - sum(job.cpus for job in self._jobs.values() if job.state is JobState.RUNNING)
        for job in list(self._jobs.values()):
            if job.state is not JobState.PENDING:
                continue
            job.reason = job.hold_reason if job.hold else "BeginTime" if job.begin > now else "None"
            if job.reason != "None":
                continue
            free -= job.cpus
            if free < 0:
                job.reason = "Resources"
                return
            yield job

    def _launch(self, job: LocalJob) -> None:
        job.start_time = time.time()
        try:
            job.launch(self._spool)
        except OSError as error:
            logger.warning("local job %s cannot be started: %s", job.job_id, error)
            job.state, job.reason, job.status = JobState.FAILED, "JobLaunchFailure", 1 << 8
            job.end_time = time.time()
        else:
            job.state = JobState.RUNNING
            self._spawn(self._wait_for_end, job)
        self._note_change()

    def _wait_for_end(self, job: LocalJob) -> None:
        """Wait for the end of a job, by itself or by its time limit."""
        limit = job.time_limit * self._minute if job.time_limit else None
        timer = threading.Timer(limit, self._time_out, [job]) if limit else None
        if timer:
            timer.daemon = True
            timer.start()
        job.wait()
        if timer:
            timer.cancel()
        with self._changed:
            ending, job.ending = job.ending, None
            if ending is JobState.PENDING:
                self._queue_again(job)
                return
            job.end_time = time.time()
            job.state, job.reason = (ending, "None") if ending else _outcome(job)
            self._note_change()

    def _time_out(self, job: LocalJob) -> None:
        with self._changed:
            if job.state is JobState.RUNNING and job.ending is None:
                self._end(job, JobState.TIMEOUT)

    def _end(self, job: LocalJob, state: JobState) -> None:
        """Send TERM now, and KILL a little later; the job is COMPLETING until its process has ended."""
        job.ending = state
        job.kill(signal.SIGTERM)
        killer = threading.Timer(_KILL_WAIT, self._kill, [job])
        killer.daemon = True
        killer.start()
        self._note_change()

    def _kill(self, job: LocalJob) -> None:
        with self._changed:
            if job.ending is not None:
                job.kill(signal.SIGKILL)


def _outcome(job: LocalJob) -> tuple[JobState, str]:
    if os.WIFSIGNALED(job.status):
        return JobState.FAILED, "RaisedSignal"
    return (JobState.FAILED, "NonZeroExitCode") if job.status else (JobState.COMPLETED, "None")
