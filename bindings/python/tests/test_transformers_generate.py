"""generate() of accelerated models: the same ids, scores and objects as PyTorch's; what falls back, and how."""

import copy
import threading
import time

import numpy as np
import pytest
import torch
import transformers
from drop_in import draw_batch, draw_generator, falls_back, same_ids
from tfinfer import errors
from tfinfer.integrations.transformers import FallbackWarning, accelerate


def allowed(row, ids):
    return [10 + row, 12, 11 + len(ids) % 3]


SETTINGS = [
    dict(max_new_tokens=12),
    dict(),
    dict(max_length=40, min_length=36),
    dict(max_new_tokens=12, min_new_tokens=6, repetition_penalty=1.5),
    dict(max_new_tokens=10, num_beams=3),
    dict(max_new_tokens=10, no_repeat_ngram_size=2, encoder_no_repeat_ngram_size=3, encoder_repetition_penalty=1.4),
    dict(max_new_tokens=10, num_beams=4, num_return_sequences=3, length_penalty=0.3, early_stopping=True),
    dict(max_new_tokens=10, num_beams=2, early_stopping="never", length_penalty=-1.0),
    dict(max_new_tokens=10, bad_words_ids=[[12], [13, 14]], suppress_tokens=[20, 21], begin_suppress_tokens=[15]),
    dict(max_new_tokens=10, sequence_bias={(14,): 3.0, (12, 15): -5.0}, forced_eos_token_id=5),
    dict(max_new_tokens=10, exponential_decay_length_penalty=(3, 1.4), remove_invalid_values=True, renormalize_logits=True),
    dict(max_new_tokens=6, prefix_allowed_tokens_fn=allowed),
    dict(max_new_tokens=6, num_beams=3, prefix_allowed_tokens_fn=allowed),
    dict(max_new_tokens=8, eos_token_id=[10, 11, 12]),
    dict(max_new_tokens=8, max_time=1000.0),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(s) or "defaults")
@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration", "MT5ForConditionalGeneration"])
def test_generate(cls, settings, rng):
    model = draw_generator(cls, rng)
    accelerated = accelerate(model, fallback="raise")
    batch = draw_batch(model, rng, "left" if cls.startswith("GPT2") else str(rng.choice(["left", "right"])))
    if "encoder_repetition_penalty" in settings:  # transformers lets them count padding
        batch["attention_mask"][:] = 1
    got, want = (m.generate(**batch, do_sample=False, **settings) for m in (accelerated, model))
    same_ids(model, batch, got, want, **{"eos": model.generation_config.eos_token_id, **settings})
    config = copy.deepcopy(model.generation_config)
    config.update(do_sample=False, **{k: v for k, v in settings.items() if k != "prefix_allowed_tokens_fn"})
    got = accelerated.generate(
        batch["input_ids"][:1], config, attention_mask=batch["attention_mask"][:1],
        prefix_allowed_tokens_fn=settings.get("prefix_allowed_tokens_fn"),
    )  # fmt: skip
    assert got.shape[0] == settings.get("num_return_sequences", 1)


def test_generate_gives_scores(rng):
    for cls in ("GPT2LMHeadModel", "T5ForConditionalGeneration"):
        model = draw_generator(cls, rng)
        accelerated = accelerate(model, fallback="raise")
        batch = draw_batch(model, rng, "left")
        given = dict(**batch, do_sample=False, max_new_tokens=6, return_dict_in_generate=True, repetition_penalty=1.2)
        got, want = (m.generate(**given, output_scores=True, output_logits=True) for m in (accelerated, model))
        assert type(got) is type(want)
        same_ids(model, batch, got.sequences, want.sequences)
        if torch.equal(got.sequences, want.sequences):
            start = want.sequences.shape[1] - len(want.scores)
            running = torch.ones(len(want.sequences), dtype=torch.bool)
            for step, (g, w) in enumerate(zip((*got.scores, *got.logits), (*want.scores, *want.logits))):
                step %= len(want.scores)
                running = torch.ones_like(running) if not step else running
                assert g.shape == w.shape
                np.testing.assert_allclose(g[running], w[running], atol=1e-4, rtol=1e-4)
                running &= ~torch.isin(want.sequences[:, start + step], torch.tensor(model.generation_config.eos_token_id))


