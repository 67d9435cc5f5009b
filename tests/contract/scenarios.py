"""The sequences of requests whose answers are recorded; each is a function that is given an empty folder."""

import copy
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.contract.faulty_tasks import BAD_BODIES, BAD_MONITORS, BAD_TASKS, REMOVE
from tests.contract.recording import Recording, mail_as_json
from tests.contract.rig import (
    MAX_BODY_BYTES,
    TASK_METADATA,
    Channels,
    HtmlService,
    JobState,
    RecordingSlurmrestd,
    Reply,
    Rig,
    Settings,
    SlurmAmbiguous,
    SlurmMisbehaved,
    SlurmRefused,
    SlurmUnavailable,
    recent,
    settings_without_environment,
)
from tests.support.real.http_services import Answer
from tests.support.tasks import make_email, make_task

_ELSEWHERE = {"REMOTE_ADDR": "192.0.2.1"}
_FIGURES = {"cpus": 4, "memory_mb": 4096, "max_memory_bytes": 300_000_000, "cpu_seconds": 3600.0}


def a_task(uuid: str, **fields: Any) -> dict[str, Any]:
    return make_task(folder="/home/alice/runs", uuid=uuid, **fields)


def documents(folder: Path) -> Recording:
    """Everything that is the same for each request: the documentation, the settings, the tables."""
    with Rig(folder) as rig:
        rig.record.has_ids = False  # those of examples are always the same
        rig.ask("GET /openapi.json", "GET", "/openapi.json")
        rig.ask("GET /docs", "GET", "/docs")
        rig.ask("GET /ping", "GET", "/ping")
        rig.ask("GET /ping/", "GET", "/ping/")
        rig.ask("HEAD /ping", "HEAD", "/ping")
        rig.ask("GET /healthz", "GET", "/healthz")
        rig.ask("GET /whoami", "GET", "/whoami")
        rig.ask("GET /catalogue", "GET", "/catalogue")
        rig.ask("GET /healthz with a query", "GET", "/healthz?now=1")
        rig.ask("GET /cluster", "GET", "/cluster")
        rig.ask("GET /cluster with a query", "GET", "/cluster?partition=debug")
        rig.ask("GET /readyz before the first poll", "GET", "/readyz", environ_base=_ELSEWHERE)
        rig.ask("GET /whoami with a query", "GET", "/whoami?user=alice")
        rig.ask("GET /catalogue with a query", "GET", "/catalogue?name=generic")
        settings = settings_without_environment()
        for name, field in Settings.model_fields.items():
            default = getattr(settings, name)
            shown = default.name if isinstance(default, Path) else default
            rig.record.add(f"setting {name}", {"default": shown, "description": field.description})
        rig.record.add("TASK_METADATA", TASK_METADATA)
        rig.record.add("tables of SQLite", rig.schema())
        return rig.record


