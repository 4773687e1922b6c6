"""Texts and tokenizer directories for the text tasks: words of the MiniLM vocabulary, and what Unicode does to text."""

import json
import shutil

CURIOUS = [
    "Zürich's naïve café — 東京タワー is 333 m tall, isn't it?",
    "🤖 Emoji 👩‍👩‍👧 and \u200dzero-width\u200b joiners…",
    "ÅNGSTRÖM ﬁ ligature İstanbul ẞ",
    "e\u0301 combining, tab\tand\nnewline\r\n, nbsp\u00a0here",
    "Привет, мир! नमस्ते दुनिया · مرحبا بالعالم",
    "x",
    "",
    "  leading and trailing  ",
    "$1,234.56 (50%) #hashtag @user http://example.org/a?b=c&d=e",
    "Supercalifragilisticexpialidocious antidisestablishmentarianism",
    "한국어 텍스트와 𝒳 math 𝟘",
    "don't [SEP] stop [MASK] here",
    "a" * 120 + " b",
]


class Words:
    """Draws texts from the whole words of a vocabulary."""

    def __init__(self, vocabulary, rng):
        self.words = [w for w in vocabulary if w.isalpha() and len(w) > 1]
        self.rng = rng

    def text(self, words):
        out = []
        for w in self.rng.choice(self.words, words):
            w = str(w)
            kind = self.rng.integers(12)
            w = {0: w.capitalize(), 1: w + ",", 2: w + ".", 3: w.upper(), 4: w + "é", 5: "日" + w}.get(int(kind), w)
            out.append(w)
        return " ".join(out)

    def texts(self, *lengths):
        return [self.text(n) for n in lengths]


def copy_minilm_tokenizer(minilm, path, limit):
    """The real tokenizer (its tokenizer.json asks for truncation and padding, which count for nothing), limited to `limit`."""
    for name in ("tokenizer.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(minilm / name, path / name)
    settings = json.loads((minilm / "tokenizer_config.json").read_text())
    settings["model_max_length"] = limit
    (path / "tokenizer_config.json").write_text(json.dumps(settings))


def write_small_tokenizer(path, limit, lowercase):
    """A WordPiece vocabulary of letters, a few words and pieces, as vocab.txt with tokenizer_config.json alone."""
    letters = "abcdefghijklmnopqrstuvwxyz" + ("" if lowercase else "ABCDEFGHIJKLMNOPQRSTUVWXYZ") + "0123456789.,'é東"
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *("##" + c for c in letters),
        "the",
        "cat",
        "house",
        "##ing",
        "##ed",
        "##s",
        "water",
        "##er",
        "in",
        "on",
        "##tion",
    ]
    if not lowercase:
        pieces += ["The", "Paris", "##IS"]
    (path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (path / "tokenizer_config.json").write_text(
        json.dumps(
            dict(
                do_lower_case=lowercase,
                tokenizer_class="BertTokenizer",
                model_max_length=limit,
                tokenize_chinese_chars=True,
                strip_accents=None,
                unk_token="[UNK]",
                sep_token="[SEP]",
                pad_token="[PAD]",
                cls_token="[CLS]",
                mask_token="[MASK]",
            )
        )
    )
    return pieces
