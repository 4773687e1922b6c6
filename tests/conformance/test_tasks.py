"""The text tasks against what they copy: sentence-transformers, and transformers' pipelines."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from transformers.pipelines.document_question_answering import select_starts_ends

import make
import tfi
from texts import CURIOUS, Words, copy_minilm_tokenizer, write_small_tokenizer

MARGIN = 1e-4  # choices that the reference itself holds closer than this may go either way


@pytest.fixture
def words(minilm, rng):
    return Words((minilm / "vocab.txt").read_text().split("\n"), rng)


@pytest.fixture
def made(rng, tmp_path, minilm):
    """made(cls, tokenizer=..., limit=tokens, scale=head weight, **config): a directory with model and tokenizer."""

    def build(cls, tokenizer="minilm", limit=512, scale=40.0, name="model", **settings):
        path = tmp_path / name
        path.mkdir()
        vocab = 30522 if tokenizer == "minilm" else len(write_small_tokenizer(path, limit, tokenizer == "small-uncased"))
        family = next(f for f, p in make.FAMILIES.items() if cls.startswith(p))
        cfg = make.config(family, rng, vocab=vocab, tokens=limit, **settings)
        make.save(make.build(cls, cfg, rng, heads_scale=scale), path)
        if tokenizer == "minilm":
            copy_minilm_tokenizer(minilm, path, limit)
        return path

    return build


def reference(path, cls):
    """transformers' model, in float64, and tokenizer of a directory."""
    return make.load_double(path, cls), transformers.AutoTokenizer.from_pretrained(path)


def open_session(path, **options):
    return tfi.Session(tfi.Model(path, dtype="fp32"), **options)


def refuse(call, status, *words):
    with pytest.raises(tfi.Error) as e:
        call()
    assert e.value.status == status and all(w in e.value.text for w in words), e.value


def tokens_of(tokenizer, texts, pairs=None, **more):
    enc = tokenizer(texts, pairs, **more)
    return dict(
        ids=enc["input_ids"],
        types=enc["token_type_ids"] if "token_type_ids" in enc else [[0] * len(r) for r in enc["input_ids"]],
    )


# -------------------------------------------------------------- tokenizer ----


