"""The generation calls of libtfinfer through ctypes: the structs of tfinfer/generate.h as they are, and a request over them."""

import ctypes as C

import tfi
from tfi import INTS, UNSET, Struct, check, fields, lib


class IdLists(C.Structure):
    _fields_ = [("ids", INTS), ("lens", INTS), ("count", C.c_int64)]


class GenerateOptions(Struct):
    _fields_ = (
        fields("""
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
        + [("sequence_bias", IdLists)]
        + fields("""
        f32 encoder_repetition_penalty repetition_penalty presence_penalty frequency_penalty
        i32 no_repeat_ngram_size encoder_no_repeat_ngram_size""")
        + [("bad_words", IdLists)]
        + fields("""
        i32 forced_bos_id remove_invalid_values
        ints forced_eos_ids
        i64 forced_eos_count
        i32 decay_start
        f32 decay_factor
        ints suppress_ids
        i64 suppress_count
        ints begin_suppress_ids
        i64 begin_suppress_count
        ptr logits logits_user
        f32 temperature top_h
        i32 top_k
        f32 top_p min_p typical_p epsilon_cutoff eta_cutoff
        i32 renormalize_logits reserved
        i64 seed
        ints decoder_ids
        i64 decoder_count
        i32 logprobs prompt_logprobs keep_logits keep_scores skip_special_tokens clean_up""")
    )

    def __init__(self, **values):
        super().__init__()
        self.sequence_bias.count = self.bad_words.count = UNSET
        for name, value in values.items():
            if name not in dict(self._fields_):
                raise TypeError(f"GenerateOptions has no field {name}")
            setattr(self, name, value)


class Generated(Struct):
    _fields_ = (
        fields("""
        u64 struct_size
        ints ids
        i64 count
        text text
        i64 text_bytes
        floats logprobs prompt_logprobs
        i64 prompt_count""")
        + [("cumulative_logprob", C.c_double)]
        + fields("""
        f32 score
        i32 finish
        i64 stop_begin stop_index""")
    )


lib.tf_generate_close.restype = None
lib.tf_generate_close.argtypes = [C.c_void_p]


class Request:
    """A tf_generate of one prompt of ids; keyword arguments are fields of tf_generate_options."""

    def __init__(self, session, ids, **options):
        self.inputs, self.options, self.handle = tfi.Inputs(ids=[ids]), GenerateOptions(**options), C.c_void_p()
        check(lib.tf_generate_open(session.handle, C.byref(self.inputs.c), C.byref(self.options), C.byref(self.handle)))

    def wait(self):
        check(lib.tf_generate_wait(self.handle, -1))

    def ids(self, sequence=0):
        out = Generated()
        check(lib.tf_generate_result(self.handle, sequence, C.byref(out)))
        return out.ids[: out.count]

    def close(self):
        lib.tf_generate_close(self.handle)
        self.handle = C.c_void_p()


def generate(session, prompts, **options):
    """The new ids of each prompt's best sequence; all prompts are open together."""
    requests = []
    try:
        for ids in prompts:
            requests.append(Request(session, ids, **options))
        for request in requests:
            request.wait()
        return [request.ids() for request in requests]
    finally:
        for request in requests:
            request.close()
