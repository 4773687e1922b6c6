"""What a tokenizer's call returns: rows of numbers under the names that transformers gives them."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _c
from ._numpy import np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INT32 = ("ids", "type_ids", "sequence", "word")
_COLUMNS = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "mask",
    "special_tokens_mask": "special",
    "offset_mapping": "offsets",
}


class Rows:
    """A copy of a tf_encoding: columns over the tokens of all rows, and where each row begins. Made lists or arrays when asked for."""

    def __init__(self, data: _c.EncodingData) -> None:
        small, large = 4 * data.tokens, 8 * data.tokens
        copy = ctypes.string_at
        self._bytes = {
            "ids": copy(data.ids or 0, small),
            "type_ids": copy(data.type_ids or 0, small),
            "sequence": copy(data.sequence or 0, small),
            "word": copy(data.word or 0, small),
            "char_begin": copy(data.char_begin or 0, large),
            "char_end": copy(data.char_end or 0, large),
        }
        self._arrays: dict[str, NDArray[Any]] = {}
        self.bounds, self.row_text = [(0, data.tokens)], [0]  # of one text
        if data.rows != 1:
            starts = memoryview(copy(data.row_start or 0, 8 * (data.rows + 1))).cast("q").tolist()
            self.bounds = list(itertools.pairwise(starts))
            self.row_text = memoryview(copy(data.row_text or 0, 8 * data.rows)).cast("q").tolist()

    def numbers(self, name: str) -> list[Any]:
        """A column as a list."""
        data = self._bytes.get(name)
        if data is not None:
            numbers: list[Any] = memoryview(data).cast("i" if name in _INT32 else "q").tolist()
        elif name in self._arrays:
            numbers = self._arrays[name].tolist()
            if name == "offsets":
                numbers = list(map(tuple, numbers))
        elif name == "mask":
            numbers = [1] * (self.bounds[-1][1] if self.bounds else 0)
        elif name == "special":
            numbers = [int(number < 0) for number in self.numbers("sequence")]
        else:
            numbers = list(zip(self.numbers("char_begin"), self.numbers("char_end")))
        return numbers

    def array(self, name: str) -> NDArray[Any]:
        """A column: one of tf_encoding_data's, or offsets [tokens, 2], mask, special."""
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = self._make(name)
        return array

    def _make(self, name: str) -> NDArray[Any]:
        if name == "offsets":
            return np.stack([self.array("char_begin"), self.array("char_end")], axis=1)
        if name == "special":
            return (self.array("sequence") < 0).astype(np.int32)
        if name == "mask":
            return np.ones(self.bounds[-1][1] if self.bounds else 0, np.int32)
        return np.frombuffer(self._bytes[name], np.int32 if name in _INT32 else np.int64)

    def pad(self, pad_id: int, padding: bool | str, max_length: int, multiple: int, side: str) -> None:
        """Make all rows as long as the longest, or as max_length."""
        if padding not in (True, "longest", "max_length", "do_not_pad"):
            raise ValueError(f'padding must be True, "longest", "max_length", "do_not_pad" or False, not {padding!r}')
        if side not in ("right", "left"):
            raise ValueError(f'padding_side must be "right" or "left", not {side!r}')
        if padding == "do_not_pad" or not self.bounds:
            return
        if pad_id < 0:
            raise ValueError("the tokenizer has no padding token")
        lengths = np.array([end - begin for begin, end in self.bounds])
        width = int(lengths.max())
        if padding == "max_length" and max_length < 2**31 - 1:
            width = max_length
        if max_length < 0 or multiple < 1:
            raise ValueError(f"max_length and pad_to_multiple_of must not be negative: {max_length}, {multiple}")
        width = -(-width // multiple) * multiple
        full = np.maximum(lengths, width)  # max_length does not cut
        starts = np.concatenate([[0], np.cumsum(full)])
        first = starts[:-1] if side == "right" else starts[1:] - lengths
        at = np.repeat(first - np.array([begin for begin, _ in self.bounds]), lengths) + np.arange(lengths.sum())
        for name, value in {"ids": pad_id, "type_ids": 0, "sequence": -1, "word": -1, "offsets": 0, "mask": 0}.items():
            old = self.array(name)
            new = np.full((starts[-1], *old.shape[1:]), value, old.dtype)
            new[at] = old
            self._arrays[name] = new
            self._bytes.pop(name, None)
        self.bounds = list(zip(starts[:-1].tolist(), starts[1:].tolist()))

    def lists(self, key: str) -> list[Any]:
        """What stands under a name: a list a row, or a number a row."""
        if key == "overflow_to_sample_mapping":
            return self.row_text
        if key == "length":
            return [end - begin for begin, end in self.bounds]
        numbers = self.numbers(_COLUMNS[key])
        return [numbers[begin:end] for begin, end in self.bounds] if len(self.bounds) != 1 else [numbers]

    def rectangle(self, key: str) -> NDArray[Any]:
        """The same as an array [rows, ...]."""
        if key not in _COLUMNS:
            return np.array(self.lists(key), np.int64)
        array, lengths = self.array(_COLUMNS[key]), {end - begin for begin, end in self.bounds}
        if len(lengths) > 1:
            raise ValueError(f"{key}: rows of different lengths make no array; padding=True and truncation=True make them equal")
        return array.reshape(len(self.bounds), *lengths or (0,), *array.shape[1:]).astype(np.int64)


class BatchEncoding(dict[str, Any]):
    """A dict whose keys are attributes too; each value a list for a single text, a list of lists for several, or an array."""

    def __init__(self, rows: Rows, keys: list[str], tensors: str | None, single: bool, spell: Callable[[Any], Any]) -> None:
        self._rows, self._spell = rows, spell
        if tensors not in (None, "np", "pt"):
            raise ValueError(f'return_tensors must be "np", "pt" or None, not {tensors!r}')
        super().__init__({key: self._value(key, tensors, single) for key in keys})

    def _value(self, key: str, tensors: str | None, single: bool) -> Any:
        if tensors is None:
            values = self._rows.lists(key)
            return values[0] if single and isinstance(values[0], list) else values
        array = self._rows.rectangle(key)
        if tensors == "np":
            return array
        import torch  # the caller asked for its tensors

        return torch.from_numpy(array)

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy, which goes to other processes too: all but tokens(), for which the vocabulary is needed."""
        return {"_rows": self._rows}

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row, as the vocabulary spells them."""
        begin, end = self._rows.bounds[batch_index]
        tokens: list[str] = self._spell(self._rows.array("ids")[begin:end])
        return tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row the number of its word in its text; None for a special token."""
        return self._numbers("word", batch_index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token of a row 0 or 1, the text of a pair it comes from; None for a special token."""
        return self._numbers("sequence", batch_index)

    def _numbers(self, column: str, row: int) -> list[int | None]:
        begin, end = self._rows.bounds[row]
        return [None if value < 0 else value for value in self._rows.numbers(column)[begin:end]]