def tasks(folder: Path) -> Recording:
    """Submit, register, look up, list and cancel tasks in each state."""
    with Rig(
        folder, NOTIFICATIONS_SMTP_SERVER="mail.example.com", MONITOR_UNKNOWN_AFTER_SECONDS=0.001
    ) as rig:
        slurm, ask = rig.slurm, rig.ask
        first = a_task("pending", own={"z": 1, "a": [1.0, "ü", None]}, notification=make_email())
        ask("submit", "POST", "/submit", {"task": first})
        ask("submit with a slash", "POST", "/submit/", {"task": a_task("second")})
        ask("submit again", "POST", "/submit", {"task": first})
        key = {"Idempotency-Key": "a-key"}
        ask("submit with a key", "POST", "/submit", {"task": a_task("keyed")}, headers=key)
        ask("submit again with the key", "POST", "/submit", {"task": a_task("keyed")}, headers=key)
        ask("submit another with the key", "POST", "/submit", {"task": a_task("other")}, headers=key)
        ask("bad key", "POST", "/submit", {"task": a_task("other")}, headers={"Idempotency-Key": "ü"})
        odd = {"methods": ["slack", "rabbithq", "test"], "params": {"rabbithq": {"queue": "jobs"}}}
        with_warnings = a_task("with-warnings", notification=odd, enviroment="A=1")
        ask("submit with warnings", "POST", "/submit", {"task": with_warnings})
        ask("dry run", "POST", "/submit?dry_run=true", {"task": a_task("dry", notification=make_email())})
        no_more = {**with_warnings, "uuid": "dry-warnings"}
        ask("dry run with warnings", "POST", "/submit?dry_run=1", {"task": no_more})
        ask("dry run of a used uuid", "POST", "/submit?dry_run=true", {"task": first})
        keyed = {"task": a_task("keyed")}
        ask("dry run with a used key", "POST", "/submit?dry_run=true", keyed, headers=key)
        ask("bad dry run", "POST", "/submit?dry_run=yes", {"task": a_task("dry")})
        hello = a_task("hello", name="echo_hello_world", cmd=None, params=None, slurm={})
        ask("submit hello world", "POST", "/submit", {"task": hello})
        words = a_task("argv", argv=["echo", "it's", ""], cmd=None, params=None)
        ask("submit argv", "POST", "/submit", {"task": words})

        def look(name: str, uuid: str, job_id: int) -> None:
            ask(f"{name} by uuid", "GET", f"/monitor/task_uuid/{uuid}")
            ask(f"{name} by job id", "GET", f"/monitor/slurm_job_id/{job_id}")

        look("pending", "pending", 1001)
        look("warnings", "with-warnings", 1004)
        rig.record.add("row of a pending task", rig.rows("tasks", "pending"))
        rig.record.add("notifications of with-warnings", rig.rows("notifications", "with-warnings"))
        _move_through_states(rig, look)
        _register(rig, look)
        for state in ("PENDING", "COMPLETED", "FAILED", "SUSPENDED"):
            ask(f"list {state}", "GET", f"/monitor/slurm_job_state/{state}")
        ask("list by filters", "GET", "/monitor?job_name=*.generic&username=alice&state=RUNNING")
        ask("list failed", "GET", "/monitor/?state=failed&order=oldest")
        ask("list by uuids", "GET", "/monitor?uuid=pending&uuid=nothing&uuid=keyed&uuid=pending")
        ask("list with faults", "GET", "/monitor?state=faild&usernme=x&since=soon&limit=0&after=x")
        ask("list no state", "GET", "/monitor/slurm_job_state/RUNING/")
        slurm.down = SlurmUnavailable("slurmrestd cannot be reached")
        look("pending without Slurm", "keyed", 1003)
        slurm.down = None
        ask("cancel by uuid", "POST", "/monitor/task_uuid/keyed/cancel")
        ask("cancel again by uuid", "POST", "/monitor/task_uuid/keyed/cancel")
        ask("cancel by job id", "DELETE", "/monitor/slurm_job_id/1002")
        ask("cancel again by job id", "DELETE", "/monitor/slurm_job_id/1002/")
        look("cancelled before the poll", "keyed", 1003)
        rig.poll()
        look("cancelled", "keyed", 1003)
        _resubmit(rig, look)
        _control(rig)
        ask("cancel an unknown uuid", "POST", "/monitor/task_uuid/nobody/cancel")
        ask("cancel an unknown job", "DELETE", "/monitor/slurm_job_id/99")
        ask("cancel no job id", "DELETE", "/monitor/slurm_job_id/x")
        ask("wait for an end that was", "GET", "/monitor/task_uuid/keyed?wait=60")
        ask("wait for a moment", "GET", "/monitor/slurm_job_id/1001?wait=0.001&until=change")
        ask("wait for an unknown task", "GET", "/monitor/task_uuid/nobody?wait=60&until=begin")
        ask("wait for several tasks", "GET", "/monitor?uuid=keyed&uuid=nobody&wait=60&until=end")
        ask("wait for no certain tasks", "GET", "/monitor?wait=60")
        ask("wait too long", "GET", "/monitor/task_uuid/keyed?wait=61&until=over")
        ask("wait for nothing", "GET", "/monitor/slurm_job_id/1001?until=end")
        for path in ("task_uuid/nobody", "task_uuid/a/b", "slurm_job_id/99", "slurm_job_id/x"):
            ask(f"GET {path}", "GET", f"/monitor/{path}")
        ask("huge job id", "GET", "/monitor/slurm_job_id/" + "9" * 40)
        ask("HEAD of a task", "HEAD", "/monitor/task_uuid/pending")
        return rig.record


def _move_through_states(rig: Rig, look: Callable[[str, str, int], None]) -> None:
    start, end = recent(hours=1, seconds=3), recent()
    running = {"start_time": start, "nodes": "n[1-2]", "partition": "debug", "time_limit_minutes": 90}
    ended = {**running, **_FIGURES, "end_time": end}
    for uuid, state, fields in (
        ("running", JobState.RUNNING, running),
        ("suspended", JobState.SUSPENDED, {**running, "suspended_seconds": 60.5}),
        ("completed", JobState.COMPLETED, {**ended, "exit_code": 0}),
        ("failed", JobState.FAILED, {**ended, "exit_code": 127, "reason": "NonZeroExitCode"}),
        ("timeout", JobState.TIMEOUT, {**ended, "signal": 15, "reason": "TimeLimit"}),
        ("node-fail", JobState.NODE_FAIL, ended),
        ("requeued", JobState.PENDING, {"restarts": 1, "reason": "BeginTime"}),
        ("special", JobState.SPECIAL_EXIT, {"restarts": 2}),
        ("never", JobState.PENDING, {"reason": "PartitionTimeLimit"}),
    ):
        job_id = rig.submit(a_task(uuid, notification=make_email()))
        rig.slurm.put(job_id, state, **fields)
        look(f"{uuid} before the poll", uuid, job_id)
        rig.poll()
        look(uuid, uuid, job_id)
    rig.record.add("row of a completed task", rig.rows("tasks", "completed"))
    rig.record.add("notifications of a completed task", rig.rows("notifications", "completed"))

    array = a_task("array", slurm={"array": "1-10%2", "output": "out-%a.txt"}, notification=make_email())
    job_id = rig.submit(array)
    counts = {JobState.COMPLETED: 7, JobState.RUNNING: 2, JobState.PENDING: 1}
    rig.slurm.put(job_id, JobState.RUNNING, array_job_id=job_id, array_tasks=counts, **running)
    rig.poll()
    look("array that runs", "array", job_id)
    counts = {JobState.COMPLETED: 7, JobState.FAILED: 3}
    fields = {**ended, "array_job_id": job_id, "array_tasks": counts, "failed_tasks": "2,7-8", "exit_code": 1}
    rig.slurm.put(job_id, JobState.FAILED, **fields)
    rig.poll()
    look("array that failed", "array", job_id)
    rig.record.add("row of an array", rig.rows("tasks", "array"))

    lost = rig.submit(a_task("lost", notification=make_email()))
    rig.slurm.forget(lost, accounted=False)
    rig.poll()
    rig.poll(timedelta(seconds=1))
    look("unknown", "lost", lost)


