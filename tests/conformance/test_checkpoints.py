"""Checkpoints as they are met: every storage format, the names real files use, what must be refused, and bad input."""

import ctypes as C
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import make
import tfi


@pytest.fixture
def made(rng, tmp_path):
    """made(cls, **config): a saved model's directory and configuration."""

    def build(cls, name="plain", **settings):
        family = next(f for f, p in make.FAMILIES.items() if cls.startswith(p))
        cfg = make.config(family, rng, **settings)
        return make.save(make.build(cls, cfg, rng), tmp_path / name), cfg

    return build


def outputs(path, ids, types=None, **options):
    with tfi.Model(path, **dict(dtype="fp32") | options) as model, tfi.Session(model) as session:
        return session.encode(tfi.Inputs(ids=ids, types=types))


def variant(path, name, change=lambda tensors: tensors, write=None):
    """A copy of the directory `path` with other weights: `change` maps the state dict, `write(tensors, path)` stores it."""
    copy = path.parent / name
    shutil.copytree(path, copy)
    tensors = change(load_file(copy / "model.safetensors"))
    (copy / "model.safetensors").unlink()
    if write:
        write(tensors, copy)
    else:
        save_file(
            {n: t.contiguous().clone() for n, t in tensors.items()}, copy / "model.safetensors", metadata={"format": "pt"}
        )
    return copy


def edit_config(path, **changes):
    file = path / "config.json"
    settings = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in settings.items() if v is not None}))


def refused(path, status, *words, **options):
    """Opening fails with `status`, and the sentence holds each of `words`; the plan says no too where headers show it."""
    with pytest.raises(tfi.Error) as e:
        tfi.Model(path, **dict(dtype="fp32") | options).close()
    assert e.value.status in ((status,) if isinstance(status, str) else status), e.value
    for word in words:
        assert word in e.value.text, f"{word!r} is not in: {e.value.text}"


# ---------------------------------------------------------------- formats ----


def sharded_bin(tensors, path):
    names, shards = sorted(tensors), {}
    for part in range(3):
        file = f"pytorch_model-{part + 1:05}-of-00003.bin"
        torch.save({n: tensors[n] for n in names[part::3]}, path / file)
        shards.update({n: file for n in names[part::3]})
    (path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))


def strided(tensors):
    """Views: a transposed matrix, and two tensors that share one storage."""
    out = {n: (t.t().contiguous().t() if t.dim() == 2 and i % 2 else t) for i, (n, t) in enumerate(sorted(tensors.items()))}
    vectors = [n for n, t in out.items() if t.dim() == 1][:6]
    shared = torch.cat([out[n] for n in vectors])
    at = 0
    for n in vectors:
        size = out[n].numel()
        out[n], at = shared[at : at + size], at + size
    return out