@pytest.mark.parametrize("kind", ["minilm", "small-uncased", "small-cased"])
def test_tokenizer(kind, made, words, tally):
    path = made("BertModel", tokenizer=kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    texts = CURIOUS + words.texts(3, 30, 200)
    pairs = texts[::-1]
    with tfi.Model(path, dtype="fp32") as model:
        for given in ((texts,), (texts, pairs)):
            ours = model.tokenize(*given)
            theirs = tokenizer(*given, return_offsets_mapping=True)
            for i in range(len(texts)):
                tally.same(
                    ours[i][:3],
                    (theirs["input_ids"][i], theirs["token_type_ids"][i], theirs["offset_mapping"][i]),
                    f"{texts[i]!r}",
                )


# ------------------------------------------------------------------ embed ----


def sentence_transformer(path):
    import sentence_transformers

    return sentence_transformers.SentenceTransformer(
        str(path), device="cpu", local_files_only=True, model_kwargs=dict(dtype=torch.float32)
    )


def test_embed_minilm(minilm, words, tally, have_bf16):
    texts = CURIOUS + words.texts(1, 5, 20, 100, 190, 220, 250, 260, 400, 700)
    want = sentence_transformer(minilm).encode(texts, batch_size=4)
    inputs = tfi.Inputs(texts=texts)
    for dtype, bound in dict(fp32=1e-5, bf16=2e-2).items():
        if dtype == "bf16" and not have_bf16:
            continue
        with tfi.Model(minilm, dtype=dtype) as model, tfi.Session(model) as session:
            assert (model.info.embedding_width, model.info.embedding_tokens, model.info.max_input_tokens) == (384, 256, 512)
            got = session.embed(inputs, extra_stride=3)
            for i, text in enumerate(texts):
                tally.near(f"embed {dtype}", got[i], want[i], bound, f"{text[:40]!r}")
            one = session.embed(tfi.Inputs(texts=[texts[0]]))
            tally.near(f"{dtype} invariance", one[0], got[0], tally.invariance(dtype), "alone")
    norm = np.linalg.norm(got, axis=1)
    assert np.allclose(norm, 1, atol=1e-3)


def test_embed_ids_like_texts(minilm, words, tally):
    texts = words.texts(3, 40, 120)
    with open_session(minilm) as session:
        want = session.embed(tfi.Inputs(texts=texts))
        rows = session.model.tokenize(texts)
        got = session.embed(tfi.Inputs(ids=[r[0] for r in rows]))
        tally.near("twins", got, want, 2e-6, "embed")
        raw = session.embed(tfi.Inputs(texts=texts), normalize=0)
        assert abs(np.linalg.norm(raw[0]) - 1) > 1e-2
        tally.near("twins", raw / np.linalg.norm(raw, axis=1, keepdims=True), want, 2e-6, "normalize=0")
        short = session.embed(tfi.Inputs(texts=texts), max_tokens=16)
        rows = session.model.tokenize(texts, truncation=1, max_length=16)
        tally.near("twins", short, session.embed(tfi.Inputs(ids=[r[0] for r in rows])), 2e-6, "max_tokens")


def save_sentence_transformer(base, path, modules, **settings):
    import sentence_transformers

    transformer = sentence_transformers.models.Transformer(str(base), max_seq_length=settings.pop("max_seq_length", 48))
    model = sentence_transformers.SentenceTransformer(modules=[transformer, *modules(transformer)], device="cpu", **settings)
    model.save(str(path))
    return path


def randomised(module, rng):
    for p in module.parameters():
        p.data = torch.tensor(rng.normal(0, 0.3, p.shape), dtype=torch.float32)
    return module


def modules_of(kind, rng):
    from sentence_transformers import models

    def dense(t, **more):
        return randomised(models.Dense(in_features=64, **more), rng)

    table = {
        **{
            mode: lambda t, mode=mode: [models.Pooling(64, pooling_mode=mode)]
            for mode in ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
        },
        "all": lambda t: [
            models.Pooling(64, pooling_mode=("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"))
        ],
        "order": lambda t: [models.Pooling(64, pooling_mode=("mean", "cls", "max", "mean"))],
        "tanh": lambda t: [models.Pooling(64), dense(t, out_features=32)],
        "identity": lambda t: [
            models.Pooling(64),
            dense(t, out_features=100, activation_function=torch.nn.Identity(), bias=False),
            models.Normalize(),
        ],
        "gelu": lambda t: [models.Pooling(64), dense(t, out_features=32, activation_function=torch.nn.GELU())],
        "relu": lambda t: [models.Pooling(64), dense(t, out_features=32, activation_function=torch.nn.ReLU())],
        "residual": lambda t: [models.Pooling(64), dense(t, out_features=64, use_residual=True)],
        "residual-projected": lambda t: [models.Pooling(64), dense(t, out_features=24, use_residual=True)],
        "two-dense": lambda t: [
            models.Pooling(64, pooling_mode="cls"),
            dense(t, out_features=64),
            dense(t, out_features=20),
            models.Normalize(),
        ],
    }
    return table[kind]


KINDS = [
    "cls",
    "max",
    "mean",
    "mean_sqrt_len_tokens",
    "weightedmean",
    "lasttoken",
    "all",
    "order",
    "tanh",
    "identity",
    "gelu",
    "relu",
    "residual",
    "residual-projected",
    "two-dense",
]


@pytest.mark.parametrize("kind", KINDS)
def test_embed_modules(kind, made, words, rng, tally, tmp_path):
    path = save_sentence_transformer(made("BertModel"), tmp_path / "st", modules_of(kind, rng))
    texts = ["", "x", *words.texts(4, 20, 60, 300)]
    check_embed(path, texts, tally, kind)


def check_embed(path, texts, tally, what, theirs=None, **options):
    want = sentence_transformer(path).encode(texts, **(theirs or {}))
    with open_session(path) as session:
        got = session.embed(tfi.Inputs(texts=texts), **options)
        assert session.model.info.embedding_width == want.shape[1]
        for i in range(len(texts)):
            tally.near("embed fp32", got[i], want[i], 1e-5, f"{what} {texts[i][:40]!r}")


OLD_POOLING = dict(
    word_embedding_dimension=64,
    pooling_mode_cls_token=True,
    pooling_mode_mean_tokens=True,
    pooling_mode_max_tokens=False,
    pooling_mode_mean_sqrt_len_tokens=True,
    pooling_mode_weightedmean_tokens=False,
    pooling_mode_lasttoken=True,
)


def test_embed_old_layout(made, words, rng, tally, tmp_path):
    """Directories as sentence-transformers 2 wrote them: models.* types, pooling_mode_* booleans, pytorch_model.bin in Dense,
    and a Normalize module without a folder."""
    path = save_sentence_transformer(made("BertModel"), tmp_path / "st", modules_of("identity", rng))
    modules = json.loads((path / "modules.json").read_text())
    for m in modules:
        m["type"] = "sentence_transformers.models." + m["type"].split(".")[-1]
    (path / "modules.json").write_text(json.dumps(modules))
    pooling, dense = (path / m["path"] for m in modules[1:3])
    (pooling / "config.json").write_text(json.dumps(OLD_POOLING))
    config = json.loads((dense / "config.json").read_text())
    (dense / "config.json").write_text(
        json.dumps(config | dict(in_features=4 * 64, activation_function="torch.nn.modules.linear.Identity"))
    )
    (dense / "model.safetensors").unlink()
    torch.save(
        {"linear.weight": torch.tensor(rng.normal(0, 0.3, (100, 256)), dtype=torch.float32)}, dense / "pytorch_model.bin"
    )
    shutil.rmtree(path / modules[3]["path"], ignore_errors=True)
    check_embed(path, words.texts(3, 30, 200), tally, "old layout")


def test_embed_prompts(made, words, rng, tally, tmp_path):
    prompts = dict(query="search for: ", passage="passage: ")
    for default in (None, "query"):
        path = save_sentence_transformer(
            made("BertModel", name=f"base-{default}"),
            tmp_path / f"st-{default}",
            modules_of("mean", rng),
            prompts=prompts,
            default_prompt_name=default,
        )
        texts = words.texts(3, 30, 200)
        check_embed(path, texts, tally, "default prompt")
        check_embed(path, texts, tally, "named prompt", dict(prompt_name="passage"), prompt_name=b"passage")
        check_embed(path, texts, tally, "own prompt", dict(prompt="Ähm: "), prompt="Ähm: ".encode())
        with open_session(path) as session:
            info = session.model.info
            names = [info.prompt_names[i].decode() for i in range(info.prompts)]
            assert {n: info.prompt_texts[i].decode() for i, n in enumerate(names)}.items() >= prompts.items()
            assert (names[info.default_prompt] if info.default_prompt >= 0 else None) == default
            with pytest.raises(tfi.Error) as e:
                session.embed(tfi.Inputs(texts=texts), prompt_name=b"nothing")
            assert "nothing" in e.value.text


def test_embed_prompt_left_out_of_pooling(made, words, tally, tmp_path):
    from sentence_transformers import models

    every = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
    path = save_sentence_transformer(
        made("BertModel"),
        tmp_path / "st",
        lambda t: [models.Pooling(64, pooling_mode=every, include_prompt=False)],
        prompts=dict(query="search for: "),
    )
    texts = ["x", *words.texts(3, 30, 200)]
    check_embed(path, texts, tally, "prompt left out", dict(prompt_name="query"), prompt_name=b"query")
    check_embed(path, texts, tally, "no prompt")


def test_embed_refusals_are_named(made, words, rng, tmp_path):
    """What sentence-transformers can do and this library cannot: said by name, never computed as something else."""
    lstm = save_sentence_transformer(made("BertModel"), tmp_path / "lstm", modules_of("mean", rng))
    modules = json.loads((lstm / "modules.json").read_text())
    modules.append(dict(idx=2, name="2", path="2_LSTM", type="sentence_transformers.models.LSTM"))
    (lstm / "modules.json").write_text(json.dumps(modules))
    refuse(lambda: tfi.Model(lstm), "UNSUPPORTED", "LSTM")


def test_embed_without_modules(made, words, tally):
    """A plain transformers directory: the mean over tokens, not normalised, up to model_max_length."""
    for cls, limit in (("BertModel", 64), ("DistilBertModel", 512), ("ElectraForPreTraining", 512)):
        path = made(cls, limit=limit, name=cls)
        texts = words.texts(3, 30, 200)
        model, tokenizer = reference(path, cls)
        given = tokens_of(tokenizer, texts, truncation=True)
        want = make.run(model, **given)["hidden"][-1]
        bounds = np.cumsum([0] + [len(r) for r in given["ids"]])
        with open_session(path) as session:
            got = session.embed(tfi.Inputs(texts=texts))
        for i in range(len(texts)):
            tally.near("embed fp32", got[i], want[bounds[i] : bounds[i + 1]].mean(axis=0), 1e-5, cls)


# --------------------------------------------------------------- classify ----

PROBLEMS = [
    dict(num_labels=4),
    dict(num_labels=3, problem_type="multi_label_classification"),
    dict(num_labels=1, problem_type="regression"),
    dict(num_labels=1),
    dict(num_labels=2, problem_type="single_label_classification"),
    dict(num_labels=3, problem_type="regression"),
]


@pytest.mark.parametrize(
    "cls", ["BertForSequenceClassification", "DistilBertForSequenceClassification", "ElectraForSequenceClassification"]
)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{p['num_labels']}-{p.get('problem_type')}")
def test_classify(cls, problem, made, words, tally):
    path = made(cls, scale=8.0, **problem)  # logits of a size at which the scores' 1e-4 is more than float32's rounding
    model, tokenizer = reference(path, cls)
    pipe = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    texts, pairs = words.texts(2, 20, 60), words.texts(9, 1, 30)
    texts[0], pairs[1] = CURIOUS[0], CURIOUS[1]
    with open_session(path) as session:
        labels = session.model.labels()
        assert labels == [model.config.id2label[i] for i in range(problem["num_labels"])]
        assert session.model.info.tasks & tfi.TASK["classify"]
        for second in (None, pairs):
            given = texts if second is None else [dict(text=a, text_pair=b) for a, b in zip(texts, second)]
            for activation in (None, "none", "sigmoid", "softmax"):
                theirs = [{d["label"]: d["score"] for d in pipe(g, top_k=None, function_to_apply=activation)} for g in given]
                options = {} if activation is None else dict(activation=tfi.ACTIVATION[activation])
                logits, scores = session.classify(tfi.Inputs(texts=texts, pairs=second), **options)
                want = np.array([[t[n] for n in labels] for t in theirs])
                tally.scores(scores, want, f"{activation}")
                if activation == "none":
                    tally.scores(logits, want, "logits")
            rows = session.model.tokenize(texts, second)
            twin, _ = session.classify(
                tfi.Inputs(ids=[r[0] for r in rows], types=[r[1] for r in rows] if cls[0] != "D" else None)
            )
            tally.near("twins", twin, logits, 2e-6, "classify")


def test_classify_long_text(made, words, tally):
    path = made("BertForSequenceClassification", limit=64, scale=8.0)
    model, tokenizer = reference(path, "BertForSequenceClassification")
    texts, pairs = words.texts(200, 5, 90), words.texts(5, 200, 80)
    with open_session(path) as session:
        for second in (None, pairs):
            with pytest.raises(tfi.Error) as e:
                session.classify(tfi.Inputs(texts=texts, pairs=second))
            assert e.value.status == "INVALID" and "64" in e.value.text, e.value
            logits, _ = session.classify(tfi.Inputs(texts=texts, pairs=second), truncate=1)
            want = make.run(model, **tokens_of(tokenizer, texts, second, truncation=True))["sequence_logits"]
            tally.scores(logits, want, "truncated")


def test_next_sentence(made, words, tally):
    path = made("BertForNextSentencePrediction", scale=8.0)
    model, tokenizer = reference(path, "BertForNextSentencePrediction")
    texts, pairs = words.texts(5, 20), words.texts(20, 3)
    want = make.run(model, **tokens_of(tokenizer, texts, pairs))["sequence_logits"]
    with open_session(path) as session:
        logits, scores = session.classify(tfi.Inputs(texts=texts, pairs=pairs))
    tally.scores(logits, want, "next sentence")
    tally.scores(scores, np.exp(want) / np.exp(want).sum(axis=1, keepdims=True), "next sentence")


# --------------------------------------------------------- token classify ----

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "B-A-B"]


