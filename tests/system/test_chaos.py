"""Lost answers and lost writes of single submissions, and a short storm on each store.

The long storm is `python -m tests.support.chaos` (figures in docs/explanation/reliability.md).
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.job_state import JobState
from app.models.record import NotificationStatus
from tests.conftest import Cluster, not_covered
from tests.support.chaos.callers import Callers
from tests.support.chaos.stage import ReplicaSetStage, SqliteStage, Stage, make_mongodb_stage
from tests.support.chaos.storm import Storm, conclude, control_of
from tests.support.chaos.verdict import Evidence, find_violations
from tests.support.real import RealPartMissing
from tests.support.real.mongod import Mongod
from tests.support.real.replica_set import ReplicaSet
from tests.support.stores import make_notification, make_record

_SECONDS = 15.0  # until an answer comes
_STALL_TIMEOUT = 60.0  # seconds until a lost job is adopted


@pytest.fixture(
    params=[
        "sqlite, local_cluster",
        pytest.param("sqlite, given_cluster", marks=pytest.mark.real),
        pytest.param("replica set, given_cluster", marks=pytest.mark.real),
    ]
)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStage | ReplicaSetStage]:
    store, name = request.param.split(", ")
    cluster: Cluster = request.getfixturevalue(name)
    if store == "sqlite":
        with SqliteStage(cluster, tmp_path) as sqlite:
            yield sqlite
        return
    try:
        replica_set = ReplicaSet().__enter__()
    except RealPartMissing as missing:
        not_covered(request, "a MongoDB replica set", str(missing))
    with replica_set, ReplicaSetStage(cluster, tmp_path, replica_set) as mongodb:
        yield mongodb


def test_a_job_is_adopted_whose_worker_is_killed_before_accept_or_whose_accept_is_lost(
    stage: SqliteStage | ReplicaSetStage, tmp_path: Path
) -> None:
    began, callers = datetime.now(UTC), Callers(stage, _STALL_TIMEOUT)
    with ThreadPoolExecutor(2) as pool:
        retried = pool.submit(callers.submit_until_answered)
        stage.kill_worker_before_accept()
        with stage.network.stopped_answers():
            told = pool.submit(callers.submit_until_answered)
            assert stage.network.wait_for_answer(_SECONDS) is not None
            with stage.accept_loss():
                uuid = told.result(_SECONDS)
        assert uuid in callers.answered
        uuids = [uuid, retried.result()]
    result = conclude(stage, callers, began, Counter(), _STALL_TIMEOUT)
    assert result.faulty == []
    assert len(result.evidence.jobs) == len(callers.answered) == 2
    log = "".join(path.read_text() for path in tmp_path.glob("host*.log"))
    assert [f"task {uuid} was found as job" in log for uuid in uuids] == [True, True]


@pytest.mark.real
@pytest.mark.parametrize("store", ["sqlite", "mongodb"])
def test_one_task_one_job_whatever_is_killed(
    store: str, distribution_cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stage: Stage
    if store == "sqlite":
        assert distribution_cluster.real is not None
        stage, control = SqliteStage(distribution_cluster, tmp_path), control_of(distribution_cluster.real)
    else:
        mongod: Mongod = request.getfixturevalue("mongod")
        stage, control = make_mongodb_stage(distribution_cluster, tmp_path, mongod.uri), None
    with stage:
        result = Storm(stage, control).run(submissions=60, faults=15, pace=0.7)
    assert result.faulty == [], result.summary()
    assert result.submitted == 60
    assert len(result.evidence.jobs) >= len(result.evidence.answered) > 0


def test_find_violations_names_each_broken_promise() -> None:
    sent = make_notification(status=NotificationStatus.SENT)
    good = make_record(slurm_job_id=7, slurm_job_state=JobState.COMPLETED, notifications=(sent,))
    running = good.model_copy(update={"slurm_job_state": JobState.RUNNING})
    silent = good.model_copy(update={"notifications": (make_notification(),)})
    reserved = make_record()
    freed = make_record(submission_error="it made no job")
    found = {
        words: find_violations(Evidence({"x": 7} if answered else {}, {"x": jobs}, {"x": record}, {"x": ids}))
        for words, answered, jobs, record, ids in [
            ("good", True, {7}, good, ["a", "a"]),
            ("freed", False, set(), freed, []),
            ("twice", True, {7, 8}, good, ["a"]),
            ("no job", True, set(), good, ["a"]),
            ("reserved", False, {7}, reserved, []),
            ("refused", False, set(), reserved, []),
            ("freed, but ran", False, {7}, freed, []),
            ("no end", True, {7}, running, ["a"]),
            ("not sent", True, {7}, silent, ["a"]),
            ("no message", True, {7}, good, []),
            ("two ids", True, {7}, good, ["a", "b"]),
        ]
    }
    assert [words for words, faulty in found.items() if not faulty] == ["good", "freed"]
