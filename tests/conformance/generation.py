"""Models that generate, what transformers generates with them in float64 and how near its choices were, random settings."""

import contextlib
import json
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

import make
import tfi

MARGIN = 1e-4  # in (accumulated) log-probability: nearer choices of the reference excuse a different one
IMPOSSIBLE = -1e8  # beams that nothing could fill have scores of about -1e9

# transformers' names where they are not ours
OUR_NAMES = dict(
    eos_token_id="eos_ids",
    bad_words_ids="bad_words",
    suppress_tokens="suppress_ids",
    begin_suppress_tokens="begin_suppress_ids",
    forced_bos_token_id="forced_bos_id",
    forced_eos_token_id="forced_eos_ids",
)


def our_settings(settings):
    """Settings in transformers' words as those of tfi_generate.Generate."""
    out = {}
    for name, value in settings.items():
        if name == "exponential_decay_length_penalty":
            out["decay_start"], out["decay_factor"] = value
        elif isinstance(value, bool) and name != "early_stopping":
            out[name] = int(value)
        else:
            out[OUR_NAMES.get(name, name)] = value
    return out


# ---- what this version of the reference computes otherwise ----

IS_OLD = tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (5, 23)  # than what the library follows
BARRING = {"min_new_tokens", "min_length", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids"}
BARRING |= {"suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"}


def as_defined(settings, before):
    """The settings without those that transformers before 5.23 computes otherwise (5.17 was tried). There, of a text of n
    tokens sequence_bias and bad_words_ids pass over sequences of n + 1; sequence_bias refuses token 0; of several beams
    encoder_repetition_penalty acts on the first alone; exponential_decay_length_penalty makes NaN of an end that is barred."""
    out = dict(settings)
    if not IS_OLD:
        return out
    if out.get("num_beams", 1) > 1:
        out.pop("encoder_repetition_penalty", None)
    if BARRING & out.keys():
        out.pop("exponential_decay_length_penalty", None)
    lists = dict(
        sequence_bias=[bias for bias in out.get("sequence_bias", []) if len(bias[0]) <= before and 0 not in bias[0]],
        bad_words_ids=[ids for ids in out.get("bad_words_ids", []) if len(ids) <= before],
    )
    return {name: lists.get(name, value) for name, value in out.items() if lists.get(name, True)}


# ---- models ----


def gpt2(path, rng, **more):
    """A GPT-2 saved under path; returns its class. The word table is small: else the last token's own row outweighs all layers,
    and it is repeated for ever."""
    cfg = make.gpt2_config(rng, **{"n_positions": 160, "initializer_range": 0.1, **more})
    save(make.build("GPT2LMHeadModel", cfg, rng), path, "transformer.wte", rng)
    return "GPT2LMHeadModel"


def t5(path, rng, family="t5", scaled=True, tied=True, **more):
    """A T5 saved under path; returns its class. A head that is not tied is written into the file."""
    cfg = make.t5_config(family, rng, **{"decoder_start_token_id": 0, "initializer_factor": 1.0, **more})
    cls = ("MT5" if family == "mt5" else "T5") + "ForConditionalGeneration"
    save(make.build(cls, cfg, rng), path, "shared", rng)
    file = path / "config.json"
    config = json.loads(file.read_text())
    config.update(scale_decoder_outputs=scaled)
    file.write_text(json.dumps(config))
    if not tied:
        weights = safetensors.torch.load_file(path / "model.safetensors")
        is_scaled = scaled and family == "t5"  # mT5 never is
        weights["lm_head.weight"] = torch.randn(cfg.vocab_size, cfg.d_model) * (1.0 if is_scaled else cfg.d_model**-0.5)
        safetensors.torch.save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    return cls


def save(model, path, table, rng):
    with torch.no_grad():
        model.get_submodule(table).weight.mul_(float(rng.choice([0.1, 0.3])))
    make.save(model, path)
    (path / "generation_config.json").unlink(missing_ok=True)


# ---- the reference ----


class Outcome:
    """What generate gave: new ids and score of each sequence; logits and processed scores by [step][beam]; the distance of the
    two choices that were nearest to each other by step."""

    def __init__(self, out, prompt, eos, margins):
        self.margins = margins
        rows = [row[prompt:].tolist() for row in out.sequences]
        self.has_beams = getattr(out, "beam_indices", None) is not None
        if self.has_beams:
            ends = [int((beams >= 0).sum()) for beams in out.beam_indices]
        else:
            ends = [next((i + 1 for i, token in enumerate(row) if token in eos), len(row)) for row in rows]
        self.ids = [row[:end] for row, end in zip(rows, ends)]
        scores = getattr(out, "sequences_scores", None)
        self.scores = [0.0] * len(rows) if scores is None else scores.tolist()
        self.logits = [step.numpy() for step in out.logits]
        self.processed = [step.numpy() for step in out.scores]

    def margin(self, step=None):
        """The distance of the step's two best choices. A beam search's result does not tell which step took another way: there
        it is the least of all steps."""
        return min(self.margins) if self.has_beams or step is None else self.margins[step]


def least_gap(scores, count):
    """Between neighbours of the best `count` and the one behind them; what was never possible does not count."""
    best = torch.topk(scores, min(count + 1, scores.numel())).values
    best = best[best > IMPOSSIBLE].double()
    return float((best[:-1] - best[1:]).min()) if len(best) > 1 else np.inf


class Reference:
    """transformers with the checkpoint at path: float32 weights, float64 arithmetic; or all in dtype."""

    def __init__(self, path, cls, dtype=None):
        self.model = make.load(path, cls, dtype) if dtype else make.load_double(path, cls)
        self.config = self.model.config
        self.is_t5 = self.config.is_encoder_decoder
        # its cache is sized by the encoder's layers
        self.uses_cache = not (self.is_t5 and self.config.num_decoder_layers > self.config.num_layers)

    def generate(self, prompt=None, embeddings=None, decoder=None, drawn=None, **settings):
        """Settings in transformers' words. `drawn`: the tokens that sampling shall draw, one a step."""
        given = dict(input_ids=None if prompt is None else torch.tensor([prompt]))
        n = len(prompt) if prompt is not None else len(embeddings)
        if embeddings is not None:
            given["inputs_embeds"] = torch.tensor(embeddings, dtype=torch.float64)[None]
        before = 1 if self.is_t5 else 0 if prompt is None else n
        if decoder is not None:
            given["decoder_input_ids"] = torch.tensor([decoder])
            before = len(decoder) + (decoder[0] != self.config.decoder_start_token_id)
        settings = {"eos_token_id": None, "pad_token_id": 0, "do_sample": False, **settings}
        margins = []
        with torch.no_grad(), self.watched(margins, drawn):
            out = self.model.generate(
                **{k: v for k, v in given.items() if v is not None},
                **settings,
                attention_mask=torch.ones(1, n, dtype=torch.long),
                use_cache=self.uses_cache,
                return_dict_in_generate=True,
                output_logits=True,
                output_scores=True,
            )
        if not margins:
            margins = [least_gap(step[0], 1) for step in out.scores]
        eos = settings["eos_token_id"] or []
        return Outcome(out, before, eos if isinstance(eos, list) else [eos], margins)

    @contextlib.contextmanager
    def watched(self, margins, drawn):
        """Record how near a beam search's choices are; draw what is given."""
        model, steps = self.model, iter(drawn or [])
        continuations, finished = model._get_top_k_continuations, model._update_finished_beams

        def watch_continuations(accumulated_log_probs, beams_to_keep, **more):
            margins.append(least_gap(accumulated_log_probs[0], beams_to_keep))
            return continuations(accumulated_log_probs=accumulated_log_probs, beams_to_keep=beams_to_keep, **more)

        def watch_finished(beam_scores, num_beams, **more):
            out = finished(beam_scores=beam_scores, num_beams=num_beams, **more)
            margins[-1] = min(margins[-1], least_gap(out[1][0], num_beams))
            return out

        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(model, "_get_top_k_continuations", watch_continuations))
            stack.enter_context(mock.patch.object(model, "_update_finished_beams", watch_finished))
            if drawn is not None:
                draw = mock.patch("torch.multinomial", lambda *_, **__: torch.tensor([[next(steps)]]))
                stack.enter_context(draw)
            yield

    def forward(self, prompt, tokens):
        """Logits behind each of the decoder's tokens, which are all of GPT-2's."""
        with torch.no_grad():
            if self.is_t5:
                out = self.model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([tokens]), use_cache=False)
            else:
                out = self.model(input_ids=torch.tensor([tokens]))
        return out.logits[0].double()

    def teacher_forced(self, prompt, new):
        """Logits that each of the new ids was chosen from."""
        tokens = [*([0] if self.is_t5 else prompt), *new]
        return self.forward(prompt, tokens)[-1 - len(new) : -1].numpy()

    def logprobs(self, prompt, new, decoder=None):
        """log_softmax behind each of the decoder's tokens."""
        return torch.log_softmax(self.forward(prompt, [*(decoder or prompt), *new]), dim=-1).numpy()


