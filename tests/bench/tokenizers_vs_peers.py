#!/usr/bin/env python3
"""Tokenizers beside HF tokenizers, tiktoken and sentencepiece: MB/s on one thread, and how long opening takes.

    TFINFER_LIBRARY=build/release/src/libtfinfer.so TFINFER_TEST_DATA=FOLDER python tests/bench/tokenizers_vs_peers.py [--rounds 7]

All engines run in one process and take turns, on the same lines; the figure is the median round, in processor time, which other work on
the machine disturbs less than the clock. English is a novel with the King James Bible, Japanese a novel, mixed the Universal Declaration
of Human Rights in all languages of the folder; 3 MB of each at most. Lines whose ids differ from libtfinfer's are counted. Every engine makes
what it makes: libtfinfer and HF tokenizers (encode_batch) ids with offsets and word numbers, HF's encode_batch_fast ids with words alone,
sentencepiece and tiktoken ids."""

import argparse
import base64
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))

import ctypes as c

import sentencepiece
import tfi_tokenizer as ours
import tiktoken
import tokenizers
import transformers

DATA = Path(os.environ.get("TFINFER_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared/data")
VOCAB, TEXT = DATA / "tokenizers", DATA / "text"
LIMIT = 3_000_000


def lines_of(paths):
    lines, size = [], 0
    for path in paths:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            size += len(line.encode())
            if size > LIMIT:
                return lines
            lines.append(line)
    return lines


def texts():
    return {
        "English": lines_of([TEXT / "botchan.txt", TEXT / "kjv.txt"]),
        "Japanese": lines_of([TEXT / "wagahaiwa_nekodearu.txt"]),
        "mixed": lines_of(sorted((TEXT / "udhr").glob("*.txt"))),
    }


class Ours:
    """libtfinfer: the time of tf_tokenizer_encode alone, as a C program would take it."""

    def __init__(self, path):
        self.tokenizer = ours.Tokenizer(path)

    def prepare(self, lines):
        self.lines, self.array = lines, ours.Tokenizer.texts(lines)
        self.options = ours.set_options(ours.TokenizeOptions(), {"add_special_tokens": 0})

    def run(self):
        t = self.tokenizer
        ours.check(ours.library.tf_tokenizer_encode(t.handle, self.array, None, len(self.lines), c.byref(self.options), t.encoding))

    def ids(self):
        self.run()
        data = ours.EncodingData(struct_size=c.sizeof(ours.EncodingData))
        ours.check(ours.library.tf_encoding_get(self.tokenizer.encoding, c.byref(data)))
        return [list(data.ids[data.row_start[r] : data.row_start[r + 1]]) for r in range(data.rows)]


class Calls:
    """A peer: `encode` takes the lines, `read` makes a list of ids of one result."""

    def __init__(self, encode, read=list):
        self.encode, self.read = encode, read

    def prepare(self, lines):
        self.lines = lines

    def run(self):
        return self.encode(self.lines)

    def ids(self):
        return [self.read(row) for row in self.run()]


def plain(hf):
    """transformers' tokenizer without truncation and padding."""
    rust = hf._tokenizer
    rust.no_truncation()
    rust.no_padding()
    return rust


def rust_engines(rust):
    return {
        "HF tokenizers": Calls(lambda lines: rust.encode_batch(lines, add_special_tokens=False), lambda e: e.ids),
        "HF tokenizers, no offsets": Calls(lambda lines: rust.encode_batch_fast(lines, add_special_tokens=False), lambda e: e.ids),
    }


def gpt2_tiktoken():
    """GPT-2's own files as tiktoken wants them: ranks of byte strings."""
    byte = {}
    extra = 0
    for b in range(256):
        if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174:
            byte[chr(b)] = b
        else:
            byte[chr(256 + extra)] = b
            extra += 1
    vocab = json.loads((VOCAB / "gpt2/encoder.json").read_text())
    ranks = {bytes(byte[ch] for ch in token): i for token, i in vocab.items() if token != "<|endoftext|>"}
    pattern = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    encoding = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256})
    return Calls(lambda lines: [encoding.encode_ordinary(line) for line in lines])


