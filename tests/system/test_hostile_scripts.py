"""5,000 hostile tasks: bash runs the intended command alone, and every path is the one given.

A task is made from its number: `hostile(number, scratch)` makes a failing one again.
"""

import json
import os
import random
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.constants import TASK_METADATA
from app.errors import InvalidRequest
from app.lifecycle.job_identity import make_tag
from app.models.catalogue_entry import CatalogueEntry
from app.models.json_body import parse_json_object
from app.models.slurm_options import DEFAULT_ENVIRONMENT
from app.models.task import SubmitRequest, Task, parse_request
from app.slurm.dialect import SUPPORTED_API_VERSIONS, Dialect
from app.slurm.job_script import EXIT_CANNOT_CREATE, EXIT_NO_WORKING_DIRECTORY
from app.slurm.submission import build_submission

TASKS = 5000
CATALOGUE = {name: CatalogueEntry.model_validate(entry) for name, entry in TASK_METADATA.items()}
NAME_MAX = 255  # bytes
EXIT_RAN = 7  # nothing but the intended command ends with it

# What of this is run by mistake leaves a file behind, or changes the name of one.
SHELL = r"""
$(>pwned) `>pwned` ;>pwned; &&>pwned ||>pwned |>pwned &>pwned >pwned >>pwned 2>pwned <pwned <<EOF <<<x EOF
';>pwned;' ";>pwned;" '"'"' ' " '' ` $ $$ $@ $0 $HOME ${IFS} $IFS $'x' $((1)) $SLURM_JOB_ID * ? [a-z] {a,b}
~ ~root ! !! # & | ; ( ) { } = ^ , : - -- -e -rf -p . .. if done exit é 漢字 🦠
"""
FRAGMENTS = SHELL.split()
FRAGMENTS += [" ", "  ", " #", "$(touch pwned)", "|tee pwned", "exit 0", "#SBATCH --comment=x"]
FRAGMENTS += ["a" * 200, "ñ" * 130, "\u202e", "\u00a0", "\ufeff"]
# Slurm's patterns in the name of a file, and what becomes of them.
PATTERNS = {"%j": "42", "%6j": "000042", "%999999999999A": "0000000042", "%a": "4294967294", "%u": "alice"}
PATTERNS |= {"%N": "n1", "%%": "%", "%%j": "%j", "%%x": "%x", "%%q": "%q", "%%٣j": "%٣j", "%% ": "% "}
IN_PATHS = [*FRAGMENTS, *PATTERNS]
IN_LINES = [*IN_PATHS, "\\", "\\n", "/", "$'\\n'", "/etc/passwd", "../../pwned"]
IN_TEXT = [*IN_LINES, "\n", "\n>pwned\n", "\nEOF\n", "\r\n", "\t", "\x1b[2J", "\x7f", "\u2028"]
# Not BASH_ENV and SHELLOPTS, by which a caller may have bash run more text of their own.
VARIABLES = ["X", "PATH", "IFS", "CDPATH", "ENV", "PS4", "PROMPT_COMMAND", "PWD", "OLDPWD", "TMPDIR", "_"]
JOB = {"SLURM_JOB_ID": "42", "SLURM_JOB_USER": "alice", "SLURMD_NODENAME": "n1"}
PATHS = ["cwd", "dirs.parent", "dirs.input", "dirs.output", "dirs.error", "slurm.output", "slurm.error"]
LINES = ["name", "slurm.job_name", "slurm.comment", "slurm.account", "slurm.partition"]
WORDS = ["uuid", "username"]

Tree = dict[str, str | None]  # every path, with the text of a file, and None for a folder


@dataclass(frozen=True)
class Hostile:
    task: dict[str, Any]
    words: list[str]  # what its command writes to the file `ran` in its working directory
    files: dict[str, str]  # the paths of its output files by stream, their patterns expanded
    cwd_exists: bool  # before its script runs

    def redirects(self, dialect: Dialect) -> bool:
        """Return whether the script sends the output to its files itself."""
        names = [self.task["slurm"].get(stream, "").replace("%%", "") for stream in ("output", "error")]
        return dialect.api < "v0.0.42" or "%N" in "".join(names)