def _resubmit(rig: Rig, look: Callable[[str, str, int], None]) -> None:
    ask, by_uuid = rig.ask, "/monitor/task_uuid/second/resubmit"
    more = {"uuid": "third", "task": {"slurm": {"mem": 200, "nodes": None}, "own": [1]}}
    ask("dry run of a resubmission", "POST", f"{by_uuid}?dry_run=true", more)
    ask("resubmit by uuid", "POST", by_uuid, more)
    ask("resubmit again by uuid", "POST", f"{by_uuid}/", more)
    key = {"Idempotency-Key": "again"}
    ask("resubmit by job id", "POST", "/monitor/slurm_job_id/1002/resubmit", headers=key)
    ask("resubmit again by job id", "POST", "/monitor/slurm_job_id/1002/resubmit", headers=key)
    ask("resubmit another with the key", "POST", by_uuid, more, headers=key)
    ask("resubmitted task by uuid", "GET", "/monitor/task_uuid/third")
    look("resubmitted", "second", 1002)
    for name, body in (
        ("a patch of another type", {"task": {"slurm": {"mem": []}, "dirs": None}}),
        ("two uuids", {"uuid": "a", "task": {"uuid": "b"}}),
        ("its own uuid", {"uuid": "second"}),
        ("an unknown key", {"patch": {}}),
        ("a list", []),
    ):
        ask(f"resubmit with {name}", "POST", by_uuid, body)
    ask("resubmit a registered job", "POST", "/monitor/task_uuid/registered/resubmit")
    ask("resubmit an unknown uuid", "POST", "/monitor/task_uuid/nobody/resubmit")
    ask("resubmit an unknown job", "POST", "/monitor/slurm_job_id/99/resubmit")
    ask("resubmit no job id", "POST", "/monitor/slurm_job_id/x/resubmit")


def _register(rig: Rig, look: Callable[[str, str, int], None]) -> None:
    ask = rig.ask
    rig.slurm.put(5, JobState.RUNNING, name="elsewhere", start_time=recent(minutes=1), nodes="n1")
    ask("register", "POST", "/monitor", _registration(slurm_job_id=5))
    ask("register again", "POST", "/monitor/", _registration(slurm_job_id=5))
    look("registered", "registered", 5)
    rig.record.add("row of a registered job", rig.rows("tasks", "registered"))
    ask("register an unknown job", "POST", "/monitor", _registration("r2", slurm_job_id=6))
    ask("register another's job", "POST", "/monitor", _registration("r3", "bob", slurm_job_id=5))
    with_state = _registration("r4", slurm_job_id=5, slurm_job_state="PENDING", more=[1])
    ask("register with a state", "POST", "/monitor", with_state)
    rig.slurm.put(7, JobState.COMPLETED, start_time=recent(minutes=2), end_time=recent(minutes=1))
    ask("register an ended job", "POST", "/monitor", _registration("r5", slurm_job_id=7))
    look("registered after its end", "r5", 7)


def _registration(uuid: str = "registered", username: str = "alice", **fields: Any) -> dict[str, Any]:
    return {"monitor": {"task": {"username": username, "uuid": uuid}, **fields}}


def faults(folder: Path) -> Recording:
    """Send what the request causes to be refused; every fault is named."""
    with Rig(folder, NOTIFICATIONS_SMTP_SERVER="mail.example.com") as rig:
        base = {"task": a_task("faulty", notification=make_email())}
        for path, value in BAD_TASKS:
            rig.ask(_name_of(path, value), "POST", "/submit", changed(path, value, base))
        for fields in ({"time": 1, "time_minutes": 1}, {"mem": 1, "mem_per_cpu": 1}):
            rig.ask(f"both {', '.join(fields)}", "POST", "/submit", {"task": a_task("faulty", slurm=fields)})
        rig.ask("argv and cmd", "POST", "/submit", {"task": a_task("faulty", argv=["echo"])})
        rig.ask("no command", "POST", "/submit", {"task": a_task("faulty", cmd=None, params=None)})
        many = a_task("faulty", name="x", username="root", cwd="x", params=[1], slurm={"memm": 1, "time": -1})
        rig.ask("many faults", "POST", "/submit", {"task": many})
        more = a_task("faulty", slurm={f"o{number}": 1 for number in range(200)})
        rig.ask("more than a hundred faults", "POST", "/submit", {"task": more})
        for body in BAD_BODIES:
            rig.ask(f"body {body[:40]!r}", "POST", "/submit", body)
        rig.ask("body of /monitor", "POST", "/monitor", b"[]")
        registration = {**_registration(slurm_job_id=5)}
        for path, value in BAD_MONITORS:
            rig.ask(_name_of(path, value), "POST", "/monitor", changed(path, value, registration))
        rig.ask("body that is too large", "POST", "/submit", b" " * (MAX_BODY_BYTES + 1))
        for encoding in ("gzip", "br"):
            headers = {"Content-Encoding": encoding}
            rig.ask(f"body in {encoding}", "POST", "/submit", b"x", headers=headers)
        _http_faults(rig)
        return rig.record