def sets(work):
    """Vocabularies: title -> engines."""
    wordpiece = VOCAB / "hf-json/bert-base-uncased/tokenizer.json"
    yield "WordPiece (bert-base-uncased)", {"libtfinfer": Ours(wordpiece), **rust_engines(tokenizers.Tokenizer.from_file(str(wordpiece)))}

    gpt2 = work / "gpt2"
    gpt2.mkdir()
    for name, source in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
        (gpt2 / name).write_bytes((VOCAB / "gpt2" / source).read_bytes())
    (gpt2 / "config.json").write_text('{"model_type": "gpt2"}')
    rust = plain(transformers.AutoTokenizer.from_pretrained(gpt2))
    yield "byte-level BPE (gpt2)", {"libtfinfer": Ours(gpt2), **rust_engines(rust), "tiktoken": gpt2_tiktoken()}

    t5 = work / "t5"
    t5.mkdir()
    (t5 / "spiece.model").write_bytes((VOCAB / "t5/spiece.model").read_bytes())
    (t5 / "config.json").write_text('{"model_type": "t5"}')
    sp = sentencepiece.SentencePieceProcessor(model_file=str(t5 / "spiece.model"), num_threads=1)
    rust = plain(transformers.AutoTokenizer.from_pretrained(t5))
    yield "Unigram, T5's class (t5)", {"libtfinfer": Ours(t5), **rust_engines(rust), "sentencepiece": Calls(sp.encode)}

    for title, path in (("t5", VOCAB / "t5/spiece.model"), ("rinna", VOCAB / "rinna-japanese/google_sp.model")):
        sp = sentencepiece.SentencePieceProcessor(model_file=str(path), num_threads=1)
        yield f"Unigram, SentencePiece's rules ({title})", {"libtfinfer": Ours(path), "sentencepiece": Calls(sp.encode)}


def measure(engines, lines, rounds):
    times = {name: [] for name in engines}
    for engine in engines.values():
        engine.prepare(lines)
        engine.run()
    for _ in range(rounds):
        for name, engine in engines.items():
            begin = time.process_time()
            engine.run()
            times[name].append(time.process_time() - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def differing(engines):
    """Lines whose ids differ from libtfinfer's, by peer. SentencePiece's own rules are not those of T5's class."""
    mine = engines["libtfinfer"].ids()
    return {name: sum(a != b for a, b in zip(mine, engine.ids())) for name, engine in engines.items() if name != "libtfinfer"}


def large_json(path):
    """As large as XLM-R's: 250,002 pieces with scores, drawn with repetition out of the pieces of the vocabularies here and pairs of them."""
    pieces = {}
    models = [VOCAB / "t5/spiece.model", VOCAB / "rinna-japanese/google_sp.model", VOCAB / "bpemb-en/en.wiki.bpe.vs100000.model"]
    for model in models:
        sp = sentencepiece.SentencePieceProcessor(model_file=str(model))
        for i in range(sp.get_piece_size()):
            pieces.setdefault(sp.id_to_piece(i), None)
    single = [p for p in pieces if 1 < len(p) < 6 and "<" not in p]
    step = 0
    while len(pieces) < 250_002:
        a, b = single[step % len(single)], single[(step * 7919 + step // len(single) + 13) % len(single)]
        pieces.setdefault(a + b.lstrip("\u2581"), None)
        step += 1
    base = json.loads((VOCAB / "hf-json/t5-small/tokenizer.json").read_text())
    vocab = [["<unk>", 0.0]] + [[p, -5.0 - i / 15000.0 - (i * 2654435761 % 1000003) * 1e-9] for i, p in enumerate(list(pieces)[:250_002]) if p != "<unk>"]
    base["model"]["vocab"], base["model"]["unk_id"] = vocab, 0
    base["added_tokens"], base["post_processor"] = [], None
    path.write_text(json.dumps(base, ensure_ascii=False, indent=2))
    return path.stat().st_size


def opening(work, rounds):
    path = work / "tokenizer.json"
    size = large_json(path)
    times = {"libtfinfer": [], "HF tokenizers": []}
    for _ in range(rounds):
        begin = time.process_time()
        ours.Tokenizer(path)
        times["libtfinfer"].append(time.process_time() - begin)
        begin = time.process_time()
        tokenizers.Tokenizer.from_file(str(path))
        times["HF tokenizers"].append(time.process_time() - begin)
    return size, {name: statistics.median(t) for name, t in times.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="sets whose title holds this")
    parser.add_argument("--beside", default="", help="peers whose name holds this, without the others in between")
    options = parser.parse_args()
    lines_by_name = texts()
    with tempfile.TemporaryDirectory() as folder:
        for title, engines in sets(Path(folder)):
            if options.only not in title:
                continue
            engines = {e: engine for e, engine in engines.items() if e == "libtfinfer" or options.beside in e}
            print(f"\n{title}\n")
            print("| MB/s | " + " | ".join(engines) + " | lines whose ids differ |")
            print("|---" * (len(engines) + 2) + "|")
            for name, lines in lines_by_name.items():
                size = sum(len(line.encode()) for line in lines) / 1e6
                medians = measure(engines, lines, options.rounds)
                mine = medians["libtfinfer"]
                cells = [f"{size / t:.1f}" + ("" if e == "libtfinfer" else f" ({t / mine:.1f}x)") for e, t in medians.items()]
                different = ", ".join(f"{n} of {len(lines)} ({e})" for e, n in differing(engines).items() if n) or "0"
                print(f"| {name} | " + " | ".join(cells) + f" | {different} |", flush=True)
        if options.only in "opening":
            size, medians = opening(Path(folder), options.rounds)
            print(f"\nOpening a tokenizer.json of {size / 1e6:.1f} MB, 250,002 pieces: " + ", ".join(f"{e} {t * 1e3:.0f} ms" for e, t in medians.items()))


if __name__ == "__main__":
    main()
