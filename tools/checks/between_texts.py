#!/usr/bin/env python3
"""How far figures of six books lie apart, in the errors that are printed for each.

Usage: tools/checks/between_texts.py MXLM | RESULT.json...   (needs numpy and, for MXLM, Debian's apt-get and dpkg)

The books are in the public domain: Alice and The Time Machine of data/; Pride and Prejudice, Emma and Persuasion of
Debian's package r-cran-janeaustenr; Moby-Dick of r-cran-tokenizers. Of each, 30 windows of 512 tokens are spread evenly.
For each figure of each variant the table gives its range, the standard deviation between the books in mean printed
errors (1 if ± spoke of other books, too), and how many pairs of books lie within two joint errors (95 % if it did).
With RESULT.json, the results of such runs are read instead.
"""

import itertools
import json
import math
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
VARIANTS = ("linear=mxfp8", "linear=mxfp4", "linear=mxint8")
PACKAGES = {"r-cran-janeaustenr": {"PRIDE AND PREJUDICE": "pride", "EMMA": "emma", "Persuasion": "persuasion"},
            "r-cran-tokenizers": {"The Project Gutenberg EBook of Moby Dick": "moby-dick"}}
# (its name, how often the printed figure is in its unit, value and error in the JSON)
FIGURES = (("ln PPL", 1, lambda v: (v["nll"], v["nll_stderr_windows"])),
           ("ΔPPL %", 100, lambda v: (v["vs_baseline"]["ln_ppl_ratio"], v["vs_baseline"]["ln_ppl_ratio_stderr_windows"])),
           ("KL mnats", 1000, lambda v: (v["vs_baseline"]["kld_mean"], v["vs_baseline"]["kld_stderr_windows"])),
           ("top-1 %", 100, lambda v: (v["vs_baseline"]["top1_agreement"], v["vs_baseline"]["top1_stderr_windows"])))


def vectors(raw):
    """The lines of each character vector in one of R's lazy-load databases: a length, then zlib, of its XDR format, in
    which a string is a word of flags that ends with the type 9, a length and its bytes."""
    at = 0
    while at < len(raw):
        stream = zlib.decompressobj()
        body = stream.decompress(raw[at + 4:])
        at = len(raw) - len(stream.unused_data)
        lines = []
        for found in re.finditer(rb"\x00[\x00-\x0f].\x09(....)", body, re.DOTALL):
            size = struct.unpack(">I", found.group(1))[0]
            if found.end() + size <= len(body):
                lines.append(body[found.end():found.end() + size])
        yield b"\n".join(lines)


def books(folder):
    """{name: path}, from the repository and from Debian's packages."""
    out = {name: ROOT / f"data/{name}.txt" for name in ("alice", "time-machine")}
    for package, titles in PACKAGES.items():
        subprocess.run(["apt-get", "download", "-q", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["dpkg", "-x", str(next(folder.glob(f"{package}_*.deb"))), "x"], cwd=folder, check=True)
        data = folder / f"x/usr/lib/R/site-library/{package.rsplit('-', 1)[-1]}/data/Rdata.rdb"
        for raw in vectors(data.read_bytes()):
            text = raw.decode("utf-8-sig").replace("\r\n", "\n")
            name = next((n for title, n in titles.items() if text.startswith(title)), None)
            if name:  # without what Project Gutenberg has around the book
                text = re.sub(r"\A.*?\*\*\* START OF[^\n]*\n|End of (the )?Project Gutenberg.*\Z", "", text, flags=re.S)
                out[name] = folder / f"{name}.txt"
                out[name].write_text(text)
    assert len(out) == 6, out
    return out


def evaluate(mxlm, path, folder):
    result = folder / "out.json"
    variants = itertools.chain.from_iterable(("--mx", v) for v in VARIANTS)
    subprocess.run([mxlm, "eval", str(ROOT / "models/booklet-7m"), "--text", str(path), "--context", "512", "--windows",
                    "30", "--device", "cpu", *variants, "--no-journal", "--quiet", "--json", str(result)],
                   check=True, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def main():
    if all(a.endswith(".json") for a in sys.argv[1:]):
        results = [json.loads(pathlib.Path(a).read_text()) for a in sys.argv[1:]]
    else:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            results = [evaluate(sys.argv[1], path, folder) for path in books(folder).values()]
    runs = [r["runs"][0]["variants"] for r in results]
    print("| variant | figure | least to most | between the books, in errors | pairs within two errors |")
    print("|---|---|---|---|---|")
    for figure, unit, get in FIGURES:
        for same in zip(*runs):
            if (same[0]["vs_baseline"] is None) != (figure == "ln PPL"):
                continue
            values, errors = np.array([get(v) for v in same]).T
            pairs = list(itertools.combinations(range(len(values)), 2))
            near = sum(abs(values[a] - values[b]) <= 2 * math.hypot(errors[a], errors[b]) for a, b in pairs)
            print(f"| {same[0]['name']} | {figure} | {unit * values.min():.4g} to {unit * values.max():.4g} | "
                  f"{values.std(ddof=1) / errors.mean():.1f} | {near} of {len(pairs)} |")


if __name__ == "__main__":
    main()
