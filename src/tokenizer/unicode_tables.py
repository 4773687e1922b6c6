#!/usr/bin/env python3
"""Write unicode_tables.h: where the reference's Unicode differs from utf8proc's.

Reads the behaviour of the tokenizers package (normalizers, pre-tokenizers, added tokens, the properties of its regular
expressions) for every code point, reads what src/tokenizer/unicode.c would say from utf8proc alone, and prints the differences as
ranges; scripts, which utf8proc does not have, as they are. Run it again when the pinned tokenizers or the minimum utf8proc changes:

    python3 src/tokenizer/unicode_tables.py > src/tokenizer/unicode_tables.h
"""

import ctypes
import ctypes.util
import struct
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

REMOVED, SPACE, PUNCTUATION, STRIPPED, WORD, NONSTARTER, DECOMPOSES, LOWERED = (1 << i for i in range(8))
POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
ALL = "".join(map(chr, POINTS))
# utf8proc's category numbers
LU, LL, LT, LM, LO, MN, MC, ME, ND, NL, NO, PC, PD, PS, PE, PI, PF, PO, SM, SC, SK, SO, ZS, ZL, ZP, CC, CF, CS, CO = range(1, 30)

utf8proc = ctypes.CDLL(ctypes.util.find_library("utf8proc"))
utf8proc.utf8proc_version.restype = ctypes.c_char_p


class Property(ctypes.Structure):
    _fields_ = [("category", ctypes.c_int16), ("combining_class", ctypes.c_int16)]


utf8proc.utf8proc_get_property.restype = ctypes.POINTER(Property)


def combining(c):
    return utf8proc.utf8proc_get_property(c).contents.combining_class


def decompose(c, compat=False):
    buffer = (ctypes.c_int32 * 32)()
    last = ctypes.c_int(0)
    n = utf8proc.utf8proc_decompose_char(c, buffer, 32, 1 << 4 | compat << 2, ctypes.byref(last))  # DECOMPOSE, COMPAT
    return "".join(map(chr, buffer[:n]))


def compose(a, b):
    buffer = (ctypes.c_int32 * 3)(a, b)
    n = utf8proc.utf8proc_normalize_utf32(buffer, 2, 1 << 3 | 1 << 1)  # COMPOSE, STABLE
    return "".join(map(chr, buffer[:n]))


def rules(c):
    """The flags as unicode.c derives them from utf8proc."""
    category = utf8proc.utf8proc_category(c)
    flags = 0
    if category in (CC, CF, CO) and c not in (9, 10, 13):
        flags |= REMOVED
    if category in (ZS, ZL, ZP) or 9 <= c <= 13 or c == 0x85:
        flags |= SPACE
    if PC <= category <= PO or (c < 128 and SM <= category <= SO):
        flags |= PUNCTUATION
    if category == MN:
        flags |= STRIPPED
    if LU <= category <= NL or category == PC:
        flags |= WORD
    if combining(c):
        flags |= NONSTARTER
    if decompose(c) != chr(c):
        flags |= DECOMPOSES
    if utf8proc.utf8proc_tolower(c) != c:
        flags |= LOWERED
    return flags


def bert(**on):
    settings = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**settings, **on}).normalize_str


def reference():
    """Flags, combining classes and lower-case forms as the tokenizers package shows them."""
    clean, strip, lower, nfd = bert(clean_text=True), bert(strip_accents=True), bert(lowercase=True), normalizers.NFD().normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    single = Tokenizer(models.WordPiece({"[UNK]": 0, "zz": 1}, unk_token="[UNK]"))
    single.add_tokens([AddedToken("zz", single_word=True, normalized=False)])
    flags, lowered = {}, {}
    for c in POINTS:
        s = chr(c)
        f = 0
        if clean("a" + s) == "a":
            f |= REMOVED
        parts = [part for part, _ in split("a" + s + "b")]
        if parts == ["a", "b"]:
            f |= SPACE
        elif len(parts) == 3:
            f |= PUNCTUATION
        if strip("a" + s) == "a":
            f |= STRIPPED
        if len(single.encode(s + "zz").ids) == 1:
            f |= WORD
        if nfd("a\u0345" + s) != "a\u0345" + nfd(s) or c == 0x345:
            f |= NONSTARTER
        if nfd(s) != s:
            f |= DECOMPOSES
            assert nfd(s) == decompose(c), hex(c)
        if lower(s) != s:
            f |= LOWERED
            lowered[c] = lower(s)
        flags[c] = f
    assert all(clean("a" + chr(c)) in ("a", "a ", "a" + chr(c)) for c in POINTS)
    # A mark sorts before another exactly if its class is smaller: place each among marks of all classes.
    marks = [c for c in POINTS if flags[c] & NONSTARTER and not flags[c] & DECOMPOSES]
    by_class = {}
    for c in marks:
        by_class.setdefault(combining(c), c)
    for c in marks:
        for k, other in by_class.items():
            swapped = nfd("a" + chr(other) + chr(c)) != "a" + chr(other) + chr(c)
            assert swapped == (combining(c) < k), "combining class of %x differs from utf8proc" % c
    return flags, lowered


