"""fp16, which devices have and the CPU has not: every family against transformers in float64, and T5 with weights that overflow an fp16 residual
stream. Needs --device."""

import numpy as np
import pytest
import torch
import transformers

import make
import tfi

pytestmark = pytest.mark.skipif(
    not tfi.DEVICE or not tfi.DEVICE.startswith(b"cuda"), reason="fp16 is a GPU's: run with --device cuda"
)
BOUND = 3e-3


def near(tally, got, want, what):
    tally.near("fp16", got, want, BOUND, what)


@pytest.mark.parametrize("family", make.FAMILIES)
def test_encoders(family, rng, tally, tmp_path):
    cls = make.FAMILIES[family] + "Model"
    cfg = make.config(family, rng, **make.ODD[0])
    make.save(make.build(cls, cfg, rng), tmp_path)
    ids, types = make.draw_ids(rng, cfg, make.draw_lengths(rng))
    want = make.run(make.load_double(tmp_path, cls), ids, types)
    with tfi.Model(tmp_path, dtype="fp16") as model, tfi.Session(model) as session:
        near(tally, session.encode(tfi.Inputs(ids=ids, types=types))["hidden"][-1], want["hidden"][-1], cls)


def test_gpt2(rng, tally, tmp_path):
    cls = "GPT2LMHeadModel"
    cfg = make.gpt2_config(rng, **make.GPT2_DIALECTS[0])
    make.save(make.build(cls, cfg, rng), tmp_path)
    ids, _ = make.draw_ids(rng, cfg, [1, 7, 33, 128])
    want = make.run(make.load_double(tmp_path, cls), ids)
    with tfi.Model(tmp_path, dtype="fp16") as model, tfi.Session(model) as session:
        got = session.encode(tfi.Inputs(ids=ids))
        for name in set(want) - {"hidden"}:
            near(tally, got[name], want[name], name)


@pytest.mark.parametrize("scale", [1, 400])
def test_t5_encoder(scale, rng, tally, tmp_path):
    """`scale` times the feed-forward's outputs and the word table: sums of the residual stream then pass 65504."""
    cls = "T5ForConditionalGeneration"
    cfg = make.t5_config("t5", rng, **make.T5_DIALECTS[0])
    model = make.build(cls, cfg, rng)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if scale > 1 and name.endswith("DenseReluDense.wo.weight"):
                weight.mul_(scale)
    make.save(model, tmp_path)
    ids, _ = make.draw_ids(rng, cfg, [3, 40, 90])
    want = make.run(make.load_double(tmp_path, cls).get_encoder(), ids)["hidden"]
    with tfi.Model(tmp_path, dtype="fp16") as opened, tfi.Session(opened) as session:
        got = session.encode(tfi.Inputs(ids=ids))["hidden"]
        near(tally, got[-1], want[-1], f"scale {scale}, largest value {np.abs(want[:-1]).max():.0f}")


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_auto(family, rng, tmp_path):
    """"auto" is what is stored."""
    cls, cfg = {
        "bert": ("BertModel", lambda: make.config("bert", rng, **make.ODD[0])),
        "gpt2": ("GPT2LMHeadModel", lambda: make.gpt2_config(rng, **make.GPT2_DIALECTS[0])),
        "t5": ("T5ForConditionalGeneration", lambda: make.t5_config("t5", rng, **make.T5_DIALECTS[0])),
    }[family]
    getattr(transformers, cls)(cfg()).half().save_pretrained(tmp_path)
    with tfi.Model(tmp_path) as model:
        assert model.info.dtype == tfi.DTYPE["fp16"]
        assert model.info.device == tfi.DEVICE
