"""Generation through Model and Request: the ids and texts of transformers, streams, beams, log-probabilities, callbacks."""

import numpy as np
import pytest
import tfinfer
import torch
import transformers
from conftest import MODELS, opened

PROMPTS = ["In the morning", "And it came to pass", "the ship"]


@pytest.fixture(scope="module")
def references():
    def load(name, cls):
        path = MODELS / name
        model = getattr(transformers, cls).from_pretrained(path, dtype=torch.float32).eval()
        return model, transformers.AutoTokenizer.from_pretrained(path)

    return {"gpt2": load("gpt2-prose", "GPT2LMHeadModel"), "t5": load("t5-pronounce", "T5ForConditionalGeneration")}


def wanted(reference, prompt, **options):
    """New ids, and the whole output, of transformers."""
    model, tokenizer = reference
    ids = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        out = model.generate(**ids, return_dict_in_generate=True, output_scores=True, **options)
    start = 1 if model.config.is_encoder_decoder else ids.input_ids.shape[1]
    return [row[start:].tolist() for row in out.sequences], out


def same(got, want):
    """transformers pads behind the end."""
    assert got.ids.tolist() == want[: len(got.ids)]


@pytest.mark.parametrize(
    "options",
    [
        dict(do_sample=False, max_new_tokens=20),
        dict(do_sample=False, max_new_tokens=20, num_beams=4, num_return_sequences=3, length_penalty=0.6, early_stopping=True),
        dict(do_sample=False, max_new_tokens=16, repetition_penalty=1.3, no_repeat_ngram_size=2, min_new_tokens=8),
        dict(do_sample=False, max_new_tokens=12, bad_words_ids=[[12], [68, 96]], suppress_tokens=[14, 15]),
        dict(do_sample=False, max_new_tokens=12, sequence_bias={(14,): 3.0, (12, 68): -5.0}, forced_eos_token_id=3),
        dict(do_sample=False, max_new_tokens=12, exponential_decay_length_penalty=(3, 1.2), eos_token_id=[0, 14]),
    ],
)
def test_as_transformers(gpt2, t5, references, options):
    for name, model, prompt in (("gpt2", gpt2, PROMPTS[0]), ("t5", t5, "harbour")):
        want, out = wanted(references[name], prompt, **options)
        got = model.generate(prompt, **options)
        assert len(got) == len(want)
        for g, w in zip(got, want):
            same(g, w)
            assert g.text == references[name][1].decode(w, skip_special_tokens=True)
        if "num_beams" in options:
            assert [g.score for g in got] == pytest.approx(out.sequences_scores.tolist(), abs=1e-4)


def test_many_prompts_and_ids(gpt2, references):
    tokenizer = references["gpt2"][1]
    ids = [tokenizer(p).input_ids for p in PROMPTS]
    want = [gpt2.generate(p, max_new_tokens=9, do_sample=False)[0].text for p in PROMPTS]
    for several in (PROMPTS, tuple(PROMPTS), ids, [np.array(i) for i in ids], [torch.tensor(i) for i in ids]):
        got = gpt2.generate(several, max_new_tokens=9, do_sample=False)
        assert [r[0].text for r in got] == want
    assert gpt2.generate(ids[0], max_new_tokens=9, do_sample=False)[0].text == want[0]
    assert gpt2.generate([]) == []


def test_more_prompts_than_there_is_room_for(gpt2):
    with opened(MODELS / "gpt2-prose", kv_tokens=512) as small:
        prompts = [f"{i} and" for i in range(40)]
        got = small.generate(prompts, max_new_tokens=40, do_sample=False)
        assert [g[0].text for g in got[::13]] == [gpt2.generate(p, max_new_tokens=40, do_sample=False)[0].text for p in prompts[::13]]
        most = small.info.max_context_tokens - 9
    with opened(MODELS / "gpt2-prose", kv_tokens=most + 9) as small:
        held = small.stream("one", max_new_tokens=most)
        with pytest.raises(tfinfer.errors.BusyError):
            small.generate("two", max_new_tokens=most)
        held.close()
        assert small.generate("two", max_new_tokens=3)


