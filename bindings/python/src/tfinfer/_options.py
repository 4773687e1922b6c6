"""Keyword arguments into the fields of an options struct, by the types of the fields."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from . import _arrays
from ._library import S, unset


def integers(struct: ctypes.Structure, pointer: str, count: str, value: Any, what: str) -> Any:
    """Point two fields at an array of ids; returns what must be kept alive."""
    array = _arrays.ids(value, what)
    setattr(struct, pointer, _arrays.address(array))
    setattr(struct, count, len(array))
    return array


def choice(table: Mapping[str, int], value: Any, what: str) -> int:
    try:
        return table[value]
    except (KeyError, TypeError):
        raise ValueError(f"{what} must be one of {', '.join(table)}, not {value!r}") from None


def fill(kind: type[S], given: dict[str, Any], names: Mapping[str, str], choices: Mapping[str, Mapping[str, int]]) -> S:
    """A struct with what is given set in it. `names` are keywords that the struct calls otherwise; it has the others as fields."""
    struct = unset(kind)
    fields = _fields(kind)
    for keyword, value in given.items():
        name = names.get(keyword, keyword)
        field = fields.get(name)
        if field is None or (keyword == name and name in names.values()):
            raise TypeError(f"unknown option {keyword}")
        if value is None:
            continue
        if name in choices:
            setattr(struct, name, choice(choices[name], value, keyword))
        elif field is ctypes.c_char_p:
            setattr(struct, name, _arrays.c_string(value, keyword))
        elif field is ctypes.c_float:
            setattr(struct, name, _arrays.number(value, keyword))
        elif field in (ctypes.c_int32, ctypes.c_int64):
            setattr(struct, name, _arrays.integer(value, keyword, 8 * ctypes.sizeof(field)))
        else:
            raise TypeError(f"unknown option {keyword}")
    return struct


_kinds: dict[type[ctypes.Structure], dict[str, Any]] = {}


def _fields(kind: type[ctypes.Structure]) -> dict[str, Any]:
    if kind not in _kinds:
        _kinds[kind] = {field[0]: field[1] for field in kind._fields_ if field[0] not in ("struct_size", "reserved")}
    return _kinds[kind]
