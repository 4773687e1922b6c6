"""The tokenizer module against tokenizers and transformers: ids, offsets, word and sequence numbers, windows, decoded text.

tokenizing.py says what it needs."""

import codecs
import json
import unicodedata

import pytest
import tfi_tokenizer as ours
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, processors
from tokenizing import DATA, VOCAB, Both, all_points, lines_of, make_dir, normalization_texts, random_text, rng, totals  # noqa: F401

UNCASED, CASED = VOCAB / "bert-base-uncased" / "vocab.txt", VOCAB / "bert-base-cased" / "vocab.txt"
JSON_UNCASED, JSON_MINILM = VOCAB / "hf-json/bert-base-uncased/tokenizer.json", VOCAB / "hf-json/all-minilm-l6-v2/tokenizer.json"
NAMES = ["uncased", "cased", "minilm.json", "uncased.json"]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    bert = {"model_type": "bert"}
    dirs = {
        "uncased": make_dir(root / "uncased", vocab_txt=UNCASED, config_json=bert),
        "cased": make_dir(root / "cased", vocab_txt=CASED, config_json=bert, tokenizer_config_json={"do_lower_case": False}),
    }
    out = {name: Both(name, path, hf=transformers.AutoTokenizer.from_pretrained(path)) for name, path in dirs.items()}
    for name, path in (("minilm.json", JSON_MINILM), ("uncased.json", JSON_UNCASED)):
        rust = Tokenizer.from_file(str(path))
        rust.no_truncation()
        rust.no_padding()
        out[name] = Both(name, path, rust=rust)
    return out


# Texts.


@pytest.mark.parametrize("name", ["uncased", "cased"])
@pytest.mark.parametrize("form", ["{}", "a{}b"])
def test_every_code_point(both, name, form):
    words = [form.format(c) for c in all_points()]
    both[name].check([" ".join(words[i : i + 500]) for i in range(0, len(words), 500)])


@pytest.mark.parametrize("name", ["uncased", "cased"])
def test_some_code_points_as_whole_texts(both, name, rng):
    points = all_points()
    both[name].check(points[:0x3100] + rng.sample(points, 20000))


@pytest.mark.parametrize("name", NAMES)
def test_texts(both, name, rng):
    for path in sorted((DATA / "text" / "udhr").iterdir()) + [DATA / "text/blns/blns.txt", DATA / "text/botchan.txt"]:
        both[name].check(lines_of(path))
    both[name].check(json.loads((DATA / "text/blns/blns.json").read_text()))
    both[name].check(lines_of(DATA / "text/wagahaiwa_nekodearu.txt"))
    verses = lines_of(DATA / "text/kjv.txt")
    both[name].check(verses if name == "uncased" else rng.sample(verses, 5000))


def test_whole_files(both):
    for path in ("botchan.txt", "wagahaiwa_nekodearu.txt", "blns/blns.txt", "udhr/vie.txt", "udhr/tha.txt"):
        if (DATA / "text" / path).exists():
            both["uncased"].check(["\n".join(lines_of(DATA / "text" / path))])


@pytest.mark.parametrize("name", ["uncased", "cased"])
def test_normalization_test(both, name):
    both[name].check(normalization_texts())


@pytest.mark.parametrize("name", NAMES)
def test_random_texts(both, name, rng):
    texts = [random_text(rng) for _ in range(5000)]
    both[name].check(texts)
    both[name].check(texts[:1000], texts[1000:2000])


@pytest.mark.parametrize("name", ["uncased", "cased"])
def test_mark_order(both, name, rng):
    """Canonical ordering among marks that stay and marks that go: offsets follow the reference's positions."""
    marks = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))] + ["\u0344", "\u0f73", "\u0f75", "\u0f81", "\u00ad"]
    kept = [chr(c) for c in (*range(0x8D4, 0x8E2), *range(0x1DF6, 0x1DFC), 0x20D0, 0x302E, 0x1D165, 0xA8C5, 0x11C3F)]
    starts = ["", "", "a", "\u00e9", "\u1ed9", "\uac00", "\u0915"]
    texts = []
    for _ in range(3000):
        words = [rng.choice(starts) + "".join(rng.choice(rng.choice([marks, kept])) for _ in range(rng.randrange(1, 6))) for _ in range(6)]
        texts.append(" ".join(words))
    both[name].check(texts)


