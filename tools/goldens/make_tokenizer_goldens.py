#!/usr/bin/env python3
"""Write tests/data/text/goldens.json: what Hugging Face `tokenizers` makes of small tokenizers and hard texts.

usage: make_tokenizer_goldens.py REPOSITORY OUT.json

Small BPE models are trained on the spot without cutting words, so that a token may cross any place where a
pre-tokenizer could cut, and each tokenizer varies one part or flag. A case is the numbers of three answers: its ids and its
ids with special tokens in "ids", its decoded text in "decoded"; null where the library fails. Needs: pip install tokenizers.
"""
import base64
import copy
import json
import math
import struct
import sys
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
O200K = ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
NO_REGEX = dict(BYTE_LEVEL, use_regex=False)

TEXTS = [
    "", " ", "a", "Alice was beginning to get very tired of sitting by her sister on the bank,",
    "  the  the   the\tthe\n\nthe \n the\r\n\r\nthe ", "don't DON'T I'LL it's x'\u017f 'S's we've'", "the1the22 333the4444the 55555",
    "\u0663\u0664\u0665 \u00bd\u00b2 \u2167 \U00011de0\U00016ff4 1\u00b2", "caf\u00e9 cafe\u0301 \u1e9b\u0323 \ufb01 \u2460 \u1100\u1161\u11a8 \uac00\u11a8 \u0344 \u0958 \u212b",
    "a\u0301\u0327\u0323b a\u0327\u0301 \u105d2\u0307 \U000105d2\u0307 \u0d3b\u0301 \u1df6\u0334", "\u4f60\u597d\uff0c\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22",
    "\U0001f469\u200d\U0001f4bb\U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea 1\ufe0f\u20e3", "nul\x00nul\x00 \x1c\x1d \x85\xa0\u180e\u2003\u2028x\u3000\ufeffy",
    "the-final--countdown - the--the-", "\u2581the\u2581\u2581the the \u2581 the", "THE \u0130stanbul \u01c5 \u1e9e \u039f\u03a3", "_the_ the_the the. the, (the) \"the\" the!?...",
    "<t>the<t> the <t>\n<t><t>the", "the<n>the <n> the<N>", "the<l>the  <l> \n <l>the", "the<r>the <r>  \n the<r> <r>",
    "the<w>the <w> the_<w>_ <w>. \u00e9<w>", "<b><bo><bos><boss> <b", "\u00c9<e\u0301> \u00c9<\u00e9>", "the   \u2581 <s>the</s> the <unk> the", "<0x41><0x0A> <0xZZ> \u20ac\U0001f600 \u00ff",
    "a" * 60 + " " * 20 + "the" * 20, "\n" * 9 + " \n" * 9 + "\r" * 3, "x\u2029y\u200bz\u00adw\u2060v", "\U0002ebf0\U00031350\u1c89\ua7cb\U00010ec2 \u0cf3\u0ece\U0001e030",
]


