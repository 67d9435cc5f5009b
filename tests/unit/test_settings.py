import ast
import base64
import json
import os
import re
from pathlib import Path

import pytest
from dotenv import dotenv_values
from pydantic import SecretStr

from app.constants import Settings
from app.environment import (
    find_misspelt_names,
    find_older_names,
    list_name_warnings,
    list_setting_warnings,
    read_settings,
)
from app.errors import SettingsError
from app.services import build_services
from app.setting_names import OLDER_NAMES
from app.setting_values import decode_key

ROOT = Path(__file__).parents[2]
CLUSTER = {"SLURM_REST_HOST": "http://127.0.0.1:9", "SLURM_JWT_HS256_KEY_BASE64": "a2V5IGtleSBrZXk="}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)
    for name in OLDER_NAMES:
        monkeypatch.delenv(name, raising=False)


def test_the_defaults_are_those_of_the_contract() -> None:
    settings = read_settings()
    assert (settings.FLASK_APP_HOST, settings.FLASK_APP_PORT) == ("127.0.0.1", 5001)
    assert (settings.MONGODB_MONITOR_DB, settings.MONGODB_MONITOR_JOBS_COLLECTION) == ("monitordb", "jobs")
    assert settings.MONITOR_POLLING_SECONDS == 5
    assert settings.NOTIFICATIONS_SMTP_SECURITY == "starttls"
    assert settings.TASK_TIME_UNIT == "hours"


@pytest.mark.parametrize(("given", "pause"), [({}, None), ({"MONITOR_POLLING_SECONDS": "5"}, 5)])
def test_poller_has_a_shortest_pause_only_if_it_is_set(given: dict[str, str], pause: float | None) -> None:
    settings = Settings.model_validate(given)
    assert settings.MONITOR_POLLING_SECONDS == 5
    assert settings.min_polling_pause() == pause


def test_the_example_is_the_settings_and_their_defaults() -> None:
    intro = (ROOT / ".env.example").read_text().split("\n\n")[0]
    blocks = [
        f"# {field.description}\n#{name}={_written(field.get_default(call_default_factory=True))}"
        for name, field in Settings.model_fields.items()
    ]
    assert (ROOT / ".env.example").read_text() == "\n\n".join([intro, *blocks]) + "\n"


def _written(default: object) -> str:
    if default is None or default in ((), {}):
        return ""
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, bool):
        return str(default).lower()
    return f"{default:.0f}" if isinstance(default, float) else str(default)


