"""The tensors that the library reads from a checkpoint's files, against what torch and safetensors read from them.

TFINFER_DUMP_TENSORS names the helper program built from dump_tensors.c.
"""

import io
import json
import os
import random
import subprocess
import zipfile
from collections import OrderedDict

import numpy
import pytest
import safetensors.torch
import torch

PROGRAM = os.environ.get("TFINFER_DUMP_TENSORS")
SEED = int(os.environ.get("TFC_SEED", random.SystemRandom().randrange(2**32)))

pytestmark = pytest.mark.skipif(not PROGRAM, reason="TFINFER_DUMP_TENSORS names no program")

NAMES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64", torch.int64: "int64",
    torch.int32: "int32", torch.int16: "int16", torch.int8: "int8", torch.uint8: "uint8", torch.bool: "bool",
}

# How a state dict becomes a file that torch.load reads.
TORCH_FORMS = {
    "zip": {},
    "zip, protocol 4": {"pickle_protocol": 4},
    "before 1.6": {"_use_new_zipfile_serialization": False},
}


@pytest.fixture(autouse=True)
def seed():
    print(f"TFC_SEED={SEED}")
    torch.manual_seed(SEED)
    random.seed(SEED)


def run(directory):
    return subprocess.run([PROGRAM, str(directory)], capture_output=True, text=True)


def dump(directory):
    """{name: (dtype, contiguous, shape, elements)}; elements as a numpy array, or as bytes for integers."""
    result = run(directory)
    assert result.returncode == 0, result.stderr
    tensors = {}
    for line in result.stdout.splitlines():
        name, dtype, contiguous, rank, shape, data = line.split("\t")
        shape = tuple(int(n) for n in shape.split(",")) if shape else ()
        assert len(shape) == int(rank)
        data = bytes.fromhex(data)
        if dtype.startswith(("fp", "bf")):
            data = numpy.frombuffer(data, dtype=">u4").astype(numpy.uint32).reshape(shape)
        tensors[name] = (dtype, contiguous == "1", shape, data)
    return tensors


def check(found, expected):
    """The same names; the same dtypes, shapes and, bit by bit, elements as floats."""
    assert sorted(found) == sorted(expected)
    for name, tensor in expected.items():
        dtype, contiguous, shape, data = found[name]
        tensor = tensor.detach()
        assert (dtype, shape) == (NAMES[tensor.dtype], tuple(tensor.shape)), name
        assert contiguous == tensor.is_contiguous(), name
        if tensor.dtype.is_floating_point:
            floats = tensor.to(torch.float32).contiguous().numpy()
            assert (data == floats.view(numpy.uint32)).all(), name
        elif tensor.is_contiguous():
            assert data == tensor.numpy().tobytes(), name


def random_tensor(dtype, shape=None):
    if shape is None:
        shape = [random.randint(1, 6) for _ in range(random.randint(0, 4))]
    if dtype == torch.bool:
        return torch.rand(shape) < 0.5
    if not dtype.is_floating_point:
        return torch.randint(0, 100, shape, dtype=dtype)
    tensor = torch.randn(shape, dtype=torch.float64) * 10.0 ** random.randint(-6, 4)
    return tensor.to(dtype)


def every_dtype():
    tensors = OrderedDict((f"layer.{i}.{NAMES[dtype]}", random_tensor(dtype)) for dtype in NAMES for i in range(3))
    tensors["empty"] = torch.empty(0, 5)
    special = [0.0, -0.0, float("inf"), -float("inf"), 6e-8, 65504.0, 6.1e-5, 1e-40]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        tensors[f"special.{NAMES[dtype]}"] = torch.tensor(special, dtype=dtype)
    return tensors


def all_halves(dtype):
    return torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype)


def views():
    """Slices, transposes, expansions: several of each storage."""
    tensors = OrderedDict()
    for i in range(20):
        base = random_tensor(random.choice([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
                             [random.randint(2, 7) for _ in range(3)])
        dims = random.sample(range(3), 3)
        tensors[f"{i}.base"] = base
        tensors[f"{i}.permuted"] = base.permute(dims)
        tensors[f"{i}.part"] = base[1:, :-1]
        tensors[f"{i}.steps"] = base[::2, :, 1::2]
        tensors[f"{i}.element"] = base[1, 1, 1]
        tensors[f"{i}.expanded"] = base[0, 0].expand(4, base.shape[2])
        tensors[f"{i}.diagonal"] = torch.diagonal(base[0])
    return tensors


def test_safetensors(tmp_path):
    tensors = every_dtype()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    check(dump(tmp_path), safetensors.torch.load_file(tmp_path / "model.safetensors"))


def test_all_halves(tmp_path):
    tensors = {"f16": all_halves(torch.float16), "bf16": all_halves(torch.bfloat16)}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    for name, (_, _, _, data) in dump(tmp_path).items():
        floats = data.view(numpy.float32)
        numpy.testing.assert_array_equal(floats, tensors[name].float().numpy(), name)


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_torch(tmp_path, form):
    path = tmp_path / "pytorch_model.bin"
    torch.save(every_dtype(), path, **TORCH_FORMS[form])
    check(dump(tmp_path), torch.load(path, weights_only=False))


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_views(tmp_path, form):
    path = tmp_path / "pytorch_model.bin"
    torch.save(views(), path, **TORCH_FORMS[form])
    check(dump(tmp_path), torch.load(path, weights_only=False))


@pytest.mark.parametrize("form", TORCH_FORMS)
def test_module(tmp_path, form):
    """A module's state dict as it is saved: _metadata, parameters, tied weights, and values that are no tensors."""
    module = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5), torch.nn.LayerNorm(5))
    module[1].weight = module[0].weight
    state = module.state_dict()
    state["parameter"] = torch.nn.Parameter(torch.randn(3))
    expected = dict(state)
    state.update(none=None, number=3, big=2**80, real=1.5, text="x", raw=b"123", size=torch.Size([1, 2]), dtype=torch.float32,
                 flag=True, items=[1, (2, 3, 4, 5), {"a": 1}], device=torch.device("cpu"))
    torch.save(state, tmp_path / "pytorch_model.bin", **TORCH_FORMS[form])
    check(dump(tmp_path), expected)


