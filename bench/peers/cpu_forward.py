#!/usr/bin/env python3
"""Speed of the peers, and of mxlm beside them, in one run on one machine: a forward pass with loss on a CPU.

usage: cpu_forward.py MODEL_DIR --text FILE [--context 1024] [--windows 4] [--batch 4] [--threads 2] [--repeats 5]
                      [--peers NAME...] [--microxcaling FOLDER_OF_mx] [--mxlm BINARY] [--json OUT]

The first `windows` windows of the text go through every stack, NLL of every token but a window's first over the whole
vocabulary included; loading, preparing and compiling are not timed. The stacks take turns, `repeats` times, so that a
busy machine is busy for all; a stack's speed is its best repeat, positions a second. Positions a second of CPU time (of
all threads) are printed too: with --threads 1 they hold on a machine that others use.

  bf16, bf16_compiled    transformers, bfloat16, SDPA; loss in chunks of rows (the faster way)
  bf16_labels            the same as users call it: model(ids, labels=ids).loss
  f32                    transformers, float32, SDPA
  mxfp8_compiled         the strong peer: MXFP8 (E4M3, floor, even, block 32) attention + MLP in bfloat16, weights quantised
                         once, activations quantised and decoded by a few tensor operations that torch.compile fuses
                         (_int: the rounding in integer arithmetic; _cast: by torch's float8 cast)
  microxcaling_bf16, microxcaling_f32   activation and weight quantised by microxcaling in every forward, F.linear in the
                         model's dtype
With --mxlm: `mxlm eval --json` on the same windows, baseline and MXFP8 attention + MLP.
BF16 and float32 matrix products of the model's shapes are timed too (torch's oneDNN; its kernel is named in the JSON).
"""
import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tokenizers
import torch
import torch.nn.functional as F
import transformers
from transformers import AutoModelForCausalLM

SPEC = "attention=mxfp8_e4m3,mlp=mxfp8_e4m3"
REPLACED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def mxfp8_e4m3(x, rounding):
    """Quantise and decode along the last axis (a multiple of 32): float32 arithmetic, x's dtype in and out."""
    blocks = x.float().unflatten(-1, (-1, 32))
    amax = blocks.abs().amax(-1, keepdim=True)
    exponent = ((amax.view(torch.int32) >> 23) - 127 - 8).clamp(min=-126)
    scale = ((exponent + 127) << 23).view(torch.float32)
    v = blocks * ((127 - exponent) << 23).view(torch.float32)
    if rounding == "cast":
        q = v.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    else:
        bits = v.view(torch.int32)
        normal = ((bits + (0x7FFFF + ((bits >> 20) & 1))) & -0x100000).view(torch.float32)
        magic = 1.5 * 2.0**14  # float32's step there is the subnormals' step, 2^-9
        q = torch.where(v.abs() < 2.0**-6, (v + magic) - magic, normal).clamp(-448, 448)
    return (q * scale).flatten(-2).to(x.dtype)


class StrongLinear(torch.nn.Module):
    """MXFP8 Linear with a weight quantised once."""

    def __init__(self, linear, rounding):
        super().__init__()
        self.weight = torch.nn.Parameter(mxfp8_e4m3(linear.weight.detach(), rounding), requires_grad=False)
        self.bias, self.rounding = linear.bias, rounding

    def forward(self, x):
        return F.linear(mxfp8_e4m3(x, self.rounding), self.weight, self.bias)


class MicroxcalingLinear(torch.nn.Module):
    """Quantises activation and weight in every forward."""

    def __init__(self, linear, quantize):
        super().__init__()
        self.weight, self.bias, self.quantize = linear.weight, linear.bias, quantize

    def forward(self, x):
        y = F.linear(self.quantize(x), self.quantize(self.weight.detach()))
        return y if self.bias is None else y + self.bias


def microxcaling_quantizer(folder):
    sys.path.insert(0, str(folder))
    from mx.mx_ops import quantize_mx_op
    from mx.specs import MxSpecs
    specs = MxSpecs({"scale_bits": 8, "block_size": 32, "custom_cuda": False})
    return lambda x: quantize_mx_op(x, specs, elem_format="fp8_e4m3", axes=[-1], round="even")


def replace_linears(model, make):
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in REPLACED and isinstance(child, torch.nn.Linear):
                setattr(parent, name, make(child))


