"""tokenizer.json made of any parts, against the tokenizers package: ids, offsets, word and sequence numbers, decoded text.

tokenizing.py says what it needs; files and texts are drawn fresh each run."""

import json
import random
import time
import unicodedata

import pytest
import tfi_tokenizer as ours
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizing import DATA, VOCAB, Both, all_points, lines_of, normalization_texts, random_text, rng, totals  # noqa: F401

PATTERNS = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}{1,3}", r"\d{3}(?=(?:\d{3})*\b)", r"\p{N}{1,3}+", r"\w+|[^\w\s]+", r"\s+",
    r" {2,}", r"[^\S\n]+$", r"^\s*", r"x*", r"(?<=\p{L})(?=\p{N})", r"\b", r"\B", r"[a-f&&[^c]]?+", r"[a-z&&[^aeiou]]+", r"(?m:.)", r".+?", "",
    r"\h+|\H", r"(?x) a  b # c", r"a(?i)b|c", r"[\p{Han}\p{Hiragana}\p{Katakana}]+", r"\P{L}", r"\p{^L}\W", r"(?<a>\S)(?>\s*)", r"[\t-\r\x20\u3000\x{a0}]",
    r"(?i)[a-k]+|s", r"\A\s|\z", r"[^\W\d_]+", r"\p{Cn}|\p{Co}|\p{Cf}", r"\p{S}|\p{Pd}", r"~{2,3}?", r"[\-\]\\^]", r"(?-i:A)|\.", r"{|}|a{,2}",
]  # fmt: skip
STRINGS = ["", " ", "\u2581", "a", "the", "``", "''", "\u00e9", "  ", "\n", ".", "[", "\u0301", "1"]
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]


MAY_BE_EMPTY = [r"^\s*", r"x*", r"(?<=\p{L})(?=\p{N})", r"\b", r"\B", "", r"\A\s|\z", r"{|}|a{,2}", r"[a-f&&[^c]]?+"]


def pattern(rng, not_empty=False):
    patterns = [p for p in PATTERNS if not (not_empty and p in MAY_BE_EMPTY)]
    return Regex(rng.choice(patterns)) if rng.random() < 0.7 else rng.choice(STRINGS[not_empty:])


def some(rng, makers, most):
    return [rng.choice(makers)(rng) for _ in range(rng.choice([0, 1, 1, 2, most]))]


NORMALIZERS = [
    lambda r: normalizers.BertNormalizer(r.random() < 0.7, r.random() < 0.7, r.choice([None, True, False]), r.random() < 0.5),
    lambda r: normalizers.NFC(),
    lambda r: normalizers.NFD(),
    lambda r: normalizers.NFKC(),
    lambda r: normalizers.NFKD(),
    lambda r: normalizers.Lowercase(),
    lambda r: normalizers.StripAccents(),
    lambda r: normalizers.Strip(r.random() < 0.7, r.random() < 0.7),
    lambda r: normalizers.Replace(pattern(r, 1), r.choice(["", " ", "\u2581", "ab", "\u00e9x", "\ud55c"])),
    lambda r: normalizers.Prepend(r.choice(["\u2581", " ", "ab"])),
    lambda r: normalizers.Nmt(),
]
SPLITTERS = [
    lambda r: pre_tokenizers.Whitespace(),
    lambda r: pre_tokenizers.WhitespaceSplit(),
    lambda r: pre_tokenizers.BertPreTokenizer(),
    lambda r: pre_tokenizers.Punctuation(r.choice(BEHAVIORS)),
    lambda r: pre_tokenizers.Digits(r.random() < 0.5),
    lambda r: pre_tokenizers.UnicodeScripts(),
    lambda r: pre_tokenizers.CharDelimiterSplit(r.choice([" ", "e", "\u2581", "\u00e9"])),
    lambda r: pre_tokenizers.FixedLength(r.choice([1, 2, 7])),
    lambda r: pre_tokenizers.Split(pattern(r), r.choice(BEHAVIORS), r.random() < 0.3),
    lambda r: pre_tokenizers.Split(pattern(r), r.choice(BEHAVIORS), r.random() < 0.3),
    lambda r: pre_tokenizers.Metaspace(r.choice(["\u2581", "_"]), r.choice(["always", "first", "never"]), r.random() < 0.7),
    lambda r: pre_tokenizers.ByteLevel(r.random() < 0.5, use_regex=r.random() < 0.6),
]
DECODERS = [
    lambda r: decoders.WordPiece(r.choice(["##", "", "\u2581"]), r.random() < 0.5),
    lambda r: decoders.ByteLevel(),
    lambda r: decoders.ByteFallback(),
    lambda r: decoders.Fuse(),
    lambda r: decoders.Strip(r.choice([" ", "\u2581", "a"]), r.randrange(3), 0),
    lambda r: decoders.Replace(pattern(r), r.choice(["", " ", "xyz"])),
    lambda r: decoders.Metaspace(r.choice(["\u2581", "_"]), r.choice(["always", "first", "never"]), r.random() < 0.7),
    lambda r: decoders.BPEDecoder(r.choice(["</w>", "e"])),
    lambda r: decoders.CTC(r.choice(["<pad>", "a"]), r.choice(["|", "e"]), r.random() < 0.6),
]
LLAMA = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
BYTES = ["<0x%02X>" % i for i in range(256)]


