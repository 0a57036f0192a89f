"""Writes mxlm/_options.pyi, the types of evaluate()'s options, from the table in the extension.

usage: write_options.py FOLDER FILE    (FOLDER holds the extension _core)
"""

import sys

sys.path.insert(0, sys.argv[1])
import _core  # noqa: E402

lines = ["import os", "from typing import Optional, Sequence, TypedDict, Union", "", "class Options(TypedDict, total=False):"]
lines += [f"    {row['name']}: Optional[{row['type']}]" for row in _core.options()]
with open(sys.argv[2], "w", encoding="utf-8") as file:
    file.write("\n".join(lines) + "\n")