def too_close(model, tokenizer, text, **more):
    """Whether the reference itself holds two labels of a token, or of a word two tokens that compete for "max", or two labels
    of its "average", nearer than float32 can tell."""
    enc = tokenizer([text], **more)
    logits = make.run(model, enc["input_ids"], enc.get("token_type_ids"))["token_logits"]
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    words = {}
    for row, place in enumerate((r, w) for r in range(len(enc["input_ids"])) for w in enc.word_ids(r)):
        words.setdefault(place, []).append(scores[row])
    compared = list(np.log(scores))  # rows in which the first two must differ
    for of_word in words.values():
        compared.append(np.log(np.mean(of_word, axis=0)))
        if len(of_word) > 1:
            compared.append(np.max(of_word, axis=1) * 10)
    return any(np.diff(np.sort(row)[-2:])[0] < MARGIN for row in compared)


def compare_entities(tally, text, ours, theirs):
    """The pipeline's entities, offsets in code points; ours have bytes too, which must name the same piece of text."""
    want = [(e.get("entity_group", e.get("entity")), e["start"], e["end"]) for e in theirs]
    tally.same([(e.label.decode(), e.char_begin, e.char_end) for e in ours], want, f"entities of {text[:60]!r}")
    data = text.encode()
    for e, t in zip(ours, theirs):
        assert data[e.byte_begin : e.byte_end] == text[e.char_begin : e.char_end].encode()
        tally.require(abs(e.score - t["score"]) <= 1e-4, f"score {e.score}, expected {t['score']}")
        assert "index" not in t or (e.token_begin, e.token_end) == (t["index"], t["index"] + 1)


