"""Ask the kernel of Linux for one TCP socket of this network namespace (netlink, sock_diag).

The answer takes microseconds, however many sockets there are. Field names are those of linux/inet_diag.h.
"""

import errno
import socket
import struct
from contextlib import suppress

Address = tuple[str, int]  # host and port
_Wanted = tuple[int, int, bytes, bytes]  # own port, other port, own address, other address

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_KERNEL = 0  # the netlink address of the kernel
_ALL_STATES = 2**32 - 1
_NO_COOKIE = (2**32 - 1, 2**32 - 1)
_ANSWER_BYTES = 8192
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, sender
_REQUEST = struct.Struct("=BBBBI")  # inet_diag_req_v2, before its id: family, protocol, ..., states
_STATE = struct.Struct("=BBBB")  # inet_diag_msg, before its id: family, state, timer, retransmissions
_ID = struct.Struct("!HH16s16s")  # inet_diag_sockid: both ports, and both addresses
_INTERFACE = struct.Struct("=III")  # the rest of inet_diag_sockid: the interface and the cookie
_OWNER = struct.Struct("=IIIII")  # the end of inet_diag_msg: expires, rqueue, wqueue, uid, inode
_MAPPED = bytes(10) + b"\xff\xff"  # the beginning of an IPv4 address that is written as an IPv6 address


def find_socket(local: Address, remote: Address) -> tuple[int, int] | None:
    """Return the user id and the inode of the TCP socket with exactly these addresses.

    The kernel shows a socket that its process has closed as one of root's, with the inode 0.

    Returns:
        None if the kernel shows no such socket. The socket may exist all the same: the kernel may lack the
        module for such requests, or a rule may forbid them.
    """
    with suppress(OSError, AttributeError, struct.error):  # AttributeError: not on Linux
        wanted = (local[1], remote[1], _pack(local[0]), _pack(remote[0]))
        return _read_owner(_ask_kernel(wanted), wanted)
    return None


def _ask_kernel(wanted: _Wanted) -> bytes:
    """Return the kernel's answer to a question about one socket.

    Raises:
        OSError: The kernel does not answer such questions.
        AttributeError: This system has no netlink.
    """
    family = socket.AF_INET if len(wanted[2]) == len(wanted[3]) == 4 else socket.AF_INET6
    question = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + _ID.pack(*wanted)
    question += _INTERFACE.pack(0, *_NO_COOKIE)
    header = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.sendto(header + question, (_KERNEL, 0))
        answer, sender = kernel.recvfrom(_ANSWER_BYTES, socket.MSG_DONTWAIT)  # it is there already
    if sender[0] != _KERNEL:
        raise OSError(errno.EPROTO, "the answer is not the kernel's")
    return answer


def _read_owner(answer: bytes, wanted: _Wanted) -> tuple[int, int] | None:
    """Return user id and inode in an answer; None for an error, or another socket such as a listening one.

    Raises:
        struct.error: The answer is too short.
    """
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        return None
    place = _HEADER.size
    family = _STATE.unpack_from(answer, place)[0]
    place += _STATE.size
    own_port, other_port, own, other = _ID.unpack_from(answer, place)
    if family == socket.AF_INET:
        own, other = own[:4], other[:4]
    if (own_port, other_port, _unmap(own), _unmap(other)) != wanted:
        return None
    *_, user, inode = _OWNER.unpack_from(answer, place + _ID.size + _INTERFACE.size)
    return user, inode


def _pack(host: str) -> bytes:
    """Return an address as bytes, without its zone; one of IPv4 has 4 of them, also as a mapped one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _unmap(socket.inet_pton(family, host.partition("%")[0]))


def _unmap(address: bytes) -> bytes:
    return address.removeprefix(_MAPPED) if len(address) == 16 else address