# ---- comparison: `generated` is the tally ----


def first_difference(got, want):
    """The first step at which one of the sequences differs, None if all are equal."""
    steps = []
    for a, b in zip(got, want):
        if a != b:
            steps.append(next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b))))
    return min(steps, default=None)


def excuse(generated, margin, text):
    """A difference that only a choice of the reference's between equals, or nearly equals, may explain."""
    if margin == 0:
        generated.ties += 1
        return
    generated.draws += 1
    generated.require(margin < MARGIN, f"{text}, margin {margin:.3g}")
    generated.excused += 1


def different_ids(got, want):
    """None, or the first step at which ids differ and what they are. Where fewer beams were possible than wanted, the rest,
    with a score of about -1e9, is arbitrary."""
    possible = [i for i, score in enumerate(want.scores) if score > IMPOSSIBLE]
    ids, wanted = [got[i].ids for i in possible], [want.ids[i] for i in possible]
    step = first_difference(ids, wanted)
    return None if step is None else (step, f"{ids}, expected {wanted}")


def different_kept(generated, request, want):
    """None, or where raw logits or processed scores of a step and beam differ."""
    for kind, steps in (("logits", want.logits), ("processed", want.processed)):
        for step, rows in enumerate(steps):
            for row, expected in enumerate(rows):
                got, where = request.scores(step, row, kind), f"{kind} of step {step}, row {row}"
                finite = np.isfinite(expected)
                if (np.isfinite(got) != finite).any():
                    return f"{where}: infinite at {np.flatnonzero(~np.isfinite(got))}, expected {np.flatnonzero(~finite)}"
                got, expected = got[finite].astype(np.float64), expected[finite].astype(np.float64)
                # few log-probabilities near 0 are differences of greater numbers
                error = np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1.0)
                if error > 1e-5:
                    return f"{where}: relative L2 {error:.3g}"
                generated.worst[kind] = max(generated.worst[kind], float(error))
    return None


