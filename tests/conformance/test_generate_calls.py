"""The rest of generation through the public calls: texts, streaming, stop strings, the logits callback, the distribution of
sampling, and what is refused."""

import json
import os
import pathlib
import re
import shutil
import threading
import time

import numpy as np
import pytest
import torch
import transformers

import generation
import tfi
from tfi_generate import FINISH, Generate, generate, generate_together, inputs_of

DATA = pathlib.Path(os.environ.get("TFINFER_TEST_DATA", pathlib.Path(__file__).resolve().parents[3] / "shared/data"))
GPT2 = DATA / "tokenizers/gpt2"
needs_gpt2 = pytest.mark.skipif(not GPT2.is_dir(), reason="skipped: no GPT-2 vocabulary in the test data")


@pytest.fixture
def tiny(rng, tmp_path):
    """A session of a small GPT-2 with 64 ids and 40 positions."""
    generation.gpt2(tmp_path, rng, vocab_size=64, n_positions=40, n_layer=2)
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model, kv_tokens=640) as session:
        yield session


@pytest.fixture
def speaking(rng, tmp_path):
    """(session, transformers' model, its tokenizer) of a GPT-2 that writes with the real vocabulary."""
    cls = generation.gpt2(tmp_path, rng, vocab_size=50257, n_layer=1, n_head=2, n_embd=32)
    shutil.copy(GPT2 / "encoder.json", tmp_path / "vocab.json")
    shutil.copy(GPT2 / "vocab.bpe", tmp_path / "merges.txt")
    end = dict(bos_token="<|endoftext|>", eos_token="<|endoftext|>", unk_token="<|endoftext|>")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="GPT2Tokenizer", **end)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        yield session, generation.Reference(tmp_path, cls), tokenizer


def plain_ascii(tokenizer):
    """Ids that add nothing but printable ASCII; and all others."""
    vocabulary = tokenizer.get_vocab()
    plain = {i for piece, i in vocabulary.items() if (text := piece.replace("\u0120", " ")).isascii() and text.isprintable()}
    plain -= set(tokenizer.all_special_ids)
    return sorted(plain), sorted(set(vocabulary.values()) - plain)


# ---- texts ----


def collect(request):
    """All tokens of a request as they come: {sequence: ([ids], text)}; each ends once, with its reason."""
    found, ended = {}, {}
    while (token := request.next()) is not None:
        assert token.sequence not in ended
        ids, pieces = found.setdefault(token.sequence, ([], []))
        token.piece.decode()  # whole characters
        pieces.append(token.piece)
        if token.id >= 0:
            ids.append(token.id)
        if token.finish != FINISH["none"]:
            ended[token.sequence] = token.finish
    assert ended.keys() == found.keys()
    return {i: (ids, b"".join(pieces), ended[i]) for i, (ids, pieces) in found.items()}


@needs_gpt2
def test_streaming(speaking, rng):
    session, _, tokenizer = speaking
    ends = rng.integers(0, len(tokenizer), 9000).tolist()
    for settings in (
        dict(),
        dict(forced_eos_ids=[tokenizer.eos_token_id]),
        dict(forced_eos_ids=[tokenizer.eos_token_id], skip_special_tokens=0),
        dict(num_beams=3, num_return_sequences=2),
        dict(do_sample=1, num_return_sequences=3, seed=int(rng.integers(1000)), eos_ids=ends),
    ):
        with Generate(session, inputs_of("Tell me"), **{"max_new_tokens": 12, **settings}) as request:
            found, results = collect(request), request.wait().results()
            assert len(found) == len(results)
            same = generate(session, tokenizer("Tell me").input_ids, **{"max_new_tokens": 12, **settings})
            assert [r.ids for r in same] == [r.ids for r in results]
            skips = settings.get("skip_special_tokens", 1) == 1
            for i, r in enumerate(results):
                assert found[i] == (r.ids, r.text, FINISH[r.finish]), settings
                assert r.text.decode() == tokenizer.decode(r.ids, skip_special_tokens=skips)


