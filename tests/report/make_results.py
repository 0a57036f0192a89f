#!/usr/bin/env python3
"""Writes results of the schema mxlm.eval/1 with all that a report can show, for the test in the browser.

usage: tests/report/make_results.py REAL.json FOLDER

REAL.json is what `mxlm eval --json` wrote; the others grow from it, always the same: many.json has 24 variants, layers,
Linears, exponents, subsets, pairs and noise; crowded.json 40 variants of nearly the same figures; hostile.json names that
are markup, script, very long, or turn the direction of writing, and figures that are null or huge; interrupted.json
nothing scored.
"""

import copy
import json
import math
import pathlib
import random
import sys

FORMATS = [("mxfp8_e4m3", 8.25, 0.010), ("mxfp8_e5m2", 8.25, 0.035), ("mxfp6_e3m2", 6.25, 0.033),
           ("mxfp6_e2m3", 6.25, 0.011), ("mxfp4_e2m1", 4.25, 0.19), ("mxint8", 8.25, 0.0017)]
ROLES = [("attention,mlp", 1.0, 1.0), ("mlp", 0.6, 0.75), ("attention", 0.45, 0.25), ("linear", 1.15, 1.0)]
LINEARS = [("self_attn.q_proj", "attention"), ("self_attn.o_proj", "attention"), ("mlp.up_proj", "mlp"),
           ("mlp.down_proj", "mlp")]
SUBSETS = ["ArXiv", "DM Mathematics", "Gutenberg (PG-19)", "Pile-CC", "StackExchange", "USPTO Backgrounds"]
LAYERS = 30


def many(real):
    rng = random.Random(4)
    result = copy.deepcopy(real)
    run = result["runs"][0]
    run["model"]["name"] = "SmolLM2-135M"
    run["clusters"] = {"kind": "window", "number": 40}
    run["command"] = "mxlm sweep SmolLM2-135M --data 'the pile.jsonl.zst' --noise --exponents --linear-errors"
    baseline, pattern = run["variants"][0], run["variants"][1]
    baseline["weight_bits"] = {"baseline": 16.0, "variant": 16.0}
    variants = [baseline]
    for roles, strength, share in ROLES:
        for name, bits, divergence in FORMATS:
            kld = divergence * strength * rng.uniform(0.9, 1.1)
            change = kld * rng.uniform(0.2, 1.2) if kld > 0.003 else rng.uniform(-0.001, 0.003)
            v = copy.deepcopy(pattern)
            v["name"] = v["spec"] = ",".join(f"{role}={name}" for role in roles.split(","))
            v["ppl"] = baseline["ppl"] * math.exp(change)
            v["nll"] = math.log(v["ppl"])
            v["vs_baseline"].update(ln_ppl_ratio=change, ppl_ratio=math.exp(change), kld_mean=kld, kld_stderr_windows=kld / 30,
                                    ln_ppl_ratio_stderr_windows=0.012 * math.sqrt(kld), top1_agreement=1 - 0.65 * math.sqrt(kld))
            mean_bits = bits * share + 16 * (1 - share)
            v["weight_bits"] = {"baseline": 16.0, "variant": mean_bits}
            v["weight_bytes"] = {"baseline": 212336640, "variant": int(212336640 * mean_bits / 16)}
            v["noise"] = {"nll": 4e-4, "kld_mean": 1e-4, "top1_agreement": 1e-3, "nll_sd": 3e-4, "ln_ppl_ratio_sd": 5e-4,
                          "kld_sd": 1e-5, "top1_sd": 1e-3, "floor_kld": 2e-4, "floor_flips": 0.01}
            v["replaced"] = [{"tensor": f"model.layers.{layer}.{module}.weight", "role": role, "weights": name,
                              "activations": name} for layer in range(LAYERS) for module, role in LINEARS]
            level = 26 - 10 * math.log10(kld)
            v["layers"] = [{"layer": layer, "part": part, "sqnr_db": level - 4 * math.log(1 + layer) + rng.gauss(0, 0.6),
                            "cosine": 0.999} for layer in range(LAYERS) for part in ("attention", "mlp")]
            if len(variants) < 3:
                operand = lambda: {"sqnr_db": rng.uniform(20, 40), "cosine": 0.9991, "saturated": rng.random() * 1e-3,
                                   "flushed": rng.random() * 0.1, "subnormal": rng.random() * 0.2,
                                   "spread": {"mean": 3.1, "max": 9}}
                v["linears"] = [{"tensor": f"model.layers.{layer}.{module}.weight", "role": role, "weight": operand(),
                                 "activation": operand() if role == "mlp" else None,
                                 "output_sqnr_db": rng.uniform(18, 38), "output_cosine": 0.9987}
                                for layer in range(LAYERS) for module, role in LINEARS]
            variants.append(v)
    run["variants"] = variants

    def histogram(mean, spread, first, last):
        return {"first": first, "zeros": rng.randrange(1000),
                "counts": [int(3e5 * math.exp(-0.5 * ((e - mean) / spread) ** 2)) for e in range(first, last)]}

    run["exponents"] = [{"tensor": f"model.layers.{layer}.{module}.weight", "role": role,
                         "weight": histogram(-5, 2, -24, 2), "activation": histogram(-1, 2.6, -20, 9)}
                        for layer in range(LAYERS) for module, role in LINEARS]
    run["exponents"].append({"tensor": "lm_head.weight", "role": "lm_head", "weight": histogram(-4, 2, -20, 1),
                             "activation": None})
    run["subsets"] = []
    for name in SUBSETS:
        factor = rng.uniform(0.3, 2.2)
        figures = []
        for v in variants:
            f = {key: copy.deepcopy(v[key]) for key in ("name", "nll", "ppl", "ppl_stderr", "ppl_stderr_windows", "tokens",
                                                        "nonfinite", "vs_baseline")}
            f["ppl"] *= factor
            f["ppl_stderr_windows"] *= 3 * factor
            if f["vs_baseline"]:
                change = f["vs_baseline"]["ln_ppl_ratio"] * rng.uniform(0.5, 1.5)
                f["vs_baseline"].update(ln_ppl_ratio=change, ppl_ratio=math.exp(change),
                                        ln_ppl_ratio_stderr_windows=3 *
                                        f["vs_baseline"]["ln_ppl_ratio_stderr_windows"])
            figures.append(f)
        run["subsets"].append({"name": name, "windows": 12, "clusters": {"kind": "document", "number": 12},
                               "variants": figures})
    run["pairs"] = [{"a": a["name"], "b": b["name"], "ln_ppl_ratio": math.log(b["ppl"] / a["ppl"]),
                     "ln_ppl_ratio_stderr_windows": 0.002,
                     "kld_difference": b["vs_baseline"]["kld_mean"] - a["vs_baseline"]["kld_mean"],
                     "kld_difference_stderr_windows": 0.001} for i, a in enumerate(variants[1:]) for b in variants[i + 2:]]
    return result


