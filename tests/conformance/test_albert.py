"""ALBERT's class over a .model file trained here, and over the tokenizer.json that transformers writes of it."""

import json

import pytest
import sentencepiece
from tokenizing import DATA, all_points, lines_of, random_text, rng  # noqa: F401
from test_unigram import make, open_both

SPECIALS = ("[CLS]", " [SEP] ", "[MASK]", " [MASK]", "<unk>", "<pad>", "``", "''", "`", "\u00c5\u0301", "\ufb01", "1,", "E\u0301", "\u2581")


def train(folder):
    """Laid out as ALBERT's: <pad>, <unk>, [CLS], [SEP], [MASK], pieces."""
    lines = [t for t in lines_of(DATA / "text/botchan.txt") if t]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_prefix=str(folder / "spiece"), vocab_size=1500, pad_id=0, unk_id=1,
                                             bos_id=-1, eos_id=-1, pad_piece="<pad>", unk_piece="<unk>", control_symbols=["[CLS]", "[SEP]"],
                                             user_defined_symbols=["[MASK]"], normalization_rule_name="nmt_nfkc", minloglevel=2)
    return folder / "spiece.model"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return train(tmp_path_factory.mktemp("albert"))


@pytest.mark.parametrize("config", [{}, {"do_lower_case": False}, {"keep_accents": True}, {"do_lower_case": False, "keep_accents": True}], ids=str)
@pytest.mark.parametrize("written", [False, True])
def test_albert(tmp_path, model, rng, config, written):
    path = make(tmp_path / "a", spiece_model=model, tokenizer_config_json={"tokenizer_class": "AlbertTokenizer", **config}, config_json={"model_type": "albert"})
    b = open_both("albert %s" % config, path)
    if written:
        b.hf.save_pretrained(tmp_path / "b")
        (tmp_path / "b" / "config.json").write_text(json.dumps({"model_type": "albert"}))
        b = open_both("albert json %s" % config, tmp_path / "b")
    texts = lines_of(DATA / "text/botchan.txt")[:600] + lines_of(DATA / "text/udhr/fra.txt")[:60] + lines_of(DATA / "text/wagahaiwa_nekodearu.txt")[:40]
    texts += [random_text(rng, SPECIALS) for _ in range(700)] + rng.sample(all_points(), 1500)
    b.check(texts)
    b.check(texts[:200], texts[-200:])
    for text in texts[:150]:
        ids = b.hf(text)["input_ids"]
        assert b.mine.decode(ids) == b.hf.decode(ids)
        assert b.mine.decode(ids, skip_special_tokens=1) == b.hf.decode(ids, skip_special_tokens=True)
