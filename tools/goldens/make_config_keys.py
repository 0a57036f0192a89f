#!/usr/bin/env python3
"""Writes tests/data/model/config_keys.json: the keys of config.json that transformers reads, for each family.

usage: make_config_keys.py OUT.json

Of a family: the fields of its configuration class with their defaults, and every attribute of the config that its
modelling code reads. Needs torch and transformers 5.23.
"""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path

import transformers

FAMILIES = ("cohere falcon gemma gemma2 gemma3_text gpt2 gpt_neo gpt_neox gpt_oss granite llama mistral mixtral mpt "
            "olmo olmo2 opt phi phi3 qwen2 qwen3 qwen3_moe smollm3 stablelm starcoder2").split()
# Attributes that are no keys of a file.
METHODS = {"get_text_config", "text_config", "vision_config", "image_token_id", "mm_tokens_per_image", "to_dict"}


def main():
    common = {field.name for field in dataclasses.fields(transformers.PreTrainedConfig)}
    out = {"transformers": transformers.__version__, "common": sorted(common), "families": {}}
    for family in FAMILIES:
        config = transformers.CONFIG_MAPPING[family]
        fields = {}
        for field in dataclasses.fields(config):
            if field.name in common:
                continue
            default = field.default
            if default is dataclasses.MISSING:
                default = None
            fields[field.name] = default if isinstance(default, (bool, int, float, str)) else None
        module = importlib.import_module(config.__module__)
        folder = Path(module.__file__).parent
        source = (folder / f"modeling_{folder.name}.py").read_text()
        read = set(re.findall(r"\bconfig\.([a-z_0-9]+)", source)) | set(
            re.findall(r'getattr\((?:self\.)?config, "([a-z_0-9]+)"', source))
        out["families"][family] = {"defaults": fields, "read": sorted(read - METHODS),
                                   "aliases": dict(sorted(config.attribute_map.items()))}
    families = ",\n".join(f'"{name}": {json.dumps(keys, sort_keys=True)}' for name, keys in out["families"].items())
    Path(sys.argv[1]).write_text(f'{{"transformers": "{out["transformers"]}", "common": {json.dumps(out["common"])},\n'
                                 f'"families": {{\n{families}}}}}\n')


if __name__ == "__main__":
    main()
