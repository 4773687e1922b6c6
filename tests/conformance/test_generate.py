"""Generation against transformers in float64: random models, prompts and settings, and what a request keeps and starts from."""

import json
import re

import numpy as np
import pytest
import torch

import generation
import tfi
from generation import compare, different_kept, our_settings
from tfi_generate import Generate, generate, generate_together

GPT2_DIALECTS = [
    dict(n_layer=2),
    dict(n_layer=3, activation_function="gelu", scale_attn_by_inverse_layer_idx=True, n_inner=100),
    dict(n_layer=2, activation_function="relu", scale_attn_weights=False, tie_word_embeddings=False, initializer_range=0.05),
    dict(n_layer=2, reorder_and_upcast_attn=True, scale_attn_by_inverse_layer_idx=True),
    dict(n_layer=1, activation_function="silu", n_inner=257, tie_word_embeddings=False),
]
T5_DIALECTS = [
    dict(feed_forward_proj="relu", num_layers=2, num_decoder_layers=2),
    dict(feed_forward_proj="gated-gelu", num_layers=3, num_decoder_layers=1, d_kv=13),
    dict(feed_forward_proj="gated-silu", num_layers=1, num_decoder_layers=3, d_kv=7, relative_attention_num_buckets=16),
    dict(feed_forward_proj="gelu", num_layers=2, num_decoder_layers=2, relative_attention_max_distance=40),
]
MODELS = GPT2_DIALECTS + [
    dict(T5_DIALECTS[(2 * scaled + tied + shift) % 4], scaled=scaled, tied=tied, family="mt5" if shift and scaled else "t5")
    for scaled in (False, True)
    for tied in (False, True)
    for shift in (0, 1)
]
REQUESTS = 17  # of each model: at least 200 in all


def save(path, rng, **dialect):
    return (generation.t5 if "scaled" in dialect else generation.gpt2)(path, rng, **dialect)


def draw_prompt(rng, vocab):
    """Mostly short."""
    return [int(i) for i in rng.integers(0, vocab, int(rng.integers(1, 30 if rng.random() < 0.9 else 110)))]


def likely_ids(session, rng, prompt):
    """What a request without settings would write; and a few ids at random."""
    vocab = session.model.info.vocab_size
    return generate(session, prompt, max_new_tokens=12, eos_ids=[], do_sample=0)[0].ids + rng.integers(0, vocab, 3).tolist()


@pytest.mark.parametrize("model", range(len(MODELS)))
def test_random_requests(model, rng, generated, tmp_path):
    cls = save(tmp_path, rng, **MODELS[model])
    reference = generation.Reference(tmp_path, cls)
    with tfi.Model(tmp_path, dtype="fp32") as opened, tfi.Session(opened) as session:
        for _ in range(REQUESTS):
            prompt = draw_prompt(rng, opened.info.vocab_size)
            before = 1 if reference.is_t5 else len(prompt)
            likely = likely_ids(session, rng, prompt)
            settings = generation.draw_settings(rng, likely, opened.info.vocab_size, before)
            what = f"{MODELS[model]}, {prompt}, {settings}"
            want = reference.generate(prompt, **settings)
            given = {"eos_ids": [], **our_settings(settings)}
            with Generate(session, tfi.Inputs(ids=[prompt]), keep_logits=1, keep_scores=1, **given) as request:
                compare(generated, request, want, what)


