"""Servers that answer by a script, and whose answers may drip or never end."""

import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pika import frame, spec


@dataclass(frozen=True)
class Drip:
    """An answer that begins and then goes on for ever, a piece at a time."""

    begun: bytes
    piece: bytes
    pause: float = 0.05  # seconds; 0 sends as much as the network takes

    @property
    def chunk(self) -> bytes:
        return self.piece if self.pause else self.piece * (65536 // len(self.piece))


Words = bytes | Drip


def say(client: socket.socket, words: Words, over: threading.Event) -> None:
    """Send an answer; of one that drips, until the server or the client ends it."""
    if isinstance(words, bytes):
        client.sendall(words)
        return
    client.sendall(words.begun)
    while not over.wait(words.pause):
        client.sendall(words.chunk)


class ScriptedServer:
    """Enter it to serve on `port`; each connection is a thread that talks."""

    host = "127.0.0.1"

    def __init__(self, talk: Callable[["ScriptedServer", socket.socket], None] | None = None) -> None:
        self._given = talk
        self._over = threading.Event()
        self._listener = socket.create_server((self.host, 0))
        self._clients: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.connections = 0

    def talk(self, client: socket.socket) -> None:
        """Serve one connection."""
        if self._given is not None:
            self._given(self, client)

    def say(self, client: socket.socket, words: Words) -> None:
        say(client, words, self._over)

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        for end in (self._listener, *self._clients):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._clients.append(client)
                threading.Thread(target=self._run, args=(client,), daemon=True).start()

    def _run(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            self.talk(client)


class ScriptedSmtp(ScriptedServer):
    """Says what the script has for a command, for `greeting` and for the `.` that ends the data.

    Whatever the script has no words for is taken. With `once` each word of the script is said a single time.
    """

    _USUAL: Mapping[str, bytes] = {
        "greeting": b"220 ready\r\n",
        "DATA": b"354 go on\r\n",
        "QUIT": b"221 bye\r\n",
        "EHLO": b"250-scripted\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n",
        "AUTH": b"235 2.7.0 welcome\r\n",
    }

    def __init__(self, script: Mapping[str, Words], *, once: bool = False) -> None:
        super().__init__()
        self._script = dict(script)
        self._once = once
        self.mails: list[bytes] = []

    def talk(self, client: socket.socket) -> None:
        lines = client.makefile("rb")
        self._answer(client, "greeting")
        while line := lines.readline():
            command = line.split(None, 1)[0].decode("latin-1").upper()
            if not self._answer(client, command):
                continue
            if command == "DATA":
                mail = b""
                while (line := lines.readline()) not in (b".\r\n", b""):
                    mail += line
                if self._answer(client, "."):
                    self.mails.append(mail)

    def _answer(self, client: socket.socket, command: str) -> bool:
        """Whether it is as usual."""
        words = self._script.pop(command, None) if self._once else self._script.get(command)
        self.say(client, words or self._USUAL.get(command, b"250 2.0.0 OK\r\n"))
        return words is None


class ForwardProxy(ScriptedServer):
    """An HTTP proxy; `heads` holds what it was asked. With `answer` it says that and connects to nothing."""

    def __init__(self, answer: Words | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.heads: list[str] = []

    def talk(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        self.heads.append(head.decode())
        if self.answer is not None:
            self.say(client, self.answer)
            return
        method, target, _ = head.split(None, 2)
        is_tunnel = method == b"CONNECT"
        place, _, path = target.removeprefix(b"http://").partition(b"/")
        host, _, port = place.decode().rpartition(":")
        with socket.create_connection((host, int(port))) as server:
            if is_tunnel:
                client.sendall(b"HTTP/1.0 200 Connection established\r\n\r\n")
            else:
                server.sendall(head.replace(target, b"/" + path, 1))
            threading.Thread(target=_carry, args=(client, server), daemon=True).start()
            _carry(server, client)


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class ScriptedBroker(ScriptedServer):
    """An AMQP broker that drips once instead of one of its answers, and else confirms every message."""

    def __init__(self, stage: str, words: Words) -> None:
        super().__init__()
        self._script: dict[str, Words | None] = {stage: words}
        self.messages = 0

    def talk(self, client: socket.socket) -> None:
        stream = client.makefile("rb")
        stream.read(8)  # the protocol's header
        start = spec.Connection.Start(0, 9, self._PROPERTIES, "PLAIN", "en_US")
        self._answer(client, "start", 0, start)
        while head := stream.read(7):
            kind, channel, size = struct.unpack(">BHL", head)
            method = stream.read(size + 1)[:4]
            if kind != frame.Method(0, start).frame_type:
                self.messages += kind == spec.FRAME_BODY
                if kind == spec.FRAME_BODY:
                    self._answer(client, "ack", channel, spec.Basic.Ack(self.messages))
                continue
            for stage, asked, answer in self._ANSWERS:
                if method == struct.pack(">L", asked.INDEX):
                    self._answer(client, stage, channel, answer)

    _PROPERTIES: ClassVar[dict[str, Any]] = {"capabilities": {"publisher_confirms": True, "basic.nack": True}}
    _ANSWERS: tuple[tuple[str, Any, Any], ...] = (
        ("tune", spec.Connection.StartOk, spec.Connection.Tune(0, 131072, 0)),
        ("open", spec.Connection.Open, spec.Connection.OpenOk()),
        ("channel", spec.Channel.Open, spec.Channel.OpenOk()),
        ("queue", spec.Queue.Declare, spec.Queue.DeclareOk("jobs", 0, 0)),
        ("confirm", spec.Confirm.Select, spec.Confirm.SelectOk()),
        ("channel close", spec.Channel.Close, spec.Channel.CloseOk()),
        ("close", spec.Connection.Close, spec.Connection.CloseOk()),
    )

    def _answer(self, client: socket.socket, stage: str, channel: int, method: Any) -> None:
        self.say(client, self._script.pop(stage, None) or frame.Method(channel, method).marshal())
