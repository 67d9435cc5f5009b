"""The events that are announced, and the content of their messages; without any server."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.job_state import JobState
from app.messages.efficiency import find_hint
from app.messages.placeholders import PLACEHOLDERS, fill_placeholders, to_one_line
from app.messages.plan import Planner, read_request
from app.messages.rendering import compose_digest, render_event, render_html, render_text
from app.models.catalogue_entry import CatalogueEntry
from app.models.content import Content
from app.models.job import SlurmJob
from app.models.record import Notification, NotificationStatus, RecordKind, TaskRecord
from app.senders import find_channel
from tests.support.tasks import make_email, make_task

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
CATALOGUE = {
    "generic": CatalogueEntry(),
    "canned": CatalogueEntry.model_validate({"notification": {"methods": ["test"], "events": ["begin"]}}),
}


def make_record(events: list[Any] | None = None, job: SlurmJob | None = None, **fields: Any) -> TaskRecord:
    notification = {**make_email(), **({"events": events} if events is not None else {})}
    task = make_task(**{"notification": notification, **fields})
    return TaskRecord(
        task=task, slurm_username="alice", slurm_job_id=7, created_at=NOW, updated_at=NOW, job=job
    )


def make_job(state: JobState = JobState.COMPLETED, **fields: Any) -> SlurmJob:
    times: dict[str, Any] = {"submit_time": NOW, "start_time": NOW, "end_time": NOW + 30 * MINUTE}
    if not state.is_final:
        del times["end_time"]
    if state is JobState.PENDING:
        del times["start_time"]
    base = {"job_id": 7, "username": "alice", "job_state": state, "nodes": "n1", "time_limit_minutes": 60}
    return SlurmJob.model_validate({**base, **times, **fields})


def due(record: TaskRecord, job: SlurmJob, at: datetime = NOW) -> list[Notification]:
    return list(
        Planner(CATALOGUE, ["email", "test"], find_channel).plan_events(record, job, at).notifications
    )


def the_content(job: SlurmJob, record: TaskRecord | None = None, at: datetime = NOW) -> Content:
    (item,) = due(record or make_record(), job, at)
    assert item.content is not None
    return item.content


def told(record: TaskRecord, items: list[Notification]) -> TaskRecord:
    return record.model_copy(update={"notifications": (*record.notifications, *items)})


# --- events ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(JobState))
def test_by_default_the_end_good_or_bad_is_announced(state: JobState) -> None:
    assert [item.event for item in due(make_record(), make_job(state))] == ["end"] * state.is_settled


@pytest.mark.parametrize(
    ("events", "state", "expected"),
    [
        (["fail"], JobState.COMPLETED, []),
        (["fail"], JobState.TIMEOUT, ["fail"]),
        (["fail"], JobState.UNKNOWN, ["fail"]),
        (["end", "fail"], JobState.FAILED, ["end"]),
        (["begin"], JobState.RUNNING, ["begin"]),
        (["begin"], JobState.PENDING, []),
        (["begin"], JobState.CONFIGURING, []),
        (["begin", "end"], JobState.COMPLETED, ["begin", "end"]),
        ([], JobState.COMPLETED, ["end"]),
    ],
)
def test_only_requested_events_are_announced(events: list[str], state: JobState, expected: list[str]) -> None:
    assert [item.event for item in due(make_record(events), make_job(state))] == expected


def test_a_job_that_was_cancelled_before_it_began_did_not_begin() -> None:
    job = make_job(JobState.CANCELLED, nodes=None, end_time=NOW)
    assert [item.event for item in due(make_record(["begin", "end"]), job)] == ["end"]


def test_no_event_is_announced_twice() -> None:
    record, job = make_record(["begin", "end"]), make_job(JobState.RUNNING)
    record = told(record, due(record, job))
    assert due(record, job) == []
    assert [item.event for item in due(record, make_job())] == ["end"]


def test_a_requeued_job_begins_again_and_each_restart_is_announced() -> None:
    before = make_job(JobState.RUNNING)
    record = make_record(["begin", "requeue"], job=before)
    record = told(record, due(record, before))
    pending = make_job(JobState.PENDING, restarts=1)
    (item,) = due(record, pending)
    assert item.event == "requeue"
    record = told(record, [item]).model_copy(update={"job": pending})
    assert [item.event for item in due(record, make_job(JobState.RUNNING, restarts=1))] == ["begin"]


def test_a_dependency_that_can_never_be_met_is_announced_once() -> None:
    record = make_record(["invalid_depend"])
    job = make_job(JobState.PENDING, reason="DependencyNeverSatisfied")
    (item,) = due(record, job)
    assert item.content is not None
    assert item.content.subject == "[cannot begin] the test job has ended"
    assert due(told(record, [item]), job) == []
    assert due(record, make_job(JobState.PENDING, reason="Dependency")) == []


# As 22.05 gave them for jobs beyond a limit on one job, and as Slurm's sources name them.
NEVER_STARTED = {
    "PartitionTimeLimit": "the limits do not allow its time limit",
    "PartitionNodeLimit": "the limits do not allow its number of nodes",
    "PartitionConfig": "the limits do not allow its request",
    "QOSMaxWallDurationPerJobLimit": "the limits do not allow its time limit",
    "QOSMaxCpuMinutesPerJobLimit": "the limits do not allow its time limit",
    "AssocMaxWallDurationPerJobLimit": "the limits do not allow its time limit",
    "QOSMaxCpuPerJobLimit": "the limits do not allow its number of CPUs",
    "QOSMaxCpuPerNode": "the limits do not allow its number of CPUs",
    "QOSMinCpuNotSatisfied": "the limits do not allow its number of CPUs",
    "AssocMaxNodePerJobLimit": "the limits do not allow its number of nodes",
    "QOSMaxMemoryPerJob": "the limits do not allow its memory",
    "QOSMaxMemoryPerNode": "the limits do not allow its memory",
    "MaxMemPerLimit": "the limits do not allow its memory",
    "QOSMaxGRESPerJob": "the limits do not allow its request",
    "BadConstraints": "no node has the resources that it requests",
    "InvalidQOS": "its account or QOS is not allowed",
    "InvalidAccount": "its account or QOS is not allowed",
    "QOSNotAllowed": "its account or QOS is not allowed",
    "DependencyNeverSatisfied": "a job that it depends on did not end as required",
}


@pytest.mark.parametrize(("reason", "why"), NEVER_STARTED.items())
def test_job_that_can_never_start_is_announced_once_with_the_reason(reason: str, why: str) -> None:
    record = make_record(["cannot_start", "begin", "end"])
    job = make_job(JobState.PENDING, reason=reason)
    (item,) = due(record, job)
    assert item.content is not None
    assert item.content.headline == "The job waits in the queue, but cannot start as it is."
    assert item.content.hint == f"Slurm will not start the job as it is: {why} ({reason})."
    assert due(told(record, [item]), job) == []
    assert due(record, make_job(JobState.RUNNING, reason=reason, nodes=None)) == []


@pytest.mark.parametrize(
    "reason",
    [
        *(None, "None", "Priority", "Resources", "Dependency", "BeginTime", "JobHeldUser", "JobHeldAdmin"),
        *("PartitionDown", "PartitionInactive", "Licenses", "ReqNodeNotAvail", "Reservation", "NodeDown"),
        *("QOSMaxJobsPerUserLimit", "QOSMaxCpuPerUserLimit", "QOSMaxMemoryPerUser", "AssocMaxJobsLimit"),
        *("AssocGrpCpuLimit", "QOSGrpNodeLimit", "QOSUsageThreshold", "JobArrayTaskLimit", "Cleaning"),
    ],
)
def test_job_that_may_start_later_is_not_announced(reason: str | None) -> None:
    assert due(make_record(["cannot_start"]), make_job(JobState.PENDING, reason=reason)) == []


def test_bad_dependency_is_announced_once_if_both_events_are_requested() -> None:
    job = make_job(JobState.PENDING, reason="DependencyNeverSatisfied")
    found = due(make_record(["cannot_start", "invalid_depend"]), job)
    assert [item.event for item in found] == ["invalid_depend"]


def test_people_but_not_programs_are_notified_by_default_that_a_job_cannot_start() -> None:
    planner = Planner(CATALOGUE, ["email", "rabbitmq"], find_channel)
    both = {**make_email(), "methods": ["email", "rabbitmq"]}
    both["params"] = {**both["params"], "rabbitmq": {"queue": "q"}}
    job = make_job(JobState.PENDING, reason="PartitionTimeLimit")

    def methods_told(notification: dict[str, Any]) -> list[str]:
        record = make_record(notification=notification)
        return [item.method for item in planner.plan_events(record, job, NOW).notifications]

    assert methods_told(both) == ["email"]
    assert methods_told({**both, "events": ["end"]}) == []
    assert methods_told({**both, "events": ["CANNOT_START"]}) == ["email", "rabbitmq"]
    assert methods_told({**both, "events": ["ALL"]}) == ["email", "rabbitmq"]
    ended = planner.plan_events(make_record(notification=both), make_job(), NOW).notifications
    assert [(item.method, item.event) for item in ended] == [("email", "end"), ("rabbitmq", "end")]


@pytest.mark.parametrize(
    ("methods", "is_read_again"), [(["email"], True), (["rabbitmq"], False), ([], False)]
)
def test_waiting_job_is_read_again_only_if_people_can_be_notified(
    methods: list[str], is_read_again: bool
) -> None:
    planner = Planner(CATALOGUE, ["email", "rabbitmq"], find_channel)
    record = make_record(notification={**make_email(), "methods": methods})
    plan = planner.plan_submission(record, NOW)
    assert plan.alarm_at == (NOW + timedelta(seconds=115) if is_read_again else None)


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(29, []), (30, ["time_limit_50"]), (48, ["time_limit_80"]), (55, ["time_limit_90"])],
)
def test_the_largest_share_of_the_time_limit_is_announced(minutes: int, expected: list[str]) -> None:
    record = make_record(["time_limit_50", "time_limit_80", "time_limit_90"])
    found = due(record, make_job(JobState.RUNNING), NOW + minutes * MINUTE)
    assert [item.event for item in found] == expected


def test_a_long_wait_is_announced_with_its_minutes() -> None:
    record = make_record([{"pending_over": 30}])
    job = make_job(JobState.PENDING, reason="Priority")
    assert due(record, job, NOW + 29 * MINUTE) == []
    assert "more than 30 minutes" in the_content(job, record, NOW + 30 * MINUTE).headline
    assert due(record, make_job(JobState.RUNNING), NOW + 31 * MINUTE) == []


def test_the_events_of_the_catalogue_and_of_the_task_are_taken_together() -> None:
    record = make_record(["end"], name="canned")
    assert [item.event for item in due(record, make_job())] == ["begin", "begin", "end", "end"]


def test_a_method_without_a_sender_is_undeliverable_and_says_why() -> None:
    (item,) = Planner(CATALOGUE, [], find_channel).plan_events(make_record(), make_job(), NOW).notifications
    assert item.status is NotificationStatus.UNDELIVERABLE
    assert (item.attempt_after, item.last_error) == (None, "this server is not configured for email")


# --- alarms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "state", "after", "expected"),
    [
        (["end"], JobState.PENDING, 0, None),
        ([{"pending_over": 30}], JobState.PENDING, 0, 30),
        ([{"pending_over": 30}, {"pending_over": 90}], JobState.PENDING, 30, 90),
        ([{"pending_over": 30}], JobState.RUNNING, 0, None),
        (["time_limit_90", "time_limit_50"], JobState.RUNNING, 0, 30),
        (["time_limit_90", "time_limit_50"], JobState.RUNNING, 30, 54),
        (["time_limit_90"], JobState.RUNNING, 54, None),
        (["invalid_depend"], JobState.PENDING, 7, 8 + 55 / 60),  # the next whole minute
        (["invalid_depend"], JobState.RUNNING, 7, None),
        (["cannot_start"], JobState.PENDING, 0, 1 + 55 / 60),
        (["cannot_start"], JobState.PENDING, 2, 10 + 55 / 60),
        (["cannot_start"], JobState.PENDING, 1441, None),
        (["cannot_start"], JobState.RUNNING, 0, None),
        (["time_limit_50"], JobState.COMPLETED, 0, None),
    ],
)
def test_the_next_event_check_is_due_when_an_event_may_happen(
    events: list[Any], state: JobState, after: int, expected: float | None
) -> None:
    plan = Planner(CATALOGUE, ["email"], find_channel).plan_events(
        make_record(events), make_job(state), NOW + after * MINUTE
    )
    assert plan.alarm_at == (None if expected is None else NOW + expected * MINUTE)


def test_the_first_alarm_is_set_at_submission() -> None:
    plan = Planner(CATALOGUE, ["email"], find_channel).plan_submission(
        make_record([{"pending_over": 5}]), NOW
    )
    assert plan.alarm_at == NOW + 5 * MINUTE


def test_suspended_time_is_no_run_time_for_events_and_alarms() -> None:
    """As slurmctld reports a job that was suspended for 25 minutes, one minute after its start."""
    record = make_record(["time_limit_50"])
    job = make_job(JobState.RUNNING, suspended_seconds=25 * 60.0)
    assert due(record, job, NOW + 54 * MINUTE) == []
    assert [item.event for item in due(record, job, NOW + 55 * MINUTE)] == ["time_limit_50"]
    plan = Planner(CATALOGUE, ["email"], find_channel).plan_events(record, job, NOW + 30 * MINUTE)
    assert plan.alarm_at == NOW + 55 * MINUTE
    assert due(record, make_job(JobState.SUSPENDED), NOW + 55 * MINUTE) == []


# --- words -----------------------------------------------------------------------------------


def test_placeholders_are_filled_in_subject_and_body() -> None:
    record = make_record(
        notification=make_email(
            subject="${name}: ${slurm_job_state} (job ${slurm_job_id})",
            body="${username} ran ${run_time}, exit ${exit_code}; see ${output}",
        )
    )
    content = the_content(make_job(exit_code=0), record)
    assert content.subject == "slurm-proxy-test.generic: COMPLETED (job 7)"
    assert content.words == f"alice ran 0:30:00, exit 0; see {record.task['dirs']['output']}/out.txt"


@pytest.mark.parametrize(
    "words",
    ["$HOME", "${HOME}", "$$", "${unknown}", "${", "${name", "${name.__class__}", "{name}", "%(name)s"],
)
def test_text_without_placeholders_stays_unchanged(words: str) -> None:
    assert fill_placeholders(words, {"name": "x"}) == words


def test_a_value_is_never_taken_for_a_placeholder() -> None:
    assert fill_placeholders("${name}", {"name": "${output}", "output": "secret"}) == "${output}"
    assert fill_placeholders("<${exit_code}>", {}) == "<>"


def test_every_placeholder_is_known_for_an_ended_job() -> None:
    words = " ".join("${" + name + "}" for name in PLACEHOLDERS)
    record = make_record(notification=make_email(body=words))
    assert "" not in the_content(make_job(exit_code=0), record).words.split(" ")


@pytest.mark.parametrize("control", ["\r\n", "\n", "\r", "\0", "\x0b", "\x85", "\u2028"])
def test_a_subject_is_one_line_whatever_a_job_is_called(control: str) -> None:
    assert to_one_line(f"a{control}Bcc: x@example.com") == "a Bcc: x@example.com"
    record = TaskRecord(
        kind=RecordKind.REGISTERED,
        task={"uuid": "u", "username": "alice", "notification": {"methods": ["test"]}},
        slurm_username="alice",
        created_at=NOW,
        updated_at=NOW,
    )
    content = the_content(make_job(name=f"a{control}Bcc: x@example.com"), record)
    assert content.subject == "a Bcc: x@example.com (job 7): COMPLETED"


def test_a_subject_is_never_longer_than_mail_allows() -> None:
    assert len(to_one_line("ü" * 5000)) <= 900


@pytest.mark.parametrize("state", [state for state in JobState if state.is_settled and not state.is_success])
def test_bad_news_stands_before_the_callers_promise(state: JobState) -> None:
    record = make_record(notification=make_email(subject="Task completed", body="It has succeeded."))
    content = the_content(make_job(state), record)
    text = render_text(content)
    assert content.subject == f"[{state}] Task completed"
    assert text.startswith("The job did not succeed: it ")
    assert text.index("did not succeed") < text.index("What the sender wrote before the job ran")
    assert render_html(content).index("did not succeed") < render_html(content).index("It has succeeded.")
    assert render_event("k", "end", content)["slurm_job_state"] == state


# --- figures ---------------------------------------------------------------------------------


def test_the_message_contains_the_accounting_that_people_look_up() -> None:
    job = make_job(cpus=4, cpu_seconds=5400.0, max_memory_bytes=3 * 2**30, memory_mb=4096)
    text = render_text(the_content(job))
    for line in (
        "Run time   0:30:00 of 1:00:00",
        "CPU        75 % of 4 CPUs",
        "Memory     3.0 GB of 4.0 GB",
    ):
        assert line in text.splitlines()


def test_suspended_time_is_no_run_time_in_a_message() -> None:
    content = the_content(make_job(suspended_seconds=1777.0))
    assert content.facts.run_seconds == 23
    assert "Run time   0:00:23 of 1:00:00" in render_text(content).splitlines()


def test_a_job_that_never_ran_has_no_run_time_no_exit_code_and_no_files_in_its_message() -> None:
    content = the_content(make_job(JobState.CANCELLED, start_time=None, nodes=None))
    assert content.headline == "The job did not succeed: it was cancelled, and never ran."
    known = {"start_time", "run_seconds", "exit_code", "output", "error_output"}
    assert not known & content.facts.model_dump().keys()
    labels = {line[:10].strip() for line in render_text(content).splitlines()}
    assert not {"Run time", "Exit code", "Output", "Errors"} & labels


def test_the_message_of_a_registered_job_names_slurms_own_file_whatever_its_task_holds() -> None:
    record = make_record().model_copy(update={"kind": RecordKind.REGISTERED})
    facts = the_content(make_job(standard_output="/their/own", standard_error="/their/error"), record).facts
    assert (facts.output, facts.error_output) == ("/their/own", "/their/error")
    assert the_content(make_job(), record).facts.output is None


def test_error_is_shown_where_it_has_a_file_of_its_own() -> None:
    def lines(**slurm: Any) -> list[str]:
        return render_text(the_content(make_job(), make_record(slurm={"output": "o", **slurm}))).splitlines()

    (errors,) = [line for line in lines(error="e.%j") if line.startswith("Errors")]
    assert errors.endswith("/error/e.7")
    assert not [line for line in lines() if line.startswith("Errors")]


def test_unknown_facts_are_left_out_of_the_message() -> None:
    job = SlurmJob(job_id=7, username="alice", job_state=JobState.UNKNOWN)
    content = the_content(job)
    assert set(content.facts.model_dump()) == {
        "task_uuid",
        "slurm_job_id",
        "slurm_job_state",
        "name",
        "username",
        "output",
        "error_output",
    }
    assert "None" not in render_text(content)


GOOD = JobState.COMPLETED
SHORT: dict[str, Any] = {"start_time": NOW, "end_time": NOW + timedelta(seconds=20)}


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (make_job(JobState.OUT_OF_MEMORY, memory_mb=4096), "ran out of memory at 4.0 GB: request more"),
        (make_job(JobState.TIMEOUT), "The time limit of 1:00:00 was too short"),
        (make_job(JobState.FAILED, exit_code=127), "the command was not found"),
        (make_job(JobState.FAILED, exit_code=126), "the command is not executable"),
        (make_job(JobState.FAILED, exit_code=1), None),
        (make_job(max_memory_bytes=400 * 2**20, memory_mb=64 * 1024), "used 400 MB of 64.0 GB"),
        (make_job(max_memory_bytes=400 * 2**20, memory_mb=500), None),
        (make_job(cpus=8, cpu_seconds=1800.0), "kept 1.0 of 8 CPUs busy"),
        (make_job(cpus=8, cpu_seconds=9000.0), None),
        (make_job(cpus=8, cpu_seconds=20.0, **SHORT), None),
        (make_job(cpus=1, cpu_seconds=1.0), None),
        (make_job(), None),
    ],
)
def test_one_plain_hint_when_it_helps(job: SlurmJob, expected: str | None) -> None:
    assert (expected or "") in find_hint(job)
    assert bool(find_hint(job)) == (expected is not None)


# --- layout ----------------------------------------------------------------------------------


def test_html_shows_words_as_words() -> None:
    record = make_record(
        notification=make_email(body="<script>alert(1)</script> & <b>"),
        slurm={"job_name": "<img src=x onerror=alert(1)>"},
    )
    html = render_html(the_content(make_job(reason="<i>"), record))
    assert "<script>" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &lt;b&gt;" in html


def test_an_event_for_programs_is_json_with_the_facts_by_their_names() -> None:
    event = render_event("key", "end", the_content(make_job(JobState.FAILED, exit_code=3)))
    assert json.loads(json.dumps(event)) == event
    wanted = {"id": "key", "event": "end", "slurm_job_id": 7, "slurm_job_state": "FAILED", "exit_code": 3}
    assert wanted.items() <= event.items()
    assert event["text"].startswith("The job did not succeed")


def test_an_array_is_one_summary() -> None:
    counts = {JobState.COMPLETED: 97, JobState.FAILED: 3}
    job = make_job(JobState.FAILED, array_tasks=counts, failed_tasks="2,7-8")
    lines = render_text(the_content(job)).splitlines()
    assert "Tasks      97 COMPLETED, 3 FAILED" in lines
    assert "Failed     2,7-8" in lines


def test_a_digest_says_how_many_it_holds_and_how_each_job_stands() -> None:
    contents = [
        the_content(make_job(job_id=number, job_state=JobState.FAILED if number == 3 else GOOD))
        for number in range(1, 6)
    ]
    gathered = compose_digest(contents)
    assert gathered.subject == "5 messages about jobs, 1 of them bad news"
    text = render_text(gathered)
    assert "This digest contains 5 messages" in text
    assert "job 3          FAILED        [FAILED] the test job has ended" in text.splitlines()
    assert "job 5          COMPLETED     the test job has ended" in text.splitlines()
    many = compose_digest(contents * 1000)
    assert many.subject.startswith("5000 messages about jobs")
    assert render_text(many).splitlines()[-1] == "… and 4900 more"


def test_a_stored_task_that_has_a_method_under_two_names_is_still_read() -> None:
    """Such tasks were taken before; their ends have to be announced."""
    params = {"rabbithq": {"queue": "a"}, "rabbitmq": {"queue": "b"}}
    wanted = read_request({"notification": {"methods": ["rabbithq", "rabbitmq"], "params": params}})
    assert wanted.params == {"rabbitmq": {"queue": "b"}}
