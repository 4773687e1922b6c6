"""Zero differences: every vocabulary of the test data on every text of it, on random Unicode and on every code point.

For each vocabulary: ids, ranges, word and sequence numbers, and the text that the ids decode to, are those of the reference for every file
of the data's text/, each line and the whole, all strings of NormalizationTest, 100,000 random strings and all 1,112,064 code points, alone
and inside a word. Without TFC_WHOLE=1 the same is done with a part of it, another one each run. The last line of the run sums it up."""

import json
import os

import pytest
import sentencepiece
import tfi_tokenizer as ours
import transformers
from sentencepiece import sentencepiece_model_pb2
from test_albert import train as train_albert
from test_unigram import ENGLISH, JAPANESE, RINNA, SPIECE, check_spm, make
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizing import DATA, VOCAB, Both, all_points, lines_of, normalization_texts, random_text, rng, totals  # noqa: F401

WHOLE = os.environ.get("TFC_WHOLE") == "1"
FILES = sorted(p for p in (DATA / "text").rglob("*") if p.suffix in (".txt", ".json"))
SPECIALS = ("[MASK]", " [SEP]", "<mask>", " </s> ", "<s>", "<extra_id_3>", "<|endoftext|>", "<|user|>", "<pad>", "\u2581", "##", "\u0120", "[", "<")
JSON_FILES = {path.parent.name: path for path in (VOCAB / "hf-json").glob("*/tokenizer.json")}


def from_class(name, path):
    hf = transformers.AutoTokenizer.from_pretrained(path)
    hf._tokenizer.no_truncation()
    hf._tokenizer.no_padding()
    return Both(name, path, hf=hf)


def from_file(name):
    rust = Tokenizer.from_file(str(JSON_FILES[name]))
    rust.no_truncation()
    rust.no_padding()
    return Both(name + ".json", JSON_FILES[name], rust=rust)


CLASSES = {
    "bert-base-uncased": dict(vocab_txt=VOCAB / "bert-base-uncased/vocab.txt", config_json={"model_type": "bert"}),
    "bert-base-cased": dict(vocab_txt=VOCAB / "bert-base-cased/vocab.txt", tokenizer_config_json={"do_lower_case": False}, config_json={"model_type": "bert"}),
    "gpt2": dict(vocab_json=VOCAB / "gpt2/encoder.json", merges_txt=VOCAB / "gpt2/vocab.bpe", config_json={"model_type": "gpt2"}),
    "roberta-base": dict(vocab_json=VOCAB / "roberta-base/vocab.json", merges_txt=VOCAB / "roberta-base/merges.txt", config_json={"model_type": "roberta"}),
    "t5": dict(spiece_model=SPIECE, config_json={"model_type": "t5"}),
    "xlm-roberta-class": {"sentencepiece.bpe_model": JAPANESE, "config_json": {"model_type": "xlm-roberta"}},
    "camembert-class": {"sentencepiece.bpe_model": ENGLISH, "config_json": {"model_type": "camembert"}},
}
NAMES = sorted(CLASSES) + ["albert-class", "bpemb-en"] + sorted(name + ".json" for name in JSON_FILES)


