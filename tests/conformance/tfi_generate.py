"""tf_generate over numpy: what tfi.py is for the other tasks."""

import contextlib
import ctypes as C

import numpy as np

import tfi
from tfi import FLOATS, INTS, Struct, check, fields, lib, pointer

FINISH = dict(none=0, eos=1, length=2, stop=3, time=4, cancelled=5)
EARLY_STOPPING = dict(off=0, on=1, never=2)
SCORES = dict(logits=0, processed=1)
EARLY = {False: EARLY_STOPPING["off"], True: EARLY_STOPPING["on"], "never": EARLY_STOPPING["never"]}
LOGITS = C.CFUNCTYPE(C.c_int32, C.c_void_p, C.c_int32, INTS, C.c_int64, FLOATS, C.c_int64)


class IdLists(C.Structure):
    _fields_ = [("ids", INTS), ("lens", INTS), ("count", C.c_int64)]


def generate_fields():
    out = fields("""
        u64 struct_size
        i32 max_new_tokens max_length min_new_tokens min_length
        f32 max_time
        i32 early_stopping
        texts stop_strings
        i64 stop_string_count
        ints eos_ids
        i64 eos_count
        i32 do_sample num_beams num_return_sequences
        f32 length_penalty
        floats sequence_bias_values""")
    out += [("sequence_bias", IdLists)]
    out += fields("""
        f32 encoder_repetition_penalty repetition_penalty presence_penalty frequency_penalty
        i32 no_repeat_ngram_size encoder_no_repeat_ngram_size""")
    out += [("bad_words", IdLists)]
    out += fields("""
        i32 forced_bos_id remove_invalid_values
        ints forced_eos_ids
        i64 forced_eos_count
        i32 decay_start
        f32 decay_factor
        ints suppress_ids
        i64 suppress_count
        ints begin_suppress_ids
        i64 begin_suppress_count""")
    out += [("logits", LOGITS), ("logits_user", C.c_void_p)]
    return out + fields("""
        f32 temperature top_h
        i32 top_k
        f32 top_p min_p typical_p epsilon_cutoff eta_cutoff
        i32 renormalize_logits reserved
        i64 seed
        ints decoder_ids
        i64 decoder_count
        i32 logprobs prompt_logprobs keep_logits keep_scores skip_special_tokens clean_up""")


class GenerateOptions(Struct):
    _fields_ = generate_fields()

    def __init__(self, **values):
        super().__init__(**values)
        for name in {"sequence_bias", "bad_words"} - values.keys():
            getattr(self, name).count = tfi.UNSET


class GeneratedToken(Struct):
    _fields_ = fields("""
        u64 struct_size
        i32 sequence id
        f32 logprob
        i32 finish
        ptr text
        i64 text_bytes""")


class Generated(Struct):
    _fields_ = fields("""
        u64 struct_size
        ints ids
        i64 count
        ptr text
        i64 text_bytes
        floats logprobs prompt_logprobs
        i64 prompt_count""") + [("cumulative_logprob", C.c_double)] + fields("""
        f32 score
        i32 finish
        i64 stop_begin stop_index
        ints beams""")


lib.tf_generate_close.restype = None
lib.tf_generate_cancel.restype = None
lib.tf_generate_next.argtypes = [C.c_void_p, C.c_int32, C.c_void_p]
lib.tf_generate_wait.argtypes = [C.c_void_p, C.c_int32]
lib.tf_generate_result.argtypes = [C.c_void_p, C.c_int32, C.c_void_p]
lib.tf_generate_scores.argtypes = [C.c_void_p, C.c_int32, C.c_int64, C.c_int32, FLOATS, C.c_int64]
lib.tf_generate_cancel.argtypes = lib.tf_generate_close.argtypes = [C.c_void_p]
lib.tf_session_step.argtypes = [C.c_void_p, C.c_int32]


class Result:
    """One sequence: new ids, text, score, finish by name, log-probabilities or None."""

    def __init__(self, r):
        self.ids = r.ids[: r.count]
        self.text = C.string_at(r.text, r.text_bytes)
        self.score, self.cumulative_logprob = r.score, r.cumulative_logprob
        self.finish = next(name for name, value in FINISH.items() if value == r.finish)
        self.stop_begin, self.stop_index = r.stop_begin, r.stop_index
        self.beams = r.beams[: r.count] if r.beams else None
        self.logprobs = r.logprobs[: r.count] if r.logprobs else None
        self.prompt_logprobs = r.prompt_logprobs[: r.prompt_count] if r.prompt_logprobs else None


