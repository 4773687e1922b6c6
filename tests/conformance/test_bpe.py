"""Byte-level BPE against tokenizers and transformers: ids, offsets, word and sequence numbers, windows, decoded text, directories.

tokenizing.py says what it needs."""

import json

import pytest
import tfi_tokenizer as ours
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from tokenizing import DATA, VOCAB, Both, all_points, lines_of, make_dir, random_text, rng, totals  # noqa: F401

ROBERTA, GPT2 = VOCAB / "roberta-base", VOCAB / "gpt2"
ROBERTA_FILES = dict(vocab_json=ROBERTA / "vocab.json", merges_txt=ROBERTA / "merges.txt")
GPT2_FILES = dict(vocab_json=GPT2 / "encoder.json", merges_txt=GPT2 / "vocab.bpe")
JSON_ROBERTA = VOCAB / "hf-json/roberta-base/tokenizer.json"
SPECIALS = ("<mask>", " <mask>", "<s>", "</s>", "<pad>", "<unk>", "<|endoftext|>", "<mask", "</s", "'s", " '", "'ll", "'", "\u0120")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """roberta and json have RoBERTa's class, gpt2 GPT-2's (opened here from its own files), prefix a RoBERTa that puts spaces first."""
    root = tmp_path_factory.mktemp("bpe")
    reference = {
        "roberta": make_dir(root / "roberta", config_json={"model_type": "roberta"}, **ROBERTA_FILES),
        "json": make_dir(root / "json", tokenizer_json=JSON_ROBERTA, tokenizer_config_json={"tokenizer_class": "RobertaTokenizer"}),
        "prefix": make_dir(root / "prefix", tokenizer_config_json={"tokenizer_class": "RobertaTokenizerFast", "add_prefix_space": True},
                           **ROBERTA_FILES),
        "gpt2": make_dir(root / "gpt2", config_json={"model_type": "gpt2"}, **GPT2_FILES),
    }
    paths = dict(reference, gpt2=make_dir(root / "first", encoder_json=GPT2 / "encoder.json"))
    (paths["gpt2"] / "vocab.bpe").write_bytes((GPT2 / "vocab.bpe").read_bytes())
    return {name: Both("bpe " + name, paths[name], hf=transformers.AutoTokenizer.from_pretrained(path)) for name, path in reference.items()}


@pytest.mark.parametrize("form", ["{}", "a{}1", " {}!"])
def test_every_code_point(both, form):
    words = [form.format(c) for c in all_points()]
    both["gpt2"].check([" ".join(words[i : i + 500]) for i in range(0, len(words), 500)])


@pytest.mark.parametrize("name", ["roberta", "prefix"])
def test_some_code_points_as_whole_texts(both, name, rng):
    points = all_points()
    both[name].check(points[:0x3100] + rng.sample(points, 10000))


@pytest.mark.parametrize("name", ["gpt2", "roberta"])
def test_texts(both, name):
    for path in sorted((DATA / "text" / "udhr").iterdir()) + [DATA / "text/blns/blns.txt", DATA / "text/botchan.txt"]:
        both[name].check(lines_of(path))
    both[name].check(json.loads((DATA / "text/blns/blns.json").read_text()))
    both[name].check(lines_of(DATA / "text/wagahaiwa_nekodearu.txt") + lines_of(DATA / "text/kjv.txt"))
    both[name].check(["\n".join(lines_of(DATA / "text/botchan.txt"))])


@pytest.mark.parametrize("name", ["gpt2", "roberta", "json", "prefix"])
def test_random_texts(both, name, rng):
    blanks = [" ", "  ", "\n", "\t", "\u00a0", "\u3000", "\u2028", " \n ", "\r\n"]
    texts = [random_text(rng, SPECIALS) for _ in range(6000)]
    texts += ["".join(rng.choice(blanks + ["a", "1", "!", "'s", "\u00e9", "\u4f60", "<mask>", "</s>"]) for _ in range(rng.randrange(14)))
              for _ in range(4000)]
    both[name].check(texts)
    both[name].check(texts[:1500], texts[-1500:])


