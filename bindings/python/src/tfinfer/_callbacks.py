"""Python functions that C calls, and calls of C that answer Ctrl-C.

An exception cannot pass through C: the first one is kept, ends the C call (TF_STATUS_CANCELLED) and is raised where that has returned.

Python raises KeyboardInterrupt on the main thread alone, and only between two instructions of Python. There it would meet C code that
does not return for long, or be lost at the first instruction of a callback. So what takes long, or calls back, is given to another thread
while the main thread waits.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from . import _c

T = TypeVar("T")
_LEVELS = {value: name for name, value in _c.LOG_LEVEL.items()}


class Callbacks:
    """The functions of one C call, or of one request, and what went wrong in them."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def guarded(self, function: Callable[..., object], *arguments: Any) -> int:
        """Call it unless an earlier call failed; what C is told: 0 to go on, 1 to end."""
        if self.error is None:
            try:
                function(*arguments)
            except BaseException as error:
                self.error = error
        return 0 if self.error is None else 1

    def progress(self, function: Callable[[int, int], object] | None) -> Any:
        if function is None:
            return _c.ProgressFn(lambda user, done, total: 0 if self.error is None else 1)
        return _c.ProgressFn(lambda user, done, total: self.guarded(function, done, total))

    def logits(self, function: Callable[..., object]) -> Any:
        """The function works on copies: it may keep them, and C's memory is gone after the call."""

        def change(sequence: int, ids: int, count: int, logits: int, vocab: int) -> None:
            values = np.frombuffer(memoryview((ctypes.c_float * vocab).from_address(logits)), np.float32)
            changed = values.copy()
            function(sequence, np.array((ctypes.c_int32 * count).from_address(ids)), changed)
            values[:] = changed

        return _c.LogitsFn(lambda user, *arguments: self.guarded(change, *arguments))

    def raise_error(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error

    def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, C calls that call these functions back."""
        if threading.current_thread() is threading.main_thread():
            return self._run_beside(work)
        try:
            return work()
        except Exception as error:
            failure = error
        self.raise_error()  # in place of the cancellation it caused
        raise failure

    def _run_beside(self, work: Callable[[], T]) -> T:
        results: list[T] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def body() -> None:
            try:
                results.append(work())
            except BaseException as error:
                errors.append(error)
            done.set()

        threading.Thread(target=body, name="tfinfer call", daemon=True).start()
        try:
            done.wait()
        except BaseException as interrupt:
            self.error = interrupt  # the next callback ends the call
            done.wait()
        self.raise_error()
        if errors:
            raise errors.pop()
        return results.pop()


def log_callback(function: Callable[[str, str], object]) -> Any:
    """C cannot be told of a failure here; Python reports it as it reports those of finalizers."""

    def write(user: int | None, level: int, text: bytes) -> None:
        function(_LEVELS[level], text.decode("utf-8", "replace"))

    return _c.LogFn(write)
