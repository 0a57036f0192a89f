#!/usr/bin/env python3
"""Writes tests/data/mx/goldens.txt: hard rows and what microxcaling and torchao make of them.

    python tools/goldens/make_mx_goldens.py --microxcaling PATH -o tests/data/mx/goldens.txt

Lines: `# comment`, `input ID WORD...` (float32 bits in hex), `values ORACLE FORMAT BLOCK SCALE_BITS RULE ROUND ID WORD...`
(decoded float32), `codes ORACLE FORMAT BLOCK 8 RULE ROUND ID SCALES CODES` (bytes in hex). A word `*` stands where an exact
predicate of mx_faults.py says that the oracle is at fault."""

import argparse
import os
import sys

import numpy as np
import torch

from mx_faults import FORMATS, Microxcaling, Torchao, blocks_of
from mx_hard_values import hard_values

COLS = 80


def words(x):
    return " ".join(f"{w:x}" for w in np.ascontiguousarray(x).view(np.uint32))


def inputs(rng):
    def bits(*values):
        row = np.resize(np.array(values, dtype=np.uint32), COLS)
        row[1::2] ^= 0x80000000
        return row.view(np.float32)

    rows = [
        hard_values(rng, 1, COLS, 32, (120, 134))[0],
        hard_values(rng, 1, COLS, 16, (110, 140))[0],
        hard_values(rng, 1, COLS, 32, (0, 4))[0],
        hard_values(rng, 1, COLS, 8, (0, 254))[0],
        hard_values(rng, 1, COLS, 40, (240, 254))[0],
        # maxima around powers of two, 1.75 and 1.875 of them
        bits(*[0x42000000 + d for d in (-1, 0, 1, -2, 2)], *[0x41600000 + d for d in (-1, 0, 1)],
             *[0x41700000 + d for d in (-1, 0, 1)], *[0x3E800000 + d for d in (-1, 0, 1)]),
        # every tie of a 4-bit grid, and its neighbours
        np.resize(np.float32([6, 0.25, 0.24999999, 0.25000003, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 4.9999995, 5.0000005, -0.0]),
                  COLS).astype(np.float32),
    ]
    special = hard_values(rng, 1, COLS, 16, (120, 130))[0]
    special[5], special[40], special[70] = np.nan, np.inf, -np.inf
    rows.append(special)
    rows.append(np.zeros(COLS, dtype=np.float32))
    return [np.ascontiguousarray(r) for r in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--microxcaling", required=True)
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    microxcaling, torchao = Microxcaling(options.microxcaling), Torchao()
    import torchao as ao

    rng = np.random.default_rng(20)
    rows = inputs(rng)
    lines = [
        "# Written by tools/goldens/make_mx_goldens.py; see there for the lines.",
        f"# torch {torch.__version__}, torchao {ao.__version__}, microxcaling 7bc41952 (custom_cuda off)",
    ]
    lines += [f"input {i} {words(r)}" for i, r in enumerate(rows)]

    def marked(y, faults):
        text = [f"{w:x}" for w in np.ascontiguousarray(y[0]).view(np.uint32)]
        for mask in faults.values():
            for i in np.flatnonzero(mask[0]):
                text[i] = "*"
        return " ".join(text)

    def mx_case(name, block, scale_bits, rounding, i):
        x = rows[i][None]
        y = microxcaling.run(x, name, block, scale_bits, rounding)
        faults = microxcaling.faults(x, name, block, scale_bits, rounding)
        lines.append(f"values microxcaling {name} {block} {scale_bits} floor {rounding} {i} {marked(y, faults)}")

    for name in FORMATS:
        for i in range(len(rows)):
            for rounding in ("even", "nearest", "floor"):
                if i < 4 or rounding == "even" or i == 6:
                    mx_case(name, 32, 8, rounding, i)
        for n, (block, bits) in enumerate([(8, 8), (16, 8), (0, 8), (64, 8), (32, 4), (32, 5), (24, 6), (32, 16)]):
            mx_case(name, block, bits, "even", n % 4)
    for name, (_, element, *_rest) in FORMATS.items():
        if element is None:
            continue
        for rule in torchao.modes:
            for i in range(len(rows)):
                x = np.ascontiguousarray(rows[i][None, :64])
                y = torchao.run(x, name, 32, rule)
                faults = torchao.faults(x, name, 32, rule)
                lines.append(f"values torchao {name} 32 8 {rule} even {i} {marked(y, faults)}")
                bad = blocks_of(np.any(list(faults.values()), axis=0), 32).any()
                if i < 2 and not bad and rule in ("floor", "rceil"):
                    scale, data = torchao.to_mx(torch.from_numpy(x.copy()), element, 32, torchao.modes[rule])
                    data = data.view(torch.uint8).reshape(-1).numpy()
                    if "fp6" in name:  # it keeps a code a byte; packed four in three bytes, low bits first
                        bits = np.unpackbits(data.reshape(-1, 1), axis=1, bitorder="little")[:, :6]
                        data = np.packbits(bits.reshape(-1), bitorder="little")
                    codes = bytes(data).hex()
                    scales = bytes(scale.view(torch.uint8).reshape(-1).numpy()).hex()
                    lines.append(f"codes torchao {name} 32 8 {rule} even {i} {scales} {codes}")
    os.makedirs(os.path.dirname(options.output), exist_ok=True)
    with open(options.output, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
