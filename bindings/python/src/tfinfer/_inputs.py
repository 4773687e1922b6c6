"""What a task runs on, texts or ids or embeddings, as the C library's tf_input."""

from __future__ import annotations

import array
import ctypes
from typing import TYPE_CHECKING, Any

from . import _arrays, _c
from ._library import unset
from ._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray


_SHORT = 8192  # ids that are sooner copied than looked at where they lie


def ids_bytes(inputs: Any, int32: Any) -> bytes | None:
    """A short list of ids, or array [tokens] of this dtype, as C has them. None: something else, or wrong."""
    if type(inputs) is np.ndarray:
        row = inputs.dtype is int32 and inputs.ndim == 1 and inputs.size <= _SHORT  # NumPy compares dtypes slowly
        return inputs.tobytes() if row else None
    try:
        row = type(inputs) is list and type(inputs[0]) is int and len(inputs) <= _SHORT
        return array.array("i", inputs).tobytes() if row else None
    except (IndexError, TypeError, OverflowError):
        return None


def text_call(session: ctypes.c_void_p, width: int) -> tuple[Any, ...]:
    """A call of tf_embed with one text: where its bytes begin, its size, where the vector [width] goes, and all arguments."""
    text, given = _c.Text(), unset(_c.Input)
    given.texts = ctypes.addressof(text)
    return _part(text, "data", ctypes.c_char_p), _part(text, "size", ctypes.c_int64), *_call(session, given, width, text)


def ids_call(session: ctypes.c_void_p, width: int) -> tuple[Any, ...]:
    """The same with one row of ids."""
    length, given = ctypes.c_int32(), unset(_c.Input)
    given.lens = ctypes.addressof(length)
    return _part(given, "ids", ctypes.c_char_p), length, *_call(session, given, width, length)


def _part(struct: ctypes.Structure, field: str, kind: Any) -> Any:
    """A field by itself; to set a structure's makes a name for what it keeps alive."""
    return kind.from_buffer(struct, getattr(type(struct), field).offset)


def _call(session: ctypes.c_void_p, given: _c.Input, width: int, keep: Any) -> tuple[Any, tuple[Any, ...]]:
    """All arguments are pointers, which ctypes passes on as they are, also the number: it is eight bytes in a register too."""
    given.count = 1
    out = _Pointer()
    out.keep = keep  # what only its address is known of
    arguments = ctypes.cast(session, _Pointer), ctypes.pointer(given), None, out, ctypes.cast(width, _Pointer)
    return ctypes.c_void_p.from_buffer(out), arguments


_Pointer: Any = ctypes.POINTER(ctypes.c_char)


