"""Text to token ids and back, with the call signature and the keys of a fast tokenizer of transformers."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from . import _arrays, _c, errors
from ._callbacks import log_callback
from ._library import STATUS, Handle, check, lib, unset
from ._numpy import np
from ._options import choice, fill
from .encoding import BatchEncoding, Rows
from .records import TokenizerInfo

if TYPE_CHECKING:
    from typing_extensions import Self

_TRUNCATION = {True: "longest_first", False: "none", "do_not_truncate": "none"}


def _special(kind: str) -> tuple[property, property]:
    """A special token's spelling and its id, None where the vocabulary has none."""

    def number(tokenizer: Tokenizer) -> int | None:
        found: int = getattr(tokenizer.info, kind + "_id")
        return None if found < 0 else found

    def token(tokenizer: Tokenizer) -> str | None:
        found = number(tokenizer)
        return None if found is None else str(tokenizer.convert_ids_to_tokens(found))

    return property(token), property(number)


class Tokenizer:
    """A vocabulary with its rules; immutable, shared by any number of threads. `unk_id` and the like are fields of `info`."""

    def __init__(self, handle: Handle, pointer: ctypes.c_void_p) -> None:
        """Not for callers: Tokenizer.open and Model.tokenizer make one. `handle` keeps what `pointer` points at."""
        self._handle, self._pointer = handle, pointer
        record = unset(_c.TokenizerInfo)
        with handle:
            check(lib.tf_tokenizer_get_info(pointer, record))
            values = {name: getattr(record, name) for name in TokenizerInfo._fields}
        values.update(model=values["model"].decode(), lowercase=bool(values["lowercase"]))
        self.info = TokenizerInfo(**values)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        mecab_dictionary: str | None = None,
        log: Callable[[str, str], object] | None = None,
    ) -> Self:
        """Open the tokenizer of a Hugging Face directory, or a single tokenizer.json, vocab.txt or SentencePiece *.model.

        mecab_dictionary: of Japanese tokenizers, MeCab's dictionary folder. log: called with a level ("debug", "info", "warning") and a
        line of text.
        """
        options = fill(_c.TokenizerOptions, {"mecab_dictionary": mecab_dictionary}, {}, {})
        if log is not None:
            options.log = log_callback(log)
        name = _arrays.path(path)
        handle = Handle(lambda out: lib.tf_tokenizer_open(name, options, out), lib.tf_tokenizer_close, keep=options)
        with handle as pointer:
            return cls(handle, pointer)

    def close(self) -> None:
        """A model's own tokenizer closes with its model."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.info.vocab_size

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[tuple[str, str]],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        threads: int = 1,
    ) -> BatchEncoding:
        """Encode a text, a list of texts, or pairs: a dict of lists, or of arrays [rows, tokens] with return_tensors "np" or "pt".

        Pairs: text_pair has the second text of each, or `text` is a list of (first, second).

        As in transformers: padding is True or "longest", "max_length", or False; truncation is True or "longest_first", "only_first",
        "only_second", or False, and a max_length alone truncates. return_token_type_ids: None gives them where the checkpoint's vocabulary
        is WordPiece. threads: that share the texts.
        """
        single = isinstance(text, str)
        texts: Any = [text] if isinstance(text, str) else text
        pairs: Any = ([text_pair] if text_pair else None) if isinstance(text_pair, str) else text_pair  # "" is none in transformers too
        if pairs is None and isinstance(texts, (list, tuple)) and texts and isinstance(texts[0], (list, tuple)):
            texts, pairs = zip(*((first, second) for first, second in texts))
        if truncation is None:
            truncation = max_length is not None and padding is False
        options = None  # as C has it
        if truncation or truncation_side or not add_special_tokens or return_overflowing_tokens or threads != 1:
            options = unset(_c.TokenizeOptions)
            options.add_special_tokens = bool(add_special_tokens)
            options.truncation = choice(_c.TRUNCATION, _TRUNCATION.get(truncation, truncation), "truncation")
            if options.truncation and max_length is not None:
                options.max_length = _arrays.integer(max_length, "max_length", 32)
            if truncation_side is not None:
                options.truncation_side = choice(_c.SIDE, truncation_side, "truncation_side")
            options.overflow = bool(return_overflowing_tokens)
            if return_overflowing_tokens:
                options.stride = _arrays.integer(stride, "stride", 32)
            if threads != 1:
                options.threads = _arrays.integer(threads, "threads", 32)

        rows = self._encode(texts, pairs, options)
        if padding is not False:
            width = self.info.model_max_length if max_length is None else _arrays.integer(max_length, "max_length", 32)
            multiple = _arrays.integer(pad_to_multiple_of or 1, "pad_to_multiple_of", 32)
            rows.pad(self.info.pad_id, padding, width, multiple, padding_side or "right")
        if return_token_type_ids is None:
            return_token_type_ids = self.info.model == "WordPiece"
        keys = ["input_ids"]
        for key, wanted in (
            ("token_type_ids", return_token_type_ids),
            ("attention_mask", return_attention_mask is None or return_attention_mask),
            ("special_tokens_mask", return_special_tokens_mask),
            ("offset_mapping", return_offsets_mapping),
            ("length", return_length),
            ("overflow_to_sample_mapping", return_overflowing_tokens),
        ):
            if wanted:
                keys.append(key)
        return BatchEncoding(rows, keys, return_tensors, single and not return_overflowing_tokens, self.convert_ids_to_tokens)

    def encode(self, text: str, text_pair: str | None = None, **options: Any) -> list[int]:
        """The ids of one text; options as for a call."""
        ids: list[int] = self(text, text_pair, **options)["input_ids"]
        return ids

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """The tokens of one text, as the vocabulary spells them."""
        tokens: list[str] = self.convert_ids_to_tokens(self.encode(text, pair, add_special_tokens=add_special_tokens, **options))
        return tokens

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None) -> str:
        """[tokens] ids, or one id, to text."""
        options = unset(_c.DecodeOptions)
        options.skip_special_tokens = bool(skip_special_tokens)
        if clean_up_tokenization_spaces is not None:
            options.clean_up = bool(clean_up_tokenization_spaces)
        ids = _arrays.ids(token_ids, "token_ids")
        size = ctypes.c_int64()
        text = ctypes.create_string_buffer(16 * ids.size + 64)
        with self._handle:
            status = STATUS["too_small"]
            while status == STATUS["too_small"]:
                if size.value > len(text):
                    text = ctypes.create_string_buffer(size.value)
                status = lib.tf_tokenizer_decode(
                    self._pointer, _arrays.address(ids), ids.size, options, text, len(text), ctypes.byref(size)
                )
            check(status)
        return text.raw[: size.value].decode("utf-8", "replace")

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """Each of several sequences of ids, or of an array [n, tokens], to text."""
        return [self.decode(ids, skip_special_tokens, clean_up_tokenization_spaces) for ids in sequences]

    def stream(self, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None) -> TextStream:
        """Ids to text, one id after the other."""
        options = unset(_c.DecodeOptions)
        options.skip_special_tokens = bool(skip_special_tokens)
        if clean_up_tokenization_spaces is not None:
            options.clean_up = bool(clean_up_tokenization_spaces)
        with self._handle:
            return TextStream(Handle(lambda out: lib.tf_stream_open(self._pointer, options, out), lib.tf_stream_close, self._handle))

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The token of an id, or the tokens [n] of ids [n]."""
        token, found = ctypes.c_char_p(), []
        with self._handle:
            for number in _arrays.ids(ids, "ids").tolist():
                check(lib.tf_tokenizer_token(self._pointer, number, ctypes.byref(token)))
                found.append((token.value or b"").decode("utf-8", "replace"))
        return found[0] if _arrays.is_number(ids) else found

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """The id of a token, or the ids of tokens; unk_id, or None where the vocabulary has no such token, for what it does not have."""
        number, found = ctypes.c_int32(), []
        with self._handle:
            for token in [tokens] if isinstance(tokens, str) else tokens:
                data = _arrays.utf8(token, "token")
                status = lib.tf_tokenizer_id(self._pointer, _c.Text(data, len(data)), ctypes.byref(number))
                if status == STATUS["not_found"]:
                    found.append(self.info.unk_id if self.info.unk_id >= 0 else None)
                else:
                    check(status)
                    found.append(number.value)
        return found[0] if isinstance(tokens, str) else found

    def get_vocab(self) -> dict[str, int]:
        """Token to id."""
        return {token: i for i, token in enumerate(self.convert_ids_to_tokens(np.arange(self.info.vocab_size)))}

    @property
    def vocab_size(self) -> int:
        return self.info.vocab_size

    @property
    def model_max_length(self) -> int:
        return self.info.model_max_length

    unk_token, unk_token_id = _special("unk")
    pad_token, pad_token_id = _special("pad")
    cls_token, cls_token_id = _special("cls")
    sep_token, sep_token_id = _special("sep")
    mask_token, mask_token_id = _special("mask")
    bos_token, bos_token_id = _special("bos")
    eos_token, eos_token_id = _special("eos")

    def _encode(self, texts: Any, pairs: Any, options: _c.TokenizeOptions | None) -> Rows:
        for given in (texts, pairs):
            if given is not None and not isinstance(given, (list, tuple)):
                raise TypeError(f"text must be a string or a list of strings, not {type(given).__name__}")
        texts, pairs = tuple(texts), None if pairs is None else tuple(pairs)
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts and {len(pairs)} pairs")
        first = _arrays.text_array(texts, "text")
        second = _arrays.text_array(pairs, "text_pair") if pairs is not None else None
        encoding, data = ctypes.c_void_p(), unset(_c.EncodingData)
        with self._handle:
            try:
                check(lib.tf_encoding_open(self._pointer, ctypes.byref(encoding)))
                check(lib.tf_tokenizer_encode(self._pointer, first, second, len(texts), options, encoding))
                check(lib.tf_encoding_get(encoding, data))
                return Rows(data)
            finally:
                lib.tf_encoding_close(encoding)


class TextStream:
    """A text that comes id by id. All pieces, one after the other, are what decode() gives for all ids at once."""

    def __init__(self, handle: Handle) -> None:
        self._handle, self._inside = handle, threading.Lock()

    def push(self, token_id: int) -> str:
        """What is now certain of the text: whole characters, maybe none."""
        number = _arrays.integer(token_id, "token_id", 32)
        return self._piece(lambda pointer, *out: lib.tf_stream_push(pointer, number, *out))

    def finish(self) -> str:
        """What was held back; the stream is then as new."""
        return self._piece(lib.tf_stream_finish)

    def close(self) -> None:
        self._handle.close()

    def _piece(self, call: Callable[..., Any]) -> str:
        text, size = ctypes.c_void_p(), ctypes.c_int64()
        if not self._inside.acquire(blocking=False):
            raise errors.BusyError("another thread is inside this stream")
        try:
            with self._handle as pointer:
                check(call(pointer, ctypes.byref(text), ctypes.byref(size)))
                return ctypes.string_at(text, size.value).decode("utf-8") if size.value else ""
        finally:
            self._inside.release()
