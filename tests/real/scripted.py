"""Servers that answer by a script, and whose answers may drip or never end."""

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Self


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


class ScriptedServer:
    """Enter it to serve on `port`; each connection is a thread that runs `talk`."""

    host = "127.0.0.1"

    def __init__(self, talk: Callable[[Self, socket.socket], None] | None = None) -> None:
        self._talk = talk or type(self).talk
        self._over = threading.Event()
        self._listener = socket.create_server((self.host, 0))
        self._clients: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.connections = 0

    def talk(self, client: socket.socket) -> None:
        raise NotImplementedError

    def say(self, client: socket.socket, words: Words) -> None:
        """Send an answer; of one that drips, until the server or the client ends it."""
        if isinstance(words, bytes):
            client.sendall(words)
            return
        client.sendall(words.begun)
        while not self._over.wait(words.pause):
            client.sendall(words.chunk)

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
            self._talk(self, client)


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
            command = line.split(None, 1)[0].decode().upper()
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
