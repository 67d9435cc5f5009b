"""What Slurm's answers to requests that change jobs mean."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.errors import NotSupported, SlurmAmbiguous, SlurmRefused, SlurmUnavailable
from app.models.job_action import JobAction
from app.slurm.dialect import Dialect
from app.slurm.job_control import JobControl, JobOutcome
from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest

DENIED = {"error_number": 2002, "error": "Access/permission denied"}
NOT_THE_OWNER = {"error_number": 2010, "error": "Invalid user id"}
FINISHED = {"error_number": 2084, "error": "Job has already finished"}
UNKNOWN = {"error_number": 2017, "error": "Invalid job id specified"}
PENDING = {"error_number": 2024, "error": "Job is pending execution"}
DISABLED = {"error_number": 2037, "error": "Requested operation is presently disabled"}


class OneAnswer:
    """A session that always gets the same answer, and keeps the requests."""

    max_call_seconds = 36.0

    def abort_reads(self) -> None:
        pass

    def __init__(self, api: str, status: int = 200, body: dict[str, Any] | None = None) -> None:
        self._dialect = Dialect(api)
        self._reply = Reply(status, {"errors": []} if body is None else body, "")
        self.requests: list[SlurmRequest] = []

    def dialect(self) -> Dialect:
        return self._dialect

    def send(self, request: SlurmRequest) -> Reply:
        self.requests.append(request)
        return self._reply


class NoAnswer(OneAnswer):
    """A session in which every answer is lost."""

    def send(self, request: SlurmRequest) -> Reply:
        raise SlurmAmbiguous("slurmrestd did not answer in time or broke off")


def control_of(session: Any) -> JobControl:
    return JobControl(session, 60)


def outcome(action: JobAction, status: int, body: dict[str, Any] | None, api: str = "v0.0.45") -> JobOutcome:
    control = control_of(OneAnswer(api, status, body))
    result: JobOutcome = getattr(control, action)(5, "alice")
    return result


def kill_error(step_id: str, code: int) -> dict[str, Any]:
    return {"step_id": step_id, "error": {"code": code, "string": "says Slurm"}}


@pytest.mark.parametrize(
    ("action", "error", "expected"),
    [
        ("hold", UNKNOWN, JobOutcome.UNKNOWN_JOB),
        ("hold", FINISHED, JobOutcome.ENDED),
        ("release", UNKNOWN, JobOutcome.UNKNOWN_JOB),
        ("release", FINISHED, JobOutcome.ENDED),
        ("release", DENIED, JobOutcome.DENIED),
        ("requeue", UNKNOWN, JobOutcome.UNKNOWN_JOB),
        ("requeue", PENDING, JobOutcome.PENDING),
        ("requeue", DISABLED, JobOutcome.DISABLED),
        ("cancel", UNKNOWN, JobOutcome.UNKNOWN_JOB),
    ],
)
@pytest.mark.parametrize("status", [404, 422, 500])
def test_an_error_that_has_a_meaning_is_an_outcome(
    action: str, error: dict[str, Any], expected: JobOutcome, status: int
) -> None:
    assert outcome(JobAction(action), status, {"errors": [error]}) is expected


@pytest.mark.parametrize(
    ("action", "error"),
    [("hold", NOT_THE_OWNER), ("release", NOT_THE_OWNER), ("requeue", DENIED), ("hold", DENIED)],
)
@pytest.mark.parametrize("status", [422, 500])
def test_any_other_refusal_has_the_text_of_slurm(action: str, error: dict[str, Any], status: int) -> None:
    with pytest.raises(SlurmRefused, match=f"Slurm does not {action} job 5: {error['error']}"):
        outcome(JobAction(action), status, {"errors": [error]})


@pytest.mark.parametrize("action", JobAction)
def test_a_success_is_an_outcome(action: JobAction) -> None:
    assert outcome(action, 200, None) is JobOutcome.DONE


@pytest.mark.parametrize("action", JobAction)
def test_a_lost_answer_may_be_repeated(action: JobAction) -> None:
    change = getattr(control_of(NoAnswer("v0.0.45")), action)
    words = f"it is unknown whether Slurm has {action.participle} job 5; repeating the request does no harm"
    with pytest.raises(SlurmUnavailable, match=words):
        change(5, "alice")


def test_a_lost_answer_to_a_cancellation_of_several_jobs_may_be_repeated() -> None:
    with pytest.raises(
        SlurmUnavailable, match="it is unknown whether Slurm has cancelled these 2 jobs; repeating"
    ):
        control_of(NoAnswer("v0.0.45")).cancel_many([5, 6], "alice")


@pytest.mark.parametrize("action", ["hold", "release", "requeue"])
def test_a_request_that_is_late_has_no_effect(action: str) -> None:
    session = OneAnswer("v0.0.45")
    getattr(control_of(session), action)(5, "alice")
    (request,) = session.requests
    assert request.user == "alice"
    assert request.expires is not None
    left = request.expires - datetime.now(UTC)
    assert timedelta(seconds=90) < left <= timedelta(seconds=96)


@pytest.mark.parametrize("action", ["hold", "release"])
def test_22_05_reports_an_error_without_a_number_for_an_array_that_it_changed(action: str) -> None:
    body = {"errors": [{"description": "job array update from [localhost]:57330 failed"}]}
    assert outcome(JobAction(action), 200, body, "v0.0.38") is JobOutcome.UNREPORTED


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([0, 2024], JobOutcome.DONE),
        ([2024, 2024], JobOutcome.PENDING),
        ([2037], JobOutcome.DISABLED),
    ],
)
def test_an_array_is_requeued_if_one_of_its_tasks_is(parts: list[int], expected: JobOutcome) -> None:
    items = [{"job_id": 5, "step_id": f"5_{n}", "error_code": code} for n, code in enumerate(parts)]
    assert outcome(JobAction.REQUEUE, 200, {"status": [items], "errors": []}) is expected


@pytest.mark.parametrize("api", ["v0.0.38", "v0.0.40", "v0.0.41"])
def test_a_version_that_reports_no_ended_job_says_nothing(api: str) -> None:
    assert outcome(JobAction.CANCEL, 200, None, api) is JobOutcome.UNREPORTED


def test_the_ended_tasks_of_an_array_do_not_tell_whether_others_were_cancelled() -> None:
    ended = [kill_error("5_0", 2021), kill_error("5_1", 2021)]
    assert outcome(JobAction.CANCEL, 200, {"status": ended}) is JobOutcome.UNREPORTED
    assert outcome(JobAction.CANCEL, 200, {"status": [kill_error("5", 2021)]}) is JobOutcome.ENDED


def test_an_error_with_code_0_is_none() -> None:
    assert outcome(JobAction.CANCEL, 200, {"status": [kill_error("5", 0)]}) is JobOutcome.DONE


def test_each_of_several_jobs_has_an_outcome_of_its_own() -> None:
    status = [
        kill_error("6", 2021),
        kill_error("7", 2017),
        kill_error("8", 2002),
        kill_error("9_1", 2021),
        kill_error("55", 2021),
    ]
    session = OneAnswer("v0.0.42", 200, {"status": status, "errors": []})
    outcomes = control_of(session).cancel_many([5, 6, 7, 8, 9], "alice", timeout=3)
    refused = outcomes.pop(8)
    assert isinstance(refused, SlurmRefused)
    assert str(refused) == "Slurm does not cancel job 8: says Slurm"
    assert outcomes == {
        5: JobOutcome.DONE,
        6: JobOutcome.ENDED,
        7: JobOutcome.UNKNOWN_JOB,
        9: JobOutcome.UNREPORTED,
    }
    (request,) = session.requests
    assert (request.method, request.path, request.user) == ("DELETE", "jobs/", "alice")
    assert (request.body, request.timeout) == ({"jobs": ["5", "6", "7", "8", "9"]}, 3)


def test_a_list_of_jobs_that_is_refused_as_a_whole_raises() -> None:
    error = {"error_number": 2137, "error": "JobID can not be zero"}
    with pytest.raises(SlurmRefused, match="JobID can not be zero"):
        control_of(OneAnswer("v0.0.45", 422, {"errors": [error]})).cancel_many([5], "alice")


@pytest.mark.parametrize("api", ["v0.0.38", "v0.0.40"])
def test_an_older_version_cannot_cancel_several_jobs_at_once(api: str) -> None:
    session = OneAnswer(api)
    with pytest.raises(NotSupported):
        control_of(session).cancel_many([5], "alice")
    assert session.requests == []
