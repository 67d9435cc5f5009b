"""The commands that make, list and revoke API keys."""

from typing import Any

import pytest

from app import commands
from app.errors import SettingsError
from tests.support.access import Site


def test_the_command_line_makes_lists_and_revokes_keys(site: Site) -> None:
    runner = site.app.test_cli_runner()

    def run(*arguments: str) -> Any:
        return runner.invoke(args=["keys", *arguments])

    made = run(
        "create", "pipeline", "--user", "alice", "--scope", "submit", "--days", "30", "--partition", "short"
    )
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert site.submit(key, slurm={"partition": "short"}).status_code == 200
    assert site.submit(key, slurm={"partition": "long"}).status_code == 403
    listed = run("list").output
    for word in (key.split("_")[1], "pipeline", "submit for alice; partitions short"):
        assert word in listed
    assert key not in listed
    assert run("revoke", key.split("_")[1]).exit_code == 0
    assert site.submit(key).status_code == 401
    again = run("revoke", key.split("_")[1])
    assert again.exit_code == 1
    assert f"the key {key.split('_')[1]} is revoked already" in again.output
    assert "does not exist: give an ID that `keys list` shows" in run("revoke", "pipeline").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x"], "name the users that the key may act for: give --user, --group or --any-user"),
        (["x", "--scope", "admin"], "the scope admin is for all users: it needs --any-user"),
        (["x", "--any-user", "--user", "alice"], "--any-user excludes --user and --group: give one of them"),
        (["x", "--user", "any"], "give --any-user for all users"),
        (["x", "--any-user", "--days", "1e300"], "--days"),
        (["x", "--any-user", "--days", "nan"], "--days"),
        (["x", "--any-user", "--days", "1e10"], "--days"),
        (["x", "--any-user", "--days", "5000000"], "is not in the range 1<=x<=36500"),
        (["x", "--user", "alice", "--user", "root"], "--user root: this user is refused unless"),
        (["x", "--user", "slurm"], "--user slurm: this user is refused unless"),
        (
            ["x", "--user", "Not A User"],
            "--user Not A User: must be a user name, a string of at most 32 of a-z",
        ),
        (["x", "--any-user", "--scope", "everything"], "'everything' is not one of"),
        (["x", "--any-user", "--days", "0"], "--days"),
        (["two\nlines", "--any-user"], "name: must be one line"),
        (["x", "--user", "alice", "--scope", "admin"], "the scope admin is for all users"),
        (["x", "--user", "alice", "--scope", "monitor"], "the scope monitor is for all users"),
        (["x", "--any-user", "--scope", "monitor", "--account", "a"], "the scope monitor is for all users"),
        (["x", "--any-user", "--scope", "admin", "--partition", "short"], "the scope admin is for all users"),
        (
            ["x", "--any-user", "--recipient", "*@example.org"],
            "--recipient: must be patterns of method:receiver",
        ),
        (
            ["x", "--any-user", "--recipient", "emial:*"],
            "--recipient: there is no method emial: it must be one of email, gmail, slack",
        ),
        (
            ["x", "--any-user", "--recipient", "email:*example.com"],
            "--recipient: email:*example.com matches no receiver of email: the part after the colon must be"
            " an address with an @, such as *@example.com",
        ),
        (
            ["x", "--any-user", "--recipient", "rabbitmq:jobs"],
            "--recipient: rabbitmq:jobs matches no receiver of rabbitmq: the part after the colon must be",
        ),
        (
            ["x", "--any-user", "--recipient", "webhook:h.example/jobs"],
            "--recipient: webhook:h.example/jobs matches no receiver of webhook: the part after the colon",
        ),
    ],
)
def test_the_command_line_says_what_is_wrong(site: Site, arguments: list[str], words: str) -> None:
    result = site.app.test_cli_runner().invoke(args=["keys", "create", *arguments])
    assert result.exit_code != 0
    assert words in result.output
    assert site.keys.list_all() == []


def test_the_command_line_warns_of_names_that_are_of_no_use(site: Site) -> None:
    """Such a key is made all the same: the users may be on their way."""
    names = ["--user", "daemon", "--user", "no-such-user", "--group", "no-such-group"]
    made = site.app.test_cli_runner().invoke(
        args=["keys", "create", "x", *names, "--recipient", "*mail:*@a.b"]
    )
    assert made.exit_code == 0, made.output
    assert site.keys.authenticate(made.stdout.strip()).name.startswith("key:x:")
    assert made.stderr.splitlines()[:-1] == [
        "Warning: this machine has no user no-such-user",
        "Warning: this machine has no group no-such-group, and so none of its members",
    ]


@pytest.mark.parametrize(
    "arguments",
    [["create", "pipeline", "--user", "alice"], ["list"], ["revoke", "some-id"]],
    ids=["create", "list", "revoke"],
)
def test_keys_commands_report_wrong_settings_in_one_sentence(arguments: list[str]) -> None:
    app = commands.build_command_application(SettingsError("SLURM_REST_HOST must be set"))
    for command in commands.COMMANDS:
        app.cli.add_command(command)
    result = app.test_cli_runner().invoke(args=["keys", *arguments])
    assert (result.exit_code, result.output) == (2, "Error: SLURM_REST_HOST must be set\n")