def check_stop(result, strings, before, last):
    """The match that a result names is there and ends within the last token; before: the prompt's text."""
    text = result.text.decode()
    found, whole = strings[result.stop_index], before + text
    begin = len(before) + result.stop_begin
    if result.stop_begin > 0:
        assert text[result.stop_begin :].startswith(found), (text, found, result.stop_begin)
    else:  # or before
        begin = whole.index(found, max(0, begin - len(found)))
    assert begin + len(found) > len(whole) - len(last), (whole, found, last)


@needs_gpt2
def test_stop_strings_behind_embeddings(speaking, rng):
    """A prompt that is no text cannot begin a match."""
    session, _, _ = speaking
    rows = (rng.normal(size=(5, 32)) * 0.05).astype(np.float32)
    settings = dict(max_new_tokens=6, eos_ids=[])
    with Generate(session, tfi.Inputs(embeddings=[rows]), **settings) as request:
        r = request.wait().result()
    with Generate(session, tfi.Inputs(embeddings=[rows]), stop_strings=["no such text"], **settings) as request:
        assert request.wait().result().ids == r.ids


@needs_gpt2
@pytest.mark.parametrize("beams", [1, 3])
def test_stop_strings(speaking, beams, rng, generated):
    """As many new tokens as transformers writes; the match is where the text says. Every other text is plain ASCII."""
    session, reference, tokenizer = speaking
    plain, others = plain_ascii(tokenizer)
    for round in range(8):
        prompt = [int(i) for i in rng.choice(plain, int(rng.integers(1, 6)))]
        before = tokenizer.decode(prompt)
        suppress = others if round % 2 else [0]
        settings = dict(max_new_tokens=10, num_beams=beams, num_return_sequences=beams, repetition_penalty=2.0)
        given = dict(eos_ids=[], suppress_ids=suppress, **settings)
        text = generate(session, prompt, **given)[0].text.decode()
        runs = re.findall(r"[ -~]{3,}", before[-1:] + text if round % 4 == 3 else text)  # a match may begin in the prompt
        if not runs:
            continue
        run = runs[0] if round % 4 == 3 else runs[rng.integers(len(runs))]
        begin = 0 if round % 4 == 3 else int(rng.integers(0, len(run) - 2))
        strings = [run[begin : begin + int(rng.integers(1, 9))], "never in a text", run[begin + 1 : begin + 3]]
        want = reference.generate(prompt, **settings, suppress_tokens=suppress, stop_strings=strings, tokenizer=tokenizer)
        results = generate(session, prompt, stop_strings=strings, **given)
        if (different := generation.different_ids(results, want)) is not None:
            generation.excuse(generated, want.margin(different[0]), f"{prompt}, {strings}: {different[1]}")
            continue
        generated.draws += 1
        for r in results:
            if r.finish == "stop" and round % 2:
                check_stop(r, strings, before, tokenizer.decode(r.ids[-1:]))
            elif r.finish != "stop":
                assert r.finish == "length" and (r.stop_index >= 0 or r.stop_begin == -1)
        assert beams > 1 or results[0].finish == "stop" or len(results[0].ids) == 10


# ---- the logits callback ----