@pytest.mark.parametrize("prompts", [1, 3])
@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
def test_generate_gives_scores_of_beams(cls, prompts, rng):
    for _ in range(3):  # two beams whose scores differ by less than is rounded may change places: one draw in fifty
        model = draw_generator(cls, rng)
        with torch.no_grad():
            model.get_output_embeddings().weight.mul_(0.2)  # a token whose probability rounds to 1 leaves beams with one score
        accelerated = accelerate(model, fallback="raise")
        batch = {name: value[:prompts] for name, value in draw_batch(model, rng, "left").items()}
        settings = dict(num_beams=4, num_return_sequences=3, length_penalty=0.5, repetition_penalty=1.2, max_new_tokens=8)
        given = dict(**batch, do_sample=False, return_dict_in_generate=True, **settings)
        got, want = (m.generate(**given, output_scores=True, output_logits=True) for m in (accelerated, model))
        assert type(got) is type(want) and got.keys() == want.keys() - {"past_key_values", "encoder_attentions", "encoder_hidden_states"}
        if torch.equal(got.sequences, want.sequences) and torch.equal(got.beam_indices, want.beam_indices):
            break
    assert torch.equal(got.sequences, want.sequences)
    assert torch.equal(got.beam_indices, want.beam_indices) and got.beam_indices.dtype == want.beam_indices.dtype
    np.testing.assert_allclose(got.sequences_scores, want.sequences_scores, atol=1e-4, rtol=1e-4)
    moves = [m.compute_transition_scores(r.sequences, r.scores, r.beam_indices) for m, r in ((accelerated, got), (model, want))]
    np.testing.assert_allclose(*moves, atol=1e-4, rtol=1e-4)
    assert len(got.scores) == len(got.logits) == len(want.scores)
    for g, w in zip((*got.scores, *got.logits), (*want.scores, *want.logits)):
        assert g.shape == w.shape and g.dtype == w.dtype
        if prompts == 1:  # of several one ends before the others
            np.testing.assert_allclose(g, w, atol=1e-4, rtol=1e-4)
    plain = accelerated.generate(**given)
    assert torch.equal(plain.beam_indices, got.beam_indices) and plain.scores is plain.sequences_scores is None


def test_sampling(demo):
    """Draws come from PyTorch's generator: the same seed, the same ids; rows of a batch differ."""
    model, accelerated, tokenizer = demo["gpt2"]
    ids = tokenizer(["In the"] * 3, return_tensors="pt")

    def run(seed, **more):
        torch.manual_seed(seed)
        given = dict(do_sample=True, temperature=1.2, top_k=0, top_p=0.97, max_new_tokens=12, num_return_sequences=2)
        return accelerated.generate(**ids, **{**given, **more})

    first = run(1)
    assert first.shape[0] == 6 and torch.equal(first, run(1)) and not torch.equal(first, run(2))
    assert len({tuple(row) for row in first.tolist()}) == 6
    greedy = model.generate(**ids, do_sample=False, max_new_tokens=12)
    assert torch.equal(run(3, top_k=1, num_return_sequences=1), greedy)
    assert run(4, num_beams=2, num_return_sequences=1).shape[0] == 3


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("cls", ["GPT2LMHeadModel", "T5ForConditionalGeneration"])
@pytest.mark.parametrize(
    "settings",
    [
        dict(top_k=0),
        dict(top_k=0, top_p=0.4),
        dict(top_k=0, min_p=0.2),
        dict(top_k=0, typical_p=0.5),
        dict(top_k=0, epsilon_cutoff=0.02),
        dict(top_k=0, eta_cutoff=0.02),
        dict(top_k=0, top_h=0.4),
        dict(top_k=5),
        dict(top_k=10**6, temperature=0.6),
        dict(),
        dict(temperature=1.5, top_k=20, top_p=0.8, repetition_penalty=1.4, renormalize_logits=True),
    ],
    ids=lambda s: "-".join(s) or "defaults",
)
def test_sampling_draws_from_the_same(settings, cls, beams, rng):
    """What a step draws from: the logits with what is excluded at -inf, for the first token."""
    model = draw_generator(cls, rng)
    ids = torch.from_numpy(rng.integers(4, model.config.vocab_size, (1, 6)))
    given = dict(do_sample=True, num_beams=beams, max_new_tokens=1, return_dict_in_generate=True, output_scores=True, **settings)
    [got], [want] = (m.generate(ids, **given).scores for m in (accelerate(model, fallback="raise"), model))
    at_edge = (got.isinf() != want.isinf()).sum()  # a sum of probabilities may reach its bound one token sooner
    assert at_edge <= beams and (at_edge == 0 or set(settings) & {"top_p", "typical_p", "top_h"})
    kept = ~got.isinf() & ~want.isinf()
    np.testing.assert_allclose(got[kept], want[kept], atol=1e-3, rtol=1e-4)


