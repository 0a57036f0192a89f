#!/usr/bin/env python3
"""Reference figures: per-token NLL of a model on a text with transformers, in the `window` or `llamacpp` protocol.

usage: reference_nll.py MODEL_DIR --text FILE --context N [--dtype float32|bfloat16] [--limit-windows N] [-o STEM]
       [--protocol llamacpp]

The text's bytes (invalid UTF-8 becomes U+FFFD) are tokenised once by the `tokenizers` library with special tokens, cut
into windows of N tokens without overlap, each window but its first token is scored, the short last window is kept. `llamacpp`: one final newline of the text is dropped,
the short last window too, and the second half of a window is scored: targets N/2 + 1 .. N - 1 (for a vocabulary without
BOS; the perplexity error is the population's deviation over sqrt(count - 1)).
With --mx FORMAT the Linears of --roles are quantised by microxcaling (rounding even, floor scales, block 32): weights
always, activations too unless --weight-only. Writes STEM.json (mean NLL, perplexity, tokens, versions) and STEM.npy (NLL
of each scored token, float64), and prints the JSON.
"""
import argparse
import hashlib
import json
import math
import time
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM

from mx_oracle import Microxcaling, quantize_weights, role


def text_tokens(model, path, drop_newline=False):
    data = Path(path).read_bytes()
    sha = hashlib.sha256(data).hexdigest()
    if drop_newline:
        data = data.removesuffix(b"\n")
    tokenizer = tokenizers.Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
    tokenizer.no_truncation()
    return tokenizer.encode(data.decode("utf-8", errors="replace")).ids, sha


def windows_of(ids, context, limit):
    windows = [w for i in range(0, len(ids), context) if len(w := ids[i:i + context]) > 1]
    return windows[:limit] if limit else windows


def window_nll(model, window, rows=256):
    """NLL in float64 of every token of a window but its first; the head runs over a few rows at a time."""
    ids = torch.tensor([window])
    with torch.inference_mode():
        hidden = model.model(ids, use_cache=False).last_hidden_state[0, :-1]
        out = []
        for i in range(0, hidden.shape[0], rows):
            logits = model.lm_head(hidden[i:i + rows]).float()
            target = ids[0, 1 + i:1 + i + logits.shape[0], None]
            out.append(torch.logsumexp(logits.double(), -1) - logits.double().gather(-1, target)[:, 0])
    return torch.cat(out).numpy()


def quantize_activations(model, oracle, format, roles):
    def hook(module, args):
        x = args[0]
        return (oracle.quantize(x.float().contiguous(), format).to(x.dtype),)

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and role(name) in roles:
            module.register_forward_pre_hook(hook)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", required=True)
    parser.add_argument("--context", type=int, required=True)
    parser.add_argument("--protocol", default="window", choices=["window", "llamacpp"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--limit-windows", type=int, default=0)
    parser.add_argument("--mx", help="format name, as mxfp8_e4m3")
    parser.add_argument("--roles", default="attention,mlp")
    parser.add_argument("--weight-only", action="store_true")
    parser.add_argument("--microxcaling", help="folder that holds microxcaling's `mx` package (for --mx)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    transformers.utils.logging.disable_progress_bar()

    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype),
                                                 attn_implementation=args.attention).eval()
    if args.mx:
        oracle, roles = Microxcaling(args.microxcaling), args.roles.split(",")
        quantize_weights(model, oracle, args.mx, roles)
        if not args.weight_only:
            quantize_activations(model, oracle, args.mx, roles)
    llamacpp = args.protocol == "llamacpp"
    ids, sha = text_tokens(args.model, args.text, drop_newline=llamacpp)
    if llamacpp:
        ids = ids[:len(ids) // args.context * args.context]
    windows = windows_of(ids, args.context, args.limit_windows)
    first = args.context // 2 if llamacpp else 0
    started = time.time()
    nll = []
    for i, window in enumerate(windows):
        nll.append(window_nll(model, window)[first:])
        if args.out and i % 16 == 15:
            print(f"{i + 1}/{len(windows)} {np.concatenate(nll).mean():.6f}", flush=True)
    nll = np.concatenate(nll)
    result = {"model": Path(args.model).name, "text": Path(args.text).name, "text_sha256": sha, "dtype": args.dtype,
              "attention": args.attention, "mx": args.mx, "weight_only": args.weight_only,
              "roles": args.roles if args.mx else None, "protocol": args.protocol,
              "context": args.context, "text_tokens": len(ids),
              "windows": len(windows), "scored": len(nll), "nll": float(nll.mean()), "ppl": math.exp(nll.mean()),
              "ppl_stderr": math.exp(nll.mean()) * nll.std() / math.sqrt(len(nll) - 1),
              "seconds": round(time.time() - started, 1), "transformers": transformers.__version__,
              "torch": torch.__version__, "tokenizers": tokenizers.__version__}
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
        np.save(args.out.with_suffix(".npy"), nll)


if __name__ == "__main__":
    main()