def crowded(real):
    rng = random.Random(5)
    result = copy.deepcopy(real)
    run = result["runs"][0]
    pattern = run["variants"][1]
    for i in range(38):
        v = copy.deepcopy(pattern)
        v["name"] = f"v{i}"
        v["vs_baseline"]["kld_mean"] *= rng.uniform(0.97, 1.03)
        v["ppl"] *= rng.uniform(0.999, 1.001)
        run["variants"].append(v)
    return result


def hostile(real):
    attack = "</title></script><script>window.hit=1</script><img src=x onerror=\"window.hit=1\">'\"&<svg onload=window.hit=1>"
    result = copy.deepcopy(real)
    result["machine"].update(cpu=attack, backend=attack, os=attack)
    result["version"] = attack
    run = result["runs"][0]
    run["model"].update(name=attack, family=attack, dtype=attack, revision=attack, sha256="f" * 500)
    run["data"].update(name="javascript:window.hit=1//" + attack, sha256=attack)
    run["protocol"].update(name=attack, bos=attack, aggregate=attack)
    run["clusters"] = {"kind": attack, "number": 7}
    run["command"] = "mxlm eval '" + attack + "' " + "x" * 5000
    names = [attack, "N" * 300, "\u202eesrever\u202c", "model.layers.*=mxfp4,", "\u540d\u524d" * 40]
    for i, v in enumerate(run["variants"][1:]):
        v["name"] = v["spec"] = names[i % len(names)]
        for r in v["replaced"]:
            r.update(tensor=attack + "." + r["tensor"], role=attack, weights=attack)
        v["layers"] = [{"layer": 99999, "part": attack, "sqnr_db": 1e300, "cosine": -1},
                       {"layer": 0, "part": "block", "sqnr_db": None, "cosine": 1}]
        v["linears"] = [{"tensor": attack, "role": attack, "weight": None, "activation": None, "output_sqnr_db": None,
                         "output_cosine": None}]
    run["variants"][1].update(ppl=None, nll=None, ppl_stderr_windows=None, nonfinite=3)
    run["variants"][1]["vs_baseline"].update(ppl_ratio=None, ln_ppl_ratio=None, kld_mean=None)
    run["variants"][2].update(ppl=1e300, ppl_stderr_windows=1e299, tokens_per_second=1e300)
    run["variants"][2]["vs_baseline"].update(ppl_ratio=1e299, ln_ppl_ratio=688, kld_mean=1e12, kld_stderr_windows=1e300)
    run["variants"][3]["vs_baseline"].update(kld_mean=-1e-9, ln_ppl_ratio=0, ppl_ratio=1, top1_agreement=1)
    run["exponents"] = [{"tensor": attack, "role": attack, "weight": {"first": -1074, "zeros": 0, "counts": [1] * 3000},
                         "activation": {"first": 0, "zeros": 0, "counts": []}}]
    run["subsets"] = [{"name": attack, "windows": 1, "variants": run["variants"]}]
    run["pairs"] = [{"a": attack, "b": attack, "ln_ppl_ratio": None, "ln_ppl_ratio_stderr_windows": 0}]
    return result


def interrupted(real):
    result = copy.deepcopy(real)
    result["runs"][0].update(complete=False, windows=0, variants=[])
    return result


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    real = json.loads(pathlib.Path(sys.argv[1]).read_text())
    folder = pathlib.Path(sys.argv[2])
    for make in (many, crowded, hostile, interrupted):
        (folder / f"{make.__name__}.json").write_text(json.dumps(make(real)))


if __name__ == "__main__":
    main()
