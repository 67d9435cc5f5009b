"""Requests to a server without authentication: which are served, and which are refused."""

from collections.abc import Callable

import pytest

from tests.support.access import Site
from tests.support.tasks import make_task


def test_first_minutes_of_a_server_need_no_authentication(new_site: Callable[..., Site]) -> None:
    site = new_site(ACCESS_METHODS="")
    assert site.submit().status_code == 200
    for host in ("localhost:5001", "127.0.0.1", "[::1]:5001", "LOCALHOST"):
        assert site.call("GET", "/slurm/ping", Host=host).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:5001"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Host": "evil.example"},
        {"Host": "evil.example:5001"},
        {"Host": "127.0.0.1.evil.example"},
        {"X-Forwarded-For": "10.0.0.1"},
        {"Forwarded": "for=10.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Forwarded-Proto": "https"},
        {"X-Client-IP": "10.0.0.1"},
        {"True-Client-IP": "10.0.0.1"},
        {"CF-Connecting-IP": "10.0.0.1"},
        {"X-Original-Forwarded-For": "10.0.0.1"},
        {"X-Envoy-External-Address": "10.0.0.1"},
        {"X-Envoy-Expected-Rq-Timeout-Ms": "15000"},
        {"X-Amzn-Trace-Id": "Root=1-67891233-abcdef012345678912345678"},
        {"X-Cluster-Client-IP": "10.0.0.1"},
        {"Fastly-Client-IP": "10.0.0.1"},
        {"Cdn-Loop": "example"},
    ],
)
def test_server_without_authentication_serves_no_page_and_no_stranger(
    new_site: Callable[..., Site], headers: dict[str, str]
) -> None:
    site = new_site(ACCESS_METHODS="")
    for path in ("/submit", "/monitor/task_uuid/x", "/slurm/ping"):
        method = "POST" if path == "/submit" else "GET"
        answer = site.call(method, path, None, {"task": make_task()}, **headers)
        assert (answer.status_code, answer.json["code"]) == (403, "forbidden"), path
    assert site.slurm.submitted == []


def test_a_plain_nginx_is_recognised_by_its_old_http(new_site: Callable[..., Site]) -> None:
    site = new_site(ACCESS_METHODS="")
    old = {"SERVER_PROTOCOL": "HTTP/1.0"}
    assert site.client.get("/slurm/ping", environ_overrides=old).status_code == 403


def test_a_person_can_read_a_record_in_a_browser(new_site: Callable[..., Site]) -> None:
    site = new_site(ACCESS_METHODS="")
    uuid = site.submit().json["uuid"]
    answer = site.call("GET", f"/monitor/task_uuid/{uuid}", **{"Sec-Fetch-Site": "none"})
    assert answer.status_code == 200


def test_server_without_authentication_serves_no_other_machine(new_site: Callable[..., Site]) -> None:
    """This holds under every WSGI server, also one that listens on all addresses."""
    site = new_site(ACCESS_METHODS="")
    there = {"REMOTE_ADDR": "10.1.2.3"}
    for there in ({"REMOTE_ADDR": "10.1.2.3"}, {"REMOTE_ADDR": ""}):  # the second is that of a Unix socket
        assert site.client.get("/monitor/task_uuid/x", environ_overrides=there).status_code == 403
    assert site.client.get("/ping", environ_overrides=there).status_code == 200


def test_risk_of_no_authentication_can_be_accepted(new_site: Callable[..., Site]) -> None:
    site = new_site(ACCESS_METHODS="", ACCESS_WITHOUT_PROOF="true")
    there = {"REMOTE_ADDR": "10.1.2.3"}
    assert site.client.get("/monitor/task_uuid/x", environ_overrides=there).status_code == 400
    assert site.client.get("/slurm/ping", environ_overrides=there).status_code == 403, "operators sit here"
    assert site.call("GET", "/monitor/task_uuid/x", Host="cluster.example").status_code == 400
    assert site.call("GET", "/slurm/ping", Host="localhost").status_code == 200
    for host in ("cluster.example", "127.0.0.1.evil.example:5001"):  # as of a page that was rebound
        assert site.call("GET", "/slurm/ping", Host=host).status_code == 403
    assert site.call("GET", "/monitor/task_uuid/x", Origin="https://evil.example").status_code == 403
