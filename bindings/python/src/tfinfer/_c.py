"""Made from include/tfinfer/*.h by read_headers.py, which says how; a test makes it anew and compares. Do not edit."""

import ctypes as C
from typing import Any

VERSION = "0.1.0"  # of the headers
UNSET = -(2**31)  # in a field of integers; floats have NaN, pointers NULL

STATUS = {
    "ok": 0,
    "invalid": -1,
    "nomem": -2,
    "io": -3,
    "corrupt": -4,
    "unsupported": -5,
    "not_found": -6,
    "too_small": -7,
    "busy": -8,
    "cancelled": -9,
    "device": -10,
    "forked": -11,
    "numeric": -12,
    "internal": -13,
    "end": -14,
    "timeout": -15,
}

LOG_LEVEL = {
    "debug": 0,
    "info": 1,
    "warning": 2,
}

DTYPE = {
    "auto": 0,
    "fp32": 1,
    "tf32": 2,
    "bf16": 3,
    "fp16": 4,
    "fp64": 5,
}

TRUNCATION = {
    "none": 0,
    "longest_first": 1,
    "only_first": 2,
    "only_second": 3,
}

SIDE = {
    "right": 0,
    "left": 1,
}

QUANTIZATION = {
    "none": 0,
    "int8": 1,
    "fp8": 2,
}

TASK = {
    "encode": 1,
    "embed": 2,
    "classify": 4,
    "token_classify": 8,
    "answer": 16,
    "fill_mask": 32,
    "generate": 64,
}

GRAPH_FORMAT = {
    "text": 0,
    "dot": 1,
}

ACTIVATION = {
    "none": 0,
    "sigmoid": 1,
    "softmax": 2,
}

AGGREGATION = {
    "none": 0,
    "simple": 1,
    "first": 2,
    "average": 3,
    "max": 4,
}

EARLY_STOPPING = {
    "off": 0,
    "on": 1,
    "never": 2,
}

FINISH = {
    "none": 0,
    "eos": 1,
    "length": 2,
    "stop": 3,
    "time": 4,
    "cancelled": 5,
}

SCORES = {
    "logits": 0,
    "processed": 1,
}

LogFn = C.CFUNCTYPE(None, C.c_void_p, C.c_int32, C.c_char_p)
ProgressFn = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_int64, C.c_int64)
LogitsFn = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_int32, C.c_void_p, C.c_int64, C.c_void_p, C.c_int64)


class Allocator(C.Structure):
    alloc: Any
    free: Any
    user: int | None
    _fields_ = [
        ("alloc", C.CFUNCTYPE(C.c_void_p, C.c_void_p, C.c_size_t, C.c_size_t)),
        ("free", C.CFUNCTYPE(None, C.c_void_p, C.c_void_p, C.c_size_t)),
        ("user", C.c_void_p),
    ]


class Text(C.Structure):
    data: bytes | None
    size: int
    _fields_ = [
        ("data", C.c_char_p),
        ("size", C.c_int64),
    ]


class File(C.Structure):
    struct_size: int
    data: int | None
    size: int
    offset: int
    fd: int
    reserved: int
    handle: int | None
    error: bytes | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("data", C.c_void_p),
        ("size", C.c_int64),
        ("offset", C.c_int64),
        ("fd", C.c_int32),
        ("reserved", C.c_int32),
        ("handle", C.c_void_p),
        ("error", C.c_char_p),
    ]


class Tensor(C.Structure):
    struct_size: int
    name: bytes | None
    data: int | None
    dtype: int
    rank: int
    shape: Any
    stride: Any
    device: int
    reserved: int
    error: bytes | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("name", C.c_char_p),
        ("data", C.c_void_p),
        ("dtype", C.c_int32),
        ("rank", C.c_int32),
        ("shape", C.c_int64 * 8),
        ("stride", C.c_int64 * 8),
        ("device", C.c_int32),
        ("reserved", C.c_int32),
        ("error", C.c_char_p),
    ]