@pytest.mark.parametrize("model", range(0, len(MODELS), 2))
def test_random_sampling(model, rng, generated, tmp_path):
    """What tokens are drawn from, at every step; the reference draws what was drawn here."""
    cls = save(tmp_path, rng, **MODELS[model])
    reference = generation.Reference(tmp_path, cls)
    with tfi.Model(tmp_path, dtype="fp32") as opened, tfi.Session(opened) as session:
        for _ in range(5):
            prompt = draw_prompt(rng, opened.info.vocab_size)
            before = 1 if reference.is_t5 else len(prompt)
            likely = likely_ids(session, rng, prompt)
            processors = generation.draw_processors(rng, likely, opened.info.vocab_size, before, [], False)
            settings = {"max_new_tokens": int(rng.integers(1, 6)), **generation.draw_sampling(rng), **processors}
            settings = generation.as_defined(settings, before)
            given = {"eos_ids": [], "seed": int(rng.integers(2**40)), **our_settings(settings)}
            with Generate(session, tfi.Inputs(ids=[prompt]), keep_logits=1, keep_scores=1, **given) as request:
                drawn = request.wait().result().ids
                want = reference.generate(prompt, drawn=drawn, **settings)
                different = different_kept(generated, request, want)
                generated.draws += 1
                generated.require(different is None, f"{MODELS[model]}, {prompt}, {settings}: {different}")


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_logprobs(family, beams, rng, tally, tmp_path):
    """Of the model itself, whatever the processors do."""
    cls = getattr(generation, family)(tmp_path, rng)
    reference = generation.Reference(tmp_path, cls)
    prompt, decoder = draw_prompt(rng, 60), None
    settings = dict(max_new_tokens=9, eos_ids=[], num_beams=beams, num_return_sequences=beams, repetition_penalty=1.5)
    if family == "t5":
        settings["decoder_ids"] = decoder = [0, *draw_prompt(rng, 60)]
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model, max_step_tokens=128) as session:
        for r in generate(session, prompt, logprobs=1, prompt_logprobs=1, **settings):
            tokens = [*(decoder or prompt), *r.ids]
            want = reference.logprobs(prompt, r.ids, decoder)[np.arange(len(tokens) - 1), tokens[1:]]
            assert len(r.ids) == len(r.logprobs) == 9 and len(r.prompt_logprobs) == len(tokens) - 9
            assert r.prompt_logprobs[0] == 0
            tally.scores(r.prompt_logprobs[1:] + r.logprobs, want, f"{family}, {beams} beams")
            tally.scores([r.cumulative_logprob], [want[-9:].sum()], f"{family}, {beams} beams")


# ---- what a request starts from ----


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_embeddings(family, beams, share, rng, generated, tmp_path):
    """In place of some ids, which are -1, or of all; rows of real ids are not looked at. No processor takes -1 for an id."""
    cls = getattr(generation, family)(tmp_path, rng)
    reference = generation.Reference(tmp_path, cls)
    table = reference.model.get_input_embeddings().weight.detach().numpy()
    prompt = np.array([int(i) for i in rng.integers(0, 60, 55)])
    is_row = rng.random(len(prompt)) < share
    rows = (rng.normal(size=(len(prompt), table.shape[1])) * table.std()).astype(np.float32)
    settings = dict(max_new_tokens=8, num_beams=beams)
    if share == 1:  # else the reference's processors know less of the prompt
        bias = [[[int(i)], float(rng.normal())] for i in range(1, 20)]  # older versions of the reference refuse token 0
        settings.update(repetition_penalty=1.5, no_repeat_ngram_size=int(rng.integers(1, 3)), sequence_bias=bias)
    want = reference.generate(embeddings=np.where(is_row[:, None], rows, table[prompt]), **settings)
    rows[~is_row] = np.nan
    ids = None if share == 1 else [np.where(is_row, -1, prompt)]
    pieces = 24 if family == "gpt2" else 60
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model, max_step_tokens=pieces) as session:
        given = dict(eos_ids=[], keep_logits=1, keep_scores=1, **our_settings(settings))
        with Generate(session, tfi.Inputs(ids=ids, embeddings=[rows]), **given) as request:
            compare(generated, request, want, f"{family} from embeddings, {beams} beams")


@pytest.mark.parametrize("start", [True, False])
def test_decoder_prompt(start, rng, generated, tmp_path):
    """Begins with the start token, or that is put before it."""
    reference = generation.Reference(tmp_path, generation.t5(tmp_path, rng))
    prompt, decoder = draw_prompt(rng, 60), [0] * start + [7, 9, 5]
    settings = dict(max_new_tokens=8, no_repeat_ngram_size=1)
    want = reference.generate(prompt, decoder=decoder, **settings)
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        given = dict(decoder_ids=decoder, eos_ids=[], keep_logits=1, keep_scores=1)
        with Generate(session, tfi.Inputs(ids=[prompt]), **given, **settings) as request:
            compare(generated, request, want, f"decoder prompt {decoder}")


