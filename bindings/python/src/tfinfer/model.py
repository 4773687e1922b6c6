"""An open checkpoint with its working memory: every task of the library as a method."""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _arrays, _c, errors
from ._asyncio import stream_in_threads, threaded
from ._callbacks import Callbacks, log_callback
from ._cuda import library_folder
from ._inputs import Inputs, ids_bytes, ids_call, text_call
from ._library import Handle, check, lib, unset
from ._numpy import np
from ._options import choice, fill, integers
from ._source import Source
from .records import Answer, Classification, Encoded, Entity, Fill, Generated, ModelInfo, Plan, Stats, Token
from .request import Request
from .tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from numpy.typing import NDArray
    from typing_extensions import Self, Unpack

    from . import options as o

    Texts = list[str] | tuple[str, ...]  # a string is a sequence of strings too

R = TypeVar("R")
_DTYPES = {value: name for name, value in _c.DTYPE.items()}
_MODEL_CHOICES = {"dtype": _c.DTYPE, "quantization": _c.QUANTIZATION}
_SESSION_KEYWORDS = ("stream", "max_step_tokens", "max_sequences", "session_memory_budget", "kv_tokens")
_ROOM_S = 0.002  # between two looks whether there is room
_VECTORS = 32  # made at once
_embed = lib["tf_embed"]  # without a prototype: its arguments are made before
_FEW = 16  # inputs that are soon done: Ctrl-C can wait for them


