"""Unigram and ByT5 against tokenizers, transformers and sentencepiece: ids, offsets, word numbers, windows, decoded text, streams.

tokenizing.py says what it needs."""

import io
import json

import pytest
import sentencepiece
import tfi_tokenizer as ours
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizing import DATA, VOCAB, Both, all_points, lines_of, make_dir, random_text, rng, totals  # noqa: F401

SPIECE, RINNA = VOCAB / "t5/spiece.model", VOCAB / "rinna-japanese/google_sp.model"
ENGLISH, JAPANESE = VOCAB / "sentencepiece/test_model.model", VOCAB / "sentencepiece/test_ja_model.model"
JSON_T5, CONFIG_T5 = VOCAB / "hf-json/t5-small/tokenizer.json", VOCAB / "hf-json/t5-small/tokenizer_config.json"
SPECIALS = ("<extra_id_0>", " <extra_id_99> ", "</s>", " </s>", "<unk>", "<pad>", "<s>", "<mask>", " <mask> ", "\u2581", " \u2581", "<extra_id_")
T5 = {"model_type": "t5"}


def make(path, **files):
    """make_dir, with .model files."""
    models_ = {name: files.pop(name) for name in list(files) if name.endswith("_model")}
    make_dir(path, **files)
    for name, file in models_.items():
        (path / (name[: -len("_model")] + ".model")).write_bytes(file.read_bytes())
    return path


def open_both(name, path):
    hf = transformers.AutoTokenizer.from_pretrained(path)
    hf._tokenizer.no_truncation()
    hf._tokenizer.no_padding()
    return Both("unigram " + name, path, hf=hf)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    root = tmp_path_factory.mktemp("unigram")
    paths = {
        "spiece": make(root / "spiece", spiece_model=SPIECE, config_json=T5),
        "json": make(root / "json", tokenizer_json=JSON_T5, tokenizer_config_json=CONFIG_T5),
        "whole": make(root / "whole", tokenizer_json=JSON_T5, tokenizer_config_json={"tokenizer_class": "PreTrainedTokenizerFast"}),
        "xlmr": make(root / "xlmr", **{"sentencepiece.bpe_model": JAPANESE}, config_json={"model_type": "xlm-roberta"}),
        "camembert": make(root / "camembert", **{"sentencepiece.bpe_model": ENGLISH}, config_json={"model_type": "camembert"}),
    }
    return {name: open_both(name, path) for name, path in paths.items()}


def text_files(rng, names):
    files = sorted((DATA / "text" / "udhr").iterdir())
    for path in rng.sample(files, min(names, len(files))) + [DATA / "text/blns/blns.txt", DATA / "text/botchan.txt"]:
        yield from lines_of(path)[:1200]
    yield from json.loads((DATA / "text/blns/blns.json").read_text())
    yield from lines_of(DATA / "text/wagahaiwa_nekodearu.txt")[:400]


@pytest.mark.parametrize("form", ["{}", "a{}\u0301b"])
def test_code_points(both, form, rng):
    """All of the first planes' start, and as many others as time allows: another run takes others."""
    points = all_points()
    words = [form.format(c) for c in points[:0x3400] + points[0xF100:0xF800] + rng.sample(points, 6000)]
    both["spiece"].check([" ".join(words[i : i + 500]) for i in range(0, len(words), 500)])


@pytest.mark.parametrize("name,files", [("spiece", 60), ("json", 1), ("whole", 8), ("xlmr", 2), ("camembert", 1)])
def test_texts(both, name, files, rng):
    both[name].check(list(text_files(rng, files)))
    if name == "spiece":
        both[name].check(["\n".join(lines_of(DATA / "text/botchan.txt"))])


