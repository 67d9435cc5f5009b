"""What the benchmarks read of processes."""

import os
import socket

from benchmarks.processes import find_server, read_cpu_seconds, read_memory


def test_memory_and_processor_time_of_this_process_are_read() -> None:
    assert read_memory(os.getpid()) > 1_000_000
    assert read_cpu_seconds(os.getpid()) > 0


def test_the_process_that_listens_at_an_address_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert find_server(url) == os.getpid()
    assert find_server(url) is None
