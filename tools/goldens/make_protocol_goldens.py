#!/usr/bin/env python3
"""Writes tests/data/eval/protocols.json: windows of short texts by each protocol, cut in Python from the token ids of
the `tokenizers` library (those of lmeval by lm-evaluation-harness's own functions), and pages and detokenised texts of
WikiText by the harness's.

The tokenizer is models/booklet-7m/tokenizer.json: as it is, with a template that puts its one special token before a
text, and with one that also ends the text with it.

Usage: tools/goldens/make_protocol_goldens.py [OUT]   (needs tokenizers and lm-eval; the versions used are in the file)
"""

import importlib.metadata
import itertools
import json
import pathlib
import random
import re
import sys

import tokenizers
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from make_protocol_figures import wikitext_pages

ROOT = pathlib.Path(__file__).resolve().parents[2]
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


# The protocols below yield dictionaries; what a window does not name is as in WINDOW.
WINDOW = {"document": 0, "next": -1, "keys": 0, "weight": 0, "words": 0, "bytes": 0}


def is_wikitext(source):
    texts = source["documents"]
    return source["is_text"] and len(texts) == 1 and list(rows(source)) != texts


def hf_stride(tok, source, n, bos, stride=20):
    """The windows of the Hugging Face guide: labels are all but the last trg_len tokens masked, then shifted by one."""
    ids = encode(tok, "\n\n".join(rows(source)), bos)
    before = 0
    for begin in range(0, len(ids), stride):
        end = min(begin + n, len(ids))
        trg_len = end - before
        labels = list(range(end - begin))
        labels[:-trg_len] = [-100] * len(labels[:-trg_len])
        scored = [x for x in labels[1:] if x != -100]
        if scored:
            yield {"tokens": ids[begin:end], "score_begin": scored[0], "weight": sum(x != -100 for x in labels) - 1}
        before = end
        if end == len(ids):
            break


def lmeval(tok, source, n, bos):
    wiki = is_wikitext(source)
    pages = wikitext_pages(source["documents"][0]) if wiki else source["documents"]
    for d, page in enumerate(pages):
        text = wikitext_detokenizer({"page": page}) if wiki else page
        if bos == "template" and text.startswith(SPECIAL):
            ids = tok.encode(text, add_special_tokens=False).ids
        else:
            ids = encode(tok, text, bos)
        made = []
        for pair in get_rolling_token_windows(ids, prefix_token=0, max_seq_len=n, context_len=1):
            context, continuation = make_disjoint_window(pair)
            tokens = (context + continuation)[-(n + 1) :][:-1]
            made.append({"tokens": tokens, "score_begin": len(tokens) + 1 - len(continuation),
                         "next": continuation[-1], "document": 0 if wiki else d})
        counts = {"words": len(re.split(r"\s+", page)), "bytes": len(page.encode())}
        if made:
            made[-1].update(counts)
        yield from made or [counts]


def self(tok, source, n, bos):
    padding = tokenizers.Tokenizer.from_str(tok.to_str())
    padding.enable_padding(length=n, pad_id=0, pad_token=SPECIAL)
    wiki = is_wikitext(source)
    texts = [row for row in rows(source) if row] if wiki else source["documents"]
    cut = {"is_text": False, "documents": texts}
    for d, text in enumerate(texts):
        if not text.strip():
            yield None
            continue
        if bos == "always":
            ids = next((w[0] for w in document(tok, {**cut, "documents": [text]}, n, bos) if w),
                       encode(tok, text, bos))
            mask = [1] * len(ids) + [0] * (n - len(ids))
            ids = ids + [0] * (n - len(ids))
        else:
            padding.enable_truncation(n)
            encoded = padding.encode(text, add_special_tokens=bos != "never")
            ids, mask = encoded.ids, encoded.attention_mask
        assert len(ids) == n and sorted(mask, reverse=True) == mask
        yield {"tokens": ids, "score_begin": 1, "next": 0, "keys": sum(mask) if sum(mask) < n else 0,
               "document": 0 if wiki else d}