def added(content, **flags):
    entry = {"id": 0, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": False}
    entry.update(flags)
    return entry


def train(pre, alphabet, text, size):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False,
                                  max_token_length=12)
    tokenizer.train_from_iterator([text[i:i + 400] for i in range(0, len(text), 400)], trainer)
    return json.loads(tokenizer.to_str())["model"]


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def tokenizer_list():
    """(name, model, parts): parts are members of tokenizer.json; "bpe" holds members of the model."""
    out = [("plain bytes", "bytes", {}), ("plain characters", "characters", {})]

    def add(name, model="bytes", **parts):
        out.append((name, model, parts))

    # Pre-tokenizers.
    add("ByteLevel", pre_tokenizer=BYTE_LEVEL, decoder=BYTE_LEVEL, post_processor=BYTE_LEVEL)
    add("ByteLevel prefix space", pre_tokenizer=dict(BYTE_LEVEL, add_prefix_space=True), decoder=BYTE_LEVEL)
    add("ByteLevel no regex", pre_tokenizer=NO_REGEX, decoder=BYTE_LEVEL)
    add("ByteLevel no regex prefix space", pre_tokenizer=dict(NO_REGEX, add_prefix_space=True), decoder=BYTE_LEVEL)
    add("ByteLevel on an incomplete alphabet", "characters", pre_tokenizer=BYTE_LEVEL, decoder=BYTE_LEVEL)
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            name = f"Split {behavior}{' invert' if invert else ''}"
            add(name + " String", pre_tokenizer=sequence(split({"String": "the"}, behavior, invert), NO_REGEX))
            add(name + " Regex", pre_tokenizer=sequence(split({"Regex": r"\s|-"}, behavior, invert), NO_REGEX))
            add(name + " empty matches", pre_tokenizer=sequence(split({"Regex": r"\p{N}*"}, behavior, invert), NO_REGEX))
    add("Qwen2", normalizer={"type": "NFC"}, pre_tokenizer=sequence(split({"Regex": QWEN}), NO_REGEX))
    add("Llama-3", pre_tokenizer=sequence(split({"Regex": QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")}), NO_REGEX),
        bpe={"ignore_merges": True})
    add("o200k", pre_tokenizer=sequence(split({"Regex": O200K}), NO_REGEX))
    for pattern in (r"\w+", r"\W+", r"[\w-]+", r"\bthe\b", r"\Bthe", r"[^\S\n]+", r"[\s\S]{1,5}", r"\s+$", r"^the|the$", r".+",
                    r"[\P{L}\d]+", r"[^\P{L}a-e]+", r"\h+", r"(?<=t)h|(?<!t)e", r"(?i)THE", r"a?+b|x*+", r"[]a]|[^]a ]",
                    r"\p{Han}+", r"\p{^L}+", r"[\p{Lu}\p{Lt}]\p{M}*", r"\u0041|\x{1F469}|\x41", r"\d+", r"\D+", r"(?:th|t)(?=e)", r"{|the{1,2}"):
        add("Regex " + pattern, pre_tokenizer=sequence(split({"Regex": pattern}), NO_REGEX))
    for individual in (True, False):
        add(f"Digits {individual}", pre_tokenizer=sequence({"type": "Digits", "individual_digits": individual}, BYTE_LEVEL))
    add("Whitespace", "characters", pre_tokenizer={"type": "Whitespace"})
    add("WhitespaceSplit", "characters", pre_tokenizer={"type": "WhitespaceSplit"})
    add("ByteLevel before Split", pre_tokenizer=sequence(NO_REGEX, split({"String": "\u0120"}, "MergedWithNext")))
    add("ByteLevel twice", pre_tokenizer=sequence(BYTE_LEVEL, BYTE_LEVEL))
    for scheme in ("first", "always", "never"):
        for cut in (True, False):
            metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}
            tokens = [added("<t>"), added("<n>", normalized=True)]
            add(f"Metaspace {scheme} {cut}", "characters", pre_tokenizer=metaspace, decoder=metaspace, added_tokens=tokens)
    first = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}
    add("Metaspace legacy", "characters", pre_tokenizer={"type": "Metaspace", "replacement": "_", "add_prefix_space": True},
        decoder={"type": "Metaspace", "replacement": "_", "add_prefix_space": True})
    add("Metaspace after Split", "characters", pre_tokenizer=sequence(split({"String": "h"}), first))
    add("Metaspace after Prepend and Split", "characters", normalizer={"type": "Prepend", "prepend": "x-"},
        pre_tokenizer=sequence(split({"String": "-"}), first))
    add("Metaspace after Replace", "characters", pre_tokenizer=sequence(split({"String": "y"}), first),
        normalizer={"type": "Replace", "pattern": {"Regex": "^."}, "content": "xyz"})
    add("Metaspace after Strip", "characters", normalizer={"type": "Strip", "strip_left": True, "strip_right": True},
        pre_tokenizer=first)
    add("Metaspace after Digits and ByteLevel", "characters", pre_tokenizer=sequence(NO_REGEX, first))

    # Normalisers.
    for form in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase"):
        add(form, normalizer={"type": form}, pre_tokenizer=NO_REGEX)
    add("Strip left", normalizer={"type": "Strip", "strip_left": True, "strip_right": False}, pre_tokenizer=NO_REGEX)
    add("Strip right", normalizer={"type": "Strip", "strip_left": False, "strip_right": True}, pre_tokenizer=NO_REGEX)
    add("Replace Regex", pre_tokenizer=NO_REGEX,
        normalizer={"type": "Replace", "pattern": {"Regex": r" {2,}|\d"}, "content": "+"})
    legacy = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                                  {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    decoders = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    specials = [added("<unk>", special=True), added("<s>", special=True), added("</s>", special=True, normalized=True)]
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1, 3], "tokens": ["a", "b"]},
                                   "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}
    llama = dict(normalizer=legacy, decoder=decoders, added_tokens=specials, post_processor=template)
    add("Llama legacy", "fallback", **llama, bpe={"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True})
    add("Llama legacy, no fusing", "fallback", **llama, bpe={"unk_token": "<unk>", "byte_fallback": True})

    # Models.
    for fuse in (True, False):
        add(f"unknown, fuse {fuse}", "characters", bpe={"unk_token": "e", "fuse_unk": fuse}, decoder={"type": "Fuse"})
    add("byte fallback with a hole", "hole", bpe={"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True})
    add("ignore_merges", "characters", bpe={"ignore_merges": True}, pre_tokenizer={"type": "WhitespaceSplit"})
    add("subword prefix and suffix", "affixes", pre_tokenizer={"type": "WhitespaceSplit"},
        bpe={"unk_token": "u", "continuing_subword_prefix": "##", "end_of_word_suffix": "$"})
    add("ByteLevel subword prefix", "affixes", pre_tokenizer=BYTE_LEVEL,
        bpe={"unk_token": "u", "continuing_subword_prefix": "##"})

    # Added tokens.
    tokens = [added("<t>", special=True), added("<n>", normalized=True), added("<l>", lstrip=True),
              added("<r>", rstrip=True), added("<w>", single_word=True), added("<b>"), added("<bo>"), added("<bos>"),
              added("<\u00e9>", normalized=True), added("  ", normalized=True), added("the", normalized=True, single_word=True),
              added("<l> <r>", lstrip=True, rstrip=True, special=True), added(" \n", lstrip=True)]
    add("added tokens", pre_tokenizer=BYTE_LEVEL, added_tokens=tokens, decoder=BYTE_LEVEL)
    add("added tokens, NFD and Lowercase", pre_tokenizer=BYTE_LEVEL, added_tokens=tokens,
        normalizer={"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}]})
    add("added tokens, Prepend", "characters", added_tokens=tokens, normalizer=legacy, decoder=decoders)
    add("added tokens, encode_special", pre_tokenizer=BYTE_LEVEL, added_tokens=tokens, encode_special=True)

    # Decoders.
    add("decoder Strip", "characters", decoder={"type": "Strip", "content": "t", "start": 1, "stop": 0})
    add("decoder Replace Regex", "characters", decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"Regex": "e|t*"}, "content": "_"}, {"type": "Fuse"}]})
    add("post-processor Sequence", "fallback", added_tokens=specials, decoder={"type": "ByteFallback"},
        post_processor={"type": "Sequence", "processors": [BYTE_LEVEL, template]})
    # Pieces as other tokenizers than byte-level ones cut them.
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        add(f"Punctuation {behavior}", pre_tokenizer=sequence({"type": "Punctuation", "behavior": behavior}, NO_REGEX))
    add("Punctuation", pre_tokenizer=sequence({"type": "Punctuation"}, NO_REGEX))
    add("Falcon", pre_tokenizer=sequence({"type": "Punctuation", "behavior": "Contiguous"}, BYTE_LEVEL,
                                         {"type": "Digits", "individual_digits": False},
                                         split({"Regex": "[0-9][0-9][0-9]"})))
    add("BertPreTokenizer", "characters", pre_tokenizer={"type": "BertPreTokenizer"})
    for delimiter in ("-", "\u2581", "\u00e9"):
        add(f"CharDelimiterSplit {delimiter}", "characters",
            pre_tokenizer={"type": "CharDelimiterSplit", "delimiter": delimiter})
    for length in (1, 5, 100):
        add(f"FixedLength {length}", "characters", pre_tokenizer={"type": "FixedLength", "length": length})

    # Classes and repetitions as Oniguruma reads them.
    for pattern in (" ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+", r"[a-z&&[^aeiou]]+", r"[\w&&[^\d_]]+",
                    r"[^a-z&&[^aeiou]]", r"[a[b-]c]+", r"[a[-b]]+", r"[x[^\s]]+", r"[^[^\s]]+", r"[\p{L}&&\p{Lu}]",
                    r"[[:alpha:]]+", r"[[:^alpha:]]", r"[^[:space:]]+", r"[[:punct:]a]+", r"[[:upper:]]", r"[[:lower:]]+",
                    r"[[:alnum:]_-]+", r"[[:word:]]+", r"[[:graph:]]{2}", r"[[:print:]]+", r"[[:cntrl:]]", r"[[:blank:]]+",
                    r"[[:xdigit:]]+", r"[[:digit:]]+", r"[[:ascii:]]+", r"\p{Letter}+", r"\p{lowercase letter}+", r"\p{Alpha}+",
                    r"\p{Punct}+", r"\p{^Punctuation}+", r"\p{han}+", r"\p{White_Space}", r"\R", r"t{,2}h", r"(?:th){1,2}+e",
                    r"t{2}?h", r"(?m:h.{2})", r"(?im:TH.)", r"(?<name>th)e", r"t(?#a comment)h", r"(?i)[[a-h]&&[^c]]+",
                    r"\pL+", r"a\pb|[\P\pe]+"):
        add("Regex " + pattern, pre_tokenizer=sequence(split({"Regex": pattern}), NO_REGEX))

    # Normalisers of other models' tokenizers.
    for name in ("StripAccents", "Nmt"):
        add(name, normalizer={"type": name}, pre_tokenizer=NO_REGEX)
    add("ByteLevel normaliser", normalizer={"type": "ByteLevel"}, decoder=BYTE_LEVEL)
    for clean, chinese, accents, lower in ((True, True, None, True), (True, False, False, False), (False, True, None, False),
                                           (False, False, True, False), (False, False, None, True), (True, True, False, True)):
        add(f"BertNormalizer {clean} {chinese} {accents} {lower}", pre_tokenizer=NO_REGEX,
            normalizer={"type": "BertNormalizer", "clean_text": clean, "handle_chinese_chars": chinese,
                        "strip_accents": accents, "lowercase": lower})
    precompiled = {"type": "Precompiled", "precompiled_charsmap": charsmap({
        "\ufb01": "fi", "e\u0301": "\u00e9", "\u212b": "\u00c5", "\u00a0": " ", "\r\n": "\n", "T": "t", "\u2460": "1",
        "\U0001f44d": "+", "\u1100": "g", "\x1c": ""})}
    add("Precompiled", normalizer=precompiled, pre_tokenizer=NO_REGEX)

    # Post-processors.
    pair = {"sep": ["</s>", 2], "cls": ["<s>", 1]}
    add("BertProcessing", "fallback", added_tokens=specials, post_processor=dict(pair, type="BertProcessing"))
    roberta = dict(pair, type="RobertaProcessing", trim_offsets=True, add_prefix_space=True)
    add("RobertaProcessing", "fallback", added_tokens=specials, post_processor=roberta)
    add("two post-processors", "fallback", added_tokens=specials,
        post_processor={"type": "Sequence", "processors": [roberta, template]})

    # Models that are not BPE.
    word_piece = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    bert = dict(pre_tokenizer={"type": "BertPreTokenizer"}, decoder=word_piece)
    add("WordPiece", "word pieces", **bert)
    add("WordPiece of few characters", "word pieces", bpe={"max_input_chars_per_word": 3}, **bert)
    add("WordPiece alone", "word pieces", decoder=dict(word_piece, cleanup=False))
    add("WordPiece, BERT", "word pieces", **bert,
        normalizer={"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                    "lowercase": True})
    add("WordLevel", "words", pre_tokenizer={"type": "Whitespace"})
    unigram = dict(pre_tokenizer={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
                   decoder={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True})
    add("Unigram", "unigram", **unigram)
    add("Unigram byte fallback", "unigram", bpe={"byte_fallback": True}, **unigram)
    add("Unigram alone", "unigram")
    add("Unigram as of T5", "unigram", **dict(unigram, normalizer=precompiled))
    add("Unigram with ties", "ties")
    add("Unigram with tokens twice", "twice")
    add("BPEDecoder", "affixes", pre_tokenizer={"type": "WhitespaceSplit"}, decoder={"type": "BPEDecoder", "suffix": "$"},
        bpe={"unk_token": "u", "continuing_subword_prefix": "##", "end_of_word_suffix": "$"})
    return out


def charsmap(replacements):
    """A SentencePiece precompiled_charsmap, in base64: a double-array trie (Darts-clone's units) and its replacements."""
    text, offsets = b"", {}
    for key, value in replacements.items():
        offsets[key.encode()] = len(text)
        text += value.encode() + b"\0"
    units, used = {0: 0}, {0}

    def place(node, keys, depth):  # `node` is where the unit of this prefix stands
        children = sorted({key[depth] for key in keys if len(key) > depth})
        leaf = [key for key in keys if len(key) == depth]
        labels = children + ([0] if leaf else [])
        base = next(b for b in range(1, 1 << 20) if all((b ^ c) not in used for c in labels) and (b ^ node) < 1 << 21)
        used.update(base ^ c for c in labels)
        units[node] |= (base ^ node) << 10 | (1 << 8 if leaf else 0)
        if leaf:
            units[base] = 1 << 31 | offsets[leaf[0]]
        for c in children:
            units[base ^ c] = c
        for c in children:
            place(base ^ c, [key for key in keys if len(key) > depth and key[depth] == c], depth + 1)

    place(0, list(offsets), 0)
    array = [units.get(i, 0) for i in range(max(units) // 256 * 256 + 256)]
    return base64.b64encode(struct.pack(f"<{len(array) + 1}I", 4 * len(array), *array) + text).decode()


def main():
    repository, target = Path(sys.argv[1]), sys.argv[2]
    text = (repository / "data/alice.txt").read_text(encoding="utf-8")[:60_000]
    extra = "\u2581\u00e9\u0301\u4f60\u597d\n\t"
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    byte_model = train(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), alphabet, text, 700)
    characters = train(None, list(extra), text + "".join(TEXTS[:8]), 600)
    fallback = train(None, list(extra), text.replace(" ", "\u2581"), 500)
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + sorted(fallback["vocab"], key=fallback["vocab"].get)
    fallback["vocab"] = {t: i for i, t in enumerate(dict.fromkeys(tokens))}
    hole = copy.deepcopy(fallback)
    del hole["vocab"]["<0xF0>"]
    fallback["merges"] = [" ".join(m) for m in fallback["merges"]]  # the older form
    affixes = {"type": "BPE", "vocab": {t: i for i, t in enumerate(
        ["u", "t", "##h", "##e", "##e$", "e$", "th", "the$", "##he$", "##t", "##th", "##the$", "a", "##a", "the", "##he"])},
        "merges": [["##h", "##e$"], ["t", "##h"], ["t", "##he$"], ["##t", "##h"], ["##th", "##e$"], ["th", "##e"]]}
    parts = ["[UNK]"] + sorted({t.replace("\u2581", "") for t in fallback["vocab"] if t[0] != "<"} - {""})
    word_pieces = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100,
                   "vocab": {t: i for i, t in enumerate(parts + ["##" + p for p in parts[1:] if len(p) < 4] + ["."])}}
    words = {"type": "WordLevel", "unk_token": "[UNK]",
             "vocab": {"[UNK]": 0, "the": 3, "Alice": 1, "of": 2, ",": 4, "-": 5, "_the_": 6, "!?...": 7}}
    scored = [t for t in fallback["vocab"] if not t.startswith("<0x")]
    unigram = {"type": "Unigram", "unk_id": 0, "byte_fallback": False,
               "vocab": [[t, -math.log(i + 1) - 0.1 * len(t) % 0.7] for i, t in enumerate(scored)]
               + [[f"<0x{b:02X}>", -20.0] for b in range(256)]}
    ties = {"type": "Unigram", "unk_id": 1, "byte_fallback": False,
            "vocab": [["a", -1], ["<unk>", 0], ["aa", -2], ["t", -1.5], ["h", -1.5], ["th", -3], ["he", -3], ["e", -1.5],
                      ["the", -4.5], [" ", -2], ["  ", -4], ["\u4f60\u597d", -5]]}
    twice = dict(ties, vocab=ties["vocab"] + [["the", -9], ["th", -2], ["a", -8]])
    all_models = {"twice": twice, "word pieces": word_pieces, "words": words, "unigram": unigram, "ties": ties,
                  "bytes": byte_model, "characters": characters, "fallback": fallback, "hole": hole, "affixes": affixes}

    out, answers, decodings = [], {}, {}

    def number_of(table, answer):
        return table.setdefault(json.dumps(answer), len(table))

    for name, model, parts in tokenizer_list():
        parts = copy.deepcopy(parts)
        encode_special = parts.pop("encode_special", False)
        options = parts.pop("bpe", {})
        whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": None, "post_processor": None, "decoder": None}
        whole.update(parts)
        whole["model"] = dict(all_models[model], **options)
        tokenizer = Tokenizer.from_str(json.dumps(whole))
        for entry in parts.get("added_tokens", []):
            entry["id"] = tokenizer.token_to_id(entry["content"])
        tokenizer.encode_special_tokens = encode_special
        cases = []
        for text in TEXTS:
            try:
                ids = tokenizer.encode(text, add_special_tokens=False).ids
            except BaseException as error:  # the library's own alignment of offsets fails on some; there is no answer
                if type(error).__name__ != "PanicException":
                    raise
                cases.append(None)
                continue
            special = tokenizer.encode(text, add_special_tokens=True).ids
            decoded = tokenizer.decode(ids, skip_special_tokens=False)
            cases.append([number_of(answers, ids), number_of(answers, special), number_of(decodings, decoded)])
        out.append({"name": name, "model": model, "options": options, "parts": parts, "encode_special": encode_special,
                    "cases": cases})

    booklet = Tokenizer.from_file(str(repository / "models/booklet-7m/tokenizer.json"))
    excerpts = [(repository / "data" / f).read_text(encoding="utf-8")[a:a + 3000]
                for f, a in (("alice.txt", 0), ("time-machine.txt", 50_000), ("wiki.test.raw", 400_000))] + TEXTS
    cases = [{"text": t, "ids": booklet.encode(t, add_special_tokens=False).ids} for t in excerpts]
    with open(target, "w", encoding="utf-8") as file:
        json.dump({"made_by": f"tools/goldens/make_tokenizer_goldens.py with tokenizers {tokenizers.__version__}",
                   "texts": TEXTS, "models": all_models, "tokenizers": out, "ids": [json.loads(a) for a in answers],
                   "decoded": [json.loads(a) for a in decodings], "booklet": cases},
                  file, ensure_ascii=True, separators=(",", ":"))


if __name__ == "__main__":
    main()
