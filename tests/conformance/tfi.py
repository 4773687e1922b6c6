"""A ctypes binding of libtfinfer for the tests: every struct of the headers as it is, and Model and Session over numpy.

The structs mirror include/tfinfer/*.h by hand; test_binding.py compiles a C program that compares each offset and size, so
that drift shows. The library comes from the environment variable TFINFER_LIBRARY.
"""

import ctypes as C
import functools
import os

import numpy as np

LIBRARY = os.environ.get("TFINFER_LIBRARY", "libtfinfer.so")
DEVICE = os.environ.setdefault("TFINFER_DEVICE", "cpu").encode()  # that models are opened on; pytest's --device sets it
UNSET = -(2**31)

STATUS = dict(
    OK=0,
    INVALID=-1,
    NOMEM=-2,
    IO=-3,
    CORRUPT=-4,
    UNSUPPORTED=-5,
    NOT_FOUND=-6,
    TOO_SMALL=-7,
    BUSY=-8,
    CANCELLED=-9,
    DEVICE=-10,
    FORKED=-11,
    NUMERIC=-12,
    INTERNAL=-13,
    END=-14,
    TIMEOUT=-15,
)
DTYPE = dict(auto=0, fp32=1, tf32=2, bf16=3, fp16=4, fp64=5)
TASK = dict(encode=1, embed=2, classify=4, token_classify=8, answer=16, fill_mask=32, generate=64)
ACTIVATION = dict(none=0, sigmoid=1, softmax=2)
AGGREGATION = dict(none=0, simple=1, first=2, average=3, max=4)

ALLOC = C.CFUNCTYPE(C.c_void_p, C.c_void_p, C.c_size_t, C.c_size_t)
FREE = C.CFUNCTYPE(None, C.c_void_p, C.c_void_p, C.c_size_t)
LOG = C.CFUNCTYPE(None, C.c_void_p, C.c_int, C.c_char_p)
PROGRESS = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_int64, C.c_int64)
INTS, LONGS, FLOATS, NAMES = (C.POINTER(t) for t in (C.c_int32, C.c_int64, C.c_float, C.c_char_p))


class Struct(C.Structure):
    """An options or result struct: struct_size set, every other field unset, then what the caller names."""

    def __init__(self, **values):
        super().__init__()
        unset, names = blank(type(self))
        C.memmove(C.byref(self), unset, len(unset))
        for name, value in values.items():
            if name not in names:
                raise TypeError(f"{type(self).__name__} has no field {name}")
            setattr(self, name, value)


@functools.cache
def blank(kind):
    """The bytes of a struct in which nothing is set but its size; its fields' names."""
    out = C.Structure.__new__(kind)
    for name, field in kind._fields_:
        if name == "struct_size":
            setattr(out, name, C.sizeof(kind))
        elif field in (C.c_int32, C.c_int64):
            setattr(out, name, UNSET)
        elif field is C.c_float:
            setattr(out, name, float("nan"))
    return bytes(out), {name for name, _ in kind._fields_}


def fields(text):
    """The _fields_ of a struct from lines "type name name ..."."""
    kinds = dict(
        u64=C.c_uint64,
        i32=C.c_int32,
        i64=C.c_int64,
        f32=C.c_float,
        text=C.c_char_p,
        ptr=C.c_void_p,
        ints=INTS,
        longs=LONGS,
        floats=FLOATS,
        names=NAMES,
        log=LOG,
        progress=PROGRESS,
        texts=C.POINTER(Text),
        allocator=C.POINTER(Allocator),
    )
    return [(name, kinds[line.split()[0]]) for line in text.strip().splitlines() for name in line.split()[1:]]


class Text(C.Structure):
    _fields_ = [("data", C.c_char_p), ("size", C.c_int64)]


class Allocator(C.Structure):
    _fields_ = [("alloc", ALLOC), ("free", FREE), ("user", C.c_void_p)]


class ModelOptions(Struct):
    _fields_ = fields("""
        u64 struct_size
        text device
        i32 dtype quantization threads gemm_timing
        i64 memory_budget
        allocator allocator
        log log
        ptr log_user
        progress progress
        ptr progress_user
        text library_folder gemm_file mecab_dictionary""")


