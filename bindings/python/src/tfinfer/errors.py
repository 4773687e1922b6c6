"""One exception for each status of the C library; the text is the library's own sentence, with the argument, file, key or value in it."""

from __future__ import annotations


class Error(Exception):
    """A call that failed."""


class InvalidError(Error, ValueError):
    """An argument is outside its documented range."""


class ClosedError(InvalidError):
    """The object was closed."""


class NoMemoryError(Error, MemoryError):
    """Out of memory, or over a byte budget."""


class ReadError(Error, OSError):
    """A file could not be opened or read."""


class CorruptError(Error):
    """A file is malformed."""


class UnsupportedError(Error):
    """Valid, but not supported by this build, checkpoint or device."""


class NotFoundError(Error, LookupError):
    """A file, tensor, key or name does not exist."""


class TooSmallError(Error):
    """A buffer is too small."""


class BusyError(Error):
    """The resource is in use; try again later."""


class CancelledError(Error):
    """The request was cancelled."""


class DeviceError(Error):
    """The device failed."""


class ForkedError(Error):
    """The object belongs to the parent process."""


class NumericError(Error, ArithmeticError):
    """A result is NaN or infinite."""


class InternalError(Error):
    """A defect of the library."""


class EndError(Error):
    """Nothing is left to do or to hand out."""


class TimedOutError(Error, TimeoutError):
    """The time given ran out; nothing is lost."""


BY_STATUS: dict[str, type[Error]] = {
    "invalid": InvalidError,
    "nomem": NoMemoryError,
    "io": ReadError,
    "corrupt": CorruptError,
    "unsupported": UnsupportedError,
    "not_found": NotFoundError,
    "too_small": TooSmallError,
    "busy": BusyError,
    "cancelled": CancelledError,
    "device": DeviceError,
    "forked": ForkedError,
    "numeric": NumericError,
    "internal": InternalError,
    "end": EndError,
    "timeout": TimedOutError,
}
