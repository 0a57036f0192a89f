#!/usr/bin/env python3
"""Writes tests/data/io: what Python, huggingface/safetensors and the zstd program make of small inputs.

Needs `pip install numpy safetensors` and the `zstd` program.
usage: make_io_goldens.py [--check FILE]   (--check reads a file of ours with the reference library and prints it)
"""

import argparse
import hashlib
import itertools
import json
import pathlib
import platform
import random
import struct
import subprocess

import numpy as np
import safetensors
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "io"

# Bytes at every border of the UTF-8 table: ASCII, continuations, each kind of lead byte, bytes that never occur.
CRITICAL = bytes.fromhex("00 41 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")


def versions():
    return {"python": platform.python_version(), "numpy": np.__version__, "safetensors": safetensors.__version__}


def utf8():
    """Chosen cases in full, and the hash over all strings of up to four critical bytes (each replaced, then NUL NUL)."""
    cases = [b"", b"plain", "\ufeffmark stays".encode(), "z\u00df\u6c34\U0001f34c".encode(),
             b"\xed\xa0\x80", b"\xed\xbf\xbf!", b"\xf4\x90\x80\x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf",
             b"\xf1\x80\x80\xe1\x80\xc2b\x80c\x80\xbfd", b"ends \xe6\xb0", b"ends \xf0\x9f\x8d", b"ends \xc3",
             b"\xfe\xff\x00a", b"\r\n\x00\x1a"]
    rng = random.Random(7)
    for length in (9, 33, 70, 200):
        for _ in range(12):
            cases.append(bytes(rng.choice(CRITICAL) if rng.random() < 0.4 else rng.randrange(32, 127)
                               for _ in range(length)))
    digest = hashlib.sha256()
    for length in range(1, 5):
        for letters in itertools.product(CRITICAL, repeat=length):
            digest.update(bytes(letters).decode("utf-8", errors="replace").encode() + b"\0\0")
    golden = {"versions": versions(), "alphabet": CRITICAL.hex(), "all_up_to_4": digest.hexdigest(),
              "cases": [[c.hex(), c.decode("utf-8", errors="replace").encode().hex()] for c in cases]}
    (OUT / "utf8_replace.json").write_text(json.dumps(golden, indent=0) + "\n")


def tensors():
    rng = np.random.default_rng(7)
    arrays = {
        "half": rng.standard_normal((3, 5)).astype(np.float16),
        "single": rng.standard_normal((2, 3, 4)).astype(np.float32),
        "double": rng.standard_normal(7),
        "scalar": np.array(42, dtype=np.int64),
        "bytes": rng.integers(0, 255, 5, dtype=np.uint8),
        "short": rng.integers(-9, 9, (1, 3), dtype=np.int16),
        "flags": np.array([True, False, True]),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "name with \"quotes\" and \u00fc": np.arange(4, dtype=np.int32),
    }
    path = OUT / "reference.safetensors"
    save_file(arrays, path, metadata={"format": "np", "note": "made by tools/make_io_goldens.py"})
    golden = {"versions": versions(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
              "tensors": {k: {"dtype": v.dtype.str, "shape": list(v.shape), "hex": v.tobytes().hex()}
                          for k, v in arrays.items()}}
    (OUT / "reference_safetensors.json").write_text(json.dumps(golden, indent=0) + "\n")


def documents():
    lines = [
        json.dumps({"text": "First document.\n", "meta": {"pile_set_name": "Books3"}}),
        "",
        json.dumps({"text": "\u6c34 and \U0001f34c", "meta": {"pile_set_name": "Wikipedia (en)"}}, ensure_ascii=False),
        json.dumps({"text": "\u6c34 and \U0001f34c, escaped \u0000", "meta": {}}) + "\r",
        '  {"text": "overwritten", "other": [1, {"deep": null}], "text": "the last one counts"}  ',
        json.dumps({"text": "", "meta": "no object"}),
        json.dumps({"text": "no newline at the end"}),
    ]
    data = "\n".join(lines).encode()
    (OUT / "documents.jsonl").write_bytes(data)

    def zstd(part, *options):
        return subprocess.run(["zstd", "-q", "-c", *options], input=part, stdout=subprocess.PIPE, check=True).stdout

    # Two frames, cut in the middle of a line, with a skippable frame between them, as parallel compressors write it.
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    cut = len(data) // 2
    (OUT / "documents.jsonl.zst").write_bytes(zstd(data[:cut], "--check") + skippable + zstd(data[cut:], "-19"))
    (OUT / "wide_window.jsonl.zst").write_bytes(zstd(data, "--long=28"))
    expected = []
    for line in data.decode().split("\n"):
        if line.strip():
            value = json.loads(line)
            meta = value.get("meta")
            expected.append([value["text"], meta.get("pile_set_name", "") if isinstance(meta, dict) else ""])
    golden = {"versions": versions(), "sha256": hashlib.sha256(data).hexdigest(), "documents": expected}
    (OUT / "documents.json").write_text(json.dumps(golden, indent=0) + "\n")


def check(path):
    with safetensors.safe_open(path, "np") as file:
        for key in file.keys():
            value = file.get_tensor(key)
            print(key, value.dtype, value.shape, hashlib.sha256(value.tobytes()).hexdigest()[:16])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", metavar="FILE")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
    else:
        OUT.mkdir(parents=True, exist_ok=True)
        utf8()
        tensors()
        documents()
