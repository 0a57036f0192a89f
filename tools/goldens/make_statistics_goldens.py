#!/usr/bin/env python3
"""Writes tests/data/eval/statistics.json: scores and the figures that NumPy and SciPy compute from them.

Usage: tools/goldens/make_statistics_goldens.py [OUT]   (needs numpy and scipy; the versions used are in the file)
"""

import json
import math
import pathlib
import sys

import numpy as np
import scipy
from scipy import stats

KLD = [0, 0.1, 1, 5, 10, 50, 90, 95, 99, 99.9, 100]
DELTA = [0, 0.1, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100]


def draw(rng, lengths, variants, spread=0.05):
    """Scores [variant][window] of nll, kld, p, top1 that look like a model's."""
    windows = [[] for _ in range(variants)]
    for length in lengths:
        base = rng.gamma(1.2, 2.4, length) + rng.normal(0, 0.3) ** 2
        top = rng.integers(0, 50, length)
        for v in range(variants):
            nll = base if v == 0 else np.maximum(base + rng.normal(0.01 * v, spread * v, length), 1e-6)
            kld = np.zeros(length) if v == 0 else rng.gamma(0.3, 0.02 * v, length)
            flip = rng.random(length) < 0.05 * v
            windows[v].append({
                "nll": nll.tolist(),
                "kld": kld.tolist(),
                "p": np.exp(-nll).astype(np.float32).astype(float).tolist(),
                "top1": np.where(flip, top + 1, top).tolist(),
            })
    return windows


def cat(windows, key):
    return np.concatenate([np.asarray(w[key], dtype=np.float64) for w in windows]) if windows else np.array([])


def sem(x):
    """sqrt(population variance / (n - 1)), by SciPy; None for one value."""
    return float(stats.sem(x)) if len(x) > 1 else None


def clustered(x, groups, weights=None):
    """Cluster-robust standard error of a weighted mean: the sandwich estimator of a weighted regression on a constant,
    times G/(G - 1)."""
    ids = np.unique(groups)
    if len(ids) < 2:
        return None
    root = np.sqrt(np.ones(len(x)) if weights is None else weights)[:, None]
    bread = np.linalg.inv(root.T @ root)
    mean = float((bread @ (root.T @ (root * x[:, None])))[0, 0])
    score = root * root * (x - mean)[:, None]
    meat = sum(score[groups == g].sum(0)[:, None] ** 2 for g in ids)
    return float(np.sqrt(len(ids) / (len(ids) - 1) * (bread @ meat @ bread)[0, 0]))


def wilson(p, error, n):
    """Wilson's interval of one error, by SciPy's formula solved for n = p (1 - p) / error^2."""
    if error is None:
        return None
    n = p * (1 - p) / error**2 if error > 0 else n
    roots = np.roots([1 + 1 / n, -(2 * p + 1 / n), p * p])  # of (x - p)^2 = x (1 - x) / n
    return [float(x) for x in sorted(np.clip(roots.real, 0, 1))]


def groups_of(windows, clusters):
    return np.concatenate([np.full(len(w["nll"]), c) for c, w in zip(clusters, windows)])


def token_weights(windows, aggregate):
    """What a token weighs in the mean NLL."""
    if aggregate != "window_mean":
        return None
    return np.concatenate([np.full(len(w["nll"]), 1 / max(len(w["nll"]), 1)) for w in windows])


def figures(windows, aggregate, clusters):
    nll = cat(windows, "nll")
    means = np.array([math.fsum(w["nll"]) / len(w["nll"]) for w in windows if w["nll"]])
    mean = math.fsum(means) / len(means) if aggregate == "window_mean" else math.fsum(nll) / len(nll)
    ppl = math.exp(mean)
    by_cluster = clustered(nll, groups_of(windows, clusters), token_weights(windows, aggregate))
    by_token = sem(nll)
    return {
        "nll": mean,
        "ppl": ppl,
        "ppl_stderr": None if by_token is None else ppl * by_token,
        "nll_stderr_windows": by_cluster,
        "ppl_stderr_windows": None if by_cluster is None else ppl * by_cluster,
        "tokens": len(nll),
    }


