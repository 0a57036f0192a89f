"""Folders as they lie on real disks: which tensors are the model, ties, adapters, text parts of multimodal models.

    python tools/checks/check_real_folders.py MXLM

makes tiny checkpoints with random weights, and compares mxlm's logits in float32 with transformers' of the same folder
(AutoModelForCausalLM, or the wrapper's own class), or with peft's merge_and_unload. A case whose folder transformers
does not read has to be refused with the words given. Written for transformers 5.23 and peft 0.21; prints a line a case
and exits 1 if one is wrong.
"""

import json
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", HF_HUB_DISABLE_PROGRESS_BARS="1")
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText  # noqa: E402

torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()
MXLM = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
WORK = Path(tempfile.mkdtemp(prefix="mxlm-folders-"))
SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=128, max_position_embeddings=256)
IDS = [random.Random(7).choices(range(2, 128), k=24)]
wrong, cases = [], 0


def randomise(made, seed=3):
    torch.manual_seed(seed)
    with torch.no_grad():
        for key, p in made.named_parameters():
            noise = torch.randn(p.shape) * 0.2
            p.copy_(noise if p.dim() > 1 or key.endswith("bias") else p + noise)
    return made.eval()


def model(config, name, cls=None, **save):
    """A folder with a model of random weights, and the model."""
    made = cls(config) if cls else AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(made)
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    made.save_pretrained(folder, **save)
    return folder, made


def tensors(folder):
    return load_file(folder / "model.safetensors")


def set_tensors(folder, values, name="model.safetensors"):
    save_file({k: v.contiguous().clone() for k, v in values.items()}, folder / name, metadata={"format": "pt"})


def set_config(folder, drop=(), **values):
    path = folder / "config.json"
    config = {k: v for k, v in json.loads(path.read_text()).items() if k not in drop}
    path.write_text(json.dumps({**config, **values}))


def logits(made):
    with torch.no_grad():
        return made(input_ids=torch.tensor(IDS), use_cache=False).logits.float()


def reference(folder, auto=AutoModelForCausalLM):
    made = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return logits(made)


def ours(folder, *more):
    ids, out = WORK / "ids.json", WORK / "logits.safetensors"
    ids.write_text(json.dumps(IDS))
    out.unlink(missing_ok=True)
    run = subprocess.run([MXLM, "logits", str(folder), "--tokens", str(ids), "-o", str(out), "--dtype", "float32",
                          "--threads", "1", *map(str, more)], capture_output=True, text=True, timeout=300)
    return (load_file(out)["logits"] if run.returncode == 0 else None), run.stderr.strip()


def verdict(what, ok, note):
    global cases
    cases += 1
    print(f"{'right' if ok else 'WRONG'}: {what}: {note}", flush=True)
    if not ok:
        wrong.append(what)


def same(what, folder, want, *more, told=None, bound=2e-5):
    got, said = ours(folder, *more)
    if got is None:
        return verdict(what, False, f"refused: {said.splitlines()[-1]}")
    far = ((got - want).abs().max() / want.abs().max()).item()
    ok = far < bound and (told is None or told in said)
    verdict(what, ok, f"{far:.1e} of the largest logit" + ("" if told is None or told in said else f", said {said!r}"))


def refused(what, folder, words, *more):
    got, said = ours(folder, *more)
    last = said.splitlines()[-1] if said else ""
    verdict(what, got is None and all(w in last for w in words), last.replace(str(WORK), ""))