def _control(rig: Rig) -> None:
    """Hold, release and requeue a job, by uuid and by job id."""
    slurm, job_id = rig.slurm, rig.submit(a_task("controlled"))
    uuid, by_id = "/monitor/task_uuid/controlled", f"/monitor/slurm_job_id/{job_id}"
    for action in ("requeue", "hold", "hold again", "release", "release again"):
        where = by_id if action.endswith("again") else uuid
        rig.ask(f"{action} a job that waits", "POST", f"{where}/{action.split()[0]}")
    slurm.put(job_id, held_tasks=1, reason="JobHeldAdmin")
    rig.ask("release what an administrator holds", "POST", f"{by_id}/release/")
    slurm.put(job_id, JobState.RUNNING, held_tasks=0, reason=None)
    rig.ask("hold a job that runs", "POST", f"{by_id}/hold/")
    for action in ("requeue", "requeue again", "cancel", "cancel again"):
        where = uuid if action.endswith("again") else by_id
        rig.ask(f"{action} a job that runs", "POST", f"{where}/{action.split()[0]}")
    for action in ("hold", "release"):
        rig.ask(f"{action} a job that has ended", "POST", f"{uuid}/{action}")
    rig.submit(a_task("one-of-many"))
    for name, body in (
        ("dry run of many", {"filter": {"uuid": "one-of-many"}, "dry_run": True}),
        ("cancel many", {"filter": {"uuid": ["one-of-many", "controlled"]}}),
        ("cancel many without a filter", {"filter": {}}),
        ("cancel many by a misspelt filter", {"filter": {"stat": "open"}}),
        ("cancel many that have ended", {"filter": {"state": "FAILED"}}),
    ):
        rig.ask(name, "POST", "/monitor/cancel", body)
    slurm.api = "v0.0.42"
    rig.ask("requeue where Slurm cannot", "POST", f"{uuid}/requeue")
    slurm.api = "v0.0.45"
    slurm.forget(job_id, accounted=False)
    rig.ask("cancel a job that Slurm has forgotten", "POST", f"{uuid}/cancel")


def _http_faults(rig: Rig) -> None:
    for path in ("/", "/nothing", "//ping", "/monitor/slurm_job_id", "/slurm", "/slurm/nothing"):
        rig.ask(f"GET {path}", "GET", path)
    for method, path in (
        ("GET", "/submit"),
        ("PUT", "/submit"),
        ("GET", "/monitor"),
        ("PATCH", "/monitor/slurm_job_id/5"),
        ("DELETE", "/monitor/task_uuid/x"),
        ("GET", "/monitor/task_uuid/x/cancel"),
        ("POST", "/notifications"),
        ("GET", "/notifications/x/retry"),
        ("GET", "/slurm/job/submit"),
        ("POST", "/slurm/ping"),
        ("POST", "/ping"),
        ("POST", "/docs"),
        ("POST", "/openapi.json"),
    ):
        rig.ask(f"{method} {path}", method, path)
    for path in ("/submit", "/monitor/slurm_job_id/5", "/ping"):
        rig.ask(f"OPTIONS {path}", "OPTIONS", path)
    for method, path in (
        ("POST", "/submit"),
        ("GET", "/monitor/task_uuid/x"),
        ("GET", "/notifications"),
        ("GET", "/slurm/diag"),
        ("GET", "/ping"),
    ):
        rig.ask(f"{method} {path} from elsewhere", method, path, environ_base=_ELSEWHERE)
    web = {"Origin": "http://example.com"}
    rig.ask("request of a web page", "POST", "/submit", {"task": a_task("web")}, headers=web)
    rig.ask("request through a proxy", "GET", "/notifications", headers={"X-Forwarded-For": "192.0.2.1"})
    rig.ask("request under another name", "GET", "/notifications", headers={"Host": "example.com"})


def operators_routes(folder: Path) -> Recording:
    """Ask `/slurm`, with slurmrestd's own answers passed on."""
    with Rig(folder) as rig:
        paths = ("ping", "diag", "jobs/0", "job/77")
        for path in paths:
            rig.ask(path, "GET", f"/slurm/{path}")
        rig.ask("submit", "POST", "/slurm/job/submit?username=alice", {"script": "#!/bin/sh\n"})
        for path in ("jobs/x", "jobs/-1", "jobs/" + "9" * 12, "job/x", "job/0"):
            rig.ask(path, "GET", f"/slurm/{path}")
        for query in ("", "?username=A", "?username=root", "?user=bob", "?username=alice&more=1"):
            rig.ask(f"submit{query} wrongly", "POST", f"/slurm/job/submit{query}", {})
        rig.ask("submit no JSON", "POST", "/slurm/job/submit?username=alice", b"x")
        unknown = {"error_number": 2017, "error": "Invalid job id specified", "source": "slurm_load_job"}
        for reply in (
            Reply(500, {"errors": [unknown], "jobs": []}, ""),
            Reply(503, {}, "<html>try again</html>"),
        ):
            rig.slurm.raw_reply = reply
            for path in paths:
                rig.ask(f"{path} answered {reply.status}", "GET", f"/slurm/{path}")
        for error in (SlurmUnavailable, SlurmMisbehaved, SlurmAmbiguous):
            rig.slurm.down = error("so it is")
            rig.ask(f"ping with {error.code}", "GET", "/slurm/ping")
            rig.ask(f"submit with {error.code}", "POST", "/slurm/job/submit?username=alice", {})
        return rig.record