def from_bpe_model(name, path, folder):
    """A SentencePiece file of type BPE, which is refused by itself, as the tokenizer.json that is made of such a file."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(path.read_bytes())
    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    scores = {p.piece: p.score for p in proto.pieces if p.type == p.NORMAL}
    merges = [(p[:i], p[i:], s) for p, s in scores.items() for i in range(1, len(p)) if p[:i] in scores and p[i:] in scores]
    merges.sort(key=lambda m: (-m[2], len(m[0])))
    t = Tokenizer(models.BPE(vocab, [m[:2] for m in merges], unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    t.save(str(folder / "tokenizer.json"))
    return Both(name, folder / "tokenizer.json", rust=Tokenizer.from_file(str(folder / "tokenizer.json")))


@pytest.fixture(scope="module", params=NAMES)
def both(request, tmp_path_factory):
    name, folder = request.param, tmp_path_factory.mktemp("whole")
    if name in CLASSES:
        return from_class(name, make(folder / name, **CLASSES[name]))
    if name == "albert-class":
        return from_class(name, make(folder / name, spiece_model=train_albert(folder), config_json={"model_type": "albert"}))
    if name == "bpemb-en":
        return from_bpe_model(name, VOCAB / "bpemb-en/en.wiki.bpe.vs100000.model", folder)
    return from_file(name.removesuffix(".json"))


def part(rng, items, share):
    """All of it, or a part that is another each run."""
    return items if WHOLE else rng.sample(items, max(1, int(len(items) * share)))


def test_files(both, rng):
    for path in part(rng, FILES, 0.03):
        lines = lines_of(path)
        both.check(lines if WHOLE else rng.sample(lines, min(len(lines), 1500)), decoded=True)
        if WHOLE or path.stat().st_size < 300_000:
            both.check(["\n".join(lines)], decoded=True)


def test_normalization_strings(both, rng):
    both.check(part(rng, normalization_texts(), 0.1), decoded=True)


def test_random_strings(both, rng):
    draws = 100_000 if WHOLE else 3_000
    for done in range(0, draws, 5_000):
        both.check([random_text(rng, SPECIALS) for _ in range(min(5_000, draws - done))], decoded=True)


@pytest.mark.parametrize("form", ["{}", "a{}b"])
def test_code_points(both, form, rng):
    words = [form.format(c) for c in part(rng, all_points(), 0.02)]
    both.check([" ".join(words[i : i + 400]) for i in range(0, len(words), 400)], decoded=True)


def test_code_points_as_texts(both, rng):
    both.check(rng.sample(all_points(), 50_000 if WHOLE else 5_000), decoded=True)


@pytest.mark.parametrize("path", [SPIECE, RINNA, ENGLISH, JAPANESE], ids=lambda p: p.parent.name + "/" + p.name)
def test_model_files(path, rng):
    """A .model file by itself, against the library that wrote it."""
    mine, sp = ours.Tokenizer(path), sentencepiece.SentencePieceProcessor(model_file=str(path))

    def texts():
        for file in part(rng, FILES, 0.03):
            lines = lines_of(file)
            yield lines if WHOLE else rng.sample(lines, min(len(lines), 500))
            if WHOLE or file.stat().st_size < 300_000:
                yield ["\n".join(lines)]
        yield part(rng, normalization_texts(), 0.1)
        yield [random_text(rng, SPECIALS) for _ in range(100_000 if WHOLE else 1_500)]
        for form in ("{}", "a{}b"):
            words = [form.format(c) for c in part(rng, all_points(), 0.02)]
            yield [" ".join(words[i : i + 400]) for i in range(0, len(words), 400)]

    for some in texts():
        for i in range(0, len(some), 2000):
            check_spm(path.name, mine, sp, some[i : i + 2000])
            for text in some[i : i + 2000 : 1 if WHOLE else 9]:
                ids = sp.encode(text)
                assert mine.decode(ids, skip_special_tokens=1) == sp.decode(ids), text


@pytest.mark.parametrize("name", ["unidic_lite", "ipadic", "characters", "lower characters"])
def test_japanese(name, rng, tmp_path):
    """BERT's Japanese tokenizers, whose reference is Python's and has ids alone."""
    import test_japanese as japanese

    both = japanese.open_pair(name, tmp_path)
    for path in part(rng, FILES, 0.03):
        lines = lines_of(path)
        both.check(lines if WHOLE and name == "unidic_lite" else rng.sample(lines, min(len(lines), 300)))
    both.check(part(rng, normalization_texts(), 0.1 if name == "unidic_lite" else 0.02))
    both.check([random_text(rng, SPECIALS) for _ in range(10_000 if WHOLE else 500)])
    for form in ("{}", "\u6771{}\u4eac"):
        points = part(rng, [c for c in all_points() if japanese.known(c)], 0.01)
        both.check(["\n".join(form.format(c) for c in points[i : i + 300]) for i in range(0, len(points), 300)])


def test_byt5(rng, tmp_path):
    """ByT5, whose reference is Python's and has ids alone. It drops what Python takes for spaces and others do not."""
    path = make(tmp_path / "byt5", tokenizer_config_json={"tokenizer_class": "ByT5Tokenizer"}, config_json={"model_type": "t5"})
    hf, mine = transformers.AutoTokenizer.from_pretrained(path), ours.Tokenizer(path)
    totals["vocabularies"].add("byt5")

    def check(texts):
        texts = [t.translate({c: None for c in range(0x1C, 0x20)}) for t in texts]
        for text, row in zip(texts, mine.encode(texts)):
            ids = hf(text)["input_ids"]
            totals["differences"] += row.ids != ids
            totals["texts"] += 1
            totals["tokens"] += len(ids)
            assert row.ids == ids, text
            assert mine.decode(ids, skip_special_tokens=1) == hf.decode(ids, skip_special_tokens=True), text

    for file in part(rng, FILES, 0.03):
        lines = lines_of(file)
        check(rng.sample(lines, min(len(lines), 2000 if WHOLE else 200)))
        if file.stat().st_size < 300_000:
            check(["\n".join(lines)])
    check(part(rng, normalization_texts(), 0.05))
    check([random_text(rng, SPECIALS) for _ in range(20_000 if WHOLE else 500)])
    points = part(rng, all_points(), 0.02)
    check(["".join(points[i : i + 400]) for i in range(0, len(points), 400)])


