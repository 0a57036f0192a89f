#!/usr/bin/env python3
"""Opens the CSV of hostile results in spreadsheets: no cell is computed, names stay text, figures are the same numbers.

Usage: tools/checks/check_spreadsheets.py MXLM   (needs gnumeric's ssconvert or LibreOffice's soffice, better both)

Names that begin like formulas go through `report --csv`, and as names of variants through `eval --csv` and `eval
--per-token`. Each program converts the files to its own XML, LibreOffice with its option to compute formulas, and every
cell is compared with the text in the CSV. With --csv-raw there must be formulas, or the comparison would see none.
Exits with 1 where anything differs.
"""

import csv
import gzip
import importlib
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools/robustness"))
FORMULAS = importlib.import_module("break.csv").FORMULAS
result = importlib.import_module("break._material").result
# Comma, quote, UTF-8, from line 1, quoted fields as others, special numbers, no export, one sheet, formulas computed.
SOFFICE_FILTER = "CSV:44,34,76,1,,0,false,true,false,false,false,-1,true"


def gnumeric(path, folder):
    """{(row, column): formula (bytes of it), number or text} of what ssconvert reads."""
    out = folder / "out.gnumeric"
    subprocess.run(["ssconvert", "-T", "Gnumeric_XmlIO:sax", str(path), str(out)], check=True, capture_output=True)
    name = "{http://www.gnumeric.org/v10.dtd}"
    cells = {}
    for cell in ElementTree.fromstring(gzip.decompress(out.read_bytes())).iter(name + "Cell"):
        kind, text = cell.get("ValueType"), cell.text or ""
        value = float(text) if kind in ("30", "40") else text if kind else text.encode()  # formulas have no type
        cells[int(cell.get("Row")), int(cell.get("Col"))] = value
    return cells


def libre_office(path, folder):
    """The same of soffice."""
    subprocess.run(["soffice", f"-env:UserInstallation=file://{folder}/profile", "--headless",
                    f"--infilter={SOFFICE_FILTER}", "--convert-to", "fods", "--outdir", str(folder), str(path)],
                   check=True, capture_output=True)
    office, table, text = (f"{{urn:oasis:names:tc:opendocument:xmlns:{n}:1.0}}" for n in ("office", "table", "text"))
    cells, row = {}, 0
    for line in ElementTree.parse(folder / f"{path.stem}.fods").iter(table + "table-row"):
        column = 0
        for cell in line:
            repeated = int(cell.get(table + "number-columns-repeated", 1))
            kind = cell.get(office + "value-type")
            if cell.get(table + "formula"):
                value = cell.get(table + "formula").encode()
            elif kind in ("float", "percentage", "currency"):
                value = float(cell.get(office + "value"))
            else:
                value = kind and "\n".join("".join(p.itertext()) for p in cell.iter(text + "p"))
            for i in range(repeated if kind else 0):
                cells[row, column + i] = value
            column += repeated
        row += int(line.get(table + "number-rows-repeated", 1))
    return cells


def number(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def plain(text):
    """Without what the two programs treat in ways of their own: white space, the case of true, the apostrophe that makes
    a cell a text (Gnumeric takes it away, LibreOffice shows it)."""
    return "".join(text.split()).casefold().lstrip("'")


def difference(want, got):
    if isinstance(got, bytes):
        return f"is the formula {got.decode()!r}"
    if number(want) is not None:  # LibreOffice writes 15 digits of it
        same = isinstance(got, float) and math.isclose(got, number(want), rel_tol=5e-15, abs_tol=0)
    else:
        same = isinstance(got, str) and plain(got) == plain(want)
    return None if same else f"is {got!r}"


def main():
    mxlm = pathlib.Path(sys.argv[1]).resolve()
    readers = {n: f for n, f in (("ssconvert", gnumeric), ("soffice", libre_office)) if shutil.which(n)}
    if not readers:
        sys.exit("Neither ssconvert (gnumeric) nor soffice (LibreOffice) is installed.")
    bad = cells_seen = 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)

        def run(*arguments):
            subprocess.run([str(mxlm), *map(str, arguments)], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, cwd=folder)

        hostile = result()
        hostile["runs"] = [result(text=formula)["runs"][0] for formula in FORMULAS]
        (folder / "r.json").write_text(json.dumps(hostile))
        run("report", "r.json", "--csv", "report.csv", "-o", "page.html")
        run("report", "r.json", "--csv", "raw.csv", "--csv-raw", "-o", "page.html")
        run("eval", ROOT / "models/booklet-7m", "--text", ROOT / "data/alice.txt", "--context", 64, "--max-windows", 4,
            "--device", "cpu", "--no-journal", "--quiet", "--mx=+1+1:mlp=mxfp4", "--mx=-2+3:mlp=mxfp8",
            "--csv", "eval.csv", "--per-token", "tokens.csv")
        for path in ("report.csv", "eval.csv", "tokens.csv", "raw.csv"):
            with open(folder / path, newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file, strict=True))
            for reader, read in readers.items():
                cells = read(folder / path, folder)
                if path == "raw.csv":
                    formulas = sum(isinstance(c, bytes) for c in cells.values())
                    print(f"{reader}: {formulas} formulas with --csv-raw")
                    bad += formulas == 0
                    continue
                wrong = 0
                for r, row in enumerate(rows):
                    for c, want in enumerate(row):
                        said = difference(want, cells.get((r, c))) if want else None
                        cells_seen += bool(want)
                        wrong += said is not None
                        if said and wrong <= 5:
                            print(f"{reader}: {path}, row {r + 1}, {rows[0][c]!r}: {want!r} {said}")
                print(f"{reader}: {path}: {len(rows)} rows, {wrong} cells differ")
                bad += wrong
    print(f"{cells_seen} cells read, {'all as they were written' if not bad else 'NOT AS STATED'}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