@pytest.mark.parametrize("beams", [1, 3])
def test_callback_forbids(tiny, beams, rng):
    """As suppress_ids does; and it sees the ids that there are."""
    forbidden, seen = [int(i) for i in rng.choice(64, 30, replace=False)], []

    def forbid(sequence, ids, logits):
        seen.append((sequence, ids))
        logits[forbidden] = -np.inf

    settings = dict(max_new_tokens=9, num_beams=beams, num_return_sequences=beams, eos_ids=[], logprobs=1)
    want = generate(tiny, [1, 2, 3], suppress_ids=forbidden, **settings)
    got = generate(tiny, [1, 2, 3], logits=forbid, **settings)
    assert [(r.ids, r.score, r.logprobs) for r in got] == [(r.ids, r.score, r.logprobs) for r in want]
    assert seen[0] == (0, [1, 2, 3]) and len(seen) == 1 + 8 * beams
    assert all(ids[:3] == [1, 2, 3] and len(ids) == 3 + 1 + i // beams for i, (_, ids) in enumerate(seen[1:]))
    assert [sequence for sequence, _ in seen[1:]] == list(range(beams)) * 8


def wave(ids, vocab):
    """A change of the logits that depends on the last token and on how many there are."""
    return np.cos(np.arange(vocab) * (1 + ids[-1]) + len(ids)).astype(np.float32) * 2


class Wave(transformers.LogitsProcessor):
    def __init__(self):
        self.seen = []

    def __call__(self, input_ids, scores):
        self.seen.append(input_ids.tolist())
        return scores + torch.tensor(np.stack([wave(ids, scores.shape[1]) for ids in input_ids.tolist()]))


@pytest.mark.parametrize("case", ["greedy", "beams", "sampling"])
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_callback_as_a_custom_processor(family, case, rng, generated, tmp_path):
    cls = getattr(generation, family)(tmp_path, rng)
    reference, processor, seen = generation.Reference(tmp_path, cls), Wave(), []
    settings = dict(max_new_tokens=7, repetition_penalty=1.3, no_repeat_ngram_size=2)
    if case == "beams":
        settings.update(num_beams=3, num_return_sequences=3)
    if case == "sampling":
        settings.update(generation.draw_sampling(rng))
    prompt = [int(i) for i in rng.integers(0, 60, 5)]

    def change(sequence, ids, logits):
        seen.append((sequence, ids))
        logits += wave(ids, len(logits))

    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        given = generation.our_settings(settings)
        kept = dict(eos_ids=[], keep_logits=1, keep_scores=1)
        with Generate(session, inputs_of(prompt), logits=change, **kept, **given) as request:
            drawn = request.wait().result().ids if case == "sampling" else None
            want = reference.generate(prompt, drawn=drawn, logits_processor=[processor], **settings)
            generation.compare(generated, request, want, f"{family}, {case}, callback")
    beams = settings.get("num_beams", 1)
    wanted = [ids for step in processor.seen for ids in step][beams - 1 :]  # of the first step one row, whatever the beams
    generated.require([ids for _, ids in seen] == wanted, f"callback saw {seen}, expected {wanted}")


class Penalty(transformers.LogitsProcessor):
    """presence_penalty and frequency_penalty, which transformers lacks: of new tokens alone."""

    def __init__(self, prompt, presence, frequency):
        self.prompt, self.presence, self.frequency = prompt, presence, frequency

    def __call__(self, input_ids, scores):
        counts = torch.stack([torch.bincount(ids[self.prompt :], minlength=scores.shape[1]) for ids in input_ids])
        return scores - self.presence * (counts > 0) - self.frequency * counts


@pytest.mark.parametrize("beams", [1, 3])
def test_presence_and_frequency(beams, rng, generated, tmp_path):
    reference = generation.Reference(tmp_path, generation.gpt2(tmp_path, rng))
    with tfi.Model(tmp_path, dtype="fp32") as model, tfi.Session(model) as session:
        for presence, frequency in ((0.7, 0.0), (0.0, 0.4), (-0.5, 0.3)):
            prompt, settings = [int(i) for i in rng.integers(0, 60, 6)], dict(max_new_tokens=9, num_beams=beams)
            want = reference.generate(prompt, logits_processor=[Penalty(6, presence, frequency)], **settings)
            given = dict(presence_penalty=presence, frequency_penalty=frequency, eos_ids=[], keep_logits=1, keep_scores=1)
            with Generate(session, inputs_of(prompt), **given, **settings) as request:
                generation.compare(generated, request, want, f"{prompt}, {presence}, {frequency}, {beams} beams")


def test_others_go_on_during_a_callback(tiny):
    """The callback returns only when another thread's request is done."""
    done, reached = threading.Event(), threading.Event()

    def wait(*_):
        reached.set()
        assert done.wait(30), "the other request waited for the callback"

    with Generate(tiny, inputs_of([1, 2]), max_new_tokens=3, eos_ids=[], logits=wait) as first:
        with Generate(tiny, inputs_of([3, 4]), max_new_tokens=8, eos_ids=[]) as second:
            thread = threading.Thread(target=first.wait)
            thread.start()
            assert reached.wait(30)
            second.wait()
            done.set()
            thread.join()
            assert (len(first.result().ids), len(second.result().ids)) == (3, 8)


# ---- sampling ----


def test_seeds(tiny):
    settings = dict(max_new_tokens=20, do_sample=1, temperature=3.0, eos_ids=[], num_return_sequences=3)
    first, again, other = ([r.ids for r in generate(tiny, [1, 2], seed=seed, **settings)] for seed in (5, 5, 6))
    assert first == again and len({tuple(ids) for ids in first + other}) == 6
    together = generate_together(tiny, [([7] * 20, dict(max_new_tokens=9, eos_ids=[])), ([1, 2], dict(seed=5, **settings))])
    assert [r.ids for r in together[1]] == first


@pytest.mark.parametrize("warped", [False, True])
def test_distribution(tiny, warped, rng):
    """Chi-square of 6,400 tokens against the probabilities that the reference's warped logits give; false alarms are rarer than
    one in ten million."""
    settings = dict(max_new_tokens=1, do_sample=1, eos_ids=[], top_k=0, temperature=2.0)
    if warped:
        settings.update(temperature=1.5, top_k=30, top_p=0.9, repetition_penalty=1.5)
    with Generate(tiny, inputs_of([1, 2, 3]), keep_scores=1, **settings) as request:
        scores = request.wait().scores(0).astype(np.float64)
    p = np.exp(scores - scores.max())
    p /= p.sum()
    counts, first_seed = np.zeros(64), int(rng.integers(2**40))
    for seed in range(first_seed, first_seed + 200):
        for r in generate(tiny, [1, 2, 3], seed=seed, num_return_sequences=32, **settings):
            counts[r.ids[0]] += 1
    assert counts.sum() == 6400 and counts[p == 0].sum() == 0
    assert_drawn_from(p * 6400, counts)


def test_beam_sampling(tiny, rng):
    """A step of one token: what is returned is what is drawn first, without replacement; its score is its log-probability."""
    settings = dict(max_new_tokens=1, do_sample=1, eos_ids=[], top_k=0, temperature=2.0, num_beams=3, num_return_sequences=3)
    with Generate(tiny, inputs_of([1, 2, 3]), keep_scores=1, **settings) as request:
        results, scores = request.wait().results(), request.scores(0)
    assert [r.score for r in results] == pytest.approx([scores[r.ids[0]] for r in results], abs=1e-4)
    assert sorted((r.score for r in results), reverse=True) == [r.score for r in results]
    keys = scores + rng.gumbel(size=(100_000, 64))
    wanted = np.bincount(np.argpartition(-keys, 3, axis=1)[:, :3].ravel(), minlength=64) / 100_000
    counts, first_seed = np.zeros(64), int(rng.integers(2**40))
    for seed in range(first_seed, first_seed + 1500):
        ids = [r.ids[0] for r in generate(tiny, [1, 2, 3], seed=seed, **settings)]
        assert len(set(ids)) == 3
        counts[ids] += 1
    assert_drawn_from(wanted * 1500, counts)


def assert_drawn_from(wanted, counts):
    """Ids that are wanted less than five times count together. Their sum leaves a degree of freedom less than is taken here,
    and drawing without replacement varies less: the test is milder by that."""
    frequent = wanted >= 5
    got, want = counts[frequent], wanted[frequent]
    if wanted[~frequent].sum() >= 5:
        got, want = np.append(got, counts[~frequent].sum()), np.append(want, wanted[~frequent].sum())
    statistic, freedom = ((got - want) ** 2 / want).sum(), len(got)
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - 1 + spread) / spread**0.5  # Wilson and Hilferty's normal approximation
    assert z < 5.3, (statistic, freedom)


