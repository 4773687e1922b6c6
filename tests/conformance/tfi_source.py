"""tf_model_open_source over live torch models: a binding of tfinfer/source.h, and a Model that has no directory."""

import ctypes as C
import json
import pathlib

import torch

import tfi
from tfi import fields

RANK_MAX = 8
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}


class File(tfi.Struct):
    _fields_ = fields("""
        u64 struct_size
        ptr data
        i64 size offset
        i32 fd reserved
        ptr handle
        text error""")


class Tensor(tfi.Struct):
    _fields_ = [
        *fields("""
        u64 struct_size
        text name
        ptr data
        i32 dtype rank"""),
        ("shape", C.c_int64 * RANK_MAX),
        ("stride", C.c_int64 * RANK_MAX),
        *fields("""
        i32 device reserved
        text error"""),
    ]


FILE = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_char_p, C.POINTER(File))
FILE_CLOSE = C.CFUNCTYPE(None, C.c_void_p, C.POINTER(File))
TENSOR = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_int64, C.POINTER(Tensor))
RELEASE = C.CFUNCTYPE(None, C.c_void_p)


class Source(tfi.Struct):
    _fields_ = [
        *fields("""
        u64 struct_size
        text label"""),
        ("file", FILE),
        ("file_close", FILE_CLOSE),
        ("tensor", TENSOR),
        ("release", RELEASE),
        *fields("""
        ptr user
        i32 borrow reserved"""),
    ]


def live_tensors(model):
    """(name, tensor) of what a state dict has, tied weights under each of their names; buffers of integers are left out."""
    return [(name, t.detach()) for name, t in model.state_dict(keep_vars=True).items() if t.is_floating_point()]


class Held:
    """What a Source's callbacks give: {name: bytes} and [(name, torch tensor)]; counts what is taken back."""

    def __init__(self, files, tensors=None, label="live", borrow=None):
        self.files = {name: C.create_string_buffer(data, len(data)) for name, data in files.items()}
        self.tensors, self.asked, self.open, self.released = tensors or [], [], 0, 0
        self.names = [name.encode() for name, _ in self.tensors]
        self.source = Source(
            label=label.encode(),
            file=FILE(self.give_file),
            file_close=FILE_CLOSE(self.take_file),
            release=RELEASE(self.release),
            **({} if tensors is None else {"tensor": TENSOR(self.give_tensor)}),
            **({} if borrow is None else {"borrow": borrow}),
        )

    def give_file(self, _, name, out):
        name = name.decode()
        self.asked.append(name)
        if name not in self.files:
            return tfi.STATUS["NOT_FOUND"]
        out[0].data, out[0].size = C.addressof(self.files[name]), len(self.files[name])
        self.open += 1
        return 0

    def take_file(self, _, file):
        self.open -= 1

    def give_tensor(self, _, index, out):
        if index == len(self.tensors):
            return tfi.STATUS["END"]
        tensor = self.tensors[index][1]
        out[0].name, out[0].data = self.names[index], tensor.data_ptr()
        out[0].dtype, out[0].rank = tfi.DTYPE[DTYPES[tensor.dtype]], tensor.dim()
        for i in range(tensor.dim()):
            out[0].shape[i], out[0].stride[i] = tensor.shape[i], tensor.stride(i)
        if tensor.is_cuda:
            out[0].device = tensor.device.index
        return 0

    def release(self, _):
        self.released += 1


def config_file(model):
    """config.json as save_pretrained writes it."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    config["architectures"] = [type(model).__name__]
    return json.dumps(config).encode()


def directory_files(path):
    path = pathlib.Path(path)
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


class Model(tfi.Model):
    def __init__(self, held, dtype="auto", **options):
        self.handle, self.held = C.c_void_p(), held
        options.setdefault("device", tfi.DEVICE)
        self.options = tfi.ModelOptions(dtype=tfi.DTYPE[dtype], **options)
        tfi.check(tfi.lib.tf_model_open_source(C.byref(held.source), C.byref(self.options), C.byref(self.handle)))
        self.info = tfi.ModelInfo()
        tfi.check(tfi.lib.tf_model_get_info(self.handle, C.byref(self.info)))