def compare(generated, request, want, what):
    """Ids, scores and all that is kept of a request against the reference's. Where exponential_decay_length_penalty meets
    an infinity that makes NaN or infinity; the reference goes on with them, here that is refused."""
    if any((np.isnan(step) | np.isposinf(step)).any() for step in want.processed):
        generated.draws += 1
        with pytest.raises(tfi.Error, match="NUMERIC"):
            request.wait()
        return
    got = request.wait().results()
    if (ids := different_ids(got, want)) is not None:
        return excuse(generated, want.margin(ids[0]), f"{what}: {ids[1]}")
    if (kept := different_kept(generated, request, want)) is not None:
        return excuse(generated, want.margin(), f"{what}: {kept}")
    generated.draws += 1
    for r, score in zip(got, want.scores):
        error = abs(r.score - score)
        generated.require(error <= max(1e-4, 1e-5 * abs(score)), f"{what}: score {r.score}, expected {score}")


# ---- random settings, in transformers' words ----


def some_ids(rng, pool, most=3):
    return [int(i) for i in rng.choice(pool, int(rng.integers(1, most + 1)))]


def draw_processors(rng, likely, vocab, prompt, eos, may_tie):
    """Each with a chance of 1 in 4; ids are mostly such as are `likely` to be generated. Ends that are forced tie."""
    pool = np.concatenate([np.repeat(likely, 3), rng.integers(0, vocab, 20)])
    values = dict(
        repetition_penalty=lambda: float(rng.choice([0.7, 1.2, 2.0])),
        no_repeat_ngram_size=lambda: int(rng.integers(1, 4)),
        encoder_repetition_penalty=lambda: float(rng.choice([0.8, 1.5])),
        encoder_no_repeat_ngram_size=lambda: int(rng.integers(1, 4)),
        bad_words_ids=lambda: [some_ids(rng, pool) for _ in range(3)],
        suppress_tokens=lambda: sorted(set(some_ids(rng, pool, 5))),
        begin_suppress_tokens=lambda: sorted(set(some_ids(rng, pool, 5))),
        sequence_bias=lambda: [[ids, float(rng.normal() * 3)] for ids in {tuple(some_ids(rng, pool)): 0 for _ in range(4)}],
        renormalize_logits=lambda: True,
        remove_invalid_values=lambda: True,
        forced_eos_token_id=lambda: some_ids(rng, pool, 2 if may_tie else 1),
    )
    if prompt == 1:
        values["forced_bos_token_id"] = lambda: int(rng.choice(np.setdiff1d(pool, eos)))  # an end at once leaves no beam
    if eos:
        values["exponential_decay_length_penalty"] = lambda: (int(rng.integers(0, 6)), float(rng.choice([1.05, 1.3])))
    out = {name: value() for name, value in values.items() if rng.random() < 0.25}
    for bias in out.get("sequence_bias", []):
        bias[0] = list(bias[0])
    forced = {out.get("forced_bos_token_id"), *out.get("forced_eos_token_id", [])}
    for name in {"suppress_tokens", "begin_suppress_tokens"} & out.keys():  # what is forced and suppressed leaves no token
        out[name] = [i for i in out[name] if i not in forced] or [0 if 0 not in forced else vocab - 1]
    return out


