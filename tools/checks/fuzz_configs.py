#!/usr/bin/env python3
"""Compare `mxlm logits` with transformers on random valid changes of real config.json files.

usage: fuzz_configs.py MXLM FOLDER [--count N] [--seed S] [--only NAME...] [--keep FOLDER]

FOLDER holds a folder for each model with its config.json, as for check_real_configs.py; the configs of tests/data/families
are taken, too. Of each the sizes are shrunk, and one to three keys are dropped, set to their default or to another legal
value, null, a float for an integer, an older name, another form of rotary parameters, or a key of another family. The
weights are random. The logits must be within 2e-5 of the largest one of transformers (float32, eager), or mxlm must refuse
the config with a reason, or transformers must refuse it. Prints each difference, and how often each reason was given; reasons
are to be read. Exit code 1 if anything differs; --keep leaves those configs there. Needs torch and transformers 5.23.
"""
import argparse
import collections
import copy
import json
import random
import re
import sys
import tempfile
import warnings
from pathlib import Path

import check_real_configs as real
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.activations import ACT2FN

DATA = Path(__file__).resolve().parents[2] / "tests/data"
LAYER_TYPES = ["full_attention", "sliding_attention"]
ROPE_KEYS = ("rope_scaling", "rope_parameters")
ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function", "activation")
# Never changed: what the shapes of all weights follow from.
SIZES = {*real.LAYERS, *real.HEADS, *real.HIDDEN, "vocab_size", "model_type", "text_config", "vision_config"}
VISION = {"gemma3": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
                     "patch_size": 14},
          "qwen3_vl": {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 64,
                       "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}}
# Legal values of keys, as files and modelling code have them.
VALUES = {
    "sliding_window": [None, 3, 8, 100, 4096, 8.0], "window_size": [None, 3, 8, 100], "max_window_layers": [0, 1, 2, 3, 28, None],
    "head_dim": [None, 8, 16, 32, 16.0], "num_key_value_heads": [None, 1, 2, 4], "num_kv_heads": [None, 1, 2, 4], "n_head_kv": [None, 1, 4],
    "max_position_embeddings": [24, 32, 64, 4096, None], "n_positions": [24, 64, None], "max_seq_len": [24, 64, None],
    "original_max_position_embeddings": [None, 8, 16, 64], "rope_theta": [100, 100.0, 1000000, 5e5, None],
    "rotary_emb_base": [100, 10000, None], "rope_local_base_freq": [100.0, 10000, None], "partial_rotary_factor": [0.25, 0.5, 1, 1.0, None],
    "rotary_pct": [0.25, 0.5, 1.0, None], "sliding_window_pattern": [1, 2, 3, 6, None], "no_rope_layer_interval": [1, 2, 3, 4],
    "no_rope_layers": [[], None, [1, 0, 1, 1], [0, 0, 1, 1]], "num_experts_per_tok": [1, 2, 3, 2.0], "decoder_sparse_step": [1, 2, 3],
    "mlp_only_layers": [[], [0], [1, 3], None], "query_pre_attn_scalar": [16, 24.5, 256], "attn_logit_softcapping": [None, 2.0, 50],
    "final_logit_softcapping": [None, 3.0, 30], "logit_scale": [None, 0.5, 2, 0.0625], "clip_qkv": [None, 0.4, 8],
    "embedding_multiplier": [1, 3.5, 12.0], "logits_scaling": [1, 4.0], "residual_multiplier": [1, 0.22], "attention_multiplier": [1, 0.3],
    "intermediate_size": [None, 96, 80, 96.0], "n_inner": [None, 96, 80], "ffn_dim": [96, 80], "ffn_hidden_size": [None, 96, 80],
    "rms_norm_eps": [1e-6, 1e-3, 1, None], "layer_norm_eps": [1e-6, 1e-2, None], "layer_norm_epsilon": [1e-6, 1e-2, None],
    "norm_epsilon": [1e-6, 1e-2, None], "bos_token_id": [None, 3, 127, [1, 2]], "eos_token_id": [None, 3, [2, 5]], "pad_token_id": [None, 3, 127, -1],
    "pretraining_tp": [1, 2], "swiglu_limit": [None, 2.0, 7], "num_ln_in_parallel_attn": [None, 1, 2], "word_embed_proj_dim": [None, 64],
    "torch_dtype": [None, "bfloat16", "float16", "auto", "float32"], "dtype": [None, "bfloat16"], "expansion_ratio": [4, 2],
    "architectures": [None, [], ["AnotherModel"]], "attention_types": [[[["global", "local"], 2]], [[["global"], 4]], [[["local"], 1], [["global"], 3]]],
    "attention_layers": [["global"] * 4, ["local"] * 4, ["local", "global"]], "num_local_experts": [4, 3], "num_experts": [4, 3],
    "attention_chunk_size": [None, 8], "output_attentions": [True], "use_cache": [True, False], "is_causal": [True, False],
    "rope_interleaved": [True, False], "is_decoder": [True, False], "is_encoder_decoder": [False], "return_dict": [True, False],
    "num_labels": [2], "id2label": [{"0": "a", "1": "b"}], "_attn_implementation": ["sdpa"], "cross_attention_hidden_size": [None, 64],
    "add_cross_attention": [False], "tie_word_embeddings": [True, False, None], "head_bias": [True],
}


def factors(r, head_dim):
    return [round(r.uniform(1, 8), 3) for _ in range(head_dim // 2)]


def rope(r, config):
    """Rotary parameters of a random type, complete or with a part left out; sometimes of each type of layers."""
    if r.random() < 0.1:
        return r.choice([None, {}])
    dim = config.get("head_dim") or 16
    share = config.get("partial_rotary_factor") or 1
    kind = r.choice(["default", "linear", "dynamic", "yarn", "llama3", "longrope", "longrope", "mrope", "unheard"])
    out = {"rope_type": kind}
    if kind in ("linear", "dynamic", "yarn", "llama3"):
        out["factor"] = r.choice([2, 2.0, 4.0, 8, 1.0, 0.5])
    if kind in ("yarn", "llama3", "longrope") and r.random() < 0.7:
        out["original_max_position_embeddings"] = r.choice([8, 16, 32])
    if kind == "llama3":
        out.update(low_freq_factor=r.choice([1, 1.0]), high_freq_factor=r.choice([4, 4.0, 2.0]))
    if kind == "longrope":
        out.update(short_factor=factors(r, int(dim * share)), long_factor=factors(r, int(dim * share)))
    if kind in ("yarn", "longrope"):
        for key, values in (("factor", [None, 3.0]), ("attention_factor", [None, 1.3, 0.7]), ("beta_fast", [16, 32.0]), ("beta_slow", [1, 2.0]),
                            ("mscale", [1.0, 0.7]), ("mscale_all_dim", [1.0, 0.5]), ("truncate", [True, False])):
            if r.random() < 0.3:
                out[key] = r.choice(values)
    if r.random() < 0.4:
        out["rope_theta"] = r.choice([100, 500.0, 1e6])
    if r.random() < 0.15:
        out["partial_rotary_factor"] = r.choice([0.25, 0.5, 1.0])
    if r.random() < 0.4:
        out["type"] = out["rope_type"] if r.random() < 0.8 else "linear"
        if r.random() < 0.7:
            del out["rope_type"]
    if r.random() < 0.1 and len(out) > 1:
        del out[r.choice(list(out))]
    if r.random() < 0.2:
        return {t: out if r.random() < 0.7 else {"rope_type": "default", "rope_theta": 100.0} for t in LAYER_TYPES[:r.randint(1, 2)]}
    return out


def other_value(r, key, value, config):
    if key in ACTIVATION_KEYS:
        return r.choice(sorted(set(ACT2FN) - {"xielu"}) + ["gelu_unheard_of"])
    if key in ROPE_KEYS:
        return rope(r, config)
    if key == "layer_types":
        return r.choice([None, [], [r.choice(LAYER_TYPES) for _ in range(r.choice([3, 4, 4, 4, 4, 6]))]])
    if key in VALUES:
        return r.choice(VALUES[key])
    if isinstance(value, bool):
        return r.choice([not value, not value, not value, None, int(not value)])
    if isinstance(value, int) and not key.endswith("_id"):
        return r.choice([float(value), value, None])
    if isinstance(value, float):
        return r.choice([value / 2, value * 2, int(value) or 1, None])
    return None


def change(r, config, families):
    """Changes one thing in the config; a word on what it was."""
    kind = config.get("model_type", "")
    family = families.get(real.OLDER.get(kind, (kind,))[0], {"defaults": {}, "read": [], "aliases": {}})
    keys = [k for k in config if k not in SIZES]
    sorts = ["drop", "default", "value", "value", "value", "read", "read", "rename", "rope", "rope", "foreign", "attention", "null"]
    # An older name has code of its own, which reads none of today's other keys.
    sort = r.choice(sorts if kind not in real.OLDER else ["drop", "value", "null"])
    if sort == "drop" and keys:
        key = r.choice(keys)
        del config[key]
    elif sort == "default":
        key = r.choice(sorted(set(family["defaults"]) - SIZES) or ["use_cache"])
        config[key] = family["defaults"].get(key)
        if key in real.WIDTHS:
            config[key] = 96
    elif sort == "value" and keys:
        key = r.choice(keys)
        config[key] = other_value(r, key, config[key], config)
    elif sort == "read":
        key = r.choice(sorted((set(family["read"]) | set(family["defaults"])) - SIZES) or ["use_cache"])
        config[key] = other_value(r, key, config.get(key, family["defaults"].get(key)), config)
    elif sort == "rename":
        names = {**family["aliases"], **{v: k for k, v in family["aliases"].items()}, "rope_scaling": "rope_parameters",
                 "rope_parameters": "rope_scaling", "num_local_experts": "num_experts", "hidden_act": "hidden_activation",
                 "hidden_activation": "hidden_act", "torch_dtype": "dtype", "rope_theta": "rotary_emb_base", "rotary_pct": "partial_rotary_factor"}
        key = r.choice(sorted(set(names) & set(config)) or [""])
        if key in config:
            config[names[key]] = config.pop(key) if r.random() < 0.7 else config[key]
            key += " to " + names[key]
    elif sort == "rope":
        key = r.choice(ROPE_KEYS)
        config[key] = rope(r, config)
        if r.random() < 0.3:
            config["rope_theta"] = r.choice([100, 500.0])
        if r.random() < 0.2:
            config["original_max_position_embeddings"] = r.choice([8, 16])
    elif sort == "foreign":
        key = r.choice(sorted(set(VALUES) - SIZES))
        config[key] = r.choice(VALUES[key])
    elif sort == "attention" and isinstance(config.get("attn_config"), dict):
        key = r.choice(["alibi", "clip_qkv", "softmax_scale", "qk_ln", "alibi_bias_max", "attn_type", "prefix_lm", "attn_impl", "attn_uses_sequence_id"])
        config["attn_config"][key] = {"alibi": flip(r), "clip_qkv": r.choice([None, 0.5, 6, 1e-3]), "softmax_scale": r.choice([None, 0.2, 1]),
                                      "qk_ln": flip(r), "alibi_bias_max": r.choice([8, 16]), "attn_type": r.choice(["multihead_attention", "multiquery_attention"]),
                                      "prefix_lm": flip(r), "attn_impl": "triton", "attn_uses_sequence_id": flip(r)}[key]
        key = "attn_config." + key
    else:
        key = r.choice(keys)
        config[key] = None
    return f"{sort} {key}"


def flip(r):
    return r.random() < 0.5


def reference_model(config, folder):
    """transformers' model of the config, by way of its file; an older name by way of today's."""
    kind = config.get("model_type")
    if kind in real.OLDER:
        read = real.reference_config(config)
    else:
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "auto_map"}))
        read = transformers.AutoConfig.from_pretrained(folder)
    auto = transformers.AutoModelForImageTextToText if kind in real.WRAPPERS else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(read).parameters())
    if size > 3_000_000:
        raise ValueError(f"{size} parameters are too many for this check")
    return auto.from_config(read, attn_implementation="eager", dtype=torch.float32).float().eval()


