#!/usr/bin/env python3
"""Evaluates the eleven models of the registry's suites by name, from a hub on the loopback device.

FOLDER holds the true small files of models as ORG--NAME/config.json (and tokenizer_config.json, generation_config.json
where they are): every key stays as it is but the sizes, which are cut down; weights are random, made by transformers.
A stand-in of byte-level BPE takes the place of tokenizer.json, with the added tokens of tokenizer_config.json.

Usage: tools/checks/check_registry.py FOLDER [path of mxlm]        (needs torch, transformers; the versions are printed)
"""
import json, pathlib, subprocess, sys, tempfile

import torch
import transformers
from loopback_hub import environment, serve

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = pathlib.Path(sys.argv[1])
MXLM = sys.argv[2] if len(sys.argv) > 2 else str(ROOT / "build/release/mxlm")
torch.set_num_threads(1)

# A base model whose own file is not at hand takes that of its sibling, which differs in sizes and token ids alone.
SIBLINGS = {"Qwen/Qwen1.5-0.5B": "Qwen/Qwen1.5-0.5B-Chat", "Qwen/Qwen2.5-7B": "Qwen/Qwen2.5-7B-Instruct",
            "Qwen/Qwen2.5-14B": "Qwen/Qwen2.5-7B-Instruct", "mosaicml/mpt-30b": "mosaicml/mpt-30b-chat",
            "meta-llama/Llama-3.1-8B": "meta-llama/Meta-Llama-3.1-8B",
            "deepseek-ai/deepseek-llm-67b-base": "deepseek-ai/deepseek-llm-67b-chat"}
HEADS = 4
SIZES = {"hidden_size": 64, "d_model": 64, "n_embd": 64, "intermediate_size": 96, "num_hidden_layers": 2, "n_layers": 2,
         "num_layers": 2, "num_attention_heads": HEADS, "num_heads": HEADS, "n_heads": HEADS, "num_key_value_heads": 2,
         "head_dim": 16, "num_local_experts": 4, "window_size": 8}


def shrink(config):
    small = {key: SIZES.get(key, value) if value is not None else None for key, value in config.items()}
    if config.get("num_key_value_heads") == config.get("num_attention_heads"):
        small["num_key_value_heads"] = HEADS
    if "attention_types" in small:
        small["attention_types"] = [[["global", "local"], 1]]
    if "attention_layers" in small:
        small["attention_layers"] = ["global", "local"]
    if "layer_types" in small:
        small["layer_types"] = small["layer_types"][:2]
    if isinstance(small.get("rope_scaling"), dict):
        for key in ("short_factor", "long_factor"):
            if key in small["rope_scaling"]:
                small["rope_scaling"][key] = small["rope_scaling"][key][:SIZES["head_dim"] // 2]
    return small


def own_file(model, name):
    for candidate in (model, SIBLINGS.get(model, model)):
        path = FOLDER / candidate.replace("/", "--") / name
        if path.exists():
            return path.read_bytes()
    return None


def tokenizer(settings):
    """booklet-7m's tokenizer.json, with the added tokens that a tokenizer_config.json names."""
    out = json.loads((ROOT / "models/booklet-7m/tokenizer.json").read_text())
    for number, token in sorted((settings or {}).get("added_tokens_decoder", {}).items(), key=lambda item: int(item[0])):
        if int(number) >= len(out["model"]["vocab"]):
            out["added_tokens"].append({"id": int(number)} | token)
    return json.dumps(out).encode()


def files_of(model):
    raw = own_file(model, "config.json")
    if raw is None:
        sys.exit(f"{FOLDER} has no config.json of {model}")
    config = shrink(json.loads(raw))
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(7)
        # transformers' own class of that type: code of repositories is not run.
        plain = {key: value for key, value in config.items() if key != "auto_map"}
        if isinstance(plain.get("attn_config"), dict) and plain["attn_config"].get("clip_qkv"):
            # The file has an integer, which transformers 5.23 refuses.
            plain["attn_config"] = plain["attn_config"] | {"clip_qkv": float(plain["attn_config"]["clip_qkv"])}
        made = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(plain.pop("model_type"), **plain), dtype=torch.bfloat16)
        made.save_pretrained(folder)
        files = {"config.json": json.dumps(config).encode(),
                 "model.safetensors": (pathlib.Path(folder) / "model.safetensors").read_bytes()}
    settings = own_file(model, "tokenizer_config.json")
    files["tokenizer.json"] = tokenizer(json.loads(settings) if settings else None)
    for name in ("tokenizer_config.json", "generation_config.json"):
        if content := own_file(model, name):
            files[name] = content
    return files


print(f"transformers {transformers.__version__}, torch {torch.__version__}")
models = json.loads(subprocess.run([MXLM, "models", "--json"], check=True, capture_output=True).stdout)["models"]
models = [model for model in models if model["suite"]]
endpoint = serve({model["id"]: files_of(model["id"]) for model in models})
failed = 0
with tempfile.TemporaryDirectory() as home:
    for model in models:
        out = pathlib.Path(home) / "out.json"
        run = subprocess.run([MXLM, "eval", model["name"], "--max-windows", "1", "--context", "128", "--threads", "1",
                              "--quiet", "--json", str(out)],
                             env=environment(home, endpoint), capture_output=True, text=True)
        if run.returncode == 0:
            result = json.loads(out.read_text())["runs"][0]
            assert result["model"]["name"] == model["id"], result["model"]
            print(f"ok      {model['name']:<18} {model['id']}, nll {result['variants'][0]['nll']:.4f}")
        else:
            failed += 1
            print(f"FAILED  {model['name']:<18} {run.stderr.strip().splitlines()[-1]}")
print(f"{len(models) - failed} of {len(models)} models were evaluated")
sys.exit(failed != 0)
