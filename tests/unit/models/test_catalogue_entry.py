"""Entries of TASK_METADATA: parameters, defaults, and what stops the start."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.builders import build_catalogue
from app.constants import Settings
from app.errors import SettingsError
from app.models.catalogue_entry import CatalogueEntry
from app.models.shell_words import is_closed
from app.models.task import Task
from app.models.task_defaults import merge_defaults
from tests.support.tasks import make_task

TEXT = {"type": "string"}


def entry_with(properties: dict[str, Any], *params: str, **fields: Any) -> CatalogueEntry:
    """Return an entry that prints its parameters, each with a NUL character after it."""
    schema = {"properties": properties, "required": list(properties), **fields.pop("schema", {})}
    entry = {"cmd": r"printf '%s\0'", "default_params": params, "parameters": schema, **fields}
    return CatalogueEntry.model_validate(entry)


def run_command(entry: CatalogueEntry, folder: Path, **parameters: Any) -> list[str]:
    """Return the arguments that the command gets, run by bash in an empty folder."""
    command = entry.build_command(
        Task.model_validate(make_task(cmd=None, params=None, parameters=parameters))
    )
    script = folder / "script"
    script.write_text(command + "\n", newline="")
    done = subprocess.run(["bash", script.name], cwd=folder, capture_output=True, check=True, timeout=10)
    assert done.stderr == b""
    script.unlink()
    assert list(folder.iterdir()) == [], "a value was evaluated"
    return done.stdout.decode().split("\0")[:-1]


HOSTILE = [
    "it's",
    '"quotes"',
    "$(touch here)",
    "`touch here`",
    "a\nb\r\n; touch here",
    "'; touch here; '",
    "\\",
    "'\\''",
    "${HOME} $HOME ~ * ? [a-z] {a,b}",
    "-n",
    "",
    " ",
    "#",
    "!!",
    "EOF\ntouch here\n",
    "ünï\u2028\x01",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_reaches_the_command_byte_for_byte(tmp_path: Path, value: str) -> None:
    entry = entry_with({"x": TEXT}, "${x}", "--name=${x}", "${x}/${x}.txt -- ${x}", '"$HOME [0-9] #"', "${x}")
    home = f"{Path.home()} [0-9] #"
    shown = run_command(entry, tmp_path, x=value)
    assert [word.replace(str(Path.home()), "~") for word in shown] == [
        word.replace(str(Path.home()), "~")
        for word in (value, f"--name={value}", f"{value}/{value}.txt", "--", value, home, value)
    ]


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_any_text_reaches_the_command_unchanged(tmp_path: Path, value: str) -> None:
    assert run_command(entry_with({"x": TEXT}, "${x}", "a=${x}"), tmp_path, x=value) == [value, f"a={value}"]


def test_numbers_booleans_and_lists_become_words(tmp_path: Path) -> None:
    files = {"type": "array", "items": TEXT}
    entry = entry_with(
        {"n": {"type": "number"}, "b": {"type": "boolean"}, "f": files}, "${n} ${b}", "${f}", "e"
    )
    assert run_command(entry, tmp_path, n=1.5, b=True, f=["a b", "$x", "it's"]) == [
        *("1.5", "true", "a b", "$x", "it's", "e"),
    ]
    assert run_command(entry, tmp_path, n=7, b=False, f=[]) == ["7", "false", "e"]


def test_defaults_fill_the_parameters_that_a_task_does_not_give(tmp_path: Path) -> None:
    entry = entry_with({"x": {**TEXT, "default": "a b"}, "y": TEXT}, "${x}", "${y}")
    assert run_command(entry, tmp_path, y="c") == ["a b", "c"]
    assert run_command(entry, tmp_path, x="d", y="c") == ["d", "c"]
    assert list(entry.list_parameter_faults({"y": "c"}, "task.parameters")) == []


def test_without_parameters_the_shell_fills_its_variables() -> None:
    entry = CatalogueEntry.model_validate({"cmd": "echo ${HOME}", "default_params": ["${USER}"]})
    task = Task.model_validate(make_task(cmd=None, params=None, parameters=[1]))
    assert entry.build_command(task) == "echo ${HOME} ${USER}"
    assert list(entry.list_parameter_faults([1], "task.parameters")) == []


SCHEMA = {
    "properties": {
        "sample": {"type": "string", "pattern": "^[A-Z]+$", "maxLength": 5},
        "threads": {"type": "integer", "minimum": 1, "maximum": 64, "default": 4},
        "mode": {"enum": ["fast", "slow", 3]},
        "files": {"type": "array", "items": {"$ref": "#/$defs/file"}, "minItems": 1, "uniqueItems": True},
        "ratio": {"type": ["number", "null"], "exclusiveMinimum": 0, "multipleOf": 0.5},
        "fixed": {"const": "yes"},
        "never": False,
        "more": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["b"]},
        "any": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]},
    },
    "required": ["sample", "threads"],
    "$defs": {"file": {"type": "string", "minLength": 2}},
}


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        (None, [": is required"]),
        ([], [" must be an object"]),
        ({"sample": "abc"}, [".sample: must match the regular expression ^[A-Z]+$"]),
        ({"sample": "ABC\n"}, [".sample: must match the regular expression ^[A-Z]+$"]),
        ({"sample": "ABCDEF"}, [".sample: must have at most 5 characters"]),
        ({"sample": 5, "threads": "4"}, [".sample: must be a string", ".threads: must be an integer"]),
        ({"sample": "A", "threads": 0}, [".threads: must be at least 1"]),
        ({"sample": "A", "threads": 65}, [".threads: must be at most 64"]),
        ({"sample": "A", "threads": True}, [".threads: must be an integer"]),
        ({"sample": "A", "mode": "quick"}, [".mode: must be one of fast, slow, 3"]),
        ({"sample": "A", "files": []}, [".files: must not be empty"]),
        (
            {"sample": "A", "files": ["ab", "a", 1]},
            ["[1]: must have at least 2 char", "[2]: must be a string"],
        ),
        ({"sample": "A", "files": ["ab", "ab"]}, [".files: must not have the same item twice"]),
        ({"sample": "A", "ratio": "1"}, [".ratio: must be a number or null"]),
        ({"sample": "A", "ratio": 0}, [".ratio: must be greater than 0"]),
        ({"sample": "A", "ratio": 0.75}, [".ratio: must be a multiple of 0.5"]),
        ({"sample": "A", "fixed": "no"}, [".fixed: must be yes"]),
        ({"sample": "A", "never": 1}, [".never: must not be given"]),
        ({"sample": "A", "more": {"a": 1}}, [".more.b: is required", ".more.a: must be true or false"]),
        ({"sample": "A", "any": "x"}, [".any: must meet the rule anyOf"]),
        ({"sample": "A", "thread": 1}, [".thread: is not known; did you mean threads?"]),
        ({"sample": "A", "zzz": 1}, [".zzz: is not known; known here: sample, threads, mode"]),
        ({"sample": "A" * 2000}, ["5 characters", ".sample: must have at most 1000 characters"]),
        ({"sample": "A", "threads": 64, "mode": 3, "files": ["ab"], "ratio": None, "fixed": "yes"}, []),
    ],
)
def test_faults_of_parameters_name_their_path_in_words(given: Any, faults: list[str]) -> None:
    entry = CatalogueEntry.model_validate({"parameters": SCHEMA})
    found = list(entry.list_parameter_faults(given, "task.parameters"))
    assert len(found) == len(faults), found
    for fault in faults:
        assert any(fault in one for one in found), found
    assert all(one.startswith("task.parameters") for one in found)


@pytest.mark.parametrize(
    ("pattern", "text", "is_good"),
    [
        ("^a$", "a", True),
        ("^a$", "a\n", False),
        ("^(?:a$|b)", "a\n", False),
        (r"^\$$", "$", True),
        ("^[$]$", "$", True),
        ("^[]$]$", "$", True),
        (r"^[\]$]$", "$\n", False),
        (r"^\d\w$", "4b", True),
        (r"^\d$", "\u0664", False),
        (r"^\w$", "\u00e4", False),
    ],
)
def test_a_pattern_means_what_json_schema_says(pattern: str, text: str, is_good: bool) -> None:
    by_value = {"properties": {"x": {"pattern": pattern}}}
    by_name = {"patternProperties": {pattern: True}, "additionalProperties": False}
    for parameters, value in ((by_value, {"x": text}), (by_name, {text: 1})):
        entry = CatalogueEntry.model_validate({"parameters": parameters})
        assert (list(entry.list_parameter_faults(value, "task.parameters")) == []) == is_good


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ({"a": 1}, "must be a string, a number, true or false, or a list of these"),
        (None, "must be a string, a number, true or false, or a list of these"),
        ([[1]], "must be a string, a number, true or false, or a list of these"),
        (["a"], "must not be a list, because it is only a part of a word of the command"),
    ],
)
def test_a_value_that_is_no_word_is_refused(value: Any, fault: str) -> None:
    entry = entry_with({"x": True}, "${x}", "--x=${x}")
    assert list(entry.list_parameter_faults({"x": value}, "task.parameters")) == [
        f"task.parameters.x: {fault}"
    ]


PROPERTIES = {"properties": {"x": TEXT}, "required": ["x"]}


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"parameters": {"type": "array"}}, 'parameters: type must be "object"'),
        (
            {"parameters": {"properties": {"x": {"type": "text"}}}},
            "parameters: properties.x.type: 'text' is not",
        ),
        ({"parameters": {"$schema": "http://json-schema.org/draft-07/schema#"}}, r"\$schema must be https"),
        ({"parameters": {"$ref": "https://example.com/schema"}}, r'\$ref must be "#/\$defs/" and a name'),
        ({"parameters": {"properties": {"x": {"$ref": "#/$defs/y"}}}}, r"\$ref must be"),
        ({"parameters": {"properties": {"x": {"$ref": "#"}}}}, r"\$ref must be"),
        ({"parameters": {"$defs": {"y": {"items": {"$ref": "#/$defs/y"}}}}}, "must not lead back to itself"),
        ({"parameters": {"$id": "https://example.com"}}, r"\$id is not supported"),
        ({"parameters": {"anyOf": [{"$dynamicRef": "#x"}]}}, r"\$dynamicRef is not supported"),
        ({"parameters": {"properties": {"x": {"pattern": "(a+)+$"}}}}, "could take hours"),
        ({"parameters": {"properties": {"x": {"items": {"pattern": "^(a|a)*$"}}}}}, "could take hours"),
        ({"parameters": {"patternProperties": {"(x+x+)+y": True}}}, "could take hours"),
        ({"parameters": {"properties": {"x": {"pattern": "["}}}}, "cannot be used|is not a 'regex'"),
        (
            {"parameters": {"properties": {"x": {**TEXT, "default": 1}}}},
            "properties.x.default: must be a string",
        ),
        (
            {"parameters": PROPERTIES, "default_params": ["${y}"]},
            r"\$\{y\} is not among the parameters; write \$y",
        ),
        ({"parameters": PROPERTIES, "cmd": "echo ${x}"}, r"cmd: \$\{x\} is filled in default_params only"),
        (
            {"parameters": {"properties": {"x": TEXT}}, "default_params": ["${x}"]},
            r"\$\{x\} needs a default, or a place in required",
        ),
        (
            {
                "parameters": {"properties": {"x": {"type": "array", "default": []}}},
                "default_params": ["-${x}"],
            },
            "parameters.x: must not be a list",
        ),
        ({"slurm": {"memm": 1}}, "align.slurm: memm: is not known; did you mean mem?"),
        ({"slurm": {"mem": 1, "mem_per_cpu": 1}}, "align.slurm: .*must not give both"),
        ({"dirs": {"output": "x"}}, "align.dirs: output: must be an absolute path"),
        ({"dirs": {"outptu": "/x"}}, "align.dirs: outptu: is not known; did you mean output?"),
        (
            {"dirs": {"output": "/x/${user}"}},
            r"output: \$\{user\} is not known; folders may have \$\{username\}",
        ),
    ],
)
def test_an_entry_that_cannot_be_used_stops_the_start_and_is_named(entry: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingsError, match=fault) as caught:
        build_catalogue(Settings.model_validate({"TASK_METADATA": {"align": entry}}))
    assert str(caught.value).startswith("TASK_METADATA: align")


@pytest.mark.parametrize(
    "params",
    [
        ['"${x}"'],
        ["'${x}'"],
        ["a\\${x}"],
        ["`echo ${x}`"],
        ["$(echo ${x})"],
        ["$((${x}))"],
        ["a;${x}"],
        ["~${x}"],
        ['"', "${x}", '"'],
        ["'", "${x}", "'"],
        ["`", "${x}", "`"],
        ["$(", "${x}", ")"],
        ["#", "${x}"],
        ["a >#b", "${x}"],
        ["<<EOF\n", "${x}", "\nEOF"],
        ["[[", "${x}", "-eq 1 ]]"],
        ["((", "${x}", "))"],
        ['"$(echo "x" "', "${x}"],
        ['"$(echo ")" "', "${x}"],
        ["$'\\'' '", "${x}"],
        ["\\", "${x}"],
        ["${y:-", "${x}", "}"],
        ["{", "${x}", "}"],
    ],
)
def test_a_placeholder_where_a_value_could_be_evaluated_stops_the_start(params: list[str]) -> None:
    with pytest.raises(ValueError, match="default_params: "):
        entry_with({"x": TEXT}, *params)


@pytest.mark.parametrize(
    "text",
    ["-e 'a b' \"it's $HOME\" $HOME a\\ b", "data/[0-9]*.txt", "a#b", "<in >out 2>&1", "<<<word", "'$('", ""],
)
def test_plain_text_may_stand_before_a_placeholder(tmp_path: Path, text: str) -> None:
    assert is_closed(text)
    entry_with({"x": TEXT}, text, "${x}")


def test_an_entry_may_have_more_than_the_shell_understands_if_nothing_is_filled() -> None:
    entry_with({"x": TEXT}, "`date`", "$(date)", '"', "#")


DEFAULTS = CatalogueEntry.model_validate(
    {
        "slurm": {"mem": 4000, "time": 2, "partition": "long", "environment": "A=1"},
        "dirs": {
            "parent": "/scratch/${username}/${uuid}",
            "input": "/data",
            "output": "/scratch/${username}/${uuid}/out",
        },
    }
)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, {"mem": 4000, "time": 2, "partition": "long", "environment": "A=1"}),
        ({"mem": 1}, {"mem": 1, "time": 2, "partition": "long", "environment": "A=1"}),
        ({"mem_per_cpu": 1}, {"mem_per_cpu": 1, "time": 2, "partition": "long", "environment": "A=1"}),
        (
            {"time_minutes": 5, "mem": None},
            {"time_minutes": 5, "mem": None, "partition": "long", "environment": "A=1"},
        ),
        (
            {"time_minutes": None, "environment": {}},
            {"time_minutes": None, "environment": {}, "mem": 4000, "time": 2, "partition": "long"},
        ),
    ],
)
def test_the_tasks_own_options_have_precedence(own: dict[str, Any], expected: dict[str, Any]) -> None:
    task = make_task(slurm=own)
    merged = merge_defaults(task, DEFAULTS.select_defaults(task))
    assert merged["slurm"] == expected
    assert task["slurm"] == own


def test_default_folders_may_hold_the_user_and_the_uuid() -> None:
    task = make_task(uuid="u-1", dirs={"error": "/e", "input": "/i"})
    assert merge_defaults(task, DEFAULTS.select_defaults(task))["dirs"] == {
        "parent": "/scratch/alice/u-1",
        "input": "/i",
        "output": "/scratch/alice/u-1/out",
        "error": "/e",
    }


def test_a_task_that_gives_everything_has_no_defaults() -> None:
    everything = dict.fromkeys(("parent", "input", "output", "error"), "/x")
    slurm = {"mem": 1, "time": 1, "partition": "a", "environment": "A=1"}
    assert DEFAULTS.select_defaults(make_task(dirs=everything, slurm=slurm)) == {}
    assert CatalogueEntry(slurm={}).select_defaults({"name": "x"}) == {"slurm": {}}
    assert CatalogueEntry(slurm={"mem": 1}).select_defaults({"slurm": [1]}) == {}
