"""Logits processors, drawn tokens and beam search, as ops on prepared logits, against transformers' own classes and its _beam_search.

TFINFER_DRAW_OPS names the shared object built from draw_ops.c."""

import collections
import itertools
import warnings

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

import draw
from conftest import SEED

pytestmark = pytest.mark.skipif(not draw.PATH, reason="TFINFER_DRAW_OPS names no shared object")

COUNTS = collections.Counter()
CHI_SQUARE = 1e-7  # a true distribution fails a test less often than this


@pytest.fixture(scope="module", autouse=True)
def summary(request):
    yield
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    line = ", ".join(f"{name} {COUNTS[name]}" for name in ("draws", "mismatches", "excused"))
    reporter.write_line(f"\nprocessors: {line} | beam searches {COUNTS['searches']} | seed {SEED}")


# ---- processors ----


@pytest.fixture(scope="module")
def models():
    gpt = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=20, n_positions=64, n_embd=8, n_layer=1, n_head=1))
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=1)
    )
    return gpt, t5


def ids(rng, V, low=1, high=4):
    return rng.integers(0, V, rng.integers(low, high + 1)).tolist()


def beginnings(rng, V, tokens):
    """Sequences of ids, of which some are due: their beginning is what was said last."""
    made = []
    for _ in range(rng.integers(1, 7)):
        n = int(rng.integers(0, 4))
        start = tokens[len(tokens) - n :] if n and rng.random() < 0.6 and n <= len(tokens) else rng.integers(0, V, n).tolist()
        made.append(start + [int(rng.integers(0, V))])
    return made