def hostile(number: int, scratch: Path) -> Hostile:
    """A task with all its paths below `scratch`."""
    rng = random.Random(f"hostile task {number}")
    absolute = [f"$(>{scratch}/pwned)", f"`>{scratch}/pwned`", f"';>{scratch}/pwned;'"]

    def text(fragments: list[str]) -> str:
        return "".join(rng.choices(fragments + absolute, k=rng.choice([1, 1, 2, 3])))[:220]

    def path() -> str:
        """At most four steps, which may lead up, from a folder that lies four steps below `scratch`."""
        steps = [rng.choice([text(IN_PATHS)] * 9 + ["..", ""]) for _ in range(rng.randint(1, 4))]
        return "/".join([f"{scratch}/1/2/3/4", *steps]) + rng.choice(["", "", "/"])

    def file_name(patterns: dict[str, str]) -> tuple[str, str]:
        """A name, and what Slurm makes of it."""
        pieces = [rng.choice(FRAGMENTS), rng.choice(list(patterns)), rng.choice(["", "x", *FRAGMENTS])]
        if sum(map(len, pieces)) > 255:
            return file_name(patterns)
        return "".join(pieces), "".join(patterns.get(piece, piece) for piece in pieces)

    dirs = {name: path() for name in ("parent", "input", "output", "error")}
    if rng.random() < 0.3:
        dirs |= {"input": dirs["parent"] + "/input", "error": dirs["output"]}
    slurm: dict[str, Any] = {name: text(IN_LINES) for name in ("job_name", "comment", "account", "partition")}
    job_name = {} if "/" in slurm["job_name"] else dict.fromkeys(("%x", "%9x"), slurm["job_name"])
    files = {}
    for stream in rng.choice([("output", "error"), ("output", "error"), ("output",), ("error",), ()]):
        slurm[stream], name = file_name(PATTERNS | job_name)
        files[stream] = f"{os.path.normpath(dirs[stream])}/{name}"
    if len(files) == 2 and dirs["output"] == dirs["error"]:
        slurm["error"], files["error"] = slurm["output"], files["output"]
    names = rng.sample(VARIABLES, k=rng.randint(0, 3))
    slurm["environment"] = {name: text(IN_TEXT) for name in names}
    words = [text(IN_TEXT) for _ in range(rng.randint(1, 4))]
    task = {
        "name": "generic",
        "username": "alice",
        "uuid": "".join(rng.choices("aZ9._:-", k=rng.randint(1, 128))),
        "cwd": rng.choice([*dirs.values(), path(), path()]),
        "dirs": dirs,
        "cmd": "printf",
        "params": ["'%s\\0'", *map(shlex.quote, words), f">>ran; echo out; echo err >&2; exit {EXIT_RAN}"],
        "slurm": slurm,
        text(IN_LINES): text(IN_TEXT),
    }
    return Hostile(task, words, files, cwd_exists=rng.random() < 0.9)


def way(path: str) -> list[str]:
    """The folders from the top to `path`, without ".."; there are no links."""
    steps = path.split("/")
    return [os.path.normpath("/" + "/".join(steps[1:end])) for end in range(1, len(steps) + 1)]


def make_folder(tree: Tree, path: str) -> bool:
    """What `mkdir -p` does: every folder on the way, until one cannot be."""
    for step in way(path):
        if len(step.rpartition("/")[2].encode()) > NAME_MAX:
            return False
        tree[step] = None
    return True


def outcome(made: Hostile, tree: Tree, *, redirects: bool) -> tuple[int, str, str]:
    """The script's exit status and what it writes past its files; `tree` becomes what must be there then."""
    if False in [make_folder(tree, folder) for folder in made.task["dirs"].values()]:
        return EXIT_CANNOT_CREATE, "", ""
    if not tree.keys() >= set(way(made.task["cwd"])):
        return EXIT_NO_WORKING_DIRECTORY, "", ""
    default = f"{os.path.normpath(made.task['cwd'])}/slurm-42.out"
    files = {"output": default, **made.files} if redirects else {}
    for path in files.values():
        is_folder = tree.get(os.path.normpath(path), "") is None
        if is_folder or len(path.rpartition("/")[2].encode()) > NAME_MAX:
            return EXIT_CANNOT_CREATE, "", ""
        tree[path] = ""
    left = {"output": "out\n", "error": "err\n"}
    for stream in files and ("output", "error"):
        path = files.get(stream) or files["output"]
        tree[path] = f"{tree[path]}{left[stream]}"
        left[stream] = ""
    tree[f"{os.path.normpath(made.task['cwd'])}/ran"] = "".join(f"{word}\0" for word in made.words)
    return EXIT_RAN, left["output"], left["error"]