@pytest.mark.parametrize("strategy", tfi.AGGREGATION)
@pytest.mark.parametrize("tokenizer_kind", ["minilm", "small-cased"])
def test_token_classify(strategy, tokenizer_kind, made, words, tally):
    cls = "BertForTokenClassification"
    path = made(
        cls,
        tokenizer=tokenizer_kind,
        scale=8.0,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={n: i for i, n in enumerate(LABELS)},
    )
    model, tokenizer = reference(path, cls)
    texts = [t for t in CURIOUS if t.strip() and len(t) < 100] + words.texts(1, 8, 40, 60)
    close = [too_close(model, tokenizer, t) for t in texts]
    tally.excused += sum(close)
    texts = [t for t, c in zip(texts, close) if not c]
    with open_session(path) as session:
        assert session.model.labels() == LABELS
        for keep_all in (0, 1):
            pipe = transformers.pipeline(
                "token-classification",
                model=model,
                tokenizer=tokenizer,
                aggregation_strategy=strategy,
                ignore_labels=[] if keep_all else ["O"],
            )
            found = session.token_classify(tfi.Inputs(texts=texts), aggregation=tfi.AGGREGATION[strategy], keep_all=keep_all)
            for text, ours in zip(texts, found):
                compare_entities(tally, text, ours, pipe(text))
        if strategy == "simple":
            default = session.token_classify(tfi.Inputs(texts=texts))
            explicit = session.token_classify(tfi.Inputs(texts=texts), aggregation=1, keep_all=0)
            tally.same([[bytes(e) for e in r] for r in default], [[bytes(e) for e in r] for r in explicit], "defaults")


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
def test_token_classify_windows(strategy, made, words, tally):
    cls = "BertForTokenClassification"
    path = made(
        cls,
        limit=64,
        scale=8.0,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={n: i for i, n in enumerate(LABELS)},
    )
    model, tokenizer = reference(path, cls)
    texts = words.texts(3, 100, 150) + [CURIOUS[0] + " " + words.text(60)]
    with open_session(path) as session:
        with pytest.raises(tfi.Error) as e:
            session.token_classify(tfi.Inputs(texts=texts))
        assert e.value.status == "INVALID", e.value
        for stride in (0, 8, 20):
            pipe = transformers.pipeline(
                "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy, stride=stride
            )
            kept = [t for t in texts if not too_close_in_windows(model, tokenizer, t, stride)]
            tally.excused += len(texts) - len(kept)
            found = session.token_classify(tfi.Inputs(texts=kept), aggregation=tfi.AGGREGATION[strategy], stride=stride)
            for text, ours in zip(kept, found):
                compare_entities(tally, text, ours, pipe(text))
        pipe = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)
        found = session.token_classify(tfi.Inputs(texts=texts), aggregation=tfi.AGGREGATION[strategy], truncate=1)
        for text, ours in zip(texts, found):
            if too_close(model, tokenizer, text, truncation=True):
                tally.excused += 1
                continue
            compare_entities(tally, text, ours, pipe(text))


