import pytest

from app.job_state import JobState

FINAL = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "REVOKED",
    "TIMEOUT",
    "LAUNCH_FAILED",
]


def test_the_final_states_are_those_of_the_contract() -> None:
    assert {state for state in JobState if state.is_final} == set(FINAL)


@pytest.mark.parametrize(
    "state", ["SUSPENDED", "STOPPED", "COMPLETING", "REQUEUED", "PENDING", "RUNNING", "SPECIAL_EXIT"]
)
def test_these_are_not_final(state: str) -> None:
    assert not JobState(state).is_settled


def test_unknown_is_settled_but_no_final_state_of_slurm() -> None:
    assert JobState.UNKNOWN.is_settled
    assert not JobState.UNKNOWN.is_final
    assert not JobState.UNKNOWN.is_success


def test_only_completed_is_a_success() -> None:
    assert [state for state in JobState if state.is_success] == [JobState.COMPLETED]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("RUNNING", JobState.RUNNING),
        (["RUNNING"], JobState.RUNNING),
        (["CANCELLED", "COMPLETING"], JobState.COMPLETING),
        (["FAILED", "COMPLETING"], JobState.COMPLETING),
        (["RUNNING", "CONFIGURING"], JobState.CONFIGURING),
        (["PENDING", "REQUEUED"], JobState.REQUEUED),
        (["FAILED", "LAUNCH_FAILED"], JobState.FAILED),
        (["PENDING", "SPECIAL_EXIT"], JobState.SPECIAL_EXIT),
        (["RUNNING", "A_FLAG_OF_TOMORROW"], JobState.RUNNING),
    ],
)
def test_reads_every_form(written: str | list[str], read: JobState) -> None:
    assert JobState.read(written) is read


@pytest.mark.parametrize("written", ["", "DONE", [], ["NEW_STATE"]])
def test_read_never_guesses_a_state(written: str | list[str]) -> None:
    with pytest.raises(ValueError, match="not a Slurm job state"):
        JobState.read(written)
