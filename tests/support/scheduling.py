"""Which process of pytest-xdist runs which tests."""

import re

import pytest
from xdist.scheduler import LoadScopeScheduling

_LONGEST_FILE = "tests/system/test_fuzz.py"
_CLUSTER = re.compile(r"[\[-](distribution|given|next)[\]-]")


class ClusterScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Has one process run all tests of a cluster, or of a file.

    This is what `--dist loadgroup` is for, but pytest-xdist 3.8 groups nothing with pytest 9.2: it writes the
    groups into an attribute of the tests that pytest reads no more.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Return the name of the group whose tests run one after the other.

    Two processes may start a cluster of the distribution, one for tests/contract and one for tests/system.
    """
    file = nodeid.partition("::")[0]
    cluster = cluster_of(nodeid)
    if cluster == "distribution":
        return f"distribution of {file.rpartition('/')[0]}"
    return cluster or file


def cluster_of(nodeid: str) -> str | None:
    """Return the real cluster that a test has as a parameter."""
    found = _CLUSTER.search(nodeid)
    return found[1] if found else None


def place_of(nodeid: str) -> tuple[bool, bool, bool]:
    """Return the place of a test among all others, so that no long group of tests is the last to start.

    Tests on real clusters come first, because they wait the longest, while others compute. Then come the
    fuzz test, which computes for minutes, the other tests of whole servers, and all others.
    """
    is_on_cluster = cluster_of(nodeid) is not None
    return not is_on_cluster, not nodeid.startswith(_LONGEST_FILE), not nodeid.startswith("tests/system/")


def make_scheduler(config: pytest.Config, log: object) -> ClusterScheduling:
    """Return the scheduler, which hands out the groups in the order of their first tests."""
    config.option.loadscopereorder = False
    return ClusterScheduling(config, log)
