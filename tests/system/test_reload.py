"""SIGHUP: gunicorn reads `.env` again, and a file that cannot be used changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from tests.support.gunicorn import Gunicorn
from tests.support.real.processes import free_port


@pytest.fixture
def new_server(tmp_path: Path) -> Iterator[Callable[..., Gunicorn]]:
    with ExitStack() as servers:

        def new(
            environment: dict[str, str] | None = None, also_listen: str = "", **settings: str
        ) -> Gunicorn:
            server = Gunicorn(tmp_path, environment or {}, also_listen, **settings)
            return servers.enter_context(server)

        yield new


SOCKET = "http.socket"  # in the folder of the copy
AGAIN = "the settings were read again"
OLD = "the new settings cannot be used, and the old ones stay: "


def test_a_reload_takes_values_that_were_added_changed_and_removed(
    new_server: Callable[..., Gunicorn],
) -> None:
    server = new_server()
    assert not server.needs_a_key
    server.write(ACCESS_METHODS="keys")
    server.reload(AGAIN)
    assert server.needs_a_key
    server.write(LOG_LEVEL="DEBUG")
    server.reload("there is no authentication: only processes of this user")
    assert not server.needs_a_key
    server.write(ACCESS_METHODS="keys", LOG_FORMAT="json")
    server.reload('"message": "the settings were read again"')
    assert server.needs_a_key


def test_the_environment_wins_over_the_file_at_a_reload(new_server: Callable[..., Gunicorn]) -> None:
    server = new_server({"ACCESS_METHODS": "keys"})
    server.write(ACCESS_METHODS="", LIMIT_REQUESTS_PER_MINUTE="7")
    server.reload(AGAIN)
    assert server.needs_a_key


BROKEN: dict[str, tuple[dict[str, str | None], str]] = {
    "a wrong value": ({"MONITOR_POLLING_SECONDS": "soon"}, "MONITOR_POLLING_SECONDS: must be a valid number"),
    "a wrong address": ({"GUNICORN_BIND": "localhost"}, "GUNICORN_BIND: must be host:port or unix:/path"),
    "no cluster": ({"SLURM_REST_HOST": None}, "SLURM_REST_HOST must be set"),
    "no folder": ({"SQLITE_PATH": "/none/x"}, "SQLITE_PATH: there is no folder /none"),
    "no database": ({"MONGODB_URI": "mongodb://127.0.0.1:9/"}, "the store cannot be reached"),
    "no audit trail": ({"AUDIT_LOG_PATH": "/none/x"}, "AUDIT_LOG_PATH: "),
    "an open quote": ({"LOG_LEVEL": '"INFO'}, ".env: line 7 cannot be read; it must be NAME=value"),
    "an unreadable file": ({"LOG_LEVEL": "\udce9"}, ".env cannot be read: "),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_reload_of_a_broken_file_keeps_the_old_settings(
    new_server: Callable[..., Gunicorn], fault: str
) -> None:
    changes, words = BROKEN[fault]
    server = new_server()
    server.settings["ACCESS_METHODS"] = "keys"
    server.write()
    server.reload(AGAIN)
    changes = {"MONGODB_TIMEOUT_SECONDS": "0.5", "ACCESS_METHODS": None, **changes}
    lines = {**server.settings, **changes}
    text = "".join(f"{name}={value}\n" for name, value in lines.items() if value is not None)
    (server.folder / ".env").write_bytes(text.encode(errors="surrogateescape"))
    server.reload(OLD)
    assert words in server.log.read_text().split(OLD)[1].splitlines()[0]
    assert server.needs_a_key
    server.write(ACCESS_METHODS=None)
    server.reload(AGAIN)
    assert not server.needs_a_key


def test_a_reload_keeps_authentication_on_an_address_that_others_can_reach(
    new_server: Callable[..., Gunicorn], tmp_path: Path
) -> None:
    server = new_server(also_listen=f",unix:{SOCKET}", ACCESS_METHODS="keys")
    server.write(ACCESS_METHODS=None)
    server.reload(OLD + f"GUNICORN_BIND: the server would listen on {SOCKET}")
    assert server.needs_a_key


def test_a_reload_does_not_change_the_address(new_server: Callable[..., Gunicorn]) -> None:
    server = new_server()
    server.write(GUNICORN_BIND=f"127.0.0.1:{free_port()}", ACCESS_METHODS="keys")
    server.reload("GUNICORN_BIND has changed: restart the server")
    assert server.needs_a_key


def test_a_reload_makes_no_file_in_place_of_one_that_was_removed(
    new_server: Callable[..., Gunicorn], tmp_path: Path
) -> None:
    server = new_server()
    for path in tmp_path.glob("store.sqlite3*"):
        path.unlink()
    server.reload(AGAIN)
    assert requests.get(server.url + "/monitor/task_uuid/x", timeout=10).status_code == 503
    assert list(tmp_path.glob("store.sqlite3*")) == []
    server.write(SQLITE_PATH=str(tmp_path / "other.sqlite3"))
    server.reload(AGAIN)
    assert not server.needs_a_key
