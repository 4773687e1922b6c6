"""GPT-2 and the encoder of T5 with fresh random weights against transformers in float64: every dialect and class, names that real
files have, what is refused."""

import ctypes as C
import json

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import make
import tfi
from test_models import alone, compare, head_settings, only, same_outputs


def dtypes(have_bf16):
    return ["fp32", "bf16"] if have_bf16 else ["fp32"]


def lengths_of(rng, most):
    return [int(n) for n in rng.permutation([1, 2, most, *rng.integers(3, most // 2, 3)])]


def edit_config(path, **keys):
    file = path / "config.json"
    config = json.loads(file.read_text())
    config.update(keys)
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def edit_weights(path, change):
    file = path / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    safetensors.torch.save_file(change(weights), file, metadata={"format": "pt"})


def refused(path, status, *words):
    with pytest.raises(tfi.Error) as e:
        tfi.Model(path, dtype="fp32")
    assert e.value.status == status, e.value
    for word in words:
        assert word in str(e.value)


# ---- GPT-2 ----


@pytest.mark.parametrize("dialect", range(len(make.GPT2_DIALECTS)))
@pytest.mark.parametrize("cls", make.GPT2_CLASSES)
def test_gpt2(cls, dialect, rng, tally, tmp_path, have_bf16):
    pad = int(rng.integers(0, 60)) if rng.integers(2) else None
    cfg = make.gpt2_config(rng, **make.GPT2_DIALECTS[dialect], **head_settings(cls, rng), pad_token_id=pad)
    make.save(make.build(cls, cfg, rng), tmp_path)
    lengths = lengths_of(rng, cfg.n_positions)
    ids, _ = make.draw_ids(rng, cfg, lengths)
    if pad is not None:
        ids[0][-1:] = ids[1][:] = pad  # padding at the end, and nothing but padding
    want = make.run(make.load_double(tmp_path, cls), ids)
    for dtype in dtypes(have_bf16):
        with tfi.Model(tmp_path, dtype=dtype) as model:
            info = model.info
            assert (info.family, info.architecture, info.has_encoder) == (b"gpt2", cls.encode(), 0)
            assert (info.layers, info.heads, info.width) == (cfg.n_layer, cfg.n_head, cfg.n_embd)
            assert (info.vocab_size, info.max_input_tokens) == (cfg.vocab_size, 160)
            assert info.max_context_tokens == (161 if cls == "GPT2LMHeadModel" else 0)
            assert bool(info.tasks & tfi.TASK["generate"]) == (cls == "GPT2LMHeadModel")
            with tfi.Session(model) as session:
                got = session.encode(tfi.Inputs(ids=ids))
                compare(tally, dtype, got, want, tmp_path, cls, ids, None)
                some = list(rng.choice(len(ids), 2, replace=False))
                same_outputs(
                    tally,
                    f"{dtype} invariance",
                    alone(session, ids, None, some),
                    only(got, lengths, some),
                    tally.invariance(dtype),
                    f"{cls} alone",
                    got,
                )


@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_parameters_and_graphs(cls, rng, tmp_path):
    """Every parameter is counted once, and both graphs are printed, in a buffer of exactly the size that was asked for."""
    make.save(make.build(cls, make.gpt2_config(rng) if "GPT2" in cls else make.t5_config("t5", rng), rng), tmp_path)
    with tfi.Model(tmp_path, dtype="fp32") as model:
        assert model.info.parameters == sum(p.numel() for p in make.load(tmp_path, cls).parameters())
        for form in (0, 1):
            size, again = C.c_int64(), C.c_int64()

            def print_graphs(text, capacity, out):
                return tfi.lib.tf_model_graph(model.handle, form, text, C.c_int64(capacity), C.byref(out))

            assert print_graphs(None, 0, size) == tfi.STATUS["TOO_SMALL"]
            for capacity in (size.value, size.value - 1, size.value // 4, 1):
                text = C.create_string_buffer(b"~" * (size.value + 1))
                status = print_graphs(text, capacity, again)
                assert (status, again.value) == (0 if capacity == size.value else tfi.STATUS["TOO_SMALL"], size.value)
                assert set(text.raw[capacity:-1]) == {ord("~")}, "tf_model_graph wrote behind its capacity"
                if status == 0:
                    assert all(word in text.raw for word in (b"embeddings", b"KV_APPEND", b"SAMPLE"))


@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_failing_allocations(cls, rng, tmp_path):
    """Whichever allocation of opening fails: NOMEM, and nothing is lost."""

    class Failing(tfi.CountingAllocator):
        left = 0

        def take(self, _, size, align):
            self.left -= 1
            return super().take(_, size, align) if self.left >= 0 else None

    small = dict(n_layer=1, n_head=1, n_embd=8) if "GPT2" in cls else dict(num_layers=1, num_decoder_layers=1, d_model=8)
    cfg = make.gpt2_config(rng, **small) if "GPT2" in cls else make.t5_config("t5", rng, **small)
    make.save(make.build(cls, cfg, rng), tmp_path)
    for n in range(2000):
        allocator = Failing()
        allocator.left = n
        try:
            tfi.Model(tmp_path, dtype="fp32", **allocator.options).close()
        except tfi.Error as e:
            assert e.status == "NOMEM", e
        else:
            break
        finally:
            assert allocator.held == 0, f"{allocator.held} bytes are lost when allocation {n} fails"
    else:
        pytest.fail("opening never succeeded")


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_gpt2_names(prefix, rng, tally, tmp_path):
    """With and without the prefix; buffers of old files are ignored; a head of its own where the file has one."""
    cfg = make.gpt2_config(rng, n_layer=2)
    reference = make.build("GPT2LMHeadModel", cfg, rng)
    make.save(reference, tmp_path)
    n = cfg.n_positions
    own = torch.randn(cfg.vocab_size, cfg.n_embd) * 0.05

    def change(weights):
        out = {prefix + k.removeprefix("transformer."): v for k, v in weights.items()}
        for i in range(2):
            out[f"{prefix}h.{i}.attn.bias"] = torch.tril(torch.ones(n, n, dtype=torch.uint8))[None, None]
            out[f"{prefix}h.{i}.attn.masked_bias"] = torch.tensor(-1e4)
        if prefix:
            out["lm_head.weight"] = own
        return out

    edit_weights(tmp_path, change)
    if prefix:
        reference.lm_head.weight = torch.nn.Parameter(own)
    ids, _ = make.draw_ids(rng, cfg, [7, 30])
    want = make.run(reference.double(), ids)
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        got = session.encode(tfi.Inputs(ids=ids))
        for name in want:
            tally.near("fp32", got[name], want[name], tally.fp32, f"GPT2LMHeadModel as {prefix!r}, {name}")


def test_gpt2_from_embeddings(rng, tally, tmp_path):
    cfg = make.gpt2_config(rng, num_labels=3, pad_token_id=5)
    make.save(make.build("GPT2ForSequenceClassification", cfg, rng), tmp_path)
    vectors = [rng.normal(0, 0.1, (n, cfg.n_embd)).astype(np.float32) for n in (3, 1, 50)]
    want = make.run(make.load_double(tmp_path, "GPT2ForSequenceClassification"), embeddings=vectors)
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        got = session.encode(tfi.Inputs(embeddings=vectors))
        logits, _ = session.classify(tfi.Inputs(embeddings=vectors))
        np.testing.assert_array_equal(logits, got["sequence_logits"])
        for name in want:
            tally.near("fp32", got[name], want[name], tally.fp32, f"from embeddings, {name}")


def test_gpt2_embed(rng, tally, tmp_path):
    """Without modules.json: the mean of the last hidden state."""
    cfg = make.gpt2_config(rng)
    make.save(make.build("GPT2Model", cfg, rng), tmp_path)
    ids, _ = make.draw_ids(rng, cfg, [3, 40])
    model = make.load_double(tmp_path, "GPT2Model")
    want = np.stack([make.run(model, [s])["hidden"][-1].mean(axis=0) for s in ids])
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        tally.near("fp32", session.embed(tfi.Inputs(ids=ids)), want, 1e-5, "mean")


@pytest.mark.parametrize("cls", ["GPT2ForQuestionAnswering", "GPT2DoubleHeadsModel", "GPT2ForNothing"])
def test_gpt2_refused_classes(cls, rng, tmp_path):
    make.save(make.build("GPT2Model", make.gpt2_config(rng), rng), tmp_path)
    edit_config(tmp_path, architectures=[cls])
    refused(tmp_path, "UNSUPPORTED", cls, "gpt2")


def test_gpt2_refused_settings(rng, tmp_path):
    cfg = make.gpt2_config(rng, n_head=2, n_embd=24)
    make.save(make.build("GPT2LMHeadModel", cfg, rng), tmp_path)
    for status, keys, word in [
        ("UNSUPPORTED", dict(add_cross_attention=True), "add_cross_attention"),
        ("UNSUPPORTED", dict(is_causal=False), "is_causal"),
        ("UNSUPPORTED", dict(activation_function="mish"), "mish"),
        ("CORRUPT", dict(n_head=5), "n_head"),
        ("CORRUPT", dict(n_inner=48), "c_fc"),
        ("CORRUPT", dict(n_positions=1000), "wpe.weight"),
        ("CORRUPT", dict(layer_norm_epsilon="small"), "layer_norm_epsilon"),
        ("NOT_FOUND", dict(n_layer=9), "ln_1.weight"),
        ("NOT_FOUND", dict(tie_word_embeddings=False), "lm_head.weight"),
        ("NOT_FOUND", dict(architectures=["GPT2ForSequenceClassification"]), "score.weight"),
        ("NOT_FOUND", dict(architectures=["GPT2ForTokenClassification"]), "classifier.weight"),
    ]:
        before = (tmp_path / "config.json").read_text()
        edit_config(tmp_path, **keys)
        refused(tmp_path, status, word)
        (tmp_path / "config.json").write_text(before)


# ---- T5 ----


def t5_class(family, suffix):
    return ("MT5" if family == "mt5" else "T5") + suffix


@pytest.mark.parametrize("dialect", range(len(make.T5_DIALECTS)))
@pytest.mark.parametrize("suffix", make.T5_CLASSES)
@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_t5_encoder(family, suffix, dialect, rng, tally, tmp_path, have_bf16):
    cls = t5_class(family, suffix)
    cfg = make.t5_config(family, rng, **make.T5_DIALECTS[dialect])
    make.save(make.build(cls, cfg, rng), tmp_path)
    lengths = lengths_of(rng, 400)
    ids, _ = make.draw_ids(rng, cfg, lengths)
    want = make.run(make.load_double(tmp_path, cls).get_encoder(), ids)["hidden"]
    for dtype in dtypes(have_bf16):
        with tfi.Model(tmp_path, dtype=dtype) as model, tfi.Session(model) as session:
            info = model.info
            assert (info.family, info.architecture) == (family.encode(), cls.encode())
            assert (info.layers, info.heads, info.head_size) == (cfg.num_layers, cfg.num_heads, cfg.d_kv)
            assert (info.width, info.has_encoder, info.decoder_layers) == (cfg.d_model, 1, cfg.num_decoder_layers)
            generates = suffix == "ForConditionalGeneration"
            assert bool(info.tasks & tfi.TASK["generate"]) == generates
            assert info.max_context_tokens == (2**31 - 1 if generates else 0)
            got = session.encode(tfi.Inputs(ids=ids))
            assert set(got) == {"hidden"}

            def theirs(layer):
                own = make.run(make.load(tmp_path, cls, torch.bfloat16).get_encoder(), ids)["hidden"][layer]
                return 1.25 * np.linalg.norm(own - want[layer]) / np.linalg.norm(want[layer])

            for layer in range(len(want)):
                bound = 1e-5 if dtype == "fp32" else lambda: theirs(layer)
                tally.near(dtype, got["hidden"][layer], want[layer], bound, f"{cls} hidden state {layer}")
            some = list(rng.choice(len(ids), 2, replace=False))
            same_outputs(
                tally,
                f"{dtype} invariance",
                alone(session, ids, None, some),
                only(got, lengths, some),
                tally.invariance(dtype),
                f"{cls} alone",
                got,
            )
            means = np.stack([s.mean(axis=0) for s in np.split(want[-1], np.cumsum(lengths)[:-1])])
            tally.near(dtype, session.embed(tfi.Inputs(ids=ids)), means, 1e-5 if dtype == "fp32" else 2e-2, f"{cls} embedding")


@pytest.mark.parametrize("name", ["shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"])
def test_t5_word_table_names(name, rng, tally, tmp_path):
    """Files hold the shared table under any of its names."""
    cfg = make.t5_config("t5", rng)
    model = make.build("T5ForConditionalGeneration", cfg, rng)
    make.save(model, tmp_path)
    table = model.shared.weight.detach()

    def change(weights):
        kept = {k: v for k, v in weights.items() if not k.endswith(("shared.weight", "embed_tokens.weight", "lm_head.weight"))}
        return {**kept, name + ".weight": table}

    edit_weights(tmp_path, change)
    ids, _ = make.draw_ids(rng, cfg, [3, 40])
    want = make.run(model.double().get_encoder(), ids)["hidden"]
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        tally.near("fp32", session.encode(tfi.Inputs(ids=ids))["hidden"], want, 1e-5, name)
        parameters = sum(p.numel() for p in make.load(tmp_path, "T5ForConditionalGeneration").parameters())
        assert model.info.parameters == parameters


def test_t5_old_class_name(rng, tmp_path):
    make.save(make.build("T5ForConditionalGeneration", make.t5_config("t5", rng), rng), tmp_path)
    edit_config(tmp_path, architectures=["T5WithLMHeadModel"])
    with tfi.Model(tmp_path, dtype="fp32") as model:
        assert model.info.tasks & tfi.TASK["generate"]


def test_sentence_t5(rng, tally, tmp_path, have_bf16):
    """As sentence-t5 is saved: mean pooling, a dense layer without bias or activation, normalisation."""
    cfg = make.t5_config("t5", rng)
    model = make.build("T5EncoderModel", cfg, rng)
    make.save(model, tmp_path)
    dense = torch.randn(20, cfg.d_model) * 0.2
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    paths = ["", "1_Pooling", "2_Dense", "3_Normalize"]
    types = ["sentence_transformers.models." + k for k in kinds]
    modules = [dict(idx=i, name=str(i), path=p, type=t) for i, (p, t) in enumerate(zip(paths, types))]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    for path in paths[1:]:
        (tmp_path / path).mkdir()
    pooling = dict(word_embedding_dimension=cfg.d_model, pooling_mode_mean_tokens=True)
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(pooling))
    activation = "torch.nn.modules.linear.Identity"
    settings = dict(in_features=cfg.d_model, out_features=20, bias=False, activation_function=activation)
    (tmp_path / "2_Dense/config.json").write_text(json.dumps(settings))
    safetensors.torch.save_file({"linear.weight": dense}, tmp_path / "2_Dense/model.safetensors")
    ids, _ = make.draw_ids(rng, cfg, [1, 30, 300])
    reference = make.load_double(tmp_path, "T5EncoderModel")
    means = np.stack([make.run(reference, [s])["hidden"][-1].mean(axis=0) for s in ids])
    want = means @ dense.double().numpy().T
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    for dtype in dtypes(have_bf16):
        with tfi.Model(tmp_path, dtype=dtype) as model, tfi.Session(model) as session:
            bound = 1e-5 if dtype == "fp32" else 3e-2
            tally.near(dtype, session.embed(tfi.Inputs(ids=ids)), want, bound, "sentence-t5")


@pytest.mark.parametrize(
    "cls", ["T5ForSequenceClassification", "T5ForTokenClassification", "T5ForQuestionAnswering", "MT5EncoderModel"]
)
def test_t5_refused_classes(cls, rng, tmp_path):
    make.save(make.build("T5EncoderModel", make.t5_config("t5", rng), rng), tmp_path)
    edit_config(tmp_path, architectures=[cls])
    refused(tmp_path, "UNSUPPORTED", cls)


def test_t5_refused_settings(rng, tmp_path):
    cfg = make.t5_config("t5", rng, num_layers=2, num_decoder_layers=2, num_heads=2, d_kv=8)
    make.save(make.build("T5ForConditionalGeneration", cfg, rng), tmp_path)
    for status, keys, word in [
        ("UNSUPPORTED", dict(model_type="umt5"), "umt5"),
        ("UNSUPPORTED", dict(dense_act_fn="mish"), "mish"),
        ("UNSUPPORTED", dict(feed_forward_proj="gated-mish", dense_act_fn=...), "mish"),
        ("CORRUPT", dict(relative_attention_num_buckets=2), "relative_attention_num_buckets"),
        ("CORRUPT", dict(relative_attention_max_distance=16), "relative_attention_max_distance"),
        ("CORRUPT", dict(relative_attention_num_buckets=16), "relative_attention_bias"),
        ("CORRUPT", dict(d_kv=9), "q.weight"),
        ("NOT_FOUND", dict(num_layers=3), "encoder.block.2"),
        ("NOT_FOUND", dict(num_decoder_layers=3), "decoder.block.2"),
        ("NOT_FOUND", dict(is_gated_act=True), "wi_0.weight"),
    ]:
        before = (tmp_path / "config.json").read_text()
        edit_config(tmp_path, **keys)
        refused(tmp_path, status, word)
        (tmp_path / "config.json").write_text(before)


@pytest.mark.parametrize("family, activation", [("t5", "relu"), ("mt5", "gated-gelu")])
def test_t5_default_activation(family, activation, rng, tally, tmp_path):
    """Old files do not name it."""
    cls = t5_class(family, "EncoderModel")
    cfg = make.t5_config(family, rng, feed_forward_proj=activation)
    make.save(make.build(cls, cfg, rng), tmp_path)
    edit_config(tmp_path, feed_forward_proj=..., dense_act_fn=..., is_gated_act=...)
    ids, _ = make.draw_ids(rng, cfg, [20])
    want = make.run(make.load_double(tmp_path, cls), ids)["hidden"]
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        tally.near("fp32", session.encode(tfi.Inputs(ids=ids))["hidden"], want, 1e-5, f"{cls} without feed_forward_proj")