def draw_settings(rng, likely, vocab, prompt):
    """A random request: lengths, ends, strategy and processors. `likely`: ids that are generated without any settings;
    `prompt`: tokens of the decoder's prompt."""
    new = int(rng.integers(1, 15) if rng.random() < 0.9 else rng.integers(20, 40))  # some cross several blocks of keys
    out = dict(max_new_tokens=new) if rng.random() < 0.7 else dict(max_length=prompt + new)
    if rng.random() < 0.7:
        out["eos_token_id"] = sorted(set(some_ids(rng, likely)))
        if rng.random() < 0.3:
            least = int(rng.integers(1, new + 1))
            out.update(rng.choice([dict(min_new_tokens=least), dict(min_length=prompt + least)]))
    if rng.random() < 0.6:
        out["num_beams"] = int(rng.integers(2, 6))
        out["num_return_sequences"] = int(rng.integers(1, out["num_beams"] + 1))
        out["early_stopping"] = (False, True, "never")[rng.integers(3)]
        out["length_penalty"] = float(rng.choice([-0.5, 0.0, 0.6, 1.0, 2.0]))
    out.update(draw_processors(rng, likely, vocab, prompt, out.get("eos_token_id", []), "num_beams" not in out))
    return as_defined(out, prompt)


def draw_sampling(rng):
    """What acts on sampling alone, each with a chance of 1 in 3."""
    values = dict(
        temperature=float(rng.choice([0.5, 0.9, 1.7])),
        top_k=int(rng.choice([0, 3, 40])),
        top_p=float(rng.choice([0.3, 0.8, 0.95])),
        min_p=float(rng.choice([0.01, 0.1])),
        top_h=float(rng.choice([0.3, 0.8])),
        typical_p=float(rng.choice([0.3, 0.9])),
        epsilon_cutoff=float(rng.choice([1e-3, 1e-2])),
        eta_cutoff=float(rng.choice([1e-3, 1e-2])),
    )
    return dict(do_sample=True, **{name: value for name, value in values.items() if rng.random() < 1 / 3})
