"""The tfinfer program: every command as a table and as JSON, help, exit codes, sources and kinds of text, errors."""

import json
import os
import pty
import re
import subprocess
import unicodedata

import numpy as np
import pytest
import torch
import transformers

import make
from conftest import SEED

PROGRAM = os.environ.get("TFINFER_CLI")
pytestmark = pytest.mark.skipif(not PROGRAM, reason="TFINFER_CLI does not name the program")

COMMANDS = "info plan graph tokenize embed similar classify ner answer fill-mask generate bench".split()
WORDS = "the a cat dog sat on mat paris london ada met charles in of is was and to not house river 日 本 語".split()
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
CONTEXT = "ada met charles in london . the cat sat on the mat and the dog was not in the house of charles ."


def run(*arguments, stdin=b"", code=0, text=True, env=None):
    """Run the program; its standard output, and standard error where it must fail."""
    done = subprocess.run([PROGRAM, *map(str, arguments)], input=stdin.encode() if isinstance(stdin, str) else stdin,
                          capture_output=True, timeout=120, env=env)
    assert done.returncode == code, f"{arguments}: exit {done.returncode}, expected {code}: {done.stderr.decode()}"
    if code == 0:
        assert done.stderr == b"", f"{arguments}: {done.stderr.decode()}"
    out = done.stdout if code == 0 else done.stderr
    return out.decode() if text else out


def lines(*arguments, **more):
    """What --json printed: one object a line."""
    return [json.loads(line) for line in run(arguments[0], "--json", *arguments[1:], **more).splitlines()]


