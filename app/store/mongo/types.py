"""The type that all modules of the MongoDB store share."""

from typing import Any

Document = dict[str, Any]
