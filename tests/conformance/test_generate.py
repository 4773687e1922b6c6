"""Generation against transformers in float64: random models, prompts and settings, and what a request keeps and starts from."""

import numpy as np
import pytest

import generation
import tfi
from generation import IMPOSSIBLE, MARGIN, our_settings
from tfi_generate import Generate, generate, generate_together

GPT2_DIALECTS = [
    dict(n_layer=2),
    dict(n_layer=3, activation_function="gelu", scale_attn_by_inverse_layer_idx=True, n_inner=100),
    dict(n_layer=2, activation_function="relu", scale_attn_weights=False, tie_word_embeddings=False),
    dict(n_layer=2, activation_function="gelu_pytorch_tanh", reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True),
    dict(n_layer=1, activation_function="silu", n_inner=257, tie_word_embeddings=False),
]
T5_DIALECTS = [
    dict(feed_forward_proj="relu", num_layers=2, num_decoder_layers=2),
    dict(feed_forward_proj="gated-gelu", num_layers=3, num_decoder_layers=1, d_kv=13),
    dict(feed_forward_proj="gated-silu", num_layers=1, num_decoder_layers=3, d_kv=7, relative_attention_num_buckets=16),
    dict(feed_forward_proj="gelu", num_layers=2, num_decoder_layers=2, relative_attention_max_distance=40),
]
MODELS = [dict(dialect) for dialect in GPT2_DIALECTS] + [
    dict(T5_DIALECTS[(2 * scaled + tied + shift) % 4], scaled=bool(scaled), tied=bool(tied), family=("t5", "mt5")[shift and scaled])
    for scaled in (0, 1)
    for tied in (0, 1)
    for shift in (0, 1)
]
REQUESTS = 17  # of each model: at least 200 in all


def save(path, rng, **dialect):
    return (generation.t5 if "scaled" in dialect else generation.gpt2)(path, rng, **dialect)


def draw_prompt(rng, vocab, most=30):
    return [int(i) for i in rng.integers(0, vocab, int(rng.integers(1, most)))]


def likely_ids(session, rng, prompt):
    """What a request without settings would write; and a few ids at random."""
    vocab = session.model.info.vocab_size
    return generate(session, prompt, max_new_tokens=12, eos_ids=[], do_sample=0)[0].ids + [int(i) for i in rng.integers(0, vocab, 3)]


def first_difference(got, want):
    """The first step at which one of the sequences differs, None if all are equal."""
    steps = []
    for a, b in zip(got, want):
        if a != b:
            steps.append(next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b))))
    return min(steps, default=None)


def compare_ids(generated, got, want, what):
    """True if the ids are the reference's; False if it was not sure itself: its margin at the first difference is too small. Where
    fewer beams were possible than wanted, the rest, with a score of about -1e9, is arbitrary."""
    possible = [i for i, score in enumerate(want.scores) if score > IMPOSSIBLE]
    ids, wanted = [got[i].ids for i in possible], [want.ids[i] for i in possible]
    step = first_difference(ids, wanted)
    if step is None:
        generated.draws += 1
        return True
    # which step of a beam search took another way is not to be seen in its results
    margin = want.margin_until(len(want.margins) if want.has_beams else step)
    if margin == 0:
        generated.ties += 1
        return False
    generated.draws += 1
    generated.require(margin < MARGIN, f"{what}: {ids}, expected {wanted}, margin {margin:.3g}")
    generated.excused += 1
    return False


def compare_kept(generated, request, want, what):
    """Raw logits and processed scores of every step and beam."""
    for kind, steps in (("logits", want.logits), ("processed", want.processed)):
        for step, rows in enumerate(steps):
            for row, expected in enumerate(rows):
                got = request.scores(step, row, kind)
                infinite = np.isinf(expected)
                generated.require(
                    (np.isinf(got) == infinite).all(), f"{what}: {kind} of step {step}, row {row} are infinite elsewhere"
                )
                got, expected = got[~infinite].astype(np.float64), expected[~infinite].astype(np.float64)
                error = np.linalg.norm(got - expected)
                bound = 1e-5 * max(np.linalg.norm(expected), 1e-3)
                generated.require(error <= bound, f"{what}: {kind} of step {step}, row {row}: {error:.3g} > {bound:.3g}")
                generated.worst[kind] = max(generated.worst[kind], float(error * 1e-5 / bound))


def compare_beams(generated, got, want, what):
    for r, score in zip(got, want.scores):
        error = abs(r.score - score)
        generated.require(error <= max(1e-4, 1e-5 * abs(score)), f"{what}: score {r.score}, expected {score}")


@pytest.mark.parametrize("model", range(len(MODELS)))
def test_random_requests(model, rng, generated, tmp_path):
    cls = save(tmp_path, rng, **MODELS[model])
    reference = generation.Reference(tmp_path, cls)
    with tfi.Model(tmp_path, dtype="fp32") as opened, tfi.Session(opened) as session:
        for _ in range(REQUESTS):
            prompt = draw_prompt(rng, opened.info.vocab_size)
            before = 1 if reference.is_t5 else len(prompt)
            likely = likely_ids(session, rng, prompt)
            settings = generation.draw_settings(rng, likely, opened.info.vocab_size, reference.is_t5, before)
            what = f"{MODELS[model]}, {prompt}, {settings}"
            want = reference.generate(prompt, **settings)
            given = {"eos_ids": [], **our_settings(settings)}
            with Generate(session, tfi.Inputs(ids=[prompt]), keep_logits=1, keep_scores=1, **given) as request:
                got = request.wait().results()
                if compare_ids(generated, got, want, what):
                    compare_beams(generated, got, want, what)
                    compare_kept(generated, request, want, what)
