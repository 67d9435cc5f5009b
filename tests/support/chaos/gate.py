"""The network to slurmrestd, which can stop submissions just before and just after Slurm takes them."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.real.network import Network

_SUBMISSION = re.compile(rb"POST /slurm/[^/ ]+/job/submit ")


class SubmissionGate(Network):
    """A network that knows which of its connections carry a submission."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._changed = threading.Condition()
        self._asked: set[int] = set()  # ports of connections whose submission waits for Slurm's answer
        self._answers: set[int] | None = None  # ports whose answer is stopped; None if none is to be stopped
        self._stop: object | None = None  # there while submissions are stopped

    @contextmanager
    def stopped_answers(self) -> Iterator[None]:
        """Stop Slurm's answers to submissions meanwhile; they pass afterwards."""
        self._answers = set()
        try:
            yield
        finally:
            self.pass_answers()

    def wait_for_answer(self, seconds: float) -> int | None:
        """Return the port of a connection whose answer is stopped here; None if there is none in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._answers, seconds)
            return next(iter(self._answers or ()), None)

    def pass_answers(self) -> None:
        """Pass the stopped answers on, and all later ones."""
        with self._changed:
            self._answers = None
            self._changed.notify_all()

    @contextmanager
    def stopped_requests(self) -> Iterator[None]:
        """Stop submissions meanwhile, before Slurm hears of them, and drop them at the end."""
        self._stop = object()
        try:
            yield
        finally:
            with self._changed:
                self._stop = None
                self._changed.notify_all()

    def on_data(self, port: int, data: bytes, is_answer: bool) -> None:
        """Stop what is to be stopped.

        Raises:
            ConnectionResetError: The request was dropped.
        """
        with self._changed:
            if not is_answer and _SUBMISSION.match(data):
                if (stop := self._stop) is not None:
                    self._changed.wait_for(lambda: self._stop is not stop)
                    raise ConnectionResetError
                self._asked.add(port)
            elif is_answer and port in self._asked:
                self._asked.discard(port)
                if (waiting := self._answers) is not None:
                    waiting.add(port)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._answers is not waiting)

    def on_end(self, port: int) -> None:
        """Forget the connection."""
        with self._changed:
            self._asked.discard(port)
            if self._answers is not None:
                self._answers.discard(port)