def test_long_words(both, rng):
    for letter in "aZ\u00e9\u0130\uac00\u0301":
        both["uncased"].check(["b " + letter * n + " c" for n in (33, 34, 49, 50, 51, 99, 100, 101, 102, 300, 5000)])


# Truncation, windows.


def words(rng, most):
    return " ".join(rng.choice(["the", "unaffable", "fox", "jumps", "xyzzy", "na\u00efve", "!", "\u4f60"]) for _ in range(rng.randrange(most)))


def test_truncation_and_windows(both, rng):
    b = both["uncased"]
    strategies = {"longest_first": ours.LONGEST_FIRST, "only_first": ours.ONLY_FIRST, "only_second": ours.ONLY_SECOND}
    refused = 0
    for draw in range(4000):
        pair = words(rng, 25) or "a" if rng.random() < 0.6 else None
        text, side, overflow = words(rng, 25), rng.choice(["right", "left"]), rng.random() < 0.6
        strategy, length, special = rng.choice(list(strategies)), rng.randrange(1, 30), rng.random() < 0.8
        stride = rng.randrange(8) if overflow else 0
        case = (text, pair, strategy, length, side, stride, overflow, special)
        b.hf.truncation_side = side
        try:
            mine = b.mine.encode(
                [text], None if pair is None else [pair], truncation=strategies[strategy], max_length=length, stride=stride,
                truncation_side=ours.LEFT if side == "left" else ours.RIGHT, overflow=int(overflow), add_special_tokens=int(special))
        except ours.TfinferError as e:
            mine, error = None, e
        try:
            theirs = b.hf(text, pair, truncation=strategy, max_length=length, stride=stride, return_overflowing_tokens=True,
                          return_offsets_mapping=True, add_special_tokens=special)
        except BaseException as e:  # noqa: B902 - its panics are BaseExceptions
            assert not isinstance(e, KeyboardInterrupt)
            theirs = None
        totals["texts"] += 1
        if mine is None:
            # Where special tokens leave no room the reference returns texts longer than max_length; ours refuses.
            whole = theirs is not None and max(map(len, theirs["input_ids"])) > length
            assert theirs is None or whole, (case, str(error))
            refused += 1
            continue
        if theirs is None and stride > 0 and stride >= length - 2:
            continue  # the reference refuses such a stride even where nothing is cut
        assert theirs is not None, case
        rows = len(theirs["input_ids"]) if overflow else 1
        assert len(mine) == rows, case
        for r, row in enumerate(mine):
            same = (
                row.ids == theirs["input_ids"][r]
                and row.offsets == theirs["offset_mapping"][r]
                and row.type_ids == theirs["token_type_ids"][r]
                and [None if w < 0 else w for w in row.word] == theirs.word_ids(r)
            )
            assert same, (case, r, row.ids, theirs["input_ids"][r])
            if special:
                assert [None if s < 0 else s for s in row.sequence] == theirs.sequence_ids(r), (case, r)
    b.hf.truncation_side = "right"
    assert refused < 2400


# Decoding.


