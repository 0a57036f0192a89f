#!/usr/bin/env python3
"""Time `mxlm`'s tokenizer beside Hugging Face `tokenizers`, one thread each, in one run.

usage: tokenizers.py TOKENIZE_BENCH TEXT TOKENIZER.json...      (TOKENIZE_BENCH: build/release/bench/tokenize_bench)

Both encode the whole text at once and line by line; each figure is the minimum of several repeats, and the two programs
take turns. CPU time, so that other work on the machine counts for neither. The first pass of a fresh tokenizer (empty caches) is timed too. Needs: pip install tokenizers.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
sys.path.pop(0)  # this file has the library's name

import tokenizers  # noqa: E402

REPEATS = 3


def milliseconds(function):
    started = time.process_time()
    function()
    return (time.process_time() - started) * 1e3


def theirs(path, text):
    fresh = tokenizers.Tokenizer.from_file(path)
    out = {"whole_text_first_time": milliseconds(lambda: fresh.encode(text, add_special_tokens=False))}
    out["whole_text"] = milliseconds(lambda: fresh.encode(text, add_special_tokens=False))
    lines = text.splitlines(keepends=True)

    def by_line():
        for line in lines:
            fresh.encode(line, add_special_tokens=False)

    out["lines"] = milliseconds(by_line)
    # What the library offers without offsets.
    out["whole_text (encode_batch_fast)"] = milliseconds(
        lambda: fresh.encode_batch_fast([text], add_special_tokens=False))
    return out


def ours(binary, path, file):
    env = dict(os.environ, MXLM_TOKENIZER=path, MXLM_TEXT=file)
    done = subprocess.run([binary, "--benchmark_format=json", "--benchmark_min_time=0.2",
                           "--benchmark_filter=whole_text|lines"], env=env, capture_output=True, check=True)
    return {b["name"]: b["cpu_time"] for b in json.loads(done.stdout)["benchmarks"]}


def main():
    binary, file, *paths = sys.argv[1:]
    text = Path(file).read_bytes().decode("utf-8", errors="replace")
    print(f"tokenizers {tokenizers.__version__}, {file}, {len(text.encode()) / 1e6:.2f} MB, minimum of {REPEATS}")
    for path in paths:
        mine, other = [], []
        for _ in range(REPEATS):
            mine.append(ours(binary, path, file))
            other.append(theirs(path, text))
        best = {key: min(run[key] for run in mine) for key in mine[0]}
        peer = {key: min(run[key] for run in other) for key in other[0]}
        for key, value in peer.items():
            own = best[key.split(" ")[0]]
            print(f"{Path(path).parent.name:14} {key:31} tokenizers {value:8.1f} ms, mxlm {own:7.1f} ms: {value / own:5.1f}x",
                  flush=True)


if __name__ == "__main__":
    main()