def test_every_setting_is_read() -> None:
    read = {
        node.attr
        for folder in ("app", "docker")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    assert Settings.model_fields.keys() - read == set()


def test_every_default_of_the_example_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = (ROOT / ".env.example").read_text().replace("\n#", "\n").replace("\n ", "\n# ")
    lines = [line for line in plain.splitlines() if re.match(r"[A-Z0-9_]+=.", line)]
    assert len(lines) > 30
    given = dict(line.split("=", 1) for line in lines)
    assert read_settings(given) == read_settings({})


def test_the_example_sets_nothing_by_itself() -> None:
    assert dotenv_values(ROOT / ".env.example") == {}


def test_an_override_wins_and_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_APP_PORT", "6000")
    monkeypatch.setenv("MONGODB_URI", "")
    assert read_settings().FLASK_APP_PORT == 6000
    assert read_settings({"FLASK_APP_PORT": 7000}).FLASK_APP_PORT == 7000
    assert read_settings().MONGODB_URI is None


def test_any_setting_can_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "uri"
    secret.write_text("mongodb://user:word@example.com/\n")
    monkeypatch.setenv("MONGODB_URI_FILE", str(secret))
    uri = read_settings().MONGODB_URI
    assert uri is not None
    assert uri.get_secret_value() == "mongodb://user:word@example.com/"


def test_a_secret_file_that_is_not_there_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URI_FILE", "/nowhere/at/all")
    with pytest.raises(SettingsError, match=r"^MONGODB_URI_FILE: .*No such file"):
        read_settings()


@pytest.mark.parametrize("name", ["SQLITE_PATH", "AUDIT_LOG_PATH"])
def test_relative_paths_do_not_depend_on_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_settings().SQLITE_PATH == ROOT / "slurm-proxy.sqlite3"
    monkeypatch.setenv(name, "kept/here")
    assert getattr(read_settings(), name) == ROOT / "kept" / "here"
    monkeypatch.setenv(name, "/kept/here")
    assert getattr(read_settings(), name) == Path("/kept/here")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ACCESS_METHOD", "ACCESS_METHODS"),
        ("ACESS_METHODS", "ACCESS_METHODS"),
        ("access_methods", "ACCESS_METHODS"),
        ("SLURM_REST_HOSTS", "SLURM_REST_HOST"),
        ("MONGODB_URL", "MONGODB_URI"),
        ("MONGODB_URL_FILE", "MONGODB_URI_FILE"),
        ("NOTIFICATION_SMTP_SERVER", "NOTIFICATIONS_SMTP_SERVER"),
        ("SLURM_JWT_KEY_FILE", "SLURM_JWT_HS256_KEY_PATH"),
        ("MONGODB_DB", "MONGODB_MONITOR_DB"),
        ("MONGODB_COLLECTION", "MONGODB_MONITOR_JOBS_COLLECTION"),
        ("MONGODB_URI_FILE", None),
        ("SLURM_JOB_ID", None),
        ("SLURM_JOB_USER", None),
        ("SLURM_SUBMIT_HOST", None),
        ("SLURM_CLUSTER_NAME", None),
        ("SLURM_CONF", None),
        ("SLURM_JWT", None),
        ("MONGODB_USER", None),
        ("MONGODB_VERSION", None),
        ("FLASK_APP", None),
        ("FLASK_RUN_PORT", None),
        ("GUNICORN_BIND", None),
        ("GUNICORN_WORKER", "GUNICORN_WORKERS"),
        ("SMTP_HOST", "NOTIFICATIONS_SMTP_SERVER"),
        ("SMTP_SECURITY", "NOTIFICATIONS_SMTP_SECURITY"),
        ("SMTP_PASSWORD_FILE", "NOTIFICATIONS_SMTP_PASSWORD_FILE"),
        ("SLACK_TOKEN", "NOTIFICATIONS_SLACK_BOT_TOKEN"),
        ("WEBHOOK_RECEIVERS", "NOTIFICATIONS_WEBHOOK_RECEIVERS"),
        ("SLURM_PROXY_ACCESS_METHODS", "ACCESS_METHODS"),
        ("GUNICORN_CMD_ARGS", None),
        ("SMTP_RELAY", None),
        ("RABBITMQ_NODENAME", None),
        ("MAIL", None),
        ("HOST", None),
        ("PATH", None),
        ("PORT", None),
    ],
)
def test_a_misspelt_name_is_distinguished_from_names_of_other_programs(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str | None
) -> None:
    monkeypatch.setenv(name, "x")
    assert list(find_misspelt_names()) == ([(name, meant)] if meant else [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FLASK_APP_PORT", "http"),
        ("FLASK_APP_PORT", "70000"),
        ("LOG_LEVEL", "LOUD"),
        ("SLURM_REST_USERNAME", "\t"),
        ("SLURM_REST_USERNAME", "slurm "),
        ("SLURM_REST_USERNAME", "slürm"),
        ("SLURM_REST_HOST", "localhost:6820"),
        ("SLURM_REST_HOST", "http://"),
        ("SLURM_REST_HOST", "http://host:port"),
        ("GUNICORN_BIND", "5001"),
        ("GUNICORN_BIND", "localhost:50001x"),
        ("GUNICORN_BIND", "127.0.0.1"),
        ("GUNICORN_BIND", "127.0.0.1:5001,"),
        ("GUNICORN_BIND", "::1:5001"),
        ("GUNICORN_WORKERS", "two"),
        ("GUNICORN_THREADS", "0"),
        ("OIDC_JWKS_URL", "foo"),
        ("OIDC_JWKS_URL", "https://"),
        ("SLURM_JWT_HS256_KEY_BASE64", "not base64!"),
        ("SLURM_REST_JWT_EXPIRATION_TIME", "0"),
        ("MONITOR_POLLING_SECONDS", "-1"),
        ("MONITOR_POLLING_SECONDS", "soon"),
        ("TASK_TIME_UNIT", "days"),
        ("TASK_METADATA", "{"),
        ("TASK_METADATA", "[]"),
        ("NOTIFICATIONS_SMTP_SECURITY", "ssl"),
        ("NOTIFICATIONS_SMTP_PORT", "0"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: [^\n]+$"):
        read_settings()


OLDER_VALUES = {
    "RABBITMQ_HOST": ("mq", "mq"),
    "RABBITMQ_PORT": ("5673", 5673),
    "RABBITMQ_USERNAME": ("user", "user"),
    "RABBITMQ_PASSWORD": ("word", "word"),
    "RABBITMQ_PATH": ("/jobs", "/jobs"),
    "SMTP_SERVER": ("mail", "mail"),
    "SMTP_PORT": ("2525", 2525),
    "SMTP_USERNAME": ("user", "user"),
    "SMTP_PASSWORD": ("word", "word"),
    "GMAIL_CREDENTIALS_PATH": ("/c.json", Path("/c.json")),
    "SLACK_BOT_TOKEN": ("xoxb-1", "xoxb-1"),
    "SLACK_CHANNEL": ("jobs", "jobs"),
    "MONGODB_TIMEOUT": ("1500", 1.5),
    "MONITOR_POLLING_INTERVAL": ("2", 120),
}


def _plain(value: object) -> object:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@pytest.mark.parametrize("older", OLDER_NAMES)
def test_a_name_of_the_older_server_sets_what_it_means_now(
    monkeypatch: pytest.MonkeyPatch, older: str
) -> None:
    value, expected = OLDER_VALUES[older]
    monkeypatch.setenv(older, value)
    assert _plain(getattr(read_settings(), OLDER_NAMES[older])) == expected
    assert list(find_older_names()) == [(older, OLDER_NAMES[older], True)]
    assert list(find_misspelt_names()) == []


@pytest.mark.parametrize(
    ("older", "value", "advice"),
    [
        ("SMTP_SERVER", "mail", "rename it"),
        (
            "MONGODB_TIMEOUT",
            "5000",
            "write MONGODB_TIMEOUT_SECONDS=5 instead (seconds, no longer milliseconds)",
        ),
        (
            "MONGODB_TIMEOUT",
            "1",
            "write MONGODB_TIMEOUT_SECONDS=0.001 instead (seconds, no longer milliseconds)",
        ),
        ("MONGODB_TIMEOUT", "x", "write MONGODB_TIMEOUT_SECONDS instead (seconds, no longer milliseconds)"),
        (
            "MONITOR_POLLING_INTERVAL",
            "0.5",
            "write MONITOR_POLLING_SECONDS=30 instead (seconds, no longer minutes)",
        ),
    ],
)
def test_warning_for_an_older_name_gives_the_value_in_the_new_unit(
    monkeypatch: pytest.MonkeyPatch, older: str, value: str, advice: str
) -> None:
    monkeypatch.setenv(older, value)
    assert list(list_name_warnings()) == [
        f"{older} is the older server's name for {OLDER_NAMES[older]}: {advice}"
    ]


@pytest.mark.parametrize("ending", ["", "_FILE"])
@pytest.mark.parametrize("older", ["SMTP_SERVER", "MONGODB_TIMEOUT"])
def test_the_new_name_wins_over_that_of_the_older_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, older: str, ending: str
) -> None:
    name = OLDER_NAMES[older]
    (tmp_path / "value").write_text("7\n")
    monkeypatch.setenv(older, "8000")
    monkeypatch.setenv(name + ending, str(tmp_path / "value") if ending else "7")
    assert str(getattr(read_settings(), name)).removesuffix(".0") == "7"
    assert list(find_older_names()) == [(older, name, False)]


@pytest.mark.parametrize(
    ("older", "value"),
    [("MONGODB_TIMEOUT", "soon"), ("MONGODB_TIMEOUT", "-1"), ("SMTP_PORT", "smtp"), ("SMTP_PORT", "0")],
)
def test_error_for_a_wrong_value_has_the_name_that_the_operator_used(
    monkeypatch: pytest.MonkeyPatch, older: str, value: str
) -> None:
    monkeypatch.setenv(older, value)
    with pytest.raises(SettingsError, match=f"^{older}\\b[^\n]+$"):
        read_settings()


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("mongodb://127.0.0.1/nu_olddb", "nu_olddb"),
        ("mongodb://ann:secret@h1:1,h2/nu_olddb?authSource=admin", "nu_olddb"),
        ("mongodb+srv://example.com/nu_olddb?w=1", "nu_olddb"),
        ("mongodb://127.0.0.1/monitordb", None),
        ("mongodb://ann:secret@127.0.0.1/admin", None),
        ("mongodb://127.0.0.1/?replicaSet=x", None),
        ("mongodb://127.0.0.1", None),
        ("mongodb://ann:12345/secret@127.0.0.1/", None),
        ("mongodb://ann:12345/secret?@127.0.0.1/", None),
    ],
)
def test_a_database_in_the_uri_that_is_not_used_leads_to_a_warning(uri: str, named: str | None) -> None:
    assert list(list_setting_warnings(read_settings({"MONGODB_URI": uri}))) == (
        [
            f"MONGODB_URI names the database {named}, which counts only for the login: the records are in"
            f" monitordb; if they are in {named}, set MONGODB_MONITOR_DB={named}"
        ]
        if named
        else []
    )