def test_stream(gpt2, t5):
    for model, prompt in ((gpt2, PROMPTS[0]), (t5, "knight")):
        with model.stream(prompt, max_new_tokens=12, do_sample=False, logprobs=True) as request:
            tokens = list(request)
            [result] = request.results()
        assert [t.id for t in tokens if t.id >= 0] == result.ids.tolist()
        assert "".join(t.text for t in tokens) == result.text
        assert [t.logprob for t in tokens if t.id >= 0] == pytest.approx(result.logprobs.tolist())
        assert {t.finish for t in tokens[:-1]} <= {"none"} and tokens[-1].finish == result.finish != "none"


def test_logprobs(gpt2, references):
    model, tokenizer = references["gpt2"]
    [got] = gpt2.generate(PROMPTS[1], max_new_tokens=6, do_sample=False, logprobs=True, prompt_logprobs=True)
    prompt = tokenizer(PROMPTS[1]).input_ids
    ids = torch.tensor([prompt + got.ids.tolist()])
    with torch.no_grad():
        logp = model(ids).logits[0].log_softmax(-1)
    want = logp[:-1].gather(1, ids[0, 1:, None])[:, 0].numpy()
    np.testing.assert_allclose(got.prompt_logprobs[1:], want[: len(prompt) - 1], atol=1e-4)
    np.testing.assert_allclose(got.logprobs, want[len(prompt) - 1 :], atol=1e-4)
    assert got.cumulative_logprob == pytest.approx(got.logprobs.sum(), abs=1e-4)


def test_sampling_repeats_with_its_seed(gpt2):
    options = dict(max_new_tokens=20, do_sample=True, temperature=1.5, top_k=0, top_p=0.95, num_return_sequences=1)
    texts = {gpt2.generate("I", seed=seed, **options)[0].text for seed in (1, 2, 3, 1, 2, 3)}
    assert 1 < len(texts) <= 3


def test_stop_strings_and_scores(gpt2):
    [whole] = gpt2.generate(PROMPTS[0], max_new_tokens=30, do_sample=False)
    word = whole.text.split()[3]
    [got] = gpt2.generate(PROMPTS[0], max_new_tokens=30, do_sample=False, stop_strings=["zzz", word])
    assert got.finish == "stop" and got.stop_index == 1 and got.text[got.stop_begin :].startswith(word)
    with gpt2.stream(PROMPTS[0], max_new_tokens=3, do_sample=False, output_scores=True, output_logits=True) as request:
        [result] = request.results()
        for step, i in enumerate(result.ids):
            assert request.scores(step).argmax() == i
            assert request.scores(step, kind="logits").shape == (gpt2.info.vocab_size,)
        with pytest.raises(tfinfer.errors.NotFoundError):
            request.scores(99)


def test_logits_processor(gpt2):
    seen = []

    def only(sequence, ids, logits):
        seen.append((sequence, ids.tolist(), logits.shape))
        logits[:] = -np.inf
        logits[300 + len(seen)] = 0

    prompt = gpt2.tokenizer(PROMPTS[2]).input_ids
    [got] = gpt2.generate(PROMPTS[2], max_new_tokens=4, do_sample=False, logits_processor=only)
    assert got.ids.tolist() == [301, 302, 303, 304]
    assert seen[0] == (0, prompt, (gpt2.info.vocab_size,)) and seen[3][1] == [*prompt, 301, 302, 303]


def test_decoder_input_and_embeddings(t5, references):
    model, tokenizer = references["t5"]
    [whole] = t5.generate("harbour", do_sample=False)
    [rest] = t5.generate("harbour", do_sample=False, decoder_input_ids=[0, *whole.ids[:3].tolist()])
    assert rest.ids.tolist() == whole.ids[3:].tolist()
    vectors = model.get_input_embeddings()(torch.tensor(tokenizer("harbour").input_ids)).detach()
    assert t5.generate(embeddings=vectors, do_sample=False)[0].ids.tolist() == whole.ids.tolist()
    assert t5.generate(embeddings=[vectors], do_sample=False)[0][0].ids.tolist() == whole.ids.tolist()


def test_cancel(gpt2):
    with gpt2.stream("I", max_new_tokens=400, eos_token_id=[]) as request:
        first = [next(request) for _ in range(5)]
        request.cancel()
        assert len(list(request)) < 395
        [result] = request.results()
    assert result.finish == "cancelled" and result.ids[:5].tolist() == [token.id for token in first]
