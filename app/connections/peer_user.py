"""Find the user whose process is at the other end of a connection: the kernel shows the user of each socket.

The service asks the kernel for the two sockets of the connection. Where the kernel does not answer, as in
some containers, the service reads the table of all sockets. This takes longer the more sockets there are.
"""

import ipaddress
import os
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from app.connections.sock_diag import Address, find_socket

_PROC = Path("/proc")
_READINGS = 3  # the kernel may leave a row out while the table changes
_CREDENTIALS = struct.Struct("3i")  # process, user and group, as SO_PEERCRED gives them
_USER_IDS = 2**32 - 1
_NO_TABLE = (FileNotFoundError, NotADirectoryError, PermissionError)
FindSocket = Callable[[Address, Address], tuple[int, int] | None]


class PeerUser(Enum):
    """The kind of user whose process is at the other end of a connection."""

    TRUSTED = auto()  # a process of root, or of the user that this service runs as
    OTHER = auto()  # a process of another user, or one that has closed the connection already
    UNKNOWN = auto()  # this system does not show the user


def find_peer_user(connection: socket.socket, proc: Path = _PROC, find: FindSocket = find_socket) -> PeerUser:
    """Return the kind of user whose process is at the other end of a connection on this machine.

    Args:
        connection: The connection, which this process has accepted.
        proc: The folder of the kernel's tables.
        find: Asks the kernel for one socket.
    """
    if connection.family == socket.AF_UNIX:
        return _find_unix_peer(connection, proc)
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return PeerUser.UNKNOWN
    try:
        own, peer = _get_addresses(connection)
    except OSError:  # the peer has reset the connection
        return PeerUser.OTHER
    inode = os.fstat(connection.fileno()).st_ino
    near = find(own, peer)
    if near is None or near[1] != inode:
        return _find_in_table(own, peer, inode, proc)
    far = find(peer, own)
    return _classify(far[0] if far is not None and far[1] else None, proc)


def _find_in_table(own: Address, peer: Address, inode: int, proc: Path) -> PeerUser:
    """Return the kind of user of the peer's socket, according to the table of all sockets."""
    for _ in range(_READINGS):
        try:
            table = _read_table(proc)
        except OSError as error:  # no such table, or no free file descriptor
            return PeerUser.UNKNOWN if isinstance(error, _NO_TABLE) else PeerUser.OTHER
        if (user := _find_user(table, own, peer, inode)) is not None:
            return _classify(user, proc)
    # A table of another network namespace lacks even the socket that this service listens on.
    return PeerUser.OTHER if _has_listener(table, own[1]) else PeerUser.UNKNOWN


def _classify(user: int | None, proc: Path) -> PeerUser:
    """Return the kind of a user; None is the user of a socket that is closed already."""
    return PeerUser.TRUSTED if user is not None and _is_trusted(user, proc) else PeerUser.OTHER


def _find_unix_peer(connection: socket.socket, proc: Path) -> PeerUser:
    """Return the kind of user whose process has opened the other end of a Unix socket."""
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except (OSError, AttributeError):  # not on this system
        return PeerUser.UNKNOWN
    _, user, _ = _CREDENTIALS.unpack(raw)
    return PeerUser.TRUSTED if _is_trusted(user, proc) else PeerUser.OTHER


def _get_addresses(connection: socket.socket) -> tuple[Address, Address]:
    """Return address and port of both ends, those of this process first.

    Raises:
        OSError: The peer has reset the connection.
    """
    (host, port, *_), (peer_host, peer_port, *_) = connection.getsockname(), connection.getpeername()
    return (host, port), (peer_host, peer_port)


def _read_table(proc: Path) -> bytes:
    """Return all rows of the table of TCP sockets.

    Raises:
        OSError: This system has no such table, or it cannot be read now.
    """
    table = (proc / "net" / "tcp").read_bytes()
    with suppress(FileNotFoundError):  # without IPv6
        table += (proc / "net" / "tcp6").read_bytes()
    return table


def _find_user(table: bytes, own: Address, peer: Address, inode: int) -> int | None:
    """Return the user id of the peer's socket, if both ends of this very connection are in the table.

    The kernel shows a socket that its process has closed as one of root's, with the inode 0. Such a row is
    ignored.

    Args:
        table: The rows of the kernel's table.
        own: Address and port of the own end.
        peer: Address and port of the other end.
        inode: The inode of the own socket; a later connection may have the same addresses.
    """
    if (near := _find_row(table, own, peer)) is None or near[1] != inode:
        return None
    far = _find_row(table, peer, own)
    return far[0] if far is not None and far[1] else None


def _find_row(table: bytes, local: Address, remote: Address) -> tuple[int, int] | None:
    """Return the user id and the inode of the socket with these addresses; None if the table has none."""
    for here, there in zip(_format_address(*local), _format_address(*remote), strict=True):
        start = table.find(b": %s %s " % (here, there))
        if start >= 0:
            row = table[start : table.index(b"\n", start)].split()
            return int(row[7]), int(row[9])
    return None


def _format_address(host: str, port: int) -> list[bytes]:
    """Return the forms in which the table may show an address.

    The table of IPv6 may have an IPv4 address as a mapped one, because either end may have opened its socket
    for IPv6.
    """
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is None:
            return [_format_for_table(address.packed, port)]
        address = address.ipv4_mapped
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    return [_format_for_table(address.packed, port), _format_for_table(mapped.packed, port)]


def _format_for_table(packed: bytes, port: int) -> bytes:
    """Return an address and a port as in a row: each 32 bits are a number in the machine's byte order."""
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return ("".join(f"{word:08X}" for word in words) + f":{port:04X}").encode()


def _has_listener(table: bytes, port: int) -> bool:
    """Return whether the table has a socket that listens on this port."""
    return re.search(rb": [0-9A-F]+:%04X [0-9A-F:]+ 0A " % port, table) is not None


def _is_trusted(user: int, proc: Path) -> bool:
    """Return whether the user is root or the user that this service runs as."""
    return user == 0 or (user == os.geteuid() and _is_one_user(user, proc))


def _is_one_user(user: int, proc: Path) -> bool:
    """Return whether the user id belongs to one user only.

    In a user namespace all users without a mapping share one id, the overflow id.
    """
    try:
        overflow = int((proc / "sys/kernel/overflowuid").read_text())
        mapped = sum(int(line.split()[2]) for line in (proc / "self/uid_map").read_text().splitlines())
    except FileNotFoundError:  # without user namespaces
        return True
    except (OSError, ValueError):
        return False
    return user != overflow or mapped >= _USER_IDS
