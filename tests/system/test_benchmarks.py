"""Every benchmark runs to its end, with the smallest numbers, on a stand-in for Slurm."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Part, main
from tests.support.service import ROOT

SMALLEST = {
    "submit": ["--number", "3", "--clients", "2", "--seconds", "0.2"],
    "look_up": ["--number", "3", "--clients", "2", "--seconds", "0.2", "--jobs", "3"],
    "herd": ["--callers", "5", "--seconds", "1.2", "--workers", "1"],
    "poll": ["--jobs", "3", "--array", "4", "--seconds", "0.2"],
    "ends": ["--number", "1", "--together", "2", "--among", "1"],
    "million": ["--records", "20", "--number", "2"],
    "workers": ["--workers", "1", "2", "--clients", "2", "--seconds", "0.2"],
    "outage": ["--seconds", "1", "--delay", "0.1", "--every", "0.2", "--workers", "1"],
}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_prints_its_conditions_and_a_row_for_the_store(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    importlib.import_module(f"benchmarks.{name}").main(["--stand-in", *SMALLEST[name]])
    conditions, processors, *table = capsys.readouterr().out.splitlines()
    assert conditions.startswith("slurm-proxy ")
    assert "Slurm stand-in" in conditions
    assert " processors, load " in processors
    assert any("÷ raw" in line for line in table)
    assert any(line.startswith("SQLite") for line in table)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("copies", ["SQLite: backup", "SQLite: export", "SQLite: import, repeated"]),
        ("space_per_task", ["record, in SQLite", "log, text", "log, json", "audit trail"]),
    ],
)
def test_a_benchmark_of_copies_or_space_has_a_line_for_each_of_its_figures(
    name: str, words: list[str]
) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "20"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert [word for word in words if not any(line.startswith(word) for line in lines)] == []


def test_the_report_has_a_part_for_each_benchmark_and_says_which_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = [Part("Records", "scrape", ("--records", "2000")), Part("Nothing", "no_such_benchmark")]
    report = tmp_path / "report.md"
    assert main(["--output", str(report), "--no-mongodb"], parts) == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("failed: no_such_benchmark")
    text = report.read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Records", "## Nothing"]
    assert "SQLite" in text


def test_the_benchmark_of_scrapes_has_a_row_for_few_and_for_many_records(
    capsys: pytest.CaptureFixture[str],
) -> None:
    importlib.import_module("benchmarks.scrape").main(["--records", "2000"])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("SQLite")]
    assert ["1,000" in rows[0], "2,000" in rows[1]] == [True, True]
