#!/usr/bin/env python3
"""Writes into tests/data/hub environment.json, the cache and the file of the token that huggingface_hub makes of
variables, and small Parquet files with the columns of data sets that are known by name.

Needs `pip install huggingface_hub pyarrow`. Every case of the environment runs in a process of its own, for the
constants are set at import.
"""
import json, pathlib, subprocess, sys

import huggingface_hub
import pyarrow
from pyarrow.parquet import write_table

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "hub"
CASES = [
    {},
    {"XDG_CACHE_HOME": "/xdg"},
    {"XDG_CACHE_HOME": "$DISK/x"},
    {"XDG_CACHE_HOME": "~/x"},
    {"HF_HOME": "/hf", "XDG_CACHE_HOME": "/xdg"},
    {"HF_HOME": "~"},
    {"HF_HOME": "~/hf"},
    {"HF_HOME": "~nobody-of-that-name/hf"},
    {"HF_HOME": "~root/hf"},
    {"HF_HOME": "/a/~/b"},
    {"HF_HOME": "$DISK/hf"},
    {"HF_HOME": "${DISK}hf"},
    {"HF_HOME": "$DISK$PART/${PART}"},
    {"HF_HOME": "$DISKS/hf"},
    {"HF_HOME": "/a/$UNSET/${UNSET$DISK}/${}/$/x$"},
    {"HF_HOME": "/a/${DISK"},
    {"HF_HOME": "/a/$LOOP"},
    {"HF_HOME": "$TILDE/hf"},
    {"HF_HUB_CACHE": "$DISK/hub", "HF_HOME": "/hf"},
    {"HF_HUB_CACHE": "~/hub", "HUGGINGFACE_HUB_CACHE": "/old"},
    {"HUGGINGFACE_HUB_CACHE": "$DISK/old", "HF_HOME": "/hf"},
    {"HUGGINGFACE_HUB_CACHE": "~/old"},
    {"HF_TOKEN_PATH": "$DISK/token", "HF_HOME": "/hf"},
    {"HF_ASSETS_CACHE": "/assets"},
]
ALWAYS = {"HOME": "/home/somebody", "DISK": "/disk", "PART": "part", "LOOP": "$DISK", "TILDE": "~"}

cases = []
for case in CASES:
    code = "from huggingface_hub import constants as c; print(c.HF_HUB_CACHE); print(c.HF_TOKEN_PATH)"
    lines = subprocess.run([sys.executable, "-c", code], env=ALWAYS | case, check=True, text=True,
                           stdout=subprocess.PIPE).stdout.splitlines()
    cases.append({"variables": case, "cache": lines[0], "token": lines[1]})
golden = {"versions": {"huggingface_hub": huggingface_hub.__version__}, "always": ALWAYS, "cases": cases}
(OUT / "environment.json").write_text(json.dumps(golden, indent=1) + "\n")

functions = ["def one():\n    return 1\n", "def two(a):\n    \"\"\"Doubles.\"\"\"\n    return 2 * a\n"]
write_table(pyarrow.table({"func_name": ["one", "two"], "whole_func_string": ["#\n" + text for text in functions],
                           "language": ["python"] * 2, "func_code_string": functions,
                           "func_code_tokens": [["def", "one"], ["def", "two"]]}), OUT / "code.parquet")
write_table(pyarrow.table({"docstring": ["", "Doubles."], "code": functions}), OUT / "code_plain.parquet")
write_table(pyarrow.table({"sentence": ["no it was n't black monday", "but while the <unk>", "", "N points"]}),
            OUT / "sentences.parquet")