def test_beams_lead_to_scores(tiny, rng):
    """What the beams that a sequence came along gave for its tokens adds up to its own score."""
    for more in ({}, dict(do_sample=1, top_k=0, temperature=2.0, seed=int(rng.integers(2**40))), dict(eos_ids=[int(rng.integers(64))])):
        settings = dict(max_new_tokens=12, num_beams=5, num_return_sequences=4, length_penalty=0.5, eos_ids=[]) | more
        with Generate(tiny, inputs_of([1, 2, 3]), keep_scores=1, **settings) as request:
            results = request.wait().results()
            for r in results:
                steps = [request.scores(step, beam)[token] for step, (beam, token) in enumerate(zip(r.beams, r.ids))]
                assert sum(steps) / len(steps) ** 0.5 == pytest.approx(r.score, abs=1e-4)
        assert not more.get("do_sample") or len({beam for r in results for beam in r.beams}) > 1
    assert generate(tiny, [1, 2, 3], max_new_tokens=3)[0].beams is None


# ---- bad input: a status that says why, and the session goes on ----


def refused(session, status, *words, prompt=(1, 2, 3), **settings):
    with pytest.raises(tfi.Error) as e:
        generate(session, list(prompt), **settings)
    assert e.value.status == status, e.value
    for word in words:
        assert word in e.value.text, e.value
    assert len(generate(session, [1, 2, 3], max_new_tokens=2, eos_ids=[])[0].ids) == 2


