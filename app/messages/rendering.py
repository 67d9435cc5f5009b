"""Render the content of a message as plain text, HTML and JSON."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.messages.efficiency import format_bytes, format_duration
from app.models.content import Content
from app.models.job_facts import JobFacts

Row = tuple[str, str]

_MAX_DIGEST_LINES = 100

_templates = Environment(
    loader=PackageLoader("app", "messages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def to_rows(facts: JobFacts) -> list[Row]:
    """Return the known facts as rows of a label and a value, for people to read."""
    is_array = bool(facts.array_tasks)  # its limits are those of one task
    time_limit = None if is_array else facts.time_limit_seconds
    limit_alone = facts.time_limit_seconds if facts.run_seconds is None else None
    known = [
        ("Task", facts.task_uuid),
        ("Job", facts.slurm_job_id),
        ("Name", facts.name),
        ("User", facts.username),
        ("State", facts.slurm_job_state),
        ("Tasks", _format_array_tasks(facts.array_tasks)),
        ("Failed", facts.failed_tasks),
        ("Reason", facts.reason),
        ("Exit code", facts.exit_code),
        ("Signal", facts.signal),
        ("Run time", _used_of_limit(facts.run_seconds, time_limit, format_duration)),
        ("Time limit", _value_or_none(limit_alone, format_duration)),
        ("CPU", _format_cpu_use(facts)),
        ("Memory", _used_of_limit(facts.max_memory_bytes, facts.memory_bytes, format_bytes)),
        ("Output", facts.output),
        ("Errors", _unless_equal(facts.error_output, facts.output)),
    ]
    return [(label, str(value)) for label, value in known if value is not None]


def render_parts(content: Content) -> list[str]:
    """Return headline, the caller's own text, table of facts and hint; empty parts are left out."""
    table = "\n".join(f"{label:<10} {value}" for label, value in to_rows(content.facts))
    words = content.words
    if content.is_bad_news and words:
        words = "What the sender wrote before the job ran:\n\n" + words
    return [part for part in (content.headline, words, table, content.hint) if part]


def render_text(content: Content) -> str:
    """Return the content as plain text, in the order of its parts."""
    return "\n\n".join(render_parts(content)) + "\n"


def render_html(content: Content) -> str:
    """Return the content as an HTML page."""
    return _templates.get_template("message.html").render(content=content, rows=to_rows(content.facts))


def render_event(message_id: str, event: str, content: Content) -> dict[str, Any]:
    """Return the content as a JSON object for programs: the facts by name, and the text for people."""
    named = {"id": message_id, "event": event, **content.facts.model_dump()}
    return {**named, "subject": content.subject, "text": render_text(content)}


def compose_digest(contents: Sequence[Content]) -> Content:
    """Return one content in place of many, with a line for each; bad news comes first."""
    worst_first = sorted(contents, key=lambda content: not content.is_bad_news)
    lines = [_digest_line(content) for content in worst_first[:_MAX_DIGEST_LINES]]
    if len(contents) > _MAX_DIGEST_LINES:
        lines.append(f"… and {len(contents) - _MAX_DIGEST_LINES} more")
    bad = sum(content.is_bad_news for content in contents)
    subject = f"{len(contents)} messages about jobs" + (f", {bad} of them bad news" if bad else "")
    headline = f"This digest contains {len(contents)} messages, because there were too many in a short time."
    return Content(subject=subject, headline=headline, hint="\n".join(lines))


def _digest_line(content: Content) -> str:
    facts = content.facts
    job, state = f"job {facts.slurm_job_id or '?'}", facts.slurm_job_state or ""
    return f"{job:<14} {state:<13} {content.subject}"


def _format_array_tasks(counts: Mapping[str, int] | None) -> str | None:
    if not counts:
        return None
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _unless_equal(value: object, other: object) -> object:
    """Return `value`, or None if `other` is the same."""
    return None if value == other else value


def _value_or_none(value: float | None, format_: Callable[[float], str]) -> str | None:
    return None if value is None else format_(value)


def _used_of_limit(used: float | None, limit: float | None, format_: Callable[[float], str]) -> str | None:
    """Return a text such as "0:30:00 of 1:00:00"; without a limit, only what was used."""
    if used is None:
        return None
    return format_(used) + (f" of {format_(limit)}" if limit else "")


def _format_cpu_use(facts: JobFacts) -> str | None:
    share, cpus = facts.cpu_efficiency, facts.cpus
    if share is None or not cpus:
        return None
    return f"{100 * share:.0f} % of {cpus} CPU{'s' if cpus > 1 else ''}"