def readiness(folder: Path) -> Recording:
    """Ask whether the service is ready, as an operator of this machine and as anybody else."""
    with Rig(folder, ACCESS_METHODS="keys") as rig:
        rig.poll()
        rig.ask("ready, with a slash", "GET", "/readyz/", environ_base=_ELSEWHERE)
        rig.ask(
            "ready, with a key that is not known", "GET", "/readyz", headers={"Authorization": "Bearer x"}
        )
        rig.ask("metrics from elsewhere", "GET", "/metrics", environ_base=_ELSEWHERE)
        answer = rig.client.get("/metrics")  # whose figures differ from run to run
        described = [line for line in answer.text.splitlines() if line.startswith("# ")]
        rig.record.add(
            "metrics", {"request": "GET /metrics", "status": answer.status_code, "body": "\n".join(described)}
        )
        return rig.record


def outages(folder: Path) -> Recording:
    """Ask while Slurm or the store fails."""
    for name in ("fake", "closed", "html", "store"):
        (folder / name).mkdir()
    with Rig(folder / "fake") as rig:
        rig.slurm.put(5, JobState.RUNNING)
        cancelled = rig.submit(a_task("cancelled"))
        for error in (SlurmRefused, SlurmUnavailable, SlurmMisbehaved, SlurmAmbiguous):
            rig.slurm.failure = error("so it is")
            rig.ask(f"submit with {error.code}", "POST", "/submit", {"task": a_task(error.code)})
        rig.ask("ambiguous task by uuid", "GET", "/monitor/task_uuid/submission_unknown")
        rig.record.add("row of an ambiguous task", rig.rows("tasks", "submission_unknown"))
        rig.ask("ambiguous task again", "POST", "/submit", {"task": a_task("submission_unknown")})
        rig.slurm.failure, rig.slurm.keeps_job = SlurmAmbiguous("so it is"), True
        rig.ask("ambiguous, but a job", "POST", "/submit", {"task": a_task("adopted")})
        for error in (SlurmUnavailable, SlurmMisbehaved):
            rig.slurm.down = error("so it is")
            rig.ask(
                f"register with {error.code}", "POST", "/monitor", _registration(error.code, slurm_job_id=5)
            )
            rig.ask(f"look up with {error.code}", "GET", f"/monitor/slurm_job_id/{cancelled}")
            rig.ask(f"look up unknown with {error.code}", "GET", "/monitor/slurm_job_id/77")
            rig.ask(f"cancel with {error.code}", "DELETE", f"/monitor/slurm_job_id/{cancelled}")
        rig.slurm.known_down = SlurmUnavailable("Slurm has not been answering: so it is")
        rig.ask("submit while Slurm is known to be down", "POST", "/submit", {"task": a_task("known-down")})
        record = rig.record
    with HtmlService() as service:
        for name, url in (("closed", "http://127.0.0.1:9"), ("html", service.url)):
            with Rig(folder / name, slurm_url=url) as rig:
                rig.record = record
                rig.ask(f"submit to {name}", "POST", "/submit", {"task": a_task(name)})
                rig.ask(f"register at {name}", "POST", "/monitor", _registration(name, slurm_job_id=5))
                for path in ("/slurm/ping", "/slurm/diag", "/monitor/slurm_job_id/5"):
                    rig.ask(f"GET {path} at {name}", "GET", path)
    with Rig(folder / "store", is_prepared=False, SQLITE_PATH=folder / "missing" / "store") as rig:
        rig.record = record
        rig.ask("submit without a store", "POST", "/submit", {"task": a_task("no-store")})
        rig.ask("register without a store", "POST", "/monitor", _registration(slurm_job_id=5))
        rig.ask("cancel without a store", "POST", "/monitor/task_uuid/x/cancel")
        rig.ask("retry without a store", "POST", "/notifications/retry")
        for path in ("monitor/task_uuid/x", "monitor/slurm_job_id/5", "monitor/slurm_job_state/FAILED"):
            rig.ask(f"GET {path} without a store", "GET", f"/{path}")
        rig.ask("notifications without a store", "GET", "/notifications")
    return record


