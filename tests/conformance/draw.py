"""ctypes over draw_ops.so: the records of backend/ops.h and a request whose steps run the ops that process logits and draw tokens."""

import ctypes
import os
from ctypes import POINTER, c_float, c_int8, c_int32, c_int64, c_uint32, c_uint64, c_void_p

import numpy as np

PATH = os.environ.get("TFINFER_DRAW_OPS")
NONE, EOS, LENGTH, BEAMS, NUMERIC = range(5)
COMPLETES = ctypes.CFUNCTYPE(ctypes.c_int, c_void_p, c_int32, c_int32)


class IdLists(ctypes.Structure):
    _fields_ = [("count", c_int32), ("start", POINTER(c_int32)), ("ids", POINTER(c_int32))]


IDS = POINTER(c_int32)


class Sampling(ctypes.Structure):
    _fields_ = [
        ("vocab", c_int32), ("prompt", c_int32), ("max_length", c_int32), ("eos_count", c_int32), ("eos", IDS),
        ("sequence_bias", IdLists), ("sequence_bias_values", POINTER(c_float)),
        ("encoder_repetition_penalty", c_float), ("repetition_penalty", c_float),
        ("presence_penalty", c_float), ("frequency_penalty", c_float),
        ("no_repeat_ngram_size", c_int32), ("encoder_no_repeat_ngram_size", c_int32),
        ("source", IDS), ("source_count", c_int32), ("bad_words", IdLists),
        ("min_length", c_int32), ("min_new_tokens", c_int32), ("forced_bos", c_int32),
        ("forced_eos_count", c_int32), ("forced_eos", IDS), ("remove_invalid_values", c_int32),
        ("decay_start", c_int32), ("decay_factor", c_float),
        ("suppress_count", c_int32), ("suppress", IDS), ("begin_suppress_count", c_int32), ("begin_suppress", IDS),
        ("begin_index", c_int32), ("do_sample", c_int32), ("temperature", c_float), ("top_h", c_float), ("top_k", c_int32),
        ("top_p", c_float), ("min_p", c_float), ("typical_p", c_float), ("epsilon_cutoff", c_float), ("eta_cutoff", c_float),
        ("renormalize_logits", c_int32), ("seed", c_uint64), ("logprobs", c_int32), ("num_beams", c_int32),
        ("length_penalty", c_float), ("early_stopping", c_int32), ("completes", COMPLETES), ("completes_user", c_void_p),
    ]  # fmt: skip


class Choice(ctypes.Structure):
    _fields_ = [
        ("token", c_int32), ("parent", c_int32), ("logprob", c_float), ("score", c_float), ("stop", c_int32),
        ("finished_from", c_int32), ("finished_parent", c_int32), ("finished_token", c_int32),
        ("finished_score", c_float), ("finished_logprob", c_float),
    ]  # fmt: skip

    def values(self):
        return tuple(getattr(self, name) for name, _ in self._fields_)


OFF = dict(
    encoder_repetition_penalty=1, repetition_penalty=1, forced_bos=-1, decay_start=-1, begin_index=-1, temperature=1,
    top_h=float("nan"), top_p=1, min_p=float("nan"), typical_p=1, num_beams=1, length_penalty=1,
)  # fmt: skip


def load():
    lib = ctypes.CDLL(PATH)
    lib.draw_size.restype = c_int64
    assert (lib.draw_size(0), lib.draw_size(1)) == (ctypes.sizeof(Sampling), ctypes.sizeof(Choice)), "records differ from ops.h"
    lib.draw_open.restype = c_void_p
    lib.draw_open.argtypes = [POINTER(Sampling), c_int32, c_void_p, c_int32]
    lib.draw_close.argtypes = [c_void_p]
    lib.draw_tokens.argtypes = [c_void_p, c_int32, c_void_p]
    lib.draw_philox.argtypes = [c_uint64, c_void_p, c_void_p]
    lib.draw_step.argtypes = [c_void_p, c_int32, c_void_p, c_void_p, c_void_p, c_int64, ctypes.c_int, c_void_p]
    lib.draw_step.restype = lib.draw_close.restype = lib.draw_philox.restype = None
    return lib


lib = load() if PATH else None


def philox(key, counter):
    out = (c_uint32 * 4)()
    lib.draw_philox(key, (c_uint32 * 4)(*counter), out)
    return list(out)


class Request:
    """The sequences (or beams) of a request behind a common beginning; settings are fields of Sampling, lists as Python lists."""

    def __init__(self, sequences, tokens, **settings):
        self.arrays = []  # what the record points to
        record = Sampling(vocab=0, prompt=len(tokens), max_length=1 << 20)
        for name, value in {**OFF, **settings}.items():
            if name in ("sequence_bias", "bad_words"):
                value = self.lists(value)
            elif name == "sequence_bias_values":
                value = self.array(c_float, value)
            elif isinstance(value, list):
                if name != "source":
                    setattr(record, name + "_count", len(value))
                value = self.array(c_int32, value)
            setattr(record, name, value)
        if "source" in settings:
            record.source_count = len(settings["source"])
        self.record, self.count = record, sequences
        room = max(record.max_length, len(tokens)) if record.max_length < 1 << 20 else len(tokens) + 1000
        record.max_length = min(record.max_length, room)
        self.buffer = (c_int32 * (room + 1))()
        self.handle = lib.draw_open(ctypes.byref(record), sequences, (c_int32 * len(tokens))(*tokens), len(tokens))

    def array(self, kind, values):
        self.arrays.append((kind * max(len(values), 1))(*values))
        return ctypes.cast(self.arrays[-1], POINTER(kind))

    def lists(self, sequences):
        start = np.cumsum([0] + [len(s) for s in sequences]).tolist()
        return IdLists(len(sequences), self.array(c_int32, start), self.array(c_int32, [i for s in sequences for i in s]))

    def tokens(self, i=0):
        return self.buffer[: lib.draw_tokens(self.handle, i, self.buffer)]

    def close(self):
        lib.draw_close(self.handle)


def step(requests, logits, shared=None, workers=1):
    """One step of all requests: logits, for each an array [rows, V] of one row where it is shared. Gives the choices and the processed
    rows, both for each request."""
    counts = [r.count for r in requests]
    shared = [len(x) == 1 and n > 1 for x, n in zip(logits, counts)] if shared is None else shared
    rows = np.ascontiguousarray(np.concatenate(logits), np.float32)
    out = np.full(rows.shape, np.nan, np.float32)
    choices = (Choice * sum(counts))()
    lib.draw_step(
        (c_void_p * len(requests))(*[r.handle for r in requests]), len(requests), (c_int32 * len(requests))(*shared),
        rows.ctypes.data, out.ctypes.data, rows.shape[1], workers, choices,
    )  # fmt: skip
    ends = np.cumsum(counts).tolist()
    row_ends = np.cumsum([len(x) for x in logits]).tolist()
    return (
        [choices[e - n : e] for e, n in zip(ends, counts)],
        [out[e - len(x) : e] for e, x in zip(row_ends, logits)],
    )
