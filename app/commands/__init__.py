"""The command line of operators: `flask --app app check | keys | records`."""

from app.commands.application import build_command_application, is_command_line, require_readable_files
from app.commands.check import check
from app.commands.keys import keys
from app.commands.records import records

COMMANDS = (check, keys, records)

__all__ = ["COMMANDS", "build_command_application", "is_command_line", "require_readable_files"]