@pytest.mark.parametrize("beams", [1, 3])
def test_last_position(beams, rng, generated, tmp_path):
    """The model's last position still gives a token, and there it ends."""
    reference = generation.Reference(tmp_path, generation.gpt2(tmp_path, rng, n_positions=20))
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        for n in (20, 19, 11):
            prompt = [int(i) for i in rng.integers(0, 60, n)]
            want = reference.generate(prompt, num_beams=beams, max_length=21)
            given = dict(num_beams=beams, eos_ids=[], keep_logits=1, keep_scores=1, max_new_tokens=100)
            with Generate(session, tfi.Inputs(ids=[prompt]), **given) as request:
                compare(generated, request, want, f"prompt of {n} of 20")
                assert request.result().finish == "length"
                assert len(request.result().ids) == 21 - n


def test_empty_prompt(rng, tmp_path):
    generation.gpt2(tmp_path / "bos", rng, bos_token_id=5)
    with tfi.Model(tmp_path / "bos", dtype="fp32") as model, tfi.Session(model) as session:
        assert generate(session, [], max_new_tokens=5)[0].ids == generate(session, [5], max_new_tokens=5)[0].ids
    generation.gpt2(tmp_path / "none", rng)
    with tfi.Model(tmp_path / "none", dtype="fp32") as model, tfi.Session(model) as session:
        with pytest.raises(tfi.Error, match="INVALID.*bos_token_id"):
            generate(session, [], max_new_tokens=5)


# ---- whose settings count ----


def write_settings(path, **settings):
    (path / "generation_config.json").write_text(json.dumps(settings))


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_precedence(family, rng, tmp_path):
    """The caller's, then generation_config.json's, without that file config.json's."""
    cls = getattr(generation, family)(tmp_path, rng, vocab_size=80)
    plain = generation.Reference(tmp_path, cls)
    prompt = draw_prompt(rng, 80)[:20]
    eos = plain.generate(prompt, num_beams=3, max_new_tokens=9).ids[0][4:6]
    own = dict(num_beams=3, eos_token_id=eos, max_new_tokens=9, repetition_penalty=1.5, length_penalty=0.5)
    idle = dict(_from_model_config=True, use_cache=True, temperature=0.5, no_such_key=[1])
    write_settings(tmp_path, **own, **idle, decoder_start_token_id=0)
    cases = [
        ({}, {}),
        (dict(num_beams=1), dict(num_beams=1)),
        (dict(eos_ids=[], repetition_penalty=1.0), dict(eos_token_id=None, repetition_penalty=1.0)),
        (dict(max_new_tokens=4), dict(max_new_tokens=4)),
        (dict(max_length=60), dict(max_new_tokens=None, max_length=60)),
    ]
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        for given, settings in cases:
            assert generate(session, prompt, **given)[0].ids == plain.generate(prompt, **{**own, **settings}).ids[0], given
        assert model.info.eos_id == eos[0]
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(num_beams=2, max_length=40, no_repeat_ngram_size=2, task_specific_params={"x": {"num_beams": 5}})
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "eos_token_id"}))
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        want = plain.generate(prompt, num_beams=2, max_length=40, no_repeat_ngram_size=2).ids[0]
        assert generate(session, prompt)[0].ids == want


def test_sampling_of_the_checkpoint(rng, tmp_path):
    generation.gpt2(tmp_path, rng, vocab_size=300)
    write_settings(tmp_path, do_sample=True, temperature=3.0, top_k=0, max_new_tokens=30)
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        first, again, other = (generate(session, [1, 2, 3], seed=seed)[0].ids for seed in (7, 7, 8))
        assert first == again != other
        greedy = generate(session, [1, 2, 3], do_sample=0)[0].ids
        assert greedy not in (first, other) and greedy == generate(session, [1, 2, 3], do_sample=0, seed=9)[0].ids


