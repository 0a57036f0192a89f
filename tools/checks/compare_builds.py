#!/usr/bin/env python3
"""Holds every digit of one build against those of another, over a fixed set of runs.

usage: compare_builds.py OLD NEW [--device DEVICE] [--old-python DIR --new-python DIR [--interpreter PYTHON]]

OLD and NEW are programs, both run from the root of the repository. The set holds families and experts (`logits`, whose
files must be the same bytes), formats, reference formats, outputs, attention products, protocols, studies, sweeps,
streaming, batch sizes, journals, ranks under mpirun, and, with the folders of the
two packages, Python. Figures that depend on time, memory or place are left out. Exits 1 if a figure differs or is gone;
figures that only NEW has are listed."""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = next(p for p in pathlib.Path(__file__).resolve().parents if (p / "CMakeLists.txt").exists() and (p / "src").exists())
# What depends on the clock, on the machine's memory, on the build's version, or on where the program ran.
LEFT_OUT = ("seconds", "tokens_per_second", "command", "peak_memory_bytes", "planned_memory_bytes", "devices",
            "joules_per_token", "version", "journal", "ranks", "machine")

WINDOWS = ["--context", "128", "--max-windows", "6"]
EVALS = {
    "MX formats": [*WINDOWS, "--mx", "mlp=mxfp4", "--mx", "linear=mxint8", "--mx", "mlp=mxfp6/mxfp8@rule=even"],
    "blocks, rules, roundings": [*WINDOWS, "--mx", "mlp=mxfp4@block=16@rule=rceil", "--mx", "attention=mxfp8@round=nearest",
                                 "--mx", "linear=mxfp4@block=0/none", "--mx", "mlp=mxfp4@rule=mse"],
    "reference formats": [*WINDOWS, "--full-pipeline", "--mx-format", "mxfp8"],
    "attention products": [*WINDOWS, "--mx", "attention=mxfp8,qk=mxfp8,pv=mxfp8", "--mx", "qk=mxint8", "--mx", "pv=mxfp4"],
    "outputs": [*WINDOWS, "--quantize-outputs", "--mx", "mlp=mxint8,attention=mxfp8"],
    "NVFP4": [*WINDOWS, "--mx", "linear=nvfp4", "--mx", "mlp=nvfp4/none"],
    "float32": [*WINDOWS, "--dtype", "float32", "--mx", "linear=mxfp4", "--mx", "linear=mxint8"],
    "tiers": [*WINDOWS, "--tier", "all", "--mx-format", "mxfp4"],
    "one Linear": [*WINDOWS, "--mx", "model.layers.0.*=mxfp4,lm_head=mxfp8", "--mx", "*.down_proj=mxfp4"],
    "baseline alone": [*WINDOWS, "--no-variants"],
    "noise": ["--context", "128", "--max-windows", "4", "--noise", "--mx", "mlp=mxfp4"],
    "studies": ["--context", "128", "--max-windows", "2", "--linear-errors", "--exponents", "--mx", "linear=mxfp4"],
    "Jensen-Shannon": ["--context", "128", "--max-windows", "2", "--jensen-shannon", "--mx", "linear=mxfp4"],
    "streaming, small batches": [*WINDOWS, "--stream", "--batch-size", "1", "--round-tokens", "128", "--mx", "linear=mxfp4"],
    "spread windows": ["--context", "64", "--windows", "24", "--mx", "mlp=mxfp4"],
    "gptq": ["--protocol", "gptq", *WINDOWS, "--mx", "mlp=mxfp6"],
    "hf-stride": ["--protocol", "hf-stride", "--stride", "64", *WINDOWS, "--mx", "mlp=mxfp6"],
    "llamacpp": ["--protocol", "llamacpp", *WINDOWS, "--mx", "mlp=mxfp6"],
    "lmeval": ["--protocol", "lmeval", *WINDOWS, "--mx", "mlp=mxfp6"],
    "self": ["--protocol", "self", *WINDOWS, "--mx", "mlp=mxfp6"],
    "document": ["--data", "data/time-machine.txt", "--protocol", "document", *WINDOWS, "--mx", "mlp=mxfp6"],
}
SWEEPS = {
    "grid": [*WINDOWS, "--formats", "mxfp4", "mxfp8", "--rules", "floor", "even", "--blocks", "16", "32", "--rounds", "even"],
    "sensitivity": [*WINDOWS, "--sensitivity", "layer", "--formats", "mxfp4"],
}
FAMILIES = ("cohere", "falcon_new", "gemma3", "gpt2", "gpt_neox", "gpt_oss", "gpt_oss_mxfp4", "llama", "mixtral", "mpt", "olmo2",
            "opt", "phi", "phi3_longrope", "qwen3_moe_mixed", "stablelm_parallel", "starcoder2")


