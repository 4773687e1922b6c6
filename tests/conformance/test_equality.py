"""What "the same as transformers" comes down to on a device: ids of 100 random greedy and 100 beam requests in fp32, which differ
nowhere but where the reference has no preference, and how far logits of each dtype lie from float64's. Each has its summary line."""

import numpy as np
import pytest
import torch

import generation
import tfi
from generation import different_ids, excuse
from test_generate import MODELS, draw_prompt, likely_ids, save
from tfi_generate import Generate, generate

CHOSEN = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12]  # of MODELS: all dialects of GPT-2, T5 with its head scaled or not, tied or not
REQUESTS = 10  # of each model and strategy: 100 in all
BOUNDS = dict(fp16=(torch.float16, 3e-3), bf16=(torch.bfloat16, 2e-2))
STEPS = 24


def draw_ends(rng, likely):
    return sorted({int(i) for i in rng.choice(likely, 2)}) if rng.random() < 0.7 else []


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
@pytest.mark.parametrize("model", CHOSEN)
def test_ids(model, strategy, rng, plain, tmp_path):
    reference = generation.Reference(tmp_path, save(tmp_path, rng, **MODELS[model]))
    with tfi.Model(tmp_path, dtype="fp32") as opened, tfi.Session(opened) as session:
        for _ in range(REQUESTS):
            prompt = draw_prompt(rng, opened.info.vocab_size)
            eos = draw_ends(rng, likely_ids(session, rng, prompt))
            settings = dict(max_new_tokens=int(rng.integers(1, STEPS)))
            if strategy == "beam":
                beams = int(rng.integers(2, 6))
                settings.update(num_beams=beams, num_return_sequences=beams)
            want = reference.generate(prompt, eos_token_id=eos or None, **settings)
            got = generate(session, prompt, eos_ids=eos, do_sample=0, **settings)
            different = different_ids(got, want)
            if different is not None:
                excuse(plain[strategy], want.margin(different[0]), f"{MODELS[model]}, {prompt}, {settings}: {different[1]}")
            else:
                plain[strategy].draws += 1


def own_error(path, cls, dtype, prompt, ids, want):
    own = generation.Reference(path, cls, dtype).teacher_forced(prompt, ids)
    return 1.25 * np.linalg.norm(own - want) / np.linalg.norm(want)


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("model", CHOSEN)
def test_logits(model, dtype, rng, tally, tmp_path, have_bf16):
    """Of every step of a greedy request, against the reference's behind the same ids."""
    if dtype == "fp16" and not (tfi.DEVICE or b"").startswith(b"cuda") or dtype == "bf16" and not have_bf16:
        pytest.skip(f"skipped: {dtype} does not run here")
    cls = save(tmp_path, rng, **MODELS[model])
    reference, what = generation.Reference(tmp_path, cls), f"{MODELS[model]} in {dtype}"
    with tfi.Model(tmp_path, dtype=dtype) as opened, tfi.Session(opened) as session:
        prompt = draw_prompt(rng, opened.info.vocab_size)
        settings = dict(max_new_tokens=STEPS, eos_ids=[], do_sample=0, keep_logits=1)
        with Generate(session, tfi.Inputs(ids=[prompt]), **settings) as request:
            ids = request.wait().result().ids
            got = np.stack([request.scores(step, 0, "logits") for step in range(STEPS)])
    want = reference.teacher_forced(prompt, ids)
    if dtype == "fp32":
        return tally.near("fp32 logits", got, want, tally.fp32, what)
    kind, least = BOUNDS[dtype]
    tally.near(f"{dtype} logits", got, want, lambda: own_error(tmp_path, cls, kind, prompt, ids, want), what, least)