class Stack:
    """One way to run the forward pass with loss; `run` returns the mean NLL."""

    def __init__(self, args, batches, dtype, compiled=False, labels=False, make=None):
        self.model = AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa").eval()
        if make:
            replace_linears(self.model, make)
        if compiled:
            for layer in self.model.model.layers:
                layer.compile(dynamic=False)
        self.batches, self.labels, self.rows = batches, labels, args.head_rows

    @torch.inference_mode()
    def run(self):
        total, count = 0.0, 0
        for ids in self.batches:
            n = ids.shape[0] * (ids.shape[1] - 1)
            if self.labels:
                total += self.model(ids, labels=ids, use_cache=False).loss.item() * n
            else:
                hidden = self.model.model(ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
                targets = ids[:, 1:].flatten()
                for i in range(0, n, self.rows):
                    logits = self.model.lm_head(hidden[i:i + self.rows]).float()
                    total += F.cross_entropy(logits, targets[i:i + self.rows], reduction="sum").item()
            count += n
        return total / count


def stacks(args, batches):
    bf16, f32 = torch.bfloat16, torch.float32
    table = {
        "bf16": lambda: Stack(args, batches, bf16),
        "bf16_labels": lambda: Stack(args, batches, bf16, labels=True),
        "bf16_compiled": lambda: Stack(args, batches, bf16, compiled=True),
        "f32": lambda: Stack(args, batches, f32),
        "mxfp8_compiled_int": lambda: Stack(args, batches, bf16, True, make=lambda m: StrongLinear(m, "int")),
        "mxfp8_compiled_cast": lambda: Stack(args, batches, bf16, True, make=lambda m: StrongLinear(m, "cast")),
    }
    if args.microxcaling:
        quantize = microxcaling_quantizer(args.microxcaling)
        table["microxcaling_bf16"] = lambda: Stack(args, batches, bf16, make=lambda m: MicroxcalingLinear(m, quantize))
        table["microxcaling_f32"] = lambda: Stack(args, batches, f32, make=lambda m: MicroxcalingLinear(m, quantize))
    return table


def check_quantizer(args):
    """The strong peer must compute what microxcaling does (on values that meet none of the latter's known faults)."""
    if not args.microxcaling:
        return
    quantize = microxcaling_quantizer(args.microxcaling)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(512, 512, generator=generator) * torch.exp2(torch.randint(-6, 7, (512, 1), generator=generator))
    x = x.bfloat16().float()
    for rounding in ("int", "cast"):
        assert torch.equal(mxfp8_e4m3(x, rounding), quantize(x)), rounding


def matmul_rates(config, rows, repeats):
    """GFLOP/s of torch's matrix products for the model's shapes and for a large square, best of repeats."""
    h, m, kv = config.hidden_size, config.intermediate_size, config.num_key_value_heads * config.head_dim
    shapes = {"q,o": (rows, h, h), "k,v": (rows, kv, h), "gate,up": (rows, m, h), "down": (rows, h, m),
              "head": (512, config.vocab_size, h), "square": (2048, 2048, 2048)}
    rates = {}
    for dtype in (torch.bfloat16, torch.float32):
        for name, (a, b, k) in shapes.items():
            x, w = torch.randn(a, k).to(dtype), torch.randn(b, k).to(dtype)
            best = float("inf")
            for _ in range(repeats + 2):
                start = time.perf_counter()
                F.linear(x, w)
                best = min(best, time.perf_counter() - start)
            rates.setdefault(str(dtype).split(".")[1], {})[f"{name} {a}x{b}x{k}"] = round(2e-9 * a * b * k / best, 1)
    return rates


def onednn_kernel():
    """The implementation oneDNN names for a BF16 Linear here (amx in its name: the tile unit is used)."""
    code = ("import torch;x=torch.randn(256,576).bfloat16();w=torch.randn(1536,576).bfloat16();"
            "torch.nn.functional.linear(x,w)")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                         env={**os.environ, "ONEDNN_VERBOSE": "1"}).stdout
    for line in out.splitlines():
        if ",exec," in line and ("matmul" in line or "inner_product" in line):
            fields = line.split(",")
            return ",".join(fields[fields.index("exec") + 2:fields.index("exec") + 4])
    return "unknown"


def run_mxlm(args, best):
    """One `mxlm eval` with baseline and MXFP8; keeps each variant's best tokens a second."""
    with tempfile.TemporaryDirectory() as tmp:
        out = Path(tmp) / "out.json"
        command = [args.mxlm, "eval", args.model, "--text", args.text, "--protocol", "window", "--context",
                   str(args.context), "--max-windows", str(args.windows), "--dtype", "bfloat16", "--threads",
                   str(args.threads), "--batch-size", str(args.batch), "--mx", f"mxfp8:{SPEC}", "--quiet", "--json",
                   str(out)]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - start
        run = json.loads(out.read_text())["runs"][0]
    for variant, name in zip(run["variants"], ("mxlm_bf16", "mxlm_mxfp8")):
        record = best.setdefault(name, {"tokens_per_second": 0.0, "wall_seconds": wall})
        record["nll"] = variant["nll"]
        record["tokens_per_second"] = max(record["tokens_per_second"], variant["tokens_per_second"])
        record["wall_seconds"] = min(record["wall_seconds"], wall)  # both variants, with load


