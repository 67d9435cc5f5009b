"""The command lines of the benchmarks."""

import importlib
from typing import Any

import pytest

from benchmarks.command import list_stores

NAMES = ("submit", "look_up", "herd", "poll", "ends", "million", "outage", "workers")


def parse(name: str, *arguments: str) -> Any:
    return importlib.import_module(f"benchmarks.{name}").parse_options(list(arguments))


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_runs_without_arguments_on_sqlite(name: str) -> None:
    options = parse(name)
    assert not options.stand_in
    (store,) = list_stores(options)
    assert store.name.startswith("SQLite ")
    assert store.mongodb is None


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(name, "--help")
    assert ended.value.code == 0
    words = capsys.readouterr().out
    assert f"python -m benchmarks.{name}" in words
    assert "--mongodb" in words


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_takes_several_databases(name: str) -> None:
    options = parse(name, "--mongodb", "mongodb://a", "--mongodb", "mongodb://b", "--stand-in")
    assert options.mongodb == ["mongodb://a", "mongodb://b"]
    assert options.stand_in


def test_an_unknown_client_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("submit", "--client", "curl")
    assert ended.value.code == 2
    assert "'requests', 'socket'" in capsys.readouterr().err
