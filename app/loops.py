"""Background threads, each of which repeats one step."""

import random
import threading
from collections.abc import Callable
from datetime import datetime

from app.errors import SlurmProxyError
from app.outages import OutageLog

_STOP_TIMEOUT = 10.0  # seconds that `stop` waits for each thread

Step = Callable[[datetime], object]


class Loops:
    """Background threads of one process. A step that fails is logged, and repeated after the pause."""

    def __init__(self, read_time: Callable[[], datetime], outages: OutageLog) -> None:
        """Create a runner without a loop.

        Args:
            read_time: Returns the time that each step is given.
            outages: Where failures are logged.
        """
        self._read_time = read_time
        self._outages = outages
        self._stopping = threading.Event()
        self._wakes: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    @property
    def are_stopping(self) -> bool:
        """Return whether no further step begins."""
        return self._stopping.is_set()

    def start(self, name: str, step: Step, pause: Callable[[], float]) -> None:
        """Start a loop; `pause` returns the seconds after each step, to which some jitter is added."""
        wake = self._wakes[name] = threading.Event()
        thread = threading.Thread(target=self._run, args=(step, pause, wake), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def wake(self, name: str) -> None:
        """End the present pause of a loop, if it runs."""
        if (event := self._wakes.get(name)) is not None:
            event.set()

    def stop(self) -> bool:
        """End the threads after their present steps; return whether there were any."""
        self._stopping.set()
        for wake in self._wakes.values():
            wake.set()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT)
        were_running = bool(self._threads)
        self._threads.clear()
        return were_running

    def run_step(self, step: Step) -> None:
        """Run one step and log its errors."""
        loop = threading.current_thread().name
        try:
            step(self._read_time())
        except SlurmProxyError as error:
            self._outages.record_failure(error.failing_part or f"the loop {loop}", str(error), loop)
        except Exception as error:
            self._outages.record_failure(f"the loop {loop}", type(error).__name__, loop, error)
        else:
            self._outages.record_success(loop)

    def _run(self, step: Step, pause: Callable[[], float], wake: threading.Event) -> None:
        while not self.are_stopping:
            self.run_step(step)
            wake.wait(pause() * random.uniform(1, 1.1))  # noqa: S311 - jitter, no secret
            wake.clear()