def run(made: Hostile, script: str, scratch: Path, *, redirects: bool) -> int:
    """Runs a script as a node does, and compares all that there is afterwards; the exit status."""
    spool, slurm = scratch / "spool", made.task["slurm"]
    tree: Tree = {}
    for folder in (str(spool), f"{scratch}/1/2/3/4", *[made.task["cwd"]] * made.cwd_exists):
        make_folder(tree, folder)
    for folder in tree:
        Path(folder).mkdir(exist_ok=True)
    (spool / "script").write_text(script)
    tree[str(spool / "script")] = script
    status, stdout, stderr = outcome(made, tree, redirects=redirects)
    env = {"HOME": str(spool), "SLURM_JOB_NAME": slurm["job_name"], **JOB}
    env |= DEFAULT_ENVIRONMENT | slurm["environment"]
    options: dict[str, Any] = {"cwd": spool, "env": env, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(["/bin/bash", "script"], check=False, **options)
    assert (done.returncode, done.stdout) == (status, stdout), done.stderr
    assert status != EXIT_RAN or done.stderr == stderr
    there = {str(path): None if path.is_dir() else path.read_bytes().decode() for path in scratch.rglob("*")}
    assert there == {path: text for path, text in tree.items() if path.startswith(f"{scratch}/")}
    shutil.rmtree(scratch)
    return status


def described(made: Hostile, dialect: Dialect) -> dict[str, Any]:
    """Return the job as Slurm must hear of it: the caller's text, in which only a folder's % is doubled."""
    task, slurm = made.task, made.task["slurm"]
    job = {
        "name": slurm["job_name"],
        "comment": f"slurm-proxy:{task['uuid']} {slurm['comment']}",
        "account": slurm["account"],
        "partition": slurm["partition"],
        "current_working_directory": task["cwd"],
    }
    if made.redirects(dialect):
        return job | {"standard_output": "/dev/null"}
    places = {"output": (task["cwd"], "slurm-%j.out")}
    places |= {stream: (task["dirs"][stream], slurm[stream]) for stream in made.files}
    paths = {stream: f"{at.rstrip('/').replace('%', '%%')}/{name}" for stream, (at, name) in places.items()}
    if paths.get("error") == paths["output"]:
        del paths["error"]
    return job | {f"standard_{stream}": path for stream, path in paths.items()}


def variables(environment: dict[str, str] | list[str]) -> dict[str, str]:
    """The variables that a job is submitted with, without those that mpirun reads."""
    pairs = (
        environment.items() if isinstance(environment, dict) else (item.split("=", 1) for item in environment)
    )
    return {name: value for name, value in pairs if value not in ("slurm", "--external-launcher")}


def expected_variables(task: dict[str, Any]) -> dict[str, str]:
    host = socket.gethostname().partition(".")[0]
    service = {"SLURM_PRIO_PROCESS": "0", "SLURM_SUBMIT_DIR": task["cwd"], "SLURM_SUBMIT_HOST": host}
    return {**service, **DEFAULT_ENVIRONMENT, **task["slurm"]["environment"]}


def parsed(task: dict[str, Any]) -> Task:
    """The task as the service reads it from the body of a request."""
    context = {"catalogue": CATALOGUE, "refused_users": {"root", "slurm"}}
    return parse_request(SubmitRequest, parse_json_object(json.dumps({"task": task}).encode()), context).task


def check(number: int, scratch: Path) -> list[int]:
    """The exit statuses of both scripts of a task, once everything about them has been found right."""
    made = hostile(number, scratch)
    try:
        task = parsed(made.task)
        scripts = {}
        for dialect in map(Dialect, SUPPORTED_API_VERSIONS):
            command = CATALOGUE[task.name].build_command(task)
            body = build_submission(task, command, make_tag(task.uuid), dialect, "hours")
            assert variables(body["job"].pop("environment")) == expected_variables(made.task)
            assert body["job"] == described(made, dialect)
            scripts[body["script"]] = made.redirects(dialect)
        assert len(scripts) == len(set(scripts.values()))
        return [run(made, script, scratch, redirects=redirects) for script, redirects in scripts.items()]
    except Exception as error:
        error.add_note(f"task {number}: {json.dumps(made.task)}")
        raise


def test_only_the_intended_command_runs_and_every_path_is_the_one_given() -> None:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # spares a disk 100,000 folders
    with tempfile.TemporaryDirectory(dir=memory) as folder, ThreadPoolExecutor(4) as pool:
        checked = pool.map(lambda number: check(number, Path(folder, str(number))), range(TASKS))
        statuses = Counter(status for both in checked for status in both)
    assert statuses.keys() == {EXIT_RAN, EXIT_CANNOT_CREATE, EXIT_NO_WORKING_DIRECTORY}
    assert statuses[EXIT_RAN] > 1.2 * TASKS, statuses


def test_a_line_end_in_a_value_is_refused_with_the_name_of_its_field() -> None:
    """Each of the tasks again, with one fault in one field."""
    for number in range(TASKS):
        rng = random.Random(f"fault {number}")
        field = rng.choice(PATHS + LINES + WORDS)
        faults = ["\n", "\r", "\0", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\n>pwned\n"]
        faults += [] if field in LINES else ["\\"]
        faults += ["$(", " ", "'", ";", "/", "é"] if field in WORDS else []
        task = hostile(number, Path("/scratch")).task
        *folder, key = field.split(".")
        holder = task[folder[0]] if folder else task
        text = holder.get(key, "x")
        at = rng.randint(0, len(text))
        holder[key] = text[:at] + rng.choice(faults) + text[at:]
        with pytest.raises(InvalidRequest) as refusal:
            parsed(task)
        assert [fault.split(":")[0] for fault in refusal.value.faults] == [f"task.{field}"], json.dumps(task)