class Source(C.Structure):
    struct_size: int
    label: bytes | None
    file: Any
    file_close: Any
    tensor: Any
    release: Any
    user: int | None
    borrow: int
    reserved: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("label", C.c_char_p),
        ("file", C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_char_p, C.POINTER(File))),
        ("file_close", C.CFUNCTYPE(None, C.c_void_p, C.POINTER(File))),
        ("tensor", C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_int64, C.POINTER(Tensor))),
        ("release", C.CFUNCTYPE(None, C.c_void_p)),
        ("user", C.c_void_p),
        ("borrow", C.c_int32),
        ("reserved", C.c_int32),
    ]


class TokenizerOptions(C.Structure):
    struct_size: int
    allocator: int | None
    log: Any
    log_user: int | None
    mecab_dictionary: bytes | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("allocator", C.c_void_p),
        ("log", LogFn),
        ("log_user", C.c_void_p),
        ("mecab_dictionary", C.c_char_p),
    ]


class TokenizerInfo(C.Structure):
    struct_size: int
    model: bytes | None
    vocab_size: int
    model_max_length: int
    unk_id: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    bos_id: int
    eos_id: int
    special_tokens_single: int
    special_tokens_pair: int
    lowercase: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("model", C.c_char_p),
        ("vocab_size", C.c_int32),
        ("model_max_length", C.c_int32),
        ("unk_id", C.c_int32),
        ("pad_id", C.c_int32),
        ("cls_id", C.c_int32),
        ("sep_id", C.c_int32),
        ("mask_id", C.c_int32),
        ("bos_id", C.c_int32),
        ("eos_id", C.c_int32),
        ("special_tokens_single", C.c_int32),
        ("special_tokens_pair", C.c_int32),
        ("lowercase", C.c_int32),
    ]


class TokenizeOptions(C.Structure):
    struct_size: int
    add_special_tokens: int
    truncation: int
    max_length: int
    truncation_side: int
    stride: int
    overflow: int
    replace_invalid: int
    threads: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("add_special_tokens", C.c_int32),
        ("truncation", C.c_int32),
        ("max_length", C.c_int32),
        ("truncation_side", C.c_int32),
        ("stride", C.c_int32),
        ("overflow", C.c_int32),
        ("replace_invalid", C.c_int32),
        ("threads", C.c_int32),
    ]


class EncodingData(C.Structure):
    struct_size: int
    rows: int
    tokens: int
    row_start: int | None
    row_text: int | None
    ids: int | None
    type_ids: int | None
    sequence: int | None
    word: int | None
    byte_begin: int | None
    byte_end: int | None
    char_begin: int | None
    char_end: int | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("rows", C.c_int64),
        ("tokens", C.c_int64),
        ("row_start", C.c_void_p),
        ("row_text", C.c_void_p),
        ("ids", C.c_void_p),
        ("type_ids", C.c_void_p),
        ("sequence", C.c_void_p),
        ("word", C.c_void_p),
        ("byte_begin", C.c_void_p),
        ("byte_end", C.c_void_p),
        ("char_begin", C.c_void_p),
        ("char_end", C.c_void_p),
    ]


class EncodingArrays(C.Structure):
    struct_size: int
    row_capacity: int
    token_capacity: int
    width: int
    pad_id: int
    pad_side: int
    row_start: int | None
    row_text: int | None
    mask: int | None
    ids: int | None
    type_ids: int | None
    sequence: int | None
    word: int | None
    byte_begin: int | None
    byte_end: int | None
    char_begin: int | None
    char_end: int | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("row_capacity", C.c_int64),
        ("token_capacity", C.c_int64),
        ("width", C.c_int64),
        ("pad_id", C.c_int32),
        ("pad_side", C.c_int32),
        ("row_start", C.c_void_p),
        ("row_text", C.c_void_p),
        ("mask", C.c_void_p),
        ("ids", C.c_void_p),
        ("type_ids", C.c_void_p),
        ("sequence", C.c_void_p),
        ("word", C.c_void_p),
        ("byte_begin", C.c_void_p),
        ("byte_end", C.c_void_p),
        ("char_begin", C.c_void_p),
        ("char_end", C.c_void_p),
    ]


class DecodeOptions(C.Structure):
    struct_size: int
    skip_special_tokens: int
    clean_up: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("skip_special_tokens", C.c_int32),
        ("clean_up", C.c_int32),
    ]