@pytest.mark.parametrize("name", ["spiece", "json", "whole", "xlmr", "camembert"])
def test_random_texts(both, name, rng):
    points = all_points()
    texts = [random_text(rng, SPECIALS) for _ in range(1000)] + rng.sample(points, 1000)
    marks = ["\u0301", "\u0300", "\u3099", "\u200d", "\u200b", "\x01", "\x7f", "\r\n", "\ufb01", "\u2047", "\ufdfa", " ", "a", "A", "\u304b", "\u00e9"]
    marks += ["\uff05", "\u2026", "\u3000", "\u3297", "\uff76", "\uff9e", "\ufff0", "\u1161", "\u0600", "\u00a0", "\u2003", "\u094d"]
    texts += ["".join(rng.choice(marks) for _ in range(rng.randrange(9))) for _ in range(1500)]
    both[name].check(texts)
    both[name].check(texts[:500], texts[-500:])


def test_long_words(both):
    units = ["a", "the", " ", "\u4f60\u597d", "\u0301", "\ufdfa", "\u2603", "\u2581", "a\u3000", "<unk>", "\x01", "-"]
    for unit in units:
        both["spiece"].check([unit * n for n in (1, 20, 300)])
    both["spiece"].mine.run([unit * (300_000 // len(unit.encode())) for unit in units])  # takes seconds where time is quadratic


def test_truncation_and_windows(both, rng):
    strategies = {"longest_first": ours.LONGEST_FIRST, "only_first": ours.ONLY_FIRST}
    seen = 0
    for draw in range(160):
        b = both[rng.choice(["spiece", "xlmr"])]
        text = random_text(rng, SPECIALS + (" the", "  fox", " jumps"))
        pair = random_text(rng, SPECIALS) if rng.random() < 0.4 else None
        side, strategy = rng.choice(["right", "left"]), rng.choice(list(strategies))
        length, stride = rng.randrange(5, 24), rng.choice([0, 0, 1, 3])
        b.hf.truncation_side = side
        try:
            theirs = b.hf(text, pair, truncation=strategy, max_length=length, stride=stride, return_overflowing_tokens=True,
                          return_offsets_mapping=True, return_token_type_ids=True, return_special_tokens_mask=True)
        except BaseException as e:  # noqa: B902 - its panics are BaseExceptions
            assert not isinstance(e, KeyboardInterrupt)
            continue
        if max(map(len, theirs["input_ids"])) > length:
            continue
        mine = b.mine.encode([text], None if pair is None else [pair], truncation=strategies[strategy], max_length=length,
                             stride=stride, truncation_side=ours.LEFT if side == "left" else ours.RIGHT, overflow=1)
        assert len(mine) == len(theirs["input_ids"])
        for r, row in enumerate(mine):
            same = (row.ids, row.offsets, row.type_ids, [int(s < 0) for s in row.sequence]) == (
                theirs["input_ids"][r], theirs["offset_mapping"][r], theirs["token_type_ids"][r], theirs["special_tokens_mask"][r])
            assert same, (b.name, text, pair, side, strategy, length, stride, r)
            assert [None if w < 0 else w for w in row.word] == theirs.word_ids(r)
        seen += 1
    for b in both.values():
        b.hf.truncation_side = "right"
    totals["texts"] += seen
    assert seen > 50


def test_byte_offsets(both, rng):
    """Byte offsets are those of the same code points, in text that is repaired too."""
    for draw in range(500):
        b = both[rng.choice(["spiece", "camembert"])]
        text = random_text(rng, SPECIALS)
        row = b.mine.encode([text])[0]
        starts = [0]
        for c in text:
            starts.append(starts[-1] + len(c.encode()))
        assert row.byte_offsets == [(starts[a], starts[z]) for a, z in row.offsets], text
        raw = text.encode()[rng.randrange(3):]
        row = b.mine.encode([raw], replace_invalid=1)[0]
        b.rust.no_truncation()
        e = b.rust.encode(raw.decode("utf-8", "replace"))
        assert (row.ids, row.offsets) == (e.ids, e.offsets), raw


@pytest.mark.parametrize("name", ["spiece", "json", "xlmr", "camembert"])
def test_decode(both, name, rng):
    b = both[name]
    texts = [t for t in lines_of(DATA / "text/botchan.txt") if t][:300] + ["it 's , do n't ' x ' y . ?", " ' ' 's n't 're  .", "  '"]
    for draw in range(600):
        ids = [rng.choice([rng.randrange(len(b.hf)), rng.choice(b.hf.all_special_ids), rng.randrange(12)]) for _ in range(rng.randrange(20))]
        if draw % 3 == 0:
            ids = b.rust.encode(rng.choice(texts)).ids
        for skip in (0, 1):
            for clean in (0, 1):
                expected = b.hf.decode(ids, skip_special_tokens=bool(skip), clean_up_tokenization_spaces=bool(clean))
                assert b.mine.decode(ids, skip_special_tokens=skip, clean_up=clean) == expected, ids
            assert b.mine.decode(ids, skip_special_tokens=skip) == b.hf.decode(ids, skip_special_tokens=bool(skip))
        totals["texts"] += 1


# SentencePiece's own rules.


def lower(text):
    return "".join(c.lower() for c in text)


def check_spm(name, mine, sp, texts, around=lambda ids: ids, change=lambda t: t, offsets=True):
    rows = mine.encode(texts)
    totals["vocabularies"].add("spm " + name)
    for text, row in zip(texts, rows):
        changed = change(text)
        expected = sp.encode(changed, return_type="proto") if offsets else None
        ids = [p.id for p in expected.pieces] if offsets else sp.encode(changed)
        totals["differences"] += row.ids != around(ids)
        assert row.ids == around(ids), (name, text)
        if offsets:
            assert row.byte_offsets == [(p.begin, p.end) for p in expected.pieces], (name, text)
        totals["texts"] += 1
        totals["tokens"] += len(row.ids)


def long_texts(rng):
    """Texts whose sums of scores grow so large, some times over, that the reference takes them off: prose, what is known from the last time,
    and runs of what is unknown."""
    prose = "\n".join(lines_of(DATA / "text/botchan.txt") + lines_of(DATA / "text/wagahaiwa_nekodearu.txt")[:600])
    unknown = "\u2603\ua66f" * rng.randrange(9_000, 20_000) + "".join(rng.choice("\u2603\ua66f\u2603 a\u2604") for _ in range(20_000))
    known = "\u4f60 the " * rng.randrange(20_000, 40_000)
    return [prose[rng.randrange(1000) :], known + prose[:300_000], unknown + prose[:300_000], "".join(rng.sample(prose[:150_000], 150_000))]


def spm_texts(rng, files):
    marks = ["\u0301", " ", "  ", "\u3000", "\x01", "\ufb01", "\u2581", "a", "\u304b", "\ufdfa", "\t", "\u200b"]
    return (list(text_files(rng, files)) + [random_text(rng, SPECIALS) for _ in range(700)]
            + ["".join(rng.choice(marks) for _ in range(rng.randrange(9))) for _ in range(700)])


@pytest.mark.parametrize("path", [SPIECE, RINNA, ENGLISH, JAPANESE], ids=lambda p: p.name)
def test_model_files(path, rng):
    mine, sp = ours.Tokenizer(path), sentencepiece.SentencePieceProcessor(model_file=str(path))
    check_spm(path.name, mine, sp, spm_texts(rng, 4))
    check_spm(path.name, mine, sp, long_texts(rng))
    assert mine.info.model == b"Unigram" and mine.info.vocab_size == sp.get_piece_size() and mine.info.unk_id == sp.unk_id()
    for draw in range(600):
        ids = [rng.randrange(rng.choice([10, sp.get_piece_size()])) for _ in range(rng.randrange(12))]
        assert mine.decode(ids, skip_special_tokens=1) == sp.decode(ids), ids


def test_known_words(tmp_path, rng):
    """Words that come again and again, and a map that changes some of them together with the space and the word behind it: that a word is
    known may not hang on its own bytes alone."""
    rules = {"ab c": "X", "bd": "YZ", "ac": "b", "\u00e9": "e", "a\u0301 ": "a ", "\u3042": " "}
    (tmp_path / "rules.tsv").write_text("".join("%s\t%s\n" % tuple(" ".join("%X" % ord(c) for c in t) for t in rule) for rule in rules.items()))
    parts = ["ab", "bd", "a", "b", "c", "d", "abd", "X", "\u00e9", "a\u0301", "\u3042", "ab" * 8, "ab" * 9, "abcd" * 9]
    spaces = [" "] * 6 + ["  ", "\t", "\u3000", "\u00a0"]

    def text(words):
        return "".join(rng.choice(parts) + (rng.choice(spaces) if rng.random() < 0.7 else "") for _ in range(rng.randrange(words)))

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text(30) or "a" for _ in range(3000)]), model_prefix=str(tmp_path / "m"), vocab_size=60,
        normalization_rule_tsv=str(tmp_path / "rules.tsv"), hard_vocab_limit=False, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2)
    texts = [text(rng.choice([3, 6, 40])) for _ in range(6000)]
    model = tmp_path / "m.model"
    check_spm("rules", ours.Tokenizer(model), sentencepiece.SentencePieceProcessor(model_file=str(model)), texts)
    open_both("rules", make(tmp_path / "t5", spiece_model=model, config_json=T5)).check(texts)


