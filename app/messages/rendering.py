"""The one layout of a message: rows for people, and its rendering as plain text, HTML and JSON."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.messages.efficiency import duration, size
from app.models.content import Content
from app.models.job_facts import JobFacts

Row = tuple[str, str]

_LONGEST_DIGEST = 100  # lines

_templates = Environment(
    loader=PackageLoader("app", "messages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def rows(facts: JobFacts) -> list[Row]:
    """Return the known facts, each with its label, in a form for people."""
    is_array = bool(facts.array_tasks)  # whose limits are those of one task
    time_limit = None if is_array else facts.time_limit_seconds
    limit_alone = facts.time_limit_seconds if facts.run_seconds is None else None
    known = [
        ("Task", facts.task_uuid),
        ("Job", facts.slurm_job_id),
        ("Name", facts.name),
        ("User", facts.username),
        ("State", facts.slurm_job_state),
        ("Tasks", _tasks(facts.array_tasks)),
        ("Failed", facts.failed_tasks),
        ("Reason", facts.reason),
        ("Exit code", facts.exit_code),
        ("Signal", facts.signal),
        ("Run time", _used_of_limit(facts.run_seconds, time_limit, duration)),
        ("Time limit", _value_or_none(limit_alone, duration)),
        ("CPU", _cpu(facts)),
        ("Memory", _used_of_limit(facts.max_memory_bytes, facts.memory_bytes, size)),
        ("Output", facts.output),
        ("Errors", _unless_equal(facts.error_output, facts.output)),
    ]
    return [(label, str(value)) for label, value in known if value is not None]


def parts(content: Content) -> list[str]:
    """The headline, the caller's words, the facts and the hint, as far as there are any."""
    table = "\n".join(f"{label:<10} {value}" for label, value in rows(content.facts))
    words = content.words
    if content.is_bad_news and words:
        words = "What the sender wrote before the job ran:\n\n" + words
    return [part for part in (content.headline, words, table, content.hint) if part]


def as_text(content: Content) -> str:
    """Plain text; what came first in `content` comes first here."""
    return "\n\n".join(parts(content)) + "\n"


def as_html(content: Content) -> str:
    return _templates.get_template("message.html").render(content=content, rows=rows(content.facts))


def as_event(message_id: str, event: str, content: Content) -> dict[str, Any]:
    """For programs: the facts by their names, and the same words that people get."""
    named = {"id": message_id, "event": event, **content.facts.model_dump()}
    return {**named, "subject": content.subject, "text": as_text(content)}


def digest(contents: Sequence[Content]) -> Content:
    """One message in place of many, which says how many it holds and how each job stands."""
    worst_first = sorted(contents, key=lambda content: not content.is_bad_news)
    lines = [_line(content) for content in worst_first[:_LONGEST_DIGEST]]
    if len(contents) > _LONGEST_DIGEST:
        lines.append(f"… and {len(contents) - _LONGEST_DIGEST} more")
    bad = sum(content.is_bad_news for content in contents)
    subject = f"{len(contents)} messages about jobs" + (f", {bad} of them bad news" if bad else "")
    headline = f"So many messages came in a short time that these {len(contents)} are gathered in one."
    return Content(subject=subject, headline=headline, hint="\n".join(lines))


def _line(content: Content) -> str:
    facts = content.facts
    job, state = f"job {facts.slurm_job_id or '?'}", facts.slurm_job_state or ""
    return f"{job:<14} {state:<13} {content.subject}"


def _tasks(counts: Mapping[str, int] | None) -> str | None:
    if not counts:
        return None
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _unless_equal(value: object, other: object) -> object:
    """Return `value`, or None if it is the same as `other`."""
    return None if value == other else value


def _value_or_none(value: float | None, form: Callable[[float], str]) -> str | None:
    return None if value is None else form(value)


def _used_of_limit(used: float | None, limit: float | None, form: Callable[[float], str]) -> str | None:
    """Return a text such as "0:30:00 of 1:00:00"; without a limit, only what was used."""
    if used is None:
        return None
    return form(used) + (f" of {form(limit)}" if limit else "")


def _cpu(facts: JobFacts) -> str | None:
    share, cpus = facts.cpu_efficiency, facts.cpus
    if share is None or not cpus:
        return None
    return f"{100 * share:.0f} % of {cpus} CPU{'s' if cpus > 1 else ''}"
