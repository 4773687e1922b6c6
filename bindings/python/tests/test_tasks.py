"""Every task through Model, against transformers and sentence-transformers on the same directory."""

import gc
import subprocess
import sys

import make
import numpy as np
import pytest
import tfinfer
import torch
import transformers
from conftest import MODELS, opened

TEXTS = ["A cat sat on the mat.", "Zürich's naïve café — 東京", "the house in the water", ""]


def near(got, want, bound=1e-5):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.linalg.norm(got - want) <= bound * np.linalg.norm(want)


def test_embed(minilm, embedder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    want = sentence_transformers.SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    near(embedder.embed(TEXTS), want)
    near(embedder.embed(TEXTS[0]), want[0])
    assert embedder.embed([]).shape == (0, 384)
    assert embedder.embed(np.array(TEXTS[:2])).shape == (2, 384)


def test_calls_of_one_input_are_made_before(embedder, rng):
    """As many as are made at once and more: each vector is the caller's own, and what fails leaves nothing behind."""
    texts = [f"text {i} " * (1 + i % 5) + "\0é" * (i % 2) for i in range(80)]
    rows = [rng.integers(1000, 30000, 1 + i % 9).astype(np.int32) for i in range(80)]
    found = [(embedder.embed(text), embedder.embed(row), embedder.embed(row.tolist())) for text, row in zip(texts, rows)]
    kept = [vector.copy() for vectors in found for vector in vectors]
    for text, row, (of_text, of_row, of_list) in zip(texts, rows, found):
        gc.collect(0)
        near(of_text, embedder.embed([text])[0])
        near(of_row, embedder.embed([row])[0])
        assert np.array_equal(of_row, of_list)
    pools = embedder._vectors, embedder._calls_of_text, embedder._calls_of_ids
    unknown = tfinfer.errors.InvalidError
    for bad, error in (("\ud800", UnicodeEncodeError), ([2**40], OverflowError), ([30522], unknown), ([1, "2"], TypeError)):
        for _ in range(100):
            with pytest.raises(error):
                embedder.embed(bad)
    assert sum(map(len, pools)) < 40
    assert all(map(np.array_equal, [vector for vectors in found for vector in vectors], kept))
    near(embedder.embed(texts[0]), kept[0])


def test_embed_writes_where_it_is_told(embedder):
    wide = np.full((2, 400), 7, np.float32)
    out = embedder.embed(TEXTS[:2], out=wide)
    assert out is wide
    assert (wide[:, 384:] == 7).all()
    near(wide[:, :384], embedder.embed(TEXTS[:2]))
    apart = np.zeros((6, 384), np.float32)
    embedder.embed(TEXTS[:2], out=apart[1::3])
    near(apart[[1, 4]], wide[:, :384])
    assert not apart[[0, 2, 3, 5]].any()


def test_ids_of_every_form(embedder, rng):
    ids = rng.integers(1000, 30000, (3, 9)).astype(np.int32)
    want = np.stack([embedder.embed(row) for row in ids])
    for form in (
        ids,
        ids.astype(">i4"),
        ids.astype(np.int64),
        ids.tolist(),
        list(ids),
        np.asfortranarray(ids),
        torch.from_numpy(ids),
        torch.from_numpy(ids).long(),
    ):
        near(embedder.embed(form), want)
    near(embedder.embed([torch.from_numpy(row) for row in ids]), want)
    near(embedder.embed(np.repeat(ids, 2, axis=1)[:, ::2]), want)
    near(embedder.embed(ids[0].astype(">i4")), want[0])
    with pytest.raises(TypeError):
        embedder.embed(np.array(["2020-01-01"], "M8[D]"))
    locked = ids.copy()
    locked.flags.writeable = False
    near(embedder.embed(locked), want)
    near(embedder.embed([ids[0][:3], ids[1]])[1], want[1])


def test_what_is_contiguous_is_not_copied(rng):
    from tfinfer._inputs import Inputs

    ids, vectors = rng.integers(0, 9, (3, 4)).astype(np.int32), np.zeros((3, 4, 8), np.float32)
    assert Inputs(ids, {}, 8).c.ids == ids.ctypes.data
    assert Inputs(ids[1], {}, 8).c.ids == ids[1].ctypes.data
    tensor = torch.from_numpy(ids.copy())
    assert Inputs(tensor, {}, 8).c.ids == tensor.data_ptr()
    assert Inputs(None, {"embeddings": vectors}, 8).c.embeddings == vectors.ctypes.data


def test_encode(made, rng):
    path = made("BertForMaskedLM")
    ids = [rng.integers(5, 60, n).tolist() for n in (4, 1, 17)]
    types = [[1] * len(row) for row in ids]
    want = make.run(make.load_double(path, "BertForMaskedLM"), ids, types)
    with opened(path) as model:
        got = model.encode(ids, type_ids=types, layers=[0, 2])
        near(got.hidden, np.asarray(want["hidden"])[[0, 2]])
        near(got.token_logits, want["token_logits"])
        assert got.starts.tolist() == [0, 4, 5, 22]
        assert got.pooled is None and got.sequence_logits is None
        near(model.encode("the cat").token_logits, model.encode(model.tokenizer("the cat").input_ids).token_logits)


def test_embeddings_in_place_of_ids(made, rng):
    path = made("BertForSequenceClassification", num_labels=3)
    table = make.load(path, "BertForSequenceClassification").get_input_embeddings().weight.detach()
    with opened(path) as model:
        ids = rng.integers(5, 60, 7)
        want = model.classify(ids).logits
        vectors = table[ids]
        for form in (vectors, vectors.numpy(), vectors.double(), np.asfortranarray(vectors.numpy()), vectors.tolist()):
            near(model.classify(embeddings=form).logits, want, 1e-6)
        near(model.classify(embeddings=[vectors, vectors])[1].logits, want, 1e-6)
        mixed = ids.copy()
        mixed[2:4] = -1
        near(model.classify(mixed, embeddings=vectors).logits, want, 1e-6)


def test_classify(made):
    path = made(
        "BertForSequenceClassification", num_labels=3, id2label={0: "bad", 1: "so", 2: "good"}, label2id={"bad": 0, "so": 1, "good": 2}
    )
    pipeline = transformers.pipeline("text-classification", str(path), top_k=None, device="cpu")
    with opened(path) as model:
        for text in TEXTS:
            got, want = model.classify(text), pipeline([text])[0]
            assert got.label == want[0]["label"]
            assert got.score == pytest.approx(want[0]["score"], abs=1e-5)
            assert dict(zip(model.info.labels, got.scores.tolist())) == pytest.approx({w["label"]: w["score"] for w in want}, abs=1e-5)
        both = model.classify(["the cat", "the house"], pairs=["water", "in water"])
        assert isinstance(both, list) and len(both) == 2
        near(both[1].logits, model.classify("the house", pairs="in water").logits)
        assert model.classify("the cat", activation="sigmoid").scores.sum() != pytest.approx(1)


def test_ner(punctuate):
    text = "the lord said unto moses where is thy brother"
    pipeline = transformers.pipeline("token-classification", str(MODELS / "bert-punctuate"), dtype=torch.float32, device="cpu")
    for strategy in ("simple", "first", "none"):
        got, want = punctuate.ner(text, aggregation_strategy=strategy), pipeline(text, aggregation_strategy=strategy)
        want = [w for w in want if w.get("entity_group", w.get("entity")) != "O"]
        assert [(e.label, e.start, e.end) for e in got] == [(w.get("entity_group", w.get("entity")), w["start"], w["end"]) for w in want]
        assert [e.score for e in got] == pytest.approx([float(w["score"]) for w in want], abs=1e-4)
        assert all(e.text == text[e.start : e.end] for e in got)
    ids = punctuate.tokenizer(text).input_ids
    assert [e.label for e in punctuate.ner(ids)] == [e.label for e in punctuate.ner(text)]
    assert {e.text for e in punctuate.ner(ids)} == {""}
    assert len(punctuate.ner([text, "hello"])) == 2


def test_characters_are_code_points(punctuate):
    text = "𝒳 héllo the lord 東京"
    for entity in punctuate.ner(text, keep_all=True):
        assert entity.text == text[entity.start : entity.end] == text.encode()[entity.byte_start : entity.byte_end].decode()


def test_answer(made):
    path = made("BertForQuestionAnswering")
    question, context = "where is the cat", "the cat is in the house on the water, 東京"
    with opened(path) as model:
        best = model.answer(question, context, top_k=3)
        assert len(best) == 3 and best[0].score >= best[1].score >= best[2].score
        assert all(a.text == context[a.start : a.end] for a in best)
        assert [a.text for a in model.answer([question], [context])[0]] == [best[0].text]
        encoded = model.tokenizer(question, context)
        where = [i for i, s in enumerate(encoded.sequence_ids()) if s == 1]
        [same] = model.answer(encoded.input_ids, contexts=[where[0], where[-1] + 1], type_ids=encoded.token_type_ids)
        assert (same.token_start, same.token_end) == (best[0].token_start, best[0].token_end)


def test_fill_mask(made):
    path = made("BertForMaskedLM")
    pipeline = transformers.pipeline("fill-mask", str(path), device="cpu")
    with opened(path) as model:
        got, want = model.fill_mask("the [MASK] in water", top_k=4), pipeline("the [MASK] in water", top_k=4)
        spelled = pipeline.tokenizer.convert_ids_to_tokens([w["token"] for w in want])  # None: the model has more ids than the vocabulary
        assert [(f.id, f.token) for f in got] == [(w["token"], token or "") for w, token in zip(want, spelled)]
        assert [f.score for f in got] == pytest.approx([w["score"] for w in want], abs=1e-5)
        ids = [f.id for f in got[2:]]
        assert sorted(f.id for f in model.fill_mask("the [MASK] in water", targets=ids, top_k=2)) == sorted(ids)


def test_info_and_plan(made):
    path = made("BertForSequenceClassification", num_labels=2)
    plan = tfinfer.plan(path, device="cpu")
    with opened(path) as model:
        assert model.info.family == "bert" and model.info.architecture == "BertForSequenceClassification"
        assert model.info.labels == ("LABEL_0", "LABEL_1") and model.info.dtype == "fp32" and model.info.device == "cpu"
        assert "classify" in model.info.tasks and "generate" not in model.info.tasks
        assert plan.weight_bytes > 0 and plan.total_bytes >= plan.session_bytes
        assert "norm" in model.graph() and model.graph("dot").startswith("digraph")
        before = model.stats
        model.classify("the cat")
        assert model.stats.calls == before.calls + 1


def test_progress_and_log(made):
    path = made("BertForSequenceClassification", num_labels=2)
    seen, lines = [], []
    with opened(path, progress=lambda *at: seen.append(at), log=lambda *line: lines.append(line)) as model:
        assert seen and seen[-1][0] <= seen[-1][1]
        seen.clear()
        model.classify(["the cat"] * 40, progress=lambda *at: seen.append(at))
        assert seen and all(0 <= done <= total for done, total in seen)
    assert all(level in ("debug", "info", "warning") and isinstance(text, str) for level, text in lines)


def test_numpy_is_imported_when_it_is_needed(minilm):
    program = f"""
import sys, tfinfer
assert tfinfer.Tokenizer.open({str(minilm)!r})("a cat").input_ids and "numpy" not in sys.modules
assert tfinfer.options.ModelOptions and not hasattr(tfinfer, "nothing_of_the_kind")
model = tfinfer.Model.open({str(minilm)!r}, device="cpu")
assert model.embed("a cat").shape == (384,)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