# Each: (name of transformers' setting, a value for it from (rng, V, tokens, source, prompt)).
CONSTRAIN = {
    "sequence_bias": lambda r, c: [[s, float(r.normal() * 3)] for s in beginnings(r, c.V, c.tokens)],
    "encoder_repetition_penalty": lambda r, c: float(r.uniform(0.5, 2)),
    "repetition_penalty": lambda r, c: float(r.uniform(0.5, 2)),
    "no_repeat_ngram_size": lambda r, c: int(r.integers(1, 5)),
    "encoder_no_repeat_ngram_size": lambda r, c: int(r.integers(1, 5)),
    "bad_words_ids": lambda r, c: beginnings(r, c.V, c.tokens) + ([[c.eos[0]]] if c.eos and r.random() < 0.5 else []),
    "min_length": lambda r, c: int(len(c.tokens) + r.integers(-1, 3)),
    "min_new_tokens": lambda r, c: int(max(0, len(c.tokens) - c.prompt + r.integers(-1, 3))),
    "forced_bos_token_id": lambda r, c: int(r.integers(0, c.V)),
    "forced_eos_token_id": lambda r, c: ids(r, c.V, 1, 1 if c.do_sample else 2),  # a cut between equal ones is no test
    "remove_invalid_values": lambda r, c: True,
    "exponential_decay_length_penalty": lambda r, c: (int(r.integers(0, 4)), float(r.uniform(1.01, 1.5))),
    "suppress_tokens": lambda r, c: ids(r, c.V),
    "begin_suppress_tokens": lambda r, c: ids(r, c.V),
}
WARP = {
    "temperature": lambda r, c: float(r.uniform(0.3, 2)),
    "top_h": lambda r, c: float(r.uniform(0.05, 0.95)),
    "top_k": lambda r, c: int(r.integers(1, c.V + 3)),
    "top_p": lambda r, c: float(r.uniform(0, 0.999)),
    "min_p": lambda r, c: float(r.uniform(0, 1)),
    "typical_p": lambda r, c: float(r.uniform(0.05, 0.95)),
    "epsilon_cutoff": lambda r, c: float(10 ** r.uniform(-4, -1)),
    "eta_cutoff": lambda r, c: float(10 ** r.uniform(-4, -1)),
    "renormalize_logits": lambda r, c: True,
}
# A change of these that is too small to matter; what it changes lies on the cut.
THRESHOLDS = ("top_h", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
Case = collections.namedtuple("Case", "V tokens source prompt eos max_length num_beams encoder do_sample")
RENAMED = {
    "bad_words_ids": "bad_words", "forced_bos_token_id": "forced_bos", "forced_eos_token_id": "forced_eos",
    "suppress_tokens": "suppress", "begin_suppress_tokens": "begin_suppress",
}  # fmt: skip


def random_case(rng, names):
    V = int(rng.choice([7, 33, 130, 700]))
    encoder = bool(rng.random() < 0.4)
    prompt = 1 if encoder else int(rng.integers(1, 5))
    words = min(V, int(rng.choice([2, 4, V])))  # few: n-grams come again
    length = prompt + int(rng.choice([0, 1, 2, 5, 12]))
    tokens = rng.integers(0, words, length).tolist()
    source = rng.integers(0, words, rng.integers(1, 12)).tolist() if encoder else tokens[:prompt]
    eos = sorted(set(rng.integers(0, V, rng.integers(0, 4)).tolist()))
    if "exponential_decay_length_penalty" in names and not eos:
        eos = [1]
    return Case(
        V, tokens, source, prompt, eos, length + int(rng.choice([1, 2, 5])), int(rng.choice([1, 1, 3])), encoder,
        any(name in WARP for name in names) or rng.random() < 0.3,
    )  # fmt: skip


def reference(models, case, settings, scores):
    """transformers' list over one row."""
    config = transformers.GenerationConfig(
        max_length=case.max_length, num_beams=case.num_beams, do_sample=bool(case.do_sample), eos_token_id=case.eos or None,
        decoder_start_token_id=0, pad_token_id=0, **{"top_k": None, **settings},
    )  # fmt: skip
    model = models[case.encoder]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model._prepare_special_tokens(config, kwargs_has_attention_mask=True)
        processors = model._get_logits_processor(
            config, input_ids_seq_length=case.prompt, encoder_input_ids=torch.tensor([case.source]), model_kwargs={}, device="cpu"
        )
    history, row = torch.tensor([case.tokens]), torch.tensor(scores)[None]
    if case.num_beams > 1:  # the processors see a row for each beam
        row = row.log_softmax(-1)
    return processors(history, row)[0].numpy()


def ours(case, settings, scores):
    given = dict(do_sample=bool(case.do_sample), num_beams=case.num_beams, eos=case.eos, source=case.source)
    for name, value in settings.items():
        if name == "sequence_bias":
            given["sequence_bias"] = [s for s, _ in value]
            given["sequence_bias_values"] = [b for _, b in value]
        elif name == "exponential_decay_length_penalty":
            given["decay_start"], given["decay_factor"] = value
        elif value is not None:
            given[RENAMED.get(name, name)] = value
    given["begin_index"] = case.prompt + (case.prompt == 1 and "forced_bos_token_id" in settings)
    request = draw.Request(case.num_beams, case.tokens, prompt=case.prompt, max_length=case.max_length, **given)
    _, processed = draw.step([request], [scores[None]])
    request.close()
    return processed[0][0]


def on_the_cut(models, case, settings, scores, differ):
    """A change of a threshold by a hundred-thousandth, or of scores by less than a millionth, changes transformers' mind about the ids
    that differ."""
    names = [name for name in THRESHOLDS if name in settings]
    masks = []
    for factor in itertools.product((1 - 1e-5, 1, 1 + 1e-5), repeat=len(names)):
        moved = {**settings, **{name: min(settings[name] * f, 1.0) for name, f in zip(names, factor)}}
        masks.append(np.isneginf(reference(models, case, moved, scores))[differ])
    for i in range(16):
        noise = np.random.default_rng(i).uniform(-3e-7, 3e-7, case.V)
        moved = np.where(np.isfinite(scores), scores + noise * np.maximum(1, np.abs(scores)), scores).astype(np.float32)
        masks.append(np.isneginf(reference(models, case, settings, moved))[differ])
    return bool(np.ptp(np.array(masks, int), axis=0).all())


def is_tie(want, got, differ):
    """Of equal scores at the cut other ones are left, as many; or they are so low that their probabilities are 0."""
    theirs, mine = want[differ & ~np.isneginf(want)], got[differ & ~np.isneginf(got)]
    if max([*theirs, *mine]) < want.max() - 104:
        return True
    return len(theirs) == len(mine) and len({*theirs.tolist(), *mine.tolist()}) == 1


def is_underflow(want, got):
    """Behind the best id every probability is 0 in float32: transformers' sort of probabilities then keeps any ids as the second best."""
    left = np.sort(np.concatenate([want[np.isfinite(want)], got[np.isfinite(got)]]))
    return len(left) > 0 and left[-1] - left[0] > 80 and (want == want.max()).argmax() == (got == got.max()).argmax()


def is_dust(want, got, differ):
    """What differs has less than a millionth of the probability: transformers' rounding of sums near 1 decides of it."""
    values = np.where(np.isneginf(want), got, want).astype(np.float64)
    values = np.where(np.isfinite(values), values - values[np.isfinite(values)].max(), -np.inf)
    return np.exp(values[differ]).sum() < 1e-6 * np.exp(values).sum()


def check_row(models, case, settings, scores):
    got, what = ours(case, settings, scores), f"{case} {settings}"
    try:
        want = reference(models, case, settings, scores)
    except ValueError as e:
        assert "Expected parameter logits" in str(e), what
        want = np.full_like(scores, np.nan)
    COUNTS["draws"] += 1
    if case.do_sample and not np.isfinite(want.max()):  # all is banned, or the largest number grew: we cannot draw either
        assert not np.isfinite(got.max()), what
        return
    differ = np.isneginf(want) != np.isneginf(got)
    if differ.any() and (is_tie(want, got, differ) or is_underflow(want, got) or is_dust(want, got, differ)
                         or on_the_cut(models, case, settings, scores, differ)):
        COUNTS["excused"] += 1
        return
    with np.errstate(all="ignore"):
        same = (want == got) | (np.isnan(want) & np.isnan(got)) | (np.abs(want - got) <= 1e-5 * np.maximum(1, np.abs(want)))
    if differ.any() or not same.all():
        COUNTS["mismatches"] += 1
        at = np.flatnonzero(differ | ~same)
        pytest.fail(f"{what}: ids {at.tolist()[:8]}: {got[at][:8]}, transformers {want[at][:8]}")


def random_scores(rng, case, settings):
    scores = (rng.normal(size=case.V) * rng.choice([0.5, 3, 10])).astype(np.float32)
    if rng.random() < 0.2:
        scores = np.round(scores)  # ties
    if settings.get("remove_invalid_values") and rng.random() < 0.7:
        # One of each, as equal numbers are no test; log_softmax would make all of them NaN.
        bad = [-np.inf] if case.num_beams > 1 else [-np.inf, np.nan, np.inf]
        scores[rng.choice(case.V, len(bad), replace=False)] = bad
    return scores


def draw_row(models, rng, names):
    case = random_case(rng, names)
    settings = {name: (CONSTRAIN.get(name) or WARP[name])(rng, case) for name in names}
    suppressed = {*settings.get("suppress_tokens", []), *settings.get("begin_suppress_tokens", [])}
    forced = [settings.get("forced_bos_token_id"), *settings.get("forced_eos_token_id", [])]
    if suppressed & set(forced):  # refused by GenerationConfig
        return
    scores = random_scores(rng, case, settings)
    if set(names) & set(WARP):
        # A cut through equal scores falls as a sort pleases; one that a stable sort decides is checked in tests/ops.
        scores += rng.uniform(0, 1e-3, case.V).astype(np.float32)
    check_row(models, case, settings, scores)


@pytest.mark.parametrize("name", [*CONSTRAIN, *WARP])
def test_processor_alone(models, rng, name):
    for _ in range(12):
        draw_row(models, rng, [name])


def test_processors_together(models, rng):
    names = [*CONSTRAIN, *WARP]
    for _ in range(200):
        draw_row(models, rng, rng.choice(names, rng.integers(2, 9), replace=False).tolist())
    assert COUNTS["excused"] <= max(2, 0.02 * COUNTS["draws"])


def test_presence_and_frequency(rng):
    for _ in range(20):
        V = int(rng.integers(5, 60))
        prompt, drawn = rng.integers(0, V, 3).tolist(), rng.integers(0, V, 30).tolist()
        presence, frequency = rng.normal(size=2)
        scores = rng.normal(size=V).astype(np.float32)
        request = draw.Request(1, prompt + drawn, prompt=3, presence_penalty=presence, frequency_penalty=frequency)
        _, [[got]] = draw.step([request], [scores[None]])
        request.close()
        times = np.bincount(drawn, minlength=V)
        np.testing.assert_allclose(got, scores - presence * (times > 0) - frequency * times, atol=1e-5)
        COUNTS["draws"] += 1


# ---- drawn tokens ----


def test_philox():
    """The vectors published with Random123."""
    ones = 0xFFFFFFFF
    assert draw.philox(0, [0] * 4) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert draw.philox(ones << 32 | ones, [ones] * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    assert draw.philox(0x299F31D0A4093822, pi) == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def fits(counts, probabilities, what):
    """Chi-square; cells that expect less than 10 are put together."""
    order = np.argsort(probabilities)
    expected, observed = probabilities[order] * counts.sum(), counts[order]
    assert not observed[expected == 0].any(), f"{what}: drew what has no probability"
    small = int(np.searchsorted(np.cumsum(expected), 10)) + 1
    expected = np.concatenate([[expected[:small].sum()], expected[small:]])
    observed = np.concatenate([[observed[:small].sum()], observed[small:]])
    expected, observed = expected[expected > 0], observed[expected > 0]
    if len(expected) < 2:
        return
    statistic = ((observed - expected) ** 2 / expected).sum()
    p = float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2).double(), torch.tensor(statistic / 2).double()))
    assert p > CHI_SQUARE, f"{what}: p = {p:.2g} over {len(expected)} cells, seed {SEED}"


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 20}, {"top_p": 0.9}, {"min_p": 0.1}, {"V": 5000}], ids=str)
def test_sampling_distribution(rng, settings):
    """Over sequences and steps of one seed, which are all the counters that tell one number from another."""
    settings = dict(settings)
    V = settings.pop("V", 60)
    request = draw.Request(2000, [1], do_sample=1, seed=int(rng.integers(2**63)), **settings)
    scores = (rng.normal(size=(1, V)) * 2).astype(np.float32)
    counts = np.zeros(V, np.int64)
    for _ in range(10):
        [choices], [[processed]] = draw.step([request], [scores], workers=2)
        counts += np.bincount([c.token for c in choices], minlength=V)
    fits(counts, torch.tensor(processed).double().softmax(-1).numpy(), str(settings))
    # The numbers of a sequence's two steps have nothing to do with each other.
    two = np.array([request.tokens(i)[1:3] for i in range(2000)])
    if (two.std(axis=0) > 0).all():  # not if one id is all that is left
        assert abs(np.corrcoef(two.T)[0, 1]) < 0.15
    request.close()


