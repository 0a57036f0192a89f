#!/usr/bin/env python3
"""How often the figures of a whole text lie within one and two of the printed errors of a part of it.

Usage: tools/check_coverage.py FILE.csv...   (what `mxlm eval --per-token` wrote; needs numpy)

For each file, parts of N windows are drawn from the text, N random windows and N spread evenly as --windows N takes them
(each start and spacing once), and each part's figure is compared with the whole text's. An error is for a draw from an
endless text, so it is scaled by sqrt(1 - N / windows) here. Then the false alarms: the windows of one variant are split
into two random halves, 500 times, and PPL, KL and top-1 of the halves compared by Student's t as the program does.
Exits with 1 where random parts cover less than 64 or 92 %, or more than 72 or 97 %, on average over the files and
variants of a figure, or where more than 0.27 % of the halves differ beyond three errors' chance by more than is chance.
"""

import math
import sys

import numpy as np

import per_token

PARTS = (16, 32)
DRAWS = 400
SPLITS = 500


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


def deviations(name, s, n, parts):
    whole = s.sum() / n.sum()
    out = []
    for part in parts:
        value, error = figure_and_error(name, s[part], n[part])
        out.append(abs(value - whole) / (error * math.sqrt(1 - len(part) / len(s))))
    return np.array(out)


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
                    deviations(figure, s, n, [rng.choice(total, size, replace=False) for _ in range(DRAWS)])
                    for size in PARTS if size <= total // 2])
                even = deviations(figure, s, n, spread(total))
                alarms = 0
                for _ in range(SPLITS):
                    order = rng.permutation(total)
                    a, b = order[:total // 2], order[total // 2:]
                    x, y = figure_and_error(figure, s[a], n[a]), figure_and_error(figure, s[b], n[b])
                    alarms += abs(x[0] - y[0]) > 3 * math.hypot(x[1], y[1])
                one, two = (100 * (random <= k).mean() for k in (1, 2))
                covered.setdefault(figure, []).append((one, two, 100 * alarms / SPLITS))
                print(f"| {path.rsplit('/', 1)[-1].removesuffix('.csv')} | {name} | {figure} | {one:.0f} / {two:.0f} | "
                      f"{100 * (even <= 1).mean():.0f} / {100 * (even <= 2).mean():.0f} | {alarms} |")
    for figure, rates in covered.items():
        one, two, alarms = np.mean(rates, axis=0)
        good = 64 <= one <= 72 and 92 <= two <= 97 and alarms <= 0.5
        fine = fine and good
        print(f"{figure}: ±1 covers {one:.1f} %, ±2 {two:.1f} %, false alarms {alarms:.2f} % (by chance 0.27)"
              f"{'' if good else ' <- NOT AS STATED'}", file=sys.stderr)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