@pytest.mark.parametrize(
    "bind", ["localhost:5001", "[::1]:5001", ":5001", "unix:/run/http", "unix:http", "127.0.0.1:1, unix:///x"]
)
def test_an_address_that_gunicorn_can_bind_is_a_value_of_gunicorn_bind(bind: str) -> None:
    assert read_settings({"GUNICORN_BIND": bind}).gunicorn_addresses() == re.split(", ?", bind)


def test_two_keys_for_slurm_lead_to_a_warning() -> None:
    settings = read_settings({**CLUSTER, "SLURM_JWT_HS256_KEY_PATH": "/key"})
    assert list(list_setting_warnings(settings)) == [
        "SLURM_JWT_HS256_KEY_PATH is ignored, because SLURM_JWT_HS256_KEY_BASE64 is set: remove one of them"
    ]


def test_an_entry_of_task_metadata_may_have_a_description() -> None:
    entry = {"description": "Aligns reads.", "cmd": "align"}
    services = build_services(
        read_settings({"TASK_METADATA": json.dumps({"align": entry}), **CLUSTER}), slurm=None
    )
    assert services.validator is not None
    services.stop()


def test_every_wrong_value_is_named_at_once() -> None:
    wrong = {"LOG_LEVEL": "LOUD", "GUNICORN_WORKERS": "two", "SLURM_REST_HOST": "http://localhost:6820"}
    with pytest.raises(SettingsError) as failure:
        read_settings(wrong)
    assert str(failure.value) == (
        "GUNICORN_WORKERS: must be a whole number; LOG_LEVEL: must be 'DEBUG', 'INFO', 'WARNING' or 'ERROR';"
        " SLURM_JWT_HS256_KEY_PATH or SLURM_JWT_HS256_KEY_BASE64 must be set beside SLURM_REST_HOST"
    )


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ACCESS_METHODS", "keys,tokens", "ACCESS_METHODS: must be 'keys' or 'oidc'"),
        ("TASK_METADATA", "[]", "TASK_METADATA: must be a JSON object"),
        ("TASK_METADATA", "{bad", "TASK_METADATA: must be a JSON object, and cannot be read: .*column 2.*"),
        ("OIDC_GRANTS", "{}", "OIDC_GRANTS: must be a JSON list"),
        (
            "NOTIFICATIONS_WEBHOOK_RECEIVERS",
            "x",
            "NOTIFICATIONS_WEBHOOK_RECEIVERS: must be a JSON object, .*",
        ),
        ("NOTIFICATIONS_APPRISE_TARGETS", "1", "NOTIFICATIONS_APPRISE_TARGETS: must be a JSON object"),
    ],
)
def test_error_for_a_list_or_an_object_has_the_name_and_the_form(
    name: str, value: str, sentence: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{sentence}$"):
        read_settings({name: value})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("/etc/slurm/jwt_hs256.key", "looks like a path: set SLURM_JWT_HS256_KEY_PATH to it instead"),
        ("./jwt.key", "looks like a path: set SLURM_JWT_HS256_KEY_PATH to it instead"),
        ("not base64!", "must be base64"),
    ],
)
def test_a_key_that_is_not_base64_is_the_only_fault(value: str, words: str) -> None:
    wrong = {"SLURM_REST_HOST": "http://h:1", "SLURM_JWT_HS256_KEY_BASE64": value}
    with pytest.raises(SettingsError) as failure:
        read_settings(wrong)
    assert str(failure.value) == f"SLURM_JWT_HS256_KEY_BASE64: {words}"


