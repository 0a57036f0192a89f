#!/usr/bin/env python3
"""Kills `mxlm eval` at random moments, resumes it until it is done, and compares every digit with a run in peace.

usage: tools/robustness/crash_test.py MXLM [--kills N] [--signal KILL|TERM|INT|HUP] [--seed S] [-- EVAL ARGUMENTS]

Each trial is a new journal: the run is killed once, at a moment drawn from the whole length of a run, then resumed, and
killed again with probability one half until it is left alone. A trial fails if the digits differ, if a window that the
journal held is run again, or, for the others than KILL, if ending takes 2 s or more. The last line is "N kills, N resumed runs
equal, N lost windows". Needs Python alone.
"""
import argparse
import json
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import time

TIMES = ("seconds", "tokens_per_second", "command", "peak_memory_bytes", "planned_memory_bytes", "devices",
         "joules_per_token", "forwards", "route", "ranks")


def digits(node):
    """The result without what depends on time and place."""
    if isinstance(node, dict):
        return {k: digits(v) for k, v in node.items() if k not in TIMES}
    return [digits(v) for v in node] if isinstance(node, list) else node


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mxlm")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signal", default="KILL", choices=("KILL", "TERM", "INT", "HUP"))
    parser.add_argument("--seed", type=int, default=1)
    ours, rest = sys.argv[1:], []
    if "--" in ours:
        ours, rest = ours[:ours.index("--")], ours[ours.index("--") + 1:]
    args = parser.parse_args(ours)
    rest = rest or ["--device", "cpu", "--context", "128", "--shard-tokens", "2048", "--mx", "mlp=mxfp4", "--mx", "linear=mxfp8"]
    randoms = random.Random(args.seed)
    number = getattr(signal, "SIG" + args.signal)

    with tempfile.TemporaryDirectory(prefix="mxlm_crash_") as name:
        folder = pathlib.Path(name)

        def command(*more):
            return [args.mxlm, "eval", *rest, "--json", str(folder / "out.json"), *more]

        start = time.monotonic()
        subprocess.run(command("--no-journal", "--quiet"), check=True, stdout=subprocess.DEVNULL)
        length = time.monotonic() - start
        peace = json.loads((folder / "out.json").read_text())["runs"]

        kills = trials = equal = wrong = lost = slow = 0
        most = 0.0
        while kills < args.kills:
            trials += 1  # one may end before its kill
            journal = folder / f"journal-{trials}"
            kept = 0  # windows that the journal is known to hold
            first = True
            while True:
                kill = first or (randoms.random() < 0.5 and kills < args.kills)
                first = False
                (folder / "out.json").unlink(missing_ok=True)
                process = subprocess.Popen(command("--journal", str(journal), "--resume"), stdout=subprocess.DEVNULL,
                                           stderr=subprocess.PIPE, text=True)
                if kill:
                    time.sleep(randoms.random() * length)
                    sent = time.monotonic()
                    was_running = process.poll() is None
                    process.send_signal(number)
                log = process.communicate()[1]
                held = re.search(r"resuming: (\d+) of", log)
                now = int(held.group(1)) if held else 0
                if now < kept and not (kill and process.returncode != 0 and not held):
                    lost += kept - now
                kept = max(kept, now)
                if kill and was_running and process.returncode != 0:
                    kills += 1
                    if args.signal != "KILL":
                        most = max(most, time.monotonic() - sent)
                        slow += most >= 2
                    continue
                break
            if process.returncode != 0:
                print(log, file=sys.stderr)
                wrong += 1
                continue
            got = json.loads((folder / "out.json").read_text())["runs"]
            if digits(got) == digits(peace):
                equal += 1
            else:
                wrong += 1
                print(f"digits differ after kill {kills}; the journal is gone with {folder}", file=sys.stderr)
        if args.signal != "KILL":
            print(f"the slowest end took {most:.2f} s")
        print(f"{kills} kills, {equal} resumed runs equal, {wrong} not, {lost} lost windows")
        return 1 if wrong or lost or slow else 0


if __name__ == "__main__":
    sys.exit(main())
