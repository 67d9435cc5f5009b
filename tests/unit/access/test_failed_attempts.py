"""Failed attempts to authenticate are limited and logged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.access.failed_attempts import FailedAttempts
from tests.support.access import Site, entries
from tests.support.real.identity_provider import IdentityProvider


@pytest.mark.parametrize("text", ["sp_0123456789ab_x", "", "not.a.token"])
def test_failed_attempts_are_limited_and_bounded_in_the_log(
    new_site: Callable[..., Site], trail: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    site = new_site()
    caplog.set_level("INFO", "app")
    answers = [site.call("GET", "/monitor/task_uuid/x", text) for _ in range(300)]
    assert [answer.status_code for answer in answers] == [401] * 30 + [429] * 270
    assert answers[-1].json["code"] == "too_many_requests"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert len(entries(trail)) == 30
    assert caplog.text.count("GET /monitor/task_uuid/<task_uuid> 4") == 30
    assert caplog.text.count("too many failed attempts to authenticate from 127.0.0.1") == 1
    assert site.submit(site.key()).status_code == 200, "a valid key works from the same address"
    assert site.client.get("/ping").status_code == 200
    elsewhere = {"REMOTE_ADDR": "10.1.2.3"}
    assert site.client.get("/monitor/task_uuid/x", environ_overrides=elsewhere).status_code == 401


def test_refused_tokens_are_bounded_in_the_log(
    site: Site, provider: IdentityProvider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app")
    for number in range(40):  # from as many addresses
        headers = {"Authorization": f"Bearer {provider.token(aud='another-service')}"}
        there = {"REMOTE_ADDR": f"10.0.0.{number}"}
        assert site.client.get("/slurm/ping", headers=headers, environ_overrides=there).status_code == 401
    assert caplog.text.count("a token was refused") == 30


def test_refusals_without_authentication_are_limited_too(new_site: Callable[..., Site], trail: Path) -> None:
    site = new_site(ACCESS_METHODS="", LIMIT_FAILED_ATTEMPTS_PER_MINUTE=3)
    there = {"REMOTE_ADDR": "10.1.2.3"}
    answers = [site.client.get("/slurm/ping", environ_overrides=there).status_code for _ in range(5)]
    assert answers == [403] * 3 + [429] * 2
    assert len(entries(trail)) == 3
    assert site.call("GET", "/slurm/ping").status_code == 200


def test_failed_attempts_are_counted_by_address_and_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    attempts = FailedAttempts(2, clock=lambda: now)

    def over(address: str) -> bool:
        return attempts.count(address).is_over_limit

    assert [over("10.0.0.1") for _ in range(3)] == [False, False, True]
    assert not over("10.0.0.2")
    assert over("::ffff:10.0.0.1"), "the same address"
    hosts = [f"2001:db8::{number:x}" for number in range(3)]
    assert [over(host) for host in hosts] == [False, False, True], "one host has 64 bits to itself"
    assert not over("2001:db8:0:1::1")
    now = 59.9
    assert over("10.0.0.1")
    now = 60.0
    assert not over("10.0.0.1")
    assert (
        "4 failed attempts to authenticate were not logged; the most frequent: 5 from 10.0.0.1" in caplog.text
    )


def test_failed_attempts_from_very_many_addresses_fill_neither_memory_nor_log() -> None:
    attempts = FailedAttempts(30, clock=lambda: 0.0)
    counted = [
        attempts.count(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}") for number in range(20_000)
    ]
    assert sum(attempt.is_logged for attempt in counted) == 600
    assert len(attempts._counts) <= 10_001


def test_failed_attempts_are_not_limited_if_the_limit_is_0() -> None:
    attempts = FailedAttempts(0)
    assert not any(
        attempt.is_over_limit or not attempt.is_logged for attempt in map(attempts.count, ["a"] * 1000)
    )