def test_rinna(tmp_path, rng):
    """Its pieces are lower-cased (one character at a time, as its authors' tokenizer did it), unknown ones have id 0, </s> follows."""
    config = dict(tokenizer_class="T5Tokenizer", extra_ids=0, additional_special_tokens=[], eos_token="</s>", unk_token="<unk>",
                  pad_token="[PAD]", bos_token="<s>", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", do_lower_case=True)
    path = make(tmp_path / "rinna", spiece_model=RINNA, tokenizer_config_json=config, config_json={"model_type": "gpt2"})
    mine, sp = ours.Tokenizer(path), sentencepiece.SentencePieceProcessor(model_file=str(RINNA))
    named = [v for k, v in config.items() if k.endswith("_token")]
    texts = [t for t in spm_texts(rng, 4) if not any(n in t for n in named)]
    check_spm("rinna", mine, sp, texts, around=lambda ids: ids + [2], change=lower, offsets=False)
    info = mine.info
    assert (info.unk_id, info.bos_id, info.eos_id, info.pad_id, info.lowercase, info.vocab_size) == (0, 1, 2, 3, 1, 32000)
    assert mine.encode(["[CLS]a</s>"])[0].ids[-2:] == [2, 2] and mine.decode([9, 1816, 2]).endswith("</s>")


@pytest.mark.parametrize("draw", range(4))
def test_fresh_model_files(draw, rng, tmp_path):
    words = [w for w in " ".join(lines_of(DATA / "text/botchan.txt")[60:2000]).split()]
    texts = [" ".join(rng.sample(words, 12)) for _ in range(400)]
    out = io.BytesIO()
    settings = dict(
        normalization_rule_name=rng.choice(["nmt_nfkc", "nfkc_cf", "identity", "nmt_nfkc_cf"]), byte_fallback=rng.random() < 0.5,
        add_dummy_prefix=rng.random() < 0.7, remove_extra_whitespaces=rng.random() < 0.5, treat_whitespace_as_suffix=rng.random() < 0.3,
        split_by_whitespace=rng.random() < 0.7)
    symbols = [[], ["<sep>", "ab"]] + ([] if settings["treat_whitespace_as_suffix"] else [["<sep>", "ab", "\u2581the"]])
    settings["user_defined_symbols"] = rng.choice(symbols)
    size = 700 if settings["byte_fallback"] else 400
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=out, vocab_size=size, minloglevel=2,
                                             hard_vocab_limit=False, unk_surface=" ? ", **settings)
    path = tmp_path / "fresh.model"
    path.write_bytes(out.getvalue())
    mine, sp = ours.Tokenizer(path), sentencepiece.SentencePieceProcessor(model_file=str(path))
    tokens = ("<sep>", "ab", "the", " the ", "  ", "\u2581", "</s>")
    check_spm("fresh %d" % draw, mine, sp, rng.sample(texts, 300) + [random_text(rng, tokens) for _ in range(500)],
              offsets=not settings["byte_fallback"])
    if not settings["byte_fallback"]:
        check_spm("fresh %d" % draw, mine, sp, long_texts(rng)[:2] + ["".join(rng.choice(("ab", "<sep>", " the ")) for _ in range(200_000))])
    for _ in range(300):
        ids = [rng.choice([rng.randrange(sp.get_piece_size()), rng.randrange(300)]) for _ in range(rng.randrange(12))]
        if rng.random() < 0.3:
            ids = sp.encode(random_text(rng, tokens))
        assert mine.decode(ids, skip_special_tokens=1) == sp.decode(ids), (settings, ids)
        stream = ours.Stream(mine, skip_special_tokens=1)
        assert "".join([stream.push(i) for i in ids] + [stream.finish()]) == sp.decode(ids)


