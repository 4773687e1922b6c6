"""Async forms: the blocking call on a worker thread of the event loop. Calls of several tasks share passes over the weights."""

from __future__ import annotations

import functools
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from ._callbacks import worker
from .records import Token
from .request import Request

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")
R = TypeVar("R")


def threaded(method: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """The method as a coroutine function of the same arguments."""

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> R:
        import asyncio  # costs more than the rest of this package

        given_up = threading.Event()

        def work() -> R:
            worker.given_up = given_up
            try:
                return method(*args, **kwargs)
            finally:
                worker.given_up = None

        try:
            return await asyncio.to_thread(work)
        finally:
            given_up.set()  # the task was cancelled, or the call has ended

    call.__doc__ = f"{method.__name__}() on a worker thread."
    return call


async def stream_in_threads(begin: Callable[..., Request], *args: Any, **kwargs: Any) -> AsyncGenerator[Token, None]:
    import asyncio

    request = await asyncio.to_thread(begin, *args, **kwargs)
    try:
        while (token := await asyncio.to_thread(next, request, None)) is not None:
            yield token
    finally:
        request.cancel()  # a worker thread may be inside it
        request.close()
