"""Apprise: its targets."""

import pytest

from app.environment import read_settings
from tests.support.channels import (
    AppriseChannel,
)
from tests.support.outbox import assert_readable, failure_of, is_accepted

pytestmark = pytest.mark.timed


def test_a_target_is_one_that_the_operator_named() -> None:
    settings = read_settings({"NOTIFICATIONS_APPRISE_TARGETS": {"team": "json://127.0.0.1/"}})
    assert is_accepted("apprise", {"target": "team"}, settings)
    for other in ("Team", "others", "json://127.0.0.1/", ""):
        assert not is_accepted("apprise", {"target": other}, settings)


def test_a_target_that_apprise_does_not_know_is_retried(
    apprise: AppriseChannel,
) -> None:
    targets = {"team": "nonsense://the-secret-of-the-url"}
    _, sender = apprise.configured(NOTIFICATIONS_APPRISE_TARGETS=targets)
    failure = failure_of(sender, apprise.params())
    assert not failure.permanent
    assert_readable(str(failure), apprise)
