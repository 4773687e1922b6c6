"""Models of transformers and sentence-transformers on the CPU: accelerate() beside the PyTorch model it stands for, in one process.

    TFINFER_LIBRARY=build/release/src/libtfinfer.so PYTHONPATH=bindings/python/src python tests/bench/drop_in_vs_torch.py [--rounds 5]
        [--threads 2] [--minilm DIRECTORY] [--processor-time]

Random weights, float32 on both sides, transformers' own attention (sdpa); BERT-base with 45 labels, GPT-2 124M and T5-base v1.1 with a
vocabulary of 32000. The same call on both, in turns; a figure is the median of the rounds. What comes out is compared first. "padded":
eight texts of 16 to 128 tokens in one batch, which PyTorch computes with their padding. --minilm: a sentence-transformers directory for encode().
--processor-time, for a machine that others use too: one thread each, and the time that it computes. The answer is Markdown.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
from tfinfer.integrations.transformers import accelerate

TEXTS = ["The harbour lay quiet in the morning light and nobody had come to meet the boat yet."] * 3 + ["Who?", "A cat sat on the mat."]


def bert():
    return transformers.BertForTokenClassification(transformers.BertConfig(num_labels=45))


def gpt2():
    return transformers.GPT2LMHeadModel(transformers.GPT2Config())


def t5():
    config = dict(d_model=768, d_kv=64, d_ff=2048, num_layers=12, num_heads=12, feed_forward_proj="gated-gelu")
    return transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=32000, tie_word_embeddings=False, decoder_start_token_id=0, **config)
    )


def batch(rows, columns, lengths=None):
    lengths = torch.tensor(lengths or [columns] * rows)
    mask = (torch.arange(columns)[None] < lengths[:, None]).long()
    ids = torch.randint(1000, 30000, (rows, columns))
    return dict(input_ids=ids * mask, attention_mask=mask)


def generate(rows, **more):
    given = dict(batch(rows, 40), do_sample=False, max_new_tokens=40, min_new_tokens=40, **more)
    return lambda model: model.generate(**given), None


def call(**given):
    return lambda model: model(**given).logits, given["attention_mask"].bool()


CASES = [
    ("BERT-base, 45 labels, 1x16", bert, lambda: call(**batch(1, 16))),
    ("1x128", bert, lambda: call(**batch(1, 128))),
    ("8x128", bert, lambda: call(**batch(8, 128))),
    ("8 padded to 128", bert, lambda: call(**batch(8, 128, [16, 24, 32, 48, 64, 80, 96, 128]))),
    ("GPT-2 124M, 40 + 40, batch 1", gpt2, lambda: generate(1)),
    ("batch 8", gpt2, lambda: generate(8)),
    ("T5-base v1.1, 40 + 40, batch 1", t5, lambda: generate(1)),
    ("batch 8", t5, lambda: generate(8)),
    ("4 beams", t5, lambda: generate(1, num_beams=4)),
]


def seconds(run, model, clock):
    start = clock()
    run(model)
    return clock() - start


def compare(run, mask, models, rounds, clock):
    """Median seconds of each, once what they give is the same, but for padding."""
    got, want = (run(model) if mask is None else run(model)[mask] for model in models)
    if want.is_floating_point():
        assert (got - want).norm() <= 1e-5 * want.norm()
    else:
        assert torch.equal(got, want)
    times = [[seconds(run, model, clock) for model in models] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times)]


def row(name, ours, torchs):
    print(f"| {name} | {1e3 * torchs:.1f} | {1e3 * ours:.1f} | {torchs / ours:.2f} |", flush=True)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--minilm")
    arguments.add_argument("--processor-time", action="store_true")
    given = arguments.parse_args()
    clock = time.process_time if given.processor_time else time.perf_counter
    given.threads = 1 if given.processor_time else given.threads
    torch.set_num_threads(given.threads)
    torch.manual_seed(1)
    transformers.utils.logging.set_verbosity_error()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {given.threads} threads, load {os.getloadavg()[0]:.1f}\n")
    print("| | PyTorch, ms | accelerated, ms | times as fast |\n|---|---|---|---|")
    model = accelerated = built = None
    with torch.no_grad():
        for name, build, case in CASES:
            if built is not build:
                model, built = build().eval(), build
                opening = clock()
                accelerated = accelerate(model, fallback="raise", threads=given.threads, borrow=True)
                opening = clock() - opening
                print(f"| accelerate() of {name.split(',')[0]} | | {1e3 * opening:.0f} | |")
            row(name, *compare(*case(), (accelerated, model), given.rounds, clock))
    if given.minilm:
        from sentence_transformers import SentenceTransformer
        from tfinfer.integrations.sentence_transformers import accelerate as accelerate_sentences

        model = SentenceTransformer(given.minilm, device="cpu")
        accelerated = accelerate_sentences(model, fallback="raise", threads=given.threads)
        for name, texts in (("MiniLM encode, 1 text", TEXTS[0]), ("64 texts", (TEXTS * 13)[:64])):
            row(name, *compare(lambda m, texts=texts: torch.from_numpy(m.encode(texts)), None, (accelerated, model), given.rounds, clock))
    print(f"\nload at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
