"""An HTTP server of a few lines for the processes beside a benchmark: one thread, kept connections."""

import asyncio
import json
import re
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from contextlib import suppress

MAX_MESSAGE = 2**27  # bytes; a list of 10,000 jobs has 100 MB
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)


def listen() -> tuple[socket.socket, str]:
    """Return a socket on any free port of 127.0.0.1, and its address as a URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}"


async def read_message(reader: StreamReader) -> bytes:
    """Return one request or answer, whose length is in its header Content-Length.

    Raises:
        asyncio.IncompleteReadError: The other end has closed the connection.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


def split_request(request: bytes) -> tuple[str, str, bytes]:
    """Return the method, the target and the body of a request."""
    head, _, content = request.partition(b"\r\n\r\n")
    method, target, _ = head.decode("latin-1").split(" ", 2)
    return method, target, content


def encode_answer(status: int, body: object) -> bytes:
    """Return an answer with `body` as JSON."""
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def answer_requests(
    reader: StreamReader, writer: StreamWriter, answer: Callable[[bytes], Awaitable[bytes]]
) -> None:
    """Answer the requests of one connection, one after the other, until an end closes it."""
    try:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                data = await answer(await read_message(reader))
                writer.write(data)
                await writer.drain()
                if _CLOSE.search(data.partition(b"\r\n\r\n")[0]):
                    break
    finally:
        writer.close()


def serve(listener: socket.socket, handle: Callable[[StreamReader, StreamWriter], Awaitable[None]]) -> None:
    """Serve until the process is ended."""

    async def run() -> None:
        server = await asyncio.start_server(handle, sock=listener, limit=MAX_MESSAGE)
        await server.serve_forever()

    asyncio.run(run())
