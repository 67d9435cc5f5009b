"""Rate limits, and limits of jobs in flight."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.errors import (
    StoreUnavailable,
)
from app.job_state import JobState
from app.models.record import utc_now
from tests.support.access import Site, entries
from tests.support.tasks import make_task


def test_caller_beyond_the_rate_limit_waits_in_every_process(
    new_site: Callable[..., Site], trail: Path
) -> None:
    site = new_site(LIMIT_REQUESTS_PER_MINUTE=5)
    key, others = site.key(), site.key()
    other = site.another()
    headers = {"Authorization": f"Bearer {key}"}
    clients = [site.client, other.test_client()] * 3
    answers = [client.get("/monitor/task_uuid/x", headers=headers) for client in clients]
    assert [answer.status_code for answer in answers] == [400] * 5 + [429]
    assert answers[-1].json is not None
    assert answers[-1].json["code"] == "too_many_requests"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert entries(trail)[-1]["caller"].startswith("key:"), "it is known who asks too often"
    assert site.call("GET", "/monitor/task_uuid/x", others).status_code == 400
    other.extensions["slurm_proxy"].store.close()


def test_a_caller_has_only_so_many_jobs_in_flight(new_site: Callable[..., Site]) -> None:
    site = new_site(LIMIT_JOBS_IN_FLIGHT=2)
    key, others = site.key(), site.key()
    oldest, task = make_task(), make_task()
    first, second = site.call("POST", "/submit", key, {"task": oldest}), site.submit(key)
    third = site.call("POST", "/submit", key, {"task": task})
    assert (third.status_code, third.json["code"]) == (429, "too_many_jobs")
    assert int(third.headers["Retry-After"]) > 0
    assert site.submit(others).status_code == 200
    retry = {"Idempotency-Key": oldest["uuid"]}
    again = site.call("POST", "/submit", key, {"task": oldest}, **retry)
    assert again.json == first.json, "a retry is no further job"
    site.slurm.put(second.json["slurm_job_id"], JobState.COMPLETED)
    fence = site.services.store.acquire_lease("test", utc_now(), utc_now() + timedelta(minutes=1))
    site.services.monitor._poller.poll_once(utc_now(), fence)
    assert site.call("POST", "/submit", key, {"task": task}).status_code == 200, "its uuid was given back"


def test_a_dry_run_counts_as_a_request_and_not_as_a_job(new_site: Callable[..., Site]) -> None:
    site = new_site(LIMIT_JOBS_IN_FLIGHT=1, LIMIT_REQUESTS_PER_MINUTE=5)
    key = site.key()

    def try_out() -> tuple[int, str | None]:
        answer = site.call("POST", "/submit?dry_run=true", key, {"task": make_task()})
        return answer.status_code, answer.json.get("code")

    assert [try_out(), try_out()] == [(200, None), (200, None)]
    assert site.submit(key).status_code == 200, "the dry runs took no place"
    assert try_out() == (429, "too_many_jobs"), "as the submission would be answered"
    assert site.call("POST", "/submit?dry_run=1", key, {"task": 1}).json["code"] == "invalid_request"
    assert try_out() == (429, "too_many_requests")


def test_a_place_that_cannot_be_counted_is_given_back(
    new_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = new_site(LIMIT_JOBS_IN_FLIGHT=1)
    key, task = site.key(), make_task()

    def away(caller: str) -> int:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(site.services.store, "count_open_tasks", away)
        assert site.call("POST", "/submit", key, {"task": task}).status_code == 503
    assert site.call("POST", "/submit", key, {"task": task}).status_code == 200


def test_whoami_shows_what_is_left_of_the_limits_in_every_process(new_site: Callable[..., Site]) -> None:
    site = new_site(LIMIT_REQUESTS_PER_MINUTE=10, LIMIT_JOBS_IN_FLIGHT=2)
    key, other = site.key(), site.another()
    headers = {"Authorization": f"Bearer {key}"}

    def ask_limits() -> Any:
        return (other.test_client().get("/whoami", headers=headers).json or {})["limits"]

    assert ask_limits() == {
        "requests_per_minute": {"limit": 10, "remaining": 9},
        "open_tasks": {"limit": 2, "remaining": 2},
    }
    job_id = site.submit(key).json["slurm_job_id"]
    assert ask_limits()["requests_per_minute"]["remaining"] == 7
    assert ask_limits()["open_tasks"]["remaining"] == 1
    site.submit(key)
    assert ask_limits()["open_tasks"]["remaining"] == 0
    site.slurm.put(job_id, JobState.COMPLETED)
    site.services.monitor.run_cycle(utc_now())
    assert ask_limits()["open_tasks"]["remaining"] == 1
    assert site.call("GET", "/whoami", site.key()).json["limits"]["open_tasks"]["remaining"] == 2
    other.extensions["slurm_proxy"].store.close()


def test_whoami_without_limits_reads_nothing_but_the_key(
    new_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailable("away")

    site = new_site(LIMIT_REQUESTS_PER_MINUTE=0)
    for name in ("add_uses", "count_open_tasks"):
        monkeypatch.setattr(site.services.store, name, away)
    answer = site.call("GET", "/whoami", site.key()).json
    assert answer["limits"] == {"requests_per_minute": None, "open_tasks": None}


def test_whoami_while_requests_cannot_be_counted(
    new_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreUnavailable("the disk is full")

    site = new_site(LIMIT_REQUESTS_PER_MINUTE=10)
    monkeypatch.setattr(site.services.store, "add_uses", full)
    limits = site.call("GET", "/whoami", site.key()).json["limits"]
    assert limits["requests_per_minute"] == {"limit": 10, "remaining": None}
