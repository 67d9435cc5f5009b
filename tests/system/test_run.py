"""run.py as its user starts it."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import until
from tests.support.service import ROOT

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONWARNINGS": "error"}


def run(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=folder,
        env={**ENVIRONMENT, **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_without_a_cluster_the_error_names_in_one_sentence_what_to_set(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "slurm-proxy cannot start: set SLURM_REST_HOST to the address of your cluster's slurmrestd and"
        " SLURM_JWT_HS256_KEY_PATH to its key (.env.example explains both), or add --demo to run without"
        " a cluster\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"SLURM_REST_HOST": "http://127.0.0.1:9"}, "SLURM_JWT_HS256_KEY"),
        ({"SLURM_REST_HOST": "nonsense", "SLURM_JWT_HS256_KEY_BASE64": "c2VjcmV0"}, "SLURM_REST_HOST"),
        ({"MONITOR_POLLING_SECONDS": "soon"}, "MONITOR_POLLING_SECONDS"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, settings: dict[str, str], named: str) -> None:
    done = run(tmp_path, **settings)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def shown_in_the_readme() -> str:
    (block,) = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text(), re.S | re.M)
    return re.sub(r"^(…| +\d+\.\d s  (PENDING|RUNNING))\n", "", block, flags=re.M)


def without_figures(output: str) -> set[str]:
    """Return the lines of the demonstration, without what differs from run to run."""
    output = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", output)
    output = re.sub(r"of \w+ at .*\)$", "of <user> at <time>)", output, flags=re.M)
    return set(re.sub(r" *\d+", "<number>", output).splitlines())


def test_the_demo_shows_a_task_from_end_to_end(tmp_path: Path) -> None:
    done = run(tmp_path, "--demo", FLASK_APP_PORT="0")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "local stand-in for Slurm" in done.stdout
    states = re.findall(r"^ +\d+\.\d s  (\w+)$", done.stdout, re.MULTILINE)
    assert states[-1] == "COMPLETED"
    assert re.search(r"^hello, world! \(job 1 of ", done.stdout, re.MULTILINE)
    assert "The notification, sent by test\nSubject: hello, world has ended" in done.stdout
    assert without_figures(shown_in_the_readme()) <= without_figures(done.stdout)
    assert "curl" not in done.stdout  # the server has stopped


def test_with_a_terminal_the_demo_goes_on_serving_until_ctrl_c(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "--demo"],
        cwd=tmp_path,
        env={**ENVIRONMENT, "FLASK_APP_PORT": "0"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""

    def serves() -> bool:
        nonlocal said
        said += os.read(ours, 65536)
        return b"Serving until Ctrl-C." in said

    try:
        until(serves, 60, "the end of the demonstration")
        assert process.poll() is None
        (curl,) = [line for line in said.decode().splitlines() if line.startswith("  curl ")]
        _, flag, body, url = shlex.split(curl)
        assert flag == "-d"
        assert url.endswith("/submit")
        assert json.loads(body)["task"]["name"] == "generic"
        assert re.findall(rb"\b(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\b.*", said) == []
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)
