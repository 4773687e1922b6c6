"""Tasks on text whose tokenizer is byte-level BPE, against transformers' pipelines, with RoBERTa's own vocabulary."""

import json
import os
import pathlib
import shutil

import pytest
import transformers

import make
import tfi
from test_tasks import LABELS, compare_entities, open_session, reference, too_close

ROBERTA = pathlib.Path(os.environ.get("TFINFER_TEST_DATA", pathlib.Path(__file__).resolve().parents[3] / "shared/data")) / (
    "tokenizers/hf-json/roberta-base/tokenizer.json"
)
needs_roberta = pytest.mark.skipif(not ROBERTA.is_file(), reason="skipped: no RoBERTa vocabulary in the test data")
BYTE_LEVEL = [
    "Barack Obama visited Z\u00fcrich's caf\u00e9 -- \u6771\u4eac\u30bf\u30ef\u30fc is 333 m tall, isn't it?",
    " leading  and\ttrailing\n\nspaces ",
    "\U0001f916 emoji, \u043f\u0440\u0438\u0432\u0435\u0442 and antidisestablishmentarianism",
]


def make_roberta(rng, path, cls, **settings):
    cfg = make.config("roberta", rng, pad=1, vocab=50265, tokens=128, **settings)
    make.save(make.build(cls, cfg, rng, heads_scale=8.0), path)
    shutil.copy(ROBERTA, path / "tokenizer.json")
    (path / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="RobertaTokenizer", model_max_length=128)))
    return reference(path, cls)


@needs_roberta
def test_fill_mask_of_byte_level_bpe(rng, tally, tmp_path):
    model, tokenizer = make_roberta(rng, tmp_path, "RobertaForMaskedLM")
    texts = [t + " <mask>, yes" for t in BYTE_LEVEL]
    pipe = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)
    with open_session(tmp_path) as session:
        for text, ours in zip(texts, session.fill_mask(tfi.Inputs(texts=texts), top_k=3)):
            for fill, theirs in zip(ours, pipe(text, top_k=3)):
                tally.draws += 1
                tally.require(abs(fill.score - theirs["score"]) < 1e-4, f"{fill.score}, expected {theirs}")
                tally.require(fill.id == theirs["token"], f"{fill.id}, expected {theirs}")
                assert fill.token.decode() == tokenizer.convert_ids_to_tokens(fill.id)


@needs_roberta
@pytest.mark.parametrize("strategy", tfi.AGGREGATION)
def test_token_classify_of_byte_level_bpe(strategy, rng, tally, tmp_path):
    """The pipeline tells words of such a tokenizer apart by the spaces around their begin."""
    labels = dict(num_labels=len(LABELS), id2label=dict(enumerate(LABELS)), label2id={n: i for i, n in enumerate(LABELS)})
    model, tokenizer = make_roberta(rng, tmp_path, "RobertaForTokenClassification", **labels)
    texts = [t for t in BYTE_LEVEL if not too_close(model, tokenizer, t)]
    tally.excused += len(BYTE_LEVEL) - len(texts)
    pipe = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy, ignore_labels=[])
    with open_session(tmp_path) as session:
        found = session.token_classify(tfi.Inputs(texts=texts), aggregation=tfi.AGGREGATION[strategy], keep_all=1)
        for text, ours in zip(texts, found):
            compare_entities(tally, text, ours, pipe(text))