def write_tokenizer(path):
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *letters[1:], *["##" + c for c in letters], "##ing",
             ".", ",", "!", "?"]
    (path / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps(
        {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64}))
    return len(vocab)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A directory a head: random weights, one small vocabulary."""
    print(f"models from seed {SEED}")
    rng, found = np.random.default_rng(SEED), {}
    for head, more in dict(Model={}, ForMaskedLM={}, ForQuestionAnswering={},
                           ForSequenceClassification=dict(id2label={0: "bad", 1: "so-so", 2: 'go"od'}),
                           ForTokenClassification=dict(id2label=dict(enumerate(LABELS)))).items():
        path = tmp_path_factory.mktemp(head)
        vocab = write_tokenizer(path)
        cfg = make.config("bert", rng, vocab=vocab, tokens=64, range=0.1, **more)
        # Probabilities of labels stay below 1 in fp32: which is the greatest of a word's decides.
        make.save(make.build("Bert" + head, cfg, rng, heads_scale=8.0 if head == "ForTokenClassification" else 20.0), path)
        found[head] = path
    return found


def reference(path, cls):
    return make.load_double(path, cls), transformers.AutoTokenizer.from_pretrained(path)


def near(got, want, bound=1e-4):
    np.testing.assert_allclose(got, want, atol=bound, rtol=bound)


# ---------------------------------------------------------------- help, usage ----

def test_help_lists_every_command():
    assert re.findall(r"^  (\S+) ", run("help"), re.M) == COMMANDS
    assert run("--help") == run("help") == run("-h")
    assert "Exit codes" in run("help")
    assert run("--version").startswith("tfinfer 0.")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command(command):
    page = run(command, "--help")
    assert page == run("help", command) == run(command, "-h")
    assert page.startswith(f"tfinfer {command}: ") and f"\n  tfinfer {command} " in page and "Exit codes" in page
    assert "--model DIR" in page and "--json" in page and all(len(line) <= 120 for line in page.splitlines())


@pytest.mark.parametrize("arguments, said", [
    ([], "Usage"), (["bogus"], "no command 'bogus'"), (["help", "bogus"], "no command"), (["info"], "no model directory"),
    (["info", "D", "x"], "unexpected argument 'x'"), (["embed", "D", "--bogus"], "no option --bogus"),
    (["embed", "D", "-x"], "-x"),
    (["embed", "D", "--threads"], "needs a value"), (["embed", "D", "--threads", "0"], "[1, 1024]"),
    (["embed", "D", "--threads", "2x"], "'2x'"), (["embed", "D", "--threads", "99999999999999999999"], "--threads"),
    (["embed", "D", "--dtype=fp8"], "fp8"), (["embed", "D", "--json=1"], "takes no value"),
    (["tokenize", "D", "--dtype", "fp32"], "--dtype"), (["classify", "D", "--pair", "a", "b", "c"], "even number"),
    (["similar", "D"], "no query"), (["answer", "D"], "no question"),
    (["answer", "D", "q", "--context", "c", "--file", "f"], "not both"), (["embed", "D", "text", "--file", "f"], "not both"),
    (["bench", "D", "--lengths", "1,x"], "--lengths"), (["bench", "D", "--lengths", "0"], "--lengths"),
])
def test_usage_errors(arguments, said):
    assert said in run(*arguments, code=2)


def test_refused_and_unreadable(models, tmp_path):
    base = models["Model"]
    missing = tmp_path / "nothing here"
    for command in COMMANDS:
        given = [] if command in ("info", "plan", "graph", "bench") else ["x"]
        given += ["--context", "c"] if command == "answer" else []
        error = run(command, missing, *given, stdin="x\n", code=1)
        assert error.startswith(f"tfinfer: {command}: ") and "nothing here" in error and error.count("\n") == 1
    assert "cannot open" in run("embed", base, "--file", missing, code=3)
    assert "cannot read" in run("embed", base, "--file", tmp_path, code=3)
    for command, head in [("classify", "Model"), ("ner", "Model"), ("fill-mask", "Model"), ("classify", "ForMaskedLM")]:
        run(command, models[head], "the [MASK]", code=1)
    run("answer", base, "who", "--context", "the cat", code=1)
    assert "64" in run("ner", models["ForTokenClassification"], "cat " * 100, code=1)
    assert "fp16" in run("embed", base, "x", "--dtype", "fp16", code=1)
    run("embed", base, "x", "--prompt-name", "nope", code=1)
    assert "tab" in run("classify", "--pair", models["ForSequenceClassification"], stdin="no tab\n", code=1)
    assert run("embed", base, "--model", base, code=0)  # with --model every plain argument is a text


def test_output_that_cannot_be_written(models):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([PROGRAM, "embed", models["Model"], "x"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3 and b"standard output" in done.stderr


def test_broken_pipe_is_quiet(models, tmp_path):
    (tmp_path / "texts").write_text("cat\n" * 20000)
    command = f"'{PROGRAM}' embed '{models['Model']}' --json --file '{tmp_path}/texts' | head -1"
    # Python ignores SIGPIPE; here its child inherits that.
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, restore_signals=False)
    assert done.stderr == b"" and done.stdout.count(b"\n") == 1


# --------------------------------------------------------- info, plan, graph ----

def test_info(models):
    (info,) = lines("info", models["ForTokenClassification"])
    model = make.load(models["ForTokenClassification"], "BertForTokenClassification")
    assert (info["architecture"], info["labels"]) == ("BertForTokenClassification", LABELS) and "ner" in info["tasks"]
    assert info["parameters"] == sum(p.numel() for p in model.parameters())
    assert (info["layers"], info["width"], info["max_input_tokens"]) == (2, 64, 64)
    assert info["tokenizer"]["mask_token"] == "[MASK]" and info["tokenizer"]["vocab_size"] == info["vocab_size"]
    table = run("info", models["ForTokenClassification"], "--threads", 1)
    assert re.search(r"^architecture +BertForTokenClassification$", table, re.M)
    assert "1 thread\n" in table and "B-PER, I-PER" in table
    assert lines("info", models["Model"], "--dtype", "fp32")[0]["dtype"] == "fp32"


def test_plan(models):
    (plan,) = lines("plan", models["Model"])
    assert plan["total_bytes"] == sum(plan[k + "_bytes"] for k in ["weight", "mapped", "model", "session"])
    assert plan["weight_bytes"] > 0
    assert lines("plan", models["Model"], "--max-step-tokens", 8192)[0]["session_bytes"] > plan["session_bytes"]
    assert re.search(rf"^weights +{plan['weight_bytes']} ", run("plan", models["Model"]), re.M)


def test_graph(models):
    text, dot = run("graph", models["Model"]), run("graph", models["Model"], "--dot")
    assert text.count("\n") > 5 and dot.startswith("digraph") and dot.rstrip().endswith("}")
    assert lines("graph", models["Model"], "--dot")[0]["graph"].strip() == dot.strip()


# ------------------------------------------------------------------ tokenize ----

def test_tokenize(models):
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["Model"])
    texts = ["the cats sat, twice!", "日本語 cat\u0301", "", 'a "quoted\\" tab']
    for text, got in zip(texts, lines("tokenize", models["Model"], *texts), strict=True):
        want = tokenizer(text, return_offsets_mapping=True)
        assert got["text"] == text and got["ids"] == want["input_ids"] and got["tokens"] == want.tokens()
        assert [tuple(o) for o in got["characters"]] == want["offset_mapping"]
        for (a, b), (c, d), sequence in zip(got["bytes"], got["characters"], got["sequence"]):
            assert sequence < 0 or text.encode()[a:b].decode() == text[c:d]
    (pair,) = lines("tokenize", models["Model"], "--pair", "the cat", "a dog sat")
    want = tokenizer("the cat", "a dog sat")
    assert (pair["ids"], pair["type_ids"], pair["pair"]) == (want["input_ids"], want["token_type_ids"], "a dog sat")
    assert lines("tokenize", models["Model"], "the cat", "--no-special")[0]["tokens"] == ["the", "cat"]
    assert len(lines("tokenize", models["Model"], "the cat sat", "--max-length", 4)[0]["ids"]) == 4
    windows = lines("tokenize", models["Model"], "the cat sat on the mat", "--max-length", 5, "--stride", 1)
    assert len(windows) == 3 and windows[1]["tokens"] == ["[CLS]", "sat", "on", "the", "[SEP]"] and windows[2]["index"] == 0
    table = run("tokenize", models["Model"], "the cats")
    assert re.search(r"^##s +\d+ +0 +1 +7-8 +7-8 +s$", table, re.M) and "5 tokens" in table


def test_tokenize_decode(models):
    tokenizer = transformers.AutoTokenizer.from_pretrained(models["Model"])
    ids = tokenizer("the cats sat")["input_ids"]
    assert run("tokenize", "--decode", models["Model"], *ids) == tokenizer.decode(ids) + "\n"
    assert run("tokenize", "--decode", "--skip-special", models["Model"], stdin=",".join(map(str, ids))) == "the cats sat\n"
    assert lines("tokenize", "--decode", models["Model"], *ids)[0]["ids"] == ids
    assert "1x" in run("tokenize", "--decode", models["Model"], "1x", code=1)
    run("tokenize", "--decode", models["Model"], "1000000", code=1)


# -------------------------------------------------------------- texts, JSON ----

def test_texts_from_everywhere(models, tmp_path):
    texts, base = ["the cat", "", "日本語 and a dog"], models["Model"]
    want = lines("embed", base, *texts)
    assert [w["text"] for w in want] == texts and [w["index"] for w in want] == [0, 1, 2]
    file = tmp_path / "texts"
    for content in ["the cat\n\n日本語 and a dog\n", "the cat\n\n日本語 and a dog", "the cat\r\n\r\n日本語 and a dog\r\n",
                    "\ufeffthe cat\n\n日本語 and a dog"]:
        file.write_bytes(content.encode())
        for got in (lines("embed", base, "--file", file), lines("embed", base, stdin=content),
                    lines("embed", base, "-", stdin=content), lines("embed", "--file=-", "--model", base, stdin=content)):
            assert [g["text"] for g in got] == texts
            for g, w in zip(got, want):
                near(g["embedding"], w["embedding"], 1e-5)
    assert lines("embed", base, "--", "-dash")[0]["text"] == "-dash"
    for command in ("embed", "tokenize"):
        assert run(command, base, stdin="") == run(command, base, "--json", stdin="") == ""
    assert run("classify", models["ForSequenceClassification"], stdin="") == ""


def test_text_of_any_kind(models):
    base = models["Model"]
    odd = 'quote " back \\ tab \t bell \x07 del \x7f nul' + " 語 \U0001f600 next \x85 line \u2028 e\u0301"
    assert lines("embed", base, stdin=odd + "\n")[0]["text"] == odd
    assert lines("embed", base, stdin=b"a\0b\n")[0]["text"] == "a\0b"
    assert "UTF-8" in run("embed", base, stdin=b"fine\nbad \xff\n", code=1)
    got = lines("embed", base, "--replace-invalid", stdin=b"bad \xff \xed\xa0\x80 \xf4\x90\x80\x80\n")[0]["text"]
    assert got.startswith("bad \ufffd ") and set(got[4:]) == {"\ufffd", " "}
    table = run("embed", base, stdin="\x1b[31mred\n")
    assert "\x1b" not in table and "\ufffd[31mred" in table
    long = "cat " * 500_000
    (got,) = lines("embed", base, stdin=long)
    assert got["text"] == long and len(got["embedding"]) == 64
    assert max(map(len, run("embed", base, stdin=long).splitlines())) < 130


def columns_of(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in text)


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_tables_are_aligned(models, locale):
    table = run("tokenize", models["Model"], "日本語 cat", env={**os.environ, "LC_ALL": locale}).splitlines()
    at = [columns_of(line[:re.search(r"\d+-\d+", line).end()]) for line in table if re.search(r"\d+-\d+", line)]
    assert len(at) == 4 and len(set(at)) == 1, table
    assert not any(line.endswith(" ") for line in table)


def test_many_texts_in_parts(models):
    texts = [WORDS[i % len(WORDS)] + " " + str(i) for i in range(2500)]
    got = lines("embed", models["Model"], stdin="\n".join(texts))
    assert [g["text"] for g in got] == texts and [g["index"] for g in got] == list(range(2500))
    near(got[2100]["embedding"], lines("embed", models["Model"], texts[2100])[0]["embedding"], 1e-5)
    bad = b"\n".join(t.encode() for t in texts) + b"\n\xff\n"
    assert "from number 2048 on" in run("embed", models["Model"], stdin=bad, code=1)


def test_progress_bar_on_a_terminal_only(models, tmp_path):
    file = tmp_path / "texts"
    file.write_text("the cat sat on the mat and the dog was not in the house of charles\n" * 30000)
    master, slave = pty.openpty()
    running = subprocess.Popen([PROGRAM, "embed", models["Model"], "--file", file, "--threads", "1"],
                               stdout=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    seen = b""
    try:
        while part := os.read(master, 4096):
            seen += part
    except OSError:  # the terminal's other end is closed
        pass
    assert running.wait() == 0
    os.close(master)
    assert b"embed [" in seen and b" % " in seen and seen.endswith(b"\r\x1b[K")
    run("embed", models["Model"], "--file", file, "--threads", 1)  # no terminal: nothing on standard error


# ---------------------------------------------------------- embed and similar ----

def test_embed_minilm(minilm):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = ["A cat sat on the mat.", "Rates rose again.", "日本語のテキスト"]
    want = sentence_transformers.SentenceTransformer(str(minilm), device="cpu").encode(texts)
    near([g["embedding"] for g in lines("embed", minilm, *texts, "--dtype", "fp32")], want, 1e-5)
    table = run("embed", minilm, *texts)
    assert "384 values a text" in table and re.search(r"^ +0 +1\.0000 .* A cat sat on the mat\.$", table, re.M)
    short = lines("embed", minilm, texts[0], "--max-tokens", 4, "--normalize", "no")[0]["embedding"]
    assert abs(np.linalg.norm(short) - 1) > 1e-3


def test_embed_prompt(models):
    a = lines("embed", models["Model"], "cat", "--prompt", "the ")[0]["embedding"]
    near(a, lines("embed", models["Model"], "the cat")[0]["embedding"], 1e-5)


def test_similar_minilm(minilm, tmp_path):
    texts = ["The stock market fell.", "", "A kitten sleeps on the sofa.", "   ", "Cats chase mice.",
             "Bread is baked from flour."]
    file = tmp_path / "lines"
    file.write_text("\n".join(texts))
    queries = ["a sleeping cat", "baking"]
    vectors = {t: np.array(v["embedding"]) for t, v in zip(texts + queries, lines("embed", minilm, *texts, *queries))}
    for got, query in zip(lines("similar", minilm, *queries, "--file", file, "--top-k", 3), queries, strict=True):
        want = sorted((-vectors[query] @ vectors[t], n + 1) for n, t in enumerate(texts) if t.strip())[:3]
        assert got["query"] == query and [r["line"] for r in got["results"]] == [n for _, n in want]
        assert all(texts[r["line"] - 1] == r["text"] for r in got["results"])
        near([r["score"] for r in got["results"]], [-score for score, _ in want])
    table = run("similar", minilm, queries[0], stdin=file.read_bytes()).splitlines()
    assert table[0] == "query: a sleeping cat" and "A kitten sleeps on the sofa." in table[2] and len(table) == 7
    assert lines("similar", minilm, "q", stdin="")[0]["results"] == []


# ------------------------------------------------------------------ classify ----

def test_classify(models):
    path = models["ForSequenceClassification"]
    model, tokenizer = reference(path, "BertForSequenceClassification")
    texts = ["the cat sat", "a dog in london", ""]
    for text, got in zip(texts, lines("classify", path, *texts, "--dtype", "fp32"), strict=True):
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt")).logits[0]
        by_id = sorted(got["labels"], key=lambda label: label["id"])
        near([label["logit"] for label in by_id], logits.numpy())
        near([label["score"] for label in by_id], logits.softmax(-1).numpy())
        assert [label["label"] for label in by_id] == ["bad", "so-so", 'go"od']
        assert [label["score"] for label in got["labels"]] == sorted((label["score"] for label in by_id), reverse=True)
    with torch.no_grad():
        logits = model(**tokenizer("the cat", "a dog", return_tensors="pt")).logits[0]
    from_line = lines("classify", path, "--pair", stdin="the cat\ta dog\n")[0]
    for got in (from_line, lines("classify", path, "--pair", "the cat", "a dog")[0]):
        assert (got["text"], got["pair"]) == ("the cat", "a dog")
        near(got["labels"][0]["logit"], logits.max().item(), 1e-4)
    none = lines("classify", path, "the cat", "--activation", "none", "--top-k", 1)[0]["labels"]
    assert len(none) == 1 and none[0]["score"] == none[0]["logit"]
    table = run("classify", path, *texts).splitlines()
    assert len(table) == 10 and table[1].endswith("the cat sat") and not table[2].startswith("   1")
    run("classify", path, "cat " * 100, code=1)
    assert len(lines("classify", path, "cat " * 100, "--truncate")) == 1


# ----------------------------------------------------------------------- ner ----

@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
def test_ner(models, strategy):
    path, text = models["ForTokenClassification"], "Ada met charles,  in london! 日本 housing"
    model, tokenizer = reference(path, "BertForTokenClassification")
    want = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy=strategy)(text)
    (got,) = lines("ner", path, text, "--aggregation", strategy, "--dtype", "fp32")
    assert [(e["label"], *e["characters"]) for e in got["entities"]] == [
        (w.get("entity_group", w.get("entity")), w["start"], w["end"]) for w in want]
    near([e["score"] for e in got["entities"]], [float(w["score"]) for w in want])
    for e in got["entities"]:
        assert e["text"] == text[slice(*e["characters"])] == text.encode()[slice(*e["bytes"])].decode()


def test_ner_table_and_windows(models):
    path = models["ForTokenClassification"]
    entities = lines("ner", path, CONTEXT, "--keep-all")[0]["entities"]
    table = run("ner", path, CONTEXT, "--keep-all").splitlines()
    assert len(table) == len(entities) + 1
    assert all(f"[{e['text']}]" in row for e, row in zip(entities, table[1:]) if len(e["text"]) < 40)
    long = " ".join([CONTEXT] * 5)
    run("ner", path, long, code=1)
    for more in (["--stride", "8"], ["--truncate"]):
        for e in lines("ner", path, long, *more)[0]["entities"]:
            assert e["text"] == long[slice(*e["characters"])]
    assert lines("ner", path, "")[0]["entities"] == [] and run("ner", path, stdin="\n") == "no entities\n"


# -------------------------------------------------------------------- answer ----

def best_spans(path, question, context, count, longest=15):
    """Start and end softmaxed over the context's tokens; the best spans as (score, begin, end) in characters."""
    model, tokenizer = reference(path, "BertForQuestionAnswering")
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    inside = [i for i, s in enumerate(encoded.sequence_ids(0)) if s == 1]
    with torch.no_grad():
        out = model(**encoded)
    start, end = out.start_logits[0, inside].softmax(-1), out.end_logits[0, inside].softmax(-1)
    spans = [((start[i] * end[j]).item(), offsets[inside[i]][0], offsets[inside[j]][1])
             for i in range(len(inside)) for j in range(i, min(i + longest, len(inside)))]
    return sorted(spans, reverse=True)[:count]