# Directories and tokenizer.json.


def directories():
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": True, "rstrip": False, "single_word": False}
    added = {"32000": {"content": "zz", "special": False, "normalized": True}, "3": {"content": "<new>", "special": True, "lstrip": True}}
    listed = json.loads(CONFIG_T5.read_text())["additional_special_tokens"]
    for files in (dict(spiece_model=SPIECE), dict(tokenizer_json=JSON_T5)):
        for extra in ({}, dict(extra_ids=0), dict(extra_ids=0, additional_special_tokens=[]), dict(eos_token="<pad>"), dict(mask_token=mask),
                      dict(added_tokens_decoder=added), dict(additional_special_tokens=listed), dict(model_max_length=512, sep_token="<sep>"),
                      dict(clean_up_tokenization_spaces=True)):
            yield dict(config_json=T5, tokenizer_config_json={"tokenizer_class": "T5Tokenizer", **extra}, **files)
        yield dict(config_json={"model_type": "mt5"}, special_tokens_map_json={"eos_token": "</s>"}, **files)
    yield dict(config_json=T5, tokenizer_config_json=CONFIG_T5, spiece_model=SPIECE)
    yield dict(config_json=T5, spiece_model=SPIECE, tokenizer_json=JSON_T5)
    for name, kind in (("XLMRobertaTokenizer", "xlm-roberta"), ("CamembertTokenizerFast", "camembert")):
        files = {"sentencepiece.bpe_model": ENGLISH}
        for extra in ({}, dict(add_prefix_space=False), dict(mask_token=mask), dict(bos_token="<b>", mask_token="<m>"), dict(unk_token="<u>"),
                      dict(additional_special_tokens=["zz"])):
            yield dict(config_json={"model_type": kind}, tokenizer_config_json={"tokenizer_class": name, **extra}, **files)
        yield dict(config_json={"model_type": kind}, **files)
    for name in ("XLMRobertaTokenizer", "CamembertTokenizer"):
        yield dict(tokenizer_json=JSON_T5, tokenizer_config_json={"tokenizer_class": name})


