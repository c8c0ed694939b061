"""Variables of a dashboard: what is chosen, and how it gets into a query, a link, a text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

ALL: Final = "$__all"
"""What Grafana calls the choice of everything."""

_REFERENCE: Final = re.compile(r"\$\{(\w+)(?::(\w+))?\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Choice:
    """What is chosen of a variable: one or several values, or all of them."""

    values: tuple[str, ...]
    several: bool = False
    """Whether several can be chosen: then a value is a regular expression in a query."""
    all_value: str | None = None
    """What stands in a query for all of them, where all are chosen; as it is, never escaped."""
    is_all: bool = False


Choices = Mapping[str, Choice]


def interpolate(text: str, choices: Choices, how: str = "text") -> str:
    """Put the choices into a text; names that are no variables stay, as Grafana leaves them.

    ``how`` is the format where a reference has none: ``prometheus`` in queries, ``text`` elsewhere.
    """

    def one(match: re.Match[str]) -> str:
        name = match[1] or match[3]
        choice = choices.get(name)
        return match[0] if choice is None else _FORMATS[match[2] or how](name, choice)

    return _REFERENCE.sub(one, text)


def interpolate_all(value: Any, choices: Choices) -> Any:
    """Put the choices into every text of a JSON value."""
    match value:
        case str():
            return interpolate(value, choices)
        case list():
            return [interpolate_all(item, choices) for item in value]
        case dict():
            return {key: interpolate_all(item, choices) for key, item in value.items()}
    return value


def _in_query(_: str, choice: Choice) -> str:
    if choice.is_all and choice.all_value is not None:
        return choice.all_value
    if not choice.several:
        return _in_quotes(choice.values[0])
    expressions = [_in_quotes(re.sub(r"([$^*{}\[\]+?.()|\\])", r"\\\1", v)) for v in choice.values]
    return expressions[0] if len(expressions) == 1 else f"({'|'.join(expressions)})"


def _in_quotes(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("'", r"\'")


def _in_url(name: str, choice: Choice) -> str:
    values = (ALL,) if choice.is_all else choice.values
    return "&".join(f"var-{name}={quote(value, safe='')}" for value in values)


def shown(choice: Choice) -> str:
    """Give a choice as the dashboard's own line of variables says it."""
    return "All" if choice.is_all else " + ".join(choice.values)


_FORMATS: Final[Mapping[str, Callable[[str, Choice], str]]] = {
    "prometheus": _in_query,
    "queryparam": _in_url,
    "text": lambda _, choice: shown(choice),
}
