"""Name fewer jobs in a request where long requests are refused."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.errors import RequestTooLong, SlurmTokenRefused, SlurmUnavailable
from app.job_state import JobState
from app.slurm.client import SlurmClient
from app.slurm.id_chunks import PROXY_SAFE_IDS, IdChunks
from app.slurm.session import Session
from tests.support.scripted_server import Scripted, with_length


def refusal(status: bytes, content: bytes = b"<html>no</html>", version: bytes = b"HTTP/1.1") -> bytes:
    head = b"%s %s\r\nConnection: Close\r\nContent-Length: %d\r\n\r\n"
    return head % (version, status, len(content)) + content


REFUSALS = {
    "part of the line, 24.11": refusal(b"400 BAD REQUEST", b"", b"HTTP/0.9"),
    "part of the line, 26.05": refusal(b"500 INTERNAL ERROR", b"Invalid format for URL format"),
    "part of the headers": refusal(b"401 UNAUTHORIZED", b"Authentication failure"),
    "proxy, line": refusal(b"414 URI Too Long"),
    "proxy, headers": refusal(b"431 Request Header Fields Too Large"),
    "proxy in front of such an answer": refusal(b"502 Bad Gateway"),
    "connection closed": b"",
}


class RefusingServer(Scripted):
    """A slurmrestd that lists running jobs, but not for a request line of more than some bytes."""

    def __init__(self, folder: Path, refusal: bytes, longest: int) -> None:
        super().__init__("tcp", folder, self._reply)
        self.refusal = refusal
        self.longest = longest
        self.refused = 0
        self.asked: list[int] = []  # how many ids were answered at a time

    def _reply(self, client: object) -> None:
        line = self.heads[-1].split(b"\r\n")[0]
        is_refused = len(line) > self.longest
        self.refused += is_refused
        client.sendall(self.refusal if is_refused else self._list(line))  # type: ignore[attr-defined]
        if is_refused:
            client.close()  # type: ignore[attr-defined]

    def _list(self, line: bytes) -> bytes:
        ids = parse_qs(urlsplit(line.split()[1].decode()).query).get("job_id", [])
        if b"jobs/state" in line:
            self.asked.append(len(ids))
        jobs = [{"job_id": job_id, "state": ["RUNNING"]} for job_id in ids]
        return with_length(json.dumps({"jobs": jobs, "errors": []}).encode())


KNOWN = dict.fromkeys(range(10_000_001, 10_001_501), JobState.RUNNING)


@pytest.mark.parametrize("longest", [8190, 1100])
@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS.keys())
def test_poll_reads_all_states_although_long_requests_are_refused(
    answer: bytes, longest: int, tmp_path: Path
) -> None:
    with RefusingServer(tmp_path, answer, longest) as server, closing(server.connection()) as connection:
        session = Session(connection, "slurm")
        client = SlurmClient(session)
        assert client.poll(KNOWN) == {}
        assert client.unread_jobs == set()
        assert server.refused == {8190: 1, 1100: 3}[longest]
        assert sum(server.asked) == len(KNOWN)
        assert client.poll(KNOWN) == {}
        assert server.refused == {8190: 1, 1100: 3}[longest], "no refused request is repeated"
        assert session.outage is None
        assert session.token_fault is None


def test_a_token_that_slurm_refuses_is_reported_as_such(tmp_path: Path) -> None:
    with (
        RefusingServer(tmp_path, REFUSALS["part of the headers"], 50) as server,
        closing(server.connection()) as connection,
    ):
        client = SlurmClient(Session(connection, "slurm"))
        with pytest.raises(SlurmTokenRefused):
            client.poll(KNOWN)


def test_time_out_of_a_proxy_is_not_taken_for_a_refusal(tmp_path: Path) -> None:
    with (
        RefusingServer(tmp_path, refusal(b"504 Gateway Time-out"), 50) as server,
        closing(server.connection()) as connection,
    ):
        with pytest.raises(SlurmUnavailable):
            SlurmClient(Session(connection, "slurm")).poll(KNOWN)
        assert server.refused == 1


class Requests:
    """Counts the ids of each request, and refuses those with more than `most`."""

    def __init__(self, most: int, error: SlurmUnavailable | None = None) -> None:
        self.most = most
        self.error = error or RequestTooLong("too long")
        self.sizes: list[int] = []

    def __call__(self, ids: Sequence[int]) -> int:
        self.sizes.append(len(ids))
        if len(ids) > self.most:
            raise self.error
        return len(ids)


def ask_all(chunks: IdChunks, request: Requests, count: int) -> Iterator[int]:
    for chunk in chunks.split(range(count)):
        for ids, _ in chunks.ask(chunk, request):
            yield from ids


def test_ids_that_were_refused_together_are_asked_for_in_smaller_requests() -> None:
    request = Requests(most=200)
    assert list(ask_all(IdChunks(), request, 1500)) == list(range(1500))
    assert request.sizes == [1200, 480, *[160] * 7, 80, 160, 140]


def test_larger_requests_are_tried_again_after_ten_minutes() -> None:
    now = [0.0]
    chunks, request = IdChunks(clock=lambda: now[0]), Requests(most=100)
    list(ask_all(chunks, request, 1200))
    request.most = 1200
    sizes = []
    for now[0] in (599.0, 600.0, 1199.0, 1200.0, 1800.0, 9999.0):
        request.sizes.clear()
        list(ask_all(chunks, request, 1200))
        sizes.append(request.sizes[0])
    assert sizes == [50, 160, 160, 480, 1200, 1200]


def test_the_size_stays_where_even_short_requests_fail() -> None:
    chunks, request = IdChunks(), Requests(most=0)
    for _ in range(2):
        request.sizes.clear()
        with pytest.raises(SlurmUnavailable):
            list(ask_all(chunks, request, 1500))
        assert request.sizes == [1200, 480, 160, 50]


def test_another_failure_is_not_taken_for_a_refusal() -> None:
    request = Requests(most=0, error=SlurmUnavailable("did not answer in time"))
    with pytest.raises(SlurmUnavailable):
        list(ask_all(IdChunks(PROXY_SAFE_IDS), request, 1500))
    assert request.sizes == [480]