def test_decode(both, rng):
    for name in ("uncased", "cased"):
        b = both[name]
        inventory = [b.hf.convert_tokens_to_ids(t) for t in ". , ! ? ' n ##n't 't s re ve m do not don ##s ##' \" - [CLS] [SEP] [MASK]".split()]
        for draw in range(2000):
            ids = [rng.choice([rng.choice(inventory), rng.randrange(len(b.hf))]) for _ in range(rng.randrange(40))]
            for skip in (0, 1):
                for clean in (0, 1):
                    expected = b.hf.decode(ids, skip_special_tokens=bool(skip), clean_up_tokenization_spaces=bool(clean))
                    assert b.mine.decode(ids, skip_special_tokens=skip, clean_up=clean) == expected, (name, ids, skip, clean)
            assert b.mine.decode(ids) == b.hf.decode(ids)
            totals["texts"] += 1


def test_published_expectations(both, tmp_path):
    """transformers.js' own expected ids, for the vocabularies that are here."""
    where = {"Xenova/bert-base-uncased": "uncased", "Xenova/bert-base-cased": "cased",
             "Xenova/distilbert-base-cased-distilled-squad": "cased",
             "Xenova/distilbert-base-uncased-finetuned-sst-2-english": "uncased"}
    checked = 0
    for file in ("bert.json", "distilbert.json"):
        for model, cases in json.loads((DATA / "conformance/transformers.js" / file).read_text()).items():
            if model not in where:
                continue
            b = both[where[model]]
            for case in cases.values():
                row = b.mine.encode([case["text"]], [case["text_pair"]] if case.get("text_pair") else None)[0]
                assert row.ids == case["ids"], (model, case["text"])
                # transformers.js cleans up by default, as transformers did then
                assert b.mine.decode(row.ids, clean_up=1) == case["decoded"], (model, case["text"])
                checked += 1
    assert checked > 60
    totals["texts"] += checked


# Text that is not UTF-8.


def test_replacement(both, rng):
    b, errors = both["uncased"], []

    def record(error):
        errors.append((error.start, error.end))
        return "\ufffd", error.end

    codecs.register_error("tfi-record", record)
    for draw in range(3000):
        raw = bytearray(random_text(rng).encode())
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(raw) + 1)
            raw[at:at] = bytes(rng.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xF5, 0xFF, 0xA0]) for _ in range(rng.randrange(4)))
            cut = rng.randrange(len(raw) + 1)
            del raw[cut : cut + rng.randrange(2)]
        raw = bytes(raw)
        text = raw.decode("utf-8", "replace")
        row = b.mine.encode([raw], replace_invalid=1)[0]
        b.rust.no_truncation()
        e = b.rust.encode(text)
        assert (row.ids, row.offsets) == (e.ids, e.offsets), raw
        errors.clear()
        assert raw.decode("utf-8", "tfi-record") == text
        starts, at, wrong = [0], 0, iter(errors + [(None, None)])
        begin, end = next(wrong)
        for c in text:
            if at == begin:
                at = end
                begin, end = next(wrong)
            else:
                at += len(c.encode())
            starts.append(at)
        assert row.byte_offsets == [(starts[a], starts[z]) for a, z in row.offsets], raw
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError as error:
            with pytest.raises(ours.TfinferError, match="not UTF-8 at byte %d" % error.start):
                b.mine.encode([raw])
        totals["texts"] += 1


# Added tokens, settings, choice of files.


