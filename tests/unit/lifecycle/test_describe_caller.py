"""`GET /whoami`: the caller, the grants, and the limits."""

from app.lifecycle.describe_caller import CallerDescription
from app.models.caller import OPERATOR, UNAUTHENTICATED_CALLER, Caller, Grant, Scope
from tests.support.lifecycle import Service

LIMITED = Grant(
    scopes=frozenset({Scope.READ, Scope.SUBMIT}),
    users=("alice", "bob"),
    groups=("chem",),
    partitions=("debug",),
    recipients=("email:*@example.com",),
)


def test_each_grant_is_shown_with_its_limits(service: Service) -> None:
    description = CallerDescription(service.store, authentication_disabled=False)
    reader = Grant(scopes=frozenset({Scope.READ}), users="any")
    answer = description.describe(Caller("key:pipeline:1", (LIMITED, reader)), None)
    assert (answer.name, answer.authenticated) == ("key:pipeline:1", True)
    first, second = (grant.model_dump(mode="json") for grant in answer.grants)
    assert first == {
        "scopes": ["submit", "read"],
        "users": ["alice", "bob"],
        "groups": ["chem"],
        "partitions": ["debug"],
        "accounts": None,
        "recipients": ["email:*@example.com"],
    }
    assert (second["scopes"], second["users"], second["recipients"]) == (["read"], "any", None)


def test_a_caller_without_authentication_is_described_too(service: Service) -> None:
    description = CallerDescription(service.store, authentication_disabled=True)
    scopes = {}
    for caller in (OPERATOR, UNAUTHENTICATED_CALLER):
        answer = description.describe(caller, None)
        assert not answer.authenticated
        assert answer.limits.requests_per_minute is None
        (grant,) = answer.grants
        scopes[answer.name] = grant.scopes
    assert scopes == {"operator": list(Scope), "anybody": [Scope.SUBMIT, Scope.READ, Scope.CANCEL]}
