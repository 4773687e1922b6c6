"""Tokenizer against a fast tokenizer of transformers: the same call gives the same keys and values."""

import copy
import json
import pickle

import numpy as np
import pytest
import texts
import tfinfer
import torch
import transformers
from conftest import MODELS

PAIRS = [(text, texts.CURIOUS[-1 - i]) for i, text in enumerate(texts.CURIOUS)]
NAMES = ["minilm", "bert-punctuate", "gpt2-prose", "t5-pronounce"]


@pytest.fixture(scope="module")
def both(minilm):
    def load(name):
        path = minilm if name == "minilm" else MODELS / name
        return tfinfer.Tokenizer.open(path), transformers.AutoTokenizer.from_pretrained(path)

    return {name: load(name) for name in NAMES}


def same(got, want):
    """`want` may have more keys or fewer where the class in tokenizer_config.json says so of token types."""
    wanted = {key: value for key, value in want.items() if key in got}
    assert wanted.keys() == got.keys() - ({"token_type_ids"} - want.keys())
    for key, value in wanted.items():
        if isinstance(value, (np.ndarray, torch.Tensor)):
            assert type(got[key]) is type(value) and got[key].dtype == value.dtype and got[key].tolist() == value.tolist(), key
        else:
            assert got[key] == value, key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(return_offsets_mapping=True, return_special_tokens_mask=True, return_length=True),
        dict(add_special_tokens=False),
        dict(truncation=True, max_length=9),
        dict(max_length=7),
        dict(truncation="only_first", max_length=8, stride=2, return_overflowing_tokens=True, return_offsets_mapping=True),
        dict(return_token_type_ids=True, return_attention_mask=False),
        dict(return_attention_mask=None, padding_side=None, pad_to_multiple_of=None, max_length=None, truncation=None),
    ],
)
def test_calls(both, name, options):
    ours, theirs = both[name]
    given = dict(return_token_type_ids=True, **options) if "return_token_type_ids" not in options else options
    for text in [t for t in texts.CURIOUS if t.strip()]:
        same(ours(text, **given), theirs(text, **given))
    same(ours(texts.CURIOUS, **given), theirs(texts.CURIOUS, **given))


@pytest.mark.parametrize("options", [{}, dict(truncation=True, max_length=12), dict(padding=True)])
def test_pairs(both, options):
    ours, theirs = both["minilm"]
    firsts, seconds = map(list, zip(*PAIRS))
    same(ours(firsts, seconds, **options), theirs(firsts, seconds, **options))
    same(ours(firsts[0], seconds[0], **options), theirs(firsts[0], seconds[0], **options))
    same(ours(firsts[0], "", **options), theirs(firsts[0], "", **options))  # no pair
    same(ours(PAIRS, **options), theirs(PAIRS, **options))
    got, want = ours(firsts, seconds, **options), theirs(firsts, seconds, **options)
    for i in range(len(firsts)):
        assert got.sequence_ids(i) == want.sequence_ids(i) and got.word_ids(i) == want.word_ids(i) and got.tokens(i) == want.tokens(i)


@pytest.mark.parametrize(
    "options",
    [
        dict(padding=True),
        dict(padding="longest", pad_to_multiple_of=8, padding_side="left"),
        dict(padding="max_length", max_length=20, truncation=True, return_special_tokens_mask=True, return_offsets_mapping=True),
        dict(padding="max_length", max_length=4),
        dict(padding="max_length", max_length=0, pad_to_multiple_of=0),
        dict(padding=True, return_tensors="np"),
        dict(padding=True, return_tensors="pt", truncation=True, max_length=6, return_overflowing_tokens=True),
    ],
)
def test_padding(both, options):
    for name in ("minilm", "t5-pronounce"):
        ours, theirs = both[name]
        same(ours(texts.CURIOUS, **options), theirs(texts.CURIOUS, **options))
        same(ours("the cat", **options), theirs("the cat", **options))


def test_what_a_call_gives_can_be_copied(both):
    for options in ({}, dict(padding=True, return_tensors="pt")):
        encoded = both["minilm"][0](["a b", "c"], **options)
        for copied in (copy.deepcopy(encoded), pickle.loads(pickle.dumps(encoded))):
            assert copied.keys() == encoded.keys() and copied.word_ids(1) == encoded.word_ids(1)
            assert all(np.array_equal(copied[key][1], encoded[key][1]) for key in encoded)
            with pytest.raises(AttributeError):
                copied.tokens()


def test_rows_of_different_lengths_make_no_array(both):
    with pytest.raises(ValueError, match="different lengths"):
        both["minilm"][0](["a", "b c d"], return_tensors="np")


@pytest.mark.parametrize("name", NAMES)
def test_decode(both, name, rng):
    ours, theirs = both[name]
    rows = [ours(text).input_ids for text in texts.CURIOUS if text.strip()]
    rows += rng.integers(0, ours.vocab_size, (20, 12)).tolist()
    for skip in (False, True):
        assert ours.batch_decode(rows, skip_special_tokens=skip) == theirs.batch_decode(rows, skip_special_tokens=skip)
        for row in rows[-4:]:
            for form in (row, np.array(row), torch.tensor(row)):
                assert ours.decode(form, skip_special_tokens=skip) == theirs.decode(row, skip_special_tokens=skip)
            stream = ours.stream(skip_special_tokens=skip)
            assert "".join([stream.push(i) for i in row] + [stream.finish()]) == ours.decode(row, skip_special_tokens=skip)
    assert ours.decode(5) == theirs.decode(5)
    assert ours.decode([]) == ""


@pytest.mark.parametrize("name", NAMES)
def test_vocabulary(both, name):
    ours, theirs = both[name]
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(ours) == len(theirs)
    tokens = ours.tokenize("the cat sat")
    assert tokens == theirs.tokenize("the cat sat")
    assert ours.encode("the cat sat") == theirs.encode("the cat sat")
    assert ours.convert_tokens_to_ids(tokens) == theirs.convert_tokens_to_ids(tokens)
    assert ours.convert_tokens_to_ids(tokens[0]) == theirs.convert_tokens_to_ids(tokens[0])
    assert ours.convert_ids_to_tokens(7) == theirs.convert_ids_to_tokens(7)
    for special in ("unk", "pad", "cls", "sep", "mask", "eos", "bos"):
        want = getattr(theirs, special + "_token_id")
        if want is not None:
            assert getattr(ours, special + "_token_id") == want, special
            assert getattr(ours, special + "_token") == getattr(theirs, special + "_token"), special
    with pytest.raises(AttributeError):
        ours.nothing_of_the_kind  # noqa: B018


def test_a_file_by_itself(both, minilm):
    ours = tfinfer.Tokenizer.open(minilm / "tokenizer.json")
    assert ours("the cat").input_ids == both["minilm"][0]("the cat").input_ids
    assert ours.info.model == "WordPiece" and ours.info.lowercase


def test_a_models_own_closes_with_it(minilm):
    model = tfinfer.Model.open(minilm, device="cpu")
    tokenizer = model.tokenizer
    assert tokenizer is model.tokenizer and json.dumps(tokenizer("a cat")) == json.dumps(dict(tokenizer("a cat")))
    model.close()
    with pytest.raises(tfinfer.errors.ClosedError):
        tokenizer("a cat")


def test_many_texts_on_threads(both, rng):
    ours, theirs = both["minilm"]
    words = texts.Words(list(theirs.get_vocab()), rng)
    many = words.texts(*rng.integers(1, 60, 500))
    same(ours(many, threads=2), theirs(many))
