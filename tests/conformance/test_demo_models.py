"""The models that come with the library: the same texts, ids and labels as transformers gives from the same directories."""

import pathlib

import numpy as np
import pytest
import torch
import transformers

import tfi
from tfi_generate import generate

MODELS = pathlib.Path(__file__).resolve().parents[2] / "examples" / "models"
WORDS = "hello knight harbour quantum library transformer xylophone rhythm queue banana syzygy thorough".split()


def reference(name, cls):
    path = MODELS / name
    return getattr(transformers, cls).from_pretrained(path, dtype=torch.float32).eval(), transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("beams", [1, 4])
def test_pronunciations(rng, beams):
    model, tokenizer = reference("t5-pronounce", "T5ForConditionalGeneration")
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = WORDS + ["".join(rng.choice(letters, rng.integers(2, 12))) for _ in range(12)]
    with tfi.Model(MODELS / "t5-pronounce", dtype="fp32") as m, tfi.Session(m) as session, torch.no_grad():
        for word in words:
            ids = tokenizer(word, return_tensors="pt")
            want = model.generate(**ids, num_beams=beams, do_sample=False)[0]
            [got] = generate(session, word, **({"num_beams": beams} if beams > 1 else {}))
            assert got.ids == want[1 : 1 + len(got.ids)].tolist(), word
            assert got.finish == ("eos" if got.ids[-1] == 1 else "length"), word
            assert got.text.decode() == tokenizer.decode(want, skip_special_tokens=True), word


def test_prose(rng):
    model, tokenizer = reference("gpt2-prose", "GPT2LMHeadModel")
    starts = ["In the morning", "And it came to pass", "the ship", "I", "Behold, a great light"]
    with tfi.Model(MODELS / "gpt2-prose", dtype="fp32") as m, tfi.Session(m) as session, torch.no_grad():
        for text in starts:
            ids = tokenizer(text, return_tensors="pt")
            want = model.generate(**ids, do_sample=False, max_new_tokens=40)[0, ids.input_ids.shape[1] :]
            [got] = generate(session, text, do_sample=0, max_new_tokens=40)
            assert got.ids == want[: len(got.ids)].tolist(), text
            assert got.text.decode() == tokenizer.decode(want, skip_special_tokens=True), text


def test_punctuation():
    model, tokenizer = reference("bert-punctuate", "BertForTokenClassification")
    texts = ["the lord said unto moses where is thy brother", "it was late when mr smith came to london he said nothing"]
    with tfi.Model(MODELS / "bert-punctuate", dtype="fp32") as m, tfi.Session(m) as session, torch.no_grad():
        for text in texts:
            ids = tokenizer(text).input_ids
            want = model(torch.tensor([ids])).logits[0].numpy()
            [row] = m.tokenize([text])
            assert row[0] == ids, text
            got = session.encode(tfi.Inputs(ids=[ids]), layers=[])["token_logits"]
            assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)
            assert (got.argmax(-1) == want.argmax(-1)).all()