class Model:
    """A checkpoint on a device; shared by any number of threads, whose calls share passes over the weights.

    `inputs` of its tasks: a text, a list of texts, [tokens] ids, or a list of ids or [n, tokens]. One input gives one result, a list of
    them a list. Ids and embeddings are read where they lie if they are contiguous int32 and float32; embed copies a short row of ids.

    Use it in a with statement, or close() it; it also closes when nobody refers to it any more. On the CPU it works in a forked child too.
    Every task has an async form that runs on a worker thread: `await model.embed_async(...)`.
    """

    def __init__(self, model: Handle, session: Handle) -> None:
        """Not for callers: Model.open makes one."""
        self._model, self._session = model, session
        with model as pointer:
            self.info = _info(pointer)
        self._tokenizer: Tokenizer | None = None
        self._int32 = np.dtype(np.int32)
        # For calls of embed to come. Deques, because a list gives its memory back with its last item.
        self._calls_of_text: deque[tuple[Any, ...]] = deque()
        self._calls_of_ids: deque[tuple[Any, ...]] = deque()
        self._vectors: deque[tuple[NDArray[np.float32], int]] = deque()  # with their addresses

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        log: Callable[[str, str], object] | None = None,
        progress: Callable[[int, int], object] | None = None,
        **options: Unpack[o.ModelOptions],
    ) -> Self:
        """Open the checkpoint in a Hugging Face directory; the options are those of tfinfer.options.ModelOptions.

        log: called with a level ("debug", "info", "warning") and a line of text. progress: called with (bytes loaded, bytes in all); an
        exception in it ends the call and comes out of it.
        """
        name = _arrays.path(path)
        return cls._open(lambda given, out: lib.tf_model_open(name, given, out), log, progress, dict(options))

    @classmethod
    def open_source(
        cls,
        files: Mapping[str, bytes | str],
        tensors: Mapping[str, Any] | None = None,
        *,
        borrow: bool = False,
        label: str | None = None,
        log: Callable[[str, str], object] | None = None,
        progress: Callable[[int, int], object] | None = None,
        **options: Unpack[o.ModelOptions],
    ) -> Self:
        """Open a checkpoint that is in memory: what a Hugging Face directory would hold, files by name ("config.json") and weights.

        tensors: PyTorch's, on the CPU or a CUDA device, or NumPy arrays, by the names the checkpoint's files would have; None: the weights
        are among the files. borrow: they stay as they are as long as the model is open, and those that have the right format are used where
        they lie; otherwise all are copied. label: what error texts call it.
        """
        source = Source(files, {} if tensors is None else tensors, borrow, label)
        return cls._open(source.open, log, progress, dict(options))

    @classmethod
    def _open(cls, open_call: Callable[[Any, Any], int], log: Any, progress: Any, options: dict[str, Any]) -> Self:
        callbacks = Callbacks()
        model_options, session_options = _open_options(options)
        callbacks.set_progress(model_options, progress)
        if log is not None:
            model_options.log = log_callback(log)

        def work() -> tuple[Handle, Handle]:
            model = Handle(lambda out: open_call(model_options, out), lib.tf_model_close, keep=model_options)
            with model as opened:
                session = Handle(lambda out: lib.tf_session_open(opened, session_options, out), lib.tf_session_close, model)
            return model, session

        return cls(*callbacks.run(work, meanwhile=lambda: np.ndarray))

    def close(self) -> None:
        """Refuse further calls; calls and requests that are under way end as they would have."""
        self._session.close()
        self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def tokenizer(self) -> Tokenizer:
        """The directory's tokenizer; it closes with the model."""
        if self._tokenizer is None:
            pointer = ctypes.c_void_p()
            with self._model as model:
                check(lib.tf_model_tokenizer(model, ctypes.byref(pointer)))
            self._tokenizer = Tokenizer(self._model, pointer)
        return self._tokenizer

    @property
    def stats(self) -> Stats:
        record = unset(_c.SessionStats)
        with self._session as session:
            check(lib.tf_session_get_stats(session, record))
        return Stats(*(getattr(record, name) for name in Stats._fields))

    def graph(self, format: str = "text") -> str:
        """The model's operations, a line each, or as source for Graphviz ("dot")."""
        kind = choice(_c.GRAPH_FORMAT, format, "format")
        size = ctypes.c_int64()
        with self._model as model:
            lib.tf_model_graph(model, kind, None, 0, ctypes.byref(size))
            text = ctypes.create_string_buffer(max(size.value, 1))
            check(lib.tf_model_graph(model, kind, text, len(text), ctypes.byref(size)))
        return text.raw[: size.value].decode()

    def encode(self, inputs: Any = None, *, layers: Sequence[int] | None = None, **options: Unpack[o.InputOptions]) -> Encoded:
        """Every raw tensor the checkpoint gives. layers: hidden states wanted, 0 the embeddings', info.layers the last (the default)."""
        given: dict[str, Any] = dict(options)
        given_inputs, callbacks = self._prepare(inputs, given)
        if given:
            raise TypeError(f"unknown option {next(iter(given))}")
        info, count = self.info, given_inputs.count
        wanted = _arrays.ids([info.layers] if layers is None else layers, "layers")
        starts = np.concatenate([[0], np.cumsum(self._lengths(given_inputs))])
        tokens = int(starts[-1])
        out = Encoded(
            hidden=np.empty((len(wanted), tokens, info.width), np.float32) if len(wanted) else None,
            pooled=np.empty((count, info.pooled_width), np.float32) if info.pooled_width else None,
            token_logits=np.empty((tokens, info.token_logits), np.float32) if info.token_logits else None,
            sequence_logits=np.empty((count, info.sequence_logits), np.float32) if info.sequence_logits else None,
            starts=starts,
        )
        c_out = unset(_c.EncodeOutput)
        for name in ("hidden", "pooled", "token_logits", "sequence_logits"):
            array = getattr(out, name)
            setattr(c_out, name, None if array is None else _arrays.address(array))
        if len(wanted):
            c_out.layers, c_out.layer_count = _arrays.address(wanted), len(wanted)
        self._run(callbacks, lambda session: check(lib.tf_encode(session, given_inputs.c, c_out)))
        return out

    def embed(
        self, inputs: Any = None, *, out: NDArray[np.float32] | None = None, **options: Unpack[o.EmbedOptions]
    ) -> NDArray[np.float32]:
        """One vector a text, as sentence-transformers computes it: [E] for one input, [n, E] for a list; E is info.embedding_width.

        out: [n, at least E] float32 to write to; its rows may lie apart.
        """
        if out is not None or options:
            return self._embed_any(inputs, out, options)
        if type(inputs) is str:
            data, calls = inputs.encode(), self._calls_of_text
            count = len(data)
        elif ids := ids_bytes(inputs, self._int32):
            data, calls, count = ids, self._calls_of_ids, len(ids) // 4  # a list may be longer by now
        else:
            return self._embed_any(inputs, out, options)
        try:
            call, (vector, address) = calls.pop(), self._vectors.pop()
        except IndexError:
            call, (vector, address) = self._make_calls(calls)
        begin, size, place, arguments = call
        begin.value, size.value, place.value = data, count, address
        opened = self._session.open or self._session.refuse()  # the reference keeps it open
        status = _embed(*arguments)
        calls.append(call)
        if status:
            del opened  # an exception that is kept holds this frame
            check(status)
        return vector

    def _embed_any(self, inputs: Any, out: NDArray[np.float32] | None, options: Mapping[str, Any]) -> NDArray[np.float32]:
        given: dict[str, Any] = dict(options)
        prepared, callbacks = self._prepare(inputs, given)
        c_options = fill(_c.EmbedOptions, given, {}, {}) if given else None
        width = self.info.embedding_width
        vectors = np.empty((prepared.count, width), np.float32) if out is None else _output(out, prepared.count, width)
        address, stride = _arrays.address(vectors), vectors.strides[0] // 4 if prepared.count > 1 else vectors.shape[1]
        self._run(callbacks, lambda session: check(lib.tf_embed(session, prepared.c, c_options, address, stride)))
        return vectors[0] if prepared.single and out is None else vectors

    def _make_calls(self, calls: deque[tuple[Any, ...]]) -> tuple[tuple[Any, ...], tuple[NDArray[np.float32], int]]:
        """One of `calls` and a vector, when there were none. Behind a model's own call nothing of Python is in the processor's caches, and
        each object that is made or looked at costs: what is here is not made then, and NumPy's code is read once for many vectors."""
        width = self.info.embedding_width
        while True:
            with self._session as session:
                if not self._calls_of_text:
                    self._calls_of_text.append(text_call(session, width))
                if not self._calls_of_ids:
                    self._calls_of_ids.append(ids_call(session, width))
            if not self._vectors:
                made = [np.empty(width, np.float32) for _ in range(_VECTORS)]
                self._vectors.extend((vector, vector.__array_interface__["data"][0]) for vector in made)
            try:
                return calls.pop(), self._vectors.pop()
            except IndexError:  # another thread took them
                continue

    @overload
    def classify(self, inputs: str, **options: Unpack[o.ClassifyOptions]) -> Classification: ...
    @overload
    def classify(self, inputs: Texts, **options: Unpack[o.ClassifyOptions]) -> list[Classification]: ...
    @overload
    def classify(self, inputs: Any = None, **options: Unpack[o.ClassifyOptions]) -> Any: ...
    def classify(self, inputs: Any = None, **options: Unpack[o.ClassifyOptions]) -> Any:
        """Score texts, or pairs of texts, against the checkpoint's labels: a Classification each."""
        given: dict[str, Any] = dict(options)
        prepared, callbacks = self._prepare(inputs, given)
        c_options = fill(_c.ClassifyOptions, given, {}, {"activation": _c.ACTIVATION}) if given else None
        logits, scores = np.empty((2, prepared.count, self.info.sequence_logits), np.float32)
        pointers = _arrays.address(logits), _arrays.address(scores)
        self._run(callbacks, lambda session: check(lib.tf_classify(session, prepared.c, c_options, *pointers)))
        names = self.info.labels
        found = [
            Classification(names[best] if best < len(names) else str(best), float(row[best]), logits[i], row)
            for i, (row, best) in enumerate(zip(scores, scores.argmax(-1).tolist() if scores.size else []))
        ]
        return found[0] if prepared.single else found

    @overload
    def ner(self, inputs: str, **options: Unpack[o.NerOptions]) -> list[Entity]: ...
    @overload
    def ner(self, inputs: Texts, **options: Unpack[o.NerOptions]) -> list[list[Entity]]: ...
    @overload
    def ner(self, inputs: Any = None, **options: Unpack[o.NerOptions]) -> Any: ...
    def ner(self, inputs: Any = None, **options: Unpack[o.NerOptions]) -> Any:
        """Names and other labelled pieces of each text, by position."""
        given: dict[str, Any] = dict(options)
        prepared, callbacks = self._prepare(inputs, given)
        names, choices = {"aggregation_strategy": "aggregation"}, {"aggregation": _c.AGGREGATION}
        c_options = fill(_c.TokenClassifyOptions, given, names, choices) if given else None

        def entity(e: _c.Entity, i: int) -> Entity:
            text = prepared.texts[i][e.char_begin : e.char_end] if prepared.texts else ""
            places = (e.char_begin, e.char_end, e.byte_begin, e.byte_end, e.token_begin, e.token_end)
            return Entity((e.label or b"").decode(), e.score, text, *places, e.label_id)

        return self._records(lib.tf_token_classify, prepared, callbacks, c_options, lib.tf_result_entity, _c.Entity, entity)

    @overload
    def answer(self, question: str, context: str, **options: Unpack[o.AnswerOptions]) -> list[Answer]: ...
    @overload
    def answer(self, question: Texts, context: Texts, **options: Unpack[o.AnswerOptions]) -> list[list[Answer]]: ...
    @overload
    def answer(self, question: Any = None, context: Any = None, **options: Unpack[o.AnswerOptions]) -> Any: ...
    def answer(self, question: Any = None, context: Any = None, **options: Unpack[o.AnswerOptions]) -> Any:
        """The pieces of each context that answer its question, best first. Ids go in place of the question, with `contexts`."""
        given: dict[str, Any] = dict(options)
        contexts = given.pop("contexts", None)
        if context is not None:
            given["pairs"] = context
        prepared, callbacks = self._prepare(question, given)
        c_options = fill(_c.AnswerOptions, given, _ANSWER_NAMES, {})
        if contexts is not None:
            ranges = np.ascontiguousarray(_arrays.int32(contexts, "contexts"), np.int64)
            if ranges.size != 2 * prepared.count:
                raise ValueError(f"contexts must have the shape [{prepared.count}, 2], not {list(ranges.shape)}")
            c_options.contexts = _arrays.address(ranges)

        def answer(s: _c.Span, i: int) -> Answer:
            text = prepared.pairs[i][s.char_begin : s.char_end] if prepared.pairs else ""
            return Answer(text, s.score, s.char_begin, s.char_end, s.byte_begin, s.byte_end, s.token_begin, s.token_end)

        return self._records(lib.tf_answer, prepared, callbacks, c_options, lib.tf_result_span, _c.Span, answer)

    @overload
    def fill_mask(self, inputs: str, **options: Unpack[o.FillMaskOptions]) -> list[Fill]: ...
    @overload
    def fill_mask(self, inputs: Texts, **options: Unpack[o.FillMaskOptions]) -> list[list[Fill]]: ...
    @overload
    def fill_mask(self, inputs: Any = None, **options: Unpack[o.FillMaskOptions]) -> Any: ...
    def fill_mask(self, inputs: Any = None, **options: Unpack[o.FillMaskOptions]) -> Any:
        """Candidates for the masks of each text, by mask, best first."""
        given: dict[str, Any] = dict(options)
        targets = given.pop("targets", None)
        prepared, callbacks = self._prepare(inputs, given)
        c_options = fill(_c.FillMaskOptions, given, {}, {})
        kept = integers(c_options, "targets", "target_count", targets, "targets") if targets is not None else None

        def candidate(f: _c.Fill, i: int) -> Fill:
            return Fill((f.token or b"").decode("utf-8", "replace"), f.score, f.id, f.position, f.mask)

        found = self._records(lib.tf_fill_mask, prepared, callbacks, c_options, lib.tf_result_fill, _c.Fill, candidate)
        del kept  # C has read it
        return found

    def stream(self, prompt: Any = None, **options: Unpack[o.GenerateOptions]) -> Request:
        """Begin to continue (GPT-2) or answer (T5) one prompt: iterate over the Request for its tokens."""
        given: dict[str, Any] = dict(options)
        prompts = self._prompts(prompt, given)
        if not prompts.single:
            raise ValueError("stream takes one prompt; generate takes several")
        return Request(self._session, prompts, 0, given, self.info.vocab_size)

    @overload
    def generate(self, prompts: str, **options: Unpack[o.GenerateOptions]) -> list[Generated]: ...
    @overload
    def generate(self, prompts: Texts, **options: Unpack[o.GenerateOptions]) -> list[list[Generated]]: ...
    @overload
    def generate(self, prompts: Any = None, **options: Unpack[o.GenerateOptions]) -> Any: ...
    def generate(self, prompts: Any = None, **options: Unpack[o.GenerateOptions]) -> Any:
        """Continue (GPT-2) or answer (T5) prompts: for each a list of num_return_sequences results, of beams the best first.

        Several prompts advance together, as many at a time as kv_tokens has room for.
        """
        given: dict[str, Any] = dict(options)
        for name in ("output_logits", "output_scores"):
            if given.get(name):
                raise TypeError(f"{name}: a Request has them; take stream() and its scores()")
        several = self._prompts(prompts, given)
        found = self._each(several, lambda i: given, Request.results)
        return found[0] if several.single else found

    def _each(
        self, prompts: Inputs, given: Callable[[int], dict[str, Any]], finish: Callable[[Request], R], patient: bool = False
    ) -> list[R]:
        """What `finish` makes of a request for each prompt; as many at a time as there is room for advance together.

        patient: wait where other threads' requests have all the room; those must not be held by anybody who waits for this.
        """
        found: list[R] = []
        opened: deque[Request] = deque()
        try:
            for i in range(prompts.count):
                while (request := self._try_request(prompts, i, given(i), last=not opened and not patient)) is None:
                    if opened:
                        found.append(_finish(opened, finish))
                    else:
                        time.sleep(_ROOM_S)
                opened.append(request)
            while opened:
                found.append(_finish(opened, finish))
        finally:
            for request in opened:
                request.close()
        return found

    encode_async = threaded(encode)
    embed_async = threaded(embed)
    classify_async = threaded(classify)
    ner_async = threaded(ner)
    answer_async = threaded(answer)
    fill_mask_async = threaded(fill_mask)
    generate_async = threaded(generate)

    def stream_async(self, prompt: Any = None, **options: Unpack[o.GenerateOptions]) -> AsyncGenerator[Token, None]:
        """The tokens of stream(); a task that is cancelled cancels the request."""
        return stream_in_threads(self.stream, prompt, **options)

    def _prepare(self, inputs: Any, given: dict[str, Any]) -> tuple[Inputs, Callbacks | None]:
        """Takes the options of every task out of `given`. Without callbacks the call is soon done."""
        prepared, callbacks = Inputs(inputs, given, self.info.input_width), None
        progress = given.pop("progress", None)
        if progress is not None or prepared.count > _FEW:
            callbacks = Callbacks()
            callbacks.set_progress(prepared.c, progress)
        return prepared, callbacks

    def _run(self, callbacks: Callbacks | None, call: Callable[[ctypes.c_void_p], R]) -> R:
        if callbacks is not None:
            return callbacks.run(lambda: self._run(None, call))
        with self._session as session:
            return call(session)

    def _records(
        self, call: Any, inputs: Inputs, callbacks: Callbacks | None, options: Any, get: Any, kind: Any, convert: Callable[[Any, int], R]
    ) -> list[R] | list[list[R]]:
        """The records of a task that returns a tf_result: a list for each input."""
        result, record = ctypes.c_void_p(), unset(kind)

        def work(session: ctypes.c_void_p) -> list[list[R]]:
            found: list[list[R]] = []
            try:
                check(call(session, inputs.c, options, ctypes.byref(result)))
                for i in range(inputs.count):
                    found.append([])
                    for k in range(lib.tf_result_count(result, i)):
                        check(get(result, i, k, record))
                        found[-1].append(convert(record, i))
            finally:
                lib.tf_result_close(result)
            return found

        found = self._run(callbacks, work)
        return found[0] if inputs.single else found

    def _lengths(self, inputs: Inputs) -> NDArray[np.int32]:
        """Tokens of each input."""
        if inputs.lengths is not None:
            return inputs.lengths
        encoded = self.tokenizer(inputs.texts or (), inputs.pairs)
        return np.array([len(ids) for ids in encoded["input_ids"]], np.int32)

    def _prompts(self, prompts: Any, given: dict[str, Any]) -> Inputs:
        if "pairs" in given or "type_ids" in given:
            raise TypeError("unknown option: prompts have no pairs and type_ids")
        return Inputs(prompts, given, self.info.input_width)

    def _try_request(self, prompts: Inputs, number: int, given: dict[str, Any], last: bool) -> Request | None:
        """None while there is no room, unless this is the last hope: no request of our own is under way that will make some."""
        try:
            return Request(self._session, prompts, number, given, self.info.vocab_size)
        except errors.BusyError:
            if last:
                raise
            return None


