"""When a record has begun, ended or changed for a request that waits."""

import pytest

from app.job_state import JobState
from app.models.record_state import RecordState, WaitCondition
from tests.support.stores import make_record

RESERVED = RecordState.of(make_record())
FAILED = RecordState.of(make_record(submission_error="refused"))
WAITING = {
    JobState.PENDING,
    JobState.CONFIGURING,
    JobState.REQUEUED,
    JobState.REQUEUE_FED,
    JobState.REQUEUE_HOLD,
    JobState.RESV_DEL_HOLD,
    JobState.SPECIAL_EXIT,
}


def state_of(state: JobState) -> RecordState:
    return RecordState.of(make_record(slurm_job_id=7, slurm_job_state=state))


def met(condition: WaitCondition, *present: RecordState) -> bool:
    """Whether the condition is met by these states; at the beginning all jobs were in the queue."""
    known = {str(number): state_of(JobState.PENDING) for number in range(len(present))}
    return condition.is_met(known, dict(zip(known, present, strict=True)))


@pytest.mark.parametrize("state", JobState)
def test_a_record_has_ended_in_the_same_states_as_its_answer_says(state: JobState) -> None:
    record = make_record(slurm_job_id=7, slurm_job_state=state)
    assert RecordState.of(record).has_ended == record.has_ended
    assert met(WaitCondition.END, state_of(state)) == record.has_ended


@pytest.mark.parametrize("state", JobState)
def test_a_record_has_begun_unless_its_job_waits(state: JobState) -> None:
    assert met(WaitCondition.BEGIN, state_of(state)) == (state not in WAITING)


def test_a_reservation_has_neither_begun_nor_ended() -> None:
    assert not RESERVED.has_begun
    assert not RESERVED.has_ended


def test_a_failed_submission_has_begun_and_ended() -> None:
    assert FAILED.has_begun
    assert FAILED.has_ended


def test_each_other_state_is_a_change() -> None:
    assert met(WaitCondition.CHANGE, state_of(JobState.RUNNING))
    assert not met(WaitCondition.CHANGE, state_of(JobState.PENDING))
    assert WaitCondition.CHANGE.is_met({"a": RESERVED}, {"a": FAILED})


def test_of_several_records_one_must_change_but_all_must_end() -> None:
    ended, pending = state_of(JobState.FAILED), state_of(JobState.PENDING)
    assert met(WaitCondition.CHANGE, ended, pending)
    assert not met(WaitCondition.END, ended, pending)
    assert met(WaitCondition.END, ended, ended)


@pytest.mark.parametrize("condition", WaitCondition)
def test_a_record_that_is_gone_ends_the_waiting(condition: WaitCondition) -> None:
    assert condition.is_met({"a": RESERVED, "b": RESERVED}, {"a": RESERVED})


@pytest.mark.parametrize("condition", WaitCondition)
def test_without_records_there_is_nothing_to_wait_for(condition: WaitCondition) -> None:
    assert condition.is_met({}, {})