LETTER, DIGIT, BLANK = 1, 2, 3
REGEX_WORD, NUMERIC, MARK, COMPAT, COMPOSES = (4 << i for i in range(5))
CATEGORIES = "Cn Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Cs Co".split()
SCRIPTS = "Arabic Cyrillic Greek Han Hangul Hebrew Hiragana Katakana Latin Thai".split()


def members(pattern):
    """The code points that a class of a regular expression has."""
    return set(map(ord, normalizers.Replace(Regex("[^%s]" % pattern), "").normalize_str(ALL)))


def categories():
    """General categories as regular expressions have them."""
    out = dict.fromkeys(POINTS, 0)
    for number, name in enumerate(CATEGORIES):
        if name not in ("Cn", "Cs"):
            out.update(dict.fromkeys(members(r"\p{%s}" % name), number))
    assert set(c for c in POINTS if out[c] == 0) == members(r"\p{Cn}")
    for general in "LMNPSZC":
        assert members(r"\p{%s}" % general) == {c for c in POINTS if CATEGORIES[out[c]][0] == general}
    return out


def more_rules(c, category):
    """The second set of flags as unicode.c derives them from a category and utf8proc."""
    flags = 0
    if LU <= category <= LO:
        flags |= LETTER
    if ND <= category <= NO:
        flags |= DIGIT | NUMERIC
    if category in (ZS, ZL, ZP) or 9 <= c <= 13 or c == 0x85:
        flags |= BLANK
    if LU <= category <= NL or category == PC:
        flags |= REGEX_WORD
    if MN <= category <= ME:
        flags |= MARK
    if decompose(c, True) != decompose(c):
        flags |= COMPAT
    return flags


def more_reference():
    """The same as the tokenizers package shows them."""
    letters, digits, blanks, words = (members(p) for p in (r"\p{L}", r"\p{N}", r"\s", r"\w"))
    assert members(r"\d") == members(r"\p{Nd}") and members(r"\h") == set(map(ord, "0123456789abcdefABCDEF"))
    numeric = {ord(t) for t, _ in pre_tokenizers.Digits(True).pre_tokenize_str("a".join(ALL)) if len(t) == 1 and t != "a"}
    kept = set(map(ord, normalizers.StripAccents().normalize_str(ALL)))
    nfd, nfkd, nfc = normalizers.NFD().normalize_str, normalizers.NFKD().normalize_str, normalizers.NFC().normalize_str
    seconds = set()
    for c in POINTS:
        parts = nfd(chr(c))
        if not 0xAC00 <= c < 0xAC00 + 11172:
            first = nfc(parts[:-1])
            if len(parts) > 1 and len(first) == 1 and nfc(parts) != first + parts[-1]:
                seconds.add(ord(parts[-1]))
                assert compose(ord(first), ord(parts[-1])) == nfc(parts), hex(c)
        assert len(nfc(chr(c))) == 1 or nfc(chr(c)) == parts, hex(c)
    seconds.update(range(0x1161, 0x1176), range(0x11A8, 0x11C3))
    for b in seconds:  # what utf8proc composes, the reference composes
        for a in (c for c in POINTS if c < 0x20000):
            both = compose(a, b)
            assert len(both) > 1 or nfc(chr(a) + chr(b)) == both, (hex(a), hex(b))
    flags = {}
    for c in POINTS:
        s = chr(c)
        f = LETTER * (c in letters) | DIGIT * (c in digits) | BLANK * (c in blanks) | REGEX_WORD * (c in words)
        f |= NUMERIC * (c in numeric) | MARK * (c not in kept) | COMPOSES * (c in seconds)
        if nfkd(s) != nfd(s):
            f |= COMPAT
            assert nfkd(s) == decompose(c, True), hex(c)
        flags[c] = f
    return flags


