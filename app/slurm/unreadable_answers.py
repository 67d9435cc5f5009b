"""Log answers of slurmrestd that cannot be read, once for each kind of request."""

import logging
import re
import threading

from app.slurm.reply import Reply
from app.slurm.request import SlurmRequest

logger = logging.getLogger(__name__)

_JOB_ID = re.compile(r"/job/\d+")


class UnreadableAnswers:
    """Log of the requests whose last answer was not JSON. Thread-safe."""

    def __init__(self) -> None:
        """Begin without such a request."""
        self._lock = threading.Lock()
        self._requests: set[str] = set()

    def check(self, sent: SlurmRequest, reply: Reply) -> None:
        """Log when the answers to a request stop being JSON, and when the next answer is JSON again."""
        if reply.status != 200:
            return
        request = f"{sent.method} {_JOB_ID.sub('/job/<id>', sent.path)}"
        with self._lock:
            was_unreadable = request in self._requests
            (self._requests.add if reply.fault else self._requests.discard)(request)
        if reply.fault and not was_unreadable:
            logger.warning("slurmrestd's answer to %s cannot be read: %s", request, reply.full_complaint())
        elif was_unreadable and not reply.fault:
            logger.info("slurmrestd answers %s with JSON again", request)
