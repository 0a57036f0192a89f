#!/usr/bin/env python3
"""Make a tiny random model of every family and compare `mxlm logits` with the transformers that is installed.

usage: check_families.py BINARY [NAME...] [--seed N] [--keep FOLDER]

The models are those of make_family_goldens.py with other weights and other tokens. float32, eager attention. Allowed is
max |difference| <= 2e-5 max |logit|, as in the tests. Exits with 1 if a model differs, and also if one cannot be read.
Written for transformers 5.23.0 and torch 2.15.0; families that the installed transformers lacks are reported as such.
"""
import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
import family_models as families  # noqa: E402

ALLOWED = 2e-5


def ours(binary, folder, tokens):
    with tempfile.TemporaryDirectory() as tmp:
        ids, out = Path(tmp) / "ids.json", Path(tmp) / "logits.safetensors"
        ids.write_text(json.dumps(tokens.tolist()))
        done = subprocess.run([binary, "logits", str(folder), "--tokens", str(ids), "--dtype", "float32", "--threads", "1",
                               "-o", str(out)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip() or f"exit code {done.returncode}")
        return load_file(out)["logits"][0]


def check(name, folder, args):
    made = families.make_checkpoint(name, folder, args.seed)
    windows = families.make_windows(name, made, args.seed)
    model = families.load(folder)
    theirs = [families.logits_of(model, w) for w in windows]
    largest = max(l.abs().max().item() for l in theirs)
    differences = [(ours(args.binary, folder, w) - l).abs().max().item() / largest for w, l in zip(windows, theirs)]
    return largest, differences, [w.shape[1] for w in windows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("names", nargs="*", help="models to check (all)")
    parser.add_argument("--seed", type=int, default=1, help="0 makes the models of the golden data")
    parser.add_argument("--keep", type=Path, help="keep the models in this folder")
    args = parser.parse_args()
    if unknown := set(args.names) - set(families.CASES):
        parser.error(f"no model named {unknown.pop()!r}; there are {', '.join(families.CASES)}")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, seed {args.seed}; allowed {ALLOWED:.0e}")
    failed = 0
    for name in args.names or families.CASES:
        around = contextlib.nullcontext(args.keep / name) if args.keep else tempfile.TemporaryDirectory()
        with around as folder:
            try:
                largest, differences, lengths = check(name, Path(folder), args)
            except Exception as error:  # one family's failure must not hide the others' results
                failed += 1
                print(f"{name:20} FAIL {type(error).__name__}: {error}", flush=True)
                continue
        ok = all(d <= ALLOWED for d in differences)
        failed += not ok
        windows = " ".join(f"{n}: {d:.1e}" for n, d in zip(lengths, differences))
        print(f"{name:20} {'pass' if ok else 'FAIL'} max |logit| {largest:5.1f}, by length of window {windows}", flush=True)
    print(f"{failed} failed" if failed else "all pass")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
