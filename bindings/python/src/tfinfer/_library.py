"""The loaded library: its functions with their prototypes, statuses as exceptions, and handles that no thread can close under another."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from . import _c, errors

STATUS = _c.STATUS
_ERRORS = {_c.STATUS[name]: error for name, error in errors.BY_STATUS.items()}


def _load() -> ctypes.CDLL:
    """The library that TFINFER_LIBRARY names, else the one that was installed with this package."""
    path = os.environ.get("TFINFER_LIBRARY") or os.path.join(os.path.dirname(__file__), "libtfinfer.so")
    try:
        library = ctypes.CDLL(path)
        for name, (result, arguments) in _c.FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:  # AttributeError: another library, or an older one
        raise ImportError(f"tfinfer: the library cannot be loaded: {error}", path=path) from error
    return library


lib = _load()


def check(status: int) -> None:
    """Raise what the calling thread's last call failed with, if it did."""
    if status < 0:
        raise _ERRORS.get(status, errors.Error)(lib.tf_last_error().decode("utf-8", "replace"))


class _Open:
    """What C opened. It closes when nothing refers to it any more; until then it holds what it came from, and what C refers to."""

    __slots__ = ("__weakref__", "_close", "_keep", "_parent", "pointer")

    def __init__(self, close: Callable[[Any], None], parent: _Open | None, keep: Any) -> None:
        self.pointer = ctypes.c_void_p()
        self._close, self._parent, self._keep = close, parent, keep

    def close(self) -> None:
        address, self.pointer.value = self.pointer.value, None
        if address:
            self._close(ctypes.c_void_p(address))
        self._parent = None

    __del__ = close


class Handle:
    """A C handle. `with handle as pointer:` keeps it open that long, whoever closes it meanwhile; it keeps its parent open likewise.
    So does a reference to `handle.open or handle.refuse()`, at less cost.

    open_call: of C, takes where the pointer is to be written and gives a status; it is called here, so that an interrupt behind it loses
    nothing. keep: what C refers to as long as the handle is open.
    """

    __slots__ = ("_held", "open")

    def __init__(
        self, open_call: Callable[[Any], int], close: Callable[[Any], None], parent: Handle | None = None, keep: Any = None
    ) -> None:
        opened = _Open(close, None if parent is None else parent.open or parent.refuse(), keep)
        try:
            check(open_call(ctypes.byref(opened.pointer)))
        except BaseException:
            opened.close()  # the exception holds this frame, and so holds it
            raise
        self.open: _Open | None = opened
        self._held: list[_Open] = []  # one for each that is inside

    def __enter__(self) -> ctypes.c_void_p:
        opened = self.open or self.refuse()
        self._held.append(opened)
        return opened.pointer

    def __exit__(self, *_: object) -> None:
        self._held.pop()

    def close(self) -> None:
        """Refuse further use; what is open closes now or when the last call inside has left."""
        self.open = None

    def refuse(self) -> NoReturn:
        raise errors.ClosedError("it was closed")


S = TypeVar("S", bound=ctypes.Structure)
_unset_bytes: dict[type[ctypes.Structure], bytes] = {}


def unset(kind: type[S]) -> S:
    """A new struct as the header's _init function makes it: its own size, everything else unset."""
    image = _unset_bytes.get(kind)
    if image is None:
        image = _unset_bytes[kind] = bytes(_fill_unset(kind()))
    return kind.from_buffer_copy(image)


def _fill_unset(struct: S) -> S:
    for field in struct._fields_:
        name, kind = field[0], field[1]
        if name == "struct_size":
            setattr(struct, name, ctypes.sizeof(struct))
        elif kind in (ctypes.c_int32, ctypes.c_int64):
            setattr(struct, name, _c.UNSET)
        elif kind is ctypes.c_float:
            setattr(struct, name, float("nan"))
        elif issubclass(kind, ctypes.Structure):
            _fill_unset(getattr(struct, name))
    return struct
