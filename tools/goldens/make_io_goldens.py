#!/usr/bin/env python3
"""Writes tests/data/io and seeds of fuzz/corpus: what Python, huggingface/safetensors, PyTorch, Arrow and the zstd program make of small inputs.

Needs `pip install numpy safetensors torch pyarrow` and the `zstd` program.
usage: make_io_goldens.py [--check FILE]   (--check reads a file of ours with the reference library and prints it)
"""

import argparse
import gzip
import hashlib
import io
import itertools
import json
import os
import pathlib
import platform
import random
import shutil
import struct
import subprocess
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import safetensors
import torch
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "io"

# Bytes at every border of the UTF-8 table: ASCII, continuations, each kind of lead byte, bytes that never occur.
CRITICAL = bytes.fromhex("00 41 7f 80 8f 90 9f a0 bf c0 c1 c2 df e0 e1 ec ed ee ef f0 f1 f3 f4 f5 ff")


def versions():
    return {"python": platform.python_version(), "numpy": np.__version__, "safetensors": safetensors.__version__,
            "torch": torch.__version__, "pyarrow": pyarrow.__version__}


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
    save_file(arrays, path, metadata={"format": "np", "note": "made by tools/goldens/make_io_goldens.py"})
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
    # Two members cut in the middle of a line, and zero bytes as tapes pad with.
    (OUT / "documents.jsonl.gz").write_bytes(gzip.compress(data[:cut], mtime=0) + gzip.compress(data[cut:], 1, mtime=0)
                                             + b"\0" * 7)
    expected = []
    for line in data.decode().split("\n"):
        if line.strip():
            value = json.loads(line)
            meta = value.get("meta")
            expected.append([value["text"], meta.get("pile_set_name", "") if isinstance(meta, dict) else ""])
    golden = {"versions": versions(), "sha256": hashlib.sha256(data).hexdigest(), "documents": expected}
    (OUT / "documents.json").write_text(json.dumps(golden, indent=0) + "\n")


