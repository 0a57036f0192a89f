#!/usr/bin/env python3
"""Checks the formula of --noise, s = sd(d) / sqrt(2 N), against the scatter of figures over 30 real orders of sums.

Usage: tools/checks/check_noise.py MXLM [RUNS]   (needs numpy; about ten minutes on two cores)

The order is changed in the checkpoint, not in the program: the hidden and the intermediate dimensions of booklet-7m and
the value dimensions of its heads are renumbered, which changes the order of the sums of every Linear and norm, and no
value. MX blocks hold 32 neighbours, so whole blocks are renumbered, and values inside a block. From each two successive
runs s is computed token by token, as --noise does from its two runs, and their root mean square taken. Exits with 1 where s is more than 15 % off, in the
mean over the variants of a figure. The last column is what --noise says: it reverses the sums of attention, too, which a
checkpoint cannot, so it may be larger. (linear=mxfp4 is no variant here: its sums are exact in float32.)
"""

import json
import math
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
OPTIONS = ["--text", str(ROOT / "data/alice.txt"), "--context", "512", "--windows", "8", "--device", "cpu",
           "--mx", "linear=mxfp8", "--mx", "linear=mxint8", "--mx", "linear=mxint16"]


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


def evaluate(mxlm, model, folder, *more):
    result = folder / "out.json"
    subprocess.run([mxlm, "eval", str(model), *OPTIONS, *more, "--quiet", "--no-journal", "--json", str(result)],
                   check=True, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())["runs"][0]["variants"]


def token_figures(data, name):
    """{figure: its values by token}"""
    v, base = data["variants"][name], data["variants"]["baseline"]
    out = {"nll": v["nll"]}
    if v is not base:
        out |= {"ln_ppl_ratio": v["nll"] - base["nll"], "kld": v["kld"], "top1": (v["top1"] == base["top1"]).astype(float)}
    return out


def main():
    mxlm, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 30
    tensors, config = read(MODEL / "model.safetensors"), json.loads((MODEL / "config.json").read_text())
    rng = np.random.default_rng(11)
    members = {"nll": lambda v: v["nll"], "ln_ppl_ratio": lambda v: v["vs_baseline"]["ln_ppl_ratio"],
               "kld": lambda v: v["vs_baseline"]["kld_mean"], "top1": lambda v: v["vs_baseline"]["top1_agreement"]}
    seen, squares, before = {}, {}, None
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        stated = evaluate(mxlm, MODEL, folder, "--noise")
        model = folder / "model"
        shutil.copytree(MODEL, model)
        for _ in range(runs):
            write(model / "model.safetensors", renumbered(tensors, config, rng))
            for v in evaluate(mxlm, model, folder, "--per-token", str(folder / "out.csv")):
                for member, get in members.items():
                    if member == "nll" or v["vs_baseline"]:
                        seen.setdefault((v["name"], member), []).append(get(v))
            data = per_token.read(folder / "out.csv")
            tokens = {name: token_figures(data, name) for name in data["variants"]}
            for name, figures in tokens.items() if before else ():
                for member, values in figures.items():
                    d = values - before[name][member]
                    squares.setdefault((name, member), []).append(np.var(d, ddof=1) / (2 * len(d)))
            before = tokens
    print(f"| variant | figure | s of two orders | scatter of {runs} orders | s / scatter | by --noise |")
    print("|---|---|---|---|---|---|")
    ratios = {}
    for v in stated:
        for member in before[v["name"]]:
            got = math.sqrt(np.mean(squares[v["name"], member]))
            want = float(np.std(seen[v["name"], member], ddof=1))
            ratios.setdefault(member, []).append(got / want)
            print(f"| {v['name']} | {member} | {got:.2e} | {want:.2e} | {got / want:.2f} | "
                  f"{v['noise'][f'{member}_sd']:.2e} |")
    fine = True
    for member, values in ratios.items():
        mean = math.exp(np.mean(np.log(values)))
        fine = fine and abs(mean - 1) <= 0.15
        print(f"{member}: s is {mean:.2f} of the scatter, which {runs} runs know to {100 / math.sqrt(2 * runs - 2):.0f} % "
              f"for each variant", file=sys.stderr)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