_ANSWER_NAMES = {
    "max_answer_len": "max_answer_tokens",
    "max_seq_len": "max_tokens",
    "doc_stride": "stride",
    "handle_impossible_answer": "allow_none",
}


def plan(path: str | os.PathLike[str], **options: Unpack[o.ModelOptions]) -> Plan:
    """Bytes that Model.open with the same arguments will take, from the files' headers alone."""
    model_options, session_options = _open_options(dict(options))
    record = unset(_c.Plan)
    name = _arrays.path(path)
    check(lib.tf_model_plan(name, model_options, session_options, record))
    return Plan(*(getattr(record, name) for name in Plan._fields))


def _open_options(given: dict[str, Any]) -> tuple[_c.ModelOptions, _c.SessionOptions]:
    session = {name: given.pop(name) for name in _SESSION_KEYWORDS if name in given}
    stream = session.pop("stream", None)
    session_options = fill(_c.SessionOptions, session, {"session_memory_budget": "memory_budget"}, {})
    if stream is not None:
        session_options.stream = _arrays.integer(stream, "stream", 64)
    if given.get("library_folder") is None and given.get("device") != "cpu":
        given["library_folder"] = library_folder()
    return fill(_c.ModelOptions, given, {}, _MODEL_CHOICES), session_options


def _info(model: ctypes.c_void_p) -> ModelInfo:
    record = unset(_c.ModelInfo)
    check(lib.tf_model_get_info(model, record))
    values: dict[str, Any] = {name: getattr(record, name, None) for name in ModelInfo._fields}
    for name in ("family", "architecture", "device"):
        values[name] = values[name].decode()
    names, texts = _strings(record.prompt_names, record.prompts), _strings(record.prompt_texts, record.prompts)
    values.update(
        dtype=_DTYPES[record.dtype],
        tasks=frozenset(name for name, bit in _c.TASK.items() if record.tasks & bit),
        labels=tuple(_strings(record.label_names, record.labels)),
        prompts=dict(zip(names, texts)),
        default_prompt=names[record.default_prompt] if record.default_prompt >= 0 else None,
        has_encoder=bool(record.has_encoder),
    )
    return ModelInfo(**values)


def _strings(address: int | None, count: int) -> list[str]:
    if not address:
        return []
    return [(data or b"").decode("utf-8", "replace") for data in (ctypes.c_char_p * count).from_address(address)]


def _output(out: Any, count: int, width: int) -> NDArray[np.float32]:
    """`out`, if C may write [count, width] floats to it."""
    if not isinstance(out, np.ndarray) or out.dtype != np.float32:
        raise TypeError("out must be a float32 array")
    if out.ndim != 2 or out.shape[0] != count or out.shape[1] < width:
        raise ValueError(f"out must have the shape [{count}, {width}], not {list(out.shape)}")
    if not out.flags.writeable:
        raise ValueError("out is read-only")
    if out.strides[1] != 4 or (count > 1 and (out.strides[0] < 4 * width or out.strides[0] % 4)) or out.ctypes.data % 4:
        raise ValueError("the numbers of a row of out must lie side by side")
    return out


def _finish(opened: deque[Request], finish: Callable[[Request], R]) -> R:
    """What is made of the oldest request, which ends."""
    try:
        return finish(opened[0])
    finally:
        opened.popleft().close()
