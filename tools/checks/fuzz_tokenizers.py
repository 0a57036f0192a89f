#!/usr/bin/env python3
"""Compare `mxlm tokenize` with Hugging Face `tokenizers` on random tokenizers put together from valid parts.

usage: fuzz_tokenizers.py MXLM [--real FOLDER] [--count N] [--seed S] [--keep FOLDER]

With --real, each tokenizer is a FOLDER/NAME/tokenizer.json with its vocabulary cut short, in which a few parts and flags are
changed, dropped, added or reordered. Without it, each takes a model of tests/data/text/goldens.json, and random normalizers, pre-tokenizers, regular expressions,
post-processors, decoders and flags. mxlm must give the library's ids and the text that the library decodes, or refuse
the tokenizer with a reason; a tokenizer that the library refuses, or fails on, does not count. Exit code 1 if anything
differs; --keep leaves each such tokenizer there. Needs: pip install tokenizers.
"""
import argparse
import collections
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
import make_tokenizer_goldens as parts  # noqa: E402

BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
LETTERS = "abcdehotT \u00e9\u4f60\u2581-_.,'1"
SETS = [r"\s", r"\S", r"\w", r"\W", r"\d", r"\D", r"\h", r"\H", r"\p{L}", r"\P{L}", r"\p{^L}", r"\p{Lu}", r"\p{Letter}", r"\p{N}",
        r"\p{M}", r"\p{P}", r"\p{Punct}", r"\p{Han}", r"\p{Alpha}", r"\p{Upper}", r"\p{lower}", r"\p{Space}", r"\p{Any}"]
BRACKETS = ["alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper",
            "word", "xdigit"]


def escape(character):
    return "\\" + character if character in r"\.[]{}()*+?^$|-&" else character


def character_class(r, depth=0):
    members = ""
    for _ in range(r.randint(1, 4)):
        kind = r.randrange(8)
        if kind < 3:
            members += escape(r.choice(LETTERS))
        elif kind == 3:
            members += r.choice(["a-h", "0-9", "A-Z", r"\u4e00-\u9fff", r"\x00-\x1f"])
        elif kind == 4:
            members += r.choice(SETS)
        elif kind == 5:
            members += f"[:{r.choice(['', '^'])}{r.choice(BRACKETS)}:]"
        elif kind == 6 and depth < 3:
            members += character_class(r, depth + 1)
        else:
            members += r.choice(["-", "]", "^", "&", "|", "(", ".", "&&"])
    return r.choice(["[", "[", "[^"]) + members + "]"


def regex(r, depth=0):
    out = ""
    for _ in range(r.randint(1, 3)):
        kind = r.randrange(10)
        if kind < 3:
            atom = escape(r.choice(LETTERS))
        elif kind == 3:
            atom = r.choice(SETS)
        elif kind < 7:
            atom = character_class(r)
        elif kind == 7 and depth < 2:
            atom = r.choice(["(", "(?:", "(?i:", "(?>", "(?m:", "(?=", "(?!", "(?<name>"]) + regex(r, depth + 1) + ")"
        else:
            atom = r.choice([".", "^", "$", r"\b", r"\B", r"\R", r"\A", r"\z", r"(?<=[a-z])", r"(?<! )", r"\X", "the", "\\r\\n"])
        if r.random() < 0.4 and atom not in "^$" and not atom.startswith(("(?=", "(?!", "(?<")):
            atom += r.choice(["*", "+", "?", "*?", "+?", "??", "*+", "++", "?+", "{2}", "{1,2}", "{2,}", "{,2}", "{2}?", "{1,2}?",
                              "{1,2}+", "{2}+"])
        out += atom
        if r.random() < 0.15:
            out += "|"
    return out


def pattern(r):
    if r.random() < 0.2:
        return {"String": r.choice(["the", " ", "e", "\u2581", "--"])}
    if r.random() < 0.2:
        return {"Regex": r.choice([parts.QWEN, parts.O200K, " ?[^(\\s|[.,!?\u2026\u3002\uff0c])]+"])}
    return {"Regex": regex(r)}


