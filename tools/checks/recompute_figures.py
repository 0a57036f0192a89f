#!/usr/bin/env python3
"""Recomputes every figure and error of `mxlm eval --json` from its --per-token file with NumPy, for all protocols, and
fails where one differs by more than 1e-12 (relatively, and of an error where the figure is nearly 0).

Usage: tools/checks/recompute_figures.py MXLM   (needs numpy; runs the built-in model on short texts, about a minute)
"""

import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np

import per_token

TEXT = pathlib.Path(__file__).resolve().parents[2] / "data/alice.txt"
VARIANTS = ["linear=mxfp4", "a: mlp=mxfp8@rule=even", "linear=mxint16"]
TOLERANCE = 1e-12


class Checker:
    def __init__(self):
        self.count, self.worst = 0, 0.0

    def check(self, what, got, want, scale=0.0):
        """`scale`: what the figure is a difference or a mean of."""
        self.count += 1
        if got is None or want is None:
            assert got is None and want is None, f"{what}: {got} in the JSON, {want} by NumPy"
            return
        difference = abs(got - want) / max(abs(want), abs(scale), 1e-300) if got != want else 0.0
        self.worst = max(self.worst, difference)
        assert difference <= TOLERANCE, f"{what}: {got!r} in the JSON, {want!r} by NumPy ({difference:.1e})"


def sem(values):
    return float(np.std(values) / math.sqrt(len(values) - 1)) if len(values) > 1 else None