def prefixes():
    from transformers import GPT2Config, GPTNeoXConfig, LlamaConfig, MptConfig, OPTConfig
    configs = {
        "llama": LlamaConfig(**SIZES, tie_word_embeddings=True),
        "gpt_neox": GPTNeoXConfig(**{k: v for k, v in SIZES.items() if k != "num_key_value_heads"}),
        "gpt2": GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=128, n_positions=64),
        "mpt": MptConfig(d_model=64, n_layers=2, n_heads=4, vocab_size=128, max_seq_len=64),
        "opt": OPTConfig(hidden_size=64, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=128,
                         max_position_embeddings=64, word_embed_proj_dim=64, pad_token_id=1),
    }
    for name, config in configs.items():
        folder, made = model(config, name)
        plain, prefix = tensors(folder), made.base_model_prefix + "."
        for what, rename in {
            "missing": lambda k: k.removeprefix(prefix),
            "doubled": lambda k: prefix + k if k.startswith(prefix) or name != "gpt_neox" else k,
        }.items():
            set_tensors(folder, {rename(k): v for k, v in plain.items()})
            same(f"prefix {what}, {name}", folder, reference(folder))
    folder, _ = model(configs["llama"], "both")
    plain = tensors(folder)
    both = {k.removeprefix("model."): v * 0.5 for k, v in plain.items() if k.endswith("q_proj.weight")}
    set_tensors(folder, {**plain, **both})
    same("a tensor with and without its prefix", folder, reference(folder))
    for prefix in ("module.", "base_model.model."):
        set_tensors(folder, {prefix + k: v for k, v in plain.items()})
        refused(f"names behind {prefix}", folder, [prefix, "which transformers does not know"])


def ties():
    from transformers import GPT2Config, LlamaConfig
    folder, _ = model(LlamaConfig(**SIZES, tie_word_embeddings=True), "tied")
    plain = tensors(folder)
    embedding = plain["model.embed_tokens.weight"]
    set_tensors(folder, {**plain, "lm_head.weight": embedding})
    same("tied, both tensors equal", folder, reference(folder))
    set_tensors(folder, {**plain, "lm_head.weight": embedding * 0.5 + 0.1})
    same("tied, both tensors there and different", folder, reference(folder), told="not tied")
    set_tensors(folder, {"lm_head.weight" if "embed" in k else k: v for k, v in plain.items()})
    same("tied, the head alone", folder, reference(folder))
    set_tensors(folder, plain)
    set_config(folder, tie_word_embeddings=False)
    refused("not tied and no head", folder, ["no head", "tie_word_embeddings"])
    set_tensors(folder, {"lm_head.weight" if "embed" in k else k: v for k, v in plain.items()})
    refused("not tied and no embedding", folder, ["no embedding"])
    folder, _ = model(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=128, n_positions=64), "gpt2-untied")
    plain = tensors(folder)
    set_tensors(folder, {**plain, "lm_head.weight": torch.randn(128, 64)})
    same("gpt2 with a head of its own", folder, reference(folder), told="not tied")
    torch.save({**plain, "lm_head.weight": plain["transformer.wte.weight"]}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    same("gpt2 as .bin, one storage for both", folder, reference(folder))


def experts():
    from transformers import GptOssConfig, MixtralConfig, Qwen3MoeConfig
    for config in (
        Qwen3MoeConfig(**SIZES, moe_intermediate_size=32, num_experts=4, num_experts_per_tok=2, head_dim=16),
        MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
        GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, head_dim=16),
    ):
        for original in (True, False):
            folder, made = model(config, "experts", save_original_format=original)
            same(f"{config.model_type}, save_original_format={original}", folder, logits(made))
    folder, made = model(MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2), "experts",
                         save_original_format=False)
    set_tensors(folder, {k.replace(".mlp.", ".block_sparse_moe."): v for k, v in tensors(folder).items()})
    same("mixtral, fused experts under block_sparse_moe", folder, reference(folder))