class ModelOptions(C.Structure):
    struct_size: int
    device: bytes | None
    dtype: int
    quantization: int
    threads: int
    gemm_timing: int
    memory_budget: int
    allocator: int | None
    log: Any
    log_user: int | None
    progress: Any
    progress_user: int | None
    library_folder: bytes | None
    gemm_file: bytes | None
    mecab_dictionary: bytes | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("device", C.c_char_p),
        ("dtype", C.c_int32),
        ("quantization", C.c_int32),
        ("threads", C.c_int32),
        ("gemm_timing", C.c_int32),
        ("memory_budget", C.c_int64),
        ("allocator", C.c_void_p),
        ("log", LogFn),
        ("log_user", C.c_void_p),
        ("progress", ProgressFn),
        ("progress_user", C.c_void_p),
        ("library_folder", C.c_char_p),
        ("gemm_file", C.c_char_p),
        ("mecab_dictionary", C.c_char_p),
    ]


class ModelInfo(C.Structure):
    struct_size: int
    family: bytes | None
    architecture: bytes | None
    device: bytes | None
    dtype: int
    tasks: int
    layers: int
    heads: int
    head_size: int
    width: int
    input_width: int
    vocab_size: int
    type_count: int
    max_input_tokens: int
    embedding_width: int
    embedding_tokens: int
    pooled_width: int
    token_logits: int
    sequence_logits: int
    labels: int
    prompts: int
    default_prompt: int
    threads: int
    has_encoder: int
    decoder_layers: int
    max_context_tokens: int
    bos_id: int
    eos_id: int
    pad_id: int
    decoder_start_id: int
    parameters: int
    label_names: int | None
    prompt_names: int | None
    prompt_texts: int | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("family", C.c_char_p),
        ("architecture", C.c_char_p),
        ("device", C.c_char_p),
        ("dtype", C.c_int32),
        ("tasks", C.c_int32),
        ("layers", C.c_int32),
        ("heads", C.c_int32),
        ("head_size", C.c_int32),
        ("width", C.c_int32),
        ("input_width", C.c_int32),
        ("vocab_size", C.c_int32),
        ("type_count", C.c_int32),
        ("max_input_tokens", C.c_int32),
        ("embedding_width", C.c_int32),
        ("embedding_tokens", C.c_int32),
        ("pooled_width", C.c_int32),
        ("token_logits", C.c_int32),
        ("sequence_logits", C.c_int32),
        ("labels", C.c_int32),
        ("prompts", C.c_int32),
        ("default_prompt", C.c_int32),
        ("threads", C.c_int32),
        ("has_encoder", C.c_int32),
        ("decoder_layers", C.c_int32),
        ("max_context_tokens", C.c_int32),
        ("bos_id", C.c_int32),
        ("eos_id", C.c_int32),
        ("pad_id", C.c_int32),
        ("decoder_start_id", C.c_int32),
        ("parameters", C.c_int64),
        ("label_names", C.c_void_p),
        ("prompt_names", C.c_void_p),
        ("prompt_texts", C.c_void_p),
    ]


class SessionOptions(C.Structure):
    struct_size: int
    stream: int | None
    max_step_tokens: int
    max_sequences: int
    memory_budget: int
    kv_tokens: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("stream", C.c_void_p),
        ("max_step_tokens", C.c_int32),
        ("max_sequences", C.c_int32),
        ("memory_budget", C.c_int64),
        ("kv_tokens", C.c_int64),
    ]


class Plan(C.Structure):
    struct_size: int
    weight_bytes: int
    mapped_bytes: int
    model_bytes: int
    session_bytes: int
    load_bytes: int
    third_party_bytes: int
    total_bytes: int
    kv_bytes: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("weight_bytes", C.c_int64),
        ("mapped_bytes", C.c_int64),
        ("model_bytes", C.c_int64),
        ("session_bytes", C.c_int64),
        ("load_bytes", C.c_int64),
        ("third_party_bytes", C.c_int64),
        ("total_bytes", C.c_int64),
        ("kv_bytes", C.c_int64),
    ]


class SessionStats(C.Structure):
    struct_size: int
    calls: int
    steps: int
    sequences: int
    tokens: int
    bytes: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("calls", C.c_int64),
        ("steps", C.c_int64),
        ("sequences", C.c_int64),
        ("tokens", C.c_int64),
        ("bytes", C.c_int64),
    ]


