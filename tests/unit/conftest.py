"""Fixtures that several test files share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.access import audit
from tests.support.access import Site
from tests.support.lifecycle import Service
from tests.support.real.identity_provider import IdentityProvider


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "store.sqlite3")
    yield service
    service.store.close()


@pytest.fixture(scope="session")
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider() as provider:
        yield provider


@pytest.fixture
def site(tmp_path: Path, provider: IdentityProvider) -> Iterator[Site]:
    site = Site(tmp_path / "store.sqlite3", provider)
    yield site
    site.services.store.close()


@pytest.fixture
def new_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def new(**settings: Any) -> Site:
        made.append(Site(tmp_path / "store.sqlite3", **settings))
        return made[-1]

    yield new
    for site in made:
        site.services.store.close()


@pytest.fixture
def trail(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "audit.jsonl"
    audit.open_audit_trail(path)
    yield path
    audit.open_audit_trail(None)
