"""Trains bert-punctuate: restores capitals and punctuation in lower-case text without them, from two public-domain books.

    python bert_punctuate.py --data DIR --out DIR        DIR/text holds botchan.txt and kjv.txt

Each word's label stands at its first piece: how it is written (lower, Capital, UPPER) and the mark behind it, if any; "O" is
a lower-case word without a mark. The last 5 % of each book is held out for the final score; the 2.5 % before it chooses the
checkpoint."""

import copy
import random
import re

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import BertConfig, BertForTokenClassification, BertTokenizer

import common

CASES, MARKS = ["lower", "Capital", "UPPER"], ["", ",", ".", "?", "!", ":", ";"]
LABELS = ["O" if case + mark == "lower" else case + mark for case in CASES for mark in MARKS]
IGNORED = -100


def read_words(paragraphs):
    """[(the word in lower case, its label)]; quotation marks, brackets and dashes are dropped."""
    found = []
    for chunk in re.split(r"\s+|--+", " ".join(paragraphs)):
        match = re.fullmatch(r"[\W_]*(\w(?:.*\w)?)([\W_]*)", chunk)
        if match:
            word, behind = match.groups()
            mark = next((MARKS.index(c) for c in behind if c in MARKS), 0)
            case = 2 if len(word) > 1 and word.isupper() else int(word[0].isupper())
            found.append((word.lower(), case * len(MARKS) + mark))
    return found


def make_tokenizer(words, size, longest):
    pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer(lowercase=True)
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.train_from_iterator(words, trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    return BertTokenizer(vocab=pieces.get_vocab(), do_lower_case=True, model_max_length=longest)


class Text:
    """The pieces of a book's part in one line, the label of each word at its first piece."""

    def __init__(self, tokenizer, words):
        cut = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in {w for w, _ in words}}
        self.pieces, self.labels, self.begin = [], [], []  # begin[w]: the first piece of word w
        for word, label in words:
            self.begin.append(len(self.pieces))
            self.pieces += cut[word]
            self.labels += [label] + [IGNORED] * (len(cut[word]) - 1)
        self.begin.append(len(self.pieces))
        self.ends = [label % len(MARKS) in (2, 3, 4) for _, label in words]  # the word ends a sentence
        self.starts = [0] + [i + 1 for i, end in enumerate(self.ends[:-1]) if end]

    def until(self, start, words, longest):
        """The end of the window from word `start`: at most so many words and pieces, back to a sentence's end if any."""
        stop = min(start + words, len(self.ends))
        while self.begin[stop] - self.begin[start] > longest:
            stop -= 1
        return next((i + 1 for i in range(stop - 1, start, -1) if self.ends[i]), stop)

    def windows(self, words, longest):
        at = 0
        while at < len(self.ends):
            yield at, (stop := self.until(at, words, longest))
            at = stop


def make_batch(tokenizer, windows, device):
    """Windows are (text, first word, end word)."""
    rows = [(t.pieces[t.begin[a]:t.begin[b]], t.labels[t.begin[a]:t.begin[b]]) for t, a, b in windows]
    length = max(len(p) for p, _ in rows) + 2
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full((len(rows), length), IGNORED)
    for row, (pieces, marks) in enumerate(rows):
        ids[row, :len(pieces) + 2] = torch.tensor([tokenizer.cls_token_id, *pieces, tokenizer.sep_token_id])
        labels[row, 1:len(pieces) + 1] = torch.tensor(marks)
    return ids.to(device), labels.to(device)


@torch.no_grad()
def confusion(model, tokenizer, text, device, words=100):
    """[true label, predicted label] counts over consecutive windows of whole sentences."""
    counts = torch.zeros(len(LABELS), len(LABELS), dtype=torch.long)
    windows = [(text, a, b) for a, b in text.windows(words, model.config.max_position_embeddings - 2)]
    for at in range(0, len(windows), 64):
        ids, labels = make_batch(tokenizer, windows[at:at + 64], device)
        guess = model(ids, attention_mask=(ids != tokenizer.pad_token_id).long()).logits.argmax(-1)
        at_word = labels != IGNORED
        pairs = (labels[at_word] * len(LABELS) + guess[at_word]).cpu()
        counts += torch.bincount(pairs, minlength=len(LABELS) ** 2).view(len(LABELS), -1)
    return counts


def by_case(counts):
    return counts.view(3, 7, 3, 7).sum((1, 3))


def by_mark(counts):
    return counts.view(3, 7, 3, 7).sum((0, 2))


def f1(counts):
    """F1 of each label, and the mean over the labels that occur."""
    hits, truth, guess = counts.diag().double(), counts.sum(1), counts.sum(0)
    each = 2 * hits / (truth + guess).clamp(min=1)
    return each.tolist(), each[truth > 0].mean().item()


