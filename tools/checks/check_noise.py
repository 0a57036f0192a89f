#!/usr/bin/env python3
"""Checks what --noise says, s = sd(d) / sqrt(2 N), against the scatter of figures over real orders of sums.

Usage: tools/checks/check_noise.py MXLM [RUNS]   (needs numpy; 300 runs take about ten minutes on two cores)

Each run has another order. The hidden and the intermediate dimensions of booklet-7m and the value dimensions of its
heads are renumbered in the checkpoint, which changes the order of the sums of every Linear and norm, and no value (MX
blocks hold 32 neighbours, so whole blocks are renumbered, and values inside a block). The sums of attention, which no
checkpoint can put in another order, are those of another instruction set than the run's before. (linear=mxfp4 is no
variant here: its sums are exact in float32.)

From each two successive runs s is computed token by token, as --noise does from its two runs; its root mean square is
compared with the standard deviation of the figure over all runs. For each figure the mean of ln(s / scatter) over the
variants is printed with three standard errors of its own: a run's share of ln(scatter) is ((x - mean)^2 / variance - 1)
/ 2, of which the mean over variants is taken first, since the variants of a run share their baseline. Exits with 1
where

* that interval does not hold 1 (by chance once in 370 times), or is wider than 15 % either way (RUNS are too few);
* --noise, one pair of orders, is further from the root mean square of s than 3 standard deviations of the pairs' ln s.
"""

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
OPTIONS = ["--text", str(ROOT / "data/alice.txt"), "--context", "512", "--windows", "1", "--device", "cpu",
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


def evaluate(mxlm, model, folder, isa, *more):
    """The variants' results and the instruction set that computed them."""
    result = folder / "out.json"
    subprocess.run([mxlm, "eval", str(model), *OPTIONS, *more, "--quiet", "--no-journal", "--json", str(result)],
                   check=True, stdout=subprocess.DEVNULL, env={**os.environ, "MXLM_ISA": isa})
    out = json.loads(result.read_text())
    return out["runs"][0]["variants"], out["machine"]["backend"]


def instruction_sets(mxlm, folder):
    """Those of this processor. avx2 has the sums of portable."""
    names = ("portable", "avx512", "avx512_bf16", "amx_bf16")
    return [isa for isa in names if evaluate(mxlm, MODEL, folder, isa)[1] == f"cpu {isa}"]


def token_figures(data, name):
    """{figure: its values by token}"""
    v, base = data["variants"][name], data["variants"]["baseline"]
    out = {"nll": v["nll"]}
    if v is not base:
        out |= {"ln_ppl_ratio": v["nll"] - base["nll"], "kld": v["kld"], "top1": (v["top1"] == base["top1"]).astype(float)}
    return out


def main():
    mxlm, runs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 300
    tensors, config = read(MODEL / "model.safetensors"), json.loads((MODEL / "config.json").read_text())
    rng = np.random.default_rng(11)
    members = {"nll": lambda v: v["nll"], "ln_ppl_ratio": lambda v: v["vs_baseline"]["ln_ppl_ratio"],
               "kld": lambda v: v["vs_baseline"]["kld_mean"], "top1": lambda v: v["vs_baseline"]["top1_agreement"]}
    seen, squares, before = {}, {}, None
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        sets = instruction_sets(mxlm, folder)
        if len(sets) < 2:
            sys.exit(f"This processor has {sets} alone; the sums of attention need two instruction sets.")
        print(f"{runs} runs, instruction sets {', '.join(sets)}", file=sys.stderr)
        stated = evaluate(mxlm, MODEL, folder, sets[-1], "--noise")[0]
        model, isa = folder / "model", sets[-1]
        shutil.copytree(MODEL, model)
        for _ in range(runs):
            write(model / "model.safetensors", renumbered(tensors, config, rng))
            isa = rng.choice([other for other in sets if other != isa])
            for v in evaluate(mxlm, model, folder, isa, "--per-token", str(folder / "out.csv"))[0]:
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
    print("| variant | figure | s of two orders | scatter | s / scatter | by --noise | --noise / s, and sd of pairs |")
    print("|---|---|---|---|---|---|---|")
    logs, shares, fine = {}, {}, True
    for v in stated:
        for member in before[v["name"]]:
            pairs, x = np.array(squares[v["name"], member]), np.array(seen[v["name"], member])
            s, scatter, said = math.sqrt(pairs.mean()), x.std(ddof=1), v["noise"][f"{member}_sd"]
            logs.setdefault(member, []).append(math.log(s / scatter))
            shares.setdefault(member, []).append(((x - x.mean()) ** 2 / x.var() - 1) / 2)
            spread = np.log(pairs).std(ddof=1) / 2
            good = abs(math.log(said / s)) <= 3 * spread
            fine = fine and good
            print(f"| {v['name']} | {member} | {s:.2e} | {scatter:.2e} | {s / scatter:.2f} | {said:.2e} | "
                  f"{said / s:.2f}, {spread:.2f}{'' if good else ' NOT AS STATED'} |")
    for member, values in logs.items():
        mean, error = np.mean(values), np.mean(shares[member], axis=0).std(ddof=1) / math.sqrt(runs)
        good = abs(mean) <= 3 * error and 3 * error <= math.log(1.15)
        fine = fine and good
        print(f"{member}: s is {math.exp(mean):.3f} of the scatter, known to {math.exp(mean - 3 * error):.3f} to "
              f"{math.exp(mean + 3 * error):.3f}{'' if good else ' <- NOT AS STATED'}", file=sys.stderr)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