def legacy_bin(tensors, path):
    torch.save(tensors, path / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def zip_bin(tensors, path):
    torch.save(tensors, path / "pytorch_model.bin")


WRITERS = dict(
    zip=zip_bin,
    legacy=legacy_bin,
    shards=sharded_bin,
    zip_views=lambda t, p: zip_bin(strided(t), p),
    legacy_views=lambda t, p: legacy_bin(strided(t), p),
    parameters=lambda t, p: zip_bin({n: torch.nn.Parameter(x) for n, x in t.items()}, p),
)


@pytest.mark.parametrize("writer", WRITERS)
def test_pytorch_files(writer, made, rng, tally):
    path, cfg = made("BertForTokenClassification")
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    want = outputs(path, ids, types)
    got = outputs(variant(path, writer, write=WRITERS[writer]), ids, types)
    for name in want:
        tally.near("formats", got[name], want[name], 1e-7, f"{writer} {name}")


def test_safetensors_shards(rng, tally, tmp_path):
    cfg = make.config("roberta", rng)
    model = make.build("RobertaModel", cfg, rng)
    make.save(model, tmp_path / "one")
    make.save(model, tmp_path / "shards", max_shard_size="60KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    want, got = (outputs(tmp_path / name, ids, types) for name in ("one", "shards"))
    tally.near("formats", got["hidden"], want["hidden"], 1e-7, "shards")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("writer", ["safetensors", "zip", "legacy"])
def test_stored_dtypes(dtype, writer, made, rng, tally, have_bf16):
    """Weights stored in another type, computed in fp32; "auto" takes bf16 for 16 bits where the processor has it."""
    path, cfg = made("BertModel")
    path = variant(
        path, "cast", lambda t: {n: x.to(dtype) for n, x in t.items()}, None if writer == "safetensors" else WRITERS[writer]
    )
    edit_config(path, dtype=str(dtype).removeprefix("torch."))
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    want = make.run(make.load_double(path, "BertModel"), ids, types)
    tally.near("fp32", outputs(path, ids, types)["hidden"], want["hidden"], 1e-5, f"{dtype} in {writer}")
    with tfi.Model(path) as model:
        assert model.info.dtype == tfi.DTYPE["bf16" if have_bf16 and dtype != torch.float64 else "fp32"]


# ------------------------------------------------------------------ names ----


def test_old_layer_norm_names(made, rng, tally):
    path, cfg = made("BertForSequenceClassification")
    old = variant(
        path,
        "old",
        lambda t: {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
            for n, x in t.items()
        },
    )
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    tally.near(
        "formats",
        outputs(old, ids, types)["sequence_logits"],
        outputs(path, ids, types)["sequence_logits"],
        1e-7,
        "gamma, beta",
    )


@pytest.mark.parametrize("family", make.FAMILIES)
def test_base_model_with_prefix(family, made, rng, tally):
    """A base model whose file has the prefix of a model with a head, that head's tensors included."""
    cls = make.FAMILIES[family] + "Model"
    path, cfg = made(cls)
    prefix = {"roberta": "roberta.", "camembert": "roberta.", "xlm-roberta": "roberta."}.get(family, family + ".")
    headed = variant(path, "headed", lambda t: {prefix + n: x for n, x in t.items()} | {"classifier.weight": torch.ones(2, 64)})
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    tally.near("formats", outputs(headed, ids, types)["hidden"], outputs(path, ids, types)["hidden"], 1e-7, prefix)


def test_headed_model_without_prefix(made, rng, tally):
    path, cfg = made("BertForTokenClassification")
    bare = variant(path, "bare", lambda t: {n.removeprefix("bert."): x for n, x in t.items()})
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    tally.near(
        "formats", outputs(bare, ids, types)["token_logits"], outputs(path, ids, types)["token_logits"], 1e-7, "no prefix"
    )


DECODERS = [
    ("BertForMaskedLM", "cls.predictions.decoder", "bert.embeddings", "cls.predictions.bias"),
    ("BertForPreTraining", "cls.predictions.decoder", "bert.embeddings", "cls.predictions.bias"),
    ("RobertaForMaskedLM", "lm_head.decoder", "roberta.embeddings", "lm_head.bias"),
    ("DistilBertForMaskedLM", "vocab_projector", "distilbert.embeddings", None),
    ("ElectraForMaskedLM", "generator_lm_head", "electra.embeddings", None),
]


@pytest.mark.parametrize("cls, decoder, embeddings, bias", DECODERS, ids=[d[0] for d in DECODERS])
def test_tied_decoder(cls, decoder, embeddings, bias, made, rng, tally):
    """decoder.weight there or not, its bias under either of its names, and buffers that are no weights."""
    path, cfg = made(cls)
    words = embeddings + ".word_embeddings.weight"
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    want = outputs(path, ids, types)["token_logits"]
    with_weight = variant(path, "with", lambda t: t | {decoder + ".weight": t[words].clone()})
    without = variant(path, "without", lambda t: {n: x for n, x in t.items() if n != decoder + ".weight"})
    buffers = variant(
        path, "buffers", lambda t: t | {embeddings + ".position_ids": torch.arange(512)[None], "unknown.tensor": torch.ones(3)}
    )
    for copy in (with_weight, without, buffers):
        tally.near("formats", outputs(copy, ids, types)["token_logits"], want, 1e-7, copy.name)
    if bias:
        stored = load_file(path / "model.safetensors")
        value = stored[bias] if bias in stored else stored[decoder + ".bias"]
        rest = {bias, decoder + ".bias"}
        for name in rest:
            copy = variant(path, name, lambda t: {n: x for n, x in t.items() if n not in rest} | {name: value.clone()})
            tally.near("formats", outputs(copy, ids, types)["token_logits"], want, 1e-7, name)


@pytest.mark.parametrize("cls", ["BertForMaskedLM", "RobertaForMaskedLM", "DistilBertForMaskedLM", "ElectraForMaskedLM"])
def test_untied_decoder(cls, made, rng, tally):
    """A head that config.json says is not tied has a matrix of its own in the file."""
    path, cfg = made(cls, tie_word_embeddings=False)
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    want = make.run(make.load_double(path, cls), ids, types)
    tally.near("fp32", outputs(path, ids, types)["token_logits"], want["token_logits"], tally.fp32, cls)


def test_config_defaults(made, rng, tally):
    """A config.json that leaves out what has a default, as older ones do."""
    for cls in ("BertModel", "RobertaModel", "DistilBertModel", "ElectraModel"):
        path, cfg = made(
            cls, name=cls, eps=1e-5 if cls.startswith("Roberta") else 1e-12, pad=1 if cls.startswith("Roberta") else 0
        )
        leave = (
            "layer_norm_eps",
            "hidden_act",
            "activation",
            "type_vocab_size",
            "pad_token_id",
            "position_embedding_type",
            "dtype",
            "transformers_version",
            "initializer_range",
            "tie_word_embeddings",
        )
        kept = {k: v for k, v in json.loads((path / "config.json").read_text()).items() if k not in leave}
        (path / "config.json").write_text(json.dumps(kept))
        ids, _ = make.draw_ids(rng, cfg, [9, 30])
        reference = make.load_double(path, cls)  # what is left out has transformers' own defaults
        tally.near("fp32", outputs(path, ids)["hidden"], make.run(reference, ids)["hidden"], 1e-5, cls)


def test_without_architectures(made, rng, tally):
    """A config.json that names no class is the base model, as AutoModel has it."""
    path, cfg = made("DistilBertModel")
    ids, _ = make.draw_ids(rng, cfg, [9, 30])
    want = outputs(path, ids)["hidden"]
    edit_config(path, architectures=None)
    tally.near("formats", outputs(path, ids)["hidden"], want, 1e-7, "no architectures")


# --------------------------------------------------------------- refusals ----

MISSING = [
    ("BertForSequenceClassification", "classifier.weight"),
    ("BertForTokenClassification", "classifier.bias"),
    ("BertForQuestionAnswering", "qa_outputs.weight"),
    ("BertForMaskedLM", "cls.predictions.transform.dense.weight"),
    ("BertForNextSentencePrediction", "cls.seq_relationship.weight"),
    ("RobertaForMaskedLM", "lm_head.dense.weight"),
    ("RobertaForSequenceClassification", "classifier.out_proj.weight"),
    ("BertModel", "encoder.layer.1.output.dense.bias"),
    ("DistilBertForSequenceClassification", "pre_classifier.weight"),
    ("DistilBertForMaskedLM", "vocab_transform.weight"),
    ("ElectraForPreTraining", "discriminator_predictions.dense_prediction.weight"),
    ("ElectraForMaskedLM", "generator_predictions.dense.weight"),
    ("ElectraForSequenceClassification", "classifier.dense.bias"),
    ("BertForSequenceClassification", "pooler.dense.weight"),
    ("DistilBertModel", "embeddings.position_embeddings.weight"),
]


@pytest.mark.parametrize("cls, tensor", MISSING)
def test_missing_tensor_is_named(cls, tensor, made):
    path, _ = made(cls)
    dropped = variant(path, "dropped", lambda t: {n: x for n, x in t.items() if not n.endswith(tensor)})
    assert len(load_file(dropped / "model.safetensors")) == len(load_file(path / "model.safetensors")) - 1
    refused(dropped, "NOT_FOUND", tensor)


def test_headless_checkpoint_is_refused(made):
    """The base model's file under a config.json that names a head: an error, never random weights."""
    path, _ = made("BertModel")
    for cls, tensor in (("BertForSequenceClassification", "classifier.weight"), ("BertForQuestionAnswering", "qa_outputs")):
        edit_config(path, architectures=[cls])
        refused(path, "NOT_FOUND", tensor)


@pytest.mark.parametrize(
    "cls",
    [
        "BertForMultipleChoice",
        "RobertaForMultipleChoice",
        "BertLMHeadModel",
        "RobertaForCausalLM",
        "ElectraForCausalLM",
        "DistilBertForMultipleChoice",
        "XLMRobertaForCausalLM",
    ],
)
def test_unsupported_heads_are_named(cls, made):
    path, _ = made(cls)
    refused(path, "UNSUPPORTED", cls)


@pytest.mark.parametrize(
    "settings, word",
    [
        (dict(model_type="mamba"), "mamba"),
        (dict(architectures=["BertForSomething"]), "BertForSomething"),
        (dict(position_embedding_type="relative_key"), "relative_key"),
        (dict(position_embedding_type="relative_key_query"), "relative_key_query"),
        (dict(hidden_act="mish_of_ours"), "mish_of_ours"),
        (dict(is_decoder=True), "is_decoder"),
    ],
)
def test_unsupported_settings_are_named(settings, word, made):
    path, _ = made("BertModel")
    edit_config(path, **settings)
    refused(path, "UNSUPPORTED", word)


@pytest.mark.parametrize(
    "settings, word",
    [
        (dict(hidden_size=2**40), "hidden_size"),
        (dict(hidden_size=-64), "hidden_size"),
        (dict(hidden_size=0), "hidden_size"),
        (dict(hidden_size="many"), "hidden_size"),
        (dict(hidden_size=65), ""),
        (dict(hidden_size=128), ""),
        (dict(num_attention_heads=0), "num_attention_heads"),
        (dict(num_attention_heads=7), "num_attention_heads"),
        (dict(num_hidden_layers=2**31), "num_hidden_layers"),
        (dict(num_hidden_layers=10**6), ""),
        (dict(num_hidden_layers=-1), "num_hidden_layers"),
        (dict(vocab_size=2**62), "vocab_size"),
        (dict(vocab_size=151), "word_embeddings"),
        (dict(intermediate_size=2**33), "intermediate_size"),
        (dict(max_position_embeddings=2**31), "max_position_embeddings"),
        (dict(max_position_embeddings=400), "position_embeddings"),
        (dict(type_vocab_size=5), "token_type_embeddings"),
        (dict(layer_norm_eps=-1.0), "layer_norm_eps"),
        (dict(pad_token_id=-5), "pad_token_id"),
    ],
)
def test_absurd_sizes(settings, word, made, rng):
    path, cfg = made("BertModel")
    before = (path / "config.json").read_text()
    edit_config(path, **settings)
    refused(path, ("CORRUPT", "UNSUPPORTED", "NOT_FOUND", "INVALID"), word)
    with pytest.raises(tfi.Error):
        tfi.plan(path)
    (path / "config.json").write_text(before)
    outputs(path, *make.draw_ids(rng, cfg, [5]))  # the next call works


def test_missing_files(made, tmp_path):
    refused(tmp_path / "nowhere", "NOT_FOUND", "nowhere")
    path, _ = made("BertModel")
    config, weights = path / "config.json", path / "model.safetensors"
    refused(variant(path, "no-weights", write=lambda tensors, copy: None), "NOT_FOUND", "model.safetensors")
    text = config.read_text()
    for bad in ("", "{", "[]", "null", '{"model_type": "bert", "model_type": "bert"}', "[" * 100000, '{"model_type": 7}'):
        config.write_text(bad)
        refused(path, ("CORRUPT", "UNSUPPORTED", "NOT_FOUND"), "config.json")
    config.write_text(text)
    data = weights.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    for size in (0, 4, 8, 100, header - 1, header, len(data) - 1):
        weights.write_bytes(data[:size])
        refused(path, ("CORRUPT", "IO"), "model.safetensors")
    weights.write_bytes(b"\xff" * 8 + data[8:])
    refused(path, "CORRUPT", "model.safetensors")
    weights.write_bytes(data)
    tfi.Model(path).close()


def test_wrong_shape_and_dtype(made):
    path, _ = made("BertModel")
    name = "encoder.layer.0.intermediate.dense.weight"
    for what, change in dict(
        shape=lambda x: x[:, :-1], order=lambda x: x.t(), rank=lambda x: x.flatten(), dtype=lambda x: x.to(torch.int32)
    ).items():
        refused(variant(path, what, lambda t: t | {name: change(t[name])}), ("CORRUPT", "UNSUPPORTED"), name)


def test_hostile_pickle(made, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    path, _ = made("BertModel")
    for legacy in (False, True):
        hostile = variant(
            path,
            f"hostile-{legacy}",
            write=lambda t, p: torch.save(
                dict(t, evil=Evil()), p / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy
            ),
        )
        refused(hostile, ("CORRUPT", "UNSUPPORTED"), "pytorch_model.bin", "open")
    assert not (tmp_path / "written").exists()


# -------------------------------------------------------------- bad input ----


def test_bad_input_and_the_next_call(made, rng, tally):
    path, cfg = made("BertForTokenClassification", tokens=64)
    good, types = make.draw_ids(rng, cfg, [9, 30])
    with tfi.Model(path, dtype="fp32") as model, tfi.Session(model) as session:
        want = session.encode(tfi.Inputs(ids=good, types=types))

        def bad(*words, status="INVALID", **inputs):
            made = inputs.pop("inputs", None) or tfi.Inputs(**inputs)
            with pytest.raises(tfi.Error) as e:
                session.encode(made, tokens=200)
            assert e.value.status == status, e.value
            for word in words:
                assert word in e.value.text, f"{word!r} is not in: {e.value.text}"
            got = session.encode(tfi.Inputs(ids=good, types=types))
            tally.near("formats", got["hidden"], want["hidden"], 1e-7, "the next call")

        bad("150", ids=[[1, 2], [3, 150]])
        bad("-1", ids=[[1, -1]])
        bad("65", ids=[[1] * 65])
        bad("2", ids=[[1, 1]], types=[[0, 2]])
        bad(ids=[[1, 1]], types=[[0, -1]])
        bad(ids=[[1], []])
        bad(texts=["no tokenizer here"], status="UNSUPPORTED")
        bad(embeddings=[np.full((3, 64), np.nan)], status="NUMERIC")
        bad(embeddings=[np.full((3, 64), np.inf)], status="NUMERIC")
        both = tfi.Inputs(texts=["texts, and ids"])
        ids = np.array([1, 2], np.int32)
        both.c.ids = tfi.pointer(ids, tfi.INTS)
        bad(inputs=both)
        bad(ids=[[1, -1]])  # a row of embeddings, and there are none
        none = tfi.Inputs(ids=[[1, 2]])
        none.c.ids = None
        bad(inputs=none)
        no_lens = tfi.Inputs(ids=[[1, 2]])
        no_lens.c.lens = None
        bad(inputs=no_lens)
        negative = tfi.Inputs(ids=[[1, 2]])
        negative.c.count = -1
        bad(inputs=negative)
        for task in (session.classify, session.answer, session.fill_mask):
            with pytest.raises(tfi.Error) as e:
                task(tfi.Inputs(ids=good))
            assert e.value.status == "UNSUPPORTED", e.value
        for layer in (-1, 3):
            with pytest.raises(tfi.Error) as e:
                session.encode(tfi.Inputs(ids=good), layers=[layer])
            assert e.value.status == "INVALID", e.value


def test_sequence_longer_than_a_step(made, rng):
    path, cfg = made("BertModel")
    ids, types = make.draw_ids(rng, cfg, [33])
    with tfi.Model(path, dtype="fp32") as model, tfi.Session(model, max_step_tokens=32) as session:
        with pytest.raises(tfi.Error) as e:
            session.encode(tfi.Inputs(ids=ids, types=types))
        assert e.value.status == "INVALID" and "32" in e.value.text, e.value
        session.encode(tfi.Inputs(ids=[ids[0][:32]], types=[types[0][:32]]))


def test_nan_weights(made, rng):
    path, cfg = made("BertForSequenceClassification")
    name = "bert.encoder.layer.0.output.dense.bias"
    broken = variant(path, "broken", lambda t: t | {name: torch.full_like(t[name], float("nan"))})
    ids, types = make.draw_ids(rng, cfg, [9, 30])
    with tfi.Model(broken, dtype="fp32") as model, tfi.Session(model) as session:
        for call in (lambda i: session.encode(i), lambda i: session.encode(i, hidden=False), session.classify, session.embed):
            with pytest.raises(tfi.Error) as e:
                call(tfi.Inputs(ids=ids, types=types))
            assert e.value.status == "NUMERIC", e.value
    outputs(path, ids, types)


def test_options_are_checked(made):
    path, _ = made("BertModel")
    refused(path, "UNSUPPORTED", "fp16", dtype="fp16")
    refused(path, "UNSUPPORTED", "tf32", dtype="tf32")
    refused(path, "UNSUPPORTED", "cuda", device=b"cuda")
    refused(path, ("UNSUPPORTED", "INVALID"), "teapot", device=b"teapot")
    refused(path, "UNSUPPORTED", "int8", quantization=1)
    refused(path, "INVALID", "threads", threads=0)
    refused(path, "INVALID", "threads", threads=1025)
    refused(path, "NOMEM", memory_budget=1000)
    refused(path, "INVALID", struct_size=4)
    with tfi.Model(path, dtype="fp32") as model:
        for options in (dict(max_step_tokens=0), dict(max_step_tokens=2**21), dict(max_sequences=0)):
            with pytest.raises(tfi.Error) as e:
                tfi.Session(model, **options)
            assert e.value.status == "INVALID", e.value
        with pytest.raises(tfi.Error) as e:
            tfi.Session(model, memory_budget=1000)
        assert e.value.status == "NOMEM" and "1000" in e.value.text, e.value


def test_progress_cancels(made, rng):
    path, cfg = made("BertModel")
    seen = []
    stop = tfi.PROGRESS(lambda user, done, total: seen.append((done, total)) or 1)
    refused(path, "CANCELLED", progress=stop)
    ids, types = make.draw_ids(rng, cfg, [300] * 4)
    watched = tfi.PROGRESS(lambda user, done, total: seen.append((done, total)) or 0)
    with tfi.Model(path, dtype="fp32", progress=watched) as model, tfi.Session(model, max_step_tokens=512) as session:
        assert seen[-1][0] == seen[-1][1] > 0, "the last report of a load is not complete"
        seen.clear()
        with pytest.raises(tfi.Error) as e:
            session.encode(tfi.Inputs(ids=ids, types=types, progress=stop))
        assert e.value.status == "CANCELLED" and len(seen) == 1
        seen.clear()
        session.encode(tfi.Inputs(ids=ids, types=types, progress=watched))
        assert len(seen) >= 4 and seen[-1] == (1200, 1200)


def test_log_reports_ignored_tensors_without_printing(made, capfd):
    path, _ = made("BertModel")
    lines = []
    log = tfi.LOG(lambda user, level, text: lines.append(text.decode()))
    tfi.Model(variant(path, "extra", lambda t: t | {"unknown.tensor": torch.ones(3)}), log=log).close()
    assert not any(capfd.readouterr()), "the library printed"
    assert all(isinstance(line, str) and "\n" not in line for line in lines)
