"""What a model is opened from where there is no directory: files and tensors in memory, as the C library's tf_source."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from . import _c
from ._arrays import c_string
from ._library import STATUS, lib, unset
from ._numpy import np

_DTYPES = {
    "float32": _c.DTYPE["fp32"],
    "float64": _c.DTYPE["fp64"],
    "float16": _c.DTYPE["fp16"],
    "bfloat16": _c.DTYPE["bf16"],
}


class Source:
    """A tf_source over Python's objects. C knows it by a number; it and the objects live until C releases them.

    A tensor is one of PyTorch's, on the CPU or a CUDA device, or a NumPy array; neither has to be contiguous.
    """

    def __init__(self, files: Mapping[str, Any], tensors: Mapping[str, Any], borrow: bool, label: str | None) -> None:
        for what, given in (("files", files), ("tensors", tensors)):
            if not isinstance(given, Mapping):
                raise TypeError(f"{what} must be a dict, not {type(given).__name__}")
        self._alive: list[Any] = [_FILE, _TENSOR, _RELEASE]
        self._files = {c_string(name, "a file's name"): self._bytes(name, data) for name, data in files.items()}
        self._tensors = [self._record(name, tensor) for name, tensor in tensors.items()]
        self.c = unset(_c.Source)
        self.c.file, self.c.tensor, self.c.release = _FILE, _TENSOR, _RELEASE
        self.c.borrow = int(bool(borrow))
        if label is not None:
            self.c.label = c_string(label, "label")
        self.c.user = next(_numbers)

    def open(self, options: Any, out: Any) -> int:
        """tf_model_open_source(), which releases this whatever comes of it."""
        _living[self.c.user or 0] = self
        status: int = lib.tf_model_open_source(self.c, options, out)
        return status

    def _bytes(self, name: str, data: Any) -> tuple[int, int]:
        """Address and size."""
        if isinstance(data, str):
            data = data.encode()
        try:
            size = memoryview(data).nbytes
        except TypeError:
            raise TypeError(f"{name}: a file must be bytes or a string, not {type(data).__name__}") from None
        array = np.frombuffer(data, np.uint8) if size else np.zeros(1, np.uint8)
        self._alive.append(array)
        return array.ctypes.data, size

    def _record(self, name: str, tensor: Any) -> _c.Tensor:
        record = unset(_c.Tensor)
        record.name = c_string(name, "a tensor's name")
        if hasattr(tensor, "data_ptr"):
            dtype, address, strides = str(tensor.dtype).removeprefix("torch."), tensor.data_ptr(), tensor.stride()
            if tensor.device.type not in ("cpu", "cuda"):
                raise TypeError(f"{name}: a tensor must be on the CPU or a CUDA device, not on {tensor.device}")
            if tensor.device.type == "cuda":
                record.device = tensor.device.index
        elif isinstance(tensor, np.ndarray):
            tensor = np.require(tensor, tensor.dtype.newbyteorder("="), "A")  # else a copy that C can read
            dtype, address, strides = tensor.dtype.name, tensor.ctypes.data, [s // tensor.itemsize for s in tensor.strides]
        else:
            raise TypeError(f"{name}: a tensor must be one of PyTorch's or a NumPy array, not {type(tensor).__name__}")
        if dtype not in _DTYPES:
            raise TypeError(f"{name}: a tensor must be floating-point numbers, not {dtype}")
        if len(tensor.shape) > len(record.shape):
            raise ValueError(f"{name}: a tensor must have at most {len(record.shape)} dimensions, not {len(tensor.shape)}")
        self._alive.append(tensor)
        record.dtype, record.data, record.rank = _DTYPES[dtype], address, len(tensor.shape)
        record.shape[: record.rank] = list(tensor.shape)
        record.stride[: record.rank] = list(strides)
        return record

    def file(self, name: bytes, out: Any) -> int:
        found = self._files.get(name)
        if found is None:
            return STATUS["not_found"]
        out[0].data, out[0].size = found
        return STATUS["ok"]

    def tensor(self, index: int, out: Any) -> int:
        if index >= len(self._tensors):
            return STATUS["end"]
        out[0] = self._tensors[index]  # the struct as it is: its name's bytes live as long as this object
        return STATUS["ok"]


_numbers = itertools.count(1)
_living: dict[int, Source] = {}
_kinds: dict[str, Any] = {field[0]: field[1] for field in _c.Source._fields_}


def _file(number: int, name: bytes, out: Any) -> int:
    return _living[number].file(name, out)


def _tensor(number: int, index: int, out: Any) -> int:
    return _living[number].tensor(index, out)


def _release(number: int, living: dict[int, Source] = _living) -> None:  # also when the interpreter has forgotten its globals
    living.pop(number, None)


_FILE, _TENSOR, _RELEASE = _kinds["file"](_file), _kinds["tensor"](_tensor), _kinds["release"](_release)
