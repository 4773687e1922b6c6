"""The step graphs of GPT-2 and T5 against transformers in float64, apart from requests, sampling and beams: logits of given ids,
computed in pieces of several lengths from keys and values in the store."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import make
import tfi
import tfi_generate
from test_gpt2_t5 import dtypes, edit_config, edit_weights, t5_class

TOOL = Path(os.environ.get("TFINFER_DUMP_TENSORS", "dump_tensors")).with_name("step_logits")  # built beside it
pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="the program step_logits is not beside TFINFER_DUMP_TENSORS")


def step_logits(path, dtype, pieces, targets, sources=None):
    """Our logits of every token of `targets`, for each of `pieces` with so many tokens of each sequence a run."""

    def words(ids):
        return " ".join(str(i) for i in ids)

    lines = [words(t) if sources is None else f"{words(s)} | {words(t)}" for t, s in zip(targets, sources or targets)]
    out = subprocess.run(
        [TOOL, path, dtype, *(str(p) for p in pieces)], input=("\n".join(lines) + "\n").encode(), capture_output=True
    )
    assert out.returncode == 0, out.stderr
    return np.frombuffer(out.stdout, np.float32).reshape(len(pieces), sum(len(t) for t in targets), -1)


def reference_logits(model, targets, sources=None):
    found = []
    for i, target in enumerate(targets):
        ids = torch.tensor(np.asarray(target), dtype=torch.long)[None]
        with torch.no_grad():
            if sources is None:
                out = model(input_ids=ids)
            else:
                out = model(input_ids=torch.tensor(np.asarray(sources[i]), dtype=torch.long)[None], decoder_input_ids=ids)
        found.append(out.logits[0].double().numpy())
    return np.concatenate(found)


def check(tally, path, cls, dtype, pieces, targets, sources, want, what):
    def theirs():
        own = reference_logits(make.load(path, cls, torch.bfloat16), targets, sources)
        return 1.25 * np.linalg.norm(own - want) / np.linalg.norm(want)

    for piece, got in zip(pieces, step_logits(path, dtype, pieces, targets, sources)):
        bound = tally.fp32 if dtype == "fp32" else theirs
        tally.near(f"{dtype} steps", got, want, bound, f"{cls} {what}, {piece} tokens a run")


PIECES = [1000, 17, 1]


@pytest.mark.parametrize("dialect", range(len(make.GPT2_DIALECTS)))
def test_gpt2(dialect, rng, tally, tmp_path, have_bf16):
    cls = "GPT2LMHeadModel"
    cfg = make.gpt2_config(rng, **make.GPT2_DIALECTS[dialect])
    make.save(make.build(cls, cfg, rng), tmp_path)
    targets, _ = make.draw_ids(rng, cfg, [1, int(rng.integers(2, 40)), 16, 160])
    want = reference_logits(make.load_double(tmp_path, cls), targets)
    for dtype in dtypes(have_bf16):
        check(tally, tmp_path, cls, dtype, PIECES, targets, None, want, f"dialect {dialect}")


@pytest.mark.parametrize("dialect", range(len(make.T5_DIALECTS)))
@pytest.mark.parametrize("family", ["t5", "mt5"])
def test_t5(family, dialect, rng, tally, tmp_path, have_bf16):
    cls = t5_class(family, "ForConditionalGeneration")
    cfg = make.t5_config(family, rng, **make.T5_DIALECTS[dialect])
    make.save(make.build(cls, cfg, rng), tmp_path)
    targets, _ = make.draw_ids(rng, cfg, [33, 1, int(rng.integers(2, 40)), 200])
    sources, _ = make.draw_ids(rng, cfg, [150, int(rng.integers(2, 40)), 1, 16])
    want = reference_logits(make.load_double(tmp_path, cls), targets, sources)
    for dtype in dtypes(have_bf16):
        check(tally, tmp_path, cls, dtype, PIECES, targets, sources, want, f"dialect {dialect}")


@pytest.mark.parametrize("own_head", [False, True], ids=["tied", "untied"])
@pytest.mark.parametrize("scaled", [False, True], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("key", ["tie_word_embeddings", "scale_decoder_outputs"])
def test_t5_scaling_and_tying(key, scaled, own_head, rng, tally, tmp_path):
    """The scale is told by either key, the head by the file."""
    cfg = make.t5_config("t5", rng)
    model = make.build("T5ForConditionalGeneration", cfg, rng)
    make.save(model, tmp_path)
    head = model.shared.weight.detach()
    if own_head:
        head = torch.randn(head.shape) * 0.5
        edit_weights(tmp_path, lambda weights: {**weights, "lm_head.weight": head})
    if key == "tie_word_embeddings":
        edit_config(tmp_path, tie_word_embeddings=scaled, scale_decoder_outputs=...)
    else:
        edit_config(tmp_path, tie_word_embeddings=True, scale_decoder_outputs=scaled)
    targets, _ = make.draw_ids(rng, cfg, [9, 20])
    sources, _ = make.draw_ids(rng, cfg, [30, 1])
    theirs = make.load_double(tmp_path, "T5ForConditionalGeneration")
    assert theirs.config.scale_decoder_outputs == scaled
    assert torch.equal(theirs.lm_head.weight.float(), head)
    want = reference_logits(theirs, targets, sources)
    check(tally, tmp_path, "T5ForConditionalGeneration", "fp32", [7], targets, sources, want, f"{key} {scaled}, {own_head}")


def test_mt5_never_scales(rng, tally, tmp_path):
    cls = "MT5ForConditionalGeneration"
    cfg = make.t5_config("mt5", rng)
    make.save(make.build(cls, cfg, rng), tmp_path)
    targets, _ = make.draw_ids(rng, cfg, [9])
    want = reference_logits(make.load_double(tmp_path, cls), targets, targets)
    for tied in (True, False):
        edit_config(tmp_path, tie_word_embeddings=tied)
        check(tally, tmp_path, cls, "fp32", [4], targets, targets, want, f"tie_word_embeddings {tied}")


@pytest.mark.parametrize("missing", ["shared.weight", "lm_head.weight"])
def test_t5_head_or_table_alone(missing, rng, tally, tmp_path):
    """What the file lacks comes from what it has."""
    cfg = make.t5_config("t5", rng)
    model = make.build("T5ForConditionalGeneration", cfg, rng)
    make.save(model, tmp_path)
    table = {"shared.weight", "lm_head.weight"}.difference([missing]).pop()

    def change(weights):
        kept = {k: v for k, v in weights.items() if not k.endswith(("shared.weight", "embed_tokens.weight", "lm_head.weight"))}
        return {**kept, table: model.shared.weight.detach()}

    edit_weights(tmp_path, change)
    assert missing not in safetensors.torch.load_file(tmp_path / "model.safetensors")
    targets, _ = make.draw_ids(rng, cfg, [9, 3])
    want = reference_logits(model.double(), targets, targets)
    check(tally, tmp_path, "T5ForConditionalGeneration", "fp32", [5], targets, targets, want, f"without {missing}")


def test_gpt2_generates_to_the_last_position(rng, tally, tmp_path):
    """Every position is read, the token after the last one is still drawn; a prompt may fill all positions but be no longer."""
    cls = "GPT2LMHeadModel"
    cfg = make.gpt2_config(rng, n_positions=20, initializer_range=0.1)
    make.save(make.build(cls, cfg, rng), tmp_path)
    reference = make.load_double(tmp_path, cls)
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        assert model.info.max_context_tokens == 21
        for length in (1, 12, 20):
            ids = [int(i) for i in make.draw_ids(rng, cfg, [length])[0][0]]
            want = list(ids)
            while len(want) < 21:
                want.append(int(reference_logits(reference, [want])[-1].argmax()))
            got = tfi_generate.generate(session, ids, max_new_tokens=100)[0]
            tally.same((got.ids, got.finish), (want[length:], "length"), f"from {length} ids")
        with pytest.raises(tfi.Error) as e:
            tfi_generate.generate(session, [1] * 21, max_new_tokens=1)
        assert e.value.status == "INVALID"
