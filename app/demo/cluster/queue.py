"""The local cluster's queue: first come, first served, on a number of CPUs."""

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
_LONGEST_NAP = 1.0  # seconds; how late a `begin` may be noticed


class LocalQueue:
    """Runs jobs in threads of this process. Thread-safe."""

    def __init__(self, cpus: int, min_job_age: float, minute: float) -> None:
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
        self._spool = Path(tempfile.mkdtemp(prefix="slurm-proxy-local-"))
        self._spool.chmod(0o711)
        self._spawn(self._schedule)

    def stop(self) -> None:
        """Ends all processes and threads; the queue is empty afterwards as far as running goes."""
        with self._changed:
            self._stopping = True
            for job in self._jobs.values():
                job.kill(signal.SIGKILL)
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(10)
        shutil.rmtree(self._spool, ignore_errors=True)

    def add(self, job: LocalJob) -> int:
        """Queues a job; the id that it is given."""
        with self._changed:
            job.job_id = len(self._jobs) + 1
            self._jobs[job.job_id] = job
            self._touch()
            return job.job_id

    def all(self) -> list[LocalJob]:
        """Every job there ever was: what the accounting knows."""
        with self._changed:
            return list(self._jobs.values())

    def recent(self) -> list[LocalJob]:
        """The jobs that the controller still knows."""
        oldest = time.time() - self._min_job_age
        return [job for job in self.all() if not job.end_time or job.end_time > oldest]

    def signal(self, job: LocalJob, number: int) -> bool:
        """Sends a signal to a running job; False for any other."""
        with self._changed:
            if job.state is not JobState.RUNNING:
                return False
            job.kill(number)
            return True

    def cancel(self, job: LocalJob) -> None:
        with self._changed:
            if job.state is JobState.PENDING:
                job.state, job.end_time = JobState.CANCELLED, time.time()
                self._touch()
            elif job.state is JobState.RUNNING:
                self._end(job, JobState.CANCELLED)

    def _touch(self) -> None:
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
                self._changed.wait(_LONGEST_NAP)

    def _startable(self, now: float) -> Iterable[LocalJob]:
        """Pending jobs in their order, until one has to wait for CPUs."""
        free = self.cpus - sum(job.cpus for job in self._jobs.values() if job.state is JobState.RUNNING)
        for job in list(self._jobs.values()):
            if job.state is not JobState.PENDING:
                continue
            job.reason = "JobHeldUser" if job.hold else "BeginTime" if job.begin > now else "None"
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
            self._spawn(self._watch, job)
        self._touch()

    def _watch(self, job: LocalJob) -> None:
        """Waits for a job's end, by itself or by its time limit."""
        limit = job.time_limit * self._minute if job.time_limit else None
        timer = threading.Timer(limit, self._time_out, [job]) if limit else None
        if timer:
            timer.daemon = True
            timer.start()
        job.wait()
        if timer:
            timer.cancel()
        with self._changed:
            job.end_time = time.time()
            job.state, job.reason = (job.ending, "None") if job.ending else _outcome(job)
            job.ending = None
            self._touch()

    def _time_out(self, job: LocalJob) -> None:
        with self._changed:
            if job.state is JobState.RUNNING and job.ending is None:
                self._end(job, JobState.TIMEOUT)

    def _end(self, job: LocalJob, state: JobState) -> None:
        """TERM now, KILL a little later; the job is COMPLETING until its process has ended."""
        job.ending = state
        job.kill(signal.SIGTERM)
        killer = threading.Timer(_KILL_WAIT, self._kill, [job])
        killer.daemon = True
        killer.start()
        self._touch()

    def _kill(self, job: LocalJob) -> None:
        with self._changed:
            if job.ending is not None:
                job.kill(signal.SIGKILL)


def _outcome(job: LocalJob) -> tuple[JobState, str]:
    if os.WIFSIGNALED(job.status):
        return JobState.FAILED, "RaisedSignal"
    return (JobState.FAILED, "NonZeroExitCode") if job.status else (JobState.COMPLETED, "None")
