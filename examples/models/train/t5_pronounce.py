"""Trains t5-pronounce: letters of an English word in, ARPAbet phonemes out, from the CMU Pronouncing Dictionary.

    python t5_pronounce.py --data DIR --out DIR        DIR/cmudict/cmudict.dict is the dictionary

Held out by the word: SHA-256's first byte below 13 (5.1 % of the words, with all their pronunciations) is the final score;
13 to 15 (1.2 %) is watched while training."""

import collections
import hashlib

import torch
import torch.nn.functional as F
from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration, T5Tokenizer

import common

LONGEST = 24  # letters, or phonemes, with the end mark, of what is trained on; the few longer entries are left out
PAD, EOS = 0, 1


def dictionary(path):
    """{word: [its pronunciations, each a list of phonemes]}; "word(2)" is another pronunciation of "word"."""
    words = collections.defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phonemes = line.split("#")[0].split()
        words[word.partition("(")[0]].append(phonemes)
    return words


def part(word):
    first = hashlib.sha256(word.encode()).digest()[0]
    return "test" if first < 13 else "tune" if first < 16 else "train"


def make_tokenizer(words):
    """Unigram pieces of equal score: the letters and, whole, the phonemes with the space before them. No word of the input
    holds a capital, so there is one way to cut either."""
    letters = sorted(set("".join(words)))
    phonemes = sorted({p for options in words.values() for o in options for p in o})
    pieces = ["▁"] + letters + ["▁" + p for p in phonemes]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(piece, -2.0) for piece in pieces]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=64)


def encode(tokenizer, lines, length=None):
    batch = tokenizer(lines, padding="max_length" if length else True, max_length=length, return_tensors="pt")
    return batch["input_ids"]


def distance(a, b):
    """Edits (insert, delete, replace) between two lists."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def generate(model, tokenizer, words, device, beams=1):
    out = []
    for at in range(0, len(words), 1024):
        ids = encode(tokenizer, words[at:at + 1024]).to(device)
        got = model.generate(input_ids=ids, attention_mask=(ids != PAD).long(), num_beams=beams, do_sample=False,
                             max_new_tokens=40)
        out += tokenizer.batch_decode(got, skip_special_tokens=True)
    return [line.split() for line in out]


def score(answers, options, stress):
    """Share of words whose answer is none of the listed pronunciations, and edits to the nearest of them per phoneme."""
    bare = lambda phonemes: phonemes if stress else [p.rstrip("012") for p in phonemes]
    wrong = edits = length = 0
    for answer, listed in zip(answers, options):
        nearest, size = min((distance(bare(answer), bare(o)), len(o)) for o in listed)
        wrong += nearest > 0
        edits += nearest
        length += size
    return (f"{'with' if stress else 'without'} stress: word errors {100 * wrong / len(answers):.2f} %, "
            f"phoneme errors {100 * edits / length:.2f} %")


def main():
    args = common.arguments(__doc__.splitlines()[0], width=192, feed_forward=448, heads=6, encoder=4, decoder=4, dropout=0.1,
                            batch=1024, steps=18000, rate=2e-3, decay=0.05, warmup=500, smoothing=0.1, average=0.999,
                            watch=2000, compile=torch.cuda.is_available(), limit=0)
    words = dictionary(args.data / "cmudict" / "cmudict.dict")
    tokenizer = make_tokenizer(words)
    parts = {"train": [], "tune": [], "test": []}
    for word in words:
        parts[part(word)].append(word)
    if args.limit:
        parts = {name: some[:args.limit] for name, some in parts.items()}
    pairs = [(w, " ".join(o)) for w in parts["train"] for o in words[w] if max(len(w) + 2, len(o) + 1) <= LONGEST]
    common.log(", ".join(f"{name} {len(some)} words" for name, some in parts.items())
               + f", {len(pairs)} pairs to train on")
    letters, phonemes = (encode(tokenizer, side, LONGEST).to(args.device) for side in map(list, zip(*pairs)))

    config = T5Config(
        vocab_size=len(tokenizer), d_model=args.width, d_kv=args.width // args.heads, d_ff=args.feed_forward,
        num_heads=args.heads, num_layers=args.encoder, num_decoder_layers=args.decoder, dropout_rate=args.dropout,
        relative_attention_num_buckets=32, relative_attention_max_distance=64, feed_forward_proj="gated-gelu",
        decoder_start_token_id=PAD, pad_token_id=PAD, eos_token_id=EOS, use_cache=True)
    model = T5ForConditionalGeneration(config).to(args.device)
    model.generation_config = GenerationConfig(decoder_start_token_id=PAD, pad_token_id=PAD, eos_token_id=EOS,
                                               max_new_tokens=40)
    common.log(f"{common.parameters(model)} parameters")
    adam, schedule = common.optimiser(model, args.rate, args.decay, args.warmup, args.steps)
    average = common.averaged(model, args.average)

    def loss_of(x, y):
        shifted = F.pad(y[:, :-1], (1, 0), value=PAD)
        with common.half(args.device):
            logits = model(input_ids=x, attention_mask=(x != PAD).long(), decoder_input_ids=shifted, use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), ignore_index=PAD, label_smoothing=args.smoothing)

    step_loss = torch.compile(loss_of) if args.compile else loss_of
    order, at, total = torch.randperm(len(letters), device=args.device), 0, 0.0
    model.train()
    for step in range(1, args.steps + 1):
        if at + args.batch > len(order):
            order, at = torch.randperm(len(letters), device=args.device), 0
        pick = order[at:at + args.batch]
        at += args.batch
        loss = step_loss(letters[pick], phonemes[pick])
        common.update(model, average, adam, schedule, loss)
        total += loss.detach()
        if step == 20 or step % args.watch == 0 or step == args.steps:
            count = 20 if step == 20 else (step - 1) % args.watch + 1
            answers = generate(average.module.eval(), tokenizer, parts["tune"], args.device)
            common.log(f"step {step}: loss {total.item() / count:.4f}; tune "
                       + score(answers, [words[w] for w in parts["tune"]], False))
            total = total * 0

    common.log(f"trained {step * args.batch / len(letters):.1f} epochs")
    model = common.save(average.module, tokenizer, args.out).to(args.device)
    options = [words[w] for w in parts["test"]]
    for beams in (1, 4):
        answers = generate(model, tokenizer, parts["test"], args.device, beams)
        for stress in (False, True):
            common.log(f"held out, {'greedy' if beams == 1 else f'{beams} beams'}, {score(answers, options, stress)}")
    for word, answer in list(zip(parts["test"], generate(model, tokenizer, parts["test"][:2000], args.device)))[::200]:
        common.log(f"{word}: {' '.join(answer)}   listed: {' | '.join(' '.join(o) for o in words[word])}")


if __name__ == "__main__":
    main()
