"""Models without a directory: tensors of a live torch model, copied and borrowed, in any layout and format, and directories
held in memory, give to the bit what the same model gives from its directory."""

import gc
import json

import numpy as np
import pytest
import torch

import make
import tfi
import tfi_source
from tfi_generate import Generate
from tfi_source import Held, Model, config_file, directory_files, live_tensors

CLASSES = [
    ("bert", "BertForTokenClassification"),
    ("bert", "BertForMaskedLM"),
    ("bert", "BertModel"),
    ("roberta", "RobertaForSequenceClassification"),
    ("distilbert", "DistilBertForQuestionAnswering"),
    ("electra", "ElectraForPreTraining"),
    ("gpt2", "GPT2LMHeadModel"),
    ("gpt2", "GPT2ForSequenceClassification"),
    ("t5", "T5EncoderModel"),
    ("t5", "T5ForConditionalGeneration"),
]

SAME = dict(gemm_timing=0)  # of a GPU: the same products in each


def fresh(family, cls, rng):
    if family == "gpt2":
        cfg = make.gpt2_config(rng, pad_token_id=0)
    elif family == "t5":
        cfg = make.t5_config(family, rng, decoder_start_token_id=0, feed_forward_proj=str(rng.choice(["relu", "gated-gelu"])))
    else:
        cfg = make.config(family, rng)
    return make.build(cls, cfg, rng)


def outputs(model, ids, types):
    """Everything tf_encode has for this class."""
    with tfi.Session(model) as session:
        found = session.encode(tfi.Inputs(ids=ids, types=types))
        if model.info.tasks & tfi.TASK["generate"]:
            request = Generate(session, tfi.Inputs(ids=ids[:1]), max_new_tokens=12, logprobs=1)
            found["logprobs"] = np.array(request.wait().result().logprobs)
            request.close()
        return found


def same(got, want):
    assert got.keys() == want.keys() and got
    for name in want:
        assert np.array_equal(got[name], want[name]), name


def scattered(tensor, rng, doubles=True):
    """The same numbers in another layout: transposed storage, gaps, one column further; sometimes in double precision."""
    if doubles and rng.integers(4) == 0:
        tensor = tensor.double()
    how = int(rng.integers(4))
    if how == 0 and tensor.dim() == 2:
        return tensor.t().contiguous().t()
    if how == 1:
        room = tensor.new_full([*tensor.shape[:-1], tensor.shape[-1] * 2 + 1], float("nan"))
        view = room[..., 1::2]
        return view.copy_(tensor)
    if how == 2:
        room = tensor.new_full([tensor.shape[0] + 3, *tensor.shape[1:]], float("nan"))
        return room[2:-1].copy_(tensor)
    return tensor.clone()


@pytest.mark.parametrize("dtype", ["fp32", "auto"])
@pytest.mark.parametrize("family, cls", CLASSES)
def test_live_model(family, cls, dtype, rng, tmp_path, tally):
    hf = fresh(family, cls, rng)
    if dtype == "auto":
        hf = hf.bfloat16()
    make.save(hf, tmp_path)
    ids, types = make.draw_ids(rng, hf.config, [5, 1, 33])
    with tfi.Model(tmp_path, dtype=dtype, **SAME) as model:
        want = outputs(model, ids, types)
    tensors = live_tensors(hf)
    ways = [(tensors, 0), (tensors, 1), ([(name, scattered(t, rng)) for name, t in tensors], int(rng.integers(2)))]
    if dtype == "auto":  # double precision would change which dtype auto takes
        ways.pop()
    for given, borrow in ways:
        held = Held({"config.json": config_file(hf)}, given, borrow=borrow)
        with Model(held, dtype=dtype, **SAME) as model:
            assert held.released == 1 - borrow and not held.open
            same(outputs(model, ids, types), want)
            tally.draws += 1
        assert held.released == 1
        assert "model.safetensors" not in held.asked


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no GPU")
@pytest.mark.parametrize("device", [b"cuda", b"cpu"])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family, cls", [CLASSES[0], CLASSES[6], CLASSES[9]])
def test_device_tensors(family, cls, kind, device, rng, tmp_path, tally):
    """Tensors in a GPU's memory, as they are, scattered there, and in part on the host."""
    hf = fresh(family, cls, rng).to(kind)
    make.save(hf, tmp_path)
    ids, types = make.draw_ids(rng, hf.config, [5, 1, 33])
    options = dict(SAME, device=device)
    with tfi.Model(tmp_path, **options) as model:
        want = outputs(model, ids, types)
    plain = [(name, t.cuda()) for name, t in live_tensors(hf)]
    odd = [(name, scattered(t, rng, doubles=False)) for name, t in plain]
    mixed = [(name, t.cpu() if rng.integers(2) else t) for name, t in odd]
    torch.cuda.synchronize()
    for tensors in plain, odd, mixed:
        held = Held({"config.json": config_file(hf)}, tensors, borrow=int(rng.integers(2)))
        with Model(held, **options) as model:
            same(outputs(model, ids, types), want)
            tally.draws += 1
        assert held.released == 1 and not held.open