# The ids that others published, for the vocabularies that are here: transformers.js' with the text they decode to, llama.cpp's without
# special tokens.
PUBLISHED = {
    "Xenova/bert-base-uncased": "bert-base-uncased",
    "Xenova/distilbert-base-uncased-finetuned-sst-2-english": "bert-base-uncased",
    "Xenova/bert-base-cased": "bert-base-cased",
    "Xenova/distilbert-base-cased-distilled-squad": "bert-base-cased",
    "Xenova/gpt2": "gpt2",
    "Xenova/all-distilroberta-v1": "roberta-base",
    "Xenova/t5-small": "t5-small.json",
    "google-t5/t5-small": "t5-small.json",
}


def published():
    for file in sorted((DATA / "conformance/transformers.js").glob("*.json")):
        for model, cases in json.loads(file.read_text()).items():
            for case in cases.values():
                yield PUBLISHED.get(model), case["text"], case.get("text_pair"), case["ids"]
    for name, model in (("gpt-2", "gpt2"), ("bert-bge", "bert-base-uncased")):
        path = DATA / "conformance/llama.cpp" / ("ggml-vocab-%s.gguf" % name)
        texts = path.with_suffix(".gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
        for text, line in zip(texts, path.with_suffix(".gguf.out").read_text().split("\n")):
            yield model, text, None, [int(n) for n in line.split()]


def test_published_ids(both):
    """Where the reference itself gives other ids, because it changed since or never agreed, it is the reference that is followed."""
    agreed = changed = 0
    for model, text, pair, ids in published():
        if model != both.name:
            continue
        row = both.mine.encode([text], None if pair is None else [pair])[0]
        if ids not in (row.ids, [i for i, s in zip(row.ids, row.sequence) if s >= 0]):
            e = both.rust.encode(text, pair) if pair is not None else both.rust.encode(text)
            assert row.ids == e.ids, text
            changed += 1
        agreed += 1
        totals["texts"] += 1
    print("\n%s: %d published expectations, of which the reference meets all but %d" % (both.name, agreed, changed))
    assert changed * 10 <= agreed
