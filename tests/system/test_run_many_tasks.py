"""The scripts that run many tasks, as a reader copies them, against a server on the stand-in for Slurm."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import not_covered
from tests.support.scripts import Site, scripted_site, scripts_of

PAGE = "how-to/run-many-tasks.md"
FAIL_AT_FIRST = (4, 7, 10, 13, 16)  # of the tasks 1 to 20
ALIGN = f"""
case " {" ".join(map(str, FAIL_AT_FIRST))} " in
*" $1 "*) [ -e tried-$1 ] || {{ touch tried-$1; exit 9; }} ;;
esac
touch ran-$1
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with scripted_site(tmp_path) as site:
        yield site


@pytest.fixture
def twenty(site: Site) -> Site:
    """A folder in which five of the twenty tasks fail at their first attempt."""
    (site.folder / "align.sh").write_text(ALIGN)
    bash = scripts_of(PAGE, "bash")
    site.write("run-many", bash[0])
    site.write("run-task", bash[1])
    python = scripts_of(PAGE, "python")
    site.write("run_many.py", python[0])
    site.write("Snakefile", python[1])
    (makefile,) = scripts_of(PAGE, "make")
    site.write("Makefile", makefile)
    return site


def assert_each_ran_once(site: Site, memory: list[int]) -> None:
    """Assert that each task has succeeded in the end, and with how much memory each job ran."""
    assert {path.name for path in site.folder.glob("ran-*")} == {f"ran-{number}" for number in range(1, 21)}
    records = site.server._services.store.find_by_uuids(sorted(site.uuids))
    assert sorted(record.task["slurm"]["mem"] for record in records.values()) == memory


@pytest.mark.parametrize("program", [("bash", "run-many"), ("python3", "run_many.py")], ids=lambda it: it[0])
def test_twenty_tasks_and_those_that_fail_again_take_few_requests(
    twenty: Site, program: tuple[str, str]
) -> None:
    done = twenty.call(*program, "first")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"first-{number}: FAILED, NonZeroExitCode, exit code 9" for number in FAIL_AT_FIRST
    ]
    assert len(twenty.requests) == 27, twenty.requests  # as the page says
    assert_each_ran_once(twenty, [100] * 20 + [200] * 5)
    twenty.requests.clear()
    again = twenty.call(*program, "first")
    assert (again.returncode, again.stdout) == (done.returncode, done.stdout)
    assert_each_ran_once(twenty, [100] * 20 + [200] * 5)


def test_make_runs_tasks_and_those_that_failed_again(twenty: Site) -> None:
    first = twenty.call("make", "-k", "-j", "20", "RUN=first")
    assert first.returncode == 2
    lines = [line for line in first.stderr.splitlines() if line.startswith("first-")]
    assert len(lines) == len(FAIL_AT_FIRST)
    assert all("FAILED, exit code 9." in line for line in lines)
    second = twenty.call("make", "-k", "-j", "20", "RUN=first", "MEM=200")
    assert second.returncode == 0, second.stderr
    assert_each_ran_once(twenty, [100] * 20 + [200] * 5)


def test_snakemake_runs_tasks_that_fail_again(request: pytest.FixtureRequest, twenty: Site) -> None:
    program = os.environ.get("TEST_SNAKEMAKE") or shutil.which("snakemake")
    if program is None:
        not_covered(request, "Snakemake", "there is no snakemake on PATH, and TEST_SNAKEMAKE is not set")
    done = twenty.call(program, "--jobs", "20", "--keep-going", "--config", "run=first")
    assert done.returncode == 0, done.stderr
    assert_each_ran_once(twenty, [100] * 20 + [200] * 5)