def test_streamers_and_criteria(demo):
    for name, prompt in (("gpt2", "In the morning"), ("t5", "harbour")):
        model, accelerated, tokenizer = demo[name]
        ids = tokenizer(prompt, return_tensors="pt")
        given = dict(**ids, do_sample=False, max_new_tokens=30)
        texts = []
        for m in (accelerated, model):
            streamer = transformers.TextIteratorStreamer(tokenizer)
            m.generate(**given, streamer=streamer)
            texts.append("".join(streamer))
        assert texts[0] == texts[1]
        whole = model.generate(**given)[0]
        word = tokenizer.decode(whole[-4:-2])

        class After(transformers.StoppingCriteria):
            def __call__(self, input_ids, scores, **kwargs):
                return torch.tensor([input_ids.shape[1] >= 8])

        class Odd(transformers.LogitsProcessor):
            def __call__(self, input_ids, scores):
                return scores.masked_fill(torch.arange(scores.shape[1])[None] % 2 == 0, -torch.inf)

        for more in (
            dict(stopping_criteria=[After()]),
            dict(stopping_criteria=[lambda input_ids, scores: input_ids.shape[1] >= 8]),  # a bool, as older ones give it
            dict(stopping_criteria=transformers.StoppingCriteriaList([After()]), logits_processor=[Odd()]),
            dict(logits_processor=transformers.LogitsProcessorList([Odd()])),
            dict(stop_strings=["zzz", word], tokenizer=tokenizer),
        ):
            got, want = (m.generate(**given, **more) for m in (accelerated, model))
            assert torch.equal(got, want), more
    model, accelerated, tokenizer = demo["gpt2"]
    tokenizer.pad_token = tokenizer.eos_token
    ids = tokenizer(["In the", "And it came"], return_tensors="pt", padding=True, padding_side="left")
    got, want = (
        m.generate(**ids, do_sample=False, max_new_tokens=25, stop_strings=["th", ","], tokenizer=tokenizer) for m in (accelerated, model)
    )
    assert torch.equal(got, want)


def test_threads_wait_for_room(demo):
    """More requests than there is room for, of several threads: each waits for its own."""
    model, _, tokenizer = demo["gpt2"]
    accelerated = accelerate(model, fallback="raise", kv_tokens=512)
    ids = [tokenizer([f"{i} and", f"{i} the", f"{i} but"], return_tensors="pt").input_ids for i in range(6)]
    want = [model.generate(one, do_sample=False, max_new_tokens=100) for one in ids]
    got = {}

    def work(i):
        got[i] = accelerated.generate(ids[i], do_sample=False, max_new_tokens=100)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(got[i], want[i]) for i in range(6))


def test_prompts_of_every_form(demo, rng):
    model, accelerated, tokenizer = demo["gpt2"]
    ids = tokenizer("In the morning", return_tensors="pt").input_ids
    for given in (dict(inputs=ids), dict(input_ids=ids), dict(), dict(inputs_embeds=model.get_input_embeddings()(ids).detach())):
        got, want = (m.generate(**given, do_sample=False, max_new_tokens=7, bos_token_id=0) for m in (accelerated, model))
        assert torch.equal(got, want), given
    model, accelerated, tokenizer = demo["t5"]
    ids = tokenizer(["harbour", "knight"], return_tensors="pt", padding=True)
    start = model.generate(**ids, do_sample=False, max_new_tokens=3)
    vectors = model.get_input_embeddings()(ids.input_ids).detach()
    for given in (dict(ids), dict(ids, decoder_input_ids=start), dict(inputs_embeds=vectors, attention_mask=ids.attention_mask)):
        for beams in (1, 3):
            got, want = (m.generate(**given, do_sample=False, num_beams=beams, max_new_tokens=9) for m in (accelerated, model))
            assert torch.equal(got, want), (list(given), beams)


def test_settings_without_effect(demo):
    """The library refuses them by name; transformers runs."""
    for name in ("gpt2", "t5"):
        model, accelerated, _ = demo[name]
        given = dict(do_sample=False, max_new_tokens=5)
        if name == "t5":
            given["decoder_input_ids"] = torch.tensor([[model.generation_config.decoder_start_token_id, 9, 8]])
        ids = torch.tensor([[5, 6, 7]])
        for more in (
            dict(forced_bos_token_id=7),
            dict(eos_token_id=[-1, 10**6], pad_token_id=0, min_new_tokens=3),
            dict(cache_implementation="static"),
            dict(pad_token_id=model.config.vocab_size + 1, output_scores=True, return_dict_in_generate=True),
        ):
            got, want = (m.generate(ids, **given, **more) for m in (accelerated, model))
            assert torch.equal(*(getattr(found, "sequences", found) for found in (got, want))), more
        got, want = (m.generate(ids.int(), **given) for m in (accelerated, model))
        assert torch.equal(got, want) and got.dtype == want.dtype


