#!/usr/bin/env python3
"""Runs `mxlm eval` on several ranks under mpirun, and compares every digit with a run of one process.

usage: tools/robustness/cluster_test.py MXLM [--only PART...] [--kills N] [--repeats N] [--seed S] [--model DIR]

Parts: `loopback` 1, 2 and 4 ranks on this host; `namespaces` the same over two network namespaces joined by a veth pair,
TCP alone between them (as root; skipped otherwise); `kills` N times a random rank is killed at a random moment, and the
run resumed with another number of ranks; `efficiency` 2 ranks of one thread against 1 process of two, in turn, the best
of each; `memory` what 4 ranks of this host have of the model's files in memory, each page counted for every rank (Rss)
and once (Pss), for MODEL. Ends with one line a part and fails if a digit differs, or if efficiency is below 95%. Needs Open MPI; the
namespaces, iproute2 and util-linux.
"""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from crash_test import digits

PARTS = ("loopback", "namespaces", "kills", "efficiency", "memory")
RUN = ["--device", "cpu", "--threads", "1", "--context", "128", "--shard-tokens", "1024", "--max-windows", "96",
       "--mx", "mlp=mxfp4", "--mx", "linear=mxfp8"]
TEXT = pathlib.Path(__file__).resolve().parents[2] / "data/wiki.test.raw"
SPEED_RUN = ["--device", "cpu", "--context", "512", "--text", str(TEXT), "--max-windows", "400", "--mx", "mlp=mxfp4",
             "--mx", "linear=mxfp8"]  # long enough that mpirun's start, 0.3 s, is not what is measured
LAUNCH = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"]
BAR = 0.95


def mpirun(ranks):
    return ["mpirun", *LAUNCH, "-n", str(ranks)]


class Runs:
    def __init__(self, mxlm, folder):
        self.mxlm, self.folder = mxlm, folder
        self.failed = []

    def command(self, before, arguments, journal=None):
        keep = ["--journal", str(journal), "--resume"] if journal else ["--no-journal"]
        return [*before, self.mxlm, "eval", *arguments, "--json", str(self.folder / "out.json"), *keep]

    def result(self, before, arguments, journal=None):
        """The digits of a run that must succeed."""
        (self.folder / "out.json").unlink(missing_ok=True)
        done = subprocess.run(self.command(before, arguments, journal), stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"exit code {done.returncode}:\n{done.stderr}")
        return digits(json.loads((self.folder / "out.json").read_text())["runs"])

    def compare(self, what, got, peace):
        if got != peace:
            self.failed.append(what)
        return got == peace


def loopback(runs, args, peace):
    same = sum(runs.compare(f"{n} ranks", runs.result(mpirun(n), RUN), peace) for n in (1, 2, 4))
    return f"loopback: {same} of 3 numbers of ranks give the digits of one process"


