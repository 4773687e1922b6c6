"""BERT's Japanese tokenizers against transformers' BertJapaneseTokenizer, both with the dictionaries of PyPI's ipadic and unidic-lite.

The reference's NFKC and lower case are those of Python's Unicode, which moves with the interpreter; the library has 15.0. Code points that
one of the two does not know are left out. The reference has no ranges, and no windows that go on: the library's own are checked for what
they must be."""

import json
import pathlib
import shutil
import tempfile
import unicodedata

import pytest
import tfi_tokenizer as ours
import transformers
from tokenizing import DATA, SEED, VOCAB, all_points, lines_of, random_text, rng, totals  # noqa: F401

pytest.importorskip("fugashi", reason="skipped: fugashi is not installed")
ipadic = pytest.importorskip("ipadic", reason="skipped: ipadic is not installed")
unidic_lite = pytest.importorskip("unidic_lite", reason="skipped: unidic-lite is not installed")

FOLDERS = {"ipadic": ipadic.DICDIR, "unidic_lite": unidic_lite.DICDIR}
SOURCE = VOCAB / "bert-japanese-unidic-lite/vocab.txt"
NEW_IN_15 = [(0x1E030, 0x1E06E), (0x1E08F, 0x1E090), (0x10EFD, 0x10F00), (0x11F00, 0x11F5B), (0x1E4D0, 0x1E4FA), (0x11241, 0x11242)]
SPECIALS = ("[CLS]", " [SEP] ", "[MASK]", "[UNK]", "[PAD]", "\u3000", "\x00", "\r\n", "ＡＢＣ", "㈱", "ｶﾞ", "か\u3099", "Ⅳ", "İ", "ΑΣ", "ΑΣΑ", "H\u0331", "ﷺ")


def known(text):
    return "".join(c for c in text if unicodedata.category(c) != "Cn" and not any(a <= ord(c) < b for a, b in NEW_IN_15))


def make(path, **settings):
    """The class's files; with characters a vocabulary of single ones."""
    path.mkdir(parents=True)
    lines = SOURCE.read_text(encoding="utf-8").split("\n")
    if settings.get("subword_tokenizer_type") == "character":
        lines = [t for t in lines if len(t) == 1 or t.startswith("[")]
    (path / "vocab.txt").write_text("\n".join(lines), encoding="utf-8")
    config = {"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab", "do_lower_case": False, **settings}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    (path / "config.json").write_text('{"model_type": "bert"}')
    return path


class Pair:
    def __init__(self, path, dictionary, **settings):
        make(path, mecab_kwargs={"mecab_dic": dictionary}, **settings)
        self.hf = transformers.AutoTokenizer.from_pretrained(path)
        assert type(self.hf).__name__ == "BertJapaneseTokenizer"
        self.mine = ours.Tokenizer(path, FOLDERS[dictionary])
        totals["vocabularies"].add("%s %s" % (dictionary, settings))

    def check(self, texts):
        texts = [known(t) for t in texts]
        expected = [self.hf(t)["input_ids"] for t in texts]
        rows = self.mine.encode(texts, threads=2)
        wrong = []
        for text, row, ids in zip(texts, rows, expected):
            if row.ids != ids:
                wrong.append((text, row.ids, ids))
            totals["tokens"] += len(ids)
            self.check_ranges(text, row)
        totals["texts"] += len(texts)
        totals["differences"] += len(wrong)
        assert not wrong, "%d texts differ, first %r: %s and %s" % (
            len(wrong), wrong[0][0], self.hf.convert_ids_to_tokens(wrong[0][1]), self.hf.convert_ids_to_tokens(wrong[0][2]))

    def check_ranges(self, text, row):
        """Ranges never go back, are those of the same code points in bytes, and hold what the token was made of."""
        data, before = text.encode(), 0
        for token, (begin, end), (byte_begin, byte_end), sequence in zip(row.ids, row.offsets, row.byte_offsets, row.sequence):
            if sequence < 0:
                assert (begin, end) == (0, 0)
                continue
            assert before <= begin < end <= len(text), (text, begin, end)
            assert data[byte_begin:byte_end].decode() == text[begin:end], (text, begin, end)
            before = begin
            string = self.hf.convert_ids_to_tokens(token)
            if string != "[UNK]" and not string.startswith("["):
                piece = string[2:] if string.startswith("##") else string
                assert piece in unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text[begin:end]).lower() + text[begin:end]) or len(piece) < 4


