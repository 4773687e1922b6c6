"""Trains gpt2-prose: a small GPT-2 with its own byte-level BPE that continues prose, from two public-domain books.

    python gpt2_prose.py --data DIR --out DIR        DIR/text holds botchan.txt and kjv.txt

The last 5 % of each book is held out for the final score; the 2.5 % before it chooses the checkpoint."""

import copy
import json
import math

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

import common

END = "<|endoftext|>"
BETWEEN = {"botchan": "\n", "kjv": END}  # paragraphs of a novel; chapters of the Bible


def make_tokenizer(paragraphs, size, longest):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(paragraphs, trainers.BpeTrainer(
        vocab_size=size, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    state = json.loads(bpe.to_str())["model"]
    return GPT2Tokenizer(vocab=state["vocab"], merges=[tuple(m) for m in state["merges"]], model_max_length=longest)


def stream(tokenizer, name, paragraphs):
    """One line of ids, and the bytes of text it stands for."""
    ids = tokenizer(END + BETWEEN[name].join(paragraphs) + END)["input_ids"]
    return torch.tensor(ids), sum(len(p.encode()) + 1 for p in paragraphs)


@torch.no_grad()
def nats(model, ids, window):
    """Sum of -log p over the stream, each token with at least half a window before it (less only at its start)."""
    half, total = window // 2, 0.0
    rows = [(max(0, at - half), at) for at in range(1, len(ids), half)]
    for begin in range(0, len(rows), 64):
        chunk = rows[begin:begin + 64]
        for size in {min(at + half, len(ids)) - start for start, at in chunk}:
            same = [(s, a) for s, a in chunk if min(a + half, len(ids)) - s == size]
            batch = torch.stack([ids[s:s + size] for s, a in same])
            losses = F.cross_entropy(model(batch).logits[:, :-1].float().transpose(1, 2), batch[:, 1:], reduction="none")
            for loss, (s, a) in zip(losses, same):
                total += loss[a - s - 1:].sum().item()
    return total


def main():
    args = common.arguments(__doc__.splitlines()[0], vocabulary=2048, width=192, layers=7, heads=3, window=256, dropout=0.2,
                            batch=64, steps=2500, rate=2e-3, decay=0.1, warmup=200, average=0.998, watch=250, repeat=2)
    parts = common.texts(args.data)
    tokenizer = make_tokenizer([p for part in parts.values() for p in part["train"]], args.vocabulary, args.window)
    end = tokenizer.convert_tokens_to_ids(END)
    streams = {(name, kind): stream(tokenizer, name, some) for name, part in parts.items() for kind, some in part.items()}
    streams = {key: (ids.to(args.device), size) for key, (ids, size) in streams.items()}
    train = torch.cat([streams["kjv", "train"][0]] + [streams["botchan", "train"][0]] * args.repeat)  # the novel is short
    ids, size = streams["kjv", "train"]
    common.log(f"{len(train)} tokens to train on, {size / len(ids):.2f} bytes a token")

    model = GPT2LMHeadModel(GPT2Config(
        vocab_size=len(tokenizer), n_positions=args.window, n_embd=args.width, n_layer=args.layers, n_head=args.heads,
        resid_pdrop=args.dropout, embd_pdrop=args.dropout, attn_pdrop=args.dropout,
        bos_token_id=end, eos_token_id=end)).to(args.device)
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, pad_token_id=end, do_sample=True,
                                               temperature=0.8, top_k=50, top_p=0.9, repetition_penalty=1.1,
                                               max_new_tokens=60)
    common.log(f"{common.parameters(model)} parameters")
    adam, schedule = common.optimiser(model, args.rate, args.decay, args.warmup, args.steps)
    average = common.averaged(model, args.average)

    def bits(model, kind, name):
        ids, size = streams[name, kind]
        return nats(model, ids, args.window) / math.log(2) / size

    best, kept, total = math.inf, None, 0.0
    model.train()
    for step in range(1, args.steps + 1):
        begins = torch.randint(len(train) - args.window, (args.batch, 1), device=args.device)
        ids = train[begins + torch.arange(args.window, device=args.device)]
        with common.half(args.device):
            logits = model(ids, use_cache=False).logits
        loss = F.cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten())
        common.update(model, average, adam, schedule, loss)
        total += loss.detach()
        if step % args.watch == 0 or step == args.steps:
            tune = {name: bits(average.module.eval(), "tune", name) for name in parts}
            common.log(f"step {step}: loss {total.item() / ((step - 1) % args.watch + 1):.4f}; tune bits per byte "
                       + ", ".join(f"{name} {value:.4f}" for name, value in tune.items()))
            total = total * 0
            if sum(tune.values()) < best:
                best, kept, kept_step = sum(tune.values()), copy.deepcopy(average.module), step

    common.log(f"trained {args.steps * args.batch * args.window / len(train):.1f} epochs; kept step {kept_step}")
    model = common.save(kept, tokenizer, args.out).to(args.device)
    for name in parts:
        ids, size = streams[name, "test"]
        spent = nats(model, ids, args.window)
        common.log(f"held out, {name}: {spent / math.log(2) / size:.4f} bits per byte, "
                   f"perplexity {math.exp(spent / (len(ids) - 1)):.2f} a token ({len(ids)} tokens, {size} bytes)")
    for prompt in ("And it came to pass in those days, that", "When I arrived at the school,", "I told Porcupine"):
        ids = tokenizer(prompt, return_tensors="pt").to(args.device)
        common.log(repr(tokenizer.decode(model.generate(**ids)[0])))


if __name__ == "__main__":
    main()