class Input(C.Structure):
    struct_size: int
    count: int
    texts: int | None
    pairs: int | None
    ids: int | None
    embeddings: int | None
    type_ids: int | None
    lens: int | None
    progress: Any
    progress_user: int | None
    replace_invalid: int
    reserved: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("count", C.c_int64),
        ("texts", C.c_void_p),
        ("pairs", C.c_void_p),
        ("ids", C.c_void_p),
        ("embeddings", C.c_void_p),
        ("type_ids", C.c_void_p),
        ("lens", C.c_void_p),
        ("progress", ProgressFn),
        ("progress_user", C.c_void_p),
        ("replace_invalid", C.c_int32),
        ("reserved", C.c_int32),
    ]


class EncodeOutput(C.Structure):
    struct_size: int
    layers: int | None
    layer_count: int
    hidden: int | None
    pooled: int | None
    token_logits: int | None
    sequence_logits: int | None
    rows: int | None
    row_count: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("layers", C.c_void_p),
        ("layer_count", C.c_int64),
        ("hidden", C.c_void_p),
        ("pooled", C.c_void_p),
        ("token_logits", C.c_void_p),
        ("sequence_logits", C.c_void_p),
        ("rows", C.c_void_p),
        ("row_count", C.c_int64),
    ]


class EmbedOptions(C.Structure):
    struct_size: int
    normalize: int
    max_tokens: int
    prompt: bytes | None
    prompt_name: bytes | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("normalize", C.c_int32),
        ("max_tokens", C.c_int32),
        ("prompt", C.c_char_p),
        ("prompt_name", C.c_char_p),
    ]


class ClassifyOptions(C.Structure):
    struct_size: int
    activation: int
    truncate: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("activation", C.c_int32),
        ("truncate", C.c_int32),
    ]


class TokenClassifyOptions(C.Structure):
    struct_size: int
    aggregation: int
    truncate: int
    stride: int
    keep_all: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("aggregation", C.c_int32),
        ("truncate", C.c_int32),
        ("stride", C.c_int32),
        ("keep_all", C.c_int32),
    ]


class Entity(C.Structure):
    struct_size: int
    label: bytes | None
    score: float
    label_id: int
    byte_begin: int
    byte_end: int
    char_begin: int
    char_end: int
    token_begin: int
    token_end: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("label", C.c_char_p),
        ("score", C.c_float),
        ("label_id", C.c_int32),
        ("byte_begin", C.c_int64),
        ("byte_end", C.c_int64),
        ("char_begin", C.c_int64),
        ("char_end", C.c_int64),
        ("token_begin", C.c_int64),
        ("token_end", C.c_int64),
    ]


class AnswerOptions(C.Structure):
    struct_size: int
    top_k: int
    max_answer_tokens: int
    max_tokens: int
    stride: int
    allow_none: int
    reserved: int
    contexts: int | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("top_k", C.c_int32),
        ("max_answer_tokens", C.c_int32),
        ("max_tokens", C.c_int32),
        ("stride", C.c_int32),
        ("allow_none", C.c_int32),
        ("reserved", C.c_int32),
        ("contexts", C.c_void_p),
    ]


class Span(C.Structure):
    struct_size: int
    score: float
    reserved: int
    byte_begin: int
    byte_end: int
    char_begin: int
    char_end: int
    token_begin: int
    token_end: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("score", C.c_float),
        ("reserved", C.c_int32),
        ("byte_begin", C.c_int64),
        ("byte_end", C.c_int64),
        ("char_begin", C.c_int64),
        ("char_end", C.c_int64),
        ("token_begin", C.c_int64),
        ("token_end", C.c_int64),
    ]


class FillMaskOptions(C.Structure):
    struct_size: int
    top_k: int
    target_count: int
    targets: int | None
    mask_id: int
    reserved: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("top_k", C.c_int32),
        ("target_count", C.c_int32),
        ("targets", C.c_void_p),
        ("mask_id", C.c_int32),
        ("reserved", C.c_int32),
    ]