def check_one(b, rng, count=120):
    pieces = [" fox", "zz", "<new>", " <mask> ", "<mask>", "<m>", " <b> ", "<s>", "</s>", "<extra_id_0>", "<extra_id_99>", "New", "\u00e9", "\u4f60", " ",
              "\n", ".", "'s", "<pad>", "<unk>", "<s>NOTUSED", "\ufb01"]
    texts = ["".join(rng.choice(pieces) for _ in range(10)) for _ in range(count)]
    b.check(texts)
    b.check(texts[:50], texts[50:100])
    for text in texts[:20]:
        ids = b.rust.encode(text).ids
        for skip in (False, True):
            assert b.mine.decode(ids, skip_special_tokens=int(skip), clean_up=0) == b.rust.decode(ids, skip_special_tokens=skip), text


@pytest.mark.parametrize("case", list(directories()), ids=lambda d: None)
def test_directory(tmp_path, rng, case):
    b = open_both(repr(sorted(case.items())), make(tmp_path, **case))
    check_one(b, rng)
    info, hf = b.mine.info, b.hf
    assert info.model == b"Unigram" and info.lowercase == 0
    assert info.vocab_size == max(hf.get_vocab().values()) + 1
    assert info.model_max_length == min(hf.model_max_length, 2**31 - 1)
    assert info.special_tokens_single == hf.num_special_tokens_to_add(False)
    assert info.special_tokens_pair == hf.num_special_tokens_to_add(True)
    for name in ("unk", "pad", "cls", "sep", "mask", "bos", "eos"):
        if getattr(hf, name + "_token") is not None:
            assert getattr(info, name + "_id") == getattr(hf, name + "_token_id"), name
    ids = hf(" a . b")["input_ids"]
    assert b.mine.decode(ids) == hf.decode(ids)