def access(folder: Path) -> Recording:
    """Ask with keys, with too few rights, and too often."""
    settings: dict[str, Any] = {
        "ACCESS_METHODS": "keys",
        "LIMIT_REQUESTS_PER_MINUTE": 40,
        "LIMIT_FAILED_ATTEMPTS_PER_MINUTE": 3,
        "LIMIT_JOBS_IN_FLIGHT": 3,
        "AUDIT_LOG_PATH": folder / "audit.log",
    }
    with Rig(folder, **settings) as rig:
        record = rig.record

        def key(name: str, *options: str) -> dict[str, str]:
            made = rig.flask("keys", "create", name, *options)
            record.add(f"keys create {name}", {"status": made["status"]})
            return {"Authorization": f"Bearer {made['stdout'].strip()}"}

        admin = key("operator", "--any-user", "--scope", "admin", "--scope", "read")
        reader = key("reader", "--any-user", "--scope", "read")
        alice = key("alice", "--user", "alice", "--partition", "debug", "--recipient", "email:*@example.com")
        shown = rig.flask("keys", "create", "shown", "--any-user", "--days", "1")
        record.add("keys create", shown)
        record.add("keys list", rig.flask("keys", "list"))
        record.add("keys create without users", rig.flask("keys", "create", "x"))
        record.add("keys revoke an unknown one", rig.flask("keys", "revoke", "x"))
        for name, headers in (("admin", admin), ("reader", reader), ("alice", alice)):
            task = a_task(f"of-{name}", slurm={"partition": "debug"})
            rig.ask(f"submit as {name}", "POST", "/submit", {"task": task}, headers=headers)
            rig.ask(f"look up as {name}", "GET", "/monitor/task_uuid/of-alice", headers=headers)
            rig.ask(f"list as {name}", "GET", "/monitor/slurm_job_state/PENDING", headers=headers)
            rig.ask(f"cancel as {name}", "POST", "/monitor/task_uuid/of-alice/cancel", headers=headers)
            rig.ask(f"notifications as {name}", "GET", "/notifications", headers=headers)
            rig.ask(f"/slurm as {name}", "GET", "/slurm/ping", headers=headers)
            rig.ask(f"whoami as {name}", "GET", "/whoami", headers=headers)
            rig.ask(f"catalogue as {name}", "GET", "/catalogue", headers=headers)
        _refuse_alice(rig, alice)
        rig.ask("ping without a key", "GET", "/ping")
        rig.ask("no key", "POST", "/submit", {"task": a_task("no-key")})
        rig.ask("wrong key", "GET", "/notifications", headers={"Authorization": "Bearer sp_wrong"})
        rig.ask(
            "token where keys are needed", "GET", "/slurm/diag", headers={"Authorization": "Bearer x.y.z"}
        )
        rig.ask("too many failed attempts", "GET", "/slurm/diag", headers={"Authorization": "Basic x"})
        for _ in range(40):
            rig.client.get("/monitor/slurm_job_state/FAILED", headers=reader)
        rig.ask("too many requests", "GET", "/monitor/slurm_job_state/FAILED", headers=reader)
        record.add("audit trail", (folder / "audit.log").read_text().replace(" [-]", ""))
        return record


def _refuse_alice(rig: Rig, alice: Mapping[str, str]) -> None:
    debug = {"slurm": {"partition": "debug"}}
    told = {**debug, "notification": make_email(recipient="someone@example.org")}
    for name, fields in (
        ("another user", {"username": "bob"}),
        ("another partition", {"slurm": {"partition": "long"}}),
        ("another recipient", told),
        ("the partition", debug),
        ("the recipient", {**debug, "notification": make_email()}),
        ("too many jobs", debug),
    ):
        task = a_task(f"alice-{name.replace(' ', '-')}", **fields)
        rig.ask(f"alice with {name}", "POST", "/submit", {"task": task}, headers=alice)


def messages(folder: Path) -> Recording:
    """Send the messages of each event by each channel."""
    with (
        Channels(folder) as channels,
        Rig(
            folder, SLURM_CLOCK_SKEW_SECONDS=86400, MONITOR_UNKNOWN_AFTER_SECONDS=0.001, **channels.settings
        ) as rig,
    ):
        start, end = recent(hours=1, minutes=2, seconds=3), recent()
        running = {"start_time": start, "nodes": "n[1-2]", "partition": "debug", "time_limit_minutes": 90}
        ended = {**running, **_FIGURES, "end_time": end}
        out = {"standard_output": "/home/alice/runs/output/out.txt"}
        own = {
            "subject": "Job ${slurm_job_id}: ${slurm_job_state}",
            "body": "It took ${run_time} <&> ${other}.",
        }
        for name, events, state, fields in (
            ("begin", ["begin"], JobState.RUNNING, running),
            ("completed", None, JobState.COMPLETED, {**ended, **out, "exit_code": 0}),
            ("failed", ["end"], JobState.FAILED, {**ended, "exit_code": 1, "reason": "NonZeroExitCode"}),
            ("fail", ["fail"], JobState.FAILED, {**ended, "exit_code": 127}),
            ("out of memory", ["all"], JobState.OUT_OF_MEMORY, {**ended, "exit_code": 137, "signal": 9}),
            ("timeout", ["end"], JobState.TIMEOUT, ended),
            ("node fail", ["end"], JobState.NODE_FAIL, ended),
            ("cancelled before it began", ["begin", "end"], JobState.CANCELLED, {"end_time": end}),
            ("exit code 72", ["end"], JobState.FAILED, {**ended, "exit_code": 72}),
            (
                "array",
                ["end"],
                JobState.FAILED,
                {**ended, "array_tasks": {JobState.COMPLETED: 7, JobState.FAILED: 3}},
            ),
            ("time limit 50", ["time_limit_50", "time_limit_90"], JobState.RUNNING, running),
            ("time limit 80", ["time_limit_80"], JobState.RUNNING, {**running, "time_limit_minutes": 75}),
            (
                "time limit 90",
                ["time_limit_80", "time_limit_90"],
                JobState.RUNNING,
                {**running, "time_limit_minutes": 65},
            ),
            ("requeue", ["requeue"], JobState.REQUEUE_HOLD, {"restarts": 1}),
            ("invalid depend", ["invalid_depend"], JobState.PENDING, {"reason": "DependencyNeverSatisfied"}),
            ("cannot start", None, JobState.PENDING, {"reason": "PartitionTimeLimit"}),
            ("pending over", [{"pending_over": 5}], JobState.PENDING, {}),
        ):
            request = channels.request(**(own if name in ("completed", "failed") else {}))
            if events is not None:
                request["events"] = events
            uuid = name.replace(" ", "-")
            job_id = rig.submit(a_task(uuid, notification=request))
            rig.slurm.put(job_id, state, **fields)
            later = timedelta(hours=2) if state is JobState.PENDING else timedelta(0)
            _record_messages(rig, channels, name, later)
            rig.ask(f"{name}: record", "GET", f"/monitor/task_uuid/{uuid}")
            if name in ("completed", "failed"):
                rig.record.add(f"{name}: row", rig.rows("tasks", uuid))
                rig.record.add(f"{name}: rows of notifications", rig.rows("notifications", uuid))
            rig.slurm.put(job_id, JobState.COMPLETED, **ended)
            rig.poll(later)
            for method in channels.methods:
                rig.deliver(method, later=later)
            _clear(channels)
        lost = rig.submit(a_task("lost", notification=channels.request()))
        rig.slurm.forget(lost, accounted=False)
        rig.poll(timedelta(hours=2))
        _record_messages(rig, channels, "unknown", timedelta(hours=2, seconds=1))
        return rig.record


