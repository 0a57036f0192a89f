#!/usr/bin/env python3
"""Make tests/data/vector/bf16.json: what microxcaling's global mode with bfloat = 16 says of models of
tests/data/families.

usage: make_vector_goldens.py --microxcaling FOLDER_OF_mx [-o tests/data/vector/bf16.json]

inject_pyt_ops replaces torch's functions before transformers is loaded; models run in float32 with eager attention and
rounding `even`. For each family and "none" (products are not quantised) or "mxfp8_e4m3" (every Linear, the LM head too,
and both attention products):
  by_token       NLL in nats of every token but a window's first, of each window of the family's golden.json
  median_spread  the largest median change of a token in runs whose embeddings were multiplied by 1 + 3e-7 N(0, 1): a
                 sum that differs in its last bit may fall to the other side of a tie
  plain_median   the median difference from the same without the rounding (bfloat = 0)
  same, plain_same  the smallest share of tokens within 1e-4 in those runs, and without the rounding
  plain_nll, nll means over all tokens; spread: the largest change of nll in those runs
Also "operations": inputs `x` and what the injected functions make of them, [rows][columns] each.
Made with transformers 5.23.0, torch 2.15.0 (CPU), microxcaling 7bc41952.
"""
import argparse
import json
import sys
from pathlib import Path

import torch

# Not opt, which scales q before the product: by a power of two in its real models, not in the tiny one.
FAMILIES = ("gpt2", "gpt_neo", "phi", "gpt_neox", "qwen2", "starcoder2")
FORMATS = {"none": None, "mxfp8_e4m3": "fp8_e4m3"}
NOISY_RUNS = 4
DATA = Path(__file__).resolve().parents[2] / "tests/data"


def operations():
    """One row more than once through every function that rounds inside."""
    import torch.nn.functional as F
    generator = torch.Generator().manual_seed(11)
    x = 2 * torch.randn(6, 40, generator=generator)
    weight, bias = 1 + torch.randn(40, generator=generator) / 4, torch.randn(40, generator=generator) / 4
    gelu_new = 0.5 * x * (1.0 + torch.tanh(0.7978845608028654 * (x + 0.044715 * torch.pow(x, 3.0))))
    out = {"x": x, "weight": weight, "bias": bias, "layer_norm": F.layer_norm(x, (40,), weight, bias, 1e-5),
           "silu": F.silu(x), "gelu": F.gelu(x), "gelu_new": gelu_new, "quick_gelu": x * torch.sigmoid(1.702 * x),
           "relu": F.relu(x), "x_bf16": x.bfloat16().float(), "relu_squared": torch.square(F.relu(x)), "softmax": F.softmax(x, dim=-1)}
    return {k: v.tolist() for k, v in out.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--microxcaling", required=True, help="folder that holds microxcaling's `mx` package")
    parser.add_argument("-o", "--out", type=Path, default=DATA / "vector/bf16.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, args.microxcaling)
    from mx import mx_mapping
    from mx.specs import MxSpecs, apply_mx_specs

    specs = apply_mx_specs(MxSpecs({"scale_bits": 8, "block_size": 32, "shared_exp_method": "max", "bfloat": 16,
                                    "custom_cuda": False, "quantize_backprop": False, "round": "even",
                                    "round_m": "even", "round_weight": "even", "round_output": "even",
                                    "round_mx_output": "even"}))
    mx_mapping.MODULE_MAPPING.clear()  # torch's modules call the functions; microxcaling's lack some arguments
    mx_mapping.inject_pyt_ops(specs)  # the functions keep a reference to `specs`: changes below reach them
    # On a CPU float32's lowest number, with which eager attention masks, rounds to NaN there; its path for GPUs is a
    # cast, which gives -Inf.
    softmax = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, *a, **k: softmax(x.masked_fill(x < -1e38, float("-inf")), *a, **k)
    import transformers
    from transformers import AutoModelForCausalLM
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()

    def run(family, format, bfloat, noise=None):
        specs.update({"a_elem_format": FORMATS[format], "w_elem_format": FORMATS[format], "bfloat": bfloat})
        model = AutoModelForCausalLM.from_pretrained(DATA / "families" / family, dtype=torch.float32,
                                                     attn_implementation="eager").eval()
        if noise is not None:
            model.get_input_embeddings().register_forward_hook(
                lambda module, inputs, out: out * (1 + 3e-7 * torch.randn(out.shape, generator=noise)))
        windows = json.loads((DATA / "families" / family / "expected/golden.json").read_text())["windows"]
        nll = []
        for tokens in windows:
            with torch.no_grad():
                logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
            nll.append(-torch.log_softmax(logits[:-1].double(), -1).gather(-1, torch.tensor(tokens)[1:, None])[:, 0])
        return nll

    golden = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__,
                           "microxcaling": "7bc41952"}, "operations": operations(), "families": {}}
    for family in FAMILIES:
        golden["families"][family] = {}
        for format in FORMATS:
            nll = run(family, format, 16)
            flat, plain = torch.cat(nll), torch.cat(run(family, format, 0))
            generator = torch.Generator().manual_seed(7)
            moves = [(torch.cat(run(family, format, 16, generator)) - flat) for _ in range(NOISY_RUNS)]
            golden["families"][family][format] = {
                "nll": flat.mean().item(), "plain_nll": plain.mean().item(),
                "plain_median": (plain - flat).abs().median().item(),
                "median_spread": max(m.abs().median().item() for m in moves),
                "spread": max(abs(m.mean().item()) for m in moves),
                "same": min((m.abs() < 1e-4).double().mean().item() for m in moves),
                "plain_same": ((plain - flat).abs() < 1e-4).double().mean().item(),
                "by_token": [[round(v, 6) for v in n.tolist()] for n in nll]}
            print(family, format, {k: round(v, 6) for k, v in golden["families"][family][format].items()
                                   if k != "by_token"}, flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for family, formats in golden.pop("families").items():
        lines.append(f'  "{family}": {json.dumps(formats)}')
    head = ",\n ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items())
    args.out.write_text("{\n " + head + ',\n "families": {\n' + ",\n".join(lines) + "\n }\n}\n")
    json.loads(args.out.read_text())


if __name__ == "__main__":
    main()
