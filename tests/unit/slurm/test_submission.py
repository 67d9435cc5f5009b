"""Every option of `task.slurm` reaches the request body of a submission, in every dialect.

`tests/contract/test_slurm_options.py` compares the jobs with those of sbatch.
"""

from typing import Any

import pytest

from app.demo.cluster.submission import KNOWN_FIELDS
from app.demo.cluster.wire import API
from app.errors import SlurmRefused
from app.models.slurm_options import SlurmOptions
from app.models.task import Task
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.submission import build_submission
from tests.support.sbatch_options import (
    ENVIRONMENTS,
    EXAMPLES,
    FOR_AN_ENVIRONMENT,
    ON_ANY_CLUSTER,
    READ_BACK_ELSEWHERE,
    STRUCTURED_ONLY,
    WITHOUT_ENVIRONMENT,
    other_options_for_an_environment,
)
from tests.support.tasks import make_task


def body(dialect: Dialect, slurm: dict[str, Any]) -> dict[str, Any]:
    task = Task.model_validate(make_task(folder="/d", uuid="u", slurm=slurm))
    return build_submission(task, "true", "slurm-proxy:u", dialect, "hours")


@pytest.mark.parametrize("api", SUPPORTED_API_VERSIONS)
@pytest.mark.parametrize("option", SlurmOptions.model_fields)
def test_every_option_changes_what_is_submitted(option: str, api: str) -> None:
    beside = {"output": "o"} if option == "open_mode" else {}
    if option in STRUCTURED_ONLY and api == "v0.0.38":
        with pytest.raises(SlurmRefused, match=f"task.slurm.{option}: .* v0.0.38"):
            body(Dialect(api), {option: EXAMPLES[option]})
        return
    assert body(Dialect(api), {option: EXAMPLES[option], **beside}) != body(Dialect(api), beside)


def test_every_option_has_a_case_that_a_real_slurm_reads_back() -> None:
    assert {case.option for case in ON_ANY_CLUSTER} == SlurmOptions.model_fields.keys() - READ_BACK_ELSEWHERE


def test_the_environment_of_a_job_with_each_option_is_compared_with_that_of_sbatch() -> None:
    compared = {*FOR_AN_ENVIRONMENT, *(option for options in ENVIRONMENTS.values() for option in options)}
    compared |= {case.option for case in other_options_for_an_environment(is_ours=True, is_structured=True)}
    assert compared | WITHOUT_ENVIRONMENT.keys() == SlurmOptions.model_fields.keys()
    assert compared & WITHOUT_ENVIRONMENT.keys() == set()


def test_requeue_false_is_sent_as_no_requeue_before_the_structured_form() -> None:
    old, new = (body(Dialect(api), {"requeue": False})["job"] for api in ("v0.0.38", "v0.0.45"))
    assert (old["no_requeue"], new["requeue"]) == (True, False)
    assert "requeue" not in old  # its mere presence means yes
    assert "no_requeue" not in body(Dialect("v0.0.38"), {"requeue": True})["job"]


@pytest.mark.parametrize("api", SUPPORTED_API_VERSIONS)
@pytest.mark.parametrize("limit", [{"time": 0}, {"time_minutes": 0}, {"time": "unlimited"}, {"time": "0:00"}])
def test_a_time_limit_of_0_is_sent_as_no_limit(api: str, limit: dict[str, Any]) -> None:
    sent = body(Dialect(api), limit)["job"]["time_limit"]
    assert sent == (0 if api == "v0.0.38" else {"set": True, "infinite": True, "number": 0})


@pytest.mark.parametrize("api", SUPPORTED_API_VERSIONS)
def test_text_in_an_option_is_sent_as_the_number_that_it_means(api: str) -> None:
    given = {"mem": "4G", "time": "1-02:30:00", "time_min": "90:30"}
    job = body(Dialect(api), given)["job"]
    assert (job["memory_per_node"], job["time_limit"], job["time_minimum"]) == (4096, 1590, 91)


@pytest.mark.parametrize("option", SlurmOptions.model_fields)
def test_the_local_cluster_knows_the_fields_of_every_option(option: str) -> None:
    unknown = body(Dialect(API), {option: EXAMPLES[option]})["job"].keys() - KNOWN_FIELDS
    assert unknown == set(), "name these fields in app/demo/cluster/submission.py"
