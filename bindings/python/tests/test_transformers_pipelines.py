"""Pipelines of transformers over accelerated models."""

import numpy as np
import pytest
import torch
import transformers
from drop_in import same, silent
from tfinfer.integrations.transformers import accelerate
from transformers import pipeline


def close(got, want):
    """Nested results: texts and positions equal, scores nearly."""
    if isinstance(want, (list, tuple)):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            close(g, w)
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            close(got[key], want[key])
    elif isinstance(want, (float, np.floating)):
        assert got == pytest.approx(want, abs=2e-5)
    else:
        assert got == want


TEXTS = ["the lord said unto moses where is thy brother and he said i know not", "who", "a b c " * 20]


def both(task, made_model, **options):
    model, accelerated, tokenizer = made_model
    return [pipeline(task, model=m, tokenizer=tokenizer, device="cpu", **options) for m in (accelerated, model)]


def load(made, cls, **settings):
    path = made(cls, **settings)
    model = getattr(transformers, cls).from_pretrained(path, dtype=torch.float32).eval()
    return model, accelerate(model, fallback="raise"), transformers.AutoTokenizer.from_pretrained(path)


@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_ner_pipeline(demo, strategy):
    got, want = both("ner", demo["ner"], aggregation_strategy=strategy)
    close(silent(got, TEXTS), want(TEXTS))
    close(silent(got, TEXTS, batch_size=3), want(TEXTS, batch_size=3))
    assert "BertForTokenClassification" in repr(got)


def test_text_classification_pipeline(made):
    for settings in (dict(num_labels=4), dict(num_labels=3, problem_type="multi_label_classification"), dict(num_labels=1)):
        got, want = both("text-classification", load(made, "BertForSequenceClassification", **settings))
        close(silent(got, TEXTS, top_k=None), want(TEXTS, top_k=None))
        close(silent(got, TEXTS, batch_size=2), want(TEXTS, batch_size=2))
        close(silent(got, dict(text="a b", text_pair="c")), want(dict(text="a b", text_pair="c")))


def test_fill_mask_pipeline(made):
    got, want = both("fill-mask", load(made, "BertForMaskedLM"))
    close(silent(got, "the [MASK] of a"), want("the [MASK] of a"))
    close(silent(got, ["the [MASK] [MASK]", "[MASK] a b"], top_k=3), want(["the [MASK] [MASK]", "[MASK] a b"], top_k=3))


def test_feature_extraction_pipeline(made):
    got, want = both("feature-extraction", load(made, "BertModel"))
    for text in TEXTS:
        np.testing.assert_allclose(silent(got, text), want(text), atol=1e-5)


def test_text_generation_pipeline(demo):
    got, want = both("text-generation", demo["gpt2"])
    for options in (
        dict(max_new_tokens=12, do_sample=False),
        dict(max_new_tokens=8, do_sample=False, num_beams=3, num_return_sequences=2, return_full_text=False),
        dict(max_new_tokens=8, do_sample=False, return_tensors=True),
    ):
        assert silent(got, ["In the morning", "And"], **options) == want(["In the morning", "And"], **options)
    assert got("I", do_sample=True, max_new_tokens=4)[0]["generated_text"].startswith("I")


def test_question_answering_outputs(made):
    """transformers 5 has no such pipeline; what one does with the outputs works."""
    model, accelerated, tokenizer = load(made, "BertForQuestionAnswering")
    batch = tokenizer(["who a", "what"], ["the house of b", "c d e f"], return_tensors="pt", padding=True)
    same(silent(accelerated, **batch), silent(model, **batch), batch["attention_mask"])
