#!/usr/bin/env python3
"""Compare mxlm's figures with reference implementations; prints a table and exits 1 if a figure is out of tolerance.

usage: check_reference.py MXLM_BINARY [booklet] [smollm2 --smollm2 DIR --wiki FILE --reference FOLDER] [--threads N] [--device D]

booklet   booklet-7m on both books against tests/data/reference/figures.json: baseline, weights and activations (coarse:
          the order of float32 sums flips roundings), weights only. One run a text, all variants in it.
smollm2   SmolLM2-135M (tools that make it: see docs) on WikiText-2 against the files that reference_nll.py wrote to FOLDER:
            smollm2_wiki16_float32.npy, smollm2_wiki16_bfloat16.npy   NLL a token, context 1024, first 16 windows
            smollm2_llamacpp16_float32.json                           transformers in llama.cpp's protocol, 16 chunks
            smollm2_llamacpp16.json {"ppl": ...}                      llama.cpp itself, 16 chunks of 512, float32 GGUF
          baseline in float32 within 5e-6 nats; the per-token RMS of (bfloat16 NLL - transformers' float32 NLL) at most 1.1
          times transformers' own, from `mxlm logits`, and `mxlm eval` agreeing with those logits; perplexity within 2e-4.
With neither name, booklet. A reference that is missing is a failure, not a skip.
Needs numpy, safetensors, tokenizers.
"""
import argparse
import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FLOAT32_TOLERANCE, RMS_FACTOR, PERPLEXITY_TOLERANCE = 5e-6, 1.1, 2e-4


class Table:
    def __init__(self):
        self.failed = 0
        print(f"{'figure':66} {'ours':>12} {'reference':>12} {'difference':>11} {'allowed':>9}")

    def row(self, name, ours, reference, allowed, difference=None):
        difference = ours - reference if difference is None else difference
        ok = math.isfinite(difference) and abs(difference) <= allowed
        self.failed += not ok
        print(f"{name:66} {ours:12.7f} {reference:12.7f} {difference:+11.2e} {allowed:9.1e} {'pass' if ok else 'FAIL'}",
              flush=True)


def evaluate(args, model, text, *options):
    """runs[0] of `mxlm eval --json`."""
    with tempfile.TemporaryDirectory() as tmp:
        out = Path(tmp) / "out.json"
        threads = ["--threads", str(args.threads)] if args.threads else []
        threads += ["--device", args.device] if args.device else []
        subprocess.run([args.binary, "eval", str(model), "--text", str(text), *options, *threads, "--quiet", "--json",
                        str(out)], check=True, stdout=subprocess.DEVNULL)
        run = json.loads(out.read_text())["runs"][0]
    assert run["complete"] and run["variants"][0]["name"] == "baseline"
    return run


def check_booklet(args, table):
    figures = json.loads((ROOT / "tests/data/reference/figures.json").read_text())["booklet-7m"]
    allowed = figures["tolerances"]
    for text, expected in figures["texts"].items():
        both = {k: [*expected[k]] for k in ("weights_and_activations", "weights_only")}
        variants = [v for group in both.values() for v in group]
        run = evaluate(args, ROOT / "models/booklet-7m", ROOT / "data" / text, "--dtype", "float32", "--protocol", "window",
                       "--context", "1024", *[a for v in variants for a in ("--mx", v)])
        results = run["variants"]
        assert len(results) == 1 + len(variants)
        table.row(f"{text} tokens scored", results[0]["tokens"], expected["scored"], 0)
        table.row(f"{text} baseline", results[0]["nll"], expected["baseline"], allowed["baseline"])
        by_variant = dict(zip(variants, results[1:]))
        for group, names in both.items():
            for name in names:
                tolerance = allowed[group]
                if group == "weights_and_activations" and "mxfp4_e2m1" in name:
                    tolerance = allowed["mxfp4_e2m1"]
                table.row(f"{text} {name}", by_variant[name]["nll"], expected[group][name], tolerance)


