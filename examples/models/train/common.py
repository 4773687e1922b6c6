"""What the three training scripts share: arguments, the optimiser, the averaged weights, the texts, and the saved directory."""

import argparse
import math
import pathlib
import random
import re
import time

import torch
import transformers

STARTED = time.time()


def arguments(description, **defaults):
    """--data DIR, --out DIR and one option for each default, of the default's type."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True, help="directory that holds cmudict/ and text/")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to write the model to")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    for name, value in dict(seed=1, **defaults).items():
        if isinstance(value, bool):
            parser.add_argument("--" + name.replace("_", "-"), action=argparse.BooleanOptionalAction, default=value, help=" ")
        else:
            parser.add_argument("--" + name.replace("_", "-"), type=type(value), default=value, help=" ")
    args = parser.parse_args()
    random.seed(args.seed)
    torch.manual_seed(args.seed)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    log(f"torch {torch.__version__}, transformers {transformers.__version__}, "
        + (torch.cuda.get_device_name() if args.device == "cuda" else "cpu"))
    log(" ".join(f"{k}={v}" for k, v in vars(args).items() if k not in ("data", "out")))
    return args


def log(text):
    print(f"[{time.time() - STARTED:6.1f} s] {text}", flush=True)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def optimiser(model, learning_rate, weight_decay, warmup, steps):
    """AdamW, matrices alone decayed; the rate rises linearly and falls to zero along a cosine."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    adam = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=learning_rate, betas=(0.9, 0.98), fused=next(model.parameters()).is_cuda)

    def factor(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))

    return adam, torch.optim.lr_scheduler.LambdaLR(adam, factor)


def averaged(model, decay):
    """An exponential moving average of the weights: what is scored and shipped."""
    return torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay))


def update(model, average, adam, schedule, loss):
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    schedule.step()
    adam.zero_grad()
    average.update_parameters(model)


def half(device):
    """The products of training run in bf16 on a GPU; the weights stay fp32."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def save(model, tokenizer, out):
    """The directory transformers loads, weights rounded to bf16; returns the model as read back, computing in fp32."""
    model = model.to(torch.bfloat16)
    model.save_pretrained(out)
    tokenizer.backend_tokenizer.no_padding()  # a batch padded before would be written down as a setting
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(out)
    tokenizer.backend_tokenizer.model.save(str(out))  # vocab.txt; vocab.json and merges.txt; unigram.json
    (out / "unigram.json").unlink(missing_ok=True)  # says what tokenizer.json says
    (out / "model.safetensors").chmod(0o644)
    log(f"model.safetensors: {(out / 'model.safetensors').stat().st_size} bytes")
    return type(model).from_pretrained(out, dtype=torch.float32).eval()


def botchan(text):
    """The paragraphs of the novel, without Project Gutenberg's header and licence, the translator's note and the footnotes."""
    body = text[text.index("\nCHAPTER I\n"):text.index("*** END OF THIS PROJECT")]
    paragraphs, lines = [], []
    for line in re.sub(r"\[[^\]]*\]", "", body).splitlines():
        line = line.strip()
        if re.fullmatch(r"CHAPTER [IVX]+\.?|[\W\d]*", line):
            continue
        lines.append(line)
        if len(line) < 60 and line[-1] in ".!?\"'":  # the file has no blank lines: a short line ends a paragraph
            paragraphs.append(" ".join(lines))
            lines = []
    return paragraphs


def king_james(text):
    """The chapters, each one paragraph, without verse numbers."""
    chapters = {}
    for line in text.splitlines():
        place, _, verse = line.strip().partition(" ")
        chapters.setdefault(place.partition(":")[0], []).append(verse)
    return [" ".join(verses) for verses in chapters.values()]


def split(paragraphs):
    """The last 5 % of the characters are held out for the final score, the 2.5 % before them choose the checkpoint."""
    parts, seen, total = ([], [], []), 0, sum(map(len, paragraphs))
    for paragraph in paragraphs:
        parts[(seen > 0.925 * total) + (seen > 0.95 * total)].append(paragraph)
        seen += len(paragraph)
    return dict(zip(("train", "tune", "test"), parts))


def texts(data):
    """{"botchan": {"train": paragraphs, "tune": ..., "test": ...}, "kjv": ...}"""
    read = lambda name: (data / "text" / name).read_text(encoding="utf-8-sig")
    parts = {"botchan": split(botchan(read("botchan.txt"))), "kjv": split(king_james(read("kjv.txt")))}
    for name, part in parts.items():
        log(f"{name}: " + ", ".join(f"{k} {len(v)} paragraphs, {sum(map(len, v))} characters" for k, v in part.items()))
    return parts
