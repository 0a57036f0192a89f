#!/usr/bin/env python3
"""Writes tests/data/hub/environment.json: the cache and the file of the token that huggingface_hub makes of variables.

Needs `pip install huggingface_hub`. Every case runs in a process of its own, for the constants are set at import.
"""
import json, pathlib, subprocess, sys

import huggingface_hub

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "hub" / "environment.json"
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
OUT.write_text(json.dumps(golden, indent=1) + "\n")
