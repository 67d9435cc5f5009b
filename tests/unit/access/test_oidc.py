"""Tokens of an OpenID Connect provider."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from app import create_app
from app.access.oidc import OidcAuthenticator
from app.environment import read_settings
from app.errors import (
    IdentityProviderUnavailable,
    NotAuthenticated,
    SettingsError,
)
from app.models.caller import ClaimGrant
from tests.support.access import ALICE, SETTINGS, Site, entries, oidc_settings
from tests.support.real.http_services import Answer, Request
from tests.support.real.identity_provider import AUDIENCE, IdentityProvider
from tests.support.real.network import Fault, Network


def test_a_new_signing_key_of_the_provider_is_found() -> None:
    with IdentityProvider() as provider:
        oidc = OidcAuthenticator(read_settings(oidc_settings(provider)), (), pause=0)
        assert oidc.authenticate(provider.token()).name == "oidc:alice"
        old = provider.token()
        provider.rotate("second")
        assert oidc.authenticate(provider.token()).name == "oidc:alice"
        with pytest.raises(NotAuthenticated):
            oidc.authenticate(old)


def test_unknown_signing_keys_do_not_become_a_flood_of_requests(tmp_path: Path) -> None:
    with IdentityProvider() as provider, IdentityProvider() as stranger:
        site = Site(tmp_path / "store.sqlite3", provider)
        stranger.rotate("a stranger's")
        assert {site.submit(stranger.token()).status_code for _ in range(20)} == {401}
        assert len(provider.requests) <= 2
        site.services.store.close()


def test_a_provider_that_is_away_is_said_so(tmp_path: Path) -> None:
    provider = IdentityProvider()  # not started
    site = Site(tmp_path / "store.sqlite3", provider)
    answer = site.submit(provider.token())
    assert (answer.status_code, answer.json["code"]) == (503, "identity_provider_unavailable")
    assert answer.headers["Retry-After"]
    assert site.submit(site.key()).status_code == 200, "keys need no provider"
    site.services.store.close()


def test_an_outage_of_the_provider_is_logged_at_most_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    provider = IdentityProvider()  # not started
    for _ in range(5):
        oidc = OidcAuthenticator(
            read_settings(oidc_settings(provider)), ()
        )  # which leaves none alone for a while
        assert failure_of(oidc, provider.token()) == "the identity provider does not answer"
    assert caplog.text.count("keys cannot be fetched") <= 1


@pytest.mark.parametrize(
    "said", [b"<html>", b"[]", b"{}", b'{"keys": []}', b'{"keys": 5}', b"\xff", b"[" * 100_000]
)
def test_a_provider_that_answers_no_keys_is_away(said: bytes) -> None:
    class Astray(IdentityProvider):
        def take(self, request: Request) -> Answer:
            return Answer(200, said)

    with Astray() as provider:
        oidc = OidcAuthenticator(read_settings(oidc_settings(provider)), ())
        for _ in range(3):
            assert failure_of(oidc, provider.token()) == "the identity provider does not answer"
        assert len(provider.requests) == 1, "it is left alone for a while"


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.SWALLOW])
def test_a_provider_whose_connection_breaks_is_away(fault: Fault) -> None:
    with IdentityProvider() as provider, Network(provider.url) as network:
        network.fault = fault
        oidc = OidcAuthenticator(
            read_settings({**oidc_settings(provider), "OIDC_JWKS_URL": f"{network.url}/keys"}), (), timeout=1
        )
        assert failure_of(oidc, provider.token()) == "the identity provider does not answer"


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256"])
def test_the_operator_says_which_algorithms_may_sign(algorithm: str) -> None:
    """Whatever PyJWT takes a key for that does not say."""
    with IdentityProvider() as provider:
        provider.add_curve("curve")
        oidc = OidcAuthenticator(read_settings({**oidc_settings(provider), "OIDC_ALGORITHMS": algorithm}), ())
        assert oidc.authenticate(provider.token(algorithm=algorithm)).name == "oidc:alice"
        others = {"RS256", "RS512", "PS256"} - {algorithm}
        bad = [provider.token(algorithm=other) for other in others]
        bad += [provider.token(algorithm="ES256", kid="curve"), provider.forged(), provider.unsigned()]
        bad.append(provider.token(algorithm=algorithm, published_as="curve"))
        for token in bad:
            with pytest.raises(NotAuthenticated):
                oidc.authenticate(token)


def test_the_log_says_whose_token_it_was_and_for_whom(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "app")
    with IdentityProvider() as provider:
        oidc = OidcAuthenticator(read_settings(oidc_settings(provider)), ())
        for changes in ({"aud": "account\n"}, {"iss": f"{provider.issuer}/"}, {"aud": None}):
            with pytest.raises(NotAuthenticated):
                oidc.authenticate(provider.token(**changes))
    assert f"a token was refused: its aud is 'account\\n', not {AUDIENCE!r}" in caplog.text
    assert f"a token was refused: its iss is '{provider.issuer}/', not {provider.issuer!r}" in caplog.text
    assert "a token was refused: it has no claim aud" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"OIDC_JWKS_URL": "foo"}, "OIDC_JWKS_URL: must be an address that begins with https://"),
        ({"OIDC_JWKS_URL": "https://"}, "OIDC_JWKS_URL: must be an address that begins with https://"),
        ({"OIDC_JWKS_URL": "https://["}, "OIDC_JWKS_URL: "),
        ({"OIDC_USER_CLAIM": None, "OIDC_GRANTS": []}, "OIDC_USER_CLAIM or OIDC_GRANTS must be set"),
    ],
)
def test_a_provider_of_no_use_ends_the_start(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    provider = IdentityProvider()
    with pytest.raises(SettingsError, match=words):
        create_app({**SETTINGS, "SQLITE_PATH": tmp_path / "store", **oidc_settings(provider), **changes})


@pytest.mark.timed
def test_a_provider_that_hangs_is_left_alone_for_a_while(tmp_path: Path) -> None:
    with IdentityProvider() as provider, Network(provider.url) as network:
        network.fault = Fault.HANG
        settings = {**oidc_settings(provider), "OIDC_JWKS_URL": f"{network.url}/keys"}
        oidc = OidcAuthenticator(read_settings(settings), (), timeout=0.5)
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: failure_of(oidc, provider.token()), range(24)))
        assert answers == ["the identity provider does not answer"] * 24
        assert time.monotonic() - began < 5, "not one after the other"


@pytest.mark.timed
def test_known_signing_key_is_used_at_once_while_the_provider_hangs() -> None:
    with IdentityProvider() as provider, IdentityProvider() as stranger, Network(provider.url) as network:
        stranger.rotate("a stranger's")
        settings = {**oidc_settings(provider), "OIDC_JWKS_URL": f"{network.url}/keys"}
        oidc = OidcAuthenticator(read_settings(settings), (), timeout=3, pause=0)
        token = provider.token()
        assert oidc.authenticate(token).name == "oidc:alice"
        network.fault = Fault.HANG
        with ThreadPoolExecutor(8) as pool:
            junk = [pool.submit(failure_of, oidc, stranger.token()) for _ in range(8)]
            began = time.monotonic()
            assert oidc.authenticate(token).name == "oidc:alice"
            assert time.monotonic() - began < 1
            assert {future.result() for future in junk} == {"the identity provider does not answer"}
        assert time.monotonic() - began < 6, (
            "one request asks, and the others do not wait for it one after another"
        )


def failure_of(oidc: OidcAuthenticator, token: str) -> str:
    with pytest.raises(IdentityProviderUnavailable) as failure:
        oidc.authenticate(token)
    return str(failure.value)


@pytest.mark.parametrize("name", [["alice"], {"alice": 1}, 7, "two\nlines", "half \ud800", "\u202e"])
def test_a_token_with_an_odd_name_is_no_user(site: Site, provider: IdentityProvider, name: Any) -> None:
    assert site.submit(provider.token(preferred_username=name)).status_code in (401, 403)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("alice@uni.edu", "is 'alice@uni.edu': it must be a user name of the cluster"),
        ("Alice", "is 'Alice': it must be a user name of the cluster"),
        (None, "is missing or empty: it must be a user name of the cluster"),
    ],
)
def test_a_token_for_no_user_gets_the_reason(
    site: Site, provider: IdentityProvider, trail: Path, name: str | None, words: str
) -> None:
    answer = site.submit(provider.token(preferred_username=name))
    assert (answer.status_code, answer.json["code"]) == (403, "forbidden")
    assert answer.json["error"] == f"the token's claim preferred_username {words}"
    assert entries(trail)[-1]["caller"] == f"oidc:{name or 'sub:f81d4fae'}"
    operator = provider.token(preferred_username=name, groups=["operators"])
    assert site.call("GET", "/slurm/ping", operator).status_code == 200, "another grant is as good as ever"


@pytest.mark.parametrize("claim", ["", None])
def test_user_of_a_claim_that_was_not_configured_is_ignored(
    tmp_path: Path, provider: IdentityProvider, claim: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if claim is not None:
        monkeypatch.setenv("OIDC_USER_CLAIM", claim)
    settings = {name: value for name, value in oidc_settings(provider).items() if name != "OIDC_USER_CLAIM"}
    grants = (ClaimGrant(claim="groups", value="chem", grant=ALICE),)
    oidc = OidcAuthenticator(read_settings(settings), grants)
    assert oidc.authenticate(provider.token()).grants == ()
    assert oidc.authenticate(provider.token(groups=["chem"])).grants == (ALICE,)


def test_a_subject_is_not_taken_for_a_user(site: Site, provider: IdentityProvider, trail: Path) -> None:
    assert site.submit(provider.token(preferred_username=None, sub="alice")).status_code == 403
    assert entries(trail)[-1]["caller"] == "oidc:sub:alice"


def test_clocks_may_differ_a_little(site: Site, provider: IdentityProvider) -> None:
    now = int(time.time())
    assert site.submit(provider.token(exp=now - 30)).status_code == 200
    assert site.submit(provider.token(iat=now + 30)).status_code == 200


def test_only_configured_algorithms_are_accepted(tmp_path: Path) -> None:
    with IdentityProvider() as provider:
        provider.add_curve("curve")
        site = Site(tmp_path / "store.sqlite3", provider, OIDC_ALGORITHMS="ES256")
        assert site.submit(provider.token(algorithm="ES256", kid="curve")).status_code == 200
        assert site.submit(provider.token()).status_code == 401
        site.services.store.close()


def test_oidc_names_all_settings_that_are_missing() -> None:
    with pytest.raises(SettingsError, match=r"^OIDC_ISSUER and OIDC_AUDIENCE must be set where"):
        OidcAuthenticator(read_settings({"OIDC_JWKS_URL": "https://example.com/keys"}), ())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OIDC_ALGORITHMS", "HS256", "OIDC_ALGORITHMS"),
        ("OIDC_ALGORITHMS", "none", "OIDC_ALGORITHMS"),
        ("OIDC_ISSUER", None, "OIDC_ISSUER must be set"),
        ("OIDC_AUDIENCE", None, "OIDC_AUDIENCE must be set"),
        ("OIDC_JWKS_URL", None, "OIDC_JWKS_URL must be set"),
        (
            "OIDC_GRANTS",
            [{"claim": "groups", "value": "x", "grant": {"scopes": ["fly"]}}],
            "OIDC_GRANTS: 0.grant.scopes",
        ),
        (
            "OIDC_GRANTS",
            [{"claim": "groups", "value": "x", "grant": {"scopes": ["read"], "recipients": ["emial:*"]}}],
            "OIDC_GRANTS: 0.grant.recipients: .*no method emial",
        ),
        (
            "OIDC_GRANTS",
            [{"claim": "groups", "value": "x", "grant": {"scopes": ["read"], "recipients": ["email:*.org"]}}],
            "OIDC_GRANTS: 0.grant.recipients: .*matches no receiver of email",
        ),
        ("ACCESS_METHODS", "passwords", "ACCESS_METHODS"),
    ],
)
def test_settings_that_are_wrong_name_themselves(
    tmp_path: Path, provider: IdentityProvider, name: str, value: Any, words: str
) -> None:
    with pytest.raises(Exception, match=words):
        Site(tmp_path / "store.sqlite3", provider, **{name: value})


def test_a_server_reports_which_authentication_it_accepts(
    new_site: Callable[..., Site], provider: IdentityProvider
) -> None:
    answer = new_site().submit(provider.token())
    assert answer.json["error"] == "this server accepts only keys"