def too_close_in_windows(model, tokenizer, text, stride):
    return too_close(model, tokenizer, text, truncation=True, return_overflowing_tokens=True, stride=stride)


def test_token_classify_ids_like_texts(made, words, tally):
    path = made(
        "DistilBertForTokenClassification",
        num_labels=3,
        id2label={0: "O", 1: "B-X", 2: "I-X"},
        label2id={"O": 0, "B-X": 1, "I-X": 2},
    )
    texts = words.texts(8, 30)
    with open_session(path) as session:
        rows = session.model.tokenize(texts)
        of_texts = session.token_classify(tfi.Inputs(texts=texts), aggregation=0)
        of_ids = session.token_classify(tfi.Inputs(ids=[r[0] for r in rows]), aggregation=0)
        for a, b in zip(of_texts, of_ids):
            tally.same(
                [(e.label, e.token_begin, e.token_end) for e in b if 0 < e.token_begin],
                [(e.label, e.token_begin, e.token_end) for e in a],
                "twins",
            )
            assert all((e.byte_begin, e.byte_end, e.char_begin, e.char_end) == (0, 0, 0, 0) for e in b)


# ----------------------------------------------------------------- answer ----


def best_answers(model, tokenizer, question, context, top_k, most=15, window=384, stride=128, allow_none=False):
    """[(score, char_begin, char_end)], best first: reference.md's words in code. Windows of the context; the softmax runs over
    its tokens (and [CLS] where "no answer" may be one); an answer found in two windows counts once, with its best score."""
    enc = tokenizer(
        question,
        context,
        truncation="only_second",
        max_length=window,
        stride=min(stride, window // 2),
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found, null = {}, 1000000.0
    for i in range(len(enc["input_ids"])):
        given = dict(ids=[enc["input_ids"][i]], types=[enc["token_type_ids"][i]])
        logits = make.run(model, **given)["token_logits"]
        mask = np.array([[s != 1 for s in enc.sequence_ids(i)]], dtype=int)
        if allow_none:
            mask[0, 0] = 0
        starts, ends, scores, null = select_starts_ends(
            logits[None, :, 0],
            logits[None, :, 1],
            mask,
            None,
            null,
            top_k=top_k + 40,
            handle_impossible_answer=allow_none,
            max_answer_len=most,
        )
        for s, e, score in zip(starts, ends, scores):
            if s and score > 0:
                place = (enc["offset_mapping"][i][s][0], enc["offset_mapping"][i][e][1])
                found[place] = max(found.get(place, 0), float(score))
    answers = [(score, *place) for place, score in found.items()]
    if allow_none:
        answers.append((float(null), 0, 0))
    return sorted(answers, reverse=True)


def compare_answers(tally, context, ours, theirs, top_k):
    """In order of score; neighbours that the reference holds within MARGIN of each other may change places."""
    assert len(ours) == min(top_k, len(theirs))
    scores = {(begin, end): score for score, begin, end in theirs}
    for span, (score, begin, end) in zip(ours, theirs):
        place = (span.char_begin, span.char_end)
        tally.draws += 1
        if place != (begin, end) and abs(scores.get(place, 0) / score - 1) < MARGIN:
            tally.excused += 1
            continue
        tally.require(place == (begin, end), f"answer {place} ({span.score}), expected {(begin, end)} ({score})")
        tally.require(abs(span.score - score) <= max(1e-6, 1e-4 * score), f"score {span.score}, expected {score}")
        assert context.encode()[span.byte_begin : span.byte_end] == context[span.char_begin : span.char_end].encode()


@pytest.mark.parametrize("cls", ["BertForQuestionAnswering", "ElectraForQuestionAnswering"])
@pytest.mark.parametrize("allow_none", [0, 1])
def test_answer(cls, allow_none, made, words, tally):
    path = made(cls, scale=60.0)
    model, tokenizer = reference(path, cls)
    questions, contexts = words.texts(6, 3, 12, 7), [
        words.text(40),
        CURIOUS[0] + " " + words.text(20),
        words.text(500),
        words.text(150),
    ]
    with open_session(path) as session:
        inputs = tfi.Inputs(texts=questions, pairs=contexts)
        for options in (
            dict(),
            dict(top_k=5),
            dict(top_k=3, max_answer_tokens=4),
            dict(top_k=3, max_tokens=100, stride=30),
            dict(top_k=2, max_tokens=60),
        ):
            found = session.answer(inputs, allow_none=allow_none, **options)
            top_k = options.get("top_k", 1)
            for question, context, ours in zip(questions, contexts, found):
                theirs = best_answers(
                    model,
                    tokenizer,
                    question,
                    context,
                    top_k,
                    options.get("max_answer_tokens", 15),
                    options.get("max_tokens", 384),
                    options.get("stride", 128),
                    bool(allow_none),
                )
                compare_answers(tally, context, ours, theirs, top_k)


def test_no_answer_over_windows(made, words, tally):
    """Small windows and every candidate listed, so that "no answer" has its rank: its lowest score over the windows."""
    path = made("BertForQuestionAnswering", scale=8.0)
    model, tokenizer = reference(path, "BertForQuestionAnswering")
    context = words.text(18)
    with open_session(path) as session:
        inputs = tfi.Inputs(texts=["who"], pairs=[context])
        ours = session.answer(inputs, allow_none=1, top_k=400, max_tokens=16, stride=3)[0]
        theirs = best_answers(model, tokenizer, "who", context, 400, 15, 16, 3, True)
        assert (0, 0) in [(s.char_begin, s.char_end) for s in ours]
        compare_answers(tally, context, ours, theirs, 400)


def test_answer_ids_like_texts(made, words, tally):
    path = made("BertForQuestionAnswering", scale=60.0)
    questions, contexts = words.texts(4, 9), words.texts(30, 60)
    with open_session(path) as session:
        rows = session.model.tokenize(questions, contexts)
        ranges = [(r[3].index(1), len(r[3]) - 1 - r[3][::-1].index(1) + 1) for r in rows]
        a = session.answer(tfi.Inputs(texts=questions, pairs=contexts), top_k=3)
        b = session.answer(tfi.Inputs(ids=[r[0] for r in rows], types=[r[1] for r in rows]), contexts=ranges, top_k=3)
        for x, y in zip(a, b):
            tally.same([(s.token_begin, s.token_end) for s in y], [(s.token_begin, s.token_end) for s in x], "twins")
            assert all((s.byte_begin, s.byte_end, s.char_begin, s.char_end) == (0, 0, 0, 0) for s in y)
        for wrong in ([(0, 10**6)] * 2, [(5, 2)] * 2, [(-1, 4)] * 2):
            with pytest.raises(tfi.Error) as e:
                session.answer(tfi.Inputs(ids=[r[0] for r in rows]), contexts=wrong)
            assert e.value.status == "INVALID", e.value


# -------------------------------------------------------------- fill mask ----


def compare_fills(tally, ours, logits, targets, top_k, masks):
    """Records by mask; each mask's candidates as softmax over the whole vocabulary ranks them."""
    each = len(ours) // masks
    tally.same((len(ours), [f.mask for f in ours]), (masks * each, [m for m in range(masks) for _ in range(each)]), "masks")
    for mask in range(masks):
        row = ours[mask * each : (mask + 1) * each]
        logp = logits[mask] - logits[mask].max()
        logp -= np.log(np.exp(logp).sum())
        pool = np.arange(len(logp)) if targets is None else np.unique(targets)
        best = pool[np.argsort(-logp[pool], kind="stable")][:top_k]
        assert len(row) == len(best)
        for fill, want in zip(row, best):
            tally.draws += 1
            tally.require(
                abs(fill.score / np.exp(logp[fill.id]) - 1) < 1e-3,
                f"score {fill.score} of id {fill.id}, expected {np.exp(logp[fill.id])}",
            )
            if fill.id != want and abs(logp[fill.id] - logp[want]) < MARGIN:
                tally.excused += 1
                continue
            tally.require(fill.id == want, f"id {fill.id} ({logp[fill.id]}), expected {want} ({logp[want]})")


@pytest.mark.parametrize("cls", ["BertForMaskedLM", "DistilBertForMaskedLM", "ElectraForMaskedLM", "BertForPreTraining"])
def test_fill_mask(cls, made, words, tally):
    path = made(cls)
    model, tokenizer = reference(path, cls)
    texts = [words.text(5) + " [MASK] " + words.text(3), "[MASK] é [MASK] " + words.text(9), "[MASK]"]
    given = tokens_of(tokenizer, texts)
    positions = [[i for i, t in enumerate(row) if t == tokenizer.mask_token_id] for row in given["ids"]]
    flat = make.run(model, **given)["token_logits"]
    starts = np.cumsum([0] + [len(r) for r in given["ids"]])
    logits = [flat[starts[i] + np.array(p)] for i, p in enumerate(positions)]
    targets = [int(i) for i in np.random.default_rng(len(texts[0])).integers(1000, 30000, 7)]
    targets.append(targets[0])  # named twice, found once
    with open_session(path) as session:
        for options in (dict(), dict(top_k=1), dict(top_k=50), dict(targets=targets), dict(targets=targets, top_k=3)):
            chosen = options.get("targets")
            top_k = min(options.get("top_k", 5), len(set(chosen)) if chosen else 10**9)
            found = session.fill_mask(tfi.Inputs(texts=texts), **options)
            for i, ours in enumerate(found):
                compare_fills(tally, ours, logits[i], chosen, top_k, len(positions[i]))
                assert [positions[i][f.mask] for f in ours] == [f.position for f in ours]
                assert all(f.token.decode() == tokenizer.convert_ids_to_tokens(f.id) for f in ours)
        twin = session.fill_mask(tfi.Inputs(ids=given["ids"], types=given["types"] if cls[0] != "D" else None))
        tally.same(
            [[(f.id, f.mask, f.position) for f in r] for r in twin],
            [[(f.id, f.mask, f.position) for f in r] for r in session.fill_mask(tfi.Inputs(texts=texts))],
            "twins",
        )
        with pytest.raises(tfi.Error) as e:
            session.fill_mask(tfi.Inputs(texts=[texts[0], "no mask here"]))
        assert e.value.status == "INVALID", e.value
        if cls == "BertForMaskedLM":  # the pipeline itself, once: the softmax above is what it does
            pipe = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)
            ours = session.fill_mask(tfi.Inputs(texts=texts[:1]), top_k=3)[0]
            for fill, theirs in zip(ours, pipe(texts[0], top_k=3)):
                tally.require(
                    abs(fill.score - theirs["score"]) < 1e-4 and (fill.id == theirs["token"]), f"{fill.id}, expected {theirs}"
                )


# ------------------------------------------------------------------- text ----


def test_bad_text(minilm, tally):
    with open_session(minilm) as session:
        want = session.embed(tfi.Inputs(texts=["fine"]))
        for bad, offset in ((b"ab\xffcd", 2), (b"\xc3", 0), (b"ok \xed\xa0\x80", 3), (b"\xf4\x90\x80\x80", 0)):
            with pytest.raises(tfi.Error) as e:
                session.embed(tfi.Inputs(texts=[b"good", bad]))
            assert e.value.status == "INVALID" and str(offset) in e.value.text, e.value
            got = session.embed(tfi.Inputs(texts=[bad], replace_invalid=1))
            tally.near("twins", got, session.embed(tfi.Inputs(texts=[bad.decode("utf-8", "replace")])), 2e-6, repr(bad))
        with pytest.raises(tfi.Error) as e:
            session.encode(tfi.Inputs(texts=["word " * 600]), tokens=700)
        assert e.value.status == "INVALID" and "512" in e.value.text, e.value
        tally.near("twins", session.embed(tfi.Inputs(texts=["fine"])), want, 2e-6, "the next call")


def test_texts_of_other_tokenizers_are_refused_and_ids_work(rng, tally, tmp_path):
    """A class that is not built: the text tasks say so by name, ids work."""
    cfg = make.config("camembert", rng, pad=1, vocab=300)
    make.save(make.build("CamembertForSequenceClassification", cfg, rng), tmp_path)
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(
            dict(
                version="1.0",
                truncation=None,
                padding=None,
                added_tokens=[],
                normalizer=None,
                pre_tokenizer=dict(type="Metaspace", replacement="\u2581", prepend_scheme="always", split=True),
                post_processor=None,
                decoder=None,
                model=dict(type="Unigram", unk_id=0, vocab=[[chr(33 + i), -float(i)] for i in range(90)]),
            )
        )
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(dict(tokenizer_class="XLNetTokenizer")))
    ids, types = make.draw_ids(rng, cfg, [5, 30])
    want = make.run(make.load_double(tmp_path, "CamembertForSequenceClassification"), ids, types)
    with open_session(tmp_path) as session:
        for task in (session.classify, session.embed, lambda i: session.encode(i, tokens=9)):
            with pytest.raises(tfi.Error) as e:
                task(tfi.Inputs(texts=["hello"]))
            assert e.value.status == "UNSUPPORTED" and "XLNetTokenizer" in e.value.text, e.value
        logits, _ = session.classify(tfi.Inputs(ids=ids, types=types))
        tally.near("fp32", logits, want["sequence_logits"], tally.fp32, "ids")