def test_beam_sampling_distribution(rng):
    """The candidates of a step are drawn without replacement: what goes on are the best of them."""
    V, beams = 6, 2
    scores = rng.normal(size=(1, V)).astype(np.float32)
    p = torch.tensor(scores[0]).double().softmax(-1).numpy()
    want = collections.defaultdict(float)
    for drawn in itertools.permutations(range(V), 2 * beams):
        share, left = 1.0, 1.0
        for token in drawn:
            share, left = share * p[token] / left, left - p[token]
        want[tuple(sorted(drawn, key=lambda t: -scores[0][t])[:beams])] += share
    keys, got = sorted(want), collections.Counter()
    requests = [draw.Request(beams, [1], do_sample=1, num_beams=beams, seed=int(rng.integers(2**63))) for _ in range(4000)]
    choices, _ = draw.step(requests, [scores] * len(requests), workers=3)
    for two in choices:
        assert [c.parent for c in two] == [0, 0]
        got[tuple(c.token for c in two)] += 1
    for request in requests:
        request.close()
    assert set(got) <= set(keys)
    fits(np.array([got[k] for k in keys]), np.array([want[k] for k in keys]), "beams")


def test_greedy_stops_and_logprobs(rng):
    for _ in range(20):
        V = int(rng.integers(3, 300))
        scores = np.round(rng.normal(size=(1, V)) * 2).astype(np.float32)  # ties: the first of them
        best = int(scores[0].argmax())
        room = int(rng.integers(1, 3))
        eos = [best] if rng.random() < 0.5 else [(best + 1) % V]
        request = draw.Request(1, [0, 1], max_length=2 + room, eos=eos, logprobs=1)
        [[choice]], _ = draw.step([request], [scores])
        assert (choice.token, request.tokens()) == (best, [0, 1, best])
        assert choice.stop == (draw.EOS if best in eos else draw.LENGTH if room == 1 else draw.NONE)
        np.testing.assert_allclose(choice.logprob, torch.tensor(scores[0]).log_softmax(-1)[best], atol=1e-5)
        request.close()


