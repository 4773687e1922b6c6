"""Model.open_source: checkpoints in memory, from torch tensors, arrays and files; wrong ones."""

import ctypes
import gc
import json
import weakref

import numpy as np
import pytest
import tfinfer
import torch
import transformers
from conftest import MODELS
from tfinfer import _c, errors
from tfinfer._source import Source

TEXT = "the lord said unto moses where is thy brother"


def files_of(path):
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.suffix != ".safetensors"}


def opened(files, tensors=None, **options):
    return tfinfer.Model.open_source(files, tensors, device="cpu", dtype="fp32", **options)


@pytest.fixture(scope="module")
def parts():
    path = MODELS / "bert-punctuate"
    model = transformers.BertForTokenClassification.from_pretrained(path, dtype=torch.float32)
    return files_of(path), {name: t for name, t in model.state_dict().items() if t.is_floating_point()}


def test_tensors(parts, punctuate):
    files, tensors = parts
    want = punctuate.ner(TEXT)
    arrays = {name: t.numpy() for name, t in tensors.items()}
    odd = {name: np.asfortranarray(array) for name, array in arrays.items()}
    spread = {name: np.repeat(array, 2, axis=-1)[..., ::2] for name, array in arrays.items()}
    double = {name: t.double() for name, t in tensors.items()}
    foreign = {name: array.astype(">f4") for name, array in arrays.items()}
    packed = {name: np.zeros(array.shape, [("a", "i1"), ("b", "f4")]) for name, array in arrays.items()}
    for name, array in arrays.items():
        packed[name]["b"] = array
    loose = {name: array["b"] for name, array in packed.items()}  # five bytes from one number to the next
    for given in (tensors, arrays, odd, spread, double, foreign, loose):
        for borrow in (False, True):
            with opened(files, given, borrow=borrow) as model:
                assert [(e.label, e.start, e.end) for e in model.ner(TEXT)] == [(e.label, e.start, e.end) for e in want]
    text = {name: data.decode() for name, data in files.items()}
    with opened(text, {name: t.half() for name, t in tensors.items()}) as model:
        assert [e.label for e in model.ner(TEXT)] == [e.label for e in want]


def test_a_directory_in_memory(minilm, embedder):
    files = files_of(minilm)
    weights = [p for p in minilm.iterdir() if p.suffix == ".safetensors"]
    files.update({p.name: memoryview(p.read_bytes()) for p in weights})
    with opened(files, label="row 7") as model:
        np.testing.assert_allclose(model.embed(TEXT), embedder.embed(TEXT), atol=1e-6)


def test_what_is_held(parts):
    """Tensors until the model is open, borrowed ones until it is closed."""
    files, tensors = parts
    for borrow in (False, True):
        copies = {name: t.clone() for name, t in tensors.items()}
        kept = weakref.ref(copies["bert.embeddings.word_embeddings.weight"])
        model = opened(files, copies, borrow=borrow)
        want = model.ner(TEXT)
        del copies
        gc.collect()
        assert (kept() is not None) == borrow
        assert model.ner(TEXT) == want
        model.close()
        gc.collect()
        assert kept() is None


def test_wrong_sources(parts):
    files, tensors = parts
    name = "classifier.weight"
    for error, words, more in (
        (TypeError, "PyTorch's or a NumPy array", {name: [1.0, 2.0]}),
        (TypeError, "floating-point", {name: torch.ones(2, 2, dtype=torch.int32)}),
        (TypeError, "floating-point", {name: np.ones((2, 2), complex)}),
        (TypeError, "CPU or a CUDA", {name: torch.ones(2, 2, device="meta")}),
        (TypeError, "must be a string", {7: torch.ones(2)}),
        (ValueError, "NUL", {"a\0b": torch.ones(2)}),
        (ValueError, "8 dimensions", {name: torch.ones([1] * 9)}),
        (errors.CorruptError, name, {name: torch.ones(2, 2)}),
        (errors.InvalidError, "stride", {name: np.ones((21, 17), np.float32)[::-1]}),
    ):
        with pytest.raises(error, match=words):
            opened(files, {**tensors, **more})
    with pytest.raises(errors.NotFoundError, match=name):
        opened(files, {k: v for k, v in tensors.items() if k != name})
    for error, words, given in (
        (errors.NotFoundError, "config.json", {}),
        (errors.CorruptError, "config.json", {"config.json": b"{"}),
        (errors.CorruptError, "config.json", {"config.json": b""}),
        (TypeError, "bytes or a string", {"config.json": 7}),
        (TypeError, "must be a dict", [("config.json", b"")]),
        (TypeError, "bytes or a string", {"config.json": None}),
        (TypeError, "must be a string", {7: b""}),
    ):
        with pytest.raises(error, match=words):
            opened(given, tensors)
    with pytest.raises(errors.UnsupportedError, match="no-such"):
        opened({"config.json": json.dumps({"model_type": "no-such", "architectures": ["NoSuch"]})}, tensors)
    with pytest.raises(errors.NoMemoryError, match="budget"):
        opened(files, tensors, memory_budget=1000)

    def stop(done, total):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        opened(files, tensors, progress=stop)
    from tfinfer import _source

    gc.collect()
    assert not _source._living


def test_names_outlive_the_callback():
    """C reads them when the callback has returned: they must be the ones that the source holds."""
    source = Source({}, {"weight": np.zeros(3, np.float32)}, False, None)
    out = ctypes.pointer(_c.Tensor())
    assert source.tensor(0, out) == 0 and source.tensor(1, out) == _c.STATUS["end"]
    places = [ctypes.addressof(record) + _c.Tensor.name.offset for record in (out[0], source._tensors[0])]
    assert len({ctypes.c_void_p.from_address(place).value for place in places}) == 1 and out[0].name == b"weight"