def flag(r):
    return r.random() < 0.5


def normalizer(r, depth=0):
    if depth < 2 and r.random() < 0.25:
        return {"type": "Sequence", "normalizers": [normalizer(r, depth + 1) for _ in range(r.randint(0, 3))]}
    return r.choice([
        lambda: {"type": r.choice(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"])},
        lambda: {"type": "BertNormalizer", "clean_text": flag(r), "handle_chinese_chars": flag(r),
                 "strip_accents": r.choice([None, True, False]), "lowercase": flag(r)},
        lambda: {"type": "Strip", "strip_left": flag(r), "strip_right": flag(r)},
        lambda: {"type": "Prepend", "prepend": r.choice(["\u2581", "x", " a"])},
        lambda: {"type": "Replace", "pattern": pattern(r), "content": r.choice(["", " ", "\u2581", "ab"])},
        lambda: {"type": "Precompiled", "precompiled_charsmap": parts.charsmap(dict(r.sample([
            ("\ufb01", "fi"), ("e\u0301", "\u00e9"), ("\u00a0", " "), ("\r\n", "\n"), ("T", "t"), ("\u2460", "1"), ("the", "T"),
            ("\U0001f44d", "+"), ("\t", " "), ("\x1c", ""), ("e", "E")], 5)))},
    ])()


def pre_tokenizer(r, depth=0):
    if depth < 2 and r.random() < 0.4:
        return {"type": "Sequence", "pretokenizers": [pre_tokenizer(r, depth + 1) for _ in range(r.randint(0, 3))]}
    return r.choice([
        lambda: {"type": "ByteLevel", "add_prefix_space": flag(r), "trim_offsets": flag(r), "use_regex": flag(r)},
        lambda: parts.split(pattern(r), r.choice(BEHAVIORS), flag(r)),
        lambda: parts.split(pattern(r), r.choice(BEHAVIORS), flag(r)),
        lambda: {"type": "Metaspace", "replacement": r.choice("\u2581_"), "split": flag(r),
                 "prepend_scheme": r.choice(["first", "always", "never"])},
        lambda: {"type": "Digits", "individual_digits": flag(r)},
        lambda: {"type": r.choice(["Whitespace", "WhitespaceSplit", "BertPreTokenizer", "UnicodeScripts"])},
        lambda: {"type": "Punctuation", "behavior": r.choice(BEHAVIORS)},
        lambda: {"type": "CharDelimiterSplit", "delimiter": r.choice(" e\u2581-")},
        lambda: {"type": "FixedLength", "length": r.randint(1, 9)},
    ])()


def post_processor(r):
    pair = {"sep": ["x", 2], "cls": ["y", 1]}
    one = [{"SpecialToken": {"id": "y", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    kinds = [None, parts.BYTE_LEVEL, dict(pair, type="BertProcessing"),
             dict(pair, type="RobertaProcessing", trim_offsets=flag(r), add_prefix_space=flag(r)),
             {"type": "TemplateProcessing", "single": one, "pair": one + [{"Sequence": {"id": "B", "type_id": 0}}],
              "special_tokens": {"y": {"id": "y", "ids": [3, 1], "tokens": ["y", "y"]}}}]
    if r.random() < 0.3:
        return {"type": "Sequence", "processors": [k for k in r.sample(kinds, 2) if k]}
    return r.choice(kinds)


def decoder(r):
    return r.choice([None, parts.BYTE_LEVEL, {"type": "Fuse"}, {"type": "WordPiece", "prefix": "##", "cleanup": flag(r)},
                     {"type": "BPEDecoder", "suffix": r.choice(["$", "e"])}, {"type": "ByteFallback"},
                     {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": r.choice(["first", "never"]), "split": True},
                     {"type": "Strip", "content": "t", "start": 1, "stop": r.randint(0, 2)}])


def random_tokenizer(r, models):
    name = r.choice(list(models))
    model = dict(models[name])
    if model["type"] == "BPE":
        model.update(ignore_merges=flag(r), fuse_unk=flag(r), byte_fallback=flag(r))
        if flag(r) and name not in ("affixes",):
            model["unk_token"] = "e"
    if model["type"] == "WordPiece":
        model.update(max_input_chars_per_word=r.choice([0, 3, 100]), continuing_subword_prefix=r.choice(["##", ""]))
    if model["type"] == "Unigram":
        model.update(byte_fallback=flag(r), unk_id=r.choice([0, 1, None]))
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": r.choice([None, normalizer(r)]), "pre_tokenizer": r.choice([None, pre_tokenizer(r), pre_tokenizer(r)]),
            "post_processor": post_processor(r), "decoder": decoder(r), "model": model}


def short_model(model):
    """The model with the tokens that its first merges make, under their own ids."""
    merges = model.get("merges", [])[:2500]
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in merges]
    kept = {"".join(pair) for pair in pairs} | {part for pair in pairs for part in pair}
    vocab = {t: i for t, i in model["vocab"].items() if t in kept or len(t) == 1 or (t[0] == "<" and t[-1] == ">")}
    return dict(model, vocab=vocab, merges=merges)


def dictionaries(value):
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from dictionaries(child)


def changed_pattern(r, words):
    """A regular expression with one of its alternatives dropped, put elsewhere or replaced, or another count."""
    parts_of = words.split("|")
    at = r.randrange(len(parts_of))
    kind = r.randrange(4)
    if kind == 0 and len(parts_of) > 1:
        del parts_of[at]
    elif kind == 1:
        parts_of.insert(r.randrange(len(parts_of)), parts_of.pop(at))
    elif kind == 2:
        parts_of[at] = regex(r)
    else:
        return words.replace("+", r.choice(["*", "{2,}", "+?", "++"]), 1) if "+" in words else words + "+"
    return "|".join(parts_of)


def change(r, whole):
    """Changes one part or flag of a tokenizer.json."""
    model = whole["model"]
    makers = {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder}
    part = r.choice(list(makers))
    sort = r.choice(["part", "drop", "flag", "flag", "flag", "pattern", "pattern", "steps", "added", "added", "model", "behavior"])
    inside = [d for key in makers if whole.get(key) for d in dictionaries(whole[key])]
    flags = [(d, k) for d in inside + whole["added_tokens"] for k, v in d.items() if isinstance(v, bool)]
    patterns = [d for d in inside if "Regex" in d]
    steps = [d[k] for d in inside for k in ("normalizers", "pretokenizers", "processors", "decoders") if k in d]
    behaviors = [d for d in inside if "behavior" in d or "prepend_scheme" in d]
    if sort == "part":
        whole[part] = makers[part](r)
    elif sort == "drop":
        whole[part] = None
    elif sort == "flag" and flags:
        owner, key = r.choice(flags)
        owner[key] = not owner[key]
    elif sort == "pattern" and patterns:
        owner = r.choice(patterns)
        owner["Regex"] = changed_pattern(r, owner["Regex"])
    elif sort == "steps" and steps:
        chosen = r.choice(steps)
        at = r.randrange(len(chosen) + 1)
        if flag(r) and len(chosen) > 1:
            chosen.insert(r.randrange(len(chosen)), chosen.pop(r.randrange(len(chosen))))
        elif flag(r) and chosen:
            del chosen[r.randrange(len(chosen))]
        elif any(chosen is d.get("pretokenizers") for d in inside):
            chosen.insert(at, pre_tokenizer(r))
        elif any(chosen is d.get("normalizers") for d in inside):
            chosen.insert(at, normalizer(r))
    elif sort == "added":
        content = r.choice(["<s>", "the", " ", "<|x|>", "\u00e9", "Alice ", "\n", "<|endoftext|>", "th"])
        number = r.choice([max(model["vocab"].values()) + 1 + len(whole["added_tokens"]), model["vocab"].get(content, 10 ** 6)])
        if content not in {t["content"] for t in whole["added_tokens"]} and number not in {t["id"] for t in whole["added_tokens"]}:
            whole["added_tokens"].append(parts.added(content, id=number, single_word=r.random() < 0.2, lstrip=flag(r), rstrip=flag(r),
                                                     normalized=flag(r), special=flag(r)))
    elif sort == "behavior" and behaviors:
        owner = r.choice(behaviors)
        key = "behavior" if "behavior" in owner else "prepend_scheme"
        owner[key] = r.choice(BEHAVIORS if key == "behavior" else ["first", "always", "never"])
    elif sort == "model":
        key = r.choice(["ignore_merges", "fuse_unk", "byte_fallback", "unk_token", "merges"])
        if key == "unk_token":
            model[key] = r.choice([None, r.choice(list(model["vocab"]))])
        elif key == "merges":
            model[key] = [m.split(" ") if isinstance(m, str) else m for m in model[key]]
        else:
            model[key] = not model.get(key)


def random_text(r):
    if flag(r):
        return r.choice(parts.TEXTS) + r.choice(parts.TEXTS)
    return "".join(r.choice(LETTERS + "thealice\n\t\r\u0301\U0001f44d\ufb01\u212b&|^]{}") for _ in range(r.randint(1, 60)))


def compare(binary, whole, texts, folder):
    try:
        library = Tokenizer.from_str(json.dumps(whole))
    except BaseException:
        return "the library refuses it", ""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(whole))
    compared = False
    for text in texts:
        try:
            ids = library.encode(text).ids
            decoded = library.decode(ids, skip_special_tokens=False)
        except BaseException:
            continue  # for example an unk_token that is not there, or offsets that the library loses
        (folder / "text").write_text(text, newline="")
        (folder / "ids").write_text(json.dumps(ids))
        ours = subprocess.run([binary, "tokenize", path, "--special", "--text", folder / "text"], capture_output=True)
        if ours.returncode != 0:
            return "refused", ours.stderr.decode().strip()
        if json.loads(ours.stdout) != ids:
            return "differs", f"{text!r}: ours {json.loads(ours.stdout)}, theirs {ids}"
        back = subprocess.run([binary, "tokenize", path, "--decode", "--text", folder / "ids"], capture_output=True)
        if back.returncode != 0 or back.stdout.decode().removesuffix("\n") != decoded.removesuffix("\n"):
            return "differs", f"{text!r}: decoded {back.stdout.decode() + back.stderr.decode()!r}, theirs {decoded!r}"
        compared = True
    return ("equal" if compared else "the library fails on its texts"), ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mxlm", type=Path)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    models = json.loads((Path(__file__).resolve().parents[2] / "tests/data/text/goldens.json").read_text())["models"]
    real = []
    for path in sorted(arguments.real.glob("*/tokenizer.json")) if arguments.real else []:
        whole = json.loads(path.read_text())
        real.append(json.dumps(dict(whole, model=short_model(whole["model"]))))
    counts, reasons = collections.Counter(), collections.Counter()
    for i in range(arguments.count):
        r = random.Random(f"{arguments.seed} {i}")
        if arguments.real:
            whole = json.loads(r.choice(real))
            for _ in range(r.choice([1, 1, 2, 3])):
                change(r, whole)
        else:
            whole = random_tokenizer(r, models)
        with tempfile.TemporaryDirectory() as folder:
            result, words = compare(arguments.mxlm.resolve(), whole, [random_text(r), random_text(r)], Path(folder))
        counts[result] += 1
        if result == "refused":
            reasons[words.split("tokenizer.json", 1)[-1][:150]] += 1
        if result == "differs":
            print(f"{i}: {words[:600]}")
            print("   ", json.dumps({k: v for k, v in whole.items() if k not in ("model", "version") and v})[:900])
            if arguments.keep:
                (arguments.keep / f"{arguments.seed}-{i}.json").write_text(json.dumps(whole))
    for words, n in reasons.most_common(40):
        print(f"refused {n}: {words}")
    print(dict(counts))
    sys.exit(1 if counts["differs"] else 0)


if __name__ == "__main__":
    main()
