"""Walks the types of the wire and makes values beyond their bounds."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

Path = tuple[str | int, ...]


def numbers(kind: inspect.Type, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every int and float of a type, with where it stands in a document; lists have one element."""
    if isinstance(kind, inspect.IntType | inspect.FloatType):
        yield path, kind
    elif isinstance(kind, inspect.StructType):
        for i, field in enumerate(kind.fields):
            yield from numbers(field.type, (*path, i if kind.array_like else field.encode_name))
    elif isinstance(kind, inspect.ListType):
        yield from numbers(kind.item_type, (*path, 0))
    elif isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from numbers(one, path)


def numbers_of(wire_type: Any) -> list[tuple[Path, Any]]:
    """As `numbers`, of a struct class."""
    return list(numbers(inspect.type_info(wire_type)))


def beyond(number: inspect.IntType | inspect.FloatType) -> list[float]:
    """Values that a bounded number must refuse."""
    assert number.ge is not None and number.le is not None
    wide = [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63)]
    if isinstance(number, inspect.IntType):
        return [number.ge - 1, number.le + 1, *(v for v in wide if not number.ge <= v <= number.le)]
    ends = [math.nextafter(number.ge, -math.inf), math.nextafter(number.le, math.inf)]
    return [*ends, -1.0, math.nan, math.inf, -math.inf, 1e308]


def placed(document: Any, path: Path, value: Any) -> Any:
    """A copy of plain data with one value replaced."""
    changed = copy.deepcopy(document)
    place = changed
    for step in path[:-1]:
        place = place[step]
    assert path[-1] in place or isinstance(path[-1], int)
    place[path[-1]] = value
    return changed


def plain(message: msgspec.Struct) -> Any:
    """A struct as dicts and lists."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(message))
