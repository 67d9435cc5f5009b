"""The command of a catalogue entry with parameters: `${x}` in `default_params` stands for a quoted value.

A value is written in single quotes, so that bash evaluates nothing in it. This holds only where bash reads
quotes as quotes. Therefore the text before a placeholder, and the rest of its word, must be plain.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from app.models.shell_words import is_closed, quote, to_text

_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BESIDE = re.compile(r"[A-Za-z0-9_./:=,@%+ -]*")  # bash takes all of these literally, or as the end of a word


def find_placeholders(text: str) -> list[str]:
    """Return the names in all `${name}` of a text."""
    return _PLACEHOLDER.findall(text)


def list_template_faults(
    command: str | None, params: Sequence[str], known: Collection[str], always_given: Collection[str]
) -> Iterator[str]:
    """Yield the faults in the placeholders of an entry.

    Args:
        command: `cmd`, which has no placeholders.
        params: `default_params`.
        known: The parameters.
        always_given: Those that are required or have a default.
    """
    for name in find_placeholders(command or ""):
        yield f"cmd: ${{{name}}} is filled in default_params only; {_for_shell(name)}"
    is_plain = is_closed(command or "")
    for word in params:
        names = find_placeholders(word)
        for name in names:
            if name not in known:
                yield f"default_params: ${{{name}}} is not among the parameters; {_for_shell(name)}"
            elif name not in always_given:
                yield f"default_params: ${{{name}}} needs a default, or a place in required"
        if names and not all(map(_BESIDE.fullmatch, _PLACEHOLDER.split(word)[::2])):
            yield f"default_params: {word} may have only blanks, letters, digits and _./:=,@%+- beside ${{…}}"
        if names and not is_plain:
            yield f"default_params: the text before {word} must have neither {_NOT_PLAIN}"
        is_plain = is_plain and (bool(names) or is_closed(word))


_NOT_PLAIN = (
    "open quotes nor substitutions, comments, conditions, groups or here-documents, in which a value could be"
    " evaluated; move them into a script"
)


def list_unfit_values(params: Sequence[str], values: Mapping[str, Any], root: str) -> Iterator[str]:
    """Yield which values cannot be written as words, each fault with its path below `root`."""
    words = _split_at_blanks(params)
    for name, value in values.items():
        own = [word for word in words if name in find_placeholders(word)]
        if not own or _is_scalar(value):
            continue
        if not (isinstance(value, list) and all(map(_is_scalar, value))):
            yield f"{root}.{name}: must be a string, a number, true or false, or a list of these"
        elif any(word != f"${{{name}}}" for word in own):
            yield f"{root}.{name}: must not be a list, because it is only a part of a word of the command"


def fill_params(params: Sequence[str], values: Mapping[str, Any]) -> str:
    """Return `default_params` as shell text, with the values; a list becomes several words, or none."""
    return " ".join(filter(None, (_fill_word(word, values) for word in _split_at_blanks(params))))


def _split_at_blanks(params: Sequence[str]) -> list[str]:
    """Return the words, those with placeholders separated at blanks."""
    return [part for word in params for part in (word.split(" ") if find_placeholders(word) else [word])]


def _fill_word(word: str, values: Mapping[str, Any]) -> str:
    if (match := _PLACEHOLDER.fullmatch(word)) and isinstance(values[match[1]], list):
        return " ".join(quote(to_text(item)) for item in values[match[1]])
    return _PLACEHOLDER.sub(lambda match: quote(to_text(values[match[1]])), word)


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | int | float)


def _for_shell(name: str) -> str:
    return f"write ${name} for a variable of the shell"
