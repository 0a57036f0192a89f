#!/usr/bin/env python3
"""Writes tests/data/model/config_cases.json: checkpoints of tests/data/families under other configs, by transformers.

usage: make_config_cases.py tests/data/families OUT.json

Each case: {"name", "checkpoint": folder, "erase": keys that go, "set": keys that come, "logits": the first logits of the
last token of `tokens`, "largest": the largest logit of all}. Beside it phi_msft/, a checkpoint with Phi's names of 2023.
float32, eager attention. Made with transformers 5.23.0 and torch 2.15.0 (CPU).
"""

import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

import torch
import transformers
from safetensors.torch import save_file

TOKENS = [3, 17, 5, 29, 11, 2, 23, 8, 31, 14, 6, 19, 27, 4, 12, 30]
KEPT = 12
# What a checkpoint's shapes need; everything else has a default.
SIZES = set("""model_type architectures vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim n_embd n_layer n_head n_inner n_positions d_model n_layers n_heads max_seq_len ffn_dim
    num_layers num_heads attention_types attention_layers max_position_embeddings num_experts num_local_experts
    moe_intermediate_size num_experts_per_tok mlp_only_layers decoder_sparse_step word_embed_proj_dim ffn_hidden_size
    new_decoder_architecture multi_query num_kv_heads parallel_attn bias num_ln_in_parallel_attn tie_word_embeddings
    attention_bias mlp_bias use_qkv_bias qk_layernorm use_bias use_qk_norm enable_bias rotary_pct rotary_emb_base
    use_parallel_residual pad_token_id attn_config do_layer_norm_before quantization_config dtype torch_dtype""".split())