class ModelInfo(Struct):
    _fields_ = fields("""
        u64 struct_size
        text family architecture device
        i32 dtype tasks layers heads head_size width input_width vocab_size type_count max_input_tokens
        i32 embedding_width embedding_tokens pooled_width token_logits sequence_logits labels prompts default_prompt threads
        i32 has_encoder decoder_layers max_context_tokens bos_id eos_id pad_id decoder_start_id
        i64 parameters
        names label_names prompt_names prompt_texts""")


class SessionOptions(Struct):
    _fields_ = fields("""
        u64 struct_size
        ptr stream
        i32 max_step_tokens max_sequences
        i64 memory_budget kv_tokens""")


class Plan(Struct):
    _fields_ = fields("""
        u64 struct_size
        i64 weight_bytes mapped_bytes model_bytes session_bytes load_bytes third_party_bytes total_bytes kv_bytes""")


class SessionStats(Struct):
    _fields_ = fields("""
        u64 struct_size
        i64 calls steps sequences tokens bytes""")


class Input(Struct):
    _fields_ = fields("""
        u64 struct_size
        i64 count
        texts texts pairs
        ints ids
        floats embeddings
        ints type_ids lens
        progress progress
        ptr progress_user
        i32 replace_invalid reserved""")


class EncodeOutput(Struct):
    _fields_ = fields("""
        u64 struct_size
        ints layers
        i64 layer_count
        floats hidden pooled token_logits sequence_logits
        longs rows
        i64 row_count""")


class EmbedOptions(Struct):
    _fields_ = fields("""
        u64 struct_size
        i32 normalize max_tokens
        text prompt prompt_name""")


class ClassifyOptions(Struct):
    _fields_ = fields("""
        u64 struct_size
        i32 activation truncate""")


class TokenClassifyOptions(Struct):
    _fields_ = fields("""
        u64 struct_size
        i32 aggregation truncate stride keep_all""")


class Entity(Struct):
    _fields_ = fields("""
        u64 struct_size
        text label
        f32 score
        i32 label_id
        i64 byte_begin byte_end char_begin char_end token_begin token_end""")


class AnswerOptions(Struct):
    _fields_ = fields("""
        u64 struct_size
        i32 top_k max_answer_tokens max_tokens stride allow_none reserved
        longs contexts""")


class Span(Struct):
    _fields_ = fields("""
        u64 struct_size
        f32 score
        i32 reserved
        i64 byte_begin byte_end char_begin char_end token_begin token_end""")


class FillMaskOptions(Struct):
    _fields_ = fields("""
        u64 struct_size
        i32 top_k target_count
        ints targets
        i32 mask_id reserved""")


class Fill(Struct):
    _fields_ = fields("""
        u64 struct_size
        f32 score
        i32 id position mask
        text token""")


class TokenizeOptions(Struct):
    _fields_ = fields("""
        u64 struct_size
        i32 add_special_tokens truncation max_length truncation_side stride overflow replace_invalid threads""")


class EncodingData(Struct):
    _fields_ = fields("""
        u64 struct_size
        i64 rows tokens
        longs row_start row_text
        ints ids type_ids sequence word
        longs byte_begin byte_end char_begin char_end""")