PAIRS = {
    "unidic_lite": ("unidic_lite", {}),
    "ipadic": ("ipadic", {"do_lower_case": True}),
    "characters": ("ipadic", {"subword_tokenizer_type": "character"}),
    "lower characters": ("unidic_lite", {"subword_tokenizer_type": "character", "do_lower_case": True}),
}
NAMES = list(PAIRS)


def open_pair(name, root):
    dictionary, settings = PAIRS[name]
    return Pair(root / name.replace(" ", "_"), dictionary, **settings)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("japanese")
    return {name: open_pair(name, root) for name in NAMES}


try:
    with tempfile.TemporaryDirectory() as folder:
        ours.Tokenizer(make(pathlib.Path(folder) / "x"), FOLDERS["ipadic"])
except ours.TfinferError as e:
    if e.status == -5:
        pytest.skip("skipped: the library was built without libmecab", allow_module_level=True)


@pytest.mark.parametrize("name", NAMES)
def test_texts(pairs, name):
    lines = lines_of(DATA / "text/wagahaiwa_nekodearu.txt")
    pairs[name].check(lines if name == "unidic_lite" else lines[:1000])
    pairs[name].check(["\n".join(lines[:300])] + json.loads((DATA / "text/blns/blns.json").read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_languages(pairs, name, rng):
    files = sorted((DATA / "text/udhr").iterdir())
    for path in files if name == "unidic_lite" else rng.sample(files, 40):
        pairs[name].check(lines_of(path)[:60])


@pytest.mark.parametrize("form", ["{}", "東{}京a"])
@pytest.mark.parametrize("name", ["ipadic", "characters"])
def test_code_points(pairs, name, form, rng):
    points = [c for c in all_points() if known(c)]
    texts = [form.format(c) for c in points]
    if name == "ipadic":
        texts = ["\n".join(texts[i : i + 300]) for i in range(0, len(texts), 300)]
        texts = rng.sample(texts, 250)
    else:
        texts = rng.sample(texts, 4000)
    pairs[name].check(texts)


@pytest.mark.parametrize("name", NAMES)
def test_random_texts(pairs, name, rng):
    points = [c for c in all_points() if known(c)]
    japanese = [c for line in lines_of(DATA / "text/wagahaiwa_nekodearu.txt")[:200] for c in line]
    texts = [random_text(rng, SPECIALS) for _ in range(1000)]
    texts += ["".join(rng.choice(japanese if rng.random() < 0.6 else points) for _ in range(rng.randrange(30))) for _ in range(1000)]
    marks = ["\u0301", "\u0300", "\u3099", "\u309a", "\u0323", "か", "は", "a", "ﾊ", "ﾞ", "ﾟ", "ᄀ", "ᅡ", "ᆨ", "각", "\u0345", "Ｈ", "\u0331"]
    texts += ["".join(rng.choice(marks) for _ in range(rng.randrange(12))) for _ in range(1000)]
    pairs[name].check(texts)


def test_pairs_and_truncation(pairs, rng):
    """Two texts cut to an odd number of tokens: the first one keeps one more, unlike in tokenizers."""
    p = pairs["unidic_lite"]
    lines = [t for t in lines_of(DATA / "text/wagahaiwa_nekodearu.txt")[:300] if t]
    strategies = {"longest_first": ours.LONGEST_FIRST, "only_first": ours.ONLY_FIRST, "only_second": ours.ONLY_SECOND}
    for draw in range(400):
        first, second = rng.choice(lines), rng.choice([None, rng.choice(lines), "短い文。"])
        strategy, length, side = rng.choice(list(strategies)), rng.randrange(5, 40), rng.choice(["right", "left"])
        if second is None and strategy == "only_second":
            continue
        p.hf.truncation_side = side
        theirs = p.hf(first, second, truncation=strategy, max_length=length, return_token_type_ids=True)
        if len(theirs["input_ids"]) > length or 0 in (len(p.hf.tokenize(first)), len(p.hf.tokenize(second or "a"))):
            continue
        try:
            mine = p.mine.encode([first], None if second is None else [second], truncation=strategies[strategy], max_length=length,
                                 truncation_side=ours.LEFT if side == "left" else ours.RIGHT)[0]
        except ours.TfinferError as e:
            assert "would have to go" in str(e)  # the reference leaves nothing of the text, or too much
            continue
        assert mine.ids == theirs["input_ids"], (first, second, strategy, length, side)
        assert mine.type_ids == theirs["token_type_ids"]
        totals["texts"] += 1
    p.hf.truncation_side = "right"


@pytest.mark.parametrize("name", NAMES)
def test_decode(pairs, name, rng):
    p = pairs[name]
    n = len(p.hf)
    assert p.mine.info.vocab_size == n
    for text in lines_of(DATA / "text/wagahaiwa_nekodearu.txt")[:100]:
        ids = p.hf(text)["input_ids"]
        for skip in (0, 1):
            assert p.mine.decode(ids, skip_special_tokens=skip) == p.hf.decode(ids, skip_special_tokens=bool(skip))
    for draw in range(300):
        ids = [rng.randrange(n) for _ in range(rng.randrange(1, 20))]
        assert p.mine.decode(ids) == p.hf.decode(ids), ids


def test_added_tokens(tmp_path, rng):
    path = make(tmp_path / "added", mecab_kwargs={"mecab_dic": "ipadic"})
    (path / "added_tokens.json").write_text(json.dumps({"東京タ": 32768, "[NEW]": 32769}))
    hf, mine = transformers.AutoTokenizer.from_pretrained(path), ours.Tokenizer(path, FOLDERS["ipadic"])
    for draw in range(300):
        text = "".join(rng.choice(["東京", "東京タ", "東", "京都", "[NEW]", "[MASK]", " ", "に行く", "。", "Ａ"]) for _ in range(rng.randrange(12)))
        assert mine.encode([text])[0].ids == hf(text)["input_ids"], text


def test_refusals_are_named(tmp_path):
    def refused(match, status, dictionary=FOLDERS["ipadic"], **settings):
        path = make(tmp_path / str(len(list(tmp_path.iterdir()))), **settings)
        with pytest.raises(ours.TfinferError, match=match) as e:
            ours.Tokenizer(path, dictionary)
        assert e.value.status == status

    refused("mecab_dictionary", -1, None, mecab_kwargs={"mecab_dic": "ipadic"})
    refused("unidic_lite", -1, None)
    refused("nowhere", -1, tmp_path / "nowhere")
    refused("sudachi", -5, word_tokenizer_type="sudachi")
    refused("basic", -5, word_tokenizer_type="basic")
    refused("sentencepiece", -5, subword_tokenizer_type="sentencepiece")
    refused("jumandic", -4, mecab_kwargs={"mecab_dic": "jumandic"})
    refused("mecab_option", -5, mecab_kwargs={"mecab_option": "-Owakati"})
    path = make(tmp_path / "ids", mecab_kwargs={"mecab_dic": "ipadic"})
    (path / "added_tokens.json").write_text(json.dumps({"東京": 32768}))
    with pytest.raises(ours.TfinferError, match="says id 32768"):
        ours.Tokenizer(path, FOLDERS["ipadic"])
    refused("do_word_tokenize", -5, do_word_tokenize=False)


def test_environment_is_not_read(pairs, tmp_path, monkeypatch):
    """Neither MECABRC nor ~/.mecabrc, which would be an error here."""
    (tmp_path / ".mecabrc").write_text("dicdir = /nowhere\nnode-format = %\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MECABRC", str(tmp_path / ".mecabrc"))
    path = make(tmp_path / "x", mecab_kwargs={"mecab_dic": "ipadic"}, do_lower_case=True)
    assert ours.Tokenizer(path, FOLDERS["ipadic"]).encode(["吾輩は猫である"])[0].ids == pairs["ipadic"].hf("吾輩は猫である")["input_ids"]


def test_broken_dictionaries(tmp_path, rng):
    """Bytes changed where libmecab follows numbers: refused with the file's name, or harmless."""
    folder = tmp_path / "dictionary"
    shutil.copytree(FOLDERS["ipadic"], folder)
    path = make(tmp_path / "x", mecab_kwargs={"mecab_dic": "ipadic"})
    lines = lines_of(DATA / "text/wagahaiwa_nekodearu.txt")[:20]
    refused = 0
    for name in ("sys.dic", "unk.dic", "matrix.bin", "char.bin", "dicrc"):
        good = (folder / name).read_bytes()
        for draw in range(12):
            bad = bytearray(good)
            kind = rng.randrange(4)
            if kind == 0:
                bad = bad[: rng.randrange(len(bad))]
            else:
                for _ in range(rng.choice([1, 20])):
                    at = rng.randrange(len(bad) if kind == 1 else min(len(bad), 80 if kind == 2 else 11_000_000))
                    bad[at] = rng.randrange(256)
            (folder / name).write_bytes(bad)
            try:
                ours.Tokenizer(path, folder).encode(lines)
            except ours.TfinferError as e:
                assert e.status in (-4, -5, -1), e
                refused += 1
        (folder / name).unlink()
        with pytest.raises(ours.TfinferError, match=name):
            ours.Tokenizer(path, folder)
        (folder / name).write_bytes(good)
    assert refused > 10
