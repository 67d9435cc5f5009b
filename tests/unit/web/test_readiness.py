"""`GET /readyz`: its status for everyone, and the parts for operators."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.access.recent_operators import RecentOperators
from app.clock import steady_seconds
from app.models.caller import Grant, Scope
from tests.support.access import Site

WATCHER = Grant(scopes=frozenset({Scope.MONITOR}), users="any")
ELSEWHERE = {"X-Forwarded-For": "192.0.2.1"}  # a proxy's request is not local


@pytest.fixture
def ready(new_site: Callable[..., Site]) -> Site:
    site = new_site()
    site.services.monitor.run_cycle(site.services.store.now())
    return site


def ask(site: Site, key: str | None = None, **headers: str) -> tuple[int, Any]:
    answer = site.call("GET", "/readyz/", key, **{**ELSEWHERE, **headers})
    return answer.status_code, answer.json


def test_anybody_may_ask_for_the_status_alone(new_site: Callable[..., Site]) -> None:
    site = new_site()
    assert ask(site) == (503, {"status": "not_ready"})
    assert ask(site, site.key()) == (503, {"status": "not_ready"})


def test_a_caller_with_the_scope_monitor_sees_the_parts(ready: Site) -> None:
    for scope in (Scope.MONITOR, Scope.ADMIN):
        status, body = ask(ready, ready.key(Grant(scopes=frozenset({scope}), users="any")))
        assert (status, body["status"]) == (200, "ready")
        assert body["parts"]["store"]["status"] == "ready"
        assert body["parts"]["leader"]["process"]
    assert ask(ready, ready.key()) == (200, {"status": "ready"})


def test_a_local_request_sees_the_parts_unless_a_web_page_sends_it(ready: Site) -> None:
    assert "parts" in ready.call("GET", "/readyz").json
    assert "parts" not in ready.call("GET", "/readyz", **{"Sec-Fetch-Site": "cross-site"}).json
    assert "parts" not in ready.call("GET", "/readyz", Host="slurm.example.com").json


def test_a_key_that_is_not_valid_is_refused(ready: Site) -> None:
    assert ask(ready, "sp_1_2")[0] == 401


def test_an_operator_sees_the_parts_while_the_store_is_away(ready: Site, tmp_path: Path) -> None:
    known, unknown = ready.key(WATCHER), ready.key(WATCHER)
    assert "parts" in ask(ready, known)[1]
    path = tmp_path / "store.sqlite3"
    path.rename(tmp_path / "aside")
    assert "parts" in ask(ready, known)[1]
    assert "parts" not in ask(ready, unknown)[1]
    ready.keys._clock = lambda: steady_seconds() + 1  # keys are trusted for less than a second
    assert "parts" in ask(ready, known)[1]
    assert ready.call("GET", "/whoami", known).status_code == 503
    (tmp_path / "aside").rename(path)


def test_a_revoked_key_is_not_remembered_once_it_was_refused(ready: Site, tmp_path: Path) -> None:
    key = ready.key(WATCHER)
    assert "parts" in ask(ready, key)[1]
    assert ready.keys.revoke(key.split("_")[1])
    assert ask(ready, key)[0] == 401
    path = tmp_path / "store.sqlite3"
    path.rename(tmp_path / "aside")
    assert "parts" not in ask(ready, key)[1]
    (tmp_path / "aside").rename(path)


def test_operators_are_remembered_for_a_quarter_of_an_hour() -> None:
    now = 0.0
    operators = RecentOperators(lambda: now)
    operators.remember("Bearer a")
    now = 900
    assert operators.knows("Bearer a")
    assert not operators.knows("Bearer b")
    now = 901
    assert not operators.knows("Bearer a")
    for number in range(200):
        operators.remember(f"Bearer {number}")
    assert operators.knows("Bearer 199")
    assert not operators.knows("Bearer 99")
