#!/usr/bin/env python3
"""Writes tests/data/adapters/NAME: LoRA adapters for tiny checkpoints of tests/data/families, and the logits with them.

    python tools/goldens/make_adapter_goldens.py [-o tests/data/adapters] [--families tests/data/families]

Each folder has adapter_config.json and the weights as peft saves them, and golden.json: the base model (a folder of
tests/data/families), token ids, and the logits of the last positions after merge_and_unload, in float32.
Made with torch 2.15.0, transformers 5.23.0, peft 0.21.0."""

import argparse
import json
import shutil
import warnings
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM

IDS, LAST = [5, 72, 29, 71, 83, 3, 63, 7, 13, 54, 71, 53, 11, 40], 3
ADAPTERS = {
    "linears": ("llama", dict(target_modules=["q_proj", "v_proj", "down_proj"], lora_alpha=5)),
    "patterns": ("llama", dict(target_modules=["q_proj", "up_proj"], use_rslora=True, lora_alpha=3,
                               rank_pattern={"layers.1.self_attn.q_proj": 1}, alpha_pattern={"up_proj": 7},
                               layers_to_transform=[1])),
    "head_and_embedding": ("llama", dict(target_modules=["lm_head", "embed_tokens"], lora_alpha=4)),
    "saved_modules": ("llama", dict(target_modules=["o_proj"], modules_to_save=["norm"], bias="lora_only")),
    "tied": ("smollm3", dict(target_modules=["embed_tokens"], lora_alpha=4)),
    "conv1d": ("gpt2", dict(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, bin=True)),
    "grouped": ("falcon_new", dict(target_modules=["query_key_value"])),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("tests/data/adapters"))
    parser.add_argument("--families", type=Path, default=Path("tests/data/families"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name, (family, options) in ADAPTERS.items():
        options = dict(options)
        as_bin = options.pop("bin", False)
        base, folder = arguments.families / family, arguments.output / name

        def load():
            return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")

        made = peft.get_peft_model(load(), peft.LoraConfig(r=2, task_type="CAUSAL_LM", **options))
        torch.manual_seed(11)
        with torch.no_grad():
            for _, p in made.named_parameters():
                if p.requires_grad:
                    p.copy_(torch.randn(p.shape) * 0.2 + (p if p.dim() == 1 else 0))
        shutil.rmtree(folder, ignore_errors=True)
        made.save_pretrained(folder, safe_serialization=not as_bin, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        merged = peft.PeftModel.from_pretrained(load(), folder).merge_and_unload().eval()
        with torch.no_grad():
            logits = merged(torch.tensor([IDS]), use_cache=False).logits[0]
            before = load()(torch.tensor([IDS]), use_cache=False).logits[0]
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = family
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        (folder / "golden.json").write_text(json.dumps({
            "base": family, "ids": IDS, "changed": (logits - before).abs().max().item(),
            "logits": [[round(x, 7) for x in row] for row in logits[-LAST:].tolist()]}) + "\n")


if __name__ == "__main__":
    main()
