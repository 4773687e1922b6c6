"""The loaded library: its functions with their prototypes, statuses as exceptions, and handles that no thread can close under another."""

from __future__ import annotations

import ctypes
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from . import _c, errors

STATUS = _c.STATUS
_ERRORS = {_c.STATUS[name]: error for name, error in errors.BY_STATUS.items()}


def _load() -> ctypes.CDLL:
    """The library that TFINFER_LIBRARY names, else the one that was installed with this package."""
    path = os.environ.get("TFINFER_LIBRARY") or str(pathlib.Path(__file__).with_name("libtfinfer.so"))
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"tfinfer: the library cannot be loaded: {error}", path=path) from error
    for name, (result, arguments) in _c.FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


lib = _load()


def check(status: int) -> None:
    """Raise what the calling thread's last call failed with, if it did."""
    if status < 0:
        raise _ERRORS.get(status, errors.Error)(lib.tf_last_error().decode("utf-8", "replace"))


class Handle:
    """A C handle. `with handle as pointer:` keeps it open that long, whoever closes it meanwhile; it keeps its parent open likewise.

    open_call: of C, takes where the pointer is to be written and gives a status; it is called here, so that an interrupt behind it loses
    nothing. keep: what C refers to as long as the handle is open.
    """

    __slots__ = ("_close", "_keep", "_open", "_parent", "_pointer", "_users")
    lock = threading.RLock()  # of all handles; re-entered where the collector finalizes a handle inside

    def __init__(
        self, open_call: Callable[[Any], int], close: Callable[[Any], None], parent: Handle | None = None, keep: Any = None
    ) -> None:
        self._pointer, self._close, self._keep = ctypes.c_void_p(), close, keep
        self._open, self._users = True, 0
        self._parent: Handle | None = None
        if parent is not None:
            parent.__enter__()
            self._parent = parent
        try:
            check(open_call(ctypes.byref(self._pointer)))
        except BaseException:
            self._free()
            raise

    def __enter__(self) -> ctypes.c_void_p:
        with self.lock:
            if not self._open:
                raise errors.ClosedError("it was closed")
            self._users += 1
        return self._pointer

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._users -= 1
            last = not self._open and not self._users
        if last:
            self._free()

    def close(self) -> None:
        """Refuse further use; free it now or when the last call inside has left."""
        with self.lock:
            last = self._open and not self._users
            self._open = False
        if last:
            self._free()

    @property
    def closed(self) -> bool:
        return not self._open

    def _free(self) -> None:
        pointer, self._pointer = self._pointer, ctypes.c_void_p()
        parent, self._parent = self._parent, None
        if pointer:
            self._close(pointer)
        if parent is not None:
            parent.__exit__()

    def __del__(self) -> None:
        self._free()  # nobody holds the handle any more, so nobody is inside


def _renew_lock() -> None:
    Handle.lock = threading.RLock()  # a thread that the child does not have may have held it


os.register_at_fork(after_in_child=_renew_lock)


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
