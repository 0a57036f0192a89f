#!/usr/bin/env python3
"""Write seeds for fuzz/tokenizer_fuzz: small tokenizers of every part, a byte 0xff, a text; and, given folders.json, for
fuzz/tokenizer_files_fuzz: some folders with short vocabularies.

usage: make_tokenizer_seeds.py GOLDENS.json FOLDER        (GOLDENS.json: tests/data/text/goldens.json or folders.json)
"""
import base64
import json
import re
import sys
from pathlib import Path

TEXT = "the <t> don't DON'T caf\u00e9 cafe\u0301 12\u00bd  \r\n\u2581the <n>the<l> <r> <w> \uac00\u11a8 \U0001f600 <0x41>"


NAMES = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
         "merges.txt", "vocab.txt", "tokenizer.model", "config.json"]  # tokenizer_file_names()


def short_model(model, most=60):
    """A SentencePiece model with its first pieces alone."""
    out, at, pieces = b"", 0, 0
    while at < len(model):
        begin, size, shift = at, 0, 0
        tag, at = model[at], at + 1
        while True:
            size |= (model[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if model[at - 1] < 128:
                break
        at += size
        pieces += tag == 0x0A
        if tag != 0x0A or pieces <= most:
            out += model[begin:at]
    return out


def write_folders(goldens, folder):
    shared = dict(goldens["shared"], gpt2_vocab=json.dumps({c: i for i, c in enumerate(["t", "h", "e", "th", "the", "<|endoftext|>"])}),
                  opt_vocab=json.dumps({c: i for i, c in enumerate(["t", "h", "e", "th", "the", "</s>", "<pad>"])}),
                  merges="#version: 0.2\nt h\nth e\n")
    for golden in goldens["cases"]:
        data = b""
        for name, text in golden["files"].items():
            text = shared[text[1:]] if text.startswith("@") else text
            if name == "tokenizer.json":
                text = json.dumps(dict(json.loads(text), model={"type": "BPE", "merges": ["t h", "th e"], "vocab": json.loads(shared["gpt2_vocab"])}))
            content = short_model(base64.b64decode(text[7:])) if text.startswith("base64:") else text.encode()
            data += bytes([NAMES.index(name)]) + len(content).to_bytes(3, "little") + content
        (folder / re.sub(r"\W+", "_", golden["name"]).strip("_").lower()).write_bytes(data)


def main():
    goldens, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    if "cases" in goldens:
        write_folders(goldens, folder)
        return
    vocab = ["<unk>", "<s>", "</s>", "a", "e", "h", "t", " ", "\u2581", "\u0120", "th", "the", "\u2581the", "\u0120the", "'", "1", "<0x0A>",
             "<0xC3>", "<0xA9>"]
    merges = ["t h", "th e", "\u2581 the", "\u0120 the"]
    others = {"Unigram": {"type": "Unigram", "unk_id": 0, "vocab": [[t, -0.5 * i] for i, t in enumerate(vocab + ["the"])]},
              "WordPiece": {"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 20,
                            "vocab": {t: i for i, t in enumerate(vocab + ["##e", "##he"])}},
              "WordLevel": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {t: i for i, t in enumerate(vocab)}}}
    for golden in goldens["tokenizers"]:
        if re.match(r"(Split|Regex)", golden["name"]) and "Isolated" not in golden["name"] and len(golden["name"]) > 14:
            continue
        whole = dict(golden["parts"])
        model = {"type": "BPE", "vocab": {t: i for i, t in enumerate(vocab)}, "merges": merges}
        whole["model"] = {**others.get(goldens["models"][golden["model"]]["type"], model), **golden["options"]}
        name = re.sub(r"\W+", "_", golden["name"]).strip("_").lower()
        data = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode() + b"\xff" + TEXT.encode()
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