@pytest.mark.parametrize("settings", [{}, {"do_sample": 1}, {"do_sample": 1, "top_k": 3}, {"num_beams": 2}], ids=str)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
def test_invalid_logits(rng, settings, bad):
    scores = rng.normal(size=(1, 200)).astype(np.float32)
    scores[0, rng.integers(200)] = bad
    for remove in (0, 1):
        request = draw.Request(settings.get("num_beams", 1), [1, 2], remove_invalid_values=remove, **settings)
        [choices], _ = draw.step([request], [scores])
        for i, choice in enumerate(choices):
            assert choice.stop == (draw.NONE if remove else draw.NUMERIC)
            assert len(request.tokens(i)) == (3 if remove else 2)
        request.close()


def test_alone_or_together(rng):
    """Steps of many requests at once, with any number of workers, give what each alone gives."""
    V = 300

    def settings(i):
        g = np.random.default_rng(seed + i)
        beams = int(g.choice([1, 1, 2, 4]))
        given = dict(num_beams=beams, seed=int(g.integers(2**63)), do_sample=int(g.integers(2)), logprobs=1, eos=[3], max_length=12)
        if g.random() < 0.5:
            given |= dict(top_k=int(g.integers(1, 40)), top_p=0.9, repetition_penalty=1.3)
        return beams if beams > 1 else int(g.integers(1, 4)), g.integers(0, V, g.integers(1, 4)).tolist(), given

    seed = int(rng.integers(2**31))
    logits = rng.normal(size=(5, 30, 4, V)).astype(np.float32) * 3

    def together(which, workers):
        requests = [draw.Request(n, tokens, **given) for n, tokens, given in map(settings, which)]
        record = [[] for _ in which]
        for k in range(5):
            rows = [logits[k, i, : 1 if k == 0 else r.count] for i, r in zip(which, requests)]
            choices, processed = draw.step(requests, rows, workers=workers)
            for mine, c, p in zip(record, choices, processed):
                mine.append(([x.values() for x in c], p.tobytes()))
        for mine, r in zip(record, requests):
            mine.append([r.tokens(i) for i in range(r.count)])
            r.close()
        return record

    alone = [together([i], 1)[0] for i in range(30)]
    for workers in (1, 2, 3):
        assert together(range(30), workers) == alone