def namespaces(runs, args, peace):
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "namespaces: skipped (needs root and iproute2)"
    names, addresses = ("mxlm0", "mxlm1"), ("10.77.0.1", "10.77.0.2")

    def ip(*words, check=True):
        return subprocess.run(["ip", *words], check=check, capture_output=not check)

    # What mpirun calls instead of ssh: HOST, then a command for its shell. Each namespace has a host name of its own,
    # without which Open MPI would take both for one host.
    agent = runs.folder / "agent.sh"
    agent.write_text("#!/bin/bash\n"
                     f"[[ $1 == {addresses[0]} ]] && name={names[0]} || name={names[1]}\n"
                     "shift\n"
                     "exec ip netns exec $name unshare --uts bash -c 'hostname $0; exec bash -c \"$1\"' $name \"$*\"\n")
    agent.chmod(0o755)
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth1", "netns", names[1])
        for i, (name, address) in enumerate(zip(names, addresses)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", f"veth{i}")
            ip("-n", name, "link", "set", f"veth{i}", "up")
            ip("-n", name, "link", "set", "lo", "up")
        same = 0
        for n in (1, 2, 4):
            hosts = ",".join(f"{a}:{max(n // 2, 1)}" for a in addresses)
            inside = ["ip", "netns", "exec", names[0], "unshare", "--uts", "bash", "-c",
                      'hostname "$0"; exec "$@"', names[0]]
            launch = [*mpirun(n), "--map-by", "node", "--host", hosts, "--mca", "plm_rsh_agent", str(agent),
                      "--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", "10.77.0.0/24",
                      "--mca", "oob_tcp_if_include", "10.77.0.0/24"]
            same += runs.compare(f"{n} ranks over namespaces", runs.result([*inside, *launch], RUN), peace)
        return f"namespaces: {same} of 3 numbers of ranks give the digits of one process"
    finally:
        for name in names:
            ip("netns", "delete", name, check=False)


def pid_wrapper(runs):
    """A program that starts its arguments and writes down which process is which rank, in pid.RANK."""
    for old in runs.folder.glob("pid.*"):
        old.unlink()
    wrapper = runs.folder / "rank.sh"
    wrapper.write_text(f'#!/bin/bash\necho $$ >"{runs.folder}/pid.$OMPI_COMM_WORLD_RANK"\nexec "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def kills(runs, args, peace):
    randoms = random.Random(args.seed)
    start = time.monotonic()
    runs.result(mpirun(2), RUN)
    length = time.monotonic() - start
    killed = equal = told = ends = 0
    while killed < args.kills:
        journal = runs.folder / f"journal-{ends}"
        ends += 1
        ranks = randoms.choice((2, 3, 4))
        process = subprocess.Popen(runs.command([*mpirun(ranks), pid_wrapper(runs)], RUN, journal),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(randoms.uniform(0.2, 0.95) * length)
        victim = randoms.randrange(ranks)
        try:
            if process.poll() is None:
                os.kill(int((runs.folder / f"pid.{victim}").read_text()), signal.SIGKILL)
        except (ProcessLookupError, FileNotFoundError, ValueError):
            pass
        log = process.communicate()[1]
        if process.returncode == 0:
            continue  # it was done before
        killed += 1
        told += "signal 9" in log
        other = randoms.choice([n for n in (1, 2, 3, 4) if n != ranks])
        got = runs.result(mpirun(other), RUN, journal)
        equal += runs.compare(f"rank {victim} of {ranks} killed, resumed with {other}", got, peace)
    return f"kills: {killed} ranks killed, {told} told by the launcher, {equal} runs resumed with another number, equal"


def efficiency(runs, args, peace):
    best = {}
    for _ in range(args.repeats):
        for what, before, threads in (("2 ranks", mpirun(2), 1), ("1 process", [], 2)):
            start = time.monotonic()
            runs.result(before, [*SPEED_RUN, "--threads", str(threads)])
            best[what] = min(best.get(what, 1e9), time.monotonic() - start)
    share = best["1 process"] / best["2 ranks"]
    if share < BAR:
        runs.failed.append("efficiency")
    return (f"efficiency: 2 ranks x 1 thread {best['2 ranks']:.2f} s, 1 process x 2 threads {best['1 process']:.2f} s, "
            f"{100 * share:.1f}% (best of {args.repeats})")


def mapped(pid):
    """Bytes of a process's mappings of model files: Rss, Pss."""
    rss = pss = 0
    ours = False
    try:
        for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if "-" in words[0]:
                ours = words[-1].endswith((".safetensors", ".bin"))
            elif ours and words[0] == "Rss:":
                rss += int(words[1]) << 10
            elif ours and words[0] == "Pss:":
                pss += int(words[1]) << 10
    except (FileNotFoundError, ProcessLookupError):
        pass
    return rss, pss


def memory(runs, args, peace):
    if not args.model:
        return "memory: skipped (needs --model)"
    size = sum(f.stat().st_size for f in pathlib.Path(args.model).iterdir() if f.suffix in (".safetensors", ".bin"))
    process = subprocess.Popen(runs.command([*mpirun(4), pid_wrapper(runs)], [args.model, *RUN]),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    most = (0, 0)
    while process.poll() is None:
        pids = [p.read_text().strip() for p in runs.folder.glob("pid.*")]
        each = [mapped(pid) for pid in pids if pid]
        most = max(most, (sum(e[0] for e in each), sum(e[1] for e in each)))
        time.sleep(0.02)
    if process.returncode != 0:
        runs.failed.append("memory")
    return (f"memory: of {size / 1e6:.1f} MB of files, 4 ranks have {most[0] / 1e6:.1f} MB mapped and in memory, in "
            f"{most[1] / 1e6:.1f} MB of pages")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mxlm")
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", help="a folder, for the part memory")
    args = parser.parse_args()
    args.mxlm = os.path.abspath(args.mxlm)
    if not shutil.which("mpirun"):
        sys.exit("There is no mpirun here; install openmpi-bin.")
    with tempfile.TemporaryDirectory(prefix="mxlm_cluster_") as name:
        runs = Runs(args.mxlm, pathlib.Path(name))
        peace = runs.result([], RUN)
        for part in args.only:
            print(globals()[part](runs, args, peace), flush=True)
    for what in runs.failed:
        print(f"failed: {what}")
    return 1 if runs.failed else 0


if __name__ == "__main__":
    sys.exit(main())