MORE_PROTOCOLS = {"hf-stride": hf_stride, "lmeval": lmeval, "self": self}


def more_case(tok, source, protocol, n, bos):
    made = list(MORE_PROTOCOLS[protocol](tok, source, n, bos))
    windows, skipped, before = [], 0, {"words": 0, "bytes": 0}
    for m in made:
        if m is None or "tokens" not in m:  # a page without tokens still has its words
            skipped += 1
            for key in before:
                before[key] += (m or {}).get(key, 0)
            continue
        windows.append({**WINDOW, **m})
        if windows[-1]["words"]:
            for key in before:
                windows[-1][key] += before[key]
            before = {"words": 0, "bytes": 0}
    for key in before:
        windows[-1][key] += before[key]
    out = {"lengths": [len(w["tokens"]) for w in windows], "fnv1a": fnv1a(w["tokens"] for w in windows),
           "skipped": skipped,
           "scored": sum(len(w["tokens"]) - w["score_begin"] + (w["next"] >= 0) for w in windows)}
    for key in ("score_begin", *WINDOW):
        out[key] = [w[key] for w in windows]
        if key in WINDOW and not any(x != WINDOW[key] for x in out[key]):
            del out[key]
    return out


def wikitext_samples():
    """Texts made to meet the rules of the detokeniser, with its answers and its count of words."""
    rng = random.Random(20240917)
    pieces = ["'", '"', "(", ")", "[", "]", "{", "}", " ", " ", " ", "\n", " \n", "\n ", " @-@ ", " @,@ ", " @.@ ",
              " : ", " ; ", " . ", " ! ", " ? ", " , ", "s '", " 's", "= = = =", "= = =", "= =", " = ", " \u00b0 ", " N ",
              "/' 3/", "/' 1/' 2/", "/", "' ", "\u00a0", "\u2009", "\x1c", "\t", "word", "a", "\u00e9", "7", ",", "."]
    samples = ["", " ", "a", " a ", "( a ( b ) c )", "' ' '", '" a " b " c', "N N  N ", " , , ,", " . . ", "( ", ")("]
    samples += ["".join(rng.choices(pieces, k=rng.randrange(3, 30))) for _ in range(150)]
    return [{"page": x, "detokenized": wikitext_detokenizer({"page": x}), "words": len(re.split(r"\s+", x))}
            for x in samples]


def page_samples():
    rng = random.Random(20240918)
    lines = [" = Title = ", " = = Section = = ", " = = = Part = = = ", " = = = = Deep = = = = ", " ", "", " text = 3 ",
             " = open ", " = = ", " = ", " = a = = b = ", "= Title =", "\u00a0= Title = \u2003", " = = = = = "]
    samples = ["\n".join(rng.choices(lines, k=rng.randrange(1, 12))) + rng.choice(["", "\n"]) for _ in range(60)]
    return [{"text": x, "pages": wikitext_pages(x)} for x in samples]


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
    for (name, source), protocol, template in itertools.product(TEXTS.items(), MORE_PROTOCOLS, TEMPLATES):
        for bos in ("template", "always", "never"):
            cases.append({"text": name, "protocol": protocol, "tokenizer": template, "context": 33, "bos": bos,
                          **more_case(toks[template][1], source, protocol, 33, bos)})
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/data/eval/protocols.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    golden = {
        "made_with": f"tokenizers {tokenizers.__version__}, lm-eval {importlib.metadata.version('lm-eval')}",
        "wikitext": wikitext_samples(),
        "wikitext_pages": page_samples(),
        "texts": TEXTS,
        "post_processors": {name: data["post_processor"] for name, (data, _) in toks.items()},
    }
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    out.write_text(json.dumps(golden)[:-1] + ', "cases": [\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