def files():
    from transformers import LlamaConfig
    folder, made = model(LlamaConfig(**SIZES), "files")
    want, plain = logits(made), tensors(folder)
    half = {k: v * 0.5 for k, v in plain.items()}
    torch.save(half, folder / "pytorch_model.bin")
    set_tensors(folder, half, "consolidated.safetensors")
    set_tensors(folder, half, "model.fp16.safetensors")
    same("other files beside model.safetensors", folder, reference(folder))
    names = sorted(plain)
    (folder / "model.safetensors").unlink()
    (folder / "deep").mkdir()
    for shard, part in (("deep/a.safetensors", names[::2]), ("b.safetensors", names[1::2])):
        set_tensors(folder, {k: plain[k] for k in part}, shard)
    index = {"metadata": {"total_size": 10**30}, "weight_map": {k: "./deep/a.safetensors" for k in names}}
    index["weight_map"][names[1]] = "b.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    same("shards in a folder below, unlisted, total_size 10^30", folder, reference(folder))
    set_tensors(folder, {**{k: plain[k] for k in names[::2]}, names[1]: plain[names[1]] * 3}, "deep/a.safetensors")
    same("one tensor in two shards", folder, reference(folder), told="in two shards")
    for shard in ("../files/b.safetensors", str(folder / "b.safetensors")):
        index["weight_map"][names[1]] = shard
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        refused(f"a shard named {shard[:4]}...", folder, ["not a file in its folder"])
    assert want is not None


def wrappers():
    from transformers import (Gemma3Config, Gemma3ForConditionalGeneration, LlavaConfig, LlavaForConditionalGeneration,
                              LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaOnevisionConfig,
                              LlavaOnevisionForConditionalGeneration, Mistral3Config, Mistral3ForConditionalGeneration,
                              Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLConfig,
                              Qwen2VLForConditionalGeneration, Qwen3VLConfig, Qwen3VLForConditionalGeneration,
                              VipLlavaConfig, VipLlavaForConditionalGeneration)
    clip = dict(model_type="clip_vision_model", hidden_size=16, intermediate_size=16, num_hidden_layers=2,
                num_attention_heads=2, image_size=28, patch_size=14, projection_dim=16, vocab_size=32)
    siglip = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                  patch_size=14)
    pixtral = dict(model_type="pixtral", hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                   num_attention_heads=2, image_size=28, patch_size=14, head_dim=8)
    qwen_vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=64,
                       fullatt_block_indexes=[0])
    mrope = dict(type="mrope", mrope_section=[2, 3, 3])
    text = dict(SIZES)
    made = {
        "gemma3": (Gemma3ForConditionalGeneration, Gemma3Config(
            text_config=dict(text, head_dim=16, sliding_window=8, num_hidden_layers=6, final_logit_softcapping=5.0,
                             rope_scaling=dict(factor=8.0, rope_type="linear")),
            vision_config=siglip, mm_tokens_per_image=4, image_token_index=127)),
        "mistral3": (Mistral3ForConditionalGeneration, Mistral3Config(
            text_config=dict(text, model_type="mistral", head_dim=16, sliding_window=None), vision_config=pixtral)),
        "mistral3, untied": (Mistral3ForConditionalGeneration, Mistral3Config(
            text_config=dict(text, model_type="mistral", head_dim=16, sliding_window=None), vision_config=pixtral,
            tie_word_embeddings=False)),
        "llava": (LlavaForConditionalGeneration, LlavaConfig(
            text_config=dict(text, model_type="llama"), vision_config=clip, image_token_index=127)),
        "llava, tied text": (LlavaForConditionalGeneration, LlavaConfig(
            text_config=dict(text, model_type="llama", tie_word_embeddings=True), vision_config=clip,
            image_token_index=127)),
        "llava_next, mistral": (LlavaNextForConditionalGeneration, LlavaNextConfig(
            text_config=dict(text, model_type="mistral"), vision_config=clip, image_token_index=127)),
        "llava_onevision": (LlavaOnevisionForConditionalGeneration, LlavaOnevisionConfig(
            text_config=dict(text, model_type="qwen2"), vision_config=dict(siglip, model_type="siglip_vision_model"),
            image_token_index=126, video_token_index=127)),
        "vipllava": (VipLlavaForConditionalGeneration, VipLlavaConfig(
            text_config=dict(text, model_type="llama"), vision_config=clip, image_token_index=127,
            vision_feature_layers=[-1])),
        "qwen2_vl": (Qwen2VLForConditionalGeneration, Qwen2VLConfig(
            text_config=dict(text, rope_scaling=mrope), vision_config=dict(depth=1, embed_dim=16, hidden_size=64,
                                                                           num_heads=2, mlp_ratio=1))),
        "qwen2_5_vl": (Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig(
            text_config=dict(text, rope_scaling=mrope, use_sliding_window=True, sliding_window=8,
                             max_window_layers=1), vision_config=qwen_vision)),
        "qwen3_vl": (Qwen3VLForConditionalGeneration, Qwen3VLConfig(
            text_config=dict(text, head_dim=16, rope_scaling=dict(rope_type="default", mrope_section=[2, 3, 3],
                                                                  mrope_interleaved=True)),
            vision_config=dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=64,
                               num_position_embeddings=16, deepstack_visual_indexes=[0]),
            tie_word_embeddings=True)),
    }
    auto = AutoModelForImageTextToText
    for what, (cls, config) in made.items():
        if what == "gemma3":
            config.text_config.final_logit_softcapping = 5.0
        folder, built = model(config, "wrapper", cls=cls)
        want = reference(folder, auto)
        assert ((logits(built) - want).abs().max() / want.abs().max()).item() < 1e-5, what
        same(f"{what} as transformers 5.23 saves it", folder, want)
        plain = tensors(folder)
        text_only = [k for k in plain if "language_model." in k]
        print("   names:", *(text_only or list(plain))[:1])
        new = {}
        for k, v in plain.items():
            bare = k
            for part in ("model.language_model.model.", "language_model.model.", "model.language_model."):
                if k.startswith(part):
                    bare = "@" + k[len(part):]
                    break
            if k.startswith("model.") and what.startswith("qwen2") and not k.startswith("model.visual") and bare == k:
                bare = "@" + k.removeprefix("model.")
            if k in ("lm_head.weight", "language_model.lm_head.weight"):
                bare = "#weight"
            new[bare] = v
        layouts = {"new layout": ("model.language_model.", "lm_head."),
                   "5.10's doubled layout": ("model.language_model.model.", "lm_head.")}
        if not what.startswith("qwen"):
            layouts["old layout"] = ("language_model.model.", "language_model.lm_head.")
        if what.startswith("qwen2"):
            layouts["old layout"] = ("model.", "lm_head.")
        for layout, (body, head) in layouts.items():
            set_tensors(folder, {k.replace("@", body).replace("#", head): v for k, v in new.items()})
            same(f"{what}, {layout}", folder, reference(folder, auto))
        if what.startswith("qwen2"):
            config = json.loads((folder / "config.json").read_text())
            inner = config.pop("text_config")
            inner.pop("model_type")
            (folder / "config.json").write_text(json.dumps({**inner, **config}))
            same(f"{what}, flat config.json", folder, reference(folder, auto))


