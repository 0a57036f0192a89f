#!/usr/bin/env python3
"""Write seeds for fuzz/tokenizer_fuzz: small tokenizers of every part, a byte 0xff, a text.

usage: make_tokenizer_seeds.py GOLDENS.json FOLDER        (GOLDENS.json: tests/data/text/goldens.json)
"""
import json
import re
import sys
from pathlib import Path

TEXT = "the <t> don't DON'T caf\u00e9 cafe\u0301 12\u00bd  \r\n\u2581the <n>the<l> <r> <w> \uac00\u11a8 \U0001f600 <0x41>"


def main():
    goldens, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    vocab = ["<unk>", "<s>", "</s>", "a", "e", "h", "t", " ", "\u2581", "\u0120", "th", "the", "\u2581the", "\u0120the", "'", "1", "<0x0A>",
             "<0xC3>", "<0xA9>"]
    merges = ["t h", "th e", "\u2581 the", "\u0120 the"]
    for golden in goldens["tokenizers"]:
        if re.match(r"(Split|Regex)", golden["name"]) and "Isolated" not in golden["name"] and len(golden["name"]) > 14:
            continue
        whole = dict(golden["parts"])
        whole["model"] = {"type": "BPE", "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges, **golden["options"]}
        name = re.sub(r"\W+", "_", golden["name"]).strip("_").lower()
        data = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode() + b"\xff" + TEXT.encode()
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