def charsmap():
    return normalizers.Precompiled(__import__("base64").b64decode(json.loads(JSON_T5.read_text())["normalizer"]["precompiled_charsmap"]))


def small(rng, charmap):
    """A vocabulary of random pieces with scores in which ties are likely, and any of the settings that are built."""
    alphabet = list("abcdef\u2581\u2581\u00e9\u4f60") + ["<unk>"]
    pieces = {"<unk>": 0.0}
    for _ in range(rng.randrange(5, 60)):
        pieces.setdefault("".join(rng.choice(alphabet) for _ in range(rng.randrange(1, 5))), float(rng.choice([-1, -2, -3, -2.5, rng.uniform(-9, 1)])))
    if rng.random() < 0.3:
        pieces.update({"<0x%02X>" % i: 0.0 for i in range(256) if rng.random() < 0.995})
    t = Tokenizer(models.Unigram(list(pieces.items()), 0, rng.random() < 0.5))
    steps = [charmap, normalizers.Nmt(), normalizers.Replace(Regex(" {2,}"), rng.choice([" ", "\u2581"])), normalizers.Replace(" ", "\u2581"), normalizers.Lowercase(),
             normalizers.Strip(rng.random() < 0.5, rng.random() < 0.5), normalizers.Replace("bc", rng.choice(["c", "", "\u00e9\u00e9\u00e9"]))]
    chosen = rng.sample(steps, rng.randrange(4))
    t.normalizer = None if not chosen else chosen[0] if len(chosen) == 1 and rng.random() < 0.5 else normalizers.Sequence(chosen)
    scheme = rng.choice(["always", "first", "never"])
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=rng.random() < 0.8)
    t.pre_tokenizer = rng.choice([None, metaspace, metaspace, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])])
    t.decoder = rng.choice([decoders.Metaspace(prepend_scheme=scheme), None])
    t.post_processor = rng.choice([None, processors.TemplateProcessing("$A <unk>", "<unk> $A $B:1", special_tokens=[("<unk>", 0)])])
    for content in rng.sample(["<mask>", "ab", "\u2581a", " a ", "\u3000x", "c c", "f", "\u00e9"], rng.randrange(4)):
        t.add_tokens([AddedToken(content, single_word=rng.random() < 0.3, lstrip=rng.random() < 0.4, rstrip=rng.random() < 0.4,
                                 normalized=rng.random() < 0.5, special=rng.random() < 0.3)])
    return t


def encodes(rust, text):
    """The reference panics where added tokens take the same space twice."""
    try:
        return rust.encode(text) is not None
    except BaseException as e:  # noqa: B902 - its panics are BaseExceptions
        assert not isinstance(e, KeyboardInterrupt)
        return False


def test_small_vocabularies(tmp_path, rng):
    pieces = list("abcdef") + [" ", "  ", "\u3000", "\n", "\u00e9", "\u4f60", "<mask>", "ab", " a ", "c c", "A", "\ufb01", "\u0301", "\u2581", "\x01", "<unk>", "\x7f"]
    charmap = charsmap()
    for draw in range(40):
        path = tmp_path / ("%d.json" % draw)
        small(rng, charmap).save(str(path))
        b = Both("unigram small %d" % draw, path, rust=Tokenizer.from_file(str(path)))
        texts = ["".join(rng.choice(pieces) for _ in range(rng.randrange(16))) for _ in range(250)]
        texts = [t for t in texts if encodes(b.rust, t)]
        b.check(texts)
        b.check(texts[:100], texts[100:200])
        for text in texts[:50]:
            ids = b.rust.encode(text).ids
            assert b.mine.decode(ids) == b.rust.decode(ids, skip_special_tokens=False), (path, text)


