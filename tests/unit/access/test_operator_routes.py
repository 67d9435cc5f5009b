"""The routes that operators watch the service by, called by every kind of caller."""

from typing import Any

import pytest

from app.models.caller import Scope
from tests.support.access import Site, proof
from tests.support.real.identity_provider import IdentityProvider

ROUTES = {
    "readyz": "/readyz",
    "notifications": "/notifications",
    "metrics": "/metrics",
    "cluster": "/cluster",
}

# The columns are those of ROUTES. Whoever has no key may ask for the status of /readyz.
EXPECTED = {
    "no key": "200 401 401 401",
    "a wrong key": "401 401 401 401",
    "an expired key": "401 401 401 401",
    "a revoked key": "401 401 401 401",
    "a reader": "200 403 403 200",
    "a submitter": "200 403 403 200",
    "a canceller": "200 403 403 200",
    "all for any": "200 403 403 200",
    "a watcher": "200 200 200 200",
    "an operator": "200 200 200 200",
    "a good token": "200 403 403 200",
    "an operator's token": "200 200 200 200",
    "a token for no user": "200 403 403 403",
    "a forged algorithm": "401 401 401 401",
    "an expired token": "401 401 401 401",
}
SEE_PARTS = {"a watcher", "an operator", "an operator's token"}
OF_A_PROXY = {"X-Forwarded-For": "192.0.2.1"}  # so that no request counts as local


@pytest.mark.parametrize("who", EXPECTED)
def test_every_route_of_operators_by_every_kind_of_caller(
    site: Site, provider: IdentityProvider, who: str
) -> None:
    site.services.monitor.run_cycle(site.services.store.now())  # without a poll the service is not ready
    given = proof(site, provider, who)
    answers: dict[str, Any] = {}
    for (route, path), expected in zip(ROUTES.items(), EXPECTED[who].split(), strict=True):
        answers[route] = site.call("GET", path, given, **OF_A_PROXY)
        assert answers[route].status_code == int(expected), (route, answers[route].text)
    if answers["readyz"].status_code == 200:
        assert ("parts" in answers["readyz"].json) is (who in SEE_PARTS)


def test_a_caller_with_the_scope_monitor_may_change_nothing(site: Site, provider: IdentityProvider) -> None:
    given = proof(site, provider, "a watcher")
    for path in ("/notifications/retry", "/notifications/none/retry"):
        assert site.call("POST", path, given).status_code == 403
    assert site.submit(given).status_code == 403
    assert site.call("GET", "/slurm/diag", given).status_code == 403


def test_the_table_has_every_route_of_the_module(site: Site) -> None:
    rules = {rule.rule for rule in site.app.url_map.iter_rules() if rule.endpoint.startswith("task_health.")}
    assert rules <= set(ROUTES.values())


def test_the_scope_monitor_needs_no_other_one() -> None:
    assert {Scope.MONITOR, Scope.ADMIN} == set(Scope) - {Scope.SUBMIT, Scope.READ, Scope.CANCEL}