def test_long_words(both):
    units = ["a", "ab", "the", "\u4f60\u597d", " ", "\n", "!", "1", "\u0301"]
    for unit in units:
        both["gpt2"].check([unit * n for n in (20, 300)])
    both["gpt2"].mine.encode([unit * (1_000_000 // len(unit)) for unit in units])  # takes seconds where time is quadratic


def test_truncation_and_windows(both, rng):
    strategies = {"longest_first": ours.LONGEST_FIRST, "only_first": ours.ONLY_FIRST}
    seen = 0
    for draw in range(700):
        b = both[rng.choice(["gpt2", "roberta", "prefix"])]
        text = random_text(rng, SPECIALS + (" the", "  fox", " jumps"))
        pair = random_text(rng, SPECIALS) if rng.random() < 0.4 else None
        side, strategy = rng.choice(["right", "left"]), rng.choice(list(strategies))
        length, stride = rng.randrange(5, 24), rng.choice([0, 0, 1, 3])
        b.hf.truncation_side = side
        try:
            theirs = b.hf(text, pair, truncation=strategy, max_length=length, stride=stride, return_overflowing_tokens=True,
                          return_offsets_mapping=True, return_token_type_ids=True)
        except BaseException as e:  # noqa: B902 - its panics are BaseExceptions
            assert not isinstance(e, KeyboardInterrupt)
            continue
        if max(map(len, theirs["input_ids"])) > length:
            continue
        mine = b.mine.encode([text], None if pair is None else [pair], truncation=strategies[strategy], max_length=length,
                             stride=stride, truncation_side=ours.LEFT if side == "left" else ours.RIGHT, overflow=1)
        assert len(mine) == len(theirs["input_ids"])
        for r, row in enumerate(mine):
            same = (row.ids, row.offsets, row.type_ids) == (
                theirs["input_ids"][r], theirs["offset_mapping"][r], theirs["token_type_ids"][r])
            assert same, (b.name, text, pair, side, strategy, length, stride, r)
            assert [None if w < 0 else w for w in row.word] == theirs.word_ids(r)
        seen += 1
    for b in both.values():
        b.hf.truncation_side = "right"
    totals["texts"] += seen
    assert seen > 250


def test_byte_offsets(both, rng):
    """Byte offsets are those of the same code points, in text that is repaired too."""
    for draw in range(2000):
        b = both[rng.choice(["roberta", "prefix"])]
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


@pytest.mark.parametrize("name", ["gpt2", "json"])
def test_decode(both, name, rng):
    b = both[name]
    bytes_alone = [i for t, i in b.hf.get_vocab().items() if len(t) == 1]
    for draw in range(3000):
        ids = [rng.choice([rng.choice(bytes_alone), rng.randrange(len(b.hf)), rng.choice(b.hf.all_special_ids)]) for _ in range(rng.randrange(30))]
        for skip in (0, 1):
            expected = b.hf.decode(ids, skip_special_tokens=bool(skip))
            assert b.mine.decode(ids, skip_special_tokens=skip) == expected, ids
            assert b.mine.decode(ids, skip_special_tokens=skip, clean_up=1) == b.hf.decode(
                ids, skip_special_tokens=bool(skip), clean_up_tokenization_spaces=True)
        totals["texts"] += 1


def test_published_expectations(both):
    """transformers.js' own expected ids, for the vocabularies that are here."""
    where = {"Xenova/gpt2": "gpt2", "Xenova/all-distilroberta-v1": "json"}
    checked = 0
    for file in ("gpt2.json", "roberta.json"):
        for model, cases in json.loads((DATA / "conformance/transformers.js" / file).read_text()).items():
            if model not in where:
                continue
            b = both[where[model]]
            for case in cases.values():
                row = b.mine.encode([case["text"]], [case["text_pair"]] if case.get("text_pair") else None)[0]
                assert row.ids == case["ids"], (model, case["text"])
                if model == "Xenova/gpt2":  # the other's expectations were cleaned up, which the reference no longer does
                    assert b.mine.decode(row.ids) == b.hf.decode(row.ids)
                checked += 1
    assert checked > 30
    totals["texts"] += checked


# Directories and tokenizer.json.


def directories():
    json_files = dict(tokenizer_json=JSON_ROBERTA)
    mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": True, "rstrip": False, "single_word": False}
    added = {"50265": {"content": "zz", "special": False, "normalized": True}, "3": {"content": "<new>", "special": True, "lstrip": True}}
    for files in (ROBERTA_FILES, json_files, {**ROBERTA_FILES, **json_files}):
        for name in ("RobertaTokenizer", "RobertaTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast"):
            yield dict(tokenizer_config_json={"tokenizer_class": name}, **files)
        for extra in (
            dict(add_prefix_space=True), dict(add_prefix_space=True, trim_offsets=False), dict(trim_offsets=False), dict(mask_token=mask),
            dict(added_tokens_decoder=added, mask_token=mask), dict(model_max_length=512, truncation_side="left"),
            dict(cls_token="<pad>", sep_token="<unk>"), dict(add_bos_token=True), dict(additional_special_tokens=["<a>", " <b> "]),
            dict(clean_up_tokenization_spaces=True), dict(bos_token="<mask>", unk_token="zz"),
        ):
            yield dict(tokenizer_config_json={"tokenizer_class": "RobertaTokenizer", **extra}, **files)
        for extra in (dict(add_bos_token=True), dict(add_bos_token=False), dict(add_bos_token=True, add_eos_token=True, add_prefix_space=True),
                      dict(pad_token="<|endoftext|>"), dict(bos_token="<s>", add_bos_token=True)):
            yield dict(tokenizer_config_json={"tokenizer_class": "GPT2Tokenizer", **extra}, **files)
        yield dict(config_json={"model_type": "roberta"}, special_tokens_map_json={"mask_token": mask, "sep_token": "</s>"}, **files)
        yield dict(config_json={"model_type": "roberta"}, added_tokens_json={"zz": 50265, "<new>": 50266}, **files)
    for config in ({}, {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "<mask>"}, {"add_bos_token": True, "bos_token": "<s>"}):
        yield dict(tokenizer_config_json=config, **json_files)
    yield dict(config_json={"model_type": "gpt2"}, **GPT2_FILES)


def check_one(b, rng, count=300):
    pieces = [" fox", "zz", "<new>", " <mask> ", "<mask>", "<a>", " <b> ", "<s>", "</s>", "<|endoftext|>", "New", "\u00e9", "\u4f60", " ", "\n", ".", "'s"]
    texts = ["".join(rng.choice(pieces) for _ in range(10)) for _ in range(count)]
    b.check(texts)
    b.check(texts[:50], texts[50:100])
    for text in texts[:20]:
        ids = b.rust.encode(text).ids
        for skip in (False, True):
            assert b.mine.decode(ids, skip_special_tokens=int(skip)) == b.rust.decode(ids, skip_special_tokens=skip), text


@pytest.mark.parametrize("case", list(directories()), ids=lambda d: None)
def test_directory(tmp_path, rng, case):
    path = make_dir(tmp_path, **case)
    hf = transformers.AutoTokenizer.from_pretrained(path)
    hf._tokenizer.no_truncation()
    hf._tokenizer.no_padding()
    b = Both("bpe " + repr(sorted(case.items())), path, hf=hf)
    check_one(b, rng)
    info = b.mine.info
    assert info.model == b"BPE" and info.lowercase == 0
    assert info.vocab_size == max(hf.get_vocab().values()) + 1
    assert info.model_max_length == min(hf.model_max_length, 2**31 - 1)
    assert info.special_tokens_single == hf.num_special_tokens_to_add(False)
    assert info.special_tokens_pair == hf.num_special_tokens_to_add(True)
    for name in ("unk", "pad", "cls", "sep", "mask", "bos", "eos"):
        if getattr(hf, name + "_token") is not None:
            assert getattr(info, name + "_id") == getattr(hf, name + "_token_id"), name
    ids = hf(" a . b")["input_ids"]
    assert b.mine.decode(ids) == hf.decode(ids)


def small(rng):
    """A vocabulary learnt from nothing much, maybe without all bytes, with any of the settings that are built."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if rng.random() < 0.5:
        alphabet = rng.sample(sorted(alphabet), 200)
    vocab, merges = {c: i for i, c in enumerate(alphabet)}, []
    while len(merges) < 80:
        a, b = rng.choice(list(vocab)[-60:] + list("abcdef\u0120")), rng.choice(list("abcdefo\u0120\u0120\u00c3\u00a9"))
        if a in vocab and b in vocab and len(a) < 6:
            vocab.setdefault(a + b, len(vocab))
            merges.append((a, b))
    vocab["<mask>"] = len(vocab)
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=rng.random() < 0.5, use_regex=rng.random() < 0.7)
    t.decoder = rng.choice([decoders.ByteLevel(), None])
    trim = dict(trim_offsets=rng.random() < 0.7, add_prefix_space=rng.random() < 0.5)
    mask = ("<mask>", vocab["<mask>"])
    t.post_processor = rng.choice([processors.ByteLevel(**trim), processors.RobertaProcessing(mask, mask, **trim), None,
                                   processors.TemplateProcessing("$A <mask>", "<mask> $A $B:1", special_tokens=[mask])])
    for content in rng.sample(["<mask>", "ab", "\u0120a", " a ", "\u3000", "c c", "f"], rng.randrange(4)):
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
    pieces = list("abcdefo") + [" ", "  ", "\u3000", "\n", "\u00e9", "\u4f60", "<mask>", "ab", " a ", "c c", "!", "1", "'s"]
    for draw in range(80):
        path = tmp_path / ("%d.json" % draw)
        small(rng).save(str(path))
        if draw % 2:  # the old way of writing merges
            raw = json.loads(path.read_text())
            raw["model"]["merges"] = [" ".join(m) for m in raw["model"]["merges"]]
            path.write_text(json.dumps(raw))
        b = Both("bpe small %d" % draw, path, rust=Tokenizer.from_file(str(path)))
        texts = ["".join(rng.choice(pieces) for _ in range(rng.randrange(16))) for _ in range(300)]
        texts = [t for t in texts if encodes(b.rust, t)]
        b.check(texts)
        b.check(texts[:100], texts[100:200])
        for text in texts[:50]:
            ids = b.rust.encode(text).ids
            assert b.mine.decode(ids) == b.rust.decode(ids, skip_special_tokens=False), (path, text)


@pytest.mark.parametrize("name", ["LongformerTokenizer", "BartTokenizerFast", "CodeGenTokenizer", "BertTokenizer"])
def test_other_classes_are_named(tmp_path, name):
    path = make_dir(tmp_path, tokenizer_json=JSON_ROBERTA, tokenizer_config_json={"tokenizer_class": name})
    with pytest.raises(ours.TfinferError, match="BPE" if name == "BertTokenizer" else name) as e:
        ours.Tokenizer(path)
    assert e.value.status == -5


@pytest.mark.parametrize("model,match", [
    (dict(dropout=0.1), "dropout"), (dict(byte_fallback=True, end_of_word_suffix="</w>"), "byte_fallback and end_of_word_suffix"),
    (dict(byte_fallback=True, continuing_subword_prefix="a", vocab={}, merges=[]), "continuing_subword_prefix")], ids=lambda x: None)
def test_other_settings_are_named(tmp_path, model, match):
    raw = json.loads(JSON_ROBERTA.read_text())
    raw["model"].update(model)
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ours.TfinferError, match=match) as e:
        ours.Tokenizer(tmp_path / "tokenizer.json")
    assert e.value.status == -5