class Inputs:
    """A tf_input and all that it points at. `single`: the caller gave one input, not a list of them."""

    __slots__ = ("_alive", "_input_width", "c", "count", "lengths", "pairs", "single", "texts")

    def __init__(self, inputs: Any, given: dict[str, Any], input_width: int) -> None:
        """Takes what it knows out of `given`: pairs, type_ids, embeddings."""
        pairs, type_ids, embeddings = given.pop("pairs", None), given.pop("type_ids", None), given.pop("embeddings", None)
        self.c = unset(_c.Input)
        self.texts: tuple[Any, ...] | None = None
        self.pairs: tuple[Any, ...] | None = None
        self.lengths: NDArray[np.int32] | None = None
        self._input_width = input_width
        self._alive: list[Any] = []
        if inputs is None and embeddings is None:
            raise TypeError("texts, ids or embeddings must be given")
        if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OTU":
            inputs = inputs.tolist()  # of texts, or of ids of different lengths
        if isinstance(inputs, str):
            self.single, self.texts = True, (inputs,)
        elif isinstance(inputs, (list, tuple)) and (not inputs or isinstance(inputs[0], (str, bytes))):
            self.single, self.texts = False, tuple(inputs)
        if self.texts is not None:
            self._set_texts(self.texts, pairs, type_ids, embeddings)
        else:
            self._set_sequences(inputs, pairs, type_ids, embeddings)
        self.c.count = self.count

    def _set_texts(self, texts: tuple[Any, ...], pairs: Any, type_ids: Any, embeddings: Any) -> None:
        if type_ids is not None or embeddings is not None:
            raise TypeError("type_ids and embeddings go with ids, not with texts")
        self.count = len(texts)
        self.c.texts = self._address(_arrays.text_array(texts, "text"))
        if pairs is not None:
            if isinstance(pairs, str):
                pairs = [pairs]
            if not isinstance(pairs, (list, tuple)):
                raise TypeError(f"pairs must be a string or a list of strings, not {type(pairs).__name__}")
            self.pairs = tuple(pairs)
            if len(self.pairs) != self.count:
                raise ValueError(f"{self.count} texts and {len(self.pairs)} pairs")
            self.c.pairs = self._address(_arrays.text_array(self.pairs, "pair"))

    def one(self, i: int) -> _c.Input:
        """A tf_input of input number i alone, where it lies; valid as long as this object is."""
        c = unset(_c.Input)
        c.count = 1
        if self.texts is not None:
            c.texts = _moved(self.c.texts, i * ctypes.sizeof(_c.Text))
        elif self.lengths is not None:
            begin = 4 * int(self.lengths[:i].sum())
            c.ids, c.embeddings = _moved(self.c.ids, begin), _moved(self.c.embeddings, begin * self._input_width)
            c.lens = _moved(self.c.lens, 4 * i)
        return c

    def _set_sequences(self, ids: Any, pairs: Any, type_ids: Any, embeddings: Any) -> None:
        if pairs is not None:
            raise TypeError("pairs go with texts, not with ids")
        given = ids if ids is not None else embeddings
        self.single = _dimensions(given, "inputs") == (1 if ids is not None else 2)
        lengths: list[int] = []
        if ids is not None:
            self.c.ids, lengths = self._pack(ids, "ids", lengths, 0)
        if embeddings is not None:
            self.c.embeddings, lengths = self._pack(embeddings, "embeddings", lengths, self._input_width)
        if type_ids is not None:
            self.c.type_ids, lengths = self._pack(type_ids, "type_ids", lengths, 0)
        self.count = len(lengths)
        self.lengths = np.array(lengths, np.int32)
        self.c.lens = self._array_address(self.lengths)

    def _pack(self, value: Any, what: str, lengths: list[int], width: int) -> tuple[int, list[int]]:
        """Address and lengths of sequences that lie packed; a lone one and a full rectangle are not copied. width 0: of integers."""
        convert = _arrays.float32 if width else _arrays.int32
        inner = 2 if width else 1
        dimensions = _dimensions(value, what)
        if lengths and (dimensions == inner) != self.single:
            raise ValueError(f"{what}: one sequence, and a list of them in the same call")
        rectangle = not isinstance(value, (list, tuple)) or dimensions == inner
        if rectangle:
            array = convert(value, what)
            rows = [array] if dimensions == inner else list(array)
            packed: NDArray[Any] = array
        else:
            rows = [convert(one, what) for one in value]
        for row in rows:
            if row.ndim != inner or (width and row.shape[1] != width):
                shape = f"[tokens, {width}]" if width else "[tokens]"
                raise ValueError(f"{what}: a sequence must have the shape {shape}, not {list(row.shape)}")
        if not rectangle:
            packed = np.concatenate(rows) if len(rows) != 1 else rows[0]
        found = [len(row) for row in rows]
        if lengths and found != lengths:
            raise ValueError(f"{what}: sequences of other lengths than those before")
        return self._array_address(packed), found

    def _address(self, array: Any) -> int:
        self._alive.append(array)
        return ctypes.addressof(array)

    def _array_address(self, array: NDArray[Any]) -> int:
        self._alive.append(array)
        return _arrays.address(array)


def _moved(address: int | None, size: int) -> int | None:
    return address + size if address else None


def _dimensions(value: Any, what: str) -> int:
    """Of an array, or of nested lists."""
    if isinstance(value, (list, tuple)):
        if not len(value) or _arrays.is_number(value[0]) or isinstance(value[0], float):
            return 1
        return 1 + _dimensions(value[0], what)
    if isinstance(value, (str, bytes, bytearray, dict, set)) or not (hasattr(value, "__dlpack__") or isinstance(value, np.ndarray)):
        raise TypeError(f"{what} must be a string, numbers, an array or a list of them, not {type(value).__name__}")
    return len(value.shape)
