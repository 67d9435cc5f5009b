"""The command line of operators: `flask --app app keys` and `flask --app app check`."""

from app.commands.application import build_command_application, is_command_line, require_readable_files
from app.commands.check import check
from app.commands.keys import keys

COMMANDS = (check, keys)

__all__ = ["COMMANDS", "build_command_application", "is_command_line", "require_readable_files"]