def check(mxlm, config, folder, r):
    """(verdict, words)"""
    kind = config.get("model_type")
    ids = [[r.randrange(2, 127) for _ in range(real.TOKENS)]]
    try:
        model = reference_model(config, folder)
        with torch.no_grad():
            for key, p in model.named_parameters():
                noise = torch.randn(p.shape) * 0.2
                p.copy_(noise if p.dim() > 1 or key.endswith("bias") else p + noise)
            want = model(input_ids=torch.tensor(ids), use_cache=False, return_dict=True).logits
        model.save_pretrained(folder)
    except Exception as error:
        return "transformers refuses", f"{type(error).__name__}: {str(error)[:200]}"
    if not want.isfinite().all():
        return "transformers gives no finite logits", ""
    if kind in real.OLDER:
        tensors = real.older_tensors(kind, load_file(folder / "model.safetensors"))
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    out = folder / "out.safetensors"
    ran = real.run(mxlm, folder, ids, out)
    said = ran.stderr.strip().splitlines()[-1] if ran.stderr.strip() else ""
    if ran.returncode != 0:
        return ("refused" if ran.returncode == 1 and said else "DIFFERENT"), said
    got = load_file(out)["logits"]
    far = ((got - want).abs().max() / want.abs().max()).item()
    if real.TOLERANCE <= far < 100 * real.TOLERANCE:
        # Some changes make a model that multiplies rounding errors; float64 says how far off float32 may be.
        with torch.no_grad():
            exact = model.double()(input_ids=torch.tensor(ids), use_cache=False, return_dict=True).logits
        ours, theirs = ((x - exact).abs().max().item() for x in (got, want))
        if ours < 3 * theirs:
            return "equal to its rounding", ""
        return "DIFFERENT", f"from float64 {ours:.1e}, transformers {theirs:.1e}"
    return ("equal" if far < real.TOLERANCE else "DIFFERENT"), f"{far:.1e} of the largest logit {want.abs().max():.3g}"


