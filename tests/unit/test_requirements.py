"""The lock of the Docker image contains the requirements."""

import re

import pytest

from tests.support.service import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
VERSIONS = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.M))


def requirements() -> list[tuple[str, str]]:
    text = "".join((ROOT / name).read_text() for name in ("requirements.txt", "docker/requirements.txt"))
    return re.findall(r"^([\w.-]+)==(\S+)$", text, re.M)


@pytest.mark.parametrize(("name", "version"), requirements())
def test_the_lock_has_the_version_of_each_requirement(name: str, version: str) -> None:
    normal = re.sub(r"[-_.]+", "-", name).lower()
    assert VERSIONS.get(normal) == version, "run `make lock`"


def test_the_lock_has_hashes_for_every_package_and_names_no_index() -> None:
    package, digest = r"[\w.-]+==[^\n]+ \\\n", r" +--hash=sha256:[0-9a-f]{64}"
    assert re.fullmatch(rf"({package}({digest} \\\n)*{digest}\n)+", LOCK)


def test_the_image_installs_the_lock() -> None:
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert "--require-hashes -r /build/requirements.lock" in dockerfile
    assert "!requirements.lock" in (ROOT / ".dockerignore").read_text()
