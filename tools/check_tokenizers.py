#!/usr/bin/env python3
"""Compare `mxlm tokenize` with Hugging Face `tokenizers`, id by id.

usage: check_tokenizers.py MXLM TOKENIZERS_DIR TEXT... [--only NAME,...] [--no-decode]

TOKENIZERS_DIR holds NAME/tokenizer.json (tools that make them: see docs). Each TEXT is encoded by both, without special
tokens, and decoded by both from the library's ids. Exit code 1 if anything differs.
Needs: pip install tokenizers.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tokenizers


def mxlm(binary, *arguments):
    done = subprocess.run([binary, "tokenize", *arguments], capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr.decode()[:500]}")
    return done.stdout


def first_difference(ours, theirs, tokenizer, text):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    offset = tokenizer.encode(text, add_special_tokens=False).offsets[max(0, min(at, len(theirs) - 1))][0]
    around = text[max(0, offset - 15):offset + 15]
    return (f"token {at} of {len(theirs)} (ours {len(ours)}): ours {ours[at:at + 5]}, theirs {theirs[at:at + 5]} near "
            f"{around!r} {[hex(ord(c)) for c in around]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("folder", type=Path)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-decode", action="store_true")
    args = parser.parse_args()
    only = set(filter(None, args.only.split(",")))
    print(f"tokenizers {tokenizers.__version__}")
    failures = 0
    for path in sorted(args.folder.glob("*/tokenizer.json")):
        name = path.parent.name
        if only and name not in only:
            continue
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        for file in args.texts:
            text = file.read_bytes().decode("utf-8", errors="replace")
            started = time.time()
            theirs = tokenizer.encode(text, add_special_tokens=False).ids
            seconds = time.time() - started
            ours = json.loads(mxlm(args.binary, str(path), "--text", str(file)))
            verdict = "equal" if ours == theirs else "DIFFERENT: " + first_difference(ours, theirs, tokenizer, text)
            if ours == theirs and not args.no_decode:
                with tempfile.NamedTemporaryFile("w", suffix=".json") as ids:
                    json.dump(theirs, ids)
                    ids.flush()
                    decoded = mxlm(args.binary, str(path), "--text", ids.name, "--decode")
                if decoded != tokenizer.decode(theirs, skip_special_tokens=False).encode():
                    verdict = "equal, DECODED DIFFERENTLY"
            failures += "DIFFERENT" in verdict
            print(f"{name:14} {file.name:20} {len(theirs):9} ids ({seconds:5.2f} s) {verdict}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