def corpus(rng):
    words = "the quick brown fox jumps over lazy dogs don't 12345 3.14 na\u00efve caf\u00e9 \u4f60\u597d \ud55c\uad6d\uc5b4 \u0440\u0443\u0441\u0441\u043a\u0438\u0439 Hello HELLO ... ! __".split()
    return [" ".join(rng.choice(words) for _ in range(rng.randrange(1, 12))) for _ in range(60)] + [random_text(rng).replace("\0", "") for _ in range(20)]


def draw_model(rng, tokenizer, texts):
    """Train the tokenizer's model, a new one of some kind, on texts that go through its own normalizer and pre-tokenizer."""
    kind, specials = rng.choice(["WordPiece", "WordLevel", "BPE", "BPE", "BPE", "Unigram"]), ["[UNK]", "[CLS]", "[SEP]", "<pad>"]
    if kind == "WordPiece":
        tokenizer.model = models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=rng.choice([5, 100]))
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials, show_progress=False)
    elif kind == "WordLevel":
        tokenizer.model = models.WordLevel(unk_token="[UNK]")
        trainer = trainers.WordLevelTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    elif kind == "Unigram":
        tokenizer.model = models.Unigram()
        trainer = trainers.UnigramTrainer(vocab_size=rng.choice([100, 300]), special_tokens=specials, unk_token="[UNK]", show_progress=False)
    else:
        fallback = rng.random() < 0.3
        more = {} if fallback else dict(continuing_subword_prefix=rng.choice([None, "##"]), end_of_word_suffix=rng.choice([None, "</w>"]))
        tokenizer.model = models.BPE(unk_token=rng.choice([None, "[UNK]"]), fuse_unk=rng.random() < 0.5, byte_fallback=fallback,
                                     ignore_merges=rng.random() < 0.4, **more)
        alphabet = pre_tokenizers.ByteLevel.alphabet() if rng.random() < 0.4 else []
        trainer = trainers.BpeTrainer(vocab_size=rng.choice([300, 600]), special_tokens=specials + (BYTES if fallback else []),
                                      initial_alphabet=alphabet, show_progress=False, **more)
    tokenizer.train_from_iterator(texts[: rng.choice([30, 80])], trainer)


def draw_processor(rng):
    first = [("[CLS]", 1), ("[SEP]", 2)]
    bert = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    template = processors.TemplateProcessing(single="[CLS] $A:0 [SEP]", pair="[CLS] $A:0 [SEP] $B:1 [SEP]:1", special_tokens=first)
    trim = processors.ByteLevel(trim_offsets=rng.random() < 0.8, add_prefix_space=rng.random() < 0.5)
    roberta = processors.RobertaProcessing(("[SEP]", 2), ("[CLS]", 1), rng.random() < 0.8, rng.random() < 0.5)
    pair = [trim, rng.choice([template, bert])]  # the other way round the reference gives sequence ids to special tokens
    return rng.choice([None, None, bert, template, trim, roberta, processors.Sequence(pair), processors.Sequence([trim])])