class Error(Exception):
    """A call that failed: `status` is the name ("NOMEM"), the text is tf_last_error()."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status, self.text = status, text


lib = C.CDLL(LIBRARY)
for name, result in dict(
    tf_version=C.c_char_p,
    tf_last_error=C.c_char_p,
    tf_status_string=C.c_char_p,
    tf_result_count=C.c_int64,
    tf_model_close=None,
    tf_session_close=None,
    tf_result_close=None,
    tf_encoding_close=None,
).items():
    getattr(lib, name).restype = result
lib.tf_result_count.argtypes = [C.c_void_p, C.c_int64]
for kind in ("entity", "span", "fill"):
    getattr(lib, "tf_result_" + kind).argtypes = [C.c_void_p, C.c_int64, C.c_int64, C.c_void_p]
lib.tf_embed.argtypes = [C.c_void_p, C.c_void_p, C.c_void_p, FLOATS, C.c_int64]
lib.tf_tokenizer_encode.argtypes = [C.c_void_p, C.c_void_p, C.c_void_p, C.c_int64, C.c_void_p, C.c_void_p]


def check(status):
    if status < 0:
        names = {value: name for name, value in STATUS.items()}
        raise Error(names.get(status, str(status)), lib.tf_last_error().decode())


def pointer(array, kind):
    return None if array is None else array.ctypes.data_as(kind)


def texts_array(texts):
    """tf_text[] over Python strings or bytes (which may be malformed), plus what must stay alive with it."""
    if texts is None:
        return None
    data = [t if isinstance(t, bytes) else t.encode() for t in texts]
    return (Text * len(data))(*[Text(d, len(d)) for d in data])


def pack(sequences, dtype):
    """A list of arrays, one behind the other, and their lengths."""
    if sequences is None:
        return None, None
    arrays = [np.asarray(s, dtype=dtype) for s in sequences]
    packed = np.ascontiguousarray(np.concatenate(arrays)) if arrays else np.zeros(0, dtype)
    return packed, np.array([len(a) for a in arrays], dtype=np.int32)


class Inputs:
    """A tf_input over Python values. Sequences are lists, one array each: ids [n], embeddings [n, width], types [n]."""

    def __init__(self, texts=None, pairs=None, ids=None, embeddings=None, types=None, **more):
        self.texts, self.pairs = texts_array(texts), texts_array(pairs)
        self.ids, lens = pack(ids, np.int32)
        self.embeddings, embedding_lens = pack(embeddings, np.float32)
        self.types, _ = pack(types, np.int32)
        self.lens = lens if lens is not None else embedding_lens
        given = next(v for v in (texts, ids, embeddings) if v is not None)
        self.count = len(given)
        self.c = Input(
            count=self.count,
            texts=self.texts,
            pairs=self.pairs,
            ids=pointer(self.ids, INTS),
            embeddings=pointer(self.embeddings, FLOATS),
            type_ids=pointer(self.types, INTS),
            lens=pointer(self.lens, INTS),
            **more,
        )


class Model:
    """An open checkpoint; usable in a with statement. Keyword arguments are fields of tf_model_options."""

    def __init__(self, path, dtype="auto", **options):
        self.handle = C.c_void_p()
        options.setdefault("device", DEVICE)
        self.options = ModelOptions(dtype=DTYPE[dtype], **options)  # callbacks in it must outlive the model
        check(lib.tf_model_open(str(path).encode(), C.byref(self.options), C.byref(self.handle)))
        self.info = ModelInfo()
        check(lib.tf_model_get_info(self.handle, C.byref(self.info)))

    def tokenizer(self):
        out = C.c_void_p()
        check(lib.tf_model_tokenizer(self.handle, C.byref(out)))
        return out

    def tokenize(self, texts, pairs=None, **options):
        """[(ids, type_ids, char offsets, sequence)] a row."""
        tokenizer, encoding, data = self.tokenizer(), C.c_void_p(), EncodingData()
        check(lib.tf_encoding_open(tokenizer, C.byref(encoding)))
        try:
            o = TokenizeOptions(**options)
            check(lib.tf_tokenizer_encode(tokenizer, texts_array(texts), texts_array(pairs), len(texts), C.byref(o), encoding))
            check(lib.tf_encoding_get(encoding, C.byref(data)))
            spans = [(data.row_start[r], data.row_start[r + 1]) for r in range(data.rows)]
            return [
                (data.ids[a:b], data.type_ids[a:b], list(zip(data.char_begin[a:b], data.char_end[a:b])), data.sequence[a:b])
                for a, b in spans
            ]
        finally:
            lib.tf_encoding_close(encoding)

    def labels(self):
        return [self.info.label_names[i].decode() for i in range(self.info.labels)]

    def close(self):
        lib.tf_model_close(self.handle)
        self.handle = C.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def plan(path, dtype="auto", session=None, **options):
    out = Plan()
    o = ModelOptions(dtype=DTYPE[dtype], **options)
    check(lib.tf_model_plan(str(path).encode(), C.byref(o), C.byref(session) if session else None, C.byref(out)))
    return out


class Session:
    """A session of a Model. Keyword arguments are fields of tf_session_options; those of tasks are tf_input's or options'."""

    def __init__(self, model, **options):
        self.model, self.handle = model, C.c_void_p()
        check(lib.tf_session_open(model.handle, C.byref(SessionOptions(**options)), C.byref(self.handle)))

    def close(self):
        lib.tf_session_close(self.handle)
        self.handle = C.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def stats(self):
        out = SessionStats()
        check(lib.tf_session_get_stats(self.handle, C.byref(out)))
        return out

    def encode(self, inputs, layers=None, rows=None, tokens=None, hidden=True, logits=True):
        """Everything the model has, as float32 arrays by name: hidden [layers, tokens, width], pooled, token_logits,
        sequence_logits. layers=None: all of them; tokens: their number where texts hide it."""
        info = self.model.info
        tokens = tokens if tokens is not None else int(inputs.lens.sum())
        layers = np.arange(info.layers + 1, dtype=np.int32) if layers is None else np.asarray(layers, np.int32)
        rows = None if rows is None else np.asarray(rows, np.int64)
        shapes = {}
        if hidden and len(layers):
            shapes["hidden"] = (len(layers), tokens, info.width)
        if logits and info.pooled_width:
            shapes["pooled"] = (inputs.count, info.pooled_width)
        if logits and info.token_logits:
            shapes["token_logits"] = (tokens if rows is None else len(rows), info.token_logits)
        if logits and info.sequence_logits:
            shapes["sequence_logits"] = (inputs.count, info.sequence_logits)
        arrays = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
        out = EncodeOutput(**{name: pointer(a, FLOATS) for name, a in arrays.items()})
        if "hidden" in arrays:
            out.layers, out.layer_count = pointer(layers, INTS), len(layers)
        if rows is not None:
            out.rows, out.row_count = pointer(rows, LONGS), len(rows)
        check(lib.tf_encode(self.handle, C.byref(inputs.c), C.byref(out)))
        return arrays

    def embed(self, inputs, extra_stride=0, **options):
        width = self.model.info.embedding_width
        out = np.full((inputs.count, width + extra_stride), np.nan, np.float32)
        o = EmbedOptions(**options)
        check(lib.tf_embed(self.handle, C.byref(inputs.c), C.byref(o), pointer(out, FLOATS), width + extra_stride))
        assert np.isnan(out[:, width:]).all(), "tf_embed wrote behind a row"
        return out[:, :width]

    def classify(self, inputs, **options):
        logits, scores = (np.full((inputs.count, self.model.info.sequence_logits), np.nan, np.float32) for _ in range(2))
        o = ClassifyOptions(**options)
        check(lib.tf_classify(self.handle, C.byref(inputs.c), C.byref(o), pointer(logits, FLOATS), pointer(scores, FLOATS)))
        return logits, scores

    def _records(self, call, inputs, options, kind, record):
        """The records of a task that returns a tf_result: a list for each input."""
        result = C.c_void_p()
        check(call(self.handle, C.byref(inputs.c), C.byref(options), C.byref(result)))
        get, found = getattr(lib, "tf_result_" + kind), []
        try:
            for i in range(inputs.count):
                found.append([record() for _ in range(lib.tf_result_count(result, i))])
                for k, one in enumerate(found[-1]):
                    check(get(result, i, k, C.byref(one)))
        finally:
            lib.tf_result_close(result)
        return found

    def token_classify(self, inputs, **options):
        return self._records(lib.tf_token_classify, inputs, TokenClassifyOptions(**options), "entity", Entity)

    def answer(self, inputs, contexts=None, **options):
        contexts = None if contexts is None else np.ascontiguousarray(contexts, np.int64)
        o = AnswerOptions(contexts=pointer(contexts, LONGS), **options)
        return self._records(lib.tf_answer, inputs, o, "span", Span)

    def fill_mask(self, inputs, targets=None, **options):
        targets = None if targets is None else np.asarray(targets, np.int32)
        if targets is not None:
            options.update(targets=pointer(targets, INTS), target_count=len(targets))
        return self._records(lib.tf_fill_mask, inputs, FillMaskOptions(**options), "fill", Fill)


class CountingAllocator:
    """A tf_allocator that counts bytes held now and at the most."""

    def __init__(self):
        self.held = self.peak = 0
        self.libc = C.CDLL(None)
        self.libc.aligned_alloc.restype = C.c_void_p
        self.libc.aligned_alloc.argtypes = [C.c_size_t, C.c_size_t]
        self.libc.free.argtypes = [C.c_void_p]
        self.c = Allocator(alloc=ALLOC(self.take), free=FREE(self.give), user=None)
        self.options = dict(allocator=C.pointer(self.c))

    def take(self, _, size, align):
        block = self.libc.aligned_alloc(max(align, 8), (size + align - 1) // align * align)
        if block:
            self.held += size
            self.peak = max(self.peak, self.held)
        return block

    def give(self, _, block, size):
        self.held -= size
        self.libc.free(block)