def test_added_tokens(tmp_path, rng):
    contents = ["zz", "[X]", "new", "NEW Word", "\u00c9t\u00e9", " sp ", "a", "aa", "##q", "!", "\u4f60\u597d", "<s>", "[y]", "zzz"]
    for draw in range(40):
        lower, clean = rng.random() < 0.6, rng.random() < 0.8
        t = Tokenizer.from_file(str(JSON_UNCASED))
        t.no_truncation()
        t.no_padding()
        t.normalizer = normalizers.BertNormalizer(clean_text=clean, handle_chinese_chars=rng.random() < 0.7,
                                                  strip_accents=rng.choice([None, True, False]), lowercase=lower)
        if rng.random() < 0.3:
            t.post_processor = processors.BertProcessing(("[SEP]", 102), ("[CLS]", 101))
        elif rng.random() < 0.3:
            t.post_processor = processors.TemplateProcessing(single="$A:1 [SEP]:3 [SEP]:2", pair="$B:2 [CLS]:1 $A:0",
                                                             special_tokens=[("[SEP]", 102), ("[CLS]", 101)])
        if rng.random() < 0.2:
            t.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        tokens = [AddedToken(c, single_word=rng.random() < 0.4, lstrip=rng.random() < 0.4, rstrip=rng.random() < 0.4,
                             normalized=rng.random() < 0.5, special=rng.random() < 0.3)
                  for c in rng.sample(contents, rng.randrange(1, 8))]
        t.add_tokens(tokens)
        path = tmp_path / ("%d" % draw) / "tokenizer.json"
        path.parent.mkdir()
        t.save(str(path))
        b = Both("added %d" % draw, path, rust=Tokenizer.from_file(str(path)))
        texts = [random_text(rng, [c + s for c in contents for s in ("", " ", "x")]) for _ in range(300)]
        texts += ["".join(rng.choice(contents + [" ", "  ", "x", "\u3000", "\u0301", "-"]) for _ in range(12)) for _ in range(300)]
        b.check(texts)
        if not draw % 3:
            b.check(texts[:200], texts[200:400])
        for text in texts[:100]:
            ids = b.rust.encode(text).ids
            for skip in (False, True):
                assert b.mine.decode(ids, skip_special_tokens=int(skip)) == b.rust.decode(ids, skip_special_tokens=skip), (draw, text)


def directories():
    cased = {"do_lower_case": False}
    mask = {"__type": "AddedToken", "content": "[MASK]", "lstrip": True, "normalized": True, "rstrip": False, "single_word": False}
    added = {"5": {"content": "zz", "special": False, "normalized": True}, "3": {"content": "[NEW]", "special": True, "lstrip": True}}
    for name in ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "ElectraTokenizerFast", "MobileBertTokenizer",
                 "PreTrainedTokenizerFast", "TokenizersBackend"):
        config = {"tokenizer_class": name, **cased}
        if not name.startswith(("PreT", "TokenizersB")):
            yield dict(vocab_txt=CASED, tokenizer_config_json=config)
        yield dict(tokenizer_json=JSON_UNCASED, tokenizer_config_json=config)
        yield dict(tokenizer_json=JSON_UNCASED, vocab_txt=CASED, tokenizer_config_json=config)
    for model in ("bert", "distilbert", "electra", "lxmert"):
        yield dict(vocab_txt=UNCASED, config_json={"model_type": model})
        yield dict(tokenizer_json=JSON_MINILM, config_json={"model_type": model}, tokenizer_config_json=cased)
    yield dict(tokenizer_json=JSON_MINILM)
    yield dict(tokenizer_json=JSON_MINILM, vocab_txt=CASED)
    yield dict(tokenizer_json=JSON_MINILM, tokenizer_config_json=cased)
    base = {"tokenizer_class": "BertTokenizer"}
    for extra in (
        dict(strip_accents=False), dict(strip_accents=True, do_lower_case=False), dict(tokenize_chinese_chars=False),
        dict(mask_token=mask), dict(added_tokens_decoder=added), dict(added_tokens_decoder=added, mask_token="zz"),
        dict(additional_special_tokens=["<a>", "[unused1]"]), dict(extra_special_tokens={"image_token": "<img>"}),
        dict(foo_token="fox", model_max_length=17), dict(model_max_length=1000000000000000019884624838656), dict(truncation_side="left"),
        dict(clean_up_tokenization_spaces=True), dict(cls_token="[unused5]", sep_token="[unused6]"), dict(pad_token="<pad>"),
        dict(bos_token="<s>", eos_token="</s>"),
    ):
        yield dict(vocab_txt=UNCASED, tokenizer_config_json={**base, **extra})
        yield dict(tokenizer_json=JSON_UNCASED, tokenizer_config_json={"tokenizer_class": "PreTrainedTokenizerFast", **extra})
    special_map = {"mask_token": {"content": "[MASK]", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False},
                   "sep_token": "[SEP]", "additional_special_tokens": ["<b>"]}
    yield dict(vocab_txt=UNCASED, tokenizer_config_json=base, special_tokens_map_json=special_map)
    yield dict(vocab_txt=UNCASED, tokenizer_config_json=base, added_tokens_json={"zz": 30523, "New": 30522, "[MASK]": 103})
    yield dict(vocab_txt=UNCASED, tokenizer_config_json=base, added_tokens_json={"zz": 30523}, special_tokens_map_json=special_map)