def test_refused_settings(tiny):
    for words, settings in [
        (("50", "40"), dict(prompt=range(50))),
        (("num_beams", "0"), dict(num_beams=0)),
        (("top_p", "7"), dict(top_p=7.0, do_sample=1)),
        (("top_p", "do_sample"), dict(top_p=0.5, do_sample=0)),
        (("eos_ids", "64"), dict(eos_ids=[3, 64])),
        (("eos_ids", "-5"), dict(eos_ids=[-5])),
        (("64",), dict(prompt=[1, 64])),
        (("max_new_tokens",), dict(max_new_tokens=0)),
        (("num_return_sequences",), dict(num_return_sequences=4)),
        (("tokenizer",), dict(stop_strings=["x"])),
        (("forced_bos_id",), dict(forced_bos_id=5)),
        (("length_penalty", "num_beams"), dict(length_penalty=2.0)),
        (("temperature",), dict(temperature=0.0, do_sample=1)),
        (("bad_words",), dict(bad_words=[[1], [99]])),
    ]:
        refused(tiny, "INVALID", *words, **settings)


@needs_gpt2
def test_stop_string_that_is_not_utf8(speaking):
    refused(speaking[0], "INVALID", "stop_strings", "UTF-8", stop_strings=["fine", b"ab\xff"])
    refused(speaking[0], "INVALID", "stop_strings", stop_strings=[""])


def test_failing_callback(tiny):
    def stop(sequence, ids, logits):
        return int(len(ids) > 4)

    for beams in (1, 3):
        refused(tiny, "CANCELLED", "callback", logits=stop, num_beams=beams, eos_ids=[])

    def break_logits(sequence, ids, logits):
        logits[3] = np.nan

    refused(tiny, "NUMERIC", logits=break_logits, eos_ids=[])


def test_callback_that_calls_back(tiny):
    found = []

    def call_back(*_):
        for call in (
            lambda: generate(tiny, [1], max_new_tokens=1),
            lambda: request.next(),
            lambda: request.wait(),
            lambda: tfi.check(tfi.lib.tf_session_step(tiny.handle, 0)),
        ):
            with pytest.raises(tfi.Error) as e:
                call()
            found.append(e.value.status)

    with Generate(tiny, inputs_of([1, 2]), max_new_tokens=2, eos_ids=[], logits=call_back) as request:
        assert len(request.wait().result().ids) == 2
    assert found == ["BUSY"] * 8