def versus(base, variant, nll_base, nll_variant, aggregate, clusters):
    a, b = cat(base, "nll"), cat(variant, "nll")
    kld = cat(variant, "kld")
    delta = cat(variant, "p") - cat(base, "p")
    n = len(a)
    same = (cat(base, "top1") == cat(variant, "top1")).mean()
    if n > 1:
        cov = np.cov(np.stack([b.astype(np.longdouble), a.astype(np.longdouble)])) / n  # of the means
        error = float(np.sqrt(max(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1], 0)))
        constant = a.std() == 0 or b.std() == 0
        correlation = None if constant else float(stats.pearsonr(a, b).statistic)
    else:
        error = correlation = None
    rms = math.sqrt((delta**2).mean())
    rms_error = None
    if n > 1:
        rms_error = 0.5 / rms * sem(delta**2) if rms > 0 else 0.0
    groups = groups_of(base, clusters)
    agrees = (cat(base, "top1") == cat(variant, "top1")).astype(float)
    top1_error = clustered(agrees, groups)
    rms_by_cluster = clustered(delta**2, groups)
    return {
        "ln_ppl_ratio_stderr_windows": clustered(b - a, groups, token_weights(base, aggregate)),
        "kld_stderr_windows": clustered(kld, groups),
        "top1_stderr_windows": top1_error,
        "top1_interval": wilson(float(same), top1_error, n),
        "delta_p_mean_stderr_windows": clustered(delta, groups),
        "delta_p_rms_stderr_windows":
            None if rms_by_cluster is None else rms_by_cluster / (2 * rms) if rms > 0 else rms_by_cluster,
        "ppl_ratio": math.exp(nll_variant - nll_base),
        "ln_ppl_ratio": nll_variant - nll_base,
        "ln_ppl_ratio_stderr": error,
        "correlation": correlation,
        "kld_mean": math.fsum(kld) / n,
        "kld_stderr": sem(kld),
        "kld_median": float(np.median(kld)),
        "kld_max": float(kld.max()),
        "kld_percentiles": {f"{p:g}": float(np.percentile(kld, p, method="linear")) for p in KLD},
        "top1_agreement": float(same),
        "top1_stderr": math.sqrt(same * (1 - same) / (n - 1)) if n > 1 else None,
        "delta_p_mean": math.fsum(delta) / n,
        "delta_p_rms": rms,
        "delta_p_rms_stderr": rms_error,
        "delta_p_percentiles": {f"{p:g}": float(np.percentile(delta, p, method="linear")) for p in DELTA},
    }


def pairs(variants, figures, aggregate, clusters):
    """Every two variants but the baseline: b against a, paired by token."""
    out = []
    for a in range(1, len(variants)):
        for b in range(a + 1, len(variants)):
            nll = cat(variants[b], "nll") - cat(variants[a], "nll")
            kld = cat(variants[b], "kld") - cat(variants[a], "kld")
            out.append({"a": a, "b": b, "ln_ppl_ratio": figures[b]["nll"] - figures[a]["nll"],
                        "ln_ppl_ratio_stderr": sem(nll), "kld_difference": math.fsum(kld) / len(kld),
                        "kld_difference_stderr": sem(kld),
                        "ln_ppl_ratio_stderr_windows":
                            clustered(nll, groups_of(variants[a], clusters), token_weights(variants[a], aggregate)),
                        "kld_difference_stderr_windows": clustered(kld, groups_of(variants[a], clusters))})
    return out


def case(name, aggregate, variants, clusters=None):
    """`clusters`: of each window; its own by default."""
    clusters = clusters or list(range(len(variants[0])))
    out = [figures(v, aggregate, clusters) for v in variants]
    for v in range(1, len(variants)):
        out[v]["vs_baseline"] = versus(variants[0], variants[v], out[0]["nll"], out[v]["nll"], aggregate, clusters)
    return {"name": name, "aggregate": aggregate, "clusters": clusters, "scores": variants, "figures": out,
            "pairs": pairs(variants, out, aggregate, clusters)}


def main():
    rng = np.random.default_rng(20240901)
    same = draw(rng, [7, 9], 1)
    cases = [
        case("windows of different length", "token_mean", draw(rng, [31, 31, 31, 31, 12], 3)),
        case("mean of equal windows", "window_mean", draw(rng, [24] * 5, 2)),
        case("mean of unequal windows", "window_mean", draw(rng, [30, 3, 17], 2)),
        case("a window without tokens", "token_mean", draw(rng, [9, 0, 11], 2)),
        case("one window", "token_mean", draw(rng, [20], 2)),
        case("one token", "token_mean", draw(rng, [1], 2)),
        case("two tokens in two windows", "token_mean", draw(rng, [1, 1], 2)),
        case("a variant that changes nothing", "token_mean", same + same),
        case("a variant that hardly changes anything", "token_mean", draw(rng, [40, 40], 2, 1e-7)),
        case("pairs", "token_mean", draw(rng, [17, 5], 4)),
        case("pairs of means of windows", "window_mean", draw(rng, [11, 4, 6], 4)),
        case("groups of windows", "token_mean", draw(rng, [9, 12, 3, 7, 8, 5], 3), [0, 0, 1, 1, 1, 2]),
        case("groups of means of windows", "window_mean", draw(rng, [9, 12, 3, 7], 3), [0, 0, 1, 2]),
        case("one cluster", "token_mean", draw(rng, [9, 12], 3), [0, 0]),
    ]
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                       pathlib.Path(__file__).resolve().parents[2] / "tests/data/eval/statistics.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    made_with = f"numpy {np.__version__}, scipy {scipy.__version__}"
    # Two-sided chances of Student's t by SciPy: (size, degrees of freedom, chance).
    chances = [[t, d, float(2 * stats.t.sf(t, d))] for d in (1, 2, 3, 7, 30, 400, 1e5)
               for t in (0, 1e-6, 0.5, 1, 2, 3, 7.5, 40, 1e4)]
    out.write_text(json.dumps({"made_with": made_with, "student_t": chances, "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