def recompute(checker, name, run, data, clusters, aggregate, pages=None):
    window = data["window"]
    counts = np.bincount(window).astype(float)
    if aggregate == "tokens":
        weight = counts
    elif aggregate == "windows":
        weight = np.ones(len(counts))
    else:  # hf-stride: the tokens that the guide weighs a window by
        weight = np.concatenate([counts[:1], counts[1:] - 1])
    variants = list(data["variants"].values())
    base = variants[0]

    def mean(values):  # of tokens
        return per_token.clustered(per_token.by_window(values, window), counts, clusters)

    def aggregated(values):
        return per_token.clustered(weight * (per_token.by_window(values, window) / counts), weight, clusters)

    assert run["clusters"]["number"] == len(np.unique(clusters)), f"{name}: {run['clusters']}"
    for got, v in zip(run["variants"], variants):
        what = f"{name}, {got['name']}"
        nll, error = aggregated(v["nll"])
        checker.check(f"{what} nll", got["nll"], nll)
        checker.check(f"{what} ppl", got["ppl"], math.exp(nll))
        checker.check(f"{what} ppl_stderr", got["ppl_stderr"], math.exp(nll) * sem(v["nll"]))
        checker.check(f"{what} nll_stderr_windows", got["nll_stderr_windows"], error)
        checker.check(f"{what} ppl_stderr_windows", got["ppl_stderr_windows"], error and math.exp(nll) * error)
        if name != "self":
            accuracy, error = mean((v["top1"] == data["target"]).astype(float))
            checker.check(f"{what} accuracy", got["accuracy"], accuracy)
            checker.check(f"{what} accuracy_stderr_windows", got["accuracy_stderr_windows"], error)
        if pages is not None:
            words, raw, page = pages
            a_word, word_error = per_token.clustered(per_token.by_window(v["nll"], window), words, clusters)
            a_byte, byte_error = per_token.clustered(per_token.by_window(v["nll"], window), raw, clusters)
            checker.check(f"{what} word_perplexity", got["word_perplexity"], math.exp(a_word))
            checker.check(f"{what} word_perplexity_stderr_windows", got["word_perplexity_stderr_windows"],
                          math.exp(a_word) * word_error)
            checker.check(f"{what} bits_per_byte", got["bits_per_byte"], a_byte / math.log(2))
            checker.check(f"{what} bits_per_byte_stderr_windows", got["bits_per_byte_stderr_windows"],
                          byte_error / math.log(2))
        if v is base:
            continue
        vs = got["vs_baseline"]
        d = v["nll"] - base["nll"]
        ratio, error = aggregated(d)
        scale = nll  # a difference of two figures of this size
        checker.check(f"{what} ln_ppl_ratio", vs["ln_ppl_ratio"], ratio, scale)
        checker.check(f"{what} ln_ppl_ratio_stderr", vs["ln_ppl_ratio_stderr"], sem(d))
        checker.check(f"{what} ln_ppl_ratio_stderr_windows", vs["ln_ppl_ratio_stderr_windows"], error)
        if pages is not None:
            ratio, error = per_token.clustered(per_token.by_window(d, window), pages[0], clusters)
            checker.check(f"{what} ln_word_perplexity_ratio", vs["ln_word_perplexity_ratio"], ratio, scale)
            checker.check(f"{what} ln_word_perplexity_ratio_stderr_windows",
                          vs["ln_word_perplexity_ratio_stderr_windows"], error)
        checker.check(f"{what} correlation", vs["correlation"], float(np.corrcoef(base["nll"], v["nll"])[0, 1]))
        kld, error = mean(v["kld"])
        checker.check(f"{what} kld_mean", vs["kld_mean"], kld)
        checker.check(f"{what} kld_stderr", vs["kld_stderr"], sem(v["kld"]))
        checker.check(f"{what} kld_stderr_windows", vs["kld_stderr_windows"], error)
        for member in ("kld_reverse", "jensen_shannon"):
            value, error = mean(v[member])
            checker.check(f"{what} {member}_mean", vs[f"{member}_mean"], value, kld)
            checker.check(f"{what} {member}_stderr", vs[f"{member}_stderr"], sem(v[member]))
            checker.check(f"{what} {member}_stderr_windows", vs[f"{member}_stderr_windows"], error)
        checker.check(f"{what} kld_max", vs["kld_max"], float(v["kld"].max()))
        for key, value in vs["kld_percentiles"].items():
            checker.check(f"{what} kld {key}", value, float(np.percentile(v["kld"], float(key))), kld)
        same = (base["top1"] == v["top1"]).astype(float)
        top1, error = mean(same)
        checker.check(f"{what} top1_agreement", vs["top1_agreement"], top1)
        checker.check(f"{what} top1_stderr", vs["top1_stderr"], math.sqrt(top1 * (1 - top1) / (len(same) - 1)))
        checker.check(f"{what} top1_stderr_windows", vs["top1_stderr_windows"], error)
        n = top1 * (1 - top1) / error**2 if error > 0 else len(same)
        middle, half = (top1 + 1 / (2 * n)) / (1 + 1 / n), math.sqrt(top1 * (1 - top1) / n + 1 / (4 * n * n)) / (1 + 1 / n)
        for got_end, want in zip(vs["top1_interval"], (middle - half, min(middle + half, 1.0))):
            checker.check(f"{what} top1_interval", got_end, want)
        delta = v["p"] - base["p"]
        mean_delta, error = mean(delta)
        checker.check(f"{what} delta_p_mean", vs["delta_p_mean"], mean_delta, np.abs(delta).mean())
        checker.check(f"{what} delta_p_mean_stderr_windows", vs["delta_p_mean_stderr_windows"], error)
        squares, error = mean(delta**2)
        rms = math.sqrt(squares)
        checker.check(f"{what} delta_p_rms", vs["delta_p_rms"], rms)
        checker.check(f"{what} delta_p_rms_stderr", vs["delta_p_rms_stderr"], 0.5 / rms * sem(delta**2))
        checker.check(f"{what} delta_p_rms_stderr_windows", vs["delta_p_rms_stderr_windows"], error / (2 * rms))
        for key, value in vs["delta_p_percentiles"].items():
            checker.check(f"{what} delta_p {key}", value, float(np.percentile(delta, float(key))), rms)
        if name != "self":
            right, now = base["top1"] == data["target"], v["top1"] == data["target"]
            for member, flips in (("right_to_wrong", right & ~now), ("wrong_to_right", ~right & now)):
                share, error = mean(flips.astype(float))
                checker.check(f"{what} {member}", vs["flips"][member], share)
                checker.check(f"{what} {member}_stderr_windows", vs["flips"][f"{member}_stderr_windows"], error)
            share, error = mean(now.astype(float) - right)
            checker.check(f"{what} accuracy_difference", vs["accuracy_difference"], share)
            checker.check(f"{what} accuracy_difference error", vs["accuracy_difference_stderr_windows"], error)
    names = list(data["variants"])
    for pair in run["pairs"]:
        a, b = data["variants"][pair["a"]], data["variants"][pair["b"]]
        what = f"{name}, {pair['b']} against {pair['a']}"
        ratio, error = aggregated(b["nll"] - a["nll"])
        checker.check(f"{what} ln_ppl_ratio", pair["ln_ppl_ratio"], ratio, 1)
        checker.check(f"{what} ln_ppl_ratio_stderr", pair["ln_ppl_ratio_stderr"], sem(b["nll"] - a["nll"]))
        checker.check(f"{what} ln_ppl_ratio_stderr_windows", pair["ln_ppl_ratio_stderr_windows"], error)
        kld, error = mean(b["kld"] - a["kld"])
        checker.check(f"{what} kld_difference", pair["kld_difference"], kld)
        checker.check(f"{what} kld_difference_stderr", pair["kld_difference_stderr"], sem(b["kld"] - a["kld"]))
        checker.check(f"{what} kld_difference_stderr_windows", pair["kld_difference_stderr_windows"], error)
    assert len(run["pairs"]) == (len(names) - 1) * (len(names) - 2) // 2