def test_no_step_without_time(tiny):
    """With timeout 0 next only collects; somebody else drives."""
    with Generate(tiny, inputs_of([1, 2]), max_new_tokens=3, eos_ids=[]) as request:
        for _ in range(3):
            with pytest.raises(tfi.Error, match="TIMEOUT"):
                request.next(0)
            tfi.check(tfi.lib.tf_session_step(tiny.handle, -1))
            assert request.next(0).id >= 0
        assert request.next(0) is None
        assert tfi.lib.tf_session_step(tiny.handle, -1) == tfi.STATUS["END"]


@pytest.mark.parametrize("beams", [1, 3])
def test_max_time(tiny, beams):
    def slow(*_):
        time.sleep(0.02)

    settings = dict(max_new_tokens=30, eos_ids=[], num_beams=beams)
    r = generate(tiny, [1], max_time=0.2, logits=slow, **settings)[0]
    assert r.finish == "time" and 1 <= len(r.ids) <= 11
    assert generate(tiny, [1], max_time=100.0, **settings)[0].finish == "length"


@pytest.mark.parametrize("settings", [dict(), dict(num_beams=3), dict(do_sample=1, num_return_sequences=3)])
def test_cancelled_and_closed(tiny, settings):
    settings = dict(max_new_tokens=20, eos_ids=[], **settings)
    want = [r.ids for r in generate(tiny, [1, 2], **settings)]
    with Generate(tiny, inputs_of([1, 2]), **settings) as request:
        for _ in range(4):
            tfi.check(tfi.lib.tf_session_step(tiny.handle, -1))
        request.cancel()
        with pytest.raises(tfi.Error, match="CANCELLED"):
            request.wait()
        r = request.result()
        assert r.finish == "cancelled" and len(r.ids) == 4
        if "num_beams" not in settings:
            assert [r.ids for r in request.results()] == [ids[:4] for ids in want]
    other = Generate(tiny, inputs_of([1, 2]), **settings)
    for _ in range(3):
        tfi.check(tfi.lib.tf_session_step(tiny.handle, -1))
    other.close()
    assert [r.ids for r in generate(tiny, [1, 2], **settings)] == want


def test_cancelled_by_another_thread(tiny):
    """While it waits for its own callback, and while it runs."""
    reached, go = threading.Event(), threading.Event()

    def wait(*_):
        reached.set()
        go.wait(30)

    with Generate(tiny, inputs_of([1]), max_new_tokens=30, eos_ids=[], logits=wait) as request:
        threading.Thread(target=lambda: (reached.wait(30), request.cancel(), go.set())).start()
        with pytest.raises(tfi.Error, match="CANCELLED"):
            request.wait()
    assert len(generate(tiny, [1], max_new_tokens=3, eos_ids=[])[0].ids) == 3


def test_room(tiny):
    """What can never fit is INVALID, with both numbers; what others hold now is BUSY."""
    with tfi.Session(tiny.model, kv_tokens=64) as small:
        refused(small, "INVALID", "80", "64", num_beams=5, max_new_tokens=5)
        with Generate(small, inputs_of([1, 2]), max_new_tokens=30, eos_ids=[], num_beams=2) as first:
            with pytest.raises(tfi.Error, match="BUSY.*0 of 4"):
                Generate(small, inputs_of([1]), max_new_tokens=1)
            first.wait()
            assert len(generate(small, [1], max_new_tokens=2, eos_ids=[])[0].ids) == 2
    with tfi.Session(tiny.model, kv_tokens=64, max_sequences=2, max_step_tokens=8) as narrow:
        refused(narrow, "INVALID", "3", "max_sequences", "2", num_beams=3, max_new_tokens=2)


def test_many_handles(tiny):
    before = tiny.stats().bytes
    for i in range(2000):
        request = Generate(tiny, inputs_of([1, 2, i % 64]), max_new_tokens=5, eos_ids=[])
        if i % 100 == 0:
            request.next()
        request.close()
    assert tiny.stats().bytes == before
    assert len(generate(tiny, [1], max_new_tokens=3, eos_ids=[])[0].ids) == 3
