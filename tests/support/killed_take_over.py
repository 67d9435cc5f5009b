"""Take collections over, and die at another moment of each.

`python -m tests.support.killed_take_over URI DATABASE N`: the collections are `jobs_0` to `jobs_N-1`.
In the first one the process dies before its first command is sent, in the second after that was answered,
and so on.
Writes a line for each: `killed`, or `done` if there was no such moment.
"""

import os
import signal
import sys
from collections.abc import Iterator

from pymongo import monitoring

from app.store.mongo import MongoStore, connect


class _Killer(monitoring.CommandListener):
    """Ends this process like `kill -9`, at the moment with that number."""

    def __init__(self, moment: int) -> None:
        self._left = moment

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self._pass()

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._pass()

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._pass()

    def _pass(self) -> None:
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


def _take_over_all(uri: str, database: str, count: int) -> Iterator[str]:
    for number in range(count):
        child = os.fork()
        if child == 0:
            monitoring.register(_Killer(number))
            MongoStore(connect(uri, 30), database, f"jobs_{number}").prepare()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
        yield "killed" if os.WIFSIGNALED(status) else "done"


if __name__ == "__main__":
    for word in _take_over_all(sys.argv[1], sys.argv[2], int(sys.argv[3])):
        sys.stdout.write(f"{word}\n")