CASES = [
    # name, folder, keys that go, keys that come
    ("gelu_fast", "gpt_neox", (), {"hidden_act": "gelu_fast"}),
    ("gelu_fast", "gpt2", (), {"activation_function": "gelu_fast"}),
    ("gelu_accurate", "phi", (), {"hidden_act": "gelu_accurate"}),
    ("gelu_python", "llama", (), {"hidden_act": "gelu_python"}),
    ("gelu_python_tanh", "llama", (), {"hidden_act": "gelu_python_tanh"}),
    ("quick_gelu", "llama", (), {"hidden_act": "quick_gelu"}),
    ("hidden_act gelu means tanh", "gemma", (), {"hidden_act": "gelu"}),
    ("hidden_activation is not read", "gemma", (), {"hidden_act": "silu", "hidden_activation": "relu"}),
    ("hidden_act is not read", "gemma2", (), {"hidden_act": "silu"}),
    ("common names of sizes", "gpt2", ("n_layer", "n_head"), {"num_hidden_layers": "n_layer",
                                                             "num_attention_heads": "n_head"}),
    ("common names of sizes", "gpt_neo", ("num_layers",), {"num_hidden_layers": "num_layers"}),
    ("common names of sizes", "mpt", ("n_layers",), {"num_hidden_layers": "n_layers"}),
    ("attention_layers wins over attention_types", "gpt_neo", (), {"attention_layers": "all global"}),
    ("layer_types makes it a Ministral", "mistral", (), {"layer_types": "all full"}),
    ("layer_types is not read", "starcoder2", (), {"layer_types": "all full", "sliding_window": 5}),
    ("layer_types is not read", "phi3", (), {"layer_types": "all full"}),
    ("layer_types is not read", "qwen3_moe", (), {"layer_types": "all full", "use_sliding_window": True,
                                                  "sliding_window": 6}),
    ("layer_types is read", "qwen3", (), {"layer_types": "all sliding", "use_sliding_window": True,
                                          "sliding_window": 6}),
    ("an empty rope_scaling is none", "llama", ("rope_scaling", "rope_theta"),
     {"rope_scaling": {}, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}}),
    ("rope_scaling wins over rope_parameters", "llama", ("rope_theta",),
     {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "linear", "factor": 4.0}}),
    ("flat rope_parameters are not read", "gemma3", ("rope_scaling", "rope_theta"),
     {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}}),
    ("rope_theta is not read", "gpt_neox", ("rotary_emb_base",), {"rope_theta": 77.0}),
    ("partial_rotary_factor is not read", "gpt_neox", ("rotary_pct",), {"partial_rotary_factor": 0.5}),
    ("head_dim changes what rotates alone", "gpt_neox", (), {"head_dim": 32}),
    ("partial_rotary_factor of rope_scaling", "phi", ("partial_rotary_factor",),
     {"rope_scaling": {"type": "default", "partial_rotary_factor": 0.75, "rope_theta": 50.0}}),
    ("rope_scaling with a type alone", "gemma3", (),
     {"rope_scaling": {"type": "linear", "factor": 4.0, "rope_theta": 50.0}}),
    ("rope_scaling changes rope_parameters", "gemma3", ("rope_scaling", "rope_theta", "rope_local_base_freq"),
     {"rope_scaling": {"rope_type": "linear", "factor": 4.0},
      "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 900.0},
                          "sliding_attention": {"rope_type": "default", "rope_theta": 50.0}}}),
    ("original_max_position_embeddings has a default", "phi3_longrope", ("original_max_position_embeddings",),
     {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": 8, "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.6],
                       "long_factor": [1.1, 1.5, 2.5, 4.0, 7.5, 9.0]}}),
    ("null is false", "falcon", (), {"bias": None, "alibi": None}),
    ("rope_pct is not read", "stablelm", (), {"rope_pct": 0.5}),
    ("the first names of experts", "mixtral", ("num_local_experts",), {"num_experts": "num_local_experts"}),
    ("the other name of experts", "qwen3_moe", ("num_experts",), {"num_local_experts": "num_experts"}),
    ("sizes that are null", "llama", (), {"head_dim": None}),
    ("attention_bias is not read", "mistral", (), {"attention_bias": True}),
    ("pretraining_tp", "llama", (), {"pretraining_tp": 2}),
    ("use_sliding_window", "qwen2", (), {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    ("no_rope_layer_interval", "smollm3", ("no_rope_layers",), {"no_rope_layer_interval": 2}),
    ("scale_attn_by_inverse_layer_idx", "gpt2", (), {"scale_attn_by_inverse_layer_idx": True}),
    ("reorder_and_upcast_attn", "gpt2", (), {"reorder_and_upcast_attn": True}),
    ("is_decoder", "gpt_neox", (), {"is_decoder": True}),
    ("norm_topk_prob", "qwen3_moe", (), {"norm_topk_prob": True}),
    ("clip_qkv", "olmo", (), {"clip_qkv": 0.05}),
    ("logit_scale", "cohere", (), {"logit_scale": 0.5}),
]
CASES += [("keys that are absent", f, None, {}) for f in
          "cohere falcon gemma gemma2 gemma3 gpt2 gpt_neox granite llama mistral mixtral mpt olmo olmo2 opt phi qwen2 "
          "qwen3 qwen3_moe smollm3 stablelm starcoder2".split()]


# The configs of older names, for a folder whose own config says the same in today's keys.
OLDER = [
    ("RefinedWeb", "falcon_new", lambda c: {
        "model_type": "RefinedWeb", "alibi": False, "bias": c.get("bias", False), "hidden_size": c["hidden_size"],
        "n_layer": c["num_hidden_layers"], "n_head": c["num_attention_heads"], "n_head_kv": c["num_kv_heads"],
        "parallel_attn": True, "vocab_size": c["vocab_size"], "ffn_hidden_size": c.get("ffn_hidden_size"),
        "layer_norm_epsilon": c["layer_norm_epsilon"], "rope_theta": c.get("rope_theta", 10000.0),
        "activation": c.get("activation", "gelu"), "tie_word_embeddings": c.get("tie_word_embeddings", True)}),
    ("stablelm_epoch", "stablelm", lambda c: {
        **{k: v for k, v in c.items() if k not in ("layer_norm_eps", "partial_rotary_factor")},
        "model_type": "stablelm_epoch", "norm_eps": c["layer_norm_eps"], "rope_pct": c["partial_rotary_factor"],
        "rotary_scaling_factor": 1.0}),
]


def phi_msft(folder):
    """A Phi-1.5 with the names of 2023, whose values transformers reads under today's; its logits."""
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "max_position_embeddings": 64, "partial_rotary_factor": 0.5}
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(transformers.PhiConfig(**sizes),
                                                          attn_implementation="eager").half().float().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_((p + 0.2 * torch.randn(p.shape)).half().float())
        out = model(torch.tensor([TOKENS]), use_cache=False).logits[0]
    state, tensors = model.state_dict(), {}
    for key, value in state.items():
        if "k_proj" in key or "v_proj" in key:
            continue
        if "q_proj" in key:
            value = torch.cat([state[key.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")])
        for new, old in (("model.embed_tokens", "transformer.embd.wte"), ("model.layers.", "transformer.h."),
                         ("input_layernorm", "ln"), ("self_attn.q_proj", "mixer.Wqkv"),
                         ("self_attn.dense", "mixer.out_proj"), ("model.final_layernorm", "lm_head.ln"),
                         ("lm_head.weight", "lm_head.linear.weight"), ("lm_head.bias", "lm_head.linear.bias")):
            key = key.replace(new, old)
        tensors[key] = value.half().contiguous()
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "phi-msft", "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_embd": 16,
        "n_head": 2, "n_head_kv": None, "n_inner": None, "n_layer": 2, "n_positions": 64, "rotary_dim": 4,
        "tie_word_embeddings": False, "torch_dtype": "float16", "vocab_size": 64}) + "\n")
    return out


