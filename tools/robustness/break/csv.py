"""CSV: a strict reader gets back what was written, and no cell is a formula."""
import csv
import io
import json
from pathlib import Path

from . import _material as material

FORMULAS = ['=HYPERLINK("http://evil.example","y")', "=1+1", "+1+1", "-1+1", "@SUM(1+1)*cmd|'/C calc'!A0", "\t=1+1",
            "\r=1+1", "\n=1+1", " =1+1", "'=1+1", '"=1+1', "  '\"@x", "\uff1d1+1", "\uff0b1", "\uff0d1x", "\uff20x"]
STRUCTURE = {"commas": "a,b,,c", "quotes": '"a" ""b""', "line breaks": "a\r\nb\nc\rd", "escape": "a\x1b[31mb",
             "semicolons and tabs": "a;=1\t=1", "everything": '",\r\n"=1+1;\t\x1b'}


def rows_of(text):
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def is_number(cell):
    try:
        float(cell)
        return True
    except ValueError:
        return False


def begins_formula(cell):
    return cell.lstrip(" \"")[:1] in tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20") and bool(cell) and not is_number(cell)


def csv_of(ctx, path, *more):
    done = material.report(ctx, path, "--csv", *more)
    return done.stdout.decode() if done.returncode == 0 else None


def cells(ctx, text, *more):
    """All rows, or a sentence that says what is wrong with their structure."""
    written = csv_of(ctx, material.write_result(ctx, text=text), *more)
    if written is None:
        return "no CSV"
    rows = rows_of(written)
    if {len(row) for row in rows} != {len(rows[0])} or len(rows) != 4:
        return "rows of different lengths"
    return rows


def trials(ctx):
    for formula in FORMULAS:
        def inert(formula=formula):
            rows = cells(ctx, formula)
            if isinstance(rows, str):
                return rows
            bad = [cell for row in rows for cell in row if begins_formula(cell)]
            if bad:
                return f"a formula: {bad[0]!r}"
            shown = sum("'" + formula == cell for row in rows for cell in row)
            return None if shown >= 3 * 8 else f"the name stands in {shown} cells alone"

        def raw(formula=formula):
            rows = cells(ctx, formula, "--csv-raw")
            if isinstance(rows, str):
                return rows
            return None if sum(formula == cell for row in rows for cell in row) >= 3 * 8 else "not as it is"
        yield f"{formula!r} is inert", inert
        yield f"{formula!r} with --csv-raw", raw
    for name, text in STRUCTURE.items():
        def structure(text=text):
            rows = cells(ctx, text, "--csv-raw")
            if isinstance(rows, str):
                return rows
            return None if sum(text == cell for row in rows for cell in row) >= 3 * 8 else "not read back"
        yield f"fields with {name}", structure

    def numbers():
        rows = cells(ctx, "name")
        at = rows[0].index("kld_mean")
        written = csv_of(ctx, minus(ctx))
        return None if rows_of(written)[2][at] == "-0.25" else f"{rows_of(written)[2][at]!r} for -0.25"
    yield "negative figures stay numbers", numbers

    run = ("--text", str(ctx.text), "--context", "32", "--max-windows", "1", "--threads", "1", "--quiet", "--no-journal")

    def eval_name():
        path = ctx.tmp / "e.csv"
        done = material.run(ctx, "eval", str(ctx.model), *run, "--mx", "+1+1:mlp=mxfp4", "--csv", str(path))
        if done.returncode != 0:
            return f"exit code {done.returncode}"
        return "a formula" if any(begins_formula(c) for r in rows_of(path.read_text()) for c in r) else None
    yield "eval --csv with a variant called +1+1", eval_name

    def per_token():
        path = ctx.tmp / "t.csv"
        done = material.run(ctx, "eval", str(ctx.model), *run, "--mx", "+1+1:mlp=mxfp4", "--per-token", str(path))
        head = rows_of(path.read_text())[0] if done.returncode == 0 else ["=no"]
        return "a formula" if any(begins_formula(cell) for cell in head) else None
    yield "--per-token with a variant called +1+1", per_token

    def sweep():
        model = ctx.tmp / "=1+1"
        model.mkdir(exist_ok=True)
        for file in Path(ctx.model).iterdir():
            if not (model / file.name).exists():
                (model / file.name).symlink_to(file.resolve())
        path = ctx.tmp / "s.csv"
        done = material.run(ctx, "sweep", str(model), *run, "--formats", "mxfp4", "--csv", str(path))
        if done.returncode != 0:
            return f"exit code {done.returncode}: {done.stderr[-200:]!r}"
        return "a formula" if any(begins_formula(c) for r in rows_of(path.read_text()) for c in r) else None
    yield "sweep --csv of a model in a folder called =1+1", sweep


def minus(ctx):
    changed = material.result()
    for variant in changed["runs"][0]["variants"][1:]:
        variant["vs_baseline"]["kld_mean"] = -0.25
    path = ctx.tmp / "minus.json"
    path.write_text(json.dumps(changed))
    return path
