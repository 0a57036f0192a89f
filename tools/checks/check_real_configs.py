#!/usr/bin/env python3
"""Evaluates real configurations with their sizes shrunk and weights made at random, and compares with transformers.

usage: check_real_configs.py MXLM FOLDER [NAME...]

FOLDER holds a folder for each model with its config.json. Of a family that mxlm knows, only the sizes are changed; all
other keys stay as they are. The logits must be within 2e-5 of the largest one of transformers (float32, eager). Every
other config must be refused with its reason: the family that is not known, or the way its weights are quantised.
Prints a table, and exits 1 if anything is wrong. Needs torch and transformers 5.23.
"""

import copy
import json
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

import torch
import transformers
from safetensors.torch import load_file, save_file

TOLERANCE = 2e-5
TOKENS = 24
# The sizes that are changed, under every name that a family has for them.
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
WIDTHS = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "moe_intermediate_size")
HIDDEN = ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim")
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
# An older name: its family, and what its own code calls differently.
OLDER = {
    "RefinedWeb": ("falcon", {"n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
                              "n_head_kv": "num_kv_heads"}, {"new_decoder_architecture": True}),
    "phi-msft": ("phi", {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
                         "n_head_kv": "num_key_value_heads", "activation_function": "hidden_act",
                         "layer_norm_epsilon": "layer_norm_eps", "n_positions": "max_position_embeddings"}, {}),
    "stablelm_epoch": ("stablelm", {"norm_eps": "layer_norm_eps", "rope_pct": "partial_rotary_factor"}, {}),
}