def python_lines():
    """Lines of JSON of which Python's json makes a text, or refuses them (null)."""
    lines = [
        *(f'{{"text": "plain", "x": {value}}}' for value in (
            "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", str(2**127 + 1), str(-2**127), str(2**63),
            str(2**64), str(-2**63 - 1), "1" + "0" * 400, "0.1e+400", "-0", "-0.0", "[NaN, {\"y\": -Infinity}]",
            "\"NaN\"", "\"say \\\"NaN\\\" \"", '{"NaN": NaN}')),
        '{"x": NaN, "text": "after \\"Infinity\\", NaN, 1e999 and \\\\"}',
        '{"NaN": 1, "text": "a key"}',
        '\ufeff{"text": "a mark in front"}',
        '\ufeff{"text": "a mark in front", "x": NaN}',
        '{"text": "\ufeffin the text"}',
        '{"text": "\\ud83d lone", "x": Infinity}',
        '{"text": "\\ud83d\\ude00 \\ude00\\ud83d \\uDBFF\\uDFFF", "x": 1e999}',
        '{"text": "first", "text": "last", "x": 1, "x": NaN}',
        '{"text": "carriage return"}\r',
        '\t {"text"\t:\r"blanks"} ',
        '{"meta": {"pile_set_name": NaN}, "text": "meta"}',
        # Refused:
        *(f'{{"text": "plain", "x": {value}}}' for value in (
            "nan", "inf", "+Infinity", "-NaN", "Infinity1", "NaNNaN", "01", "-", "+1", "1.", ".5", "1e", "0x10", "1_000",
            "None", "True", "'a'", "NaN NaN", "- Infinity", "--1", "1e5.5", "Infinity.0")),
        '{"text": "x", "x": NaN', '{"text": "x", NaN: 1}', '{"text": "x",}', '{"text": "x" "y": NaN}', "NaN", "NaN {}",
        '{"text": "tab\tinside"}', '{"text": "x"}\ufeff', '\ufeff\ufeff{"text": "x"}', '{"text": "\\x41", "x": NaN}',
        '{"text": "\\ud83", "x": NaN}', '{"text": NaN}', '{"text": ["x"]}', '[{"text": "x"}]',
    ]
    golden = []
    for line in lines:
        try:
            value = json.loads(line.encode())
            text = value["text"] if isinstance(value, dict) and isinstance(value.get("text"), str) else None
        except json.JSONDecodeError:
            text = None
        # What is half a surrogate pair is no character, and becomes U+FFFD as other invalid text does.
        golden.append([line, text and "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)])
    (OUT / "python_lines.json").write_text(json.dumps({"versions": versions(), "lines": golden}, indent=0) + "\n")


def raw(tensor):
    """dtype by its safetensors name, shape, and the bytes in row-major order."""
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
             torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
             torch.bool: "BOOL", torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64",
             torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.float8_e8m0fnu: "F8_E8M0"}
    flat = tensor.detach().contiguous().reshape(-1)
    data = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
    return {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "hex": data.hex()}


class RunsACommand:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


def rezip(source, target, change=lambda name, data: data, method=zipfile.ZIP_STORED):
    """Writes the archive again with Python's zipfile."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), change(info.filename, old.read(info)), method)


def pytorch():
    out = OUT / "pytorch"
    shutil.rmtree(out, ignore_errors=True)
    (out / "sharded").mkdir(parents=True)
    torch.manual_seed(7)
    base = torch.randn(6, 5)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    tensors = module.state_dict()  # an OrderedDict with the attribute _metadata
    types = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
             torch.int8, torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn,
             torch.float8_e5m2]
    for dtype in types:
        tensors[f"types.{str(dtype).removeprefix('torch.')}"] = (torch.arange(-2, 4) * 3).abs().reshape(2, 3).to(dtype)
    tensors["types.float8_e8m0fnu"] = torch.tensor([0, 127, 254], dtype=torch.uint8).view(torch.float8_e8m0fnu)
    tensors["views.whole"] = base
    tensors["views.same"] = base
    tensors["views.rows"] = base[2:4]
    tensors["views.columns"] = base[:, 1:3]
    tensors["views.transposed"] = base.t()
    tensors["views.every_other"] = base.reshape(-1)[1::2]
    tensors["views.three_axes"] = torch.arange(24, dtype=torch.int16).reshape(2, 3, 4).permute(2, 0, 1)
    tensors["views.one_long"] = torch.randn(4, 3)[:, None, 1:2]
    tensors["shapes.scalar"] = torch.tensor(1.5)
    tensors["shapes.empty"] = torch.zeros(0, 4)
    tensors["shapes.empty_view"] = base[:, 5:]
    tensors["parameter"] = torch.nn.Parameter(torch.randn(2, 2, dtype=torch.bfloat16))
    tensors["name with \"quotes\" and \u00fc"] = torch.ones(1)
    for protocol in (2, 3, 4, 5):
        torch.save(tensors, out / f"protocol{protocol}.bin", pickle_protocol=protocol)
    golden = {"versions": versions(), "tensors": {name: raw(tensor) for name, tensor in tensors.items()}}
    (OUT / "pytorch.json").write_text(json.dumps(golden, indent=0) + "\n")

    torch.save({"state_dict": {"a": base}}, out / "nested.bin")
    shards = [{"b": base + 1, "d": base[:1]}, {"a": base.half(), "c": torch.arange(3)}]
    weight_map = {}
    for i, shard in enumerate(shards, 1):
        name = f"pytorch_model-{i:05}-of-00002.bin"
        torch.save(shard, out / "sharded" / name)
        weight_map.update(dict.fromkeys(shard, name))
    index = {"metadata": {"total_size": sum(t.nbytes for shard in shards for t in shard.values())},
             "weight_map": dict(sorted(weight_map.items()))}
    (out / "sharded" / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")
    golden = {name: raw(tensor) for shard in shards for name, tensor in shard.items()}
    (out / "sharded" / "golden.json").write_text(json.dumps(golden, indent=0) + "\n")

    # What must be refused.
    small = {"a": torch.arange(4.0)}
    torch.save(small, out / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.arange(4.0), "b": RunsACommand()}, out / "command.bin")
    torch.save({"a": torch.arange(4.0), "b": RunsACommand()}, out / "command4.bin", pickle_protocol=4)
    torch.save({"model": small, "epoch": 3}, out / "training.bin")
    torch.save([torch.arange(4.0)], out / "list.bin")
    torch.save(torch.arange(4.0), out / "tensor.bin")
    torch.save(torch.nn.Linear(2, 2), out / "module.bin")
    torch.save({"a": torch.zeros(2, dtype=torch.complex64)}, out / "complex.bin")
    torch.save({"a": torch.zeros(2, 2).to_sparse()}, out / "sparse.bin")
    torch.save({"a": torch.arange(4.0).expand(3, 4)}, out / "expanded.bin")
    small_file = io.BytesIO()
    torch.save(small, small_file)
    (out / "small.bin").write_bytes(small_file.getvalue())
    rezip(small_file, out / "zipfile.bin")  # without torch's padding, hence unaligned
    rezip(small_file, out / "deflated.bin", method=zipfile.ZIP_DEFLATED)
    rezip(small_file, out / "big_endian.bin", lambda name, data: b"big" if name.endswith("byteorder") else data)
    rezip(small_file, out / "short_storage.bin", lambda name, data: data[:-1] if name.endswith("/data/0") else data)
    torch.jit.script(torch.nn.Linear(2, 2)).save(out / "script.bin")


def parquet():
    out = OUT / "parquet"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rng = random.Random(7)
    texts = ["First document.\n", "", "\u6c34 and \U0001f34c", "NUL \0 and\r\n", "same", "same", "x" * 3000]
    texts += ["".join(rng.choice("abc \n\u00e9") for _ in range(rng.randrange(80))) for _ in range(600)]
    subsets = [rng.choice(["Books3", "Wikipedia (en)", "ArXiv"]) for _ in texts]
    ids = pyarrow.array(range(len(texts)))
    plain = pyarrow.table({"id": ids, "text": texts,
                           "meta": [{"pile_set_name": subset, "n": 1} for subset in subsets]})
    large = pyarrow.table({"text": pyarrow.array(texts, pyarrow.large_string()),
                           "meta": pyarrow.array([{"pile_set_name": subset} for subset in subsets])})
    small_pages = {"row_group_size": 100, "data_page_size": 512, "write_batch_size": 32}
    write = pyarrow.parquet.write_table
    write(plain, out / "snappy.parquet", compression="snappy")
    write(plain, out / "zstd_pages2.parquet", compression="zstd", data_page_version="2.0", write_page_checksum=True,
          **small_pages)
    write(large, out / "gzip_large.parquet", compression="gzip", use_dictionary=False, **small_pages)
    write(large, out / "delta.parquet", compression="none", use_dictionary=False,
          column_encoding={"text": "DELTA_BYTE_ARRAY", "meta.pile_set_name": "DELTA_LENGTH_BYTE_ARRAY"}, **small_pages)
    # The dictionary is left for plain values when it is full; nulls in subsets, none in texts.
    write(plain, out / "lz4_fallback.parquet", compression="lz4", dictionary_pagesize_limit=400, **small_pages)
    digest = hashlib.sha256("".join(text + "\n" for text in texts).encode()).hexdigest()
    golden = {"versions": versions(), "sha256": digest, "documents": list(zip(texts, subsets))}
    (OUT / "parquet.json").write_text(json.dumps(golden, indent=0) + "\n")

    few = {"text": ["one", "two", None, "four"], "other": [b"caf\xe9", b"b", b"c", b"d"], "id": [1, 2, 3, 4],
           "list": [["a"], [], ["b", "c"], ["d"]], "meta": ["no struct", "", "", ""]}
    few = pyarrow.table(few).cast(pyarrow.schema([("text", pyarrow.string()), ("other", pyarrow.binary()),
                                                  ("id", pyarrow.int64()), ("list", pyarrow.list_(pyarrow.string())),
                                                  ("meta", pyarrow.string())]))
    write(few, out / "few.parquet", compression="none", write_page_checksum=True)
    write(few.select(["id"]), out / "numbers.parquet")
    write(few.slice(0, 0), out / "no_rows.parquet")
    # Members of structs, the outer of which may be missing; a codec that is not read.
    deep = pyarrow.table({"a": [{"b": {"text": "x"}}, {"b": {"text": "y"}}, {"b": {"text": ""}}, {"b": {"text": "x"}}],
                          "meta": [{"pile_set_name": "X"}, {"pile_set_name": None}, None, {"pile_set_name": "Y"}]})
    write(deep, out / "deep.parquet", compression="gzip", data_page_version="2.0", use_dictionary=False,
          column_encoding={"a.b.text": "DELTA_BYTE_ARRAY", "meta.pile_set_name": "DELTA_LENGTH_BYTE_ARRAY"})
    write(deep, out / "brotli.parquet", compression="brotli")
    # Some hundred bytes that stand for 10 GB: one string of a dictionary, again and again.
    same = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 100_000, pyarrow.int32()), ["x" * 100_000])
    write(pyarrow.table({"text": same}), out / "bomb.parquet", compression="zstd", store_schema=False)


def seeds():
    """Inputs that the fuzzers begin with: the small files above and their parts."""
    corpus = pathlib.Path(__file__).resolve().parents[2] / "fuzz" / "corpus"

    def seed(fuzzer, name, data):
        (corpus / fuzzer).mkdir(parents=True, exist_ok=True)
        (corpus / fuzzer / name).write_bytes(data)

    for name in ("small", "zipfile", "nested", "training", "command", "protocol2", "protocol4"):
        path = OUT / "pytorch" / f"{name}.bin"
        with zipfile.ZipFile(path) as archive:
            pickled, = (n for n in archive.namelist() if n.endswith("/data.pkl"))
            seed("pickle_fuzz", name, archive.read(pickled))
        if path.stat().st_size < 2000:
            seed("pytorch_fuzz", name, path.read_bytes())
    views = io.BytesIO()
    base = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": base, "b": base.t(), "c": base[1:], "d": base.half()}, views)
    seed("pytorch_fuzz", "views", views.getvalue())
    for name, first in (("gz", b"\x01"), ("zst", b"\x00")):
        seed("compressed_fuzz", name, first + (OUT / f"documents.jsonl.{name}").read_bytes())
    for name in ("few", "numbers", "no_rows"):
        seed("parquet_fuzz", name, (OUT / "parquet" / f"{name}.parquet").read_bytes())
    nested = pyarrow.table({"text": ["a", "b", "a"], "meta": [{"pile_set_name": "x"}, {"pile_set_name": None}, None]})
    for codec in ("snappy", "gzip", "zstd", "lz4"):
        for options in ({}, {"use_dictionary": False, "data_page_version": "2.0"}):
            sink = io.BytesIO()
            pyarrow.parquet.write_table(nested, sink, compression=codec, store_schema=False, **options)
            seed("parquet_fuzz", codec + ("2" if options else ""), sink.getvalue())
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        sink = io.BytesIO()
        pyarrow.parquet.write_table(nested, sink, compression="none", store_schema=False, use_dictionary=False,
                                    column_encoding={"text": encoding, "meta.pile_set_name": encoding})
        seed("parquet_fuzz", encoding.lower(), sink.getvalue())


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
        python_lines()
        pytorch()
        parquet()
        seeds()
