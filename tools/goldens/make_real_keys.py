#!/usr/bin/env python3
"""Writes tests/data/model/real_keys.json: the keys of real config.json files, without what only says how large a model is.

usage: make_real_keys.py FOLDER OUT.json

FOLDER holds ORG--NAME/config.json of models on the hub. Of a model type with several files the later ones keep what they add.
"unread" holds, for each model type that transformers knows, the keys of those files that it reads neither in its configuration
class nor in its modelling code. Needs transformers 5.23.
"""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import transformers
from make_config_keys import FAMILIES

LEFT_OUT = set("""architectures auto_map attn_config bos_token_id d_model eos_token_id hidden_size init_config intermediate_size
    layer_types max_position_embeddings max_seq_len n_embd n_head n_heads n_layer n_layers n_positions num_attention_heads
    num_heads num_hidden_layers num_key_value_heads num_layers pad_token_id quantization_config torch_dtype
    transformers_version vocab_size _name_or_path""".split())
OLDER = ("RefinedWeb", "phi-msft", "stablelm_epoch")  # of the time before transformers had the family


def read_by_transformers(family):
    """Every key of a file that transformers reads for this family."""
    config = transformers.CONFIG_MAPPING[family]
    module = importlib.import_module(config.__module__)
    folder = Path(module.__file__).parent
    source = Path(module.__file__).read_text() + (folder / f"modeling_{folder.name}.py").read_text()
    if "def convert_rope_params_to_dict" not in source:
        mixin = Path(transformers.modeling_rope_utils.__file__).read_text()
        source += mixin[mixin.index("def convert_rope_params_to_dict"):mixin.index("def validate_rope")]
    names = {field.name for field in dataclasses.fields(config)} | set(config.attribute_map)
    for pattern in (r"\bconfig\.([a-z_0-9]+)", r'getattr\((?:self|config|self\.config), "([a-z_0-9]+)"',
                    r'kwargs\.(?:pop|get|setdefault)\(\s*"([a-z_0-9]+)"'):
        names |= set(re.findall(pattern, source))
    return names


def main():
    unread, configs, seen = {}, {}, {}
    files = [(json.loads(path.read_text()), path.parent.name) for path in sorted(Path(sys.argv[1]).glob("*/config.json"))]
    for config, folder in sorted(files, key=lambda entry: entry[0].get("model_type", "")):
        kind = config.get("model_type", "")
        if kind not in FAMILIES and kind not in OLDER:
            continue
        known = seen.setdefault(kind, set())
        fresh = {k: v for k, v in config.items() if k not in LEFT_OUT | known | {"model_type"}
                 and not (k == "rope_scaling" and v is not None)}
        known |= set(fresh)
        if fresh:
            configs[folder.replace("--", "/", 1)] = {"model_type": kind, **fresh}
        if kind in FAMILIES:
            unread[kind] = sorted(known - read_by_transformers(kind))
    out = ",\n".join(f"{json.dumps(name)}: {json.dumps(config, sort_keys=True)}" for name, config in configs.items())
    Path(sys.argv[2]).write_text(f'{{"transformers": "{transformers.__version__}", '
                                 f'"unread": {json.dumps(unread, sort_keys=True)},\n"configs": {{\n{out}}}}}\n')


if __name__ == "__main__":
    main()
