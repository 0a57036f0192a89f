#!/usr/bin/env python3
"""Speed of the peers on a GPU: a forward pass with loss over the vocabulary, of models of true shapes with random weights.

usage: gpu_forward.py [CASE...] [--microxcaling FOLDER_OF_mx] [--repeats 7] [--json OUT] [--smoke]

The shapes are those of bench/gpu_bench.cpp; run both on the same machine. Random tokens, no_grad; times are those of
device events around whole forward passes, after ones that warm up (and compile), best and median.

  llama8b             Llama-3.1-8B, 4 x 2048, bfloat16: transformers with SDPA as it comes and with cuDNN's, eager, and
                      every layer and the loss compiled by torch.compile (one compilation serves all layers)
  llama8b-strong      the strong peer: MXFP8 (E4M3, floor, even, block 32) attention + MLP, weights quantised once,
                      activations quantised and decoded by tensor operations that Inductor fuses
  llama8b-graph       the whole model compiled as one graph, with 4 and with 8 layers; 32 layers are taken to need the
                      latter's time and 24 times a quarter of the difference
  phi, tinystories    phi-1_5 and TinyStories-33M, 8 x 512, float32 (no TF32): transformers, and microxcaling quantising
                      activation and weight in every F.linear of attention and MLP (MXFP8, custom_cuda False)
  sdpa                cuDNN's scaled dot-product attention alone in the shapes of these models (torch's default where
                      cuDNN has none: float32)
--smoke runs tiny shapes on the CPU, to see that this script works.
"""
import argparse
import contextlib
import gc
import json
import platform
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, GPTNeoConfig, LlamaConfig, PhiConfig

from cpu_forward import MicroxcalingLinear, StrongLinear, microxcaling_quantizer, mxfp8_e4m3

HEAD_ROWS = 2048  # rows of logits that the loss in chunks holds at a time


def llama_config(smoke, layers=32):
    size = dict(hidden_size=64, intermediate_size=128, vocab_size=500, num_attention_heads=4, num_key_value_heads=2,
                head_dim=16) if smoke else dict(
                    hidden_size=4096, intermediate_size=14336, vocab_size=128256, num_attention_heads=32,
                    num_key_value_heads=8, head_dim=128)
    rope = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                original_max_position_embeddings=8192)
    return LlamaConfig(num_hidden_layers=2 if smoke else layers, max_position_embeddings=131072, rope_parameters=rope,
                       tie_word_embeddings=False, **size)


def phi_config(smoke):
    size = dict(hidden_size=64, num_hidden_layers=2, vocab_size=500, num_attention_heads=4, intermediate_size=256) \
        if smoke else dict(hidden_size=2048, num_hidden_layers=24, vocab_size=51200, num_attention_heads=32,
                           intermediate_size=8192)
    return PhiConfig(max_position_embeddings=2048, **size)


