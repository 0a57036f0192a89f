#!/usr/bin/env python3
"""Checks what --noise says, s = sd(d) / sqrt(2 N), against the scatter of figures over real orders of sums.

Usage: tools/checks/check_noise.py MXLM [RUNS [WINDOWS]]   (needs numpy; 200 runs and 8 windows take about three minutes)

1. Many orders. The hidden and the intermediate dimensions of booklet-7m and the value dimensions of its heads are
   renumbered in the checkpoint, which changes the order of the sums of every Linear and norm, and no value (MX blocks
   hold 32 neighbours, so whole blocks are renumbered, and values inside a block). From each two successive runs s is
   computed token by token, as --noise does from its two runs; its root mean square is compared with the standard
   deviation of the figure over all RUNS. The variant is linear=mxint16: products of fewer bits have sums that are exact
   in float32, or nearly, whatever their order.
2. Other variants. The instruction sets of the processor have orders of their own, in attention, too. For each two of
   them s is computed by token, and by window, which holds where tokens are not independent. --noise reverses all sums.

For each figure of 1 the mean of ln(s / scatter) over baseline and variant is printed with three standard errors of its
own: a run's share of ln(scatter) is ((x - mean)^2 / variance - 1) / 2, of which the mean over both is taken first, since
they share the baseline. Exits with 1 where that interval does not hold 1 (by chance once in 370 times) or is wider than
20 % either way (RUNS are too few), or where --noise is more than 15 % off the s of instruction sets in the mean over
the variants of a figure.
"""

import itertools
import json
import math
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import numpy as np

import per_token

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/booklet-7m"
BLOCK = 32
OPTIONS = ["--text", str(ROOT / "data/alice.txt"), "--context", "512", "--device", "cpu"]
VARIANTS = ["--mx", "linear=mxfp8", "--mx", "linear=mxint8", "--mx", "linear=mxint16"]


