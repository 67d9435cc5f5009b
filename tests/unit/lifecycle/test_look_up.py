"""Look up a record and the facts of its job."""

from datetime import datetime

import pytest

from app.errors import (
    InvalidRequest,
    SlurmUnavailable,
    UnknownJob,
    UnknownTask,
)
from app.job_state import JobState
from app.models.caller import OPERATOR
from app.models.record import utc_now
from tests.support.answers import body_of
from tests.support.lifecycle import Service
from tests.support.tasks import make_email, make_task


def test_a_look_up_returns_the_record_and_what_slurm_reports_now(service: Service) -> None:
    task, job_id = service.submit()
    service.slurm.put(job_id, JobState.RUNNING, nodes="n1")
    answer = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))
    assert answer == body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))
    assert answer["slurm"]["job_state"] == "RUNNING"
    assert answer["slurm"]["nodes"] == "n1"
    assert answer["monitor"]["slurm_job_state"] == "PENDING"
    assert answer["monitor"]["task"] == task


def test_many_simultaneous_look_ups_cost_slurm_one_request(service: Service) -> None:
    task, _ = service.submit()
    for _ in range(50):
        service.lookup.find_by_uuid(OPERATOR, task["uuid"])
    assert service.slurm.calls.count("find_job") == 1


def test_a_job_that_ended_is_not_asked_for_again(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.FAILED, exit_code=3)
    service.slurm.forget(job_id)
    answer = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))
    assert (answer["slurm"]["job_state"], answer["slurm"]["exit_code"]) == ("FAILED", 3)
    assert "find_job" not in service.slurm.calls


def test_while_slurm_is_down_the_last_known_facts_are_marked(service: Service) -> None:
    task, _ = service.submit()
    service.slurm.down = SlurmUnavailable("slurmctld is down")
    slurm = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["slurm"]
    assert (slurm["job_state"], slurm["stale"], slurm["error"]) == ("PENDING", True, "slurmctld is down")


def test_another_job_of_the_same_id_is_not_shown(service: Service) -> None:
    task, job_id = service.submit()
    service.slurm.jobs[job_id] = service.slurm.jobs[job_id].model_copy(
        update={"username": "bob", "name": "secret"}
    )
    slurm = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["slurm"]
    assert (slurm["job_state"], slurm["username"]) == ("UNKNOWN", "alice")
    assert "name" not in slurm


def test_an_unknown_uuid_or_job_id_raises_an_error(service: Service) -> None:
    with pytest.raises(UnknownTask):
        service.lookup.find_by_uuid(OPERATOR, "none")
    with pytest.raises(UnknownJob):
        service.lookup.find_by_job_id(OPERATOR, "4")


@pytest.mark.parametrize("text", ["abc", "-1", "0", "1.5", "4294967296", "9" * 5000, "٣", "1e3", "+1", " 1"])
def test_a_text_that_is_no_job_id_raises_invalid_request(service: Service, text: str) -> None:
    with pytest.raises(InvalidRequest, match="slurm_job_id"):
        service.lookup.find_by_job_id(OPERATOR, text)


def test_a_registered_job_has_slurms_own_files_although_its_task_is_a_whole_one(service: Service) -> None:
    service.slurm.put(5, JobState.RUNNING, standard_output="/their/own", standard_error="/their/error")
    task = make_task(notification=make_email(body="see ${output} and ${error_output}"))
    service.registration.register(OPERATOR, {"monitor": {"task": task, "slurm_job_id": 5}})
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, "5"))["slurm"]
    assert (slurm["standard_output"], slurm["standard_error"]) == ("/their/own", "/their/error")
    service.move(5, JobState.COMPLETED, start_time=utc_now(), end_time=utc_now())
    service.deliver()
    (message,) = [message for message in service.email.messages if message.event == "end"]
    assert message.content.words == "see /their/own and /their/error"


def test_a_submitted_jobs_files_are_those_of_its_task(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.FAILED, standard_output="/dev/null", exit_code=3, start_time=utc_now())
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]
    assert slurm["standard_output"] == task["dirs"]["output"] + "/out.txt"
    assert slurm["standard_error"] == task["dirs"]["error"] + "/err.txt"


def test_a_failed_job_has_the_hint_of_its_message(service: Service) -> None:
    task, job_id = service.submit(notification=make_email())
    service.slurm.put(job_id, JobState.FAILED, exit_code=127, start_time=utc_now())
    live = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["slurm"]
    service.refresh(utc_now())
    service.deliver()
    (message,) = service.email.messages
    stored = body_of(service.lookup.find_by_uuid(OPERATOR, task["uuid"]))["slurm"]
    assert stored["hint"] == live["hint"] == message.content.hint
    assert "127" in stored["hint"]


def test_a_job_that_did_not_fail_has_no_hint(service: Service) -> None:
    for state in (JobState.RUNNING, JobState.COMPLETED):
        _, job_id = service.submit()
        service.move(job_id, state, memory_mb=4096, max_memory_bytes=2**20, start_time=utc_now())
        assert "hint" not in body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]


def test_facts_say_when_slurm_said_them(service: Service) -> None:
    def as_of(job_id: int) -> datetime:
        return datetime.fromisoformat(
            body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]["as_of"]
        )

    before = utc_now()
    task, job_id = service.submit()
    asked = as_of(job_id)
    assert before <= asked <= utc_now()
    service.move(job_id, JobState.COMPLETED, start_time=utc_now())
    assert as_of(job_id) == service.record(task).updated_at


def test_stale_facts_say_when_slurm_said_them(service: Service) -> None:
    task, job_id = service.submit()
    service.move(job_id, JobState.RUNNING)
    service.slurm.down = SlurmUnavailable("away")
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, str(job_id)))["slurm"]
    assert slurm["stale"]
    assert datetime.fromisoformat(slurm["as_of"]) == service.record(task).updated_at


def test_the_files_of_a_registered_array_are_kept_where_slurmdbd_does_not_know_them(service: Service) -> None:
    """As on 22.05."""
    service.slurm.put(5, JobState.RUNNING, standard_output="/their/", array_tasks={JobState.RUNNING: 1})
    task = {"uuid": "registered", "username": "alice"}
    service.registration.register(OPERATOR, {"monitor": {"task": task, "slurm_job_id": 5}})
    ended = service.slurm.put(
        5, JobState.COMPLETED, start_time=utc_now(), array_tasks={JobState.COMPLETED: 1}
    )
    more = {"standard_output": None, "array_tasks": {JobState.COMPLETED: 3}}
    service.slurm.ended[5] = ended.model_copy(update=more)
    service.refresh(utc_now())
    slurm = body_of(service.lookup.find_by_job_id(OPERATOR, "5"))["slurm"]
    assert (slurm["job_state"], slurm["standard_output"]) == ("COMPLETED", "/their/")
