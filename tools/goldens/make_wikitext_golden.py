#!/usr/bin/env python3
"""Writes tests/data/hub/: a few rows in the form of Salesforce/wikitext (parquet, with pyarrow) and the raw text that
they stand for.

The rows are made from the text as the data set's own script makes them (wikitext.py of the `wikitext` data set): each
line of the raw file is a row with its newline, a blank line is an empty row.

Usage: tools/goldens/make_wikitext_golden.py     (needs pyarrow; made with 26.0.1)
"""
import pathlib

import pyarrow
import pyarrow.parquet

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/data/hub"
TEXT = """ 
 = A heading of our own = 
 
 The first paragraph has one sentence about a rabbit with a watch . 
 The second line follows at once , with numbers as 3 @.@ 14 and a <unk> word . 
 
 
 = = Another heading = = 
 
 It was late , and nobody had asked why . 
"""


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    lines = TEXT.splitlines(keepends=True)
    rows = [line if line.strip() else "" for line in lines]
    (OUT / "wikitext.raw").write_text(TEXT, newline="")
    pyarrow.parquet.write_table(pyarrow.table({"text": rows}), OUT / "wikitext.parquet", compression="snappy")
    print(f"pyarrow {pyarrow.__version__}: {len(rows)} rows, {sum(1 for r in rows if r)} of them not blank")


if __name__ == "__main__":
    main()