def test_answer(models, tmp_path):
    path, question = models["ForQuestionAnswering"], "who met ada"
    file = tmp_path / "context"
    file.write_text(CONTEXT)
    want = best_spans(path, question, CONTEXT, 1)[0]
    ways = [["--question", question, "--context", CONTEXT], [question, "--file", file]]
    for way in ways:
        (got,) = lines("answer", path, *way, "--dtype", "fp32")
        (best,) = got["answers"]
        assert got["question"] == question and best["text"] == CONTEXT[slice(*best["characters"])]
        near(best["score"], want[0])
        assert tuple(best["characters"]) == want[1:]
    (got,) = lines("answer", path, question, "--top-k", 3, stdin=CONTEXT)
    scores = [a["score"] for a in got["answers"]]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    several = lines("answer", path, "who", "what", "--question", "first", "--context", CONTEXT)
    assert [g["question"] for g in several] == ["first", "who", "what"]
    short = lines("answer", path, question, "--context", CONTEXT, "--max-answer-tokens", 1)[0]["answers"][0]["text"]
    assert " " not in short
    long = " ".join(f"{w} {CONTEXT}" for w in WORDS)
    got = lines("answer", path, question, "--context", long, "--max-tokens", 40, "--stride", 10)[0]["answers"][0]
    assert got["text"] == long[slice(*got["characters"])]
    run("answer", path, question, "--context", long, "--max-tokens", 4, code=1)  # no room beside the question
    run("answer", path, question, "--context", long, "--stride", 1000, code=1)
    table = run("answer", path, question, "--context", CONTEXT).splitlines()
    assert table[0] == f"question: {question}" and CONTEXT[want[1]:want[2]][:20] in table[2] and "[" in table[2]


