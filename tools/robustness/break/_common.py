"""What several groups of trials need."""
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time

# What a result has that depends on time and place.
TIMES = ("seconds", "tokens_per_second", "command", "peak_memory_bytes", "planned_memory_bytes", "devices",
         "joules_per_token", "forwards", "route", "ranks", "stopped", "machine", "version", "model")
SHORT = ("--device", "cpu", "--context", "64", "--threads", "1", "--mx", "mlp=mxfp4")


def evaluation(ctx, *more, text=True):
    """The arguments of a short run: 13,000 tokens a second."""
    return ["eval", *SHORT, *(["--text", str(ctx.text)] if text else []), *map(str, more)]


def digits(node):
    """A result without times and places."""
    if isinstance(node, dict):
        return {k: digits(v) for k, v in node.items() if k not in TIMES}
    return [digits(v) for v in node] if isinstance(node, list) else node


def runs(path):
    return json.loads(pathlib.Path(path).read_text())["runs"]


def ended_well(outcome, codes=(0,)):
    """None if a command ended with one of the codes, and, where it failed, in a sentence of its own."""
    if outcome.returncode not in codes:
        return f"code {outcome.returncode}: {outcome.stderr[-300:]}"
    if outcome.returncode != 0 and not re.search(r"^mxlm: \S.*", outcome.stderr, re.M):
        return f"code {outcome.returncode} without a sentence: {outcome.stderr[-300:]}"
    for bad in ("internal error", "LOG ERROR", "terminate called", "no 0 MB"):
        if bad in outcome.stderr:
            return outcome.stderr[-300:]
    return None


def says(outcome, code, *words):
    """None if a command ended with the code, and its messages hold all words."""
    missing = [w for w in words if w not in outcome.stderr]
    if outcome.returncode != code or missing:
        return f"code {outcome.returncode}, not said: {missing}; said: {outcome.stderr[-400:]}"
    return None


def own_model(ctx, folder):
    return pathlib.Path(shutil.copytree(ctx.model, folder / "m"))


def start(ctx, args, folder, env=None, **streams):
    """A process that goes on beside the trial."""
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **streams}
    return subprocess.Popen([str(ctx.mxlm), *map(str, args)], env=ctx.environment(env), cwd=folder, text=True,
                            errors="surrogateescape", **streams)


def has_round(journal):
    return any(f.stat().st_size > 100 for f in pathlib.Path(journal).glob("rounds*.mxj"))


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def end_of(process, seconds=60):
    """The outcome of a started process."""
    _, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(process.args, process.returncode, "", err or "")


def signalled(process, number, within=2.0):
    """Sends a signal: the outcome, and a sentence if the end took longer than it may."""
    sent = time.monotonic()
    process.send_signal(number)
    outcome = end_of(process)
    took = time.monotonic() - sent
    return outcome, f"{signal.Signals(number).name}: the end took {took:.1f} s" if took > within else None


def peace(ctx, *more):
    """The digits of a run that nothing disturbs."""
    folder = ctx.folder()
    outcome = ctx.run(*evaluation(ctx, "--quiet", "--no-journal", "--json", folder / "o.json", *more))
    assert outcome.returncode == 0, outcome.stderr
    return digits(runs(folder / "o.json"))