def test_the_path_of_a_file_is_not_taken_for_a_key_in_base64(tmp_path: Path) -> None:
    path = Path(f"/tmp/key{os.getpid()}")  # base64 has all of these characters
    path.touch()
    try:
        with pytest.raises(SettingsError, match="looks like a path"):
            read_settings({"SLURM_JWT_HS256_KEY_BASE64": str(path)})
    finally:
        path.unlink()
    key = base64.b64encode(b"\xff" * 5000).decode()
    assert read_settings({"SLURM_JWT_HS256_KEY_BASE64": key}).slurm_key() == b"\xff" * 5000


def test_a_key_file_that_is_empty_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "jwt_hs256.key"
    path.write_bytes(b"\n")
    with pytest.raises(SettingsError, match=r"^SLURM_JWT_HS256_KEY_PATH: .* is empty; name a copy of"):
        read_settings({"SLURM_JWT_HS256_KEY_PATH": path}).slurm_key()


def test_secrets_never_show() -> None:
    settings = read_settings(
        {"NOTIFICATIONS_SMTP_PASSWORD": "hush-hush", "MONGODB_URI": "mongodb://u:hush-hush@h/"}
    )
    assert "hush-hush" not in repr(settings)
    assert "hush-hush" not in str(settings)


def test_slurm_needs_a_key() -> None:
    with pytest.raises(SettingsError, match="SLURM_JWT_HS256_KEY_PATH"):
        read_settings({"SLURM_REST_HOST": "http://localhost:6820"})


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_the_key_may_be_written_in_every_base64(encode: object, padded: bool) -> None:
    key = bytes(range(200, 255)) + os.urandom(8)
    text = encode(key).decode()  # type: ignore[operator]
    assert decode_key(text if padded else text.rstrip("=")) == key


def test_the_key_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "jwt_hs256.key"
    path.write_bytes(b"\x00\xff raw \n")
    assert read_settings({"SLURM_JWT_HS256_KEY_PATH": path}).slurm_key() == b"\x00\xff raw \n"
    with pytest.raises(SettingsError, match="SLURM_JWT_HS256_KEY_PATH: No such file"):
        read_settings({"SLURM_JWT_HS256_KEY_PATH": tmp_path / "none"}).slurm_key()
