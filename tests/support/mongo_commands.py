"""The commands that a client sends to MongoDB."""

from typing import Any

from pymongo import MongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from app.store.mongo import MongoStore
from tests.support.databases import SharedDatabase


class SeenCommands(CommandListener):
    """A listener that records each command of one of these names."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self.commands: list[Any] = []

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name in self._names:
            self.commands.append(event.command)

    def succeeded(self, event: object) -> None:
        pass

    failed = succeeded


def make_observed_store(database: SharedDatabase, *names: str) -> tuple[MongoStore, SeenCommands]:
    """Return a store, and the commands of these names that it sends from now on."""
    seen = SeenCommands(*names)
    client: MongoClient[Any] = MongoClient(database.uri, tz_aware=True, event_listeners=[seen])
    return MongoStore(client, database.name, database.collection), seen