# ---- beam search ----


class Prepared(transformers.GPT2LMHeadModel):
    """A model whose logits follow from the ids alone, by no rule."""

    def prepare(self, seed, V, scale):
        self.seed, self.V, self.scale = seed, V, scale

    def logits_of(self, tokens):
        return (np.random.default_rng([self.seed, *tokens]).normal(size=self.V) * self.scale).astype(np.float32)

    def forward(self, input_ids=None, **_):
        rows = np.stack([self.logits_of(row) for row in input_ids.tolist()])
        return CausalLMOutputWithCrossAttentions(logits=torch.tensor(rows)[:, None])


class EndsIn(transformers.StoppingCriteria):
    def __init__(self, pairs):
        self.pairs = pairs

    def __call__(self, input_ids, scores, **_):
        return torch.tensor([tuple(row[-2:]) in self.pairs for row in input_ids.tolist()])


def search(model, tokens, beams, pairs, **given):
    """Beam search with the ops: what the caller of a step does with its choices. The sequences and scores, best first."""
    ask = draw.COMPLETES(lambda _, beam, token: (request.tokens(beam)[-1], token) in pairs)
    request = draw.Request(beams, tokens, num_beams=beams, **({"completes": ask} if pairs else {}), **given)
    finished = [(None, -1e9)] * beams
    running = [list(tokens)] * beams
    logits = model.logits_of(tokens)[None]
    while True:
        [choices], _ = draw.step([request], [logits])
        finished = [
            finished[c.finished_from] if c.finished_from >= 0 else (running[c.finished_parent] + [c.finished_token], c.finished_score)
            for c in choices
        ]
        running = [running[c.parent] + [c.token] for c in choices]
        assert running == [request.tokens(i) for i in range(beams)]
        if choices[0].stop:
            break
        logits = np.stack([model.logits_of(row) for row in running])
    assert all(c.stop == draw.BEAMS for c in choices)
    request.close()
    return finished