class Generate:
    """A request. Settings are those of tf_generate_options as Python values: lists of ids (eos_ids, suppress_ids,
    begin_suppress_ids, forced_eos_ids, decoder_ids), lists of lists (bad_words), [(ids, bias)] (sequence_bias), strings
    (stop_strings), a function of (sequence, ids, logits as a writable array) (logits); or GenerateOptions in their place."""

    def __init__(self, session, inputs, options=None, **settings):
        self.session, self.inputs, self.alive = session, inputs, []
        self.handle = C.c_void_p()
        self.options = options or GenerateOptions(**self.convert(settings))
        check(lib.tf_generate_open(session.handle, C.byref(inputs.c), C.byref(self.options), C.byref(self.handle)))

    def keep(self, value):
        self.alive.append(value)
        return value

    def ids(self, values):
        return pointer(self.keep(np.array(values, np.int32)), INTS)

    def lists(self, values):
        return IdLists(self.ids([i for ids in values for i in ids]), self.ids([len(ids) for ids in values]), len(values))

    def convert(self, settings):
        out = {}
        for name, value in settings.items():
            if name in ("eos_ids", "suppress_ids", "begin_suppress_ids", "forced_eos_ids", "decoder_ids"):
                out[name], out[name.removesuffix("_ids") + "_count"] = self.ids(value), len(value)
            elif name == "bad_words":
                out[name] = self.lists(value)
            elif name == "sequence_bias":
                out[name] = self.lists([ids for ids, _ in value])
                out["sequence_bias_values"] = pointer(self.keep(np.array([b for _, b in value], np.float32)), FLOATS)
            elif name == "stop_strings":
                out[name], out["stop_string_count"] = self.keep(tfi.texts_array(value)), len(value)
            elif name == "early_stopping":
                out[name] = EARLY[value]
            elif name == "logits":
                out[name] = self.keep(LOGITS(self.callback(value)))
            else:
                out[name] = value
        return out

    @staticmethod
    def callback(function):
        def call(_, sequence, ids, count, logits, vocab):
            return function(sequence, ids[:count], np.ctypeslib.as_array(logits, (vocab,))) or 0

        return call

    def next(self, timeout_ms=-1):
        """The next token as a GeneratedToken with its text as bytes in `piece`, None when there is none left."""
        token = GeneratedToken()
        status = lib.tf_generate_next(self.handle, timeout_ms, C.byref(token))
        if status == tfi.STATUS["END"]:
            return None
        check(status)
        token.piece = C.string_at(token.text, token.text_bytes)
        return token

    def wait(self, timeout_ms=-1):
        check(lib.tf_generate_wait(self.handle, timeout_ms))
        return self

    def result(self, sequence=0):
        r = Generated()
        check(lib.tf_generate_result(self.handle, sequence, C.byref(r)))
        return Result(r)

    def new_ids(self):
        """The first result's, and nothing else of it."""
        r = Generated.__new__(Generated)
        r.struct_size = C.sizeof(Generated)
        check(lib.tf_generate_result(self.handle, 0, C.byref(r)))
        return r.ids[: r.count]

    def results(self):
        n = self.options.num_return_sequences
        return [self.result(i) for i in range(1 if n == tfi.UNSET else n)]

    def scores(self, step, sequence=0, kind="processed"):
        vocab = self.session.model.info.vocab_size
        out = np.full(vocab, np.nan, np.float32)
        check(lib.tf_generate_scores(self.handle, SCORES[kind], step, sequence, pointer(out, FLOATS), vocab))
        return out

    def cancel(self):
        lib.tf_generate_cancel(self.handle)

    def close(self):
        lib.tf_generate_close(self.handle)
        self.handle = C.c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def inputs_of(prompt):
    """A tf_input of one prompt: a text, ids, or Inputs already."""
    if isinstance(prompt, tfi.Inputs):
        return prompt
    return tfi.Inputs(texts=[prompt]) if isinstance(prompt, (str, bytes)) else tfi.Inputs(ids=[prompt])


def generate(session, prompt, **settings):
    """All results of one request."""
    return generate_together(session, [(prompt, settings)])[0]


def generate_together(session, requests):
    """All results of each (prompt, settings), which are open together."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Generate(session, inputs_of(prompt), **settings)) for prompt, settings in requests]
        return [request.wait().results() for request in opened]