def restore(model, tokenizer, line, device="cpu"):
    """The sentence again with capitals and marks: the label of each word's first piece."""
    words = line.split()
    batch = tokenizer(words, is_split_into_words=True, return_tensors="pt", truncation=True).to(device)
    guess = model(**batch).logits[0].argmax(-1).tolist()
    out = []
    for i, word in enumerate(words):
        case, mark = divmod(guess[batch.word_to_tokens(0, i).start], len(MARKS))
        out.append([word, word.capitalize(), word.upper()][case] + MARKS[mark])
    return " ".join(out)


def main():
    args = common.arguments(__doc__.splitlines()[0], vocabulary=2800, width=256, layers=4, heads=4, window=256, dropout=0.2,
                            masked=0.15, words=150, batch=64, steps=4000, rate=1e-3, decay=0.1, warmup=300, average=0.998,
                            watch=250, share=0.2)
    parts = common.texts(args.data)
    words = {(name, kind): read_words(some) for name, part in parts.items() for kind, some in part.items()}
    tokenizer = make_tokenizer([w for name in parts for w, _ in words[name, "train"]], args.vocabulary, args.window)
    text = {key: Text(tokenizer, some) for key, some in words.items()}
    common.log(", ".join(f"{name} {kind}: {len(some)} words" for (name, kind), some in words.items()))

    model = BertForTokenClassification(BertConfig(
        vocab_size=len(tokenizer), hidden_size=args.width, num_hidden_layers=args.layers, num_attention_heads=args.heads,
        intermediate_size=4 * args.width, max_position_embeddings=args.window, hidden_dropout_prob=args.dropout,
        attention_probs_dropout_prob=args.dropout, pad_token_id=tokenizer.pad_token_id,
        id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)})).to(args.device)
    common.log(f"{common.parameters(model)} parameters, {len(LABELS)} labels")
    adam, schedule = common.optimiser(model, args.rate, args.decay, args.warmup, args.steps)
    average = common.averaged(model, args.average)

    def draw():
        """A window from a random sentence on, of up to a random number of words; one in `share` from the short novel."""
        some = text["botchan" if random.random() < args.share else "kjv", "train"]
        start = random.choice(some.starts)
        return some, start, some.until(start, random.randint(8, args.words), args.window - 2)

    best, kept, total = -1.0, None, 0.0
    model.train()
    for step in range(1, args.steps + 1):
        ids, labels = make_batch(tokenizer, [draw() for _ in range(args.batch)], args.device)
        hidden = (torch.rand(ids.shape, device=args.device) < args.masked) & (ids > tokenizer.mask_token_id)
        with common.half(args.device):
            logits = model(ids.masked_fill(hidden, tokenizer.mask_token_id),
                           attention_mask=(ids != tokenizer.pad_token_id).long()).logits
        loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        common.update(model, average, adam, schedule, loss)
        total += loss.detach()
        if step % args.watch == 0 or step == args.steps:
            seen = [confusion(average.module.eval(), tokenizer, text[name, "tune"], args.device) for name in parts]
            scores = [(f1(by_case(c))[1] + f1(by_mark(c))[1]) / 2 for c in seen]
            common.log(f"step {step}: loss {total.item() / ((step - 1) % args.watch + 1):.4f}; "
                       "tune macro F1, mean of case and mark: "
                       + ", ".join(f"{name} {value:.4f}" for name, value in zip(parts, scores)))
            total = total * 0
            if sum(scores) > best:
                best, kept, kept_step = sum(scores), copy.deepcopy(average.module), step

    common.log(f"kept step {kept_step}")
    model = common.save(kept, tokenizer, args.out).to(args.device)
    seen = {name: confusion(model, tokenizer, text[name, "test"], args.device) for name in parts}
    for name, counts in dict(seen, both=sum(seen.values())).items():
        for what, names, table in (("case", CASES, by_case(counts)), ("mark", ["none"] + MARKS[1:], by_mark(counts)),
                                   ("label", LABELS, counts)):
            each, mean = f1(table)
            common.log(f"held out, {name}, {what}: macro F1 {100 * mean:.1f}; " + "  ".join(
                f"{n} {100 * value:.1f} ({count})" for n, value, count in zip(names, each, table.sum(1).tolist()) if count))
    for name in parts:
        some, (start, stop) = words[name, "test"], list(text[name, "test"].windows(50, args.window - 2))[10]
        common.log(f"{name}: {restore(model, tokenizer, ' '.join(w for w, _ in some[start:stop]), args.device)}")


if __name__ == "__main__":
    main()
