#!/usr/bin/env python3
"""Writes tests/data/eval/protocols.json: windows of short texts by each protocol, cut in Python from the token ids of
the `tokenizers` library.

The tokenizer is models/booklet-7m/tokenizer.json: as it is, with a template that puts its one special token before a
text, and with one that also ends the text with it.

Usage: tools/make_protocol_goldens.py [OUT]   (needs tokenizers; the version used is in the file)
"""

import itertools
import json
import pathlib
import sys

import tokenizers

ROOT = pathlib.Path(__file__).resolve().parent.parent
SPECIAL = "<|endoftext|>"
TEMPLATES = {"plain": None, "bos": [SPECIAL, "$A"], "bos-eos": [SPECIAL, "$A", SPECIAL]}

book = (ROOT / "data/alice.txt").read_bytes().decode()[2000:5200]
wiki = b"".join((ROOT / "data/wiki.test.raw").read_bytes().splitlines(keepends=True)[:9])[:4000].decode()
assert wiki.startswith(" \n = ")
if not wiki.endswith("\n"):
    wiki += " \n"  # what a line of the file ends with

TEXTS = {
    "book": {"is_text": True, "documents": [book]},
    "book with newlines at its end": {"is_text": True, "documents": [book + "\n\n"]},
    "wiki": {"is_text": True, "documents": [wiki]},
    "wiki with CRLF": {"is_text": True, "documents": [wiki.replace("\n", "\r\n")]},
    "special token in the text": {"is_text": True, "documents": [f"One day.{SPECIAL}Another day. " * 12]},
    "two texts": {"is_text": True, "documents": [book[:700], book[900:2000]]},
    "documents": {"is_text": False,
                  "documents": [book[:400], "", "a", wiki[:900], "Two words", " \n = Title = \n \n", book[400:520]]},
}


def tokenizer(template):
    data = json.loads((ROOT / "models/booklet-7m/tokenizer.json").read_text())
    if TEMPLATES[template]:
        piece = [{"Sequence": {"id": "A", "type_id": 0}} if t == "$A" else {"SpecialToken": {"id": t, "type_id": 0}}
                 for t in TEMPLATES[template]]
        data["post_processor"] = {
            "type": "TemplateProcessing",
            "single": piece,
            "pair": piece + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {SPECIAL: {"id": SPECIAL, "ids": [0], "tokens": [SPECIAL]}},
        }
    return data, tokenizers.Tokenizer.from_str(json.dumps(data))


def encode(tok, text, bos, parse_special=True):
    """Ids by the BOS policy. The library always finds special tokens in a text, so not parsing them means to encode
    what is between them and, as ordinary text, what they are made of."""
    if parse_special:
        ids = tok.encode(text, add_special_tokens=bos != "never").ids
    else:
        data = json.loads(tok.to_str())
        data["added_tokens"] = []
        processor = data.pop("post_processor", None)
        data["post_processor"] = None
        ids = tokenizers.Tokenizer.from_str(json.dumps(data)).encode(text).ids
        if processor and bos != "never":
            out = []
            for item in processor["single"]:
                out += ids if "Sequence" in item else [0]
            ids = out
    if bos == "always" and ids[:1] != [0]:
        ids = [0] + ids
    return ids


def window(tok, source, n, bos):
    for d, text in enumerate(source["documents"]):
        ids = encode(tok, text, bos)
        while ids:
            head, ids = ids[:n], ids[n:]
            if len(head) > 1:
                yield head, 1, d


def document(tok, source, n, bos):
    truncating = tokenizers.Tokenizer.from_str(tok.to_str())
    truncating.enable_truncation(n)
    for d, text in enumerate(source["documents"]):
        if bos == "always":
            ids = encode(tok, text, bos)
            suffix = tok.encode("").ids[1:]
            ids = ids if len(ids) <= n else ids[: n - len(suffix)] + suffix
        else:
            ids = truncating.encode(text, add_special_tokens=bos != "never").ids
        if len(ids) < 2:
            yield None
        else:
            yield ids, 1, d


def rows(source):
    """A raw WikiText file as the rows of its data set, as their Hugging Face loader makes them; else one row a text."""
    for text in source["documents"]:
        lines = text.split("\n")
        if source["is_text"] and lines[-1] == "" and all(len(x) > 0 and x[0] == " " == x[-1] for x in lines[:-1]):
            for line in text.splitlines(keepends=True):
                yield line if line.strip() else ""
        else:
            yield text


def gptq(tok, source, n, bos):
    ids = encode(tok, "\n\n".join(rows(source)), bos)
    for i in range(len(ids) // n):
        yield ids[i * n : (i + 1) * n], 1, 0


def llamacpp(tok, source, n, bos):
    (text,) = source["documents"]
    ids = encode(tok, text[:-1] if text[-1:] == "\n" else text, bos, parse_special=False)
    adds_bos = bos == "always" or (bos == "template" and tok.encode("").ids[:1] == [0])
    assert len(ids) >= 2 * n
    for i in range(len(ids) // n):
        chunk = ids[i * n : (i + 1) * n]
        if adds_bos:
            chunk[0] = 0
        # Logits n/2 .. n-2 are scored: their targets are the tokens after them.
        yield chunk, n // 2 + 1, 0


PROTOCOLS = {"window": window, "document": document, "gptq": gptq, "llamacpp": llamacpp}


def fnv1a(windows):
    """64-bit FNV-1a over the ids of all windows as 32-bit little-endian numbers."""
    value = 0xCBF29CE484222325
    for token in itertools.chain.from_iterable(windows):
        for byte in token.to_bytes(4, "little"):
            value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def main():
    toks = {name: tokenizer(name) for name in TEMPLATES}
    cases = []
    for (name, source), protocol, template in itertools.product(TEXTS.items(), PROTOCOLS, TEMPLATES):
        if protocol == "llamacpp" and len(source["documents"]) != 1:
            continue
        for n in (64, 33):
            for bos in ("template", "always", "never"):
                made = list(PROTOCOLS[protocol](toks[template][1], source, n, bos))
                windows = [m for m in made if m is not None]
                cases.append({
                    "text": name, "protocol": protocol, "tokenizer": template, "context": n, "bos": bos,
                    "lengths": [len(w) for w, _, _ in windows],
                    "score_begin": sorted({s for _, s, _ in windows}),
                    "documents": [d for _, _, d in windows],
                    "first": [w[0] for w, _, _ in windows],
                    "fnv1a": fnv1a(w for w, _, _ in windows),
                    "skipped": made.count(None),
                    "scored": sum(len(w) - s for w, s, _ in windows),
                })
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/data/eval/protocols.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    golden = {
        "made_with": f"tokenizers {tokenizers.__version__}",
        "texts": TEXTS,
        "post_processors": {name: data["post_processor"] for name, (data, _) in toks.items()},
    }
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    out.write_text(json.dumps(golden)[:-1] + ', "cases": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
