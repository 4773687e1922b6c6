"""A request to generate: tokens as they come, results when they are there."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import _arrays, _c, errors
from ._callbacks import Callbacks
from ._inputs import Inputs
from ._library import STATUS, Handle, check, lib, unset
from ._numpy import np
from ._options import fill, integers
from .records import Generated, Token

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SLICE_MS = 50  # C waits so long at a time: then Python can raise what Ctrl-C or a signal handler wants raised
_NO_FAILURE = {STATUS["ok"], STATUS["end"], STATUS["timeout"], STATUS["cancelled"]}
_FINISH = {value: name for name, value in _c.FINISH.items()}
_EARLY = {False: "off", True: "on", "never": "never"}
# Keywords by transformers' names, where the struct has another.
_NAMES = {
    "forced_bos_token_id": "forced_bos_id",
    "output_logits": "keep_logits",
    "output_scores": "keep_scores",
    "clean_up_tokenization_spaces": "clean_up",
}
_ID_ARRAYS = {
    "eos_token_id": ("eos_ids", "eos_count"),
    "forced_eos_token_id": ("forced_eos_ids", "forced_eos_count"),
    "suppress_tokens": ("suppress_ids", "suppress_count"),
    "begin_suppress_tokens": ("begin_suppress_ids", "begin_suppress_count"),
    "decoder_input_ids": ("decoder_ids", "decoder_count"),
}


class _Settings:
    """A tf_generate_options over Python values, and all that it points at."""

    def __init__(self, given: dict[str, Any], callbacks: Callbacks) -> None:
        plain = dict(given)
        pointed = {name: plain.pop(name) for name in (*_ID_ARRAYS, *_POINTED) if name in plain}
        self.c = fill(_c.GenerateOptions, plain, _NAMES, {})
        self.alive: list[Any] = []
        self.calls_back = False
        self._callbacks = callbacks
        for name, value in pointed.items():
            if value is None:
                continue
            if name in _ID_ARRAYS:
                self.alive.append(integers(self.c, *_ID_ARRAYS[name], value, name))
            else:
                try:
                    _POINTED[name](self, value)
                except (TypeError, ValueError) as error:
                    if type(error) not in (TypeError, ValueError) or name in str(error):
                        raise
                    raise type(error)(f"{name}: {error}") from None  # Python's own, as of unpacking

    def _lists(self, sequences: Any, what: str) -> _c.IdLists:
        """Sequences of ids, packed."""
        arrays = [_arrays.ids(ids, what) for ids in sequences]
        packed = np.concatenate(arrays) if arrays else np.zeros(0, np.int32)
        lengths = np.array([len(array) for array in arrays], np.int32)
        self.alive += [packed, lengths]
        return _c.IdLists(_arrays.address(packed), _arrays.address(lengths), len(arrays))

    def _bad_words(self, value: Any) -> None:
        self.c.bad_words = self._lists(value, "bad_words_ids")

    def _sequence_bias(self, value: Any) -> None:
        pairs = list(value.items() if hasattr(value, "items") else value)
        self.c.sequence_bias = self._lists([ids for ids, _ in pairs], "sequence_bias")
        biases = np.array([_arrays.number(bias, "sequence_bias") for _, bias in pairs], np.float32)
        self.alive.append(biases)
        self.c.sequence_bias_values = _arrays.address(biases)

    def _stop_strings(self, value: Any) -> None:
        strings = (value,) if isinstance(value, str) else tuple(value)
        array = _arrays.text_array(strings, "stop_strings")
        self.alive.append(array)
        self.c.stop_strings, self.c.stop_string_count = ctypes.addressof(array), len(strings)

    def _early_stopping(self, value: Any) -> None:
        if not isinstance(value, (bool, str)) or value not in _EARLY:
            raise ValueError(f'early_stopping must be True, False or "never", not {value!r}')
        self.c.early_stopping = _c.EARLY_STOPPING[_EARLY[value]]

    def _decay(self, value: Any) -> None:
        start, factor = value
        self.c.decay_start = _arrays.integer(start, "exponential_decay_length_penalty", 32)
        self.c.decay_factor = _arrays.number(factor, "exponential_decay_length_penalty")

    def _logits(self, value: Any) -> None:
        if not callable(value):
            raise TypeError("logits_processor must be a function of (sequence, ids, logits)")
        self._callbacks.set_logits(self.c, value)
        self.calls_back = True


_POINTED: dict[str, Callable[[_Settings, Any], None]] = {
    "bad_words_ids": _Settings._bad_words,
    "sequence_bias": _Settings._sequence_bias,
    "stop_strings": _Settings._stop_strings,
    "early_stopping": _Settings._early_stopping,
    "exponential_decay_length_penalty": _Settings._decay,
    "logits_processor": _Settings._logits,
}


class Request:
    """One prompt that is being continued (GPT-2) or answered (T5): iterate over its tokens, or take its results.

    All requests of a model advance together, a token of each in one pass over the weights, while any thread is inside one of them.
    A request belongs to one thread at a time; another one gets BusyError. cancel() may be called from any. Use it in a with statement, or
    close() it: until then it holds room for its longest possible result.
    """

    def __init__(self, session: Handle, prompts: Inputs, number: int, given: dict[str, Any], vocab_size: int) -> None:
        """Not for callers: Model.stream makes one."""
        self._callbacks = Callbacks()
        self._settings = _Settings(given, self._callbacks)
        self._prompts = prompts
        self._vocab_size = vocab_size
        self._inside = threading.Lock()
        with session as opened:
            prompt, settings = prompts.one(number), self._settings.c
            self._handle = Handle(lambda out: lib.tf_generate_open(opened, prompt, settings, out), lib.tf_generate_close, session)

    def __iter__(self) -> Iterator[Token]:
        return self

    def __next__(self) -> Token:
        """The next token of any of its sequences; of beams all of the best sequence when the search is over, then of the next one."""
        token = unset(_c.GeneratedToken)
        with self._alone() as pointer:
            status = self._wait(lambda: int(lib.tf_generate_next(pointer, _SLICE_MS, token)))
            if status != STATUS["ok"]:
                raise StopIteration
            text = _text(token.text, token.text_bytes)
        return Token(token.sequence, token.id, text, token.logprob, _FINISH[token.finish])

    def wait(self) -> Request:
        """Until all sequences are finished."""
        with self._alone() as pointer:
            self._wait(lambda: int(lib.tf_generate_wait(pointer, _SLICE_MS)))
        return self

    def results(self) -> list[Generated]:
        """Wait, then all sequences, of beams the best first."""
        self.wait()
        found: list[Generated] = []
        record = unset(_c.Generated)
        with self._alone() as pointer:
            while True:
                status = lib.tf_generate_result(pointer, len(found), record)
                if found and status == STATUS["invalid"]:  # that many there are
                    return found
                check(status)
                found.append(self._result(record))

    def scores(self, step: int, sequence: int = 0, kind: str = "processed") -> NDArray[np.float32]:
        """[V] logits that new token number `step` was drawn from, "processed" (with output_scores) or raw "logits" (with output_logits).

        With beams `sequence` is the beam as it ran, before reordering. NotFoundError: the step has not been, or nothing was kept.
        """
        out = np.empty(self._vocab_size, np.float32)
        with self._alone() as pointer:
            kept = _c.SCORES.get(kind)
            if kept is None:
                raise ValueError(f"kind must be one of {', '.join(_c.SCORES)}, not {kind!r}")
            step, sequence = _arrays.integer(step, "step", 64), _arrays.integer(sequence, "sequence", 32)
            check(lib.tf_generate_scores(pointer, kept, step, sequence, _arrays.address(out), out.size))
        return out

    def cancel(self) -> None:
        """End the request at its next step, and iteration with it; results() has what was generated. From any thread."""
        with self._handle as pointer:
            lib.tf_generate_cancel(pointer)

    def close(self) -> None:
        self._handle.close()

    def __enter__(self) -> Request:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _alone(self) -> _Alone:
        return _Alone(self._handle, self._inside)

    def _wait(self, call: Callable[[], int]) -> int:
        """Call until it does not time out any more: OK, END, or CANCELLED by cancel()."""

        def checked() -> int:
            status = call()
            if status not in _NO_FAILURE:
                check(status)
            return status

        while True:
            status = self._callbacks.run(checked) if self._settings.calls_back else checked()
            if status == STATUS["cancelled"]:
                self._callbacks.raise_error()
            if status != STATUS["timeout"]:
                return status
            if self._callbacks.given_up():
                raise errors.CancelledError("its task was cancelled")

    def _result(self, r: _c.Generated) -> Generated:
        data = ctypes.string_at(r.text or 0, r.text_bytes)
        return Generated(
            ids=_copy(r.ids, r.count, ctypes.c_int32),
            text=data.decode("utf-8", "replace"),
            score=r.score,
            finish=_FINISH[r.finish],
            cumulative_logprob=r.cumulative_logprob,
            logprobs=_copy(r.logprobs, r.count, ctypes.c_float) if r.logprobs else None,
            prompt_logprobs=_copy(r.prompt_logprobs, r.prompt_count, ctypes.c_float) if r.prompt_logprobs else None,
            stop_begin=len(data[: r.stop_begin].decode("utf-8", "replace")) if r.stop_begin >= 0 else -1,
            stop_index=r.stop_index,
            beams=_copy(r.beams, r.count, ctypes.c_int32) if r.beams else None,
        )


class _Alone:
    """`with`: the pointer of a handle that belongs to one thread at a time."""

    __slots__ = ("_handle", "_inside")

    def __init__(self, handle: Handle, inside: threading.Lock) -> None:
        self._handle, self._inside = handle, inside

    def __enter__(self) -> ctypes.c_void_p:
        if not self._inside.acquire(blocking=False):
            raise errors.BusyError("another call is inside this request")
        try:
            return self._handle.__enter__()
        except BaseException:
            self._inside.release()
            raise

    def __exit__(self, *_: object) -> None:
        self._handle.__exit__()
        self._inside.release()


def _text(address: int | None, size: int) -> str:
    return ctypes.string_at(address, size).decode("utf-8", "replace") if address else ""


def _copy(address: int | None, count: int, kind: Any) -> NDArray[Any]:
    """C's array as an array of one's own."""
    return np.array((kind * count).from_address(address)) if count else np.zeros(0, np.dtype(kind))
