"""Python values as the numbers, texts and arrays that C reads: checked here, because ctypes would cut them to size without a word."""

from __future__ import annotations

import ctypes
import operator
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from . import _c
from ._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# As an argument a pointer to what an array holds, which must be contiguous and no constant.
pointer: Callable[[Any], Any] = (ctypes.c_char * 0).from_buffer


def integer(value: Any, what: str, bits: int) -> int:
    try:
        number = operator.index(value) if not isinstance(value, (bool, np.bool_)) else int(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, not {type(value).__name__}") from None
    if not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1) or number == _c.UNSET:
        raise OverflowError(f"{what}: {number} is out of range")
    return number


def number(value: Any, what: str) -> float:
    try:
        real = ctypes.c_double(value).value  # float() reads strings too
    except TypeError:
        raise TypeError(f"{what} must be a number, not {type(value).__name__}") from None
    except OverflowError:
        raise OverflowError(f"{what}: {value} is out of range") from None
    if real != real:
        raise ValueError(f"{what} must not be NaN")
    return real


def utf8(text: Any, what: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a string, not {type(text).__name__}")
    return str.encode(text)  # a subclass may have another


def path(value: Any) -> bytes:
    """Of a file or folder: a string, bytes or os.PathLike; names that are no UTF-8 too."""
    data = os.fsencode(value)
    if b"\0" in data:
        raise ValueError("path must not have a NUL in it")
    return data


def c_string(text: Any, what: str) -> bytes:
    data = utf8(text, what)
    if b"\0" in data:
        raise ValueError(f"{what} must not have a NUL in it")
    return data


def text_array(texts: tuple[Any, ...], what: str) -> Any:
    """tf_text[len(texts)], a tf_text for one; it keeps the texts' bytes alive. A tuple: another thread may shorten a list meanwhile."""
    if len(texts) == 1:
        data = utf8(texts[0], what)
        return _c.Text(data, len(data))
    array = (_c.Text * len(texts))()
    for i, text in enumerate(texts):
        data = utf8(text, f"{what}[{i}]")
        array[i] = _c.Text(data, len(data))
    return array


def as_array(value: Any, what: str) -> NDArray[Any]:
    """What NumPy and DLPack share is not copied."""
    try:
        if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
            return cast("NDArray[Any]", np.from_dlpack(value))
        return np.asarray(value)
    except ValueError as error:  # lists of different lengths, say
        raise ValueError(f"{what}: {error}") from None
    except (BufferError, RuntimeError) as error:  # a tensor that NumPy has no type for, or that lies elsewhere
        raise TypeError(f"{what}: {error}") from None


def int32(value: Any, what: str) -> NDArray[np.int32]:
    """Integers of any width as contiguous int32; a copy only where they are not."""
    array = as_array(value, what)
    if array.dtype == np.int32:
        return np.ascontiguousarray(array)
    if not array.size:
        return np.zeros(array.shape, np.int32)
    if array.dtype.kind == "O":
        raise OverflowError(f"{what}: a number is out of range") if _all_integers(array) else TypeError(f"{what} must be integers")
    if array.dtype.kind not in "iu":
        raise TypeError(f"{what} must be integers, not {array.dtype}")
    if array.max() >= 2**31 or array.min() < -(2**31):
        raise OverflowError(f"{what}: a number is out of range")
    return np.ascontiguousarray(array, np.int32)


def address(array: NDArray[Any]) -> int:
    """Where its first number lies."""
    try:
        return ctypes.addressof(pointer(array))
    except TypeError:  # read-only, or not contiguous
        return array.ctypes.data  # takes three times as long


def float32(value: Any, what: str) -> NDArray[np.float32]:
    """Floating-point numbers of any width as contiguous float32; a copy only where they are not."""
    array = as_array(value, what)
    if array.dtype.kind != "f" and array.size:
        raise TypeError(f"{what} must be floating-point numbers, not {array.dtype}")
    return np.ascontiguousarray(array, np.float32)


def one_dimension(array: NDArray[Any], what: str) -> NDArray[Any]:
    if array.ndim != 1:
        raise ValueError(f"{what} must have one dimension, not {array.ndim}")
    return array


def ids(value: Any, what: str) -> NDArray[np.int32]:
    """[n] ids; one number counts as one id."""
    if isinstance(value, (int, np.integer)):
        value = [value]
    return one_dimension(int32(value, what), what)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _all_integers(array: Iterable[Any]) -> bool:
    return all(is_number(value) for value in np.ravel(cast(Any, array)))
