"""Reads what `mxlm eval --per-token` writes, and computes figures and errors from it with NumPy, apart from the program.

Used by recompute_figures.py and check_coverage.py.
"""

import csv
import math

import numpy as np

CLUSTER_TOKENS = 512


def read(path):
    """{"window", "position", "token", "target": arrays, "variants": {name: {"nll", "p", "top1", "kld"}}}, the baseline
    first. What the program has as float32 is read as that."""
    with open(path, newline="") as file:
        rows = csv.reader(file)
        head = next(rows)
        columns = list(zip(*rows))
    out = {"variants": {}}
    for name, column in zip(head, columns):
        variant, _, figure = name.rpartition(" ")
        if not variant:
            out[name] = np.array(column, dtype=np.int64)
            continue
        kind = {"p": np.float32, "kld_reverse": np.float32, "jensen_shannon": np.float32, "top1": np.int64}.get(figure, np.float64)
        out["variants"].setdefault(variant, {})[figure] = np.array(column, dtype=kind)
    base = next(iter(out["variants"].values()))
    base["kld"] = np.zeros(len(out["window"]))
    for variant in out["variants"].values():
        for figure, values in variant.items():
            if values.dtype == np.float32:
                variant[figure] = values.astype(np.float64)
    return out


def stretches(scored):
    """The cluster of each window of a text: neighbours until they have 512 tokens, a short rest with the last."""
    clusters, tokens, number = [], 0, 0
    for count in scored:
        if tokens >= CLUSTER_TOKENS:
            number, tokens = number + 1, 0
        clusters.append(number)
        tokens += count + 1
    if tokens < CLUSTER_TOKENS and number > 0:
        clusters = [min(c, number - 1) for c in clusters]
    return np.array(clusters)


def clustered(numerator, denominator, clusters):
    """A ratio of sums, and its error by cluster: both arrays are of windows (or of anything inside a cluster)."""
    ids = np.unique(clusters, return_inverse=True)[1]
    total = math.fsum(denominator)
    ratio = math.fsum(numerator) / total
    s = np.bincount(ids, weights=numerator)
    n = np.bincount(ids, weights=denominator)
    count = len(s)
    if count < 2:
        return ratio, None
    return ratio, math.sqrt(count / (count - 1) * math.fsum((s - n * ratio) ** 2)) / total


def by_window(values, window):
    """Sums of a token figure by window, windows counted from 0."""
    return np.bincount(window, weights=values)
