#!/usr/bin/env python3
"""Write a text that is hard on tokenizers.

usage: make_adversarial_text.py OUT.txt [--small]

Every assigned and unassigned code point of every block, combining marks in wrong order, emoji sequences, NUL, long runs
of spaces and of one letter, added tokens glued to words, CRLF, contractions in odd cases, numbers in many scripts. Same
bytes on every run. --small: a sample of about 30 KB with short runs, for golden files.
"""
import random
import sys

SPECIALS = ["<|endoftext|>", "<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>",
            "<|padding|>", "<fim_prefix>", "<KEY>", "<|reserved_special_token_7|>", "<0x0A>", "<|assistant|>",
            "\uff5cbegin\u2581of\u2581sentence\uff5c", "\u00f8", "\u00fe", "\u00fc", "[PAD32062]"]


def code_points():
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def main():
    small = "--small" in sys.argv
    rng = random.Random(20240229)
    points = code_points()
    parts = []

    # Every block: neighbours together, then between letters, spaces and digits.
    everything = points if not small else sorted(rng.sample(points[:0x30000], 1500) + points[:0x250])
    if small:
        parts.append("".join(map(chr, everything)))
    else:
        for start in range(0, len(points), 64):
            block = points[start:start + 64]
            if 0x40000 <= block[0] < 0xE0000 and start % 4096:
                continue  # planes without a character: one row in 64
            parts.append("".join(map(chr, block)) + "\n")
        for c in points[:0x32000]:
            if c < 0x3400 or 0xA000 <= c < 0xAC00 or 0xD7A0 <= c < 0x20000 or c % 61 == 0:
                parts.append("a" + chr(c) + "b 1" + chr(c) + " " + chr(c) + "'s")

    # Marks in any order on any base, jamo, precomposed letters.
    marks = [chr(c) for c in points if c < 0x20000 and __import__("unicodedata").combining(chr(c))]
    bases = [chr(c) for c in list(range(0x41, 0x5B)) + list(range(0xC0, 0x250)) + list(range(0x1E00, 0x2000))
             + list(range(0x1100, 0x1200)) + list(range(0xAC00, 0xAC40)) + [0x9C7, 0xB47, 0xDD9, 0x1025, 0x105D2]]
    for _ in range(400 if small else 20_000):
        parts.append(rng.choice(bases) + "".join(rng.choice(marks) for _ in range(rng.randint(0, 5))))
        if rng.random() < 0.2:
            parts.append(rng.choice(" \n'0_"))

    # Emoji: modifiers, joiners, flags, keycaps, tag sequences.
    emoji = ["\U0001F469\u200D\U0001F4BB", "\U0001F44D\U0001F3FD", "\U0001F1E9\U0001F1EA", "1\uFE0F\u20E3",
             "\U0001F3F4\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F", "\u2764\uFE0F\u200D\U0001F525",
             "\U0001F468\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466"]
    for _ in range(60 if small else 2000):
        parts.append(rng.choice(emoji) + rng.choice(["", " ", "x", "\n", "'s"]))

    # Contractions, digits, spaces of all kinds, line ends.
    spaces = [" ", "  ", "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u2028",
              "\u2029", "\u202f", "\u205f", "\u3000", "\u200b", "\ufeff", "\x00", "\x1c", "\x1f"]
    words = ["don't", "DON'T", "I'LL", "we'Ve", "x'\u017f", "'S", "'re", "'D", "it's", "e\u0301t\u00e9", "\u1e9e", "\ufb06", "K\u212a",
             "12345678901", "\u0663\u0664\u0665", "\u00bd\u00b2", "\u2167", "3.14", "_under_score_", "caf\u00e9's", "\u4f60\u597d\u4e16\u754c", "\u3053\u3093\u306b\u3061\u306f",
             "\ud55c\uad6d\uc5b4", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "!!!", "...", "//", "\\\\", "=>", "{}", "\u2014", "\u201c\u2019\u201d", "$100", "a\u00adb", "\u2581", "\u2581x",
             "\u0120", "<0x41>", "\U00011de0", "\U00016ff4", "\U0001f6d8"]
    for _ in range(1500 if small else 60_000):
        parts.append(rng.choice(words))
        parts.append("".join(rng.choice(spaces) for _ in range(rng.choice([0, 1, 1, 1, 2, 5]))))

    # Added tokens glued to words, to each other, in spaces.
    for _ in range(200 if small else 4000):
        parts.append(rng.choice(["a", "_", " ", "\n \t", "1", "\u00e9", "", ".", "   "]) + rng.choice(SPECIALS)
                     + rng.choice(["b", "_", " ", " \r\n", "2", "\u0301", "", ",", "   "]))

    # Random code points.
    for _ in range(500 if small else 60_000):
        parts.append(chr(rng.choice(points[:0x31400] if rng.random() < 0.9 else points)))

    # Long runs, of lengths around those of whitespace tokens too.
    for text in (" ", "a", "\n", "\t", "\u2581", "\u00e9", "1", "!", "\u0301", "\U0001F600", "\r\n", " a", "'s"):
        run = 300 if small else 200_000 if text in " a" else 20_000
        parts.append("x" + text * run + "y")
        for n in range(1, 12 if small else 100):
            parts.append("z" + text * n)
    parts.append(" trailing  ")
    with open(sys.argv[1], "w", encoding="utf-8", newline="") as out:
        out.write("".join(parts))


if __name__ == "__main__":
    main()