class Fill(C.Structure):
    struct_size: int
    score: float
    id: int
    position: int
    mask: int
    token: bytes | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("score", C.c_float),
        ("id", C.c_int32),
        ("position", C.c_int32),
        ("mask", C.c_int32),
        ("token", C.c_char_p),
    ]


class IdLists(C.Structure):
    ids: int | None
    lens: int | None
    count: int
    _fields_ = [
        ("ids", C.c_void_p),
        ("lens", C.c_void_p),
        ("count", C.c_int64),
    ]


class GenerateOptions(C.Structure):
    struct_size: int
    max_new_tokens: int
    max_length: int
    min_new_tokens: int
    min_length: int
    max_time: float
    early_stopping: int
    stop_strings: int | None
    stop_string_count: int
    eos_ids: int | None
    eos_count: int
    do_sample: int
    num_beams: int
    num_return_sequences: int
    length_penalty: float
    sequence_bias_values: int | None
    sequence_bias: IdLists
    encoder_repetition_penalty: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    no_repeat_ngram_size: int
    encoder_no_repeat_ngram_size: int
    bad_words: IdLists
    forced_bos_id: int
    remove_invalid_values: int
    forced_eos_ids: int | None
    forced_eos_count: int
    decay_start: int
    decay_factor: float
    suppress_ids: int | None
    suppress_count: int
    begin_suppress_ids: int | None
    begin_suppress_count: int
    logits: Any
    logits_user: int | None
    temperature: float
    top_h: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    epsilon_cutoff: float
    eta_cutoff: float
    renormalize_logits: int
    reserved: int
    seed: int
    decoder_ids: int | None
    decoder_count: int
    logprobs: int
    prompt_logprobs: int
    keep_logits: int
    keep_scores: int
    skip_special_tokens: int
    clean_up: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("max_new_tokens", C.c_int32),
        ("max_length", C.c_int32),
        ("min_new_tokens", C.c_int32),
        ("min_length", C.c_int32),
        ("max_time", C.c_float),
        ("early_stopping", C.c_int32),
        ("stop_strings", C.c_void_p),
        ("stop_string_count", C.c_int64),
        ("eos_ids", C.c_void_p),
        ("eos_count", C.c_int64),
        ("do_sample", C.c_int32),
        ("num_beams", C.c_int32),
        ("num_return_sequences", C.c_int32),
        ("length_penalty", C.c_float),
        ("sequence_bias_values", C.c_void_p),
        ("sequence_bias", IdLists),
        ("encoder_repetition_penalty", C.c_float),
        ("repetition_penalty", C.c_float),
        ("presence_penalty", C.c_float),
        ("frequency_penalty", C.c_float),
        ("no_repeat_ngram_size", C.c_int32),
        ("encoder_no_repeat_ngram_size", C.c_int32),
        ("bad_words", IdLists),
        ("forced_bos_id", C.c_int32),
        ("remove_invalid_values", C.c_int32),
        ("forced_eos_ids", C.c_void_p),
        ("forced_eos_count", C.c_int64),
        ("decay_start", C.c_int32),
        ("decay_factor", C.c_float),
        ("suppress_ids", C.c_void_p),
        ("suppress_count", C.c_int64),
        ("begin_suppress_ids", C.c_void_p),
        ("begin_suppress_count", C.c_int64),
        ("logits", LogitsFn),
        ("logits_user", C.c_void_p),
        ("temperature", C.c_float),
        ("top_h", C.c_float),
        ("top_k", C.c_int32),
        ("top_p", C.c_float),
        ("min_p", C.c_float),
        ("typical_p", C.c_float),
        ("epsilon_cutoff", C.c_float),
        ("eta_cutoff", C.c_float),
        ("renormalize_logits", C.c_int32),
        ("reserved", C.c_int32),
        ("seed", C.c_int64),
        ("decoder_ids", C.c_void_p),
        ("decoder_count", C.c_int64),
        ("logprobs", C.c_int32),
        ("prompt_logprobs", C.c_int32),
        ("keep_logits", C.c_int32),
        ("keep_scores", C.c_int32),
        ("skip_special_tokens", C.c_int32),
        ("clean_up", C.c_int32),
    ]


