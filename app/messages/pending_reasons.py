"""Reasons for which Slurm never starts a waiting job, unless the job or a limit is changed."""

import re

from app.models.job import SlurmJob

_JOB_LIMITS = r"(QOS|Assoc)Max\w+Per(Job|Node)\w*|QOSMin\w+|(QOS|Association)TimeLimit|MaxMemPerLimit"
# Limits of a user, a group or an account are not among them: such a job may start when others have ended.
_NEVER_STARTS = re.compile(
    rf"Partition(Config|NodeLimit|TimeLimit)|{_JOB_LIMITS}|BadConstraints|DependencyNeverSatisfied"
    r"|Invalid(Account|QOS)|(Account|QOS)NotAllowed"
)
_EXPLANATIONS = (
    ("DependencyNeverSatisfied", "a job that it depends on did not end as required"),
    ("BadConstraints", "no node has the resources that it requests"),
    ("Account|QOS$|NotAllowed", "its account or QOS is not allowed"),
    ("Time|Wall|Minutes", "the limits do not allow its time limit"),
    ("Mem", "the limits do not allow its memory"),
    ("Cpu", "the limits do not allow its number of CPUs"),
    ("Node", "the limits do not allow its number of nodes"),
)
_DEFAULT_EXPLANATION = "the limits do not allow its request"


def can_never_start(job: SlurmJob) -> bool:
    """Return whether Slurm names a reason for which the waiting job never starts."""
    return job.job_state.is_waiting and _NEVER_STARTS.fullmatch(job.reason or "") is not None


def explain_never_started(job: SlurmJob) -> str | None:
    """Return a sentence about why Slurm never starts the job; None if the job may start."""
    if not can_never_start(job):
        return None
    reason = job.reason or ""
    why = next(
        (words for pattern, words in _EXPLANATIONS if re.search(pattern, reason)), _DEFAULT_EXPLANATION
    )
    return f"Slurm will not start the job as it is: {why} ({reason})."