@pytest.mark.parametrize("case", list(directories()), ids=lambda d: None)
def test_directory(tmp_path, rng, case):
    path = make_dir(tmp_path, **case)
    hf = transformers.AutoTokenizer.from_pretrained(path)
    hf._tokenizer.no_truncation()
    hf._tokenizer.no_padding()
    b = Both(repr(sorted(case.items())), path, hf=hf)
    pieces = ["Fox", "zz", "[NEW]", " [MASK] ", "[mask]", "<a>", "<b>", "<s>", "[unused1]", "<img>", "New", "\u00e9T\u00e9", "\u4f60", " ", "fox", "."]
    texts = ["".join(rng.choice(pieces) for _ in range(10)) for _ in range(200)]
    b.check(texts)
    b.check(texts[:50], texts[50:100])
    info = b.mine.info
    assert info.vocab_size == max(hf.get_vocab().values()) + 1
    assert info.model_max_length == min(hf.model_max_length, 2**31 - 1)
    assert info.special_tokens_single == hf.num_special_tokens_to_add(False)
    assert info.special_tokens_pair == hf.num_special_tokens_to_add(True)
    for name in ("pad", "cls", "sep", "mask", "bos", "eos"):
        if getattr(hf, name + "_token") is not None:
            assert getattr(info, name + "_id") == getattr(hf, name + "_token_id"), name
    row = b.mine.encode([texts[0]], truncation=ours.LONGEST_FIRST, max_length=7)[0]
    assert row.ids == hf(texts[0], truncation=True, max_length=7)["input_ids"]
    for text in texts[:20]:
        ids = hf(text)["input_ids"]
        for skip in (False, True):
            assert b.mine.decode(ids, skip_special_tokens=int(skip)) == hf.decode(ids, skip_special_tokens=skip)


def test_odd_vocabulary(tmp_path, rng):
    """Trailing white space, carriage returns, repeated, empty and prefix-only lines."""
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fox ", "dog\r", "fox", "", "##", "##s\u3000", "a", "##b", "##bb", "##c",
             "\u00e9", "cat\t", "", "##\u00e9"]
    path = make_dir(tmp_path, config_json={"model_type": "bert"})
    (path / "vocab.txt").write_bytes("\n".join(lines).encode())
    b = Both("odd", path, hf=transformers.AutoTokenizer.from_pretrained(path))
    b.check(["".join(rng.choice(["fox", "dog", "s", "a", "b", "c", "cat", " ", "##", "\u00e9"]) for _ in range(8)) for _ in range(2000)])
    assert b.mine.info.vocab_size == max(b.hf.get_vocab().values()) + 1


@pytest.mark.parametrize("name", ["MBartTokenizer", "LlamaTokenizerFast", "XLNetTokenizer", "MPNetTokenizer"])
def test_other_classes_are_named(tmp_path, name):
    path = make_dir(tmp_path, vocab_txt=UNCASED, tokenizer_json=JSON_UNCASED, tokenizer_config_json={"tokenizer_class": name})
    with pytest.raises(ours.TfinferError, match=name) as e:
        ours.Tokenizer(path)
    assert e.value.status == -5


def test_random_unicode(both, rng):
    texts = [random_text(rng) for _ in range(20000)]
    both["uncased"].check(texts)
    both["cased"].check(texts)