def draw_tokenizer(rng, texts):
    t = Tokenizer(models.BPE())
    parts = some(rng, NORMALIZERS, 4)
    if parts:
        t.normalizer = parts[0] if len(parts) == 1 else normalizers.Sequence(parts)
    parts = some(rng, SPLITTERS, 4)
    if parts:
        t.pre_tokenizer = parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)
    draw_model(rng, t, texts)
    parts = some(rng, DECODERS, 4)
    if rng.random() < 0.2:
        t.decoder = LLAMA
    elif parts:
        t.decoder = parts[0] if len(parts) == 1 else decoders.Sequence(parts)
    processor = draw_processor(rng)
    if processor:
        t.post_processor = processor
    for content in rng.sample(["<mask>", "\u00c9t\u00e9", "fox", "<|x|>", "a b", "\u4f60", "ing"], rng.randrange(4)):
        flags = dict(zip(("lstrip", "rstrip", "single_word", "normalized"), (rng.random() < 0.3 for _ in range(4))))
        if not (flags["normalized"] and t.normalizer and not t.normalizer.normalize_str(content)):  # nothing is found between all bytes
            t.add_tokens([AddedToken(content, special=rng.random() < 0.3, **flags)])
    return t


def reference_takes(rust, text):
    try:
        rust.encode(text)
        return True
    except BaseException as e:  # noqa: B902 - its panics are BaseExceptions
        assert not isinstance(e, KeyboardInterrupt)
        return False


def compare(both, rng, texts):
    """Both sides on texts that the reference takes, which is not all of them: some regular expressions make it panic."""
    try:
        wrong = both.differ(texts)
    except ours.TfinferError as e:
        good = [t for t in texts if reference_takes(both.rust, t)]
        assert len(good) < len(texts), str(e)
        wrong = both.differ(good)
    except BaseException as e:  # noqa: B902
        assert not isinstance(e, (KeyboardInterrupt, AssertionError))
        wrong = both.differ([t for t in texts if reference_takes(both.rust, t)])
    if wrong:
        text = min(wrong, key=len)
        e, row = both.rust.encode(text), both.mine.encode([text])[0]
        assert not wrong, "%d texts differ, %r: %s, not %s" % (
            len(wrong), text, (row.ids, row.offsets, row.word, row.sequence), (e.ids, e.offsets, e.word_ids, e.sequence_ids))
    size = both.rust.get_vocab_size()
    for _ in range(25):
        ids = [rng.randrange(size) for _ in range(rng.randrange(12))] + ([rng.randrange(min(size, 260))] * rng.randrange(4))
        for skip in (0, 1):
            try:
                expected = both.rust.decode(ids, skip_special_tokens=bool(skip))
            except BaseException as e:  # noqa: B902
                assert not isinstance(e, KeyboardInterrupt)
                continue
            assert both.mine.decode(ids, skip_special_tokens=skip) == expected, (ids, skip)
            stream = ours.Stream(both.mine, skip_special_tokens=skip)
            assert "".join([stream.push(i) for i in ids] + [stream.finish()]) == expected, (ids, skip)


def names_meet(rust):
    """Added tokens of one normal form: which of them the reference finds is chance."""
    names = [t.content for t in rust.get_added_tokens_decoder().values() if t.normalized]
    forms = [rust.normalizer.normalize_str(name) for name in names] if rust.normalizer else names
    return len(set(forms)) < len(forms)


@pytest.mark.parametrize("part", range(8))
def test_random_pipelines(part, rng, tmp_path):
    sample = lines_of(DATA / "text/blns/blns.txt") + lines_of(DATA / "text/botchan.txt")[:2000] + lines_of(DATA / "text/wagahaiwa_nekodearu.txt")[:500]
    refused = drawn = 0
    while drawn < 25:
        state = rng.getrandbits(64)
        r = random.Random(state)
        texts = corpus(r)
        path = tmp_path / "tokenizer.json"
        try:
            draw_tokenizer(r, texts).save(str(path))
            rust = Tokenizer.from_file(str(path))
        except BaseException as e:  # noqa: B902 - not every combination trains
            assert not isinstance(e, KeyboardInterrupt)
            continue
        if names_meet(rust):
            continue
        drawn += 1
        try:
            mine = ours.Tokenizer(path)
        except ours.TfinferError as e:
            assert e.status == -5, str(e)
            refused += 1
            continue
        del mine
        b = Both("random %d" % state, path, rust=rust)
        texts += [random_text(r, ("<mask>", " \u00c9t\u00e9", "fox ", "<|x|>", "a b", "e\u0301te\u0301")) for _ in range(60)]
        try:
            compare(b, r, texts + r.sample(sample, 60))
        except AssertionError as e:
            raise AssertionError("%s\n%s" % (e, summary_of(path)))
    assert refused < 4, refused