def test_plain_dict_of_many(tmp_path):
    """More entries than one byte can number in the pickle's memo."""
    tensors = {f"t{i}": torch.full((1,), float(i)) for i in range(1000)}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    check(dump(tmp_path), tensors)


def write_index(tmp_path, name, shards):
    weight_map = {tensor: shard for shard, tensors in shards.items() for tensor in tensors}
    (tmp_path / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def test_shards(tmp_path):
    tensors = every_dtype()
    names = list(tensors)
    random.shuffle(names)
    parts = {f"part-{i}": {n: tensors[n] for n in names[i::3]} for i in range(3)}
    for form in ("safetensors", "bin"):
        directory = tmp_path / form
        directory.mkdir()
        shards = {f"{part}.{form}": content for part, content in parts.items()}
        for shard, content in shards.items():
            save = safetensors.torch.save_file if form == "safetensors" else torch.save
            save(content, directory / shard)
        prefix = "model" if form == "safetensors" else "pytorch_model"
        write_index(directory, f"{prefix}.{form}.index.json", shards)
        check(dump(directory), tensors)


def rewrite_zip(path, **options):
    """The archive again by Python's zipfile, which lays it out in its own way."""
    content = {i.filename: zipfile.ZipFile(path).read(i) for i in zipfile.ZipFile(path).infolist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in content.items():
            with archive.open(name, "w", force_zip64=True) as f:
                f.write(data)


def test_other_zip_writer(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save(views(), path)
    expected = torch.load(path, weights_only=False)
    rewrite_zip(path)
    check(dump(tmp_path), expected)
    rewrite_zip(path, compression=zipfile.ZIP_DEFLATED)
    result = run(tmp_path)
    assert result.returncode == 1 and "TF_STATUS_UNSUPPORTED" in result.stderr and "compressed" in result.stderr


class Call:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("form", TORCH_FORMS)
@pytest.mark.parametrize("value, name", [(Call(), "posix.system"), (torch.nn.ReLU(), "torch.nn.modules.activation.ReLU"),
                                         (torch.ones(1, dtype=torch.complex64), "torch.ComplexFloatStorage")])
def test_refused_by_name(tmp_path, form, value, name):
    torch.save({"a": torch.ones(2), "b": value}, tmp_path / "pytorch_model.bin", **TORCH_FORMS[form])
    result = run(tmp_path)
    assert result.returncode == 1 and "TF_STATUS_UNSUPPORTED" in result.stderr
    assert name in result.stderr, result.stderr


def test_what_safetensors_refuses(tmp_path):
    """Files that the format's own reader refuses are refused."""
    def tensor(shape, begin, end):
        return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}

    cases = [({"a": tensor([1], 0, 4), "b": tensor([1], 8, 12)}, 12), ({"a": tensor([2], 0, 8), "b": tensor([2], 4, 12)}, 12),
             ({"a": tensor([1], 0, 4)}, 8), ({"a": tensor([1], 0, 4)}, 3), ({"a": tensor([2], 0, 4)}, 4)]
    for header, size in cases:
        text = json.dumps(header).encode()
        data = len(text).to_bytes(8, "little") + text + bytes(size)
        with pytest.raises(Exception):
            safetensors.torch.load(data)
        (tmp_path / "model.safetensors").write_bytes(data)
        result = run(tmp_path)
        assert result.returncode == 1 and "TF_STATUS_CORRUPT" in result.stderr, header


def test_saved_to_memory(tmp_path):
    """torch.save to a stream names the archive's folder otherwise."""
    stream = io.BytesIO()
    tensors = every_dtype()
    torch.save(tensors, stream)
    (tmp_path / "pytorch_model.bin").write_bytes(stream.getvalue())
    check(dump(tmp_path), tensors)
