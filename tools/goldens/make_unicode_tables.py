#!/usr/bin/env python3
"""Write src/text/unicode_tables.inc: general categories as Hugging Face `tokenizers` knows them.

usage: make_unicode_tables.py OUT.inc

`tokenizers` bundles Oniguruma with a newer Unicode version than PCRE2 10.42 and utf8proc have, and ids depend on it. So
the table is read out of the library itself: every code point is classified by its \\p{...}. Python's unicodedata (must
be Unicode 14, as PCRE2 10.42) says which code points are newer. Needs: pip install tokenizers.
"""
import sys
import unicodedata

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn".split()
ALPHABETIC_SYMBOL = len(CATEGORIES)
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
EVERYTHING = "".join(map(chr, CODE_POINTS))


def members(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for piece, _ in split.pre_tokenize_str(EVERYTHING):
        found.update(map(ord, piece))
    return found


def ranges_of(points):
    out = []
    for c in sorted(points):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def numeric_in_rust():
    """Code points that Rust's char::is_numeric (the Digits pre-tokenizer) takes."""
    text = "".join("a" + chr(c) for c in CODE_POINTS)
    pieces = [p for p, _ in pre_tokenizers.Digits(True).pre_tokenize_str(text)]
    return {ord(p) for p in pieces if len(p) == 1 and p != "a"}


def normalization_flags():
    """Bit 0: known to the library's normalisation data (Unicode 9: what is newer neither decomposes, composes nor
    reorders). Bits 1 to 4: not inert under NFC, NFD, NFKC, NFKD (it changes, or may act on its neighbours)."""
    forms = [getattr(normalizers, name)() for name in ("NFC", "NFD", "NFKC", "NFKD")]
    of = {c: [form.normalize_str(chr(c)) for form in forms] for c in CODE_POINTS}
    nfd = forms[1]

    def reorders(c):
        before = f"a\u0345{chr(c)}\u0334b"
        return nfd.normalize_str(before) != before

    combining = {c for c in CODE_POINTS if of[c][1] == chr(c) and reorders(c)}
    combining |= {c for c in CODE_POINTS if of[c][1] != chr(c) and ord(of[c][1][0]) in combining}
    seconds = {ord(of[c][1][-1]) for c in CODE_POINTS if of[c][0] == chr(c) and of[c][1] != chr(c)}
    known = set(combining)
    for c in CODE_POINTS:
        if of[c][3] != chr(c):
            known.add(c)
            known.update(map(ord, of[c][1] + of[c][3]))
    flags = {}
    for c in CODE_POINTS:
        bits = 1 if c in known else 0
        for i in range(4):
            composes = i in (0, 2) and c in seconds
            if of[c][i] != chr(c) or c in combining or composes:
                bits |= 2 << i
        if bits:
            flags[c] = bits
    return flags


def old_property_flags():
    """Bit 0: Punctuation and BertPreTokenizer cut it out. Bit 1: StripAccents drops it. Bit 2: BertNormalizer drops it
    as an accent, bit 3: as a control character. The library takes these from crates of other Unicode versions."""
    punctuation = pre_tokenizers.Punctuation("isolated")
    text = "".join("a" + chr(c) for c in CODE_POINTS)
    cut = {ord(p) for p, _ in punctuation.pre_tokenize_str(text) if len(p) == 1 and p != "a"}
    steps = (normalizers.StripAccents(), normalizers.BertNormalizer(False, False, True, False),
             normalizers.BertNormalizer(True, False, False, False))
    flags = {}
    for c in CODE_POINTS:
        bits = 1 if c in cut else 0
        for i, step in enumerate(steps):
            if step.normalize_str("a" + chr(c)) == "a":
                bits |= 2 << i
        if bits:
            flags[c] = bits
    return flags


def starts_of(value_of):
    starts, previous = [], None
    for c in range(0x110000):
        value = value_of(c)
        if value != previous:
            starts.append(c << 8 | value)
            previous = value
    return starts


def newer_lower_case():
    """Pairs of a capital that Unicode 14 does not know and its lower case. Others are as everywhere (checked here)."""
    lower = normalizers.Lowercase()
    pairs = []
    for c in CODE_POINTS:
        to = lower.normalize_str(chr(c))
        if unicodedata.category(chr(c)) == "Cn":
            if to != chr(c):
                pairs += [c, ord(to)]
        else:
            assert to == chr(c).lower(), hex(c)
    return pairs


def emit(out, name, comment, numbers):
    print(f"\n// {comment}\ninline constexpr uint32_t {name}[] = {{", file=out)
    line = "   "
    for number in numbers:
        item = f" {number:#x},"
        if len(line) + len(item) > 120:
            print(line, file=out)
            line = "   "
        line += item
    print(line + "\n};", file=out)


def main():
    assert unicodedata.unidata_version == "14.0.0", "run with a Python whose unicodedata is Unicode 14 (3.11)"
    category = {}
    for index, name in enumerate(CATEGORIES):
        for c in members(r"\p{%s}" % name):
            category[c] = index
    numeric = numeric_in_rust()
    by_category = {c for c in CODE_POINTS if CATEGORIES[category[c]][0] == "N"}
    assert by_category <= numeric
    # What \w takes beyond letters, marks, decimal digits, connectors and letter numbers: circled letters and the like
    # (and, by an oddity of Oniguruma, six Latin-1 numbers that the room never needs).
    for c in members(r"\w"):
        if CATEGORIES[category[c]] == "So":
            category[c] = ALPHABETIC_SYMBOL
    starts = starts_of(lambda c: category.get(c, CATEGORIES.index("Cn")))
    flags = normalization_flags()
    newer = ranges_of(c for c in CODE_POINTS
                      if unicodedata.category(chr(c)) == "Cn" and CATEGORIES[category[c]] != "Cn")
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        print("// Made by tools/goldens/make_unicode_tables.py from tokenizers " + tokenizers.__version__ + "; do not edit.",
              file=out)
        emit(out, "kCategoryStarts", "code point << 8 | category, where the category changes; categories are numbered as "
             "in enum Category", starts)
        emit(out, "kNormalizationStarts", "code point << 8 | flags of enum NormalizationFlag, where they change",
             starts_of(lambda c: flags.get(c, 0)))
        properties = old_property_flags()
        emit(out, "kOldPropertyStarts", "code point << 8 | flags of enum OldProperty, where they change",
             starts_of(lambda c: properties.get(c, 0)))
        emit(out, "kNewerThanUnicode14", "first and last of each range that Unicode 14 leaves unassigned",
             [x for r in newer for x in r])
        for name, words, pattern in (("kNewerAlphabetic", "Alphabetic", "[[:alpha:]]"),
                                     ("kNewerUppercase", "Uppercase", "[[:upper:]]"),
                                     ("kNewerLowercase", "Lowercase", "[[:lower:]]")):
            both = members(pattern)
            emit(out, name, f"first and last of each range of those that are {words}",
                 [x for r in ranges_of(both & {c for a, b in newer for c in range(a, b + 1)}) for x in r])
        emit(out, "kNewerLowerCase", "capital, its lower case", newer_lower_case())
        emit(out, "kNumericInRustOnly", "first and last of each range that char::is_numeric takes beyond categories N*",
             [x for r in ranges_of(numeric - by_category) for x in r])


if __name__ == "__main__":
    main()