def logits(folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                              attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.tensor([TOKENS]), use_cache=False).logits[0]


def resolved(value, config):
    """The value of a case: words stand for what the folder's sizes say."""
    layers = next(config[k] for k in ("num_hidden_layers", "n_layer", "n_layers", "num_layers") if k in config)
    words = {"all full": ["full_attention"] * layers, "all sliding": ["sliding_attention"] * layers,
             "all global": ["global"] * layers}
    if isinstance(value, str):
        return words.get(value, config.get(value, value))
    return value


def case(name, folder, gone, come, after):
    return {"name": name, "checkpoint": folder, "erase": gone, "set": come,
            "logits": [float(f"{x:.8g}") for x in after[-1, :KEPT].tolist()],
            "largest": float(f"{after.abs().max().item():.8g}")}


def main():
    families, out = Path(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    cases = []
    for name, folder, gone, come in CASES:
        config = json.loads((families / folder / "config.json").read_text())
        gone = [k for k in config if k not in SIZES] if gone is None else gone
        changed = {k: v for k, v in config.items() if k not in gone}
        come = {k: resolved(v, config) for k, v in come.items()}
        changed.update(come)
        with tempfile.TemporaryDirectory() as work:
            for file in (families / folder).iterdir():
                if file.is_file():
                    shutil.copy(file, work)
            before = logits(work)
            text = json.dumps(changed)
            (Path(work) / "config.json").write_text(text)
            try:
                after = logits(work)
            except Exception as error:
                print(f"{name} {folder}: {type(error).__name__} {str(error)[:200]}", file=sys.stderr)
                continue
        far = (after - before).abs().max().item() / before.abs().max().item()
        cases.append(case(name, folder, list(gone), come, after))
        print(f"{name:45} {folder:12} {far:.1e}")
    for name, folder, older in OLDER:
        config = json.loads((families / folder / "config.json").read_text())
        come = older(config)
        cases.append(case(name, folder, [k for k in config if k not in come], come, logits(families / folder)))
    cases.append(case("phi-msft", "../model/phi_msft", [], {}, phi_msft(out.parent / "phi_msft")))
    lines = ",\n".join(json.dumps(case) for case in cases)
    out.write_text(f'{{"transformers": "{transformers.__version__}", "tokens": {TOKENS}, "cases": [\n{lines}]}}\n')


if __name__ == "__main__":
    main()
