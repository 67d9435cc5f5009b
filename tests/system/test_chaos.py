"""A short storm on each store.

The long one is `python -m tests.support.chaos` (figures in docs/explanation/reliability.md).
"""

from pathlib import Path

import pytest

from tests.conftest import Cluster
from tests.support.chaos import control_of, on_mongodb, on_sqlite
from tests.support.real.mongod import Mongod


@pytest.mark.real
@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
def test_one_task_one_job_whatever_is_killed(
    store: str, distribution_cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if store == "sqlite":
        assert distribution_cluster.real is not None
        chaos = on_sqlite(distribution_cluster, tmp_path, control_of(distribution_cluster.real))
    else:
        mongod: Mongod = request.getfixturevalue("mongod")
        chaos = on_mongodb(distribution_cluster, tmp_path, mongod, may_kill=False)
    result = chaos.run(submissions=60, faults=15, pace=0.7)
    chaos.store.close()
    assert result.faulty == [], result.summary()
    assert result.submitted >= 60
    assert len(result.jobs) >= len(result.answered) > 0