def summary_of(path):
    """The file without its vocabulary."""
    file = json.loads(path.read_text())
    model = {k: v for k, v in file["model"].items() if k not in ("vocab", "merges")}
    added = [t for t in file["added_tokens"] if t["content"] not in BYTES]
    return json.dumps(dict(file, model=model, added_tokens=added), ensure_ascii=False)[:3000]


# Every code point, every file.


def words_of_points(rng):
    """Each code point alone and inside a word; of the planes where nothing is, some."""
    points = [c for c in all_points() if ord(c) < 0x33480 or 0xE0000 <= ord(c) < 0xE0200]
    points += rng.sample(all_points()[len(points) :], 3000)
    texts = ["%s a%sb" % (c, c) for c in points]
    return points, [" ".join(texts[i : i + 4000]) for i in range(0, len(texts), 4000)]


def save(path, **parts):
    """A file of these parts whose model takes each span as it is: unknown words, so that offsets and words are all there is."""
    t = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    for name, part in parts.items():
        setattr(t, name, part)
    t.save(str(path))
    return Both(path.stem, path, rust=Tokenizer.from_file(str(path)))


def forms(path, normalizer, texts):
    """A file that shows the normal form: its characters are the tokens."""
    letters = {c: i + 1 for i, c in enumerate(sorted(set("".join(map(normalizer.normalize_str, texts))) - {"\0"}))}
    t = Tokenizer(models.BPE({"[UNK]": 0, **letters}, [], unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer = normalizer, pre_tokenizers.CharDelimiterSplit(" ")
    t.save(str(path))
    return Both(path.stem, path, rust=Tokenizer.from_file(str(path)))


@pytest.mark.parametrize("name", ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel", "BertNormalizer"])
def test_every_code_point_normalized(name, tmp_path, rng):
    points, texts = words_of_points(rng)
    marks = [c for c in points if unicodedata.combining(c)] + ["\u1161", "\u11a8", "\u0344", "\uac00", "\ufb01", "\u09be"]
    starts = ["a", "\u00e9", "\u1100", "\u0915", "\u1ed9"]
    texts += [" ".join(rng.choice(starts) + "".join(rng.sample(marks, rng.randrange(4))) for _ in range(500)) for _ in range(10)]
    apart = [unicodedata.normalize("NFD", c) for c in points]
    texts += [" ".join(t for t, c in zip(apart, points) if t != c and ord(c) >> 11 != 0xAC00 >> 11)]
    forms(tmp_path / (name + ".json"), getattr(normalizers, name)(), texts).check(texts)


@pytest.mark.parametrize("splitter", [
    pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(), pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Punctuation(),
    pre_tokenizers.Digits(True), pre_tokenizers.UnicodeScripts(), pre_tokenizers.ByteLevel()]
    + [pre_tokenizers.Split(Regex(p), "isolated") for p in (*PATTERNS[1:4], r"\b")], ids=repr)  # fmt: skip
def test_every_code_point_split(splitter, tmp_path, rng):
    save(tmp_path / "split.json", pre_tokenizer=splitter).check(words_of_points(rng)[1])


SETS = [r"\w", r"[\w]", r"\W", r"\d", r"\s", r"\h", r"\p{Han}", r"\p{Latin}", r"\p{Cyrillic}|\p{Thai}", r"\p{Greek}|\p{Hebrew}",
        r"\p{Hiragana}|\p{Arabic}", r"\p{Katakana}|\p{Hangul}", r"(?i)[\p{L}]", r"(?i)[a-z]", r"[^\p{L}\p{N}]", "."]  # fmt: skip


@pytest.mark.parametrize("pattern", SETS + [r"\p{%s}" % k for k in "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Cc Cf Cn Co L M N P S Z C".split()])
def test_every_code_point_in_patterns(pattern, tmp_path, rng):
    both = save(tmp_path / "set.json", pre_tokenizer=pre_tokenizers.Split(Regex("(?:%s)+" % pattern), "removed", invert=True))
    both.check(["".join(words_of_points(rng)[0])])


@pytest.mark.parametrize("name", ["NFC", "NFD", "NFKC", "NFKD"])
def test_normalization_test(name, tmp_path):
    texts = normalization_texts()
    both = forms(tmp_path / (name + ".json"), getattr(normalizers, name)(), texts)
    both.check(texts)
    both.check([" ".join(texts)])


@pytest.mark.parametrize("path", sorted((VOCAB / "hf-json").glob("*/tokenizer.json")), ids=lambda p: p.parent.name)
def test_files(path, rng):
    rust = Tokenizer.from_file(str(path))
    rust.no_truncation()
    rust.no_padding()
    both = Both(path.parent.name, path, rust=rust)
    for file in sorted((DATA / "text/udhr").iterdir())[:: 1 + rng.randrange(12)] + [DATA / "text/blns/blns.txt", DATA / "text/botchan.txt"]:
        both.check(lines_of(file))
    both.check([random_text(rng, ("<s>", " <s>", "</s> ", "[MASK]", "<|end|>", "\u2581")) for _ in range(4000)])
    both.check(["\n".join(lines_of(DATA / "text/botchan.txt"))])
    ids = list(range(rust.get_vocab_size()))
    for _ in range(400):
        some_ids = rng.sample(ids, rng.randrange(1, 20))
        for skip in (0, 1):
            expected = rust.decode(some_ids, skip_special_tokens=bool(skip))
            assert both.mine.decode(some_ids, skip_special_tokens=skip) == expected, some_ids
            stream = ours.Stream(both.mine, skip_special_tokens=skip)
            assert "".join([stream.push(i) for i in some_ids] + [stream.finish()]) == expected, some_ids


# Hostile and long.


def test_pattern_without_end(tmp_path):
    """Steps at one place are counted: an error of the call, and the handle goes on."""
    both = save(tmp_path / "hostile.json", pre_tokenizer=pre_tokenizers.Split(Regex(r"(?:a|aa)+[^a]\d"), "isolated"))
    begin = time.monotonic()
    with pytest.raises(ours.TfinferError, match="too many steps") as e:
        both.mine.encode(["a" * 200 + "bx b1"])
    assert e.value.status == -1 and time.monotonic() - begin < 5
    assert both.mine.encode(["aab1 b"])[0].ids == both.rust.encode("aab1 b").ids


@pytest.mark.parametrize("pattern", PATTERNS + [r"\p{L}+\d|\p{L}", r"(?:\p{L}+ ?)+\d|.", r"(?:a+)+b|a"])
def test_patterns_in_proportion(pattern, tmp_path):
    """Whatever the pattern, a text of one kind of character takes time in proportion or is refused before long."""
    mine = save(tmp_path / "pattern.json", pre_tokenizer=pre_tokenizers.Split(Regex(pattern), "isolated")).mine

    def seconds(text):
        begin = time.thread_time()
        try:
            mine.run([text])
        except ours.TfinferError as e:
            assert e.status == -1 and "too many steps" in str(e)
        return time.thread_time() - begin

    for unit in ("a", " ", "\n", "1", ".", "a ", "A", "\u4e00", "\u0301"):
        small, large = unit * (10_000 // len(unit)), unit * (160_000 // len(unit))
        for attempt in range(3):
            first, second = min(seconds(small), seconds(small)), seconds(large)
            if second < 64 * first + 2:
                break
        assert second < 64 * first + 2, (unit, first, second)


def test_growth_without_end(tmp_path):
    grow = normalizers.Sequence([normalizers.Replace("a", "a" * 1000) for _ in range(10)])
    both = save(tmp_path / "growth.json", normalizer=grow)
    with pytest.raises(ours.TfinferError, match="times as long as the text"):
        both.mine.encode(["aaaa"])
    assert len(both.mine.encode(["bbb"])[0].ids) == 1


def test_time_grows_linearly(tmp_path):
    unit = "the quick brown fox 123 don't \u4f60\u597d caf\u00e9  \n"
    bpe = json.loads((VOCAB / "hf-json/phi-3-mini/tokenizer.json").read_text())["model"]
    file = {"normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": PATTERNS[3]}, "behavior": "Isolated", "invert": False},
        {"type": "Punctuation", "behavior": "Isolated"}]}, "model": bpe, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    mine = ours.Tokenizer(tmp_path / "tokenizer.json")
    times = []
    for n in (5_000, 80_000):
        best = 1e9
        for _ in range(3):
            begin = time.thread_time()
            mine.run([unit * n])
            best = min(best, time.thread_time() - begin)
        times.append(best)
    assert times[1] < 80 * times[0], times  # 16 times the text; a quadratic step anywhere would make it 256