def main():
    mxlm = sys.argv[1]
    checker = Checker()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        text = TEXT.read_text()
        (folder / "text.txt").write_text(text[:24_000])
        paragraphs = [p for p in text[:60_000].split("\n\n") if len(p) > 40]
        documents = ["\n\n".join(paragraphs[i::12][:6]) for i in range(12)]
        (folder / "documents.jsonl").write_text("".join(json.dumps({"text": d}) + "\n" for d in documents))
        runs = [
            ("window", ["--text", "text.txt", "--context", "128"], "tokens"),
            ("window", ["--text", "text.txt", "--context", "512", "--windows", "5"], "tokens"),
            ("document", ["--data", "documents.jsonl", "--context", "96"], "tokens"),
            ("gptq", ["--text", "text.txt", "--context", "200"], "windows"),
            ("hf-stride", ["--text", "text.txt", "--context", "256", "--stride", "96"], "weighted"),
            ("llamacpp", ["--text", "text.txt", "--context", "256"], "tokens"),
            ("lmeval", ["--data", "documents.jsonl", "--context", "64"], "tokens"),
            ("self", ["--data", "documents.jsonl", "--context", "64"], "tokens"),
        ]
        for protocol, options, aggregate in runs:
            command = [mxlm, "eval", "--quiet", "--no-journal", "--jensen-shannon", "--device", "cpu", "--protocol", protocol, *options,
                       *(x for v in VARIANTS for x in ("--mx", v)), "--json", "out.json", "--per-token", "out.csv"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            run = json.loads((folder / "out.json").read_text())["runs"][0]
            data = per_token.read(folder / "out.csv")
            counts = np.bincount(data["window"])
            pages = None
            if protocol in ("document", "self"):
                clusters = np.arange(len(counts))
            elif "--windows" in options:  # far from one another
                clusters = np.arange(len(counts))
            elif protocol == "lmeval":
                # A page begins where the prefix token is read.
                first = np.concatenate([[0], np.cumsum(counts)[:-1]])
                prefix = data["token"][0]
                begins = (data["token"][first] == prefix) & (data["position"][first] == 1)
                clusters = np.cumsum(begins) - 1
                assert clusters[-1] == len(documents) - 1
                share = counts / np.bincount(clusters, weights=counts)[clusters]
                words = np.array([len(re.split(r"\s+", d)) for d in documents])[clusters] * share
                raw = np.array([len(d.encode()) for d in documents])[clusters] * share
                pages = (words, raw, clusters)
            else:
                clusters = per_token.stretches(counts)
            recompute(checker, protocol, run, data, clusters, aggregate, pages)
            print(f"{' '.join([protocol, *options])}: {run['clusters']['number']} clusters")
    print(f"{checker.count} figures equal NumPy's, the furthest by {checker.worst:.1e}")


if __name__ == "__main__":
    main()