def scripts():
    """[(code point, number)] of the scripts that UnicodeScripts tells apart; those it takes for any are left out."""
    split = pre_tokenizers.UnicodeScripts().pre_tokenize_str
    joined = []
    for other in ("A", "\u4e00"):  # what is of any script stays with both
        pieces = {begin for _, (begin, _) in split("".join(other + c for c in ALL))}
        joined.append({c for i, c in enumerate(POINTS) if 2 * i + 1 not in pieces})
    any_script = joined[0] & joined[1]
    known, out = [], []
    text = "".join(chr(c) for c in POINTS if c not in any_script)
    for piece, _ in split(text):
        number = next((i for i, k in enumerate(known) if len(split(k + piece[0])) == 1), len(known))
        if number == len(known):
            known.append(piece[0])
        out += [(ord(c), number + 1) for c in piece]
    assert len(known) < 255
    return out


def runs(items):
    """[(first, last, value)] of equal neighbours."""
    out = []
    for c, value in items:
        if out and out[-1][1] == c - 1 and out[-1][2] == value:
            out[-1][1] = c
        else:
            out.append([c, c, value])
    return out


def grapheme_extends():
    """Code points that join the letter before them in the reference's graphemes, but not in utf8proc's.

    A character map of one entry, a -> b, shows it: tokenizers replaces a short grapheme as a whole by what its begin maps to."""
    units = [0] * 0x400
    units[0] = 0x100 << 10  # the way to the root's children
    units[0x100 ^ 0x61] = 0x61 | 1 << 8 | 0x200 << 10  # 'a', with a value below
    units[0x100 ^ 0x61 ^ 0x200] = 1 << 31  # which is 0: where its text begins
    charsmap = normalizers.Precompiled(struct.pack("<I%dI" % len(units), 4 * len(units), *units) + b"b\0")
    utf8proc.utf8proc_grapheme_break_stateful.restype = ctypes.c_bool
    found = []
    for c in POINTS[1:]:
        breaks = utf8proc.utf8proc_grapheme_break_stateful(0x61, c, ctypes.byref(ctypes.c_int32(0)))
        joins = c != 0x61 and charsmap.normalize_str("a" + chr(c)) == "b"
        if joins and breaks:
            found.append((c, 1))
        assert joins or breaks, hex(c)
    return found


def main():
    flags, lowered = reference()
    flips = [(c, rules(c) ^ flags[c]) for c in POINTS if rules(c) ^ flags[c]]
    deltas = []
    for c, text in lowered.items():
        if c == 0x130:  # the only one that becomes two; unicode.c knows it
            assert text == "i\u0307"
        elif ord(text) != utf8proc.utf8proc_tolower(c):
            deltas.append((c, ord(text) - c))
    category, more = categories(), more_reference()
    changes = [(c, category[c]) for c in POINTS if category[c] != utf8proc.utf8proc_category(c)]
    more_flips = [(c, more_rules(c, category[c]) ^ more[c]) for c in POINTS if more_rules(c, category[c]) ^ more[c]]
    assert max(len(decompose(c, True)) for c in POINTS) <= 18
    words = {c for c in POINTS if flags[c] & WORD}
    pieces = pre_tokenizers.Whitespace().pre_tokenize_str("!".join(ALL))
    assert {ord(t) for t, _ in pieces if len(t) == 1 and t != "!"} == words
    print("/* Made by unicode_tables.py; do not edit. The reference is tokenizers %s, the other side utf8proc %s." % (
        tokenizers.__version__, utf8proc.utf8proc_version().decode()))
    print(" * First and last code point and what differs there. */")
    print("#ifndef TFI_TOKENIZER_UNICODE_TABLES_H\n#define TFI_TOKENIZER_UNICODE_TABLES_H\n\n#include <stdint.h>\n")
    tables = (
        ("flag_flips", "uint8_t flip", runs(flips)),
        ("lower_deltas", "int32_t delta", runs(deltas)),
        ("category_changes", "uint8_t category", runs(changes)),
        ("more_flips", "uint8_t flip", runs(more_flips)),
        ("script_runs", "uint8_t script", runs(scripts())),
        ("regex_scripts", "uint8_t script", runs(sorted((c, i) for i, name in enumerate(SCRIPTS) for c in members(r"\p{%s}" % name)))),
        ("grapheme_extends", "uint8_t joins", runs(grapheme_extends())),
    )
    for name, kind, rows in tables:
        print("static const struct {\n    uint32_t first, last;\n    %s;\n} %s[%d] = {" % (kind, name, len(rows)))
        line = "   "
        for first, last, value in rows:
            item = " {0x%x, 0x%x, %d}," % (first, last, value)
            if len(line) + len(item) > 128:
                print(line)
                line = "   "
            line += item
        print(line + "\n};\n")
    print("#endif")
    print("%d code points differ in flags, %d in lower case, %d in category, %d in the second flags"
          % (len(flips), len(deltas), len(changes), len(more_flips)), file=sys.stderr)


if __name__ == "__main__":
    main()