def test_beam_search(rng):
    config = transformers.GPT2Config(n_positions=64, n_embd=8, n_layer=1, n_head=1, bos_token_id=None, eos_token_id=None)
    model = Prepared(config).eval()
    for _ in range(240):
        V, beams = int(rng.choice([8, 13, 40, 200])), int(rng.integers(2, 7))
        model.config.vocab_size = V
        model.prepare(int(rng.integers(2**31)), V, float(rng.choice([0.3, 1, 3])))
        tokens = rng.integers(0, V, rng.integers(1, 5)).tolist()
        eos = sorted(set(rng.integers(0, V, rng.integers(0, 4)).tolist()))
        early, penalty = [False, True, "never"][rng.integers(3)], float(rng.uniform(-1, 2))
        if rng.random() < 0.3:
            penalty = float(rng.choice([-1, 0, 1, 2]))
        most = len(tokens) + int(rng.integers(1, 14))
        pairs = {tuple(rng.integers(0, V, 2).tolist()) for _ in range(rng.choice([0, 0, 3 * V]))}
        settings = dict(repetition_penalty=1.3) if rng.random() < 0.3 else {}
        config = transformers.GenerationConfig(
            num_beams=beams, num_return_sequences=beams, early_stopping=early, length_penalty=penalty, max_length=most,
            eos_token_id=eos or None, pad_token_id=0, use_cache=False, do_sample=False, return_dict_in_generate=True,
            output_scores=True, **settings,
        )  # fmt: skip
        criteria = transformers.StoppingCriteriaList([EndsIn(pairs)] if pairs else [])
        with torch.no_grad():
            want = model.generate(
                torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens), dtype=torch.long), generation_config=config,
                stopping_criteria=criteria,
            )  # fmt: skip
        got = search(
            model, tokens, beams, pairs, early_stopping=[False, True, "never"].index(early), length_penalty=penalty,
            max_length=most, eos=eos, **settings,
        )  # fmt: skip
        what = f"beams {beams} V {V} eos {eos} early {early} penalty {penalty} max {most} prompt {tokens} pairs {len(pairs)}"
        COUNTS["draws"] += 1
        COUNTS["searches"] += 1
        longest = want.sequences.shape[1]
        fill = eos[0] if eos else -1
        rows = [row + [fill] * (longest - len(row)) if row else None for row, _ in got]
        scores = want.sequences_scores.numpy()
        close = np.abs([s for _, s in got] - scores) <= np.maximum(1e-4, 1e-5 * np.abs(scores))
        if rows != want.sequences.tolist() or not close.all():
            COUNTS["mismatches"] += 1
            pytest.fail(f"{what}: {got}, transformers {want.sequences.tolist()} {scores}")
