"""Measure memory and processor time of processes of this machine."""

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

_LISTENING = "0A"


def read_memory(pid: int) -> int:
    """Return the bytes of memory that a process uses now (its resident set)."""
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def read_cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def find_server(url: str) -> int | None:
    """Return the process of this machine that listens at an address; None if it cannot be found."""
    port = f":{urlsplit(url).port or 80:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == _LISTENING}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):  # a process that has ended, or of another user
            if any(str(file.readlink()) in sockets for file in folder.iterdir()):
                return int(folder.parent.name)
    return None