def bases(folder, known):
    """name -> small config, of each model that mxlm knows."""
    out = {}
    for path in sorted(folder.glob("*/config.json")) + sorted((DATA / "families").glob("*/config.json")):
        config = json.loads(path.read_text())
        kind = config.get("model_type", "")
        config.pop("quantization_config", None)
        if kind in real.WRAPPERS:
            config = {**config, "text_config": real.shrunk(config["text_config"]), "vision_config": VISION[kind]}
        elif real.OLDER.get(kind, (kind,))[0] in known:
            config = real.shrunk(config)
        else:
            continue
        out[path.parent.name] = config
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mxlm", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first change")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[], help="names of folders")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    transformers.utils.logging.disable_progress_bar()
    families = json.loads((DATA / "model/config_keys.json").read_text())["families"]
    configs = {n: c for n, c in bases(arguments.folder, families).items() if not arguments.only or n in arguments.only}
    counts, reasons = collections.Counter(), collections.Counter()
    for i in range(arguments.first, arguments.first + arguments.count):
        r = random.Random(f"{arguments.seed} {i}")
        torch.manual_seed(i)
        name = r.choice(list(configs))
        config = copy.deepcopy(configs[name])
        words = []
        for _ in range(r.choice([1, 1, 2, 3])):
            text = config.get("text_config")
            words.append(change(r, text if text and r.random() < 0.8 else config, families))
        with tempfile.TemporaryDirectory() as folder:
            verdict, said = check(arguments.mxlm.resolve(), config, Path(folder), r)
            said = said.replace(folder, "")
        counts[verdict] += 1
        if verdict == "refused":
            reasons[re.sub(r"[0-9]+", "N", said)[:200]] += 1
        if verdict == "DIFFERENT":
            print(f"{i} {name} ({', '.join(words)}): {said[:300]}", flush=True)
            if arguments.keep:
                (arguments.keep / f"{arguments.seed}-{i}-{name}.json").write_text(json.dumps(config, indent=1))
    for words, n in reasons.most_common():
        print(f"refused {n}: {words}")
    print(dict(counts))
    return 1 if counts["DIFFERENT"] else 0


if __name__ == "__main__":
    sys.exit(main())
