#!/usr/bin/env python3
"""Write seeds for fuzz/adapter_fuzz: adapter_config.json, a byte 0xff, and adapter_model.safetensors.

usage: make_adapter_seeds.py FOLDER
"""
import json
import struct
import sys
from pathlib import Path

AT = "base_model.model.model."
Q = AT + "layers.0.self_attn.q_proj."
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "base_model_name_or_path": "org/name"}
LORA = {Q + "lora_A.weight": (2, 3), Q + "lora_B.weight": (4, 2)}
SEEDS = {
    "linear": (CONFIG, LORA),
    "patterns": (dict(CONFIG, r=8, rank_pattern={"layers.0.self_attn.q_proj": 2}, alpha_pattern={"^q_proj": 3.5}, use_rslora=True),
                 LORA),
    "embedding": (CONFIG, {AT + "embed_tokens.lora_embedding_A": (2, 4), AT + "embed_tokens.lora_embedding_B": (3, 2)}),
    "saved": (dict(CONFIG, modules_to_save=["lm_head"], bias="all"),
              {**LORA, "base_model.model.lm_head.weight": (4, 3), Q + "base_layer.bias": (4,)}),
    "half": (CONFIG, {Q + "lora_A.weight": (2, 3)}),
    "dora": (dict(CONFIG, use_dora=True), LORA),
}


def safetensors(shapes):
    header, data = {}, b""
    for key, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + 4 * count]}
        data += struct.pack(f"<{count}f", *[0.5] * count)
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def main():
    for name, (config, shapes) in SEEDS.items():
        text = json.dumps(config, separators=(",", ":")).encode()
        (Path(sys.argv[1]) / name).write_bytes(text + b"\xff" + safetensors(shapes))


if __name__ == "__main__":
    main()
