"""The circuit breaker of the store: what opens and closes it, and what it refuses."""

from collections.abc import Callable, Iterator
from contextvars import Context
from itertools import count

import pytest

from app.errors import StoreTimeout, StoreUnavailable
from app.store.breaker import StoreBreaker, allow_refusal


@pytest.fixture
def breaker() -> StoreBreaker:
    moments: Iterator[int] = count()
    return StoreBreaker(lambda: float(next(moments)))


def is_tried(breaker: StoreBreaker, within: float | None = None) -> bool:
    """Return whether an operation, which is answered, is allowed to begin."""
    try:
        with breaker.guarding(within):
            return True
    except StoreTimeout:
        return False


def fail(breaker: StoreBreaker, error: Exception | None = None, within: float | None = None) -> None:
    error = error or StoreTimeout("in vain")
    with pytest.raises(type(error)) as failure, breaker.guarding(within):
        raise error
    assert failure.value is error


def request(function: Callable[[], object]) -> object:
    """Run a function as a request of a caller."""

    def run() -> object:
        allow_refusal()
        return function()

    return Context().run(run)


def test_one_time_out_opens_the_circuit_and_one_request_waits(breaker: StoreBreaker) -> None:
    fail(breaker)

    def wait() -> None:
        with breaker.guarding():
            assert not any(request(lambda: is_tried(breaker)) for _ in range(5))
            raise StoreTimeout("in vain again")

    for _ in range(3):
        with pytest.raises(StoreTimeout, match="in vain again"):
            request(wait)


def test_a_refusal_says_why_and_has_the_code_of_the_store(breaker: StoreBreaker) -> None:
    fail(breaker)
    with pytest.raises(StoreUnavailable, match="the store has not been answering: in vain") as refusal:
        request(lambda: breaker.guarding(1.0).__enter__())
    ordinary = StoreUnavailable("")
    assert (refusal.value.code, refusal.value.status) == (ordinary.code, ordinary.status)
    assert refusal.value.for_callers == ordinary.for_callers
    assert refusal.value.retry_after == ordinary.retry_after


def test_the_first_answer_closes_the_circuit(breaker: StoreBreaker) -> None:
    fail(breaker)
    assert request(lambda: is_tried(breaker))
    with breaker.guarding():  # of a loop, which waits
        assert request(lambda: is_tried(breaker, within=1.0))


def test_loops_and_commands_are_never_refused(breaker: StoreBreaker) -> None:
    for _ in range(5):
        Context().run(fail, breaker)
    assert Context().run(is_tried, breaker, 1.0)


def test_a_request_is_not_refused_after_the_stores_first_answer(breaker: StoreBreaker) -> None:
    """The job of a reservation must be recorded even while the circuit is open."""

    def submit() -> None:
        assert is_tried(breaker)  # the reservation
        Context().run(fail, breaker)  # of another request
        assert not request(lambda: is_tried(breaker, within=1.0))
        fail(breaker, StoreTimeout("the acceptance was tried"), within=1.0)

    request(submit)


def test_a_time_out_beside_an_answer_does_not_open_the_circuit(breaker: StoreBreaker) -> None:
    """One slow query says nothing about the store."""

    def be_slow() -> None:
        with breaker.guarding():
            assert is_tried(breaker)
            raise StoreTimeout("slow")

    with pytest.raises(StoreTimeout):
        be_slow()
    assert request(lambda: is_tried(breaker, within=1.0))


@pytest.mark.parametrize(
    ("error", "within"),
    [(StoreUnavailable("its primary has changed"), None), (ValueError(), None), (StoreTimeout("short"), 1.0)],
)
def test_other_failures_do_not_open_the_circuit(
    breaker: StoreBreaker, error: Exception, within: float | None
) -> None:
    for _ in range(5):
        fail(breaker, error, within)
    assert request(lambda: is_tried(breaker, within=1.0))


def test_an_operation_with_a_limit_of_its_own_does_not_wait_for_the_store(breaker: StoreBreaker) -> None:
    """A made-up key, and a probe of the readiness, must not take the place of the request that waits."""
    fail(breaker)
    assert not request(lambda: is_tried(breaker, within=1.0))
    assert request(lambda: is_tried(breaker))
