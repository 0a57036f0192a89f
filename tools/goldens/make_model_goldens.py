#!/usr/bin/env python3
"""Make tests/data/models/NAME: tiny random llama checkpoints and what transformers computes from them.

usage: make_model_goldens.py --microxcaling FOLDER_OF_mx [-o tests/data/models] [NAME...]

Each folder holds a checkpoint (config.json, model.safetensors or shards) and
  expected.safetensors       tokens I64 [windows, T], logits F32 [windows, T, vocabulary]: float32 forward, eager attention.
                             Metadata: library versions; attention_error = max |eager - sdpa|; double_error = max |logits -
                             logits of the same model in float64| (float64 everywhere but in transformers' own float32
                             casts of norms, rotary and softmax), the scale of what float32 may differ by.
                             A BF16 model also has logits_bfloat16 F32: its forward in bfloat16 (eager), for a coarse check.
  expected_LENGTH.safetensors  the same for windows of another length (dynamic RoPE depends on it)
  expected_nll.json          mean NLL in nats of every token but a window's first, for weight-only MX variants; the
                             baseline, and per variant `nll` and `logits_max` (max |logits - baseline logits|)

Every figure comes from the folder as it lies on disk, loaded by transformers from_pretrained in float32.
Made with transformers 5.23.0, torch 2.15.0 (CPU), safetensors 0.8.0, microxcaling 7bc41952.
"""
import argparse
import json
import math
import shutil
from pathlib import Path

import safetensors
import torch
import transformers
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from mx_oracle import Microxcaling, quantize_weights