def adapters():
    import peft
    from transformers import FalconConfig, GPT2Config, LlamaConfig

    def adapter(what, base, folder, told=None, suffix="safetensors", **config):
        lora = peft.LoraConfig(r=4, lora_alpha=6, task_type="CAUSAL_LM", init_lora_weights=False, **config)
        base_model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
        wrapped = peft.get_peft_model(base_model, lora)
        torch.manual_seed(5)
        with torch.no_grad():
            for key, p in wrapped.named_parameters():
                if p.requires_grad:
                    p.copy_(p + torch.randn(p.shape) * 0.1)
        shutil.rmtree(folder, ignore_errors=True)
        wrapped.save_pretrained(folder, safe_serialization=suffix == "safetensors")
        fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
        merged = peft.PeftModel.from_pretrained(fresh, folder).merge_and_unload().eval().float()
        same(f"adapter: {what}", base, logits(merged), "--adapter", folder, told=told, bound=5e-6)

    base, _ = model(LlamaConfig(**SIZES), "base")
    lora = WORK / "lora"
    adapter("q and v", base, lora, target_modules=["q_proj", "v_proj"])
    adapter(".bin", base, lora, target_modules=["q_proj"], suffix="bin")
    adapter("all linears, rslora", base, lora, target_modules="all-linear", use_rslora=True)
    adapter("rank_pattern and alpha_pattern", base, lora, target_modules=["q_proj", "down_proj"],
            rank_pattern={"layers.1.self_attn.q_proj": 2, "down_proj": 3}, alpha_pattern={"q_proj": 11})
    adapter("layers_to_transform", base, lora, target_modules=["o_proj"], layers_to_transform=[1])
    adapter("head and embedding", base, lora, target_modules=["lm_head", "embed_tokens"])
    adapter("modules_to_save", base, lora, target_modules=["q_proj"], modules_to_save=["lm_head", "embed_tokens"])
    adapter("norms in modules_to_save", base, lora, target_modules=["q_proj"], modules_to_save=["input_layernorm"])
    biased, _ = model(LlamaConfig(**SIZES, attention_bias=True), "biased")
    adapter("bias all", biased, lora, target_modules=["q_proj"], bias="all")
    adapter("bias lora_only", biased, lora, target_modules=["q_proj"], bias="lora_only")
    tied, _ = model(LlamaConfig(**SIZES, tie_word_embeddings=True), "tied-base")
    adapter("embedding of a tied pair", tied, lora, target_modules=["embed_tokens"])
    adapter("head of a tied pair", tied, lora, target_modules=["lm_head"])
    gpt2, _ = model(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=128, n_positions=64), "gpt2-base")
    adapter("gpt2's Conv1D", gpt2, lora, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    falcon, _ = model(FalconConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=128,
                                   num_kv_heads=2, new_decoder_architecture=True), "falcon-base")
    adapter("falcon's grouped projection", falcon, lora, target_modules=["query_key_value"])
    half, made = model(LlamaConfig(**SIZES), "half-base")
    made.to(torch.bfloat16).save_pretrained(half)
    adapter("of a bfloat16 base", half, lora, target_modules="all-linear")

    def config_says(words, **values):
        adapter_folder = WORK / "lora-bad"
        shutil.rmtree(adapter_folder, ignore_errors=True)
        peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base),
                            peft.LoraConfig(r=4, target_modules=["q_proj"])).save_pretrained(adapter_folder)
        path = adapter_folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        refused(f"adapter with {values}", base, words, "--adapter", adapter_folder)

    config_says(["use_dora"], use_dora=True)
    config_says(["PROMPT_TUNING"], peft_type="PROMPT_TUNING")
    config_says(["pissa"], init_lora_weights="pissa")
    config_says(["does not fit"], r=8)
    refused("adapter of another model", gpt2, ["which the model does not have"], "--adapter", WORK / "lora-bad")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(WORK / "lora-bad" / name, base / name)
    same("adapter beside its base, not asked for", base, reference_without_adapter(base), told="--adapter")
    refused("adapter alone", WORK / "lora-bad", ["LoRA adapter", "--adapter"])


def reference_without_adapter(folder):
    copy = WORK / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("adapter_*"))
    return reference(copy)


def heads():
    from transformers import (LlamaConfig, LlamaForQuestionAnswering, LlamaForSequenceClassification,
                              LlamaForTokenClassification)
    for cls in (LlamaForSequenceClassification, LlamaForTokenClassification, LlamaForQuestionAnswering):
        folder, _ = model(LlamaConfig(**SIZES, num_labels=2), "head", cls=cls)
        refused(cls.__name__, folder, ["has a head for classification or another task"])
    folder, _ = model(LlamaConfig(**SIZES, num_labels=2, tie_word_embeddings=True), "head",
                      cls=LlamaForSequenceClassification)
    same("a tied classifier", folder, reference(folder), told="not for tokens")


if __name__ == "__main__":
    for part in (prefixes, ties, experts, files, wrappers, adapters, heads):
        print(f"-- {part.__name__}")
        try:
            part()
        except Exception as error:  # a part that fails must not hide the others
            verdict(part.__name__, False, repr(error)[:500])
    shutil.rmtree(WORK, ignore_errors=True)
    print(f"{cases - len(wrong)} of {cases} right")
    sys.exit(1 if wrong else 0)
