#!/usr/bin/env python3
"""Compares what mxlm reads of Parquet files with pyarrow, over files that four writers make in a hundred ways.

Usage: tools/checks/check_parquet.py [path of mxlm]    (needs pyarrow, polars, duckdb, fastparquet, pandas)
"""
import hashlib, itertools, json, pathlib, random, subprocess, sys, tempfile

import duckdb
import fastparquet
import pandas
import polars
import pyarrow
import pyarrow.parquet

ROOT = pathlib.Path(__file__).resolve().parents[2]
MXLM = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / "build/release/mxlm")
random.seed(3)
TEXTS = ["First", "", "\u6c34 \U0001f34c", "a" * 5000, *["same"] * 300]
TEXTS += ["".join(random.choice("abc \n\u00e9") for _ in range(random.randrange(60))) for _ in range(700)]
SUBSETS = [random.choice(["A", "B", None]) for _ in TEXTS]


def arrow(folder):
    table = pyarrow.table({"n": range(len(TEXTS)), "list": [["a", "b"]] * len(TEXTS), "text": TEXTS,
                           "meta": [{"pile_set_name": s, "x": None} if s else None for s in SUBSETS],
                           "deep": [{"er": {"text": text}} for text in TEXTS]})
    for codec, version, encoding, small in itertools.product(
            ("none", "snappy", "gzip", "zstd", "lz4"), ("1.0", "2.0"),
            ("dictionary", "PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"), (False, True)):
        options = {"compression": codec, "data_page_version": version, "write_page_checksum": small}
        if encoding != "dictionary":
            options |= {"use_dictionary": False, "column_encoding": {"text": encoding, "deep.er.text": encoding}}
        if small:
            options |= {"row_group_size": 100, "data_page_size": 256, "write_batch_size": 16,
                        "dictionary_pagesize_limit": 200}
        path = folder / f"pyarrow-{codec}-{version}-{encoding}-{small}.parquet"
        pyarrow.parquet.write_table(table, path, **options)
        yield path, "text"
        yield path, "deep.er.text"


def others(folder):
    frame = pandas.DataFrame({"n": range(len(TEXTS)), "text": TEXTS})
    for codec in ("uncompressed", "snappy", "gzip", "zstd", "lz4"):
        path = folder / f"polars-{codec}.parquet"
        polars.DataFrame({"text": TEXTS}).write_parquet(path, compression=codec, row_group_size=200, data_page_size=1000)
        yield path, "text"
    for codec, version in itertools.product(("uncompressed", "snappy", "gzip", "zstd", "lz4_raw"), ("V1", "V2")):
        path = folder / f"duckdb-{codec}-{version}.parquet"
        duckdb.sql(f"COPY frame TO '{path}' (FORMAT parquet, COMPRESSION {codec}, PARQUET_VERSION {version})")
        yield path, "text"
    for codec in (None, "SNAPPY", "GZIP", "ZSTD"):
        path = folder / f"fastparquet-{codec}.parquet"
        fastparquet.write(str(path), frame, compression=codec, row_group_offsets=300)
        yield path, "text"
    path = folder / "fastparquet-category.parquet"
    fastparquet.write(str(path), frame.astype({"text": "category"}))
    yield path, "text"


print(f"pyarrow {pyarrow.__version__}, polars {polars.__version__}, duckdb {duckdb.__version__}, "
      f"fastparquet {fastparquet.__version__}")
wrong = count = 0
with tempfile.TemporaryDirectory() as place:
    folder, out = pathlib.Path(place), pathlib.Path(place) / "out.json"
    for path, field in itertools.chain(arrow(folder), others(folder)):
        column = pyarrow.parquet.read_table(path)[field.split(".")[0]].to_pylist()
        for key in field.split(".")[1:]:
            column = [row[key] for row in column]
        texts = [text if isinstance(text, str) else text.decode() for text in column]
        assert texts == TEXTS, path
        # The hash of a data set is that of its texts, each followed by a newline.
        expected = hashlib.sha256("".join(text + "\n" for text in texts).encode()).hexdigest()
        run = subprocess.run([MXLM, "eval", "--data", path, "--field", field, "--no-variants", "--max-windows", "1",
                              "--context", "16", "--threads", "1", "--quiet", "--json", out], capture_output=True, text=True)
        data = json.loads(out.read_text())["runs"][0]["data"] if run.returncode == 0 else {}
        count += 1
        if data.get("sha256") != expected:
            wrong += 1
            print(f"WRONG {path.name} {field}: {run.stderr.strip() or data}")
print(f"{count} columns, {wrong} read otherwise than by pyarrow")
sys.exit(wrong != 0)