class GeneratedToken(C.Structure):
    struct_size: int
    sequence: int
    id: int
    logprob: float
    finish: int
    text: int | None
    text_bytes: int
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("sequence", C.c_int32),
        ("id", C.c_int32),
        ("logprob", C.c_float),
        ("finish", C.c_int32),
        ("text", C.c_void_p),
        ("text_bytes", C.c_int64),
    ]


class Generated(C.Structure):
    struct_size: int
    ids: int | None
    count: int
    text: int | None
    text_bytes: int
    logprobs: int | None
    prompt_logprobs: int | None
    prompt_count: int
    cumulative_logprob: float
    score: float
    finish: int
    stop_begin: int
    stop_index: int
    beams: int | None
    _fields_ = [
        ("struct_size", C.c_uint64),
        ("ids", C.c_void_p),
        ("count", C.c_int64),
        ("text", C.c_void_p),
        ("text_bytes", C.c_int64),
        ("logprobs", C.c_void_p),
        ("prompt_logprobs", C.c_void_p),
        ("prompt_count", C.c_int64),
        ("cumulative_logprob", C.c_double),
        ("score", C.c_float),
        ("finish", C.c_int32),
        ("stop_begin", C.c_int64),
        ("stop_index", C.c_int64),
        ("beams", C.c_void_p),
    ]


FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {  # result, arguments
    "tf_status_string": (C.c_char_p, [C.c_int32]),
    "tf_last_error": (C.c_char_p, []),
    "tf_version": (C.c_char_p, []),
    "tf_tokenizer_open": (C.c_int32, [C.c_char_p, C.POINTER(TokenizerOptions), C.c_void_p]),
    "tf_tokenizer_open_source": (C.c_int32, [C.POINTER(Source), C.c_char_p, C.POINTER(TokenizerOptions), C.c_void_p]),
    "tf_tokenizer_close": (None, [C.c_void_p]),
    "tf_tokenizer_get_info": (C.c_int32, [C.c_void_p, C.POINTER(TokenizerInfo)]),
    "tf_tokenizer_token": (C.c_int32, [C.c_void_p, C.c_int32, C.c_void_p]),
    "tf_tokenizer_id": (C.c_int32, [C.c_void_p, Text, C.c_void_p]),
    "tf_encoding_open": (C.c_int32, [C.c_void_p, C.c_void_p]),
    "tf_encoding_close": (None, [C.c_void_p]),
    "tf_tokenizer_encode": (C.c_int32, [C.c_void_p, C.POINTER(Text), C.POINTER(Text), C.c_int64, C.POINTER(TokenizeOptions), C.c_void_p]),
    "tf_encoding_get": (C.c_int32, [C.c_void_p, C.POINTER(EncodingData)]),
    "tf_encoding_write": (C.c_int32, [C.c_void_p, C.POINTER(EncodingArrays), C.c_void_p, C.c_void_p]),
    "tf_tokenizer_decode": (C.c_int32, [C.c_void_p, C.c_void_p, C.c_int64, C.POINTER(DecodeOptions), C.c_void_p, C.c_int64, C.c_void_p]),
    "tf_stream_open": (C.c_int32, [C.c_void_p, C.POINTER(DecodeOptions), C.c_void_p]),
    "tf_stream_push": (C.c_int32, [C.c_void_p, C.c_int32, C.c_void_p, C.c_void_p]),
    "tf_stream_finish": (C.c_int32, [C.c_void_p, C.c_void_p, C.c_void_p]),
    "tf_stream_reset": (None, [C.c_void_p]),
    "tf_stream_close": (None, [C.c_void_p]),
    "tf_model_open": (C.c_int32, [C.c_char_p, C.POINTER(ModelOptions), C.c_void_p]),
    "tf_model_open_source": (C.c_int32, [C.POINTER(Source), C.POINTER(ModelOptions), C.c_void_p]),
    "tf_model_close": (None, [C.c_void_p]),
    "tf_model_get_info": (C.c_int32, [C.c_void_p, C.POINTER(ModelInfo)]),
    "tf_model_tokenizer": (C.c_int32, [C.c_void_p, C.c_void_p]),
    "tf_model_plan": (C.c_int32, [C.c_char_p, C.POINTER(ModelOptions), C.POINTER(SessionOptions), C.POINTER(Plan)]),
    "tf_model_graph": (C.c_int32, [C.c_void_p, C.c_int32, C.c_void_p, C.c_int64, C.c_void_p]),
    "tf_session_open": (C.c_int32, [C.c_void_p, C.POINTER(SessionOptions), C.c_void_p]),
    "tf_session_close": (None, [C.c_void_p]),
    "tf_session_get_stats": (C.c_int32, [C.c_void_p, C.POINTER(SessionStats)]),
    "tf_encode": (C.c_int32, [C.c_void_p, C.POINTER(Input), C.POINTER(EncodeOutput)]),
    "tf_embed": (C.c_int32, [C.c_void_p, C.POINTER(Input), C.POINTER(EmbedOptions), C.c_void_p, C.c_int64]),
    "tf_classify": (C.c_int32, [C.c_void_p, C.POINTER(Input), C.POINTER(ClassifyOptions), C.c_void_p, C.c_void_p]),
    "tf_token_classify": (C.c_int32, [C.c_void_p, C.POINTER(Input), C.POINTER(TokenClassifyOptions), C.c_void_p]),
    "tf_answer": (C.c_int32, [C.c_void_p, C.POINTER(Input), C.POINTER(AnswerOptions), C.c_void_p]),
    "tf_fill_mask": (C.c_int32, [C.c_void_p, C.POINTER(Input), C.POINTER(FillMaskOptions), C.c_void_p]),
    "tf_result_count": (C.c_int64, [C.c_void_p, C.c_int64]),
    "tf_result_entity": (C.c_int32, [C.c_void_p, C.c_int64, C.c_int64, C.POINTER(Entity)]),
    "tf_result_span": (C.c_int32, [C.c_void_p, C.c_int64, C.c_int64, C.POINTER(Span)]),
    "tf_result_fill": (C.c_int32, [C.c_void_p, C.c_int64, C.c_int64, C.POINTER(Fill)]),
    "tf_result_close": (None, [C.c_void_p]),
    "tf_generate_open": (C.c_int32, [C.c_void_p, C.POINTER(Input), C.POINTER(GenerateOptions), C.c_void_p]),
    "tf_generate_close": (None, [C.c_void_p]),
    "tf_generate_next": (C.c_int32, [C.c_void_p, C.c_int32, C.POINTER(GeneratedToken)]),
    "tf_generate_wait": (C.c_int32, [C.c_void_p, C.c_int32]),
    "tf_generate_result": (C.c_int32, [C.c_void_p, C.c_int32, C.POINTER(Generated)]),
    "tf_generate_scores": (C.c_int32, [C.c_void_p, C.c_int32, C.c_int64, C.c_int32, C.c_void_p, C.c_int64]),
    "tf_generate_cancel": (None, [C.c_void_p]),
    "tf_session_step": (C.c_int32, [C.c_void_p, C.c_int32]),
}

