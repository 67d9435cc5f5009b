"""Good requests, and what can be done to them: values of the wrong kind, hostile text, broken JSON."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tests.support.tasks import make_email, make_task

# Words that stand for what json.dumps cannot write.
_RAW = {
    '"@deep"': b"[" * 100_000,
    '"@nested"': b"[" * 2000 + b"]" * 2000,
    '"@objects"': b'{"a":' * 400 + b"1" + b"}" * 400,
    '"@huge"': b"9" * 5000,
    '"@infinite"': b"1e999",
    '"@nan"': b"NaN",
    '"@twice"': b'{"a": 1, "a": 2}',
    '"@bytes"': b'"\xff\xfe\x80"',
    '"@surrogate"': b'"\xed\xa0\x80"',
}
_WORDS = [
    *("", " ", "a\0b", "\ud800", "\udc00\ud800", "\u2028", "\u202e", "\x1b[2J", "a\r\nBcc: x@example.com"),
    *("../../etc/passwd", "/" * 2000, "/a/../b", "~root", "$(id)", "`id`", "'; DROP TABLE tasks; --", "/"),
    *("{{7*7}}", "${x}", "%s%n%j", "<script>", "$where", "null", "true", "0", "1e5", "-0", "٣", "K\u0301"),
    *("İ", "ß" * 200, "🦙" * 300, "x" * 3000, "root", "slurm", "generic", "PENDING", "email", "rabbithq"),
    *("end", "alice", "A=1", "=", "A=" + "x" * 9000, "a@b", "Ann <ann@example.com>", "a@[127.0.0.1]"),
    *('"x y"@example.com', "a@xn--", "ü@ü.example", "@", "http://[::1", "http://a:b@c", "http://a:99999/"),
    *("HTTPS://EXAMPLE.COM", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "2026-W01-1T00+00"),
    *("9999-12-31T23:59:59-23:59", "1969-12-31T23:59:59Z", "0-000000001" + "9" * 30, "0-4000000," * 90),
    *("0-3:0", "1" * 1000, *(word.strip('"') for word in _RAW)),
]
_NUMBERS: list[Any] = [
    *(0, -0.0, 1, -1, 1.0, 1.5, 5, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1),
    *(10**400, 1e308, 5e-324),
]
_OTHERS: list[Any] = [
    *(None, True, False, [], {}, [[]], [None], [{}], {"": 1}, {"$ref": "x"}, {"$gt": ""}, {"a\0": 1}),
    *({"a.b": {"$x": 1}}, {"pending_over": 1}, ["end"] * 21, [0] * 5000, ["a@b.example"] * 101),
    {str(number): number for number in range(500)},
    {"recipient": ["a@b.example"] * 100},
    {"email": {"recipient": ["a@b.example", "c@d.example"], "sender": "a@b.example"}},
]

VALUES = st.one_of(
    st.sampled_from(_WORDS),
    st.sampled_from(_NUMBERS),
    st.sampled_from(_OTHERS),
    st.text(max_size=20),
    st.integers(),
    st.floats(allow_nan=False),
    st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=5), max_size=3),
)
_ACTIONS = ["replace", "replace", "replace", "remove", "rename", "add", "wrap", "repeat"]


@dataclass(frozen=True)
class Change:
    """One change at one place of a body; `place` counts around."""

    place: int
    action: str
    value: Any

    def apply(self, body: Any) -> None:
        places = list(_places(body))
        if not places:
            return
        parent, key = places[self.place % len(places)]
        if self.action == "replace":
            parent[key] = copy.deepcopy(self.value)
        elif self.action == "remove":
            del parent[key]
        elif self.action == "wrap":
            parent[key] = [parent[key]]
        elif isinstance(parent, list):
            parent.insert(key, parent[key] if self.action == "repeat" else copy.deepcopy(self.value))
        elif self.action == "rename":
            parent[str(self.value)[:300]] = parent.pop(key)
        else:
            parent[f"{key}s" if self.action == "repeat" else str(self.value)[:300]] = copy.deepcopy(
                self.value
            )


@dataclass(frozen=True)
class Damage:
    """What befalls the bytes on their way."""

    kind: str
    place: int
    piece: bytes

    def apply(self, raw: bytes) -> bytes:
        place = self.place % (len(raw) + 1)
        if self.kind == "cut":
            return raw[:place]
        if self.kind == "splice":
            return raw[:place] + self.piece + raw[place:]
        if self.kind == "overwrite":
            return raw[:place] + self.piece + raw[place + len(self.piece) :]
        if self.kind == "utf-16":
            return raw.decode("utf-8", "replace").encode("utf-16")
        return raw


CHANGES = st.lists(
    st.builds(Change, st.integers(0, 2**16), st.sampled_from(_ACTIONS), VALUES), min_size=4, max_size=6
)
_PIECES = [
    *(b"\0", b"\xff", b"\xef\xbb\xbf", b"\\u0000", b"\\ud800", b'"', b"}", b"]", b",", b"{", b"\\", b"//"),
    *(b"9" * 400, b"1e999", b"\r\n"),
]
DAMAGES = st.builds(
    Damage,
    st.sampled_from(["cut", "splice", "splice", "overwrite", "utf-16"]),
    st.integers(0, 2**16),
    st.sampled_from(_PIECES) | st.binary(min_size=1, max_size=8),
)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each (parent, key) below `value`."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)


def submissions(uuid: str) -> list[dict[str, Any]]:
    """Good bodies of `/submit`."""
    everything = {
        "methods": ["email", "rabbithq", "slack", "test"],
        "params": {
            **make_email()["params"],
            "rabbithq": {"queue": "q", "body": {"a": [1]}},
            "slack": {"msg": "x"},
        },
        "events": ["end", "fail", "time_limit_80", {"pending_over": 5}],
    }
    options = {
        "environment": ["A=1", "B=x=y"],
        "array": "0-3%2",
        "begin": "2030-01-01T00:00:00+01:00",
        "exclusive": "user",
        "gpus": 2,
        "nice": -5,
        "open_mode": "append",
        "output": "%x.%j.txt",
        "time_minutes": 5,
        "comment": "mine",
    }
    tasks = (
        make_task(),
        make_task(notification=everything, slurm=options, own={"x": [1.5, None]}),
        make_task(name="echo_hello_world", cmd=None, params=None, notification=make_email()),
    )
    return [{"task": {**task, "uuid": uuid}} for task in tasks]


def watches(uuid: str) -> list[dict[str, Any]]:
    """Good bodies of `/monitor`, for job 5 of alice."""
    small = {"username": "alice", "uuid": uuid}
    tasks = (
        {**small, "notification": make_email()},
        {**small, "name": "mine", "slurm": {"array": "0-3"}, "cwd": "/x", "dirs": {}},
        {**make_task(notification=make_email()), **small},
    )
    return [{"monitor": {"task": task, "slurm_job_id": 5, "slurm_job_state": "RUNNING"}} for task in tasks]


def written(body: Any) -> bytes:
    """The body as bytes, with what JSON does not allow in the place of its words."""
    raw = json.dumps(body).encode()
    for word, instead in _RAW.items():
        raw = raw.replace(word.encode(), instead)
    return raw