def test_generate_falls_back(demo, rng):
    class Same(transformers.LogitsProcessor):
        def __call__(self, input_ids, scores):
            return scores

    class SeesScores(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.tensor([bool(scores[-1].max() > 1e9)])

    class Never(transformers.StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return input_ids[:, 0] < 0

    for name, texts in (("gpt2", ["In the morning", "And it"]), ("t5", ["harbour", "eye"])):
        model, _, tokenizer = demo[name]
        accelerated = accelerate(model)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        ids = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
        right = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")

        def call(ids=ids, **given):
            given = {**ids, "do_sample": False, "max_new_tokens": 5, **given}
            return lambda m: m.generate(**given)

        falls_back(accelerated, model, "of the caller's with more than", call(logits_processor=[Same()]))
        falls_back(
            accelerated,
            model,
            "takes a setting's place",
            call(logits_processor=[transformers.TemperatureLogitsWarper(0.5)], do_sample=False),
        )
        falls_back(accelerated, model, "stopping criteria", call(stopping_criteria=[Never()]))
        one = dict(input_ids=ids.input_ids[:1], attention_mask=torch.ones_like(ids.input_ids[:1]))
        with_scores = dict(stopping_criteria=[SeesScores()], output_scores=True, return_dict_in_generate=True)
        scored = call(**one, **with_scores)
        falls_back(accelerated, model, "that see scores", lambda m, c=scored: c(m).sequences)
        eos = transformers.StoppingCriteriaList([transformers.EosTokenCriteria([7, 8])])
        falls_back(accelerated, model, "EosTokenCriteria of the caller's", call(stopping_criteria=eos))
        past = transformers.StoppingCriteriaList([transformers.MaxTimeCriteria(5.0, initial_timestamp=time.time() - 100)])
        falls_back(accelerated, model, "max_time that has passed", call(stopping_criteria=past))
        falls_back(accelerated, model, r"suppress_ids: id 0 is \d+, outside", call(suppress_tokens=[10**6]))
        endless = dict(stop_strings=["a", "A"], tokenizer=tokenizer, eos_token_id=None, pad_token_id=0)
        falls_back(accelerated, model, "without eos_token_id", call(**endless))
        own = call(custom_generate=lambda model, input_ids, **given: transformers.GenerationMixin._sample(model, input_ids, **given))
        falls_back(accelerated, model, "custom_generate", own)
        falls_back(accelerated, model, "assisted", call(**one, assistant_model=model))
        falls_back(accelerated, model, "stop_strings with more", call(stop_strings=["q"], tokenizer=tokenizer, num_beams=2))
        falls_back(accelerated, model, "output_hidden_states", call(output_hidden_states=True, return_dict_in_generate=True))
        if name == "gpt2":
            falls_back(accelerated, model, "no_repeat_ngram_size with padding", call(no_repeat_ngram_size=2))
        falls_back(accelerated, model, "encoder_repetition_penalty with padding", call(encoder_repetition_penalty=1.3))
        falls_back(accelerated, model, "prefix_allowed_tokens_fn with", call(prefix_allowed_tokens_fn=allowed, forced_eos_token_id=5))
        if name == "gpt2":
            falls_back(accelerated, model, "on the right", call(**right))
        else:
            outputs = model.get_encoder()(**right)
            falls_back(
                accelerated, model, "encoder_outputs", call(encoder_outputs=outputs, attention_mask=right.attention_mask, input_ids=None)
            )
            falls_back(accelerated, model, "decoder_start_token_id", call(decoder_start_token_id=5))
        accelerated.train()
        with pytest.warns(FallbackWarning, match="training mode"):
            call()(accelerated)
        accelerated.eval()  # its modules are the model's
        strict = accelerate(model, fallback="raise")
        with pytest.raises(errors.UnsupportedError, match="output_attentions"):
            call(num_beams=2, output_attentions=True, return_dict_in_generate=True)(strict)
        with pytest.raises(ValueError, match="not used by the model"):
            call(num_beam=2)(strict)
        with pytest.raises(ValueError):
            call(temperature=-1.0, do_sample=True)(strict)

        def fails(*_):
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            call(prefix_allowed_tokens_fn=fails)(strict)
        with pytest.raises(errors.InvalidError, match="suppress_ids"):
            call(suppress_tokens=[10**6])(strict)
        assert call()(strict).shape[0] == 2
