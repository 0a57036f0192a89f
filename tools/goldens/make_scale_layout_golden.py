#!/usr/bin/env python3
"""Make tests/data/cuda/scale_layout.txt: where torchao puts block scales for cuBLASLt's block-scaled products.

usage: make_scale_layout_golden.py [-o tests/data/cuda/scale_layout.txt]

After the comment, a line "ROWS BLOCKS" and one with the bytes of the layout in order for each matrix of scales: 0 for
padding, else 1 + row * BLOCKS + block of the scale that is there.
"""
import argparse
from pathlib import Path

import torch
import torchao
from torchao.prototype.mx_formats.utils import to_blocked

SHAPES = ((1, 1), (33, 4), (130, 7))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", type=Path, default=Path(__file__).resolve().parents[2] / "tests/data/cuda/scale_layout.txt")
    arguments = parser.parse_args()
    lines = [f"# tools/goldens/make_scale_layout_golden.py, torchao {torchao.__version__}, torch {torch.__version__}"]
    for rows, blocks in SHAPES:
        scales = torch.arange(1, rows * blocks + 1, dtype=torch.int32).reshape(rows, blocks)
        layout = to_blocked(scales, use_triton_kernel=False).flatten()
        lines += [f"{rows} {blocks}", " ".join(str(int(x)) for x in layout)]
    arguments.o.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