def ratios(best):
    speed = {name: record["tokens_per_second"] for name, record in best.items()}
    top = lambda names: max((speed[n] for n in names if n in speed), default=None)
    transformers_best = top(["bf16", "bf16_labels", "bf16_compiled"])
    strong_best = top(["mxfp8_compiled_int", "mxfp8_compiled_cast"])
    pairs = {"mxlm bf16 / transformers bf16 at its best (>= 1.4)": (speed.get("mxlm_bf16"), transformers_best),
             "mxlm mxfp8 / mxlm bf16 (>= 0.92)": (speed.get("mxlm_mxfp8"), speed.get("mxlm_bf16")),
             "mxlm mxfp8 / strong peer at its best (>= 1.65)": (speed.get("mxlm_mxfp8"), strong_best),
             "mxlm mxfp8 / microxcaling bf16 (>= 4)": (speed.get("mxlm_mxfp8"), speed.get("microxcaling_bf16")),
             "strong peer / transformers bf16": (strong_best, transformers_best)}
    return {name: round(a / b, 3) for name, (a, b) in pairs.items() if a and b}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--head-rows", type=int, default=512, help="rows of logits the chunked loss holds at a time")
    parser.add_argument("--peers", nargs="*", help="of the names above (all)")
    parser.add_argument("--microxcaling", help="folder that holds microxcaling's `mx` package")
    parser.add_argument("--mxlm", help="the binary")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()
    check_quantizer(args)

    text = Path(args.text).read_bytes().decode("utf-8", errors="replace")
    ids = tokenizers.Tokenizer.from_file(str(Path(args.model) / "tokenizer.json")).encode(text).ids
    windows = torch.tensor(ids[:args.windows * args.context]).view(args.windows, args.context)
    batches = windows.split(args.batch)
    table = stacks(args, batches)
    names = list(table) if args.peers is None else args.peers
    if unknown := [n for n in names if n not in table]:
        parser.error(f"no peer {unknown[0]!r}; there are: {', '.join(table)}")

    best, loaded = {}, {}
    for name in names:
        start = time.perf_counter()
        loaded[name] = table[name]()
        nll = loaded[name].run()  # compiles, and warms up
        best[name] = {"tokens_per_second": 0.0, "tokens_per_cpu_second": 0.0, "nll": nll}
        print(f"{name:20} ready in {time.perf_counter() - start:.1f} s, nll {nll:.6f}", flush=True)
    gc.collect()
    rates = matmul_rates(AutoModelForCausalLM.from_pretrained(args.model).config, windows.numel(), args.repeats)
    for _ in range(args.repeats):
        for name in names:
            start = time.perf_counter(), time.process_time()
            loaded[name].run()
            spent = time.perf_counter() - start[0], time.process_time() - start[1]
            for key, seconds in zip(("tokens_per_second", "tokens_per_cpu_second"), spent):
                best[name][key] = max(best[name][key], windows.numel() / seconds)
        if args.mxlm:
            run_mxlm(args, best)

    print(f"\n{'stack':20} {'tokens/s':>9} {'per CPU s':>9} {'nll':>10}")
    for name, record in best.items():
        print(f"{name:20} {record['tokens_per_second']:9.1f} {record.get('tokens_per_cpu_second', 0):9.1f} "
              f"{record['nll']:10.6f}")
    for name, ratio in ratios(best).items():
        print(f"{name}: {ratio}")
    kernel = onednn_kernel()
    print(f"torch BF16 kernel {kernel}; GFLOP/s {json.dumps(rates)}")
    if args.json:
        cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), "?")
        Path(args.json).write_text(json.dumps(
            {"machine": {"cpu": cpu, "cores": os.cpu_count(), "system": platform.platform()},
             "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
             "onednn_max_cpu_isa": os.environ.get("ONEDNN_MAX_CPU_ISA"), "onednn_kernel": kernel,
             "model": Path(args.model).name, "text": Path(args.text).name, "context": args.context,
             "windows": args.windows, "batch": args.batch, "threads": args.threads, "repeats": args.repeats,
             "stacks": best, "ratios": ratios(best), "matmul_gflops": rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()