def read(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    head = json.loads(raw[8:8 + size])
    body = raw[8 + size:]
    head.pop("__metadata__", None)
    assert all(t["dtype"] == "BF16" for t in head.values())
    return {name: np.frombuffer(body[t["data_offsets"][0]:t["data_offsets"][1]], np.uint16).reshape(t["shape"])
            for name, t in head.items()}


def write(path, tensors):
    head, parts, at = {}, [], 0
    for name, values in tensors.items():
        data = np.ascontiguousarray(values).tobytes()
        head[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def renumbering(rng, size):
    """Of whole blocks, and inside each."""
    blocks = np.arange(size).reshape(-1, BLOCK)[rng.permutation(size // BLOCK)]
    return np.concatenate([rng.permutation(block) for block in blocks])


def renumbered(tensors, config, rng):
    out = {}
    hidden = renumbering(rng, config["hidden_size"])
    dim, heads, groups = config["head_dim"], config["num_attention_heads"], config["num_key_value_heads"]
    for name, t in tensors.items():
        kind = name.rsplit(".", 2)[-2]
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else 0
        local = np.random.default_rng([layer, int(hidden[0]), int(hidden[1]), int(hidden[2])])
        inner = renumbering(local, config["intermediate_size"])
        values = [g * dim + renumbering(local, dim) for g in range(groups)]  # of each key/value head
        of_heads = np.concatenate([values[h * groups // heads] - (h * groups // heads) * dim + h * dim
                                   for h in range(heads)])
        if kind in ("embed_tokens", "q_proj", "k_proj", "lm_head"):
            t = t[:, hidden]
        elif kind == "v_proj":
            t = t[np.concatenate(values)][:, hidden]
        elif kind == "o_proj":
            t = t[hidden][:, of_heads]
        elif kind in ("gate_proj", "up_proj"):
            t = t[inner][:, hidden]
        elif kind == "down_proj":
            t = t[hidden][:, inner]
        elif kind.endswith("norm"):
            t = t[hidden]
        else:
            raise ValueError(name)
        out[name] = t
    return out


def evaluate(mxlm, model, folder, options, isa=None):
    """The scores of tokens, and the result."""
    result, tokens = folder / "out.json", folder / "out.csv"
    subprocess.run([mxlm, "eval", str(model), *OPTIONS, *options, "--quiet", "--no-journal", "--json", str(result),
                    "--per-token", str(tokens)],
                   check=True, stdout=subprocess.DEVNULL, env={**os.environ, **({"MXLM_ISA": isa} if isa else {})})
    return per_token.read(tokens), json.loads(result.read_text())


def instruction_sets(mxlm, folder):
    """Those of this processor that differ. (avx2 has the sums of portable.)"""
    one = ["--windows", "1", "--no-variants"]
    return [isa for isa in ("portable", "avx512", "avx512_bf16", "amx_bf16")
            if evaluate(mxlm, MODEL, folder, one, isa)[1]["machine"]["backend"] == f"cpu {isa}"]


def token_figures(data, name):
    """{figure: its values by token}"""
    v, base = data["variants"][name], data["variants"]["baseline"]
    out = {"nll": v["nll"]}
    if v is not base:
        out |= {"ln_ppl_ratio": v["nll"] - base["nll"], "kld": v["kld"], "top1": (v["top1"] == base["top1"]).astype(float)}
    return out


def by_token(d, _):
    """The square of s, from the differences between two orders."""
    return float(np.var(d, ddof=1) / (2 * len(d)))


def by_window(d, window):
    """The same where only windows are independent. The mean over orders is 0."""
    return float(np.sum(per_token.by_window(d, window) ** 2) / 2 / len(d) ** 2)


def many_orders(mxlm, runs, folder):
    """Whether s holds over renumbered checkpoints."""
    tensors, config = read(MODEL / "model.safetensors"), json.loads((MODEL / "config.json").read_text())
    rng = np.random.default_rng(11)
    model = folder / "model"
    shutil.copytree(MODEL, model)
    seen, squares, before = {}, {}, None
    for _ in range(runs):
        write(model / "model.safetensors", renumbered(tensors, config, rng))
        data = evaluate(mxlm, model, folder, ["--windows", "1", "--mx", "linear=mxint16"])[0]
        tokens = {(name, figure): values for name in data["variants"]
                  for figure, values in token_figures(data, name).items()}
        for key, values in tokens.items():
            seen.setdefault(key, []).append(values.mean())
            if before:
                squares.setdefault(key, []).append(by_token(values - before[key], None))
        before = tokens
    print("| variant | figure | s of two orders | scatter | s / scatter |\n|---|---|---|---|---|")
    logs, shares, fine = {}, {}, True
    for (name, figure), values in seen.items():
        x, s = np.array(values), math.sqrt(np.mean(squares[name, figure]))
        logs.setdefault(figure, []).append(math.log(s / x.std(ddof=1)))
        shares.setdefault(figure, []).append(((x - x.mean()) ** 2 / x.var() - 1) / 2)
        print(f"| {name} | {figure} | {s:.2e} | {x.std(ddof=1):.2e} | {s / x.std(ddof=1):.2f} |")
    for figure, values in logs.items():
        mean, error = np.mean(values), np.mean(shares[figure], axis=0).std(ddof=1) / math.sqrt(runs)
        good = abs(mean) <= 3 * error <= math.log(1.2)
        fine = fine and good
        print(f"{figure}: s is {math.exp(mean):.3f} of the scatter of {runs} orders, known to {math.exp(mean - 3 * error):.3f} "
              f"to {math.exp(mean + 3 * error):.3f}{'' if good else ' <- NOT AS STATED'}", file=sys.stderr)
    return fine


def other_variants(mxlm, windows, folder):
    """Whether --noise says what instruction sets differ by."""
    options = ["--windows", str(windows), *VARIANTS]
    data = {isa: evaluate(mxlm, MODEL, folder, options, isa)[0] for isa in instruction_sets(mxlm, folder)}
    stated = evaluate(mxlm, MODEL, folder, [*options, "--noise"])[1]["runs"][0]["variants"]
    print(f"| variant | figure | s of {', '.join(data)} | by window | by --noise | --noise / s |\n|---|---|---|---|---|---|")
    logs, fine = {}, True
    for v in stated:
        tokens = [token_figures(d, v["name"]) for d in data.values()]
        window = next(iter(data.values()))["window"]
        for figure in tokens[0]:
            pairs = [a[figure] - b[figure] for a, b in itertools.combinations(tokens, 2)]
            s, clustered = (math.sqrt(np.mean([square(d, window) for d in pairs])) for square in (by_token, by_window))
            said = v["noise"][f"{figure}_sd"]
            logs.setdefault(figure, []).append(math.log(said / s))
            print(f"| {v['name']} | {figure} | {s:.2e} | {clustered:.2e} | {said:.2e} | {said / s:.2f} |")
    for figure, values in logs.items():
        good = abs(np.mean(values)) <= math.log(1.15)
        fine = fine and good
        print(f"{figure}: --noise is {math.exp(np.mean(values)):.2f} of s{'' if good else ' <- NOT AS STATED'}",
              file=sys.stderr)
    return fine


def main():
    mxlm, counts = sys.argv[1], [int(n) for n in sys.argv[2:]]
    runs, windows = counts + [200, 8][len(counts):]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        fine = [other_variants(mxlm, windows, folder), many_orders(mxlm, runs, folder)]
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    main()