def test_borrowed_outlives_nothing(rng, tmp_path):
    """A borrowed model stays right while torch's own stays, and holds no memory of its own for its tables."""
    hf = fresh("bert", "BertModel", rng)
    make.save(hf, tmp_path)
    ids, types = make.draw_ids(rng, hf.config, [7])
    with tfi.Model(tmp_path, dtype="fp32", **SAME) as model:
        want = outputs(model, ids, types)
    held = Held({"config.json": config_file(hf)}, live_tensors(hf), borrow=1)
    with Model(held, dtype="fp32", **SAME) as model:
        gc.collect()
        for _ in range(3):
            same(outputs(model, ids, types), want)
        with torch.no_grad():
            hf.embeddings.word_embeddings.weight.mul_(2)  # used in place, so this shows, on a processor
        changed = outputs(model, ids, types)
        if not tfi.DEVICE.startswith(b"cuda"):
            assert not np.array_equal(changed["hidden"], want["hidden"])
    assert held.released == 1


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shards", [False, True])
def test_directory_in_memory(safe, shards, rng, tmp_path):
    hf = fresh("bert", "BertForTokenClassification", rng)
    if safe:
        hf.save_pretrained(tmp_path, max_shard_size="40KB" if shards else "5GB")
    else:
        hf.config.architectures = [type(hf).__name__]
        hf.config.save_pretrained(tmp_path)
        state = hf.state_dict()
        if shards:
            index = {name: f"part-{i % 3}.bin" for i, name in enumerate(state)}
            for file in set(index.values()):
                torch.save({name: state[name] for name in state if index[name] == file}, tmp_path / file)
            (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
        else:
            torch.save(state, tmp_path / "pytorch_model.bin")
    ids, types = make.draw_ids(rng, hf.config, [9, 2])
    with tfi.Model(tmp_path, **SAME) as model:
        want = outputs(model, ids, types)
    held = Held(directory_files(tmp_path))
    assert len(held.files) > (3 if shards else 1)
    with Model(held, **SAME) as model:
        assert held.released == 1 and not held.open
        same(outputs(model, ids, types), want)


def test_sentence_transformer(rng, tmp_path):
    """Pooling and a dense layer in their folders; the dense layer's tensors have the folder's name in front."""
    hf = fresh("bert", "BertModel", rng)
    width, out = hf.config.hidden_size, 24
    dense = torch.nn.Linear(width, out)
    files = {
        "modules.json": [
            {"idx": 0, "name": "0", "path": "0_Transformer/", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": {
            "in_features": width, "out_features": out, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"
        },
    }
    files = {name: json.dumps(value).encode() for name, value in files.items()}
    files["0_Transformer/config.json"] = config_file(hf)
    tensors = [("0_Transformer/" + name, t) for name, t in live_tensors(hf)]
    tensors += [("2_Dense/linear." + name, t.detach()) for name, t in dense.named_parameters()]
    ids, _ = make.draw_ids(rng, hf.config, [6, 11])
    want = []
    for s in ids:
        given = torch.tensor(np.asarray(s))[None]
        with torch.no_grad():
            hidden = hf(input_ids=given).last_hidden_state[0]
            want.append(torch.tanh(dense(hidden.mean(0))).numpy())
    held = Held(files, tensors)
    with Model(held, dtype="fp32", **SAME) as model, tfi.Session(model) as session:
        got = session.embed(tfi.Inputs(ids=ids), normalize=0)
    assert np.linalg.norm(got - np.array(want)) <= 1e-5 * np.linalg.norm(want)
    files.pop("2_Dense/config.json")
    with pytest.raises(tfi.Error, match="2_Dense/config.json"):
        Model(Held(files, tensors))


def test_failures(rng):
    hf = fresh("bert", "BertForTokenClassification", rng)
    files, tensors = {"config.json": config_file(hf)}, live_tensors(hf)

    def refused(status, *words, files=files, tensors=tensors):
        held = Held(files, tensors)
        with pytest.raises(tfi.Error) as e:
            Model(held)
        assert e.value.status == status
        assert all(word in str(e.value) for word in words), str(e.value)
        assert held.released == 1 and not held.open

    refused("NOT_FOUND", "live: no file config.json", files={})
    for name, _ in tensors:
        refused("NOT_FOUND", name.removeprefix("bert."), tensors=[t for t in tensors if t[0] != name])
    longer = [(name, torch.zeros(7) if name == "classifier.bias" else t) for name, t in tensors]
    refused("CORRUPT", "classifier.bias", "[7]", tensors=longer)
    refused("INVALID", "stored twice", tensors=tensors + tensors[:1])