# ---- many requests in one session, and bfloat16 ----


def request_mix(rng, family, vocab, positions):
    """(prompt, settings) of requests of all kinds; two prompts are longer than a step of test_together."""
    mix = []
    for i, n in enumerate([1, 40, 7, 33, 3, 18, 2, 12]):
        settings = dict(max_new_tokens=int(rng.integers(18, 26)), eos_ids=[])
        if i % 3 == 1:
            settings.update(num_beams=int(rng.integers(2, 5)), num_return_sequences=2)
        if i % 3 == 2:
            settings.update(do_sample=1, num_return_sequences=int(rng.integers(1, 4)), seed=i, temperature=2.0)
        if i % 4 == 0:
            settings.update(eos_ids=[int(j) for j in rng.integers(0, vocab, 8)])
        if i % 4 == 1:
            settings.update(repetition_penalty=1.3, no_repeat_ngram_size=2)
        mix.append(([int(j) for j in rng.integers(0, vocab, min(n, positions))], settings))
    return mix


def needs(session, prompt, settings):
    """(keys and values in tokens, sequences) that the request has to have: refusals say so."""
    slots = max(settings.get("num_beams", 1), settings.get("num_return_sequences", 1))
    with pytest.raises(tfi.Error) as e:
        generate(session, prompt, **settings)
    assert e.value.status == "INVALID", e.value
    wanted, there = (int(n) for n in re.findall(r"\d+", e.value.text))
    assert there < wanted
    return wanted, slots


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_together(family, rng, tmp_path):
    """Requests of one session give what each gives alone; there is just room enough for their keys and values."""
    getattr(generation, family)(tmp_path, rng, vocab_size=200)
    step = 24 if family == "gpt2" else 64
    with tfi.Model(tmp_path, dtype="fp32") as model:
        mix = request_mix(rng, family, 200, 64)
        with tfi.Session(model) as session:
            alone = [[(r.ids, r.finish) for r in generate(session, prompt, **settings)] for prompt, settings in mix]
        with tfi.Session(model, kv_tokens=16, max_step_tokens=64) as small:
            tokens, slots = map(sum, zip(*(needs(small, *request) for request in mix)))
        with tfi.Session(model, kv_tokens=tokens, max_step_tokens=step, max_sequences=slots) as session:
            for order in (range(8), rng.permutation(8)):
                found = generate_together(session, [mix[i] for i in order])
                for i, results in zip(order, found):
                    assert [(r.ids, r.finish) for r in results] == alone[i], mix[i]


@pytest.mark.parametrize("model", range(0, len(MODELS), 3))
def test_bf16(model, rng, tally, tmp_path, have_bf16):
    if not have_bf16:
        pytest.skip("skipped: this processor does not run bf16")
    cls = save(tmp_path, rng, **MODELS[model])
    reference = generation.Reference(tmp_path, cls)
    with tfi.Model(tmp_path, dtype="bf16") as opened, tfi.Session(opened) as session:
        for i in range(4):
            prompt = draw_prompt(rng, opened.info.vocab_size)
            settings = dict(max_new_tokens=8, eos_ids=[], num_beams=1 + i)
            assert all(len(r.ids) == 8 for r in generate(session, prompt, num_return_sequences=1 + i, **settings))
        with Generate(session, tfi.Inputs(ids=[prompt]), **{**settings, "num_beams": 1}, keep_logits=1) as request:
            ids = request.wait().result().ids
            got = np.stack([request.scores(step, 0, "logits") for step in range(8)])
            own = generation.Reference(tmp_path, cls, torch.bfloat16)
            want, theirs = (r.teacher_forced(prompt, ids) for r in (reference, own))
            error = np.linalg.norm(theirs - want) / np.linalg.norm(want)
            tally.near("bf16", got, want, lambda: 1.25 * error, f"{MODELS[model]} in bf16")


def test_few_requests_were_excused(generated):
    assert generated.excused <= 0.02 * generated.draws