@pytest.mark.parametrize("cls", ["RobertaForMaskedLM", "CamembertForMaskedLM", "XLMRobertaForMaskedLM"])
def test_fill_mask_without_a_tokenizer(cls, rng, tally, tmp_path):
    """Ids alone: the caller says which id is the mask."""
    family = next(f for f, p in make.FAMILIES.items() if cls.startswith(p))
    cfg = make.config(family, rng, pad=1, vocab=300)
    make.save(make.build(cls, cfg, rng), tmp_path)
    ids = [rng.integers(2, 299, n) for n in (6, 20)]
    ids[0][3] = ids[1][5] = ids[1][19] = 299
    logits = make.run(make.load_double(tmp_path, cls), ids)["token_logits"]
    with open_session(tmp_path) as session:
        found = session.fill_mask(tfi.Inputs(ids=ids), mask_id=299, top_k=4)
        compare_fills(tally, found[0], logits[[3]], None, 4, 1)
        compare_fills(tally, found[1], logits[[11, 25]], None, 4, 2)
        assert [f.position for f in found[1]] == [5] * 4 + [19] * 4 and all(f.token is None for r in found for f in r)
        with pytest.raises(tfi.Error) as e:
            session.fill_mask(tfi.Inputs(ids=ids))
        assert e.value.status == "UNSUPPORTED" and "mask_id" in e.value.text, e.value