def test_trained(tmp_path, rng):
    """As tokenizers trains it: scores with 17 digits, which its own reader does not read exactly."""
    lines = [t for t in lines_of(DATA / "text/botchan.txt") if t]
    for draw in range(2):
        t = Tokenizer(models.Unigram())
        t.pre_tokenizer = rng.choice([pre_tokenizers.Metaspace(), pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])])
        t.normalizer = rng.choice([charsmap(), normalizers.Lowercase()])
        t.decoder = decoders.Metaspace()
        t.train_from_iterator(rng.sample(lines, 500), trainers.UnigramTrainer(vocab_size=900, special_tokens=["<unk>", "</s>"], unk_token="<unk>",
                                                                              show_progress=False))
        path = tmp_path / ("%d.json" % draw)
        t.save(str(path))
        b = Both("unigram trained %d" % draw, path, rust=Tokenizer.from_file(str(path)))
        b.check(lines[:600] + ["-" * n for n in range(1, 60)] + [random_text(rng, SPECIALS) for _ in range(500)])


# ByT5.


@pytest.mark.parametrize("config", [{}, {"extra_ids": 3}, {"additional_special_tokens": []}, {"clean_up_tokenization_spaces": True}], ids=str)
def test_byt5(tmp_path, rng, config):
    """The reference has neither offsets nor word numbers here."""
    path = make(tmp_path / "byt5", tokenizer_config_json={"tokenizer_class": "ByT5Tokenizer", **config}, config_json=T5)
    hf, mine = transformers.AutoTokenizer.from_pretrained(path), ours.Tokenizer(path)
    totals["vocabularies"].add("byt5 %s" % config)
    assert mine.info.model == b"ByT5" and mine.info.vocab_size == len(hf)
    assert (mine.info.pad_id, mine.info.eos_id, mine.info.unk_id) == (0, 1, 2)
    tokens = ("<extra_id_0>", "<extra_id_1>", "</s>", " </s> ", "<unk>", "a")
    texts = [random_text(rng, tokens).translate({c: None for c in range(0x1C, 0x20)}) for _ in range(400)] + ["", "</s>", " </s>", "a </s> </s> b"]
    for i, text in enumerate(texts):
        pair = texts[-i] if i % 3 == 0 else None
        row = mine.encode([text], None if pair is None else [pair])[0]
        assert row.ids == hf(text, pair)["input_ids"], text
        assert row.type_ids == [0] * len(row.ids)
        totals["texts"] += 1
        totals["tokens"] += len(row.ids)
    row = mine.encode(["h\u00e9!"], truncation=ours.LONGEST_FIRST, max_length=4)[0]
    assert row.ids == hf("h\u00e9!", truncation=True, max_length=4)["input_ids"] == [107, 198, 172, 1]
    assert row.offsets == [(0, 1), (1, 2), (1, 2), (0, 0)]
    for draw in range(500):
        ids = [rng.choice([rng.randrange(len(hf)), rng.randrange(3, 259), rng.randrange(3)]) for _ in range(rng.randrange(20))]
        ids = rng.choice([ids, hf(rng.choice(texts))["input_ids"]])
        for skip in (0, 1):
            assert mine.decode(ids, skip_special_tokens=skip) == hf.decode(ids, skip_special_tokens=bool(skip)), ids


# Streams.


