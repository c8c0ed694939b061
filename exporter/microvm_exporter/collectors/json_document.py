"""JSON read strictly, and held against a ``TypedDict`` that is its schema.

A schema is written in the terms of `typing`: a ``TypedDict`` with ``NotRequired``,
``dict[X, Y]``, ``list[X]``, ``Literal``, ``X | None``, ``bool``, and ``Annotated[str, Rule(…)]``
for strings. Members that it does not name are let pass unseen.

It is own code because an error has to name the place: msgspec (2.5 MB) says ``$.vms[...].origin``
and takes a key that comes twice; pydantic and jsonschema cost 18 and 7 MB.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    NotRequired,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

__all__ = ["Rule", "Unfit", "parse_json"]

T = TypeVar("T")

_DIGITS_MAX: Final = 20
_QUOTE_MAX: Final = 60


class Unfit(Exception):
    """The text is no JSON or not of the schema: where, what was expected and what was found."""


class Rule(NamedTuple):
    """What a string must be, in words and as a test."""

    expected: str
    accepts: Callable[[str], bool]


def parse_json(data: bytes, schema: type[T]) -> T:
    """Return the document as it is once it is known to be of the schema. Raises `Unfit`."""
    document = _load(data)
    _check(document, schema, "$")
    return cast(T, document)


# ------------------------------------------------------------------------------------ strict JSON


@dataclass(frozen=True, slots=True)
class _Repeated:
    """An object in which a key comes twice."""

    key: str


def _load(data: bytes) -> object:
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
        )
    except UnicodeDecodeError as error:
        found = f"the byte 0x{data[error.start]:02x} at offset {error.start}"
        raise Unfit(f"expected UTF-8, found {found}") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Unfit(f"{place}: expected JSON, found an error: {error.msg}") from None
    except RecursionError:
        raise Unfit("expected JSON, found arrays or objects nested too deep") from None


def _object(pairs: list[tuple[str, object]]) -> object:
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            return _Repeated(key)
        members[key] = value
    return members


def _constant(name: str) -> object:
    raise Unfit(f"expected JSON, found {name}")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise Unfit(f"expected JSON, found a number of {len(digits)} digits")
    return int(digits)


# ------------------------------------------------------------------------------------- the schema


def _check(value: object, schema: Any, where: str) -> None:
    if isinstance(value, _Repeated):
        raise Unfit(f"{where}: expected each key once, found {_quote(value.key)} twice")
    origin, arguments = get_origin(schema), get_args(schema)
    if is_typeddict(schema):
        _check_members(value, schema, where)
    elif origin is dict:
        for key, member in _object_of(value, schema, where).items():
            place = f"{where}[{_quote(key)}]"
            _check(key, arguments[0], place)
            _check(member, arguments[1], place)
    elif origin is list:
        if not isinstance(value, list):
            raise _unfit(where, schema, value)
        for index, item in enumerate(value):
            _check(item, arguments[0], f"{where}[{index}]")
    elif origin in (Union, UnionType):
        if value is not None:
            _check(value, arguments[0], where)
    elif not _accepts(value, schema):
        raise _unfit(where, schema, value)


def _check_members(value: object, schema: Any, where: str) -> None:
    members = _object_of(value, schema, where)
    for name, member, required in _members(schema):
        if name in members:
            _check(members[name], member, f"{where}.{name}")
        elif required:
            raise Unfit(f"{where}.{name}: expected {_expected(member)}, found nothing")


@functools.cache
def _members(schema: Any) -> tuple[tuple[str, Any, bool], ...]:
    """Give name, schema and whether it is required, of each member of a ``TypedDict``."""
    hints = get_type_hints(schema, include_extras=True).items()
    return tuple(
        (name, get_args(hint)[0], False) if get_origin(hint) is NotRequired else (name, hint, True)
        for name, hint in hints
    )


def _object_of(value: object, schema: Any, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _unfit(where, schema, value)
    return value


def _accepts(value: object, schema: Any) -> bool:
    origin, arguments = get_origin(schema), get_args(schema)
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if origin is Annotated:
        return isinstance(value, arguments[0]) and bool(arguments[1].accepts(value))
    return isinstance(value, schema)


# -------------------------------------------------------------------------------------- in words


def _unfit(where: str, schema: Any, value: object) -> Unfit:
    return Unfit(f"{where}: expected {_expected(schema)}, found {_found(value)}")


def _expected(schema: Any) -> str:
    origin, arguments = get_origin(schema), get_args(schema)
    if origin is Literal:
        *others, last = map(json.dumps, arguments)
        return f"{', '.join(others)} or {last}" if others else last
    if origin is Annotated:
        return str(arguments[1].expected)
    return {list: "an array", bool: "true or false"}.get(origin or schema, "an object")


def _found(value: object) -> str:
    match value:
        case str():
            return _quote(value)
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return json.dumps(value)


def _quote(text: str) -> str:
    """Quote in ASCII and at bounded length: what was found goes to a log."""
    return json.dumps(text if len(text) <= _QUOTE_MAX else f"{text[:_QUOTE_MAX]}…")
