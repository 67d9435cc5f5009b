"""A process of its own that hands one message to Apprise, and can be ended at any time.

It is run by its path: a line of JSON comes by stdin, one word goes to stdout. Apprise has a hundred ways to
send, each with its own idea of time and of how much it reads; only the system can bound them all.
"""

import json
import os
import resource
import sys
import threading

from apprise import Apprise, AppriseAsset

_MEMORY = 512 * 1024 * 1024  # bytes: an answer without end ends this process alone


def main() -> None:
    """Send what stdin says; write `taken`, `refused` or `unknown` (an address that Apprise does not know)."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    message = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    service = Apprise(asset=AppriseAsset(app_id="slurm-proxy", async_mode=False))
    if not service.add(message.pop("url")):
        result = b"unknown"
    else:
        result = b"taken" if service.notify(**message) else b"refused"
    os.write(1, result)
    os._exit(0)  # without a wait for the thread that reads stdin


def _end_with_parent() -> None:
    """Wait for the end of stdin, which comes when the parent is done or killed."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