@pytest.fixture(scope="module")
def kinds(both, tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    paths = {
        "WordPiece": VOCAB / "hf-json/bert-base-uncased/tokenizer.json",
        "BPE": make(root / "gpt2", encoder_json=VOCAB / "gpt2/encoder.json", config_json={"model_type": "gpt2"}),
        "ByT5": make(root / "byt5", tokenizer_config_json={"tokenizer_class": "ByT5Tokenizer"}, config_json=T5),
        "SentencePiece": RINNA,
    }
    (paths["BPE"] / "vocab.bpe").write_bytes((VOCAB / "gpt2/vocab.bpe").read_bytes())
    return {**{name: ours.Tokenizer(path) for name, path in paths.items()}, "Unigram": both["spiece"].mine}


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "ByT5", "SentencePiece", "Unigram"])
def test_stream(kinds, kind, rng):
    """The pieces are whole characters (Stream decodes each) and make up what decoding all at once gives."""
    t = kinds[kind]
    n = t.info.vocab_size
    texts = ["it 's , do n't ' x ' y . ?", "h\u00e9llo w\u00f6rld \u65e5\u672c\u8a9e \U0001f600", " ' ' 's n't 're  .", " ", ""] + lines_of(DATA / "text/udhr/eng.txt")[:40]
    for skip in (0, 1):
        for clean in (0, 1):
            stream = ours.Stream(t, skip_special_tokens=skip, clean_up=clean)
            for draw in range(200):
                ids = [rng.choice([rng.randrange(n), rng.randrange(min(n, 300))]) for _ in range(rng.randrange(30))]
                if draw % 3 == 0:
                    ids = t.encode(["".join(rng.sample(texts, 3))])[0].ids
                if draw % 7 == 0:  # half a character, and another beginning
                    stream.push(rng.randrange(n))
                    stream.reset()
                whole = t.decode(ids, skip_special_tokens=skip, clean_up=clean)
                pieces = [stream.push(i) for i in ids]
                held = stream.finish()
                assert "".join(pieces) + held == whole, ids
                assert len(held) <= 12, (ids, held)  # nothing waits for long
                totals["texts"] += 1
            with pytest.raises(ours.TfinferError, match="outside the vocabulary"):
                stream.push(n)
            assert stream.finish() == ""


# Refusals.


def test_refusals_are_named(tmp_path):
    raw = json.loads(JSON_T5.read_text())
    raw["model"]["vocab"] = raw["model"]["vocab"][:50]
    raw["added_tokens"] = raw["post_processor"] = None

    def refused(match, status=-5, **changes):
        path = tmp_path / "tokenizer.json"
        path.write_text(json.dumps({**raw, **changes}))
        with pytest.raises(ours.TfinferError, match=match) as e:
            ours.Tokenizer(path)
        assert e.value.status == status

    replace = {"type": "Replace", "content": "x"}
    refused("Prepend of nothing", normalizer={"type": "Prepend", "prepend": ""})
    refused("Append", normalizer={"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Append"}]})
    refused("match nothing", normalizer={**replace, "pattern": {"Regex": "a*"}})
    refused("an escape of this letter", normalizer={**replace, "pattern": {"Regex": r"(a)\1"}})
    refused("Letters", pre_tokenizer={"type": "Letters"})
    refused("Sequences", decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Sequences"}]})
    refused("unk_id", model={**raw["model"], "unk_id": None})
    refused("unk_id", -4, model={**raw["model"], "unk_id": 50})
    refused("piece 1", -4, model={**raw["model"], "vocab": [["a", 0], ["b"]]})
    refused("base64", -4, normalizer={"type": "Precompiled", "precompiled_charsmap": "!"})
    with pytest.raises(ours.TfinferError, match="BPE") as e:
        ours.Tokenizer(VOCAB / "bpemb-en/en.wiki.bpe.vs100000.model")
    assert e.value.status == -5
    path = make(tmp_path / "bpe", tokenizer_json=VOCAB / "hf-json/roberta-base/tokenizer.json", tokenizer_config_json={"tokenizer_class": "T5Tokenizer"})
    with pytest.raises(ours.TfinferError, match="model is BPE"):
        ours.Tokenizer(path)