def _record_messages(rig: Rig, channels: Channels, name: str, later: timedelta) -> None:
    rig.poll(later)
    rig.deliver(*channels.methods, later=later)
    rig.record.add(f"{name}: e-mails", [mail_as_json(mail.message) for mail in channels.smtp.mails])
    rig.record.add(f"{name}: webhooks", [_webhook(request) for request, _ in channels.webhook.events])
    rig.record.add(f"{name}: RabbitMQ", channels.broker.published)
    rig.record.add(f"{name}: Slack", channels.slack.messages)
    _clear(channels)


def _webhook(request: Any) -> dict[str, Any]:
    varying = {"webhook-timestamp", "webhook-signature", "content-length"}
    headers = {name: "<varies>" if name in varying else value for name, value in request.headers.items()}
    return {"request": f"{request.method} {request.path}", "headers": headers, "body": request.body.decode()}


def _clear(channels: Channels) -> None:
    for sent in (
        channels.smtp.mails,
        channels.webhook.events,
        channels.broker.published,
        channels.slack.messages,
    ):
        sent.clear()


def deliveries(folder: Path) -> Recording:
    """Let messages fail, wait, be given up and be retried, and gather many in a digest."""
    settings: dict[str, Any] = {"NOTIFICATIONS_CEILING": 1, "NOTIFICATIONS_WINDOW_SECONDS": 600}
    with Channels(folder) as channels, Rig(folder, **{**channels.settings, **settings}) as rig:
        ended = {"start_time": recent(minutes=1), "end_time": recent(), "exit_code": 0}

        def end(uuid: str, **notification: Any) -> None:
            job_id = rig.submit(a_task(uuid, notification={**channels.request(), **notification}))
            rig.slurm.put(job_id, JobState.COMPLETED, **ended)
            rig.poll()

        email, webhook = {"methods": ["email"]}, {"methods": ["webhook"]}
        channels.smtp.answers["someone@example.com"] = "550 no such user here"
        end("dead-email", **email)
        channels.webhook.answers.append(Answer(410))
        end("dead-webhook", **webhook)
        channels.webhook.answers.append(Answer(503, headers={"Retry-After": "120"}))
        rig.deliver("email")
        rig.deliver("webhook")
        end("waiting-webhook", **webhook)
        rig.deliver("webhook")
        for status in ("", "?status=dead", "?status=retrying", "?status=sent", "?method=email", "?limit=1"):
            rig.ask(f"notifications{status}", "GET", f"/notifications{status}")
        for query in ("?status=lost&more=1", "?limit=0", "?limit=x", "?method=pigeon"):
            rig.ask(f"notifications{query}", "GET", f"/notifications{query}")
        rig.ask("record with a dead message", "GET", "/monitor/task_uuid/dead-email")
        rig.record.add("rows of a dead message", rig.rows("notifications", "dead-email"))
        rig.record.add("rows of a waiting message", rig.rows("notifications", "waiting-webhook"))
        dead, waiting = (
            rig.rows("notifications", uuid)[0]["id"] for uuid in ("dead-email", "waiting-webhook")
        )
        rig.ask("retry an unknown one", "POST", "/notifications/nothing/retry")
        rig.ask("retry a method that there is not", "POST", "/notifications/retry?method=pigeon")
        rig.ask("retry with an unknown parameter", "POST", "/notifications/retry?status=dead")
        channels.smtp.answers.clear()
        rig.ask("retry a dead one", "POST", f"/notifications/{dead}/retry")
        rig.ask("retry it again", "POST", f"/notifications/{dead}/retry")
        rig.ask("retry one that waits", "POST", f"/notifications/{waiting}/retry")
        rig.ask("retry all of a method", "POST", "/notifications/retry?method=webhook")
        rig.ask("retry all", "POST", "/notifications/retry")
        rig.deliver("email")
        rig.ask("retry one that was sent", "POST", f"/notifications/{dead}/retry")
        rig.record.add("rows after the retry", rig.rows("notifications", "dead-email"))
        _clear(channels)
        for number in (1, 2, 3):
            end(f"digest-{number}", **email)
            rig.deliver("email")
        rig.record.add("mails before the digest", len(channels.smtp.mails))
        rig.ask("gathered", "GET", "/notifications?status=gathered")
        rig.deliver("email", later=timedelta(minutes=15))
        rig.record.add("digest", [mail_as_json(mail.message) for mail in channels.smtp.mails])
        rig.record.add("rows of a digest", rig.rows("notifications", "digest-2"))
        return rig.record


