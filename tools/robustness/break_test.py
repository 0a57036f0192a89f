#!/usr/bin/env python3
"""Tries to break mxlm in some hundreds of ways, each with what it should do, and prints a table of what held.

usage: tools/robustness/break_test.py MXLM [GROUP...] [--list] [--keep]

A group is a file tools/robustness/break/GROUP.py, all of them by default. It has `trials(ctx)`, which yields pairs of a name and a
function; the function returns None where the program held, else a sentence that says what it did. Needs Python 3.9 and
Linux; the trials are harmless, and all files lie in a temporary folder. Exit code 1 if a trial failed.
"""
import argparse
import importlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import traceback

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class Context:
    """What trials work with."""

    def __init__(self, mxlm, tmp):
        self.mxlm = mxlm  # the program
        self.tmp = tmp  # the group's folder, in which commands run
        self.model = ROOT / "models" / "booklet-7m"
        self.text = ROOT / "data" / "alice.txt"
        self._folders = 0

    def environment(self, env=None):
        """The process's own, with the state in the group's folder; None removes a variable."""
        out = {**os.environ, "XDG_STATE_HOME": str(self.tmp / "state"), **(env or {})}
        return {k: v for k, v in out.items() if v is not None}

    def folder(self):
        """A new folder for one trial."""
        self._folders += 1
        path = self.tmp / f"trial-{self._folders}"
        path.mkdir()
        return path

    def run(self, *args, env=None, timeout=60, stdin=subprocess.DEVNULL, cwd=None):
        """Runs mxlm; bytes that are no UTF-8 come as surrogates."""
        return subprocess.run([str(self.mxlm), *map(str, args)], env=self.environment(env), timeout=timeout, stdin=stdin,
                              cwd=cwd or self.tmp, capture_output=True, text=True, errors="surrogateescape")

    def shell(self, script, env=None, timeout=60, cwd=None):
        """Runs a bash script in which $M is mxlm."""
        return subprocess.run(["bash", "-c", script], env=self.environment({"M": str(self.mxlm), **(env or {})}),
                              timeout=timeout, stdin=subprocess.DEVNULL, cwd=cwd or self.tmp, capture_output=True,
                              text=True, errors="surrogateescape")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mxlm", type=pathlib.Path)
    parser.add_argument("groups", nargs="*")
    parser.add_argument("--list", action="store_true", help="name the trials and run none")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder there")
    args = parser.parse_args()
    sys.path.insert(0, str(HERE))
    known = sorted(p.stem for p in (HERE / "break").glob("*.py") if not p.stem.startswith("_"))
    for group in args.groups:
        if group not in known:
            parser.error(f"there is no group '{group}'; it is one of {', '.join(known)}")
    held = failed = 0
    rows = []
    temporary = tempfile.mkdtemp(prefix="mxlm_break_")
    for group in args.groups or known:
        tmp = pathlib.Path(temporary) / group
        tmp.mkdir()
        ctx = Context(args.mxlm.resolve(), tmp)
        start, good, bad = time.monotonic(), 0, 0
        for name, trial in importlib.import_module(f"break.{group}").trials(ctx):
            if args.list:
                print(f"{group}: {name}")
                continue
            try:
                said = trial()
            except subprocess.TimeoutExpired as late:
                said = f"no end within {late.timeout:.0f} s"
            except Exception:  # a trial that breaks down has not shown that the program held
                said = traceback.format_exc(limit=-2).strip().replace("\n", " | ")
            good, bad = good + (said is None), bad + (said is not None)
            if said is not None:
                print(f"FAILED {group}: {name}: {said}", flush=True)
        held, failed = held + good, failed + bad
        rows.append((group, good, bad, time.monotonic() - start))
    if args.list:
        return 0
    print(f"{'group':<12}{'held':>6}{'failed':>8}{'seconds':>9}")
    for group, good, bad, seconds in rows:
        print(f"{group:<12}{good:>6}{bad:>8}{seconds:>9.1f}")
    print(f"{'total':<12}{held:>6}{failed:>8}")
    if args.keep:
        print(temporary)
    else:
        subprocess.run(["rm", "-rf", temporary], check=False)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