def shrunk(config):
    """The config with small sizes; key/value heads stay all, some or one."""
    out = copy.deepcopy(config)
    heads = next((config[k] for k in HEADS if config.get(k)), 4)
    kv = next((config[k] for k in KV_HEADS if config.get(k)), heads)
    small_heads = 4
    small_kv = 4 if kv == heads else 1 if kv == 1 else 2
    head_dim = 16
    hidden = small_heads * head_dim
    for keys, value in ((LAYERS, 4), (HEADS, small_heads), (KV_HEADS, small_kv), (WIDTHS, 96), (HIDDEN, hidden)):
        for key in keys:
            if out.get(key) is not None:
                out[key] = value
    if out.get("head_dim") is not None:
        out["head_dim"] = head_dim
    if out.get("vocab_size") is not None:
        out["vocab_size"] = 128
    for key in ("num_experts", "num_local_experts"):
        if out.get(key) is not None:
            out[key] = 4
    if out.get("num_experts_per_tok") is not None:
        out["num_experts_per_tok"] = 2
    if out.get("rotary_dim") is not None:
        out["rotary_dim"] = 8
    for key in ("layer_types", "no_rope_layers", "attention_layers"):
        if out.get(key) is not None:
            out[key] = out[key][:4]
    if out.get("attention_types"):
        out["attention_types"] = [[out["attention_types"][0][0], 4 // len(out["attention_types"][0][0])]]
    for key in ("sliding_window", "window_size"):
        if out.get(key) is not None:
            out[key] = 8
    if out.get("max_window_layers") is not None:
        out["max_window_layers"] = 2
    scaling = out.get("rope_scaling") or out.get("rope_parameters") or {}
    share = out.get("partial_rotary_factor", 1.0)
    for key in ("short_factor", "long_factor"):
        if key in scaling:
            scaling[key] = scaling[key][:int(head_dim * share) // 2]
    for key in ("pad_token_id", "bos_token_id", "eos_token_id"):
        out[key] = 0
    return out


def reference_config(config):
    kind = config["model_type"]
    family, names, more = OLDER.get(kind, (kind, {}, {}))
    out = {**more, **{names.get(k, k): v for k, v in config.items() if v is not None or k not in names}}
    out.pop("auto_map", None)
    out.pop("quantization_config", None)
    if kind == "phi-msft":
        out["partial_rotary_factor"] = config["rotary_dim"] / (config["n_embd"] // config["n_head"])
        out["intermediate_size"] = 4 * config["n_embd"]
    out["model_type"] = family
    if isinstance(out.get("attn_config"), dict):
        # transformers takes no integer here, though the models' own files have one.
        clip = out["attn_config"].get("clip_qkv")
        out["attn_config"] = {**out["attn_config"], "clip_qkv": None if clip is None else float(clip)}
    out.pop("torch_dtype", None)
    out.pop("dtype", None)
    return transformers.AutoConfig.for_model(**out)


def older_tensors(kind, tensors):
    """The tensors under the names that the older code gave them."""
    if kind != "phi-msft":
        return tensors
    out = {}
    for key, value in tensors.items():
        if "k_proj" in key or "v_proj" in key:
            continue
        if "q_proj" in key:
            value = torch.cat([tensors[key.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")])
        for old, new in (("model.embed_tokens", "transformer.embd.wte"), ("model.layers.", "transformer.h."),
                         ("input_layernorm", "ln"), ("self_attn.q_proj", "mixer.Wqkv"),
                         ("self_attn.dense", "mixer.out_proj"), ("model.final_layernorm", "lm_head.ln"),
                         ("lm_head.weight", "lm_head.linear.weight"), ("lm_head.bias", "lm_head.linear.bias")):
            key = key.replace(old, new)
        out[key] = value
    return out


# Wrappers of a text model that is known: its family, and what the names of its tensors begin with on disk.
WRAPPERS = {"gemma3": ("gemma3_text", "language_model.model.", "language_model.lm_head."),
            "qwen3_vl": ("qwen3", "model.language_model.", "lm_head.")}


def wrapped(kind, tensors):
    _, model, head = WRAPPERS[kind]
    return {re.sub("^lm_head[.]", head, re.sub("^model[.]", model, key)): value for key, value in tensors.items()}


def run(mxlm, folder, ids, out):
    (folder / "ids.json").write_text(json.dumps(ids))
    return subprocess.run([mxlm, "logits", folder, "--tokens", folder / "ids.json", "-o", out, "--dtype", "float32",
                           "--threads", "1"], capture_output=True, text=True, timeout=300)


def check(mxlm, known, name, config, work):
    """(verdict, what was seen)"""
    kind = config.get("model_type", "")
    family = OLDER.get(kind, (kind,))[0]
    folder = work / name
    folder.mkdir()
    ids = [random.Random(7).choices(range(2, 128), k=TOKENS)]
    text = config.get("text_config")
    if family not in known and kind not in WRAPPERS:
        save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(config))
        ran = run(mxlm, folder, ids, folder / "out.safetensors")
        said = ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else ""
        reasons = [f"model type '{kind}' is not known"]
        if text:
            reasons.append(f"is '{text.get('model_type')}', which is not known there")
        return ran.returncode == 1 and any(reason in said for reason in reasons), said[-160:]
    if kind in WRAPPERS:
        small_text = shrunk(text)
        small = {**config, "text_config": small_text}
        reference = reference_config({**small_text, "model_type": WRAPPERS[kind][0]})
    else:
        small = shrunk(config)
        reference = reference_config(small)
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(reference, attn_implementation="eager")
    model = model.float().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            noise = torch.randn(p.shape) * 0.2
            p.copy_(noise if p.dim() > 1 or key.endswith("bias") else p + noise)
        want = model(torch.tensor(ids), use_cache=False).logits
    model.save_pretrained(folder)
    tensors = older_tensors(kind, load_file(folder / "model.safetensors"))
    if kind in WRAPPERS:
        tensors = wrapped(kind, tensors)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    quantised = small.get("quantization_config")
    (folder / "config.json").write_text(json.dumps(small))
    if quantised and quantised.get("quant_method") == "fp8":
        ran = run(mxlm, folder, ids, folder / "out.safetensors")
        said = ran.stderr.strip().splitlines()[-1]
        return ran.returncode == 1 and "quantised with FP8" in said, said[-160:]
    ran = run(mxlm, folder, ids, folder / "out.safetensors")
    if ran.returncode != 0:
        return False, ran.stderr.strip().splitlines()[-1][-200:]
    got = load_file(folder / "out.safetensors")["logits"]
    far = ((got - want).abs().max() / want.abs().max()).item()
    return far < TOLERANCE, f"largest difference {far:.1e} of the largest logit"


def main():
    mxlm, folder = sys.argv[1], Path(sys.argv[2])
    only = sys.argv[3:]
    torch.set_num_threads(1)
    known = json.loads((Path(__file__).resolve().parents[2] / "tests/data/model/config_keys.json").read_text())["families"]
    wrong = 0
    with tempfile.TemporaryDirectory() as work:
        for path in sorted(folder.glob("*/config.json")):
            name = path.parent.name
            if only and name not in only:
                continue
            try:
                ok, seen = check(mxlm, known, name, json.loads(path.read_text()), Path(work))
            except Exception as error:  # a config that the reference itself does not take
                ok, seen = False, f"reference: {type(error).__name__}: {str(error)[:150]}"
            wrong += not ok
            print(f"{'ok   ' if ok else 'WRONG'} {name:45} {seen}", flush=True)
    print(f"{wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