# ----------------------------------------------------------------- fill-mask ----

def test_fill_mask(models):
    path, text = models["ForMaskedLM"], "The  cat [MASK] on the mat."
    model, tokenizer = reference(path, "BertForMaskedLM")
    pipe = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)
    (got,) = lines("fill-mask", path, text, "--top-k", 7, "--dtype", "fp32")
    want = pipe(text, top_k=7)
    assert [c["id"] for c in got["candidates"]] == [w["token"] for w in want]
    near([c["score"] for c in got["candidates"]], [w["score"] for w in want], 1e-5)
    for c in got["candidates"]:
        assert c["token"] == tokenizer.convert_ids_to_tokens(c["id"]) and c["mask"] == 0
        joined = c["token"].startswith("##") and len(c["token"]) > 2
        assert c["filled"] == (f"The  cat{c['token'][2:]} on the mat." if joined else f"The  cat {c['token']} on the mat.")
    (two,) = lines("fill-mask", path, "the [MASK] and [MASK]", "--targets", "cat,dog,##ing")
    assert {(c["mask"], c["token"]) for c in two["candidates"]} == {(m, t) for m in (0, 1) for t in ("cat", "dog", "##ing")}
    assert {c["filled"] for c in two["candidates"] if c["mask"] == 1} == {
        "the [MASK] and cat", "the [MASK] and dog", "the [MASK] anding"}
    assert "giraffe" in run("fill-mask", path, text, "--targets", "cat,giraffe", code=1)
    run("fill-mask", path, "no mask", code=1)
    table = run("fill-mask", path, text).splitlines()
    assert len(table) == 8 and table[2].endswith(got["candidates"][0]["filled"])


# --------------------------------------------------------------------- bench ----

def test_bench(models):
    path = models["Model"]
    (got,) = lines("bench", path, "--lengths", "5,64,7", "--runs", 3, "--warm-up", 0, "--threads", 1, "--dtype", "fp32")
    assert (got["sequences"], got["tokens"], got["threads"], got["runs"], got["dtype"]) == (3, 76, 1, 3, "fp32")
    assert 0 < got["min_ms"] <= got["median_ms"] and abs(got["tokens_per_s"] * got["median_ms"] / 76e3 - 1) < 1e-3
    assert lines("bench", path, "--lengths", "5,6", "--batch", 3, "--runs", 1)[0]["tokens"] == 16
    table = run("bench", path, "--batch", 2, "--length", 9, "--runs", 2).splitlines()
    assert len(table) == 2 and table[1].split()[2:5] == ["2", "18", "2"]
    assert "65" in run("bench", path, "--length", 65, code=1)