def test_fill_many_masks(rng, tally, tmp_path):
    """More masks than one forward pass gives logits for, some sequences with many."""
    cfg = make.config("bert", rng, layers=1, vocab=5000)
    make.save(make.build("BertForMaskedLM", cfg, rng), tmp_path)
    ids = [rng.integers(5, 4000, n) for n in rng.integers(4, 60, 90)]
    for s in ids:
        s[rng.integers(0, len(s), len(s) // 3 + 1)] = 4
    ids[50] = np.full(400, 4)
    flat = make.run(make.load_double(tmp_path, "BertForMaskedLM"), ids)["token_logits"]
    starts = np.cumsum([0] + [len(s) for s in ids])
    with open_session(tmp_path) as session:
        found = session.fill_mask(tfi.Inputs(ids=ids), mask_id=4, top_k=2)
        for i, s in enumerate(ids):
            masks = np.flatnonzero(s == 4)
            compare_fills(tally, found[i], flat[starts[i] + masks], None, 2, len(masks))
            assert [f.position for f in found[i]] == [int(m) for m in masks for _ in range(2)]
        vectors = tfi.Inputs(embeddings=[np.zeros((3, 64))])  # which have no mask token
        refuse(lambda: session.fill_mask(vectors, mask_id=4), "INVALID")
