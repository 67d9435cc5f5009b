"""The budget of requests that look-ups may make to Slurm."""

from app.metrics import LOOK_UPS_OVER_BUDGET, Metrics
from app.slurm.request_budget import RequestBudget


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def take_all(budget: RequestBudget, reserve: float = 0.0) -> int:
    taken = 0
    while budget.take(reserve):
        taken += 1
    return taken


def test_budget_holds_the_rate_after_a_burst() -> None:
    clock = Clock()
    budget = RequestBudget(2, clock)
    assert take_all(budget) == 10
    taken = 0
    for _ in range(100):
        clock.seconds += 0.1
        taken += take_all(budget)
    assert 19 <= taken <= 20


def test_less_important_requests_leave_a_share_of_the_budget() -> None:
    budget = RequestBudget(4, Clock())
    assert take_all(budget, reserve=0.5) == 10
    assert take_all(budget, reserve=0.25) == 5
    assert take_all(budget) == 5


def test_a_budget_that_was_not_used_grows_only_to_its_burst() -> None:
    clock = Clock()
    budget = RequestBudget(2, clock)
    clock.seconds += 3600
    assert take_all(budget) == 10


def test_the_least_important_request_is_possible_at_any_rate() -> None:
    assert take_all(RequestBudget(0.01, Clock()), reserve=0.5) == 2


def test_budget_counts_the_requests_without_a_token() -> None:
    metrics = Metrics()
    budget = RequestBudget(2, Clock(), metrics)
    take_all(budget)
    assert not budget.take()
    assert metrics.snapshot()[LOOK_UPS_OVER_BUDGET.name] == [[[], 2]]
