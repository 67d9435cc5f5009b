"""The addresses of clients behind trusted proxies."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.environment import read_settings
from app.errors import (
    SettingsError,
)
from tests.support.access import Site, entries


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", "10.0.0.1", "192.0.2.7", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.1", "1.2.3.4, 192.0.2.7", "192.0.2.7"),  # the first is the client's own word
        ("10.0.0.0/8", "10.0.0.1", "192.0.2.7, 10.0.0.9", "192.0.2.7"),  # two proxies
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("10.0.0.0/8", "192.0.2.7", "1.2.3.4", "192.0.2.7"),
        ("10.0.0.0/8", "10.0.0.1", "not an address\x7f", "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", None, "10.0.0.1"),
        ("2001:db8::/32", "2001:db8::1", "2001:db9::7", "2001:db9::7"),
        ("2001:db8::/32", "2001:db8::1", "fe80::7%any text", "fe80::7"),
        ("unix", "10.0.0.1", "192.0.2.7", "10.0.0.1"),
        ("10.0.0.0/8", "", "192.0.2.7", "-"),
    ],
)
def test_the_trail_names_the_address_that_a_trusted_proxy_passes_on(
    new_site: Callable[..., Site], trail: Path, trusted: str, peer: str, forwarded: str | None, expected: str
) -> None:
    site = new_site(ACCESS_TRUSTED_PROXIES=trusted)
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    site.client.get("/monitor/task_uuid/x", headers=headers, environ_overrides={"REMOTE_ADDR": peer})
    assert entries(trail)[-1]["address"] == expected


@pytest.mark.parametrize(
    ("trusted", "peer", "scheme", "expected"),
    [
        ("10.0.0.1", "10.0.0.1", "https", "https"),
        ("10.0.0.1", "10.0.0.1", "http, HTTPS", "https"),  # the last is the trusted proxy's
        ("10.0.0.1", "10.0.0.1", "javascript", "http"),
        ("10.0.0.1", "10.0.0.1", "", "http"),
        ("10.0.0.1", "10.0.0.2", "https", "http"),
        ("", "127.0.0.1", "https", "http"),
    ],
)
def test_the_examples_of_docs_have_the_scheme_that_a_trusted_proxy_passes_on(
    new_site: Callable[..., Site], trusted: str, peer: str, scheme: str, expected: str
) -> None:
    site = new_site(ACCESS_TRUSTED_PROXIES=trusted)
    headers = {"X-Forwarded-Proto": scheme, "Host": "slurm-proxy.example.com:8443"}
    page = site.client.get("/docs", headers=headers, environ_overrides={"REMOTE_ADDR": peer}).text
    assert f"{expected}://slurm-proxy.example.com:8443/submit" in page


@pytest.mark.parametrize("word", ["nginx", "10.0.0.0/99", "unix:/run/x"])
def test_a_trusted_proxy_that_is_no_address_ends_the_start(word: str) -> None:
    with pytest.raises(
        SettingsError, match="ACCESS_TRUSTED_PROXIES: must be addresses, networks or the word"
    ):
        read_settings({"ACCESS_TRUSTED_PROXIES": f"10.0.0.1,{word}"})
