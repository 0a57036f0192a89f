#!/usr/bin/env python3
"""How often the figures of a whole text lie within one and two of the printed errors of a part of it.

Usage: tools/checks/check_coverage.py FILE.csv...   (what `mxlm eval --per-token` wrote with windows of 512 tokens or more; needs numpy and scipy)

For each file, parts of the text are compared with the whole of it: is its figure within one and two of a part's printed
errors? Parts are 16 or 32 random windows, 400 times each, for which the error is scaled by sqrt(1 - part / text), being
made for draws from an endless text; and windows spread evenly as --windows takes them, with every spacing and start that
leave 8 of them, with errors as they are. Then the false alarms: the windows of one variant are split into two random
halves, 500 times, which differ significantly, by Student's t, as often as chance says (0.27 %) or seldomer.
Exits with 1 where random parts cover less than 64 or 92 %, or more than 72 or 97 %, on average over the files and
variants of a figure, where spread ones cover less than that, or where there are more false alarms than chance explains.
"""

import math
import sys

import numpy as np
from scipy import stats

import per_token

PARTS = (16, 32)
DRAWS = 400
SPLITS = 500
CHANCE = 0.0027


def window_sums(data, name):
    """{figure: (S, n) by window} of a variant, whose figure is sum S / sum n."""
    v, base = data["variants"][name], next(iter(data["variants"].values()))
    window = data["window"]
    counts = np.bincount(window).astype(float)
    sums = {"PPL": v["nll"]}
    if v is not base:
        sums = {"ratio": v["nll"] - base["nll"], "KL": v["kld"], "top-1": (v["top1"] == base["top1"]).astype(float)}
    return {figure: (per_token.by_window(values, window), counts) for figure, values in sums.items()}


def figure_and_error(name, s, n):
    """Of windows, each a cluster; the error that is printed, so Wilson's for top-1."""
    value, error = per_token.clustered(s, n, np.arange(len(s)))
    if name == "top-1":
        tokens = value * (1 - value) / error**2 if error > 0 else n.sum()
        middle = (value + 1 / (2 * tokens)) / (1 + 1 / tokens)
        half = math.sqrt(value * (1 - value) / tokens + 1 / (4 * tokens**2)) / (1 + 1 / tokens)
        error = max(value - middle + half, min(middle + half, 1) - value)
    return value, error


def deviations(name, s, n, parts, scaled):
    """How far the parts are from the whole, in their errors."""
    whole = s.sum() / n.sum()
    out = []
    for part in parts:
        value, error = figure_and_error(name, s[part], n[part])
        out.append(abs(value - whole) / (error * (math.sqrt(1 - len(part) / len(s)) if scaled else 1)))
    return np.array(out)


def differ(name, s, n, a, b):
    """Whether two parts differ significantly."""
    x, y = figure_and_error(name, s[a], n[a]), figure_and_error(name, s[b], n[b])
    size = abs(x[0] - y[0]) / math.hypot(x[1], y[1])
    return 2 * stats.t.sf(size, len(a) + len(b) - 2) <= CHANCE


def spread(total):
    """Evenly spaced windows: every n-th from each start."""
    out = []
    for step in range(3, total // 8 + 1):
        out += [np.arange(start, total, step) for start in range(step)]
    return out


def main():
    rng = np.random.default_rng(7)
    covered, fine = {}, True
    print("| text | variant | figure | random windows ±1 / ±2, % | spread ±1 / ±2, % | halves that differ, of 500 |")
    print("|---|---|---|---|---|---|")
    for path in sys.argv[1:]:
        data = per_token.read(path)
        counts = np.bincount(data["window"])
        keep = counts >= 0.9 * counts.max()  # not the short tail
        for name in data["variants"]:
            for figure, (s, n) in window_sums(data, name).items():
                s, n = s[keep], n[keep]
                total = len(s)
                random = np.concatenate([
                    deviations(figure, s, n, [rng.choice(total, size, replace=False) for _ in range(DRAWS)], True)
                    for size in PARTS if size <= total // 2])
                even = deviations(figure, s, n, spread(total), False)
                alarms = 0
                for _ in range(SPLITS):
                    order = rng.permutation(total)
                    alarms += differ(figure, s, n, order[:total // 2], order[total // 2:])
                one, two = (100 * (random <= k).mean() for k in (1, 2))
                even_one, even_two = (100 * (even <= k).mean() for k in (1, 2))
                covered.setdefault(figure, []).append((one, two, even_one, even_two, alarms))
                print(f"| {path.rsplit('/', 1)[-1].removesuffix('.csv')} | {name} | {figure} | {one:.0f} / {two:.0f} | "
                      f"{even_one:.0f} / {even_two:.0f} | {alarms} |")
    for figure, rates in covered.items():
        one, two, even_one, even_two, _ = np.mean(rates, axis=0)
        alarms, splits = sum(r[-1] for r in rates), SPLITS * len(rates)
        # The halves of one text are no independent draws, so this is a coarse bound.
        chance = stats.binom.sf(alarms - 1, splits, CHANCE)
        good = 64 <= one <= 72 and 92 <= two <= 97 and even_one >= 64 and even_two >= 92 and chance > 1e-3
        fine = fine and good
        print(f"{figure}: random windows ±1 {one:.1f} %, ±2 {two:.1f} %; spread ±1 {even_one:.1f} %, ±2 {even_two:.1f} %; "
              f"{alarms} of {splits} halves differ, chance {chance:.3f}{'' if good else ' <- NOT AS STATED'}",
              file=sys.stderr)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
