"""The one layout of a message: rows for people, and its rendering as plain text, HTML and JSON."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from app.messages.efficiency import duration, size
from app.models.content import Content

Row = tuple[str, str]

_LONGEST_DIGEST = 100  # lines

_templates = Environment(
    loader=PackageLoader("app", "messages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def rows(facts: Mapping[str, Any]) -> list[Row]:
    """Return the known facts, each with its label, in a form for people."""
    is_array = bool(facts.get("array_tasks"))  # whose limits are those of one task
    known = [
        ("Task", facts.get("task_uuid")),
        ("Job", facts.get("slurm_job_id")),
        ("Name", facts.get("name")),
        ("User", facts.get("username")),
        ("State", facts.get("slurm_job_state")),
        ("Tasks", _tasks(facts.get("array_tasks"))),
        ("Failed", facts.get("failed_tasks")),
        ("Reason", facts.get("reason")),
        ("Exit code", facts.get("exit_code")),
        ("Signal", facts.get("signal")),
        ("Run time", _of(facts, "run_seconds", None if is_array else "time_limit_seconds", duration)),
        ("Time limit", None if "run_seconds" in facts else _alone(facts, "time_limit_seconds", duration)),
        ("CPU", _cpu(facts)),
        ("Memory", _of(facts, "max_memory_bytes", "memory_bytes", size)),
        ("Output", facts.get("output")),
        ("Errors", _unless_equal(facts.get("error_output"), facts.get("output"))),
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
    named = {"id": message_id, "event": event, **content.facts}
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
    job, state = f"job {facts.get('slurm_job_id', '?')}", facts.get("slurm_job_state", "")
    return f"{job:<14} {state:<13} {content.subject}"


def _tasks(counts: Mapping[str, int] | None) -> str | None:
    if not counts:
        return None
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))


def _unless_equal(value: object, other: object) -> object:
    """Return `value`, or None if it is the same as `other`."""
    return None if value == other else value


def _alone(facts: Mapping[str, Any], name: str, form: Callable[[float], str]) -> str | None:
    return None if facts.get(name) is None else form(facts[name])


def _of(facts: Mapping[str, Any], used: str, limit: str | None, form: Callable[[float], str]) -> str | None:
    if facts.get(used) is None:
        return None
    return form(facts[used]) + (f" of {form(facts[limit])}" if limit and facts.get(limit) else "")


def _cpu(facts: Mapping[str, Any]) -> str | None:
    share, cpus = facts.get("cpu_efficiency"), facts.get("cpus")
    if share is None or not cpus:
        return None
    return f"{100 * share:.0f} % of {cpus} CPU{'s' if cpus > 1 else ''}"