def figures(node, path=""):
    if isinstance(node, dict):
        for key, value in node.items():
            if key not in LEFT_OUT:
                yield from figures(value, f"{path}/{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from figures(value, f"{path}/{i}")
    else:
        yield path, node


class Comparison:
    def __init__(self):
        self.runs = self.compared = 0
        self.differ, self.more = [], set()

    def add(self, name, old, new):
        self.runs += 1
        old, new = dict(figures(old)), dict(figures(new))
        if not old:
            self.differ.append(f"{name}: the old build gave no figures")
        for path, value in old.items():
            self.compared += 1
            if path not in new or new[path] != value:
                self.differ.append(f"{name}{path}: {value} and {new.get(path, 'nothing')}")
        self.more |= {path for path in new if path not in old}


def run(command, ranks=0, **environment):
    if ranks:
        command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), *command]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


PYTHON = """
import json, sys, mxlm
model = mxlm.load("models/booklet-7m")
result = mxlm.evaluate(model, text=open("data/time-machine.txt").read(), context=128, max_windows=4,
                       variants=["mlp=mxfp4", "linear=mxint8"], device=sys.argv[2])
json.dump(result.json() if callable(getattr(result, "json", None)) else result.data, open(sys.argv[1], "w"))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--old-python", help="the folder that holds the old build's package mxlm")
    parser.add_argument("--new-python", help="the folder that holds the new build's package mxlm")
    parser.add_argument("--interpreter", default=sys.executable)
    args = parser.parse_args()
    programs = {"old": str(args.old.resolve()), "new": str(args.new.resolve())}
    compare = Comparison()

    with tempfile.TemporaryDirectory(prefix="mxlm_compare_") as name:
        folder = pathlib.Path(name)

        def result(build, command, arguments, ranks=0, journal=("--no-journal",)):
            out = folder / f"{build}.json"
            out.unlink(missing_ok=True)
            run([programs[build], command, "models/booklet-7m", "--quiet", "--device", args.device, "--json", str(out),
                 *(() if "--data" in arguments else ("--text", "data/time-machine.txt")), *journal, *arguments], ranks)
            return json.loads(out.read_text())

        for name, arguments in EVALS.items():
            compare.add(name, result("old", "eval", arguments), result("new", "eval", arguments))
        for name, arguments in SWEEPS.items():
            compare.add(f"sweep, {name}", result("old", "sweep", arguments), result("new", "sweep", arguments))
        arguments = [*WINDOWS, "--round-tokens", "128", "--mx", "linear=mxfp4"]
        resumed = []
        for build in programs:  # each with a journal of its own, for a version may refuse another's
            journal = ["--journal", str(folder / build)]
            result(build, "eval", arguments, journal=journal)
            resumed.append(result(build, "eval", arguments, journal=[*journal, "--resume"]))
        compare.add("journal", *resumed)
        if args.device == "cpu" and shutil.which("mpirun"):
            compare.add("ranks", result("old", "eval", arguments, 2), result("new", "eval", arguments, 2))

        tokens = folder / "tokens.json"
        tokens.write_text(json.dumps([[(7 * i + w) % 50 for i in range(24)] for w in range(2)]))
        for family in FAMILIES:
            for variant in ("linear=mxfp4", "linear=mxfp8,qk=mxfp8,pv=mxint8"):
                if family.endswith("mxfp4") and variant == "linear=mxfp4":
                    variant = ""
                files = {}
                for build, program in programs.items():
                    out = folder / f"{build}.safetensors"
                    run([program, "logits", f"tests/data/families/{family}", "--tokens", str(tokens), "-o", str(out),
                         "--hidden", "--device", args.device, *(("--mx", variant) if variant else ())])
                    files[build] = out.read_bytes()
                compare.runs += 1
                compare.compared += len(files["old"]) // 4
                if files["old"] != files["new"]:
                    compare.differ.append(f"logits of {family}, {variant or 'the baseline'}")

        if args.old_python and args.new_python:
            results = []
            for packages in (args.old_python, args.new_python):
                run([args.interpreter, "-c", PYTHON, str(folder / "python.json"), args.device], PYTHONPATH=packages)
                results.append(json.loads((folder / "python.json").read_text()))
            compare.add("Python", *results)

    for line in sorted(compare.more)[:20]:
        print("only in the new build:", line)
    for line in compare.differ[:40]:
        print("DIFFERS:", line)
    print(f"{compare.runs} runs, {compare.compared:,} figures compared, {len(compare.differ)} differ")
    return 1 if compare.differ else 0


if __name__ == "__main__":
    sys.exit(main())
