"""The tokenizer calls of libtfinfer through ctypes, as the conformance tests need them. TFINFER_LIBRARY names the library."""

import ctypes as c
import os

UNSET = -(2**31)
NONE, LONGEST_FIRST, ONLY_FIRST, ONLY_SECOND = range(4)
RIGHT, LEFT = range(2)


class Text(c.Structure):
    _fields_ = [("data", c.c_char_p), ("size", c.c_int64)]


class TokenizeOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint64)] + [
        (name, c.c_int32)
        for name in ("add_special_tokens truncation max_length truncation_side stride overflow replace_invalid threads").split()
    ]


class DecodeOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint64), ("skip_special_tokens", c.c_int32), ("clean_up", c.c_int32)]


class Info(c.Structure):
    _fields_ = [("struct_size", c.c_uint64), ("model", c.c_char_p)] + [
        (name, c.c_int32)
        for name in (
            "vocab_size model_max_length unk_id pad_id cls_id sep_id mask_id bos_id eos_id special_tokens_single"
            " special_tokens_pair lowercase"
        ).split()
    ]


class EncodingData(c.Structure):
    _fields_ = (
        [("struct_size", c.c_uint64), ("rows", c.c_int64), ("tokens", c.c_int64)]
        + [("row_start", c.POINTER(c.c_int64)), ("row_text", c.POINTER(c.c_int64))]
        + [(name, c.POINTER(c.c_int32)) for name in ("ids", "type_ids", "sequence", "word")]
        + [(name, c.POINTER(c.c_int64)) for name in ("byte_begin", "byte_end", "char_begin", "char_end")]
    )


class TokenizerOptions(c.Structure):
    _fields_ = [("struct_size", c.c_uint64), ("allocator", c.c_void_p), ("log", c.c_void_p), ("log_user", c.c_void_p), ("mecab_dictionary", c.c_char_p)]


class TfinferError(Exception):
    def __init__(self, status):
        super().__init__("%d: %s" % (status, library.tf_last_error().decode("utf-8", "replace")))
        self.status = status


library = c.CDLL(os.environ["TFINFER_LIBRARY"])
library.tf_last_error.restype = c.c_char_p
library.tf_tokenizer_decode.argtypes = [c.c_void_p, c.c_void_p, c.c_int64, c.c_void_p, c.c_void_p, c.c_int64, c.c_void_p]
library.tf_tokenizer_encode.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p, c.c_int64, c.c_void_p, c.c_void_p]
library.tf_stream_open.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p]
library.tf_stream_push.argtypes = [c.c_void_p, c.c_int32, c.c_void_p, c.c_void_p]
library.tf_stream_finish.argtypes = [c.c_void_p, c.c_void_p, c.c_void_p]
library.tf_stream_reset.argtypes = library.tf_stream_close.argtypes = [c.c_void_p]
library.tf_stream_reset.restype = library.tf_stream_close.restype = None
library.tf_tokenizer_close.argtypes = library.tf_encoding_close.argtypes = [c.c_void_p]
library.tf_tokenizer_close.restype = library.tf_encoding_close.restype = None
library.tf_tokenizer_id.argtypes = [c.c_void_p, Text, c.c_void_p]


def check(status):
    if status < 0:
        raise TfinferError(status)


def set_options(options, given):
    options.struct_size = c.sizeof(options)
    for name, _ in options._fields_[1:]:
        setattr(options, name, given.pop(name, UNSET))
    assert not given, given
    return options


class Row:
    """One row of an encoding; offsets are in code points, byte_offsets in bytes."""

    def __init__(self, d, r):
        a, b = d.row_start[r], d.row_start[r + 1]
        self.text = d.row_text[r]
        self.ids, self.type_ids, self.sequence, self.word = d.ids[a:b], d.type_ids[a:b], d.sequence[a:b], d.word[a:b]
        self.offsets = list(zip(d.char_begin[a:b], d.char_end[a:b]))
        self.byte_offsets = list(zip(d.byte_begin[a:b], d.byte_end[a:b]))


class Tokenizer:
    def __init__(self, path, mecab_dictionary=None):
        self.handle, self.encoding = c.c_void_p(), c.c_void_p()
        o = TokenizerOptions(struct_size=c.sizeof(TokenizerOptions))
        o.mecab_dictionary = None if mecab_dictionary is None else os.fsencode(mecab_dictionary)
        check(library.tf_tokenizer_open(os.fsencode(path), c.byref(o), c.byref(self.handle)))
        check(library.tf_encoding_open(self.handle, c.byref(self.encoding)))

    def __del__(self):
        library.tf_encoding_close(self.encoding)
        library.tf_tokenizer_close(self.handle)

    @property
    def info(self):
        info = Info(struct_size=c.sizeof(Info))
        check(library.tf_tokenizer_get_info(self.handle, c.byref(info)))
        return info

    @staticmethod
    def texts(texts):
        data = [t if isinstance(t, bytes) else t.encode("utf-8") for t in texts]
        return (Text * len(data))(*[Text(d, len(d)) for d in data])

    def run(self, texts, pairs=None, **options):
        """Encode and leave the result in the library; returns the view."""
        o = set_options(TokenizeOptions(), options)
        first, second = self.texts(texts), self.texts(pairs) if pairs is not None else None
        check(library.tf_tokenizer_encode(self.handle, first, second, len(texts), c.byref(o), self.encoding))
        data = EncodingData(struct_size=c.sizeof(EncodingData))
        check(library.tf_encoding_get(self.encoding, c.byref(data)))
        return data

    def encode(self, texts, pairs=None, **options):
        data = self.run(texts, pairs, **options)
        return [Row(data, r) for r in range(data.rows)]

    def decode(self, ids, **options):
        return self._decode((c.c_int32 * len(ids))(*ids), len(ids), options)

    def decode_row(self, data, row, **options):
        """What a row of run()'s view decodes to."""
        begin, end = data.row_start[row], data.row_start[row + 1]
        return self._decode(c.byref(data.ids.contents, 4 * begin) if data.tokens else None, end - begin, options)

    def _decode(self, ids, count, options):
        o, size = set_options(DecodeOptions(), options), c.c_int64()
        room = 16 * count + 64
        text = c.create_string_buffer(room)
        status = library.tf_tokenizer_decode(self.handle, ids, count, c.byref(o), text, room, c.byref(size))
        if status == -7:
            text = c.create_string_buffer(size.value)
            status = library.tf_tokenizer_decode(self.handle, ids, count, c.byref(o), text, size.value, c.byref(size))
        check(status)
        return text.raw[: size.value].decode("utf-8")


class Stream:
    """Ids to text one by one; each piece must be whole characters."""

    def __init__(self, tokenizer, **options):
        self.tokenizer, self.handle = tokenizer, c.c_void_p()
        o = set_options(DecodeOptions(), options)
        check(library.tf_stream_open(tokenizer.handle, c.byref(o), c.byref(self.handle)))

    def __del__(self):
        library.tf_stream_close(self.handle)

    def _piece(self, call, *args):
        text, size = c.c_void_p(), c.c_int64()
        check(call(self.handle, *args, c.byref(text), c.byref(size)))
        return c.string_at(text, size.value).decode("utf-8")

    def push(self, token):
        return self._piece(library.tf_stream_push, token)

    def finish(self):
        return self._piece(library.tf_stream_finish)

    def reset(self):
        library.tf_stream_reset(self.handle)