def nll_of_logits(args, window, dtype):
    """NLL in float64 of every token but the first, from `mxlm logits`."""
    from safetensors.numpy import load_file
    with tempfile.TemporaryDirectory() as tmp:
        tokens, out = Path(tmp) / "tokens.json", Path(tmp) / "logits.safetensors"
        tokens.write_text(json.dumps([window]))
        threads = ["--threads", str(args.threads)] if args.threads else []
        subprocess.run([args.binary, "logits", args.smollm2, "--tokens", str(tokens), "--dtype", dtype, *threads, "-o",
                        str(out)], check=True, stdout=subprocess.DEVNULL)
        logits = load_file(out)["logits"][0]
    nll = np.empty(len(window) - 1)
    for i in range(len(nll)):
        row = logits[i].astype(np.float64)
        top = row.max()
        nll[i] = top + math.log(np.exp(row - top).sum()) - row[window[i + 1]]
    return nll


def check_smollm2(args, table):
    import tokenizers
    reference = Path(args.reference)
    f32, bf16 = (np.load(reference / f"smollm2_wiki16_{d}.npy") for d in ("float32", "bfloat16"))
    text = Path(args.wiki).read_bytes().decode("utf-8", errors="replace")
    ids = tokenizers.Tokenizer.from_file(str(Path(args.smollm2) / "tokenizer.json")).encode(text).ids
    windows = ["--protocol", "window", "--context", "1024", "--no-variants", "--max-windows"]
    for count in (8, 16):
        run = evaluate(args, args.smollm2, args.wiki, "--dtype", "float32", *windows, str(count))
        table.row(f"SmolLM2 float32, {count} windows of 1024", run["variants"][0]["nll"], f32[:count * 1023].mean(),
                  FLOAT32_TOLERANCE)

    n = args.bfloat16_windows * 1023
    ours = np.concatenate([nll_of_logits(args, ids[i * 1024:(i + 1) * 1024], "bfloat16")
                           for i in range(args.bfloat16_windows)])
    rms = [math.sqrt(np.mean((x - f32[:n]) ** 2)) for x in (ours, bf16[:n])]
    table.row(f"SmolLM2 bfloat16, {args.bfloat16_windows} windows: per-token RMS to float32 (x transformers')",
              rms[0], rms[1], RMS_FACTOR, rms[0] / rms[1])
    run = evaluate(args, args.smollm2, args.wiki, "--dtype", "bfloat16", *windows, str(args.bfloat16_windows))
    table.row("  `eval` against `logits`, mean NLL", run["variants"][0]["nll"], ours.mean(), 2e-6)

    run = evaluate(args, args.smollm2, args.wiki, "--dtype", "float32", "--protocol", "llamacpp", "--context", "512",
                   "--max-windows", "16", "--no-variants")
    ppl = run["variants"][0]["ppl"]
    for name, file in (("llama.cpp", "smollm2_llamacpp16.json"), ("transformers", "smollm2_llamacpp16_float32.json")):
        expected = json.loads((reference / file).read_text())["ppl"]
        table.row(f"SmolLM2 llamacpp perplexity, 16 chunks of 512, {name} (relative)", ppl, expected, PERPLEXITY_TOLERANCE,
                  ppl / expected - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("what", nargs="*", default=["booklet"], help="booklet, smollm2")
    parser.add_argument("--smollm2", help="folder of SmolLM2-135M")
    parser.add_argument("--wiki", default=str(ROOT / "data/wiki.test.raw"))
    parser.add_argument("--reference", help="folder of reference_nll.py's results")
    parser.add_argument("--bfloat16-windows", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", help="of mxlm eval: cuda runs it on a GPU")
    args = parser.parse_args()
    if unknown := set(args.what) - {"booklet", "smollm2"}:
        parser.error(f"no check named {unknown.pop()!r}; there are booklet and smollm2")
    if "smollm2" in args.what and not (args.smollm2 and args.reference):
        parser.error("smollm2 needs --smollm2 and --reference")
    table = Table()
    if "booklet" in args.what:
        check_booklet(args, table)
    if "smollm2" in args.what:
        check_smollm2(args, table)
    print(f"{table.failed} failed" if table.failed else "all pass")
    sys.exit(1 if table.failed else 0)


if __name__ == "__main__":
    main()
