"""A program that sends one message by Apprise, in a process that can be ended at any time.

The channel runs this file. The program reads one line of JSON from stdin and writes one word to stdout.
Apprise has about a hundred plugins. Their time-outs differ, and they read answers of any size. Only the
operating system can limit them all.
"""

import json
import os
import resource
import sys
import threading

from apprise import Apprise, AppriseAsset

_MAX_MEMORY = 512 * 1024 * 1024  # bytes; an endless answer then ends only this process


def main() -> None:
    """Send the message from stdin; write `taken`, `refused`, or `unknown` for an unknown kind of address."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    message = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    service = Apprise(asset=AppriseAsset(app_id="slurm-proxy", async_mode=False))
    if not service.add(message.pop("url")):
        result = b"unknown"
    else:
        result = b"taken" if service.notify(**message) else b"refused"
    os.write(1, result)
    os._exit(0)  # do not wait for the thread that reads stdin


def _end_with_parent() -> None:
    """Exit at the end of stdin, which comes when the parent has ended."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