STRUCTS: dict[str, type[C.Structure]] = {
    "tf_allocator": Allocator,
    "tf_text": Text,
    "tf_file": File,
    "tf_tensor": Tensor,
    "tf_source": Source,
    "tf_tokenizer_options": TokenizerOptions,
    "tf_tokenizer_info": TokenizerInfo,
    "tf_tokenize_options": TokenizeOptions,
    "tf_encoding_data": EncodingData,
    "tf_encoding_arrays": EncodingArrays,
    "tf_decode_options": DecodeOptions,
    "tf_model_options": ModelOptions,
    "tf_model_info": ModelInfo,
    "tf_session_options": SessionOptions,
    "tf_plan": Plan,
    "tf_session_stats": SessionStats,
    "tf_input": Input,
    "tf_encode_output": EncodeOutput,
    "tf_embed_options": EmbedOptions,
    "tf_classify_options": ClassifyOptions,
    "tf_token_classify_options": TokenClassifyOptions,
    "tf_entity": Entity,
    "tf_answer_options": AnswerOptions,
    "tf_span": Span,
    "tf_fill_mask_options": FillMaskOptions,
    "tf_fill": Fill,
    "tf_id_lists": IdLists,
    "tf_generate_options": GenerateOptions,
    "tf_generated_token": GeneratedToken,
    "tf_generated": Generated,
}
