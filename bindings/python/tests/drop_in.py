"""Models to be accelerated, drawn at random, and how their outputs are compared with PyTorch's."""

import copy
import warnings

import make
import numpy as np
import pytest
import torch
import transformers
from tfinfer.integrations.transformers import FallbackWarning

BOUND = 1e-5  # relative L2; the worst of 1000 draws, where there are few logits and near 0, is 3e-6


def draw(cls, rng):
    """A model of class `cls` with a configuration and weights drawn at random."""
    family = next((family for family, name in make.CLASSES if name == cls), None)
    if cls.startswith("GPT2"):
        cfg = make.gpt2_config(rng, pad_token_id=3, **make.GPT2_DIALECTS[int(rng.integers(len(make.GPT2_DIALECTS)))])
    elif "T5" in cls:
        dialect = make.T5_DIALECTS[int(rng.integers(len(make.T5_DIALECTS)))]
        layers = int(rng.integers(1, 4))  # as many in both: transformers' cache needs it
        cfg = make.t5_config("mt5" if cls.startswith("M") else "t5", rng, num_layers=layers, num_decoder_layers=layers, **dialect)
    else:
        sizes = dict(layers=int(rng.integers(1, 4)), heads=int(rng.integers(1, 4)), head_size=int(rng.choice([16, 32, 80])))
        more = dict(act=str(rng.choice(["gelu", "gelu_new", "relu"])), ffn=int(rng.choice([96, 100, 257])), tokens=64)
        cfg = make.config(family, rng, pad=int(rng.integers(3)), range=float(rng.choice([0.02, 0.05, 0.1])), **sizes, **more)
        cfg.num_labels = 2 if cls.endswith("QuestionAnswering") else int(rng.integers(2, 12))
    return make.build(cls, cfg, rng)


def draw_batch(model, rng, side="right"):
    """Ids with padding at one side, and the mask."""
    rows, columns = int(rng.integers(2, 5)), int(rng.integers(3, 30))
    ids = torch.from_numpy(rng.integers(4, model.config.vocab_size, (rows, columns)))
    lengths = torch.from_numpy(rng.integers(1, columns + 1, rows))
    lengths[rng.integers(rows)] = columns
    mask = (torch.arange(columns)[None] < lengths[:, None]).long()
    if side == "left":
        mask = mask.flip(1)
    ids[mask == 0] = model.config.pad_token_id or 0
    return dict(input_ids=ids, attention_mask=mask)


def tensors(output):
    """The tensors of an output by name, but for the cache, which an accelerated model does not have."""
    found = {}
    for name, value in output.items():
        if value is None:
            continue
        if isinstance(value, tuple):
            found.update(tensors({f"{name}.{i}": v for i, v in enumerate(value)}))
        elif name != "past_key_values":
            found[name] = value
    return found


def same(got, want, mask=None, bound=BOUND):
    """Equal classes, names, shapes, dtypes and, but for padding, numbers."""
    assert type(got) is type(want)
    got, want = tensors(got), tensors(want)
    assert list(got) == list(want)
    for name, w in want.items():
        g = got[name]
        assert (g.shape, g.dtype, g.device) == (w.shape, w.dtype, w.device), name
        if mask is not None and w.shape[:2] == mask.shape:
            g, w = g[mask.bool()], w[mask.bool()]
        assert torch.equal(g, w) or (bound and torch.linalg.vector_norm(g - w) <= bound * torch.linalg.vector_norm(w)), name


def silent(call, *args, **kwargs):
    """The result of a call that must not fall back."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error", FallbackWarning)
        return call(*args, **kwargs)


def falls_back(accelerated, model, words, call=None, **given):
    """The call warns, with these words, and gives exactly what PyTorch gives."""
    call = call or (lambda m: m(**given))
    with torch.no_grad():
        with pytest.warns(FallbackWarning, match=words) as caught:
            got = call(accelerated)
        assert caught[0].filename == call.__code__.co_filename
        want = call(model)
    if torch.is_tensor(want):
        assert torch.equal(got, want)
    else:
        same(got, want, bound=0)


def draw_generator(cls, rng):
    model = draw(cls, rng)
    eos = [int(i) for i in rng.choice(np.arange(4, 30), int(rng.integers(1, 3)), replace=False)]
    start = None if cls.startswith("GPT2") else 0
    model.generation_config = transformers.GenerationConfig(eos_token_id=eos, pad_token_id=3, decoder_start_token_id=start)
    model.config.pad_token_id = 3
    return model


def logprobs(model, given, row, ids, start):
    """Of a generated row by PyTorch in float64, for each new token."""
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            one = {name: value[row : row + 1] for name, value in given.items()}
            logits = double(**one, decoder_input_ids=ids[None], use_cache=False).logits
        else:
            kept = torch.cat([given["attention_mask"][row].bool(), torch.ones(len(ids) - start, dtype=torch.bool)])
            ids, start = ids[kept], int(kept[:start].sum())
            logits = double(ids[None], use_cache=False).logits
    return logits[0, start - 1 : -1].log_softmax(-1).gather(1, ids[start:, None])[:, 0]


def same_ids(model, given, got, want, eos=(), num_beams=1, length_penalty=1.0, **_):
    """Equal, but where float64 finds the two choices, or with beams the two sequences' scores, closer than 1e-4."""
    assert got.shape[0] == want.shape[0]
    start = 1 if model.config.is_encoder_decoder else given["input_ids"].shape[1]
    for i, (g, w) in enumerate(zip(got, want)):
        if g.shape == w.shape and torch.equal(g, w):
            continue
        row = i * len(given["input_ids"]) // len(want)
        values = []
        for ids in (g, w):
            if num_beams == 1:
                end = int((g[: len(w)] != w[: len(g)]).nonzero()[0, 0]) + 1
            else:
                ends = torch.isin(ids[start:], torch.tensor(eos)).nonzero()
                end = start + int(ends[0, 0]) + 1 if len(ends) else len(ids)
            found = logprobs(model, given, row, ids[:end], start)
            values.append(float(found.sum()) / (len(found) ** length_penalty if num_beams > 1 else 1))
        assert values[0] == pytest.approx(values[1], abs=1e-4, rel=1e-5), (i, g, w)
