"""Values that make a request faulty, each with the path of its field."""

from typing import Any

REMOVE: Any = object()

_NOT_OBJECTS: tuple[Any, ...] = (None, 1, [])
_BAD_PARAMS: tuple[Any, ...] = ([], {"pigeon": {}}, {"email": []}, {})
_MAIL = "task.notification.params.email"

BAD_TASKS: list[tuple[str, Any]] = [
    *[("task", value) for value in _NOT_OBJECTS],
    *[
        (f"task.{name}", REMOVE)
        for name in ("name", "username", "cwd", "uuid", "dirs", "slurm", "cmd", "params")
    ],
    *[(f"task.{name}", 1) for name in ("name", "username", "cwd", "uuid")],
    *[("task.name", value) for value in ("unknown", "Generic", "")],
    *[("task.username", value) for value in ("", "Alice", "a" * 33, "al;id", "root", "slurm")],
    *[("task.uuid", value) for value in ("", "a b", "x" * 129, "a\n", "ü")],
    *[("task.cwd", value) for value in ("relative", "", "/a\nb", "/a\\b", "/" + "x" * 1024, "~/x")],
    *[("task.dirs", value) for value in _NOT_OBJECTS],
    *[(f"task.dirs.{name}", REMOVE) for name in ("parent", "input", "output", "error")],
    *[("task.dirs.output", value) for value in ("relative", None)],
    *[("task.slurm", value) for value in _NOT_OBJECTS],
    *[
        (f"task.slurm.{name}", value)
        for name in ("cpus_per_task", "nodes", "ntasks_per_node")
        for value in (0, "1", 2**31)
    ],
    *[
        (f"task.slurm.{name}", value)
        for name in ("mem", "mem_per_cpu", "time", "time_minutes", "time_min", "switches")
        for value in (-1, 1.5, True, "x")
    ],
    ("task.slurm.mem", "4GiB"),
    ("task.slurm.time", "1"),
    ("task.slurm.time", 35_791_395),
    ("task.slurm.time_min", "UNLIMITED"),
    ("task.slurm.switches", "1@"),
    *[("task.argv", value) for value in ("echo", [], [1])],
    *[
        (f"task.slurm.{name}", value)
        for name in ("partition", "job_name", "account")
        for value in ("", "a\nb", 1)
    ],
    *[
        (f"task.slurm.{name}", value)
        for name in ("output", "error")
        for value in ("", "a/b", "..", "x" * 256)
    ],
    *[("task.slurm.environment", value) for value in ("", "PATH", 1, ["A=1", "B"], {"A": 1}, {"1A": "x"})],
    *[(f"task.slurm.{name}", "yes") for name in ("hold", "requeue", "exclusive")],
    *[("task.slurm.begin", value) for value in ("tomorrow", "2026-01-01T00:00:00", 0)],
    ("task.slurm.nice", "1"),
    ("task.slurm.open_mode", "overwrite"),
    ("task.slurm.gpus", 0),
    ("task.slurm.array", "5-"),
    ("task.slurm.dependency", ""),
    *[(f"task.slurm.{name}", 1) for name in ("memory", "cpu-per-tasks", "Partition", "walltime", "chdir")],
    *[("task.cmd", value) for value in ("", 1, ["echo"])],
    *[("task.params", value) for value in ("-e", [1])],
    ("task.own", "a\0b"),
    ("task.own", 2**63),
    *[("task.notification", value) for value in _NOT_OBJECTS],
    *[("task.notification.methods", value) for value in ("email", ["pigeon"], [1], ["gmail"], ["webhook"])],
    *[("task.notification.params", value) for value in _BAD_PARAMS],
    ("task.notification.params.rabbitmq", {"exchange": ""}),
    ("task.notification.params.webhook", {"url": "ftp://example.com"}),
    ("task.notification.params.slack", {"channel": 1}),
    ("task.notification.params.apprise", {}),
    ("task.notification.typo", []),
    ("task.notification.method", []),
    *[("task.notification.events", value) for value in ("end", ["ENDE"], [1], ["end"] * 21)],
    *[("task.notification.events", [{"pending_over": value}]) for value in (0, "60")],
    *[(f"{_MAIL}.{name}", value) for name in ("sender", "recipient") for value in (REMOVE, "", "nobody", 1)],
    *[(f"{_MAIL}.recipient", value) for value in ([], ["a@b.c", "x"], "x%example.net@example.com")],
    *[(f"{_MAIL}.subject", value) for value in ("a\nBcc: x@y", 1)],
    (f"{_MAIL}.body", 1),
    (f"{_MAIL}.bcc", "x@example.com"),
    ("extra", 1),
]

# Without those for which Python's versions have different words.
BAD_BODIES: list[bytes] = [
    b"",
    b"{",
    b"null",
    b"[]",
    b"{}",
    b"task=1",
    b"\xff\xfe",
    b'{"task": NaN}',
    b'{"task": 1e999}',
    b'{"task": {"a": 1, "a": 2}}',
    b'{"task": {"x": "\\ud800"}}',
    b'{"task": {"x": [1, 99999999999999999999]}}',
    b"[" * 100_000,
    b'{"task": ' + b'{"x":' * 60 + b"1" + b"}" * 60 + b"}",
    b"<task/>",
]

BAD_MONITORS: list[tuple[str, Any]] = [
    *[("monitor", value) for value in _NOT_OBJECTS],
    *[("monitor.task", value) for value in (1, REMOVE)],
    *[(f"monitor.task.{name}", value) for name in ("username", "uuid") for value in (REMOVE, 1, "", "a b")],
    *[("monitor.slurm_job_id", value) for value in (REMOVE, None, 0, "5", 2**32 - 1)],
    *[("monitor.slurm_job_state", value) for value in ("DONE", "", 1, "running")],
    ("monitor.task.notification", 1),
    ("monitor.task.notification.methods", ["pigeon"]),
    ("monitor.more", 1),
]