def tinystories_config(smoke):
    size = dict(hidden_size=64, num_layers=2, num_heads=4, vocab_size=500) if smoke else dict(
        hidden_size=768, num_layers=4, num_heads=16, vocab_size=50257)
    return GPTNeoConfig(max_position_embeddings=2048, window_size=256,
                        attention_types=[[["global", "local"], size["num_layers"] // 2]], **size)


class Bench:
    def __init__(self, args):
        self.args = args
        self.device = "cpu" if args.smoke else "cuda"
        self.result = {}

    def time(self, run):
        """Seconds of each repeat, sorted."""
        for _ in range(2):
            run()
        out = []
        for _ in range(self.args.repeats):
            if self.device == "cpu":
                start = time.perf_counter()
                run()
                out.append(time.perf_counter() - start)
            else:
                begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
                begin.record()
                run()
                end.record()
                end.synchronize()
                out.append(1e-3 * begin.elapsed_time(end))
        return sorted(out)

    def record(self, case, name, seconds, tokens, **more):
        row = {"name": name, "seconds": seconds[0], "seconds_median": seconds[len(seconds) // 2], "tokens": tokens,
               "tokens_per_second": tokens / seconds[0],
               "tokens_per_second_median": tokens / seconds[len(seconds) // 2], **more}
        self.result.setdefault(case, []).append(row)
        extra = "".join(f"  {k} {v:.4f}" if isinstance(v, float) else f"  {k}: {v}" for k, v in more.items())
        print(f"{case:16} {name:34} {row['tokens_per_second']:10.0f} tokens/s {1e3 * seconds[0]:9.2f} ms{extra}",
              flush=True)

    def model(self, config, dtype):
        """A model with transformers' random weights, made on the device; and its attention's name."""
        for attention in ("sdpa", "eager"):
            try:
                with torch.device(self.device):
                    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
                return model.eval().requires_grad_(False), attention
            except ValueError as error:  # a family without SDPA
                if attention == "eager" or "sdpa" not in str(error).lower() and "scaled_dot" not in str(error).lower():
                    raise
        raise AssertionError

    def ids(self, windows, length, vocabulary):
        generator = torch.Generator().manual_seed(1)
        return torch.randint(vocabulary, (windows, length), generator=generator).to(self.device)


def chunked_loss(hidden, targets, weight, bias):
    """Sum of NLL in nats of rows of hidden states."""
    logits = F.linear(hidden, weight, bias).float()
    return F.cross_entropy(logits, targets, reduction="sum")


def forward(model, ids, loss):
    """Mean NLL of every token but a window's first, the head in chunks of rows."""
    body = getattr(model, "model", None) or model.transformer
    hidden = body(ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    targets = ids[:, 1:].flatten()
    total = 0
    for i in range(0, len(hidden), HEAD_ROWS):
        total = total + loss(hidden[i:i + HEAD_ROWS], targets[i:i + HEAD_ROWS], model.lm_head.weight,
                             model.lm_head.bias)
    return total / len(hidden)


@contextlib.contextmanager
def attention_by(kind):
    """As torch chooses, or cuDNN's where it applies."""
    if kind == "default":
        yield
    else:
        with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
            yield


def reset():
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def replace_linears(model, make):
    """Every Linear but the head."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear) and name != "lm_head":
                setattr(parent, name, make(child))


def run_llama(bench, case, strong):
    windows, length = 4, 32 if bench.args.smoke else 2048
    model, _ = bench.model(llama_config(bench.args.smoke), torch.bfloat16)
    ids = bench.ids(windows, length, model.config.vocab_size)
    if strong:
        replace_linears(model, lambda linear: StrongLinear(linear, "cast"))
        gc.collect()
    else:
        for kind in ("default", "cudnn"):
            with attention_by(kind):
                seconds = bench.time(lambda: forward(model, ids, chunked_loss))
                nll = forward(model, ids, chunked_loss).item()
            bench.record(case, f"transformers eager, {kind} SDPA", seconds, ids.numel(), nll=nll)
        seconds = bench.time(lambda: model(ids, labels=ids, use_cache=False).loss)
        bench.record(case, "transformers eager, model(labels=)", seconds, ids.numel())
    layers = model.model.layers
    originals = list(layers)
    for kind in ("default", "cudnn"):
        reset()
        for i, layer in enumerate(originals):
            layers[i] = torch.compile(layer, dynamic=False)
        loss = torch.compile(chunked_loss, dynamic=True)
        start = time.perf_counter()
        with attention_by(kind):
            nll = forward(model, ids, loss).item()
            compiling = time.perf_counter() - start
            seconds = bench.time(lambda: forward(model, ids, loss))
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        bench.record(case, f"{'strong MXFP8' if strong else 'transformers'} compiled, {kind} SDPA", seconds, ids.numel(),
                     nll=nll, compile_seconds=compiling, graphs=graphs,
                     how="each layer and the loss compiled, all layers run")
        torch._dynamo.utils.counters.clear()


def run_graph(bench, case):
    windows, length = 4, 32 if bench.args.smoke else 2048
    times = {}
    for layers in (4, 8):
        reset()
        model, _ = bench.model(llama_config(bench.args.smoke, layers), torch.bfloat16)
        ids = bench.ids(windows, length, model.config.vocab_size)
        whole = torch.compile(lambda ids, model=model: forward(model, ids, chunked_loss), dynamic=False)
        start = time.perf_counter()
        whole(ids)
        compiling = time.perf_counter() - start
        times[layers] = bench.time(lambda: whole(ids))
        bench.record(case, f"{layers} layers as one graph", times[layers], ids.numel(), compile_seconds=compiling)
        del model, whole
    scaled = [b + 24 * (b - a) / 4 for a, b in zip(times[4], times[8])]
    bench.record(case, "32 layers as one graph, scaled", sorted(scaled), windows * length,
                 how="T(8 layers) + 24 (T(8) - T(4)) / 4")


def run_float32(bench, case, config):
    windows, length = 8, 32 if bench.args.smoke else 512
    model, attention = bench.model(config, torch.float32)
    ids = bench.ids(windows, length, config.vocab_size)
    labels = lambda: model(ids, labels=ids, use_cache=False).loss
    bench.record(case, f"transformers float32, {attention}", bench.time(labels), ids.numel(), nll=labels().item())
    if not bench.args.microxcaling:
        print(f"{case}: microxcaling is left out (--microxcaling FOLDER)")
        return
    quantize = microxcaling_quantizer(bench.args.microxcaling)
    x = torch.randn(256, 512, device=bench.device).bfloat16().float()
    if not torch.equal(mxfp8_e4m3(x, "cast"), quantize(x)):
        print(f"{case}: the strong peer does not quantise as microxcaling does")
        bench.result.setdefault(case, []).append({"strong_peer_quantises_as_microxcaling": False})
    replace_linears(model, lambda linear: MicroxcalingLinear(linear, quantize))
    bench.record(case, f"microxcaling MXFP8, {attention}", bench.time(labels), ids.numel(), nll=labels().item())


def run_sdpa(bench, case):
    shapes = [("llama8b", 4, 2048, 32, 8, 128, torch.bfloat16), ("mixtral", 4, 2048, 32, 8, 128, torch.bfloat16),
              ("phi", 8, 512, 32, 32, 64, torch.float32), ("phi", 8, 512, 32, 32, 64, torch.bfloat16),
              ("tinystories", 8, 512, 16, 16, 48, torch.float32)]
    for name, batch, length, heads, kv_heads, dim, dtype in shapes:
        if bench.args.smoke:
            length = 32
        make = lambda h: torch.randn(batch, length, h, dim, device=bench.device, dtype=dtype).transpose(1, 2)
        q, k, v = make(heads), make(kv_heads), make(kv_heads)
        run = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=len(k[0]) != heads)
        kinds = ["default"]
        if dtype == torch.bfloat16 and not bench.args.smoke:
            kinds = ["default", "cudnn"]
        for kind in kinds:
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if kind == "cudnn" else contextlib.nullcontext():
                try:
                    run()
                except RuntimeError as error:  # no such kernel for grouped heads
                    print(f"sdpa: {name} {kind}: {error}; keys and values repeated")
                    k, v = (t.repeat_interleave(heads // kv_heads, 1) for t in (k, v))
                many = 20
                seconds = [s / many for s in bench.time(lambda: [run() for _ in range(many)])]
            flops = 2.0 * batch * heads * length * length * dim  # causal: half of the pairs
            bench.record(case, f"{name} {kind} {str(dtype).split('.')[1]}", seconds, batch * length,
                         tflops=1e-12 * flops / seconds[0], kv_heads=k.shape[1])


CASES = {
    "sdpa": lambda bench: run_sdpa(bench, "sdpa"),
    "phi": lambda bench: run_float32(bench, "phi", phi_config(bench.args.smoke)),
    "tinystories": lambda bench: run_float32(bench, "tinystories", tinystories_config(bench.args.smoke)),
    "llama8b": lambda bench: run_llama(bench, "llama8b", strong=False),
    "llama8b-strong": lambda bench: run_llama(bench, "llama8b-strong", strong=True),
    "llama8b-graph": lambda bench: run_graph(bench, "llama8b-graph"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)} (all but llama8b-graph)")
    parser.add_argument("--microxcaling", help="folder that holds microxcaling's `mx` package")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json")
    parser.add_argument("--smoke", action="store_true")
    args = parser.parse_args()
    if unknown := [c for c in args.cases if c not in CASES]:
        parser.error(f"no case {unknown[0]!r}; there are: {', '.join(CASES)}")
    transformers.utils.logging.disable_progress_bar()
    torch.set_float32_matmul_precision("highest")
    torch._dynamo.config.recompile_limit = 64
    bench = Bench(args)
    failed = False
    for case in args.cases or [c for c in CASES if c != "llama8b-graph"]:
        start = time.perf_counter()
        reset()
        try:
            with torch.inference_mode():
                CASES[case](bench)
        except Exception as error:  # a case that fails leaves the others their turn
            failed = True
            print(f"{case}: {type(error).__name__}: {error}", flush=True)
            bench.result.setdefault(case, []).append({"error": f"{type(error).__name__}: {error}"})
        print(f"{case}: {time.perf_counter() - start:.1f} s in all", flush=True)
        if args.json:
            Path(args.json).write_text(json.dumps(
                {"machine": {"device": "cpu" if args.smoke else torch.cuda.get_device_name(),
                             "system": platform.platform()},
                 "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                              "cudnn": torch.backends.cudnn.version()},
                 "repeats": args.repeats, "cases": bench.result}, indent=1) + "\n")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