def slurm_requests(folder: Path) -> Recording:
    """Record what slurmrestd is asked, with the script and the options of jobs."""
    with (
        RecordingSlurmrestd() as slurm,
        Rig(folder, slurm_url=slurm.url, SLURM_CLOCK_SKEW_SECONDS=3600) as rig,
    ):
        for number, fields in enumerate(_TASKS_FOR_SLURM, 1):
            task = a_task(f"task-{number}", **copy.deepcopy(fields))
            rig.ask(f"submit {number}", "POST", "/submit", {"task": task})
            rig.record.add(f"requests for submit {number}", list(slurm.seen()))
        slurm.job = _slurm_job("RUNNING")
        rig.ask("look up", "GET", "/monitor/task_uuid/task-1")
        rig.ask("register", "POST", "/monitor", _registration(slurm_job_id=4711))
        rig.record.add("requests for both", list(slurm.seen()))
        rig.ask("cancel", "POST", "/monitor/task_uuid/task-1/cancel")
        rig.record.add("requests for cancel", list(slurm.seen()))
        for path in ("ping", "jobs/0", "job/4711", "job/77"):
            rig.ask(f"/slurm/{path}", "GET", f"/slurm/{path}")
        rig.ask("/slurm/job/submit", "POST", "/slurm/job/submit?username=alice", {"script": "#!/bin/sh\n"})
        rig.record.add("requests for /slurm", list(slurm.seen()))
        return rig.record


def _slurm_job(state: str) -> dict[str, Any]:
    def number(value: int) -> dict[str, Any]:
        return {"set": True, "infinite": False, "number": value}

    return {
        "job_id": 4711,
        "job_state": [state],
        "user_name": "alice",
        "name": "slurm-proxy-test.generic",
        "comment": "",
        "partition": "debug",
        "nodes": "n1",
        "cpus": number(4),
        "memory_per_node": number(100),
        "state_reason": "None",
        "time_limit": number(60),
        "submit_time": number(1_767_323_045),
        "start_time": number(1_767_323_050),
        "end_time": number(0),
        "current_working_directory": "/home/alice",
        "standard_output": "/home/alice/runs/output/out.txt",
        "standard_error": "/home/alice/runs/error/err.txt",
        "exit_code": {
            "status": ["SUCCESS"],
            "return_code": number(0),
            "signal": {"id": number(0), "name": ""},
        },
    }


_TASKS_FOR_SLURM: tuple[dict[str, Any], ...] = (
    {},
    {"slurm": {}, "dirs": {name: f"/data/it's {name}" for name in ("parent", "error", "input", "output")}},
    {"argv": ["echo", "it's", "$HOME", ""], "cmd": None, "params": None},
    {"name": "echo_hello_world", "cmd": None, "params": ["more"]},
    {"slurm": {"environment": {"A": "x y", "B": ""}, "array": "1-10:3%2", "output": "out-%a.txt"}},
    {
        "slurm": {
            "time": "1-02:30:00",
            "mem": "4G",
            "account": "physics",
            "qos": "high",
            "constraint": "a&b",
            "gres": "gpu:1",
            "dependency": "afterok:7",
            "begin": "2030-01-01T00:00:00+01:00",
            "exclusive": "user",
            "nodelist": "n[1-2]",
            "exclude": "n3",
            "nice": -5,
            "hold": True,
            "requeue": False,
            "comment": "mine",
            "partition": "debug",
            "reservation": "maintenance",
        }
    },
    {
        "slurm": {
            "time_minutes": "UNLIMITED",
            "mem_per_cpu": "512k",
            "gpus": "a100:2",
            "switches": "1@0:30:00",
        }
    },
)


def changed(path: str, value: Any, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `base` with the value at the dotted `path` replaced or removed."""
    body = copy.deepcopy(dict(base))
    *parents, last = path.split(".")
    place: Any = body
    for key in parents:
        place = place.setdefault(key, {})
    if value is REMOVE:
        del place[last]
    else:
        place[last] = value
    return body


def _name_of(path: str, value: Any) -> str:
    return f"without {path}" if value is REMOVE else f"{path} = {value!a}"[:100]


SCENARIOS: dict[str, Callable[[Path], Recording]] = {
    scenario.__name__: scenario
    for scenario in (
        documents,
        tasks,
        faults,
        operators_routes,
        readiness,
        outages,
        access,
        messages,
        deliveries,
        slurm_requests,
    )
}