THETA = {"rope_theta": 500.0, "rope_type": "default"}
# hidden_size, intermediate_size, heads, ... as LlamaConfig names them. Underscored keys are ours:
# _dtype on disk, _windows (count, length)s, _config edits what is written (None deletes the key), _shard size.
MODELS = {
    # Everything left to its default in an old-style config.
    "mha_old_keys": dict(hidden_size=32, intermediate_size=52, num_attention_heads=4, vocab_size=101,
                         rope_parameters={"rope_theta": 10000.0, "rope_type": "default"}, rms_norm_eps=1e-6,
                         _config=dict(rope_parameters=None, dtype=None, torch_dtype="float32", head_dim=None,
                                      num_key_value_heads=None, attention_bias=None, mlp_bias=None,
                                      rope_scaling=Ellipsis, rms_norm_eps=None, tie_word_embeddings=None)),
    "gqa_tied": dict(hidden_size=40, intermediate_size=68, num_attention_heads=10, num_key_value_heads=2, vocab_size=113,
                     tie_word_embeddings=True, rms_norm_eps=3e-2, rope_parameters=THETA),
    "head_dim": dict(hidden_size=32, intermediate_size=52, num_attention_heads=4, num_key_value_heads=1, head_dim=12,
                     vocab_size=127, rope_parameters=THETA),
    "attention_bias": dict(hidden_size=36, intermediate_size=60, num_attention_heads=6, num_key_value_heads=3,
                           vocab_size=109, attention_bias=True, rope_parameters=THETA, tie_word_embeddings=True),
    "mlp_bias": dict(hidden_size=32, intermediate_size=52, num_attention_heads=2, num_key_value_heads=1, vocab_size=131,
                     attention_bias=True, mlp_bias=True, num_hidden_layers=3, rope_parameters=THETA,
                     tie_word_embeddings=True),
    "rope_linear_old_keys": dict(hidden_size=32, intermediate_size=44, num_attention_heads=2, vocab_size=103,
                                 rope_parameters={"rope_theta": 2000.0, "rope_type": "linear", "factor": 4.0},
                                 _config=dict(rope_parameters=None, dtype=None, torch_dtype="float32", rope_theta=2000.0,
                                              rope_scaling={"type": "linear", "factor": 4.0})),
    "rope_dynamic": dict(hidden_size=32, intermediate_size=44, num_attention_heads=2, vocab_size=103,
                         max_position_embeddings=32, tie_word_embeddings=True,
                         rope_parameters={"rope_theta": 500.0, "rope_type": "dynamic", "factor": 2.5},
                         _windows=[(2, 24), (2, 32), (2, 33), (1, 77)]),
    "rope_dynamic_old_keys": dict(hidden_size=32, intermediate_size=44, num_attention_heads=2, vocab_size=103,
                                  max_position_embeddings=16, tie_word_embeddings=True,
                                  rope_parameters={"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 4.0},
                                  _windows=[(2, 15), (2, 40)],
                                  _config=dict(rope_parameters=None, dtype=None, torch_dtype="float32",
                                               rope_theta=10000.0, rope_scaling={"type": "dynamic", "factor": 4.0})),
    "rope_llama3": dict(hidden_size=32, intermediate_size=52, num_attention_heads=2, num_key_value_heads=1,
                        vocab_size=107, max_position_embeddings=256, tie_word_embeddings=True,
                        rope_parameters={"rope_theta": 100.0, "rope_type": "llama3", "factor": 8.0,
                                         "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                         "original_max_position_embeddings": 32},
                        _windows=[(2, 40)]),
    # As Llama 3.1's file writes it.
    "rope_llama3_old_keys": dict(hidden_size=32, intermediate_size=52, num_attention_heads=2, num_key_value_heads=1,
                                 vocab_size=107, max_position_embeddings=256, _dtype=torch.bfloat16,
                                 rope_parameters={"rope_theta": 700.0, "rope_type": "llama3", "factor": 4.0,
                                                  "low_freq_factor": 1.0, "high_freq_factor": 2.0,
                                                  "original_max_position_embeddings": 64},
                                 _windows=[(1, 80)],
                                 _config=dict(rope_parameters=None, dtype=None, torch_dtype="bfloat16", rope_theta=700.0,
                                              rope_scaling={"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
                                                            "high_freq_factor": 2.0,
                                                            "original_max_position_embeddings": 64})),
    "bfloat16": dict(hidden_size=72, intermediate_size=84, num_attention_heads=3, num_key_value_heads=1, vocab_size=157,
                     _dtype=torch.bfloat16, rope_parameters=THETA, _windows=[(2, 40)]),
    "float16": dict(hidden_size=48, intermediate_size=52, num_attention_heads=3, vocab_size=101, _dtype=torch.float16,
                    rope_parameters=THETA),
    "sharded": dict(hidden_size=40, intermediate_size=76, num_attention_heads=5, num_key_value_heads=1, vocab_size=101,
                    _dtype=torch.bfloat16, rope_parameters=THETA, _shard="24KB"),
}
WEIGHT_ONLY = ("mxfp8_e4m3", "mxfp6_e2m3", "mxfp4_e2m1", "mxint8")


def randomize(model, generator):
    """Weights with which every part matters: peaky attention, norms and biases far from one and zero."""
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=generator)
        if name.endswith("bias"):
            p.data = 0.3 * r
        elif "norm" in name:
            p.data = 1 + 0.3 * r
        elif "embed_tokens" in name:
            p.data = (0.25 if model.config.tie_word_embeddings else 1.0) * r
        else:
            gain = 1.8 if any(k in name for k in ("q_proj", "k_proj")) else 1.2
            p.data = gain * r / math.sqrt(p.shape[-1])


def load(folder, dtype=torch.float32, attention="eager"):
    return LlamaForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()


def forward(folder, tokens, prepare=None, **options):
    """Logits of a freshly loaded model: dynamic RoPE keeps the frequencies of the longest input it has seen."""
    model = load(folder, **options)
    if prepare:
        prepare(model)
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def mean_nll(logits, tokens):
    logp = torch.log_softmax(logits[:, :-1].double(), -1)
    return -logp.gather(-1, tokens[:, 1:, None]).mean().item()


def edit_config(path, edits):
    config = json.loads(path.read_text())
    for key, value in edits.items():
        if value is None:
            config.pop(key, None)
        else:
            config[key] = None if value is Ellipsis else value
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make(name, spec, out, oracle):
    spec = dict(spec)
    options = {k: spec.pop(k) for k in [k for k in spec if k.startswith("_")]}
    dtype = options.get("_dtype", torch.float32)
    config = LlamaConfig(**{"num_hidden_layers": 2, "max_position_embeddings": 128, "bos_token_id": 1,
                            "eos_token_id": 2, **spec})
    generator = torch.Generator().manual_seed(sum(name.encode()))
    model = LlamaForCausalLM(config)
    randomize(model, generator)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=options.get("_shard", "1GB"))
    (folder / "generation_config.json").unlink(missing_ok=True)
    edit_config(folder / "config.json", {"transformers_version": None, **options.get("_config", {})})

    versions = {"transformers": transformers.__version__, "torch": torch.__version__,
                "safetensors": safetensors.__version__}
    nll = {}
    for i, (windows, length) in enumerate(options.get("_windows", [(2, 24)])):
        tokens = torch.randint(config.vocab_size, (windows, length), generator=generator)
        logits = forward(folder, tokens)
        sdpa = forward(folder, tokens, attention="sdpa")
        double = forward(folder, tokens, dtype=torch.float64)
        attention_error = (logits - sdpa).abs().max().item()
        double_error = (logits.double() - double).abs().max().item()
        assert double_error < 1e-4, (name, double_error)
        made = LlamaForCausalLM(config).eval()  # model.float() would keep rotary frequencies rounded by to(dtype).
        made.load_state_dict(model.state_dict())
        with torch.no_grad():  # The edited config must mean what the model was made as.
            assert (made(tokens, use_cache=False).logits - logits).abs().max() < 1e-4, name
        tensors = {"tokens": tokens, "logits": logits}
        if name == "bfloat16":
            tensors["logits_bfloat16"] = forward(folder, tokens, dtype=torch.bfloat16).float()
        metadata = {**versions, "attention_error": f"{attention_error:.3e}", "double_error": f"{double_error:.3e}"}
        file = "expected.safetensors" if i == 0 else f"expected_{length}.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / file, metadata)
        record = {"baseline": mean_nll(logits, tokens), "scored": windows * (length - 1), "variants": {}}
        for format in WEIGHT_ONLY:
            for roles, text in ((("attention", "mlp"), f"attention={format}/none,mlp={format}/none"),
                                (("attention", "mlp", "lm_head"), f"linear={format}/none")):
                replaced = []
                quantised = forward(folder, tokens,
                                    lambda m: replaced.extend(quantize_weights(m, oracle, format, roles)))
                assert len(replaced) == 7 * config.num_hidden_layers + ("lm_head" in roles)
                record["variants"][text] = {"nll": mean_nll(quantised, tokens),
                                            "logits_max": (quantised - logits).abs().max().item()}
        nll[file] = record
        print(f"{name:24} {file:28} nll {record['baseline']:.6f} |logits|max {logits.abs().max():.2f} "
              f"eager-sdpa {attention_error:.1e} float32-float64 {double_error:.1e}")
    for file in folder.iterdir():
        file.chmod(0o644)
    (folder / "expected_nll.json").write_text(json.dumps(
        {"versions": {**versions, "microxcaling": "7bc41952"},
         "rule": "floor", "round": "even", "block": 32, "files": nll}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models to make (all)")
    parser.add_argument("--microxcaling", required=True, help="folder that holds microxcaling's `mx` package")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).resolve().parents[2] / "tests/data/models")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    oracle = Microxcaling(args.microxcaling)
    for name in args.names or MODELS:
        make(name, MODELS[name], args.out, oracle)


if __name__ == "__main__":
    main()
