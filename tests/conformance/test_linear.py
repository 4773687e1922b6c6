"""Time grows with a text's length and no faster, whatever the text: one line of n bytes against one of 16n, for every kind of tokenizer.

MeCab's own time grows with the square of runs of one class of characters, and its sum of costs has 31 bits: what is too much for it must
be refused, at once.

Processor time of the calling thread is compared, the best of several runs; a quadratic step anywhere would make it 256 times as much."""

import json
import time

import pytest
import tfi_tokenizer as ours
from tokenizing import DATA, VOCAB, lines_of, rng  # noqa: F401

SMALL, FACTOR, SLACK = 100_000, 16, 4
UNITS = {
    "one letter": "a",
    "words": "the cat sat on the mat. ",
    "spaces": " ",
    "punctuation": "!?",
    "digits": "1234567890",
    "marks": "\u0301",
    "marks in two orders": "\u0301\u0323",
    "Han": "\u4f60\u597d",
    "kana": "\u304b\u3099\u306f",
    "changed by NFKC": "\ufdfa",
    "unknown": "\U0001f9ff",
    "special": "[MASK]</s>",
    "half a special": "[MAS<extra_id_",
    "metaspace": "\u2581",
    "zeros": "\x00",
    "joined": "\u200d\u1100\u1161",
}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    root = tmp_path_factory.mktemp("linear")

    def folder(name, config, **files):
        (root / name).mkdir()
        (root / name / "config.json").write_text(json.dumps(config))
        for file, source in files.items():
            (root / name / file.replace("_", ".")).write_bytes(source.read_bytes())
        return root / name

    paths = {
        "WordPiece": VOCAB / "hf-json/bert-base-uncased/tokenizer.json",
        "BPE": folder("gpt2", {"model_type": "gpt2"}, encoder_json=VOCAB / "gpt2/encoder.json", vocab_bpe=VOCAB / "gpt2/vocab.bpe"),
        "Unigram": folder("t5", {"model_type": "t5"}, spiece_model=VOCAB / "t5/spiece.model"),
        "SentencePiece": VOCAB / "rinna-japanese/google_sp.model",
        "ByT5": folder("byt5", {"model_type": "byt5"}),
    }
    out = {name: ours.Tokenizer(path) for name, path in paths.items()}
    try:
        import ipadic

        path = folder("japanese", {"model_type": "bert"}, vocab_txt=VOCAB / "bert-japanese-unidic-lite/vocab.txt")
        config = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_dic": "ipadic"}}
        (path / "tokenizer_config.json").write_text(json.dumps(config))
        out["Japanese"] = ours.Tokenizer(path, ipadic.DICDIR)
    except (ImportError, ours.TfinferError):
        pass
    return out


def seconds(tokenizer, text, runs):
    best = 1e9
    for _ in range(runs):
        begin = time.thread_time()
        try:
            tokenizer.run([text])
        except ours.TfinferError as e:
            assert e.status == -1 and "MeCab" in str(e), e
            return None
        best = min(best, time.thread_time() - begin)
    return best


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram", "SentencePiece", "ByT5", "Japanese"])
def test_time_is_linear(tokenizers, kind):
    if kind not in tokenizers:
        pytest.skip("skipped: no MeCab dictionary")
    worst = 0
    for name, unit in UNITS.items():
        small, large = (unit * (size // len(unit.encode())) for size in (SMALL, SMALL * FACTOR))
        if seconds(tokenizers[kind], large, 1) is None:  # buffers grow
            assert kind == "Japanese"
            continue
        for attempt in range(3):
            ratio = seconds(tokenizers[kind], large, 2) / max(seconds(tokenizers[kind], small, 3), 1e-4)
            if ratio <= FACTOR * SLACK:
                break
        worst = max(worst, ratio)
        assert ratio <= FACTOR * SLACK, "%s: %d times the bytes take %.1f times the time" % (name, FACTOR, ratio)
    print("\n%s: %d times the bytes take at most %.1f times the time" % (kind, FACTOR, worst))


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram", "SentencePiece"])
def test_large_line(tokenizers, kind):
    """A novel as one line."""
    text = " ".join(lines_of(DATA / "text/botchan.txt")) * 10
    data = tokenizers[kind].run([text])
    assert data.rows == 1 and data.tokens > len(text) // 8
