"""Explain why a file cannot be written."""

from pathlib import Path


def explain_unwritable(path: Path) -> str:
    """Return what is wrong with the path of a file that could not be written, and the remedy."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}: create it, owned by the user of this service"
    if path.is_dir():
        return f"{path} is a folder: name a file in it"
    return f"{path} cannot be written: give the file and its folder to the user of this service"
