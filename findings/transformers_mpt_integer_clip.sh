#!/usr/bin/env bash
# transformers 5.23.0 cannot open the config.json of MPT models whose attention clips at a whole number.
#
# mosaicml/mpt-30b-chat's config.json says "clip_qkv": 6, as llm-foundry wrote it. The configuration classes of
# transformers 5 check the types of their fields strictly, and attn_config.clip_qkv is declared as a float or None: the
# integer 6 is refused where 6.0 is read. JSON does not tell the two apart, so whoever writes 6.0 through another JSON
# library may get 6 back.
#
# Seen with transformers 5.23.0, huggingface_hub 2.4.0, Python 3.11:
#   6: StrictDataclassFieldValidationError
#   6.0: read, clip_qkv is 6.0
# Exits 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 huggingface_hub==2.4.0
cat > "$folder/try.py" <<'PYTHON'
import json, pathlib, sys

from transformers import AutoConfig

seen = []
for number in ("6", "6.0"):
    model = pathlib.Path(sys.argv[1]) / number
    model.mkdir()
    (model / "config.json").write_text(
        '{"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2, "vocab_size": 100, '
        f'"attn_config": {{"alibi": true, "clip_qkv": {number}}}}}')
    assert json.loads((model / "config.json").read_text())["attn_config"]["clip_qkv"] == 6
    try:
        config = AutoConfig.from_pretrained(model)
        seen.append(f"{number}: read, clip_qkv is {config.attn_config.clip_qkv}")
    except Exception as error:
        seen.append(f"{number}: {type(error).__name__}")
print(*seen, sep="\n")
sys.exit(seen != ["6: StrictDataclassFieldValidationError", "6.0: read, clip_qkv is 6.0"])
PYTHON
"$folder/venv/bin/python" "$folder/try.py" "$folder"
