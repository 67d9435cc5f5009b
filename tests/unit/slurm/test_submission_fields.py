"""Each field of a submission is one that slurmrestd documents. Newer API versions ignore an unknown field."""

import json

import pytest

from app.models.slurm_options import SlurmOptions
from app.models.task import Task
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.submission import build_submission
from tests.support.list_submission_fields import FIELDS
from tests.support.sbatch_options import EXAMPLES, ON_ANY_CLUSTER, ON_OUR_CLUSTER, STRUCTURED_ONLY
from tests.support.tasks import make_task

DOCUMENTED: dict[str, list[str]] = json.loads(FIELDS.read_text())
# 22.05 refuses an unknown field, and accepts these as names of options of sbatch; its document omits them.
UNDOCUMENTED = {"v0.0.38": {"exclude_nodes", "no_requeue", "nodelist"}}


def test_the_fields_of_every_supported_api_version_are_listed() -> None:
    missing = set(SUPPORTED_API_VERSIONS) - DOCUMENTED.keys()
    assert missing == set(), "run tests/support/list_submission_fields.py"


@pytest.mark.parametrize("api", SUPPORTED_API_VERSIONS)
@pytest.mark.parametrize("option", SlurmOptions.model_fields)
def test_every_field_of_an_option_is_known_to_slurmrestd(option: str, api: str) -> None:
    if option in STRUCTURED_ONLY and api == "v0.0.38":
        return
    given = [case.slurm for case in [*ON_ANY_CLUSTER, *ON_OUR_CLUSTER] if case.option == option]
    for slurm in given or [{option: EXAMPLES[option]}]:
        task = Task.model_validate(make_task(folder="/d", uuid="u", slurm=slurm))
        job = build_submission(task, "true", "slurm-proxy:u", Dialect(api), "hours")["job"]
        unknown = job.keys() - set(DOCUMENTED[api]) - UNDOCUMENTED.get(api, set())
        assert unknown == set(), "slurmrestd has another name for the option: see app/slurm/dialect.py"
