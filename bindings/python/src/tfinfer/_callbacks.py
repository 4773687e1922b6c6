"""Python functions that C calls, and calls of C that answer Ctrl-C.

An exception cannot pass through C: the first one is kept, ends the C call (TF_STATUS_CANCELLED) and is raised where that has returned.

Python raises KeyboardInterrupt on the main thread alone, and only between two instructions of Python. There it would meet C code that
does not return for long, or be lost at the first instruction of a callback. So what takes long, or calls back, is given to another thread
while the main thread waits.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from . import _c
from ._numpy import np

T = TypeVar("T")
_LEVELS = {value: name for name, value in _c.LOG_LEVEL.items()}


class _Worker(threading.local):
    given_up: threading.Event | None = None


worker = _Worker()  # of a thread that works for an async call: set when its task was cancelled


class Callbacks:
    """The functions of one C call, or of one request, and what went wrong in them.

    C knows it by a number: another thread may be about to call back for a request that was closed and is gone.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._progress: Callable[[int, int], object] | None = None
        self._logits: Callable[..., object] | None = None
        self._given_up = worker.given_up

    def given_up(self) -> bool:
        """Nobody waits for the call any more: it may end."""
        return self._given_up is not None and self._given_up.is_set()

    def set_progress(self, struct: Any, function: Callable[[int, int], object] | None) -> None:
        """Fill a struct's two fields; without a function, for Ctrl-C alone."""
        if function is not None and not callable(function):
            raise TypeError("progress must be a function of (done, total)")
        self._progress = function
        struct.progress, struct.progress_user = _PROGRESS, self._number()

    def set_logits(self, struct: Any, function: Callable[..., object]) -> None:
        self._logits = function
        struct.logits, struct.logits_user = _LOGITS, self._number()

    def _number(self) -> int:
        number = next(_numbers)
        _living[number] = self
        return number

    def progress(self, done: int, total: int) -> int:
        """What C is told: 0 to go on, 1 to end."""
        if self.error is None and self._progress is not None:
            try:
                self._progress(done, total)
            except BaseException as error:
                self.error = error
        return 1 if self.error is not None or self.given_up() else 0

    def logits(self, sequence: int, ids: int, count: int, logits: int, vocab: int) -> int:
        """The function works on copies: it may keep them, and C's memory is gone after the call."""
        if self.error is None and self._logits is not None:
            try:
                values = np.frombuffer(memoryview((ctypes.c_float * vocab).from_address(logits)), np.float32)
                changed = values.copy()
                self._logits(sequence, np.array((ctypes.c_int32 * count).from_address(ids)), changed)
                values[:] = changed
            except BaseException as error:
                self.error = error
        return 1 if self.error is not None or self.given_up() else 0

    def raise_error(self) -> None:
        error, self.error = self.error, None
        if isinstance(error, StopIteration):  # it would end the caller's iteration, and an event loop cannot pass it on
            raise RuntimeError("a callback raised StopIteration") from error
        if error is not None:
            raise error

    def run(self, work: Callable[[], T], meanwhile: Callable[[], object] = lambda: None) -> T:
        """The result of `work`, C calls that call these functions back. meanwhile: what the main thread does instead of waiting at once."""
        if threading.current_thread() is threading.main_thread() and not sys.is_finalizing():  # no thread begins any more
            return self._run_beside(work, meanwhile)
        try:
            return work()
        except Exception as error:
            failure = error
        self.raise_error()  # in place of the cancellation it caused
        raise failure

    def _run_beside(self, work: Callable[[], T], meanwhile: Callable[[], object]) -> T:
        results: list[T] = []
        errors: list[BaseException] = []
        begun, done = threading.Lock(), threading.Event()

        def body() -> None:
            if begun.acquire(blocking=False):
                try:
                    results.append(work())
                except BaseException as error:
                    errors.append(error)
                done.set()

        def begin() -> None:
            try:
                threading.Thread(target=body, name="tfinfer call", daemon=True).start()
            except RuntimeError:  # there is none to be had, as in Python 3.12 at exit: without Ctrl-C
                body()

        first: list[Callable[[], object]] = [begin, meanwhile]
        while not done.is_set():  # however often it is interrupted: until C has returned, what it reads and writes must stay
            try:
                while first:
                    first.pop(0)()
                done.wait()
            except BaseException as interrupt:
                self.error = interrupt  # the next callback ends the call
                if begun.acquire(blocking=False):  # it has not, and never will
                    break
        self.raise_error()
        if errors:
            raise errors.pop()
        return results.pop()


_numbers = itertools.count(1)
_living: weakref.WeakValueDictionary[int, Callbacks] = weakref.WeakValueDictionary()


def _progress(number: int, done: int, total: int) -> int:
    callbacks = _living.get(number)
    return 1 if callbacks is None else callbacks.progress(done, total)


def _logits(number: int, *arguments: int) -> int:
    callbacks = _living.get(number)
    return 1 if callbacks is None else callbacks.logits(*arguments)


_PROGRESS, _LOGITS = _c.ProgressFn(_progress), _c.LogitsFn(_logits)


def log_callback(function: Callable[[str, str], object]) -> Any:
    """C cannot be told of a failure here; Python reports it as it reports those of finalizers."""
    if not callable(function):
        raise TypeError("log must be a function of (level, text)")

    def write(user: int | None, level: int, text: bytes) -> None:
        function(_LEVELS[level], text.decode("utf-8", "replace"))

    return _c.LogFn(write)
