"""Tiny random models of every family: config.json as the hub has it, weights in the hub's layout, and what they are.

Shared by make_family_goldens.py and check_families.py. A case is (config.json, options):
  _dtype    of the weights on disk (bfloat16)
  _windows  lengths of the windows of tokens
  _matters  edits of config.json of which each has to change the logits (Ellipsis leaves a key out), as a proof that the
            figures see the detail
  _layout   how the tensors lie on disk, where one family has several
  _bin      write pytorch_model.bin instead of model.safetensors
  _product  (Linear or stack of experts, expert, module on disk) whose MX product is kept too
"""
import contextlib
import copy
import json
import math
import re
import warnings

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

BF16, F16, F32 = torch.bfloat16, torch.float16, torch.float32
DTYPE_NAMES = {BF16: "bfloat16", F16: "float16", F32: "float32"}


def llama_like(model_type, architecture, **keys):
    return {"architectures": [architecture], "model_type": model_type, "hidden_act": "silu", "hidden_size": 40,
            "intermediate_size": 52, "num_hidden_layers": 2, "num_attention_heads": 5, "num_key_value_heads": 1,
            "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 500.0, "tie_word_embeddings": False,
            "vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None, **keys}


def qwen2(**keys):
    return llama_like("qwen2", "Qwen2ForCausalLM", **{
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1000.0,
        "use_sliding_window": False, "sliding_window": 8, "max_window_layers": 2, **keys})


def phi(**keys):
    return {"architectures": ["PhiForCausalLM"], "model_type": "phi", "hidden_act": "gelu_new", "hidden_size": 48,
            "intermediate_size": 76, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": None,
            "layer_norm_eps": 1e-5, "max_position_embeddings": 128, "partial_rotary_factor": 0.5,
            "qk_layernorm": False, "rope_scaling": None, "rope_theta": 300.0, "tie_word_embeddings": False,
            "vocab_size": 101, **keys}


def phi3(**keys):
    return llama_like("phi3", "Phi3ForCausalLM", **{
        "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 48, "original_max_position_embeddings": 128,
        "rope_scaling": None, "sliding_window": None, "attention_bias": False, "pad_token_id": 2, **keys})


def gpt_neo(**keys):
    return {"architectures": ["GPTNeoForCausalLM"], "model_type": "gpt_neo", "activation_function": "gelu_new",
            "attention_types": [[["global", "local"], 1]], "hidden_size": 36, "intermediate_size": None,
            "layer_norm_epsilon": 1e-5, "max_position_embeddings": 48, "num_heads": 3, "num_layers": 2,
            "vocab_size": 101, "window_size": 7, "bos_token_id": 2, "eos_token_id": 2, **keys}


def gpt2(**keys):
    return {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5, "n_embd": 40, "n_head": 5, "n_layer": 2, "n_positions": 48, "n_ctx": 48,
            "vocab_size": 103, "bos_token_id": 2, "eos_token_id": 2, **keys}


def mpt(attention, **keys):
    return {"architectures": ["MPTForCausalLM"], "model_type": "mpt",
            "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "attn_pdrop": 0,
                            "attn_type": "multihead_attention", "clip_qkv": None, "qk_ln": False,
                            "softmax_scale": None, **attention},
            "d_model": 36, "emb_pdrop": 0, "expansion_ratio": 4, "learned_pos_emb": True, "logit_scale": None,
            "max_seq_len": 64, "n_heads": 6, "n_layers": 2, "no_bias": True, "norm_type": "low_precision_layernorm",
            "vocab_size": 97, **keys}


def gpt_neox(**keys):
    return {"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "bos_token_id": 0, "eos_token_id": 0,
            "hidden_act": "gelu", "hidden_size": 48, "intermediate_size": 76, "layer_norm_eps": 1e-5,
            "max_position_embeddings": 64, "num_attention_heads": 3, "num_hidden_layers": 2, "rotary_emb_base": 100,
            "rotary_pct": 0.25, "tie_word_embeddings": False, "use_parallel_residual": True, "vocab_size": 103, **keys}


def qwen3(model_type="qwen3", architecture="Qwen3ForCausalLM", **keys):
    return llama_like(model_type, architecture, **{
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "rms_norm_eps": 1e-6, "rope_theta": 1000.0,
        "attention_bias": False, "rope_scaling": None, "use_sliding_window": False, "sliding_window": None,
        "max_window_layers": 2, **keys})


def qwen3_moe(**keys):
    return qwen3("qwen3_moe", "Qwen3MoeForCausalLM", **{
        "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 36, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "norm_topk_prob": True, "output_router_logits": False, "hidden_size": 36, **keys})


def gemma(model_type, architecture, **keys):
    return {"architectures": [architecture], "model_type": model_type, "attention_bias": False,
            "attention_dropout": 0.0, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "head_dim": 12,
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 40, "intermediate_size": 52,
            "max_position_embeddings": 128, "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 2,
            "query_pre_attn_scalar": 20, "rms_norm_eps": 1e-6, "rope_theta": 100.0, "sliding_window": 9,
            "vocab_size": 107, **keys}


def gemma2(**keys):
    return gemma("gemma2", "Gemma2ForCausalLM", **{"hidden_act": "gelu_pytorch_tanh", "attn_logit_softcapping": 4.0,
                 "final_logit_softcapping": 6.0, "cache_implementation": "hybrid", **keys})


def gpt_oss(**keys):
    return {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "attention_bias": True,
            "attention_dropout": 0.0, "eos_token_id": 2, "experts_per_token": 2, "head_dim": 16, "hidden_act": "silu",
            "hidden_size": 40, "initial_context_length": 32, "intermediate_size": 36, "layer_types": [
                "sliding_attention", "full_attention"], "max_position_embeddings": 128, "num_attention_heads": 3,
            "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 1, "num_local_experts": 4,
            "output_router_logits": False, "pad_token_id": 1, "rms_norm_eps": 1e-5, "rope_scaling": {
                "beta_fast": 32.0, "beta_slow": 1.0, "factor": 4.0, "original_max_position_embeddings": 32,
                "rope_type": "yarn", "truncate": False}, "rope_theta": 150, "router_aux_loss_coef": 0.9,
            "sliding_window": 10, "swiglu_limit": 7.0, "tie_word_embeddings": False, "vocab_size": 101, **keys}


def falcon(**keys):
    return {"architectures": ["FalconForCausalLM"], "model_type": "falcon", "alibi": False, "bias": False,
            "bos_token_id": 11, "eos_token_id": 11, "hidden_size": 36, "layer_norm_epsilon": 1e-5, "multi_query": True,
            "new_decoder_architecture": False, "num_attention_heads": 3, "num_hidden_layers": 2, "parallel_attn": True,
            "vocab_size": 97, **keys}


def stablelm(**keys):
    return llama_like("stablelm", "StableLmForCausalLM", **{
        "num_attention_heads": 3, "num_key_value_heads": 3, "hidden_size": 48, "layer_norm_eps": 1e-5,
        "partial_rotary_factor": 0.25, "use_qkv_bias": True, "rope_theta": 100, **keys})


# name -> (config.json, options). Only keys that real files hold; left out keys test the family's defaults.
CASES = {
    "qwen2": (qwen2(), dict(_windows=[11, 40])),
    "qwen2_window": (qwen2(use_sliding_window=True, max_window_layers=1, num_hidden_layers=3, tie_word_embeddings=True),
                     dict(_windows=[7, 40], _matters=[{"sliding_window": 9}, {"max_window_layers": 2},
                                                      {"use_sliding_window": False}])),
    "mistral": (llama_like("mistral", "MistralForCausalLM", sliding_window=10, head_dim=12, num_attention_heads=4,
                           num_key_value_heads=2),
                dict(_windows=[10, 43], _matters=[{"sliding_window": None}, {"sliding_window": 11}])),
    "phi": (phi(), dict(_dtype=F16, _windows=[13, 40], _matters=[{"partial_rotary_factor": 0.25}])),
    "phi_qk_norm": (phi(qk_layernorm=True, partial_rotary_factor=Ellipsis, num_attention_heads=4, num_key_value_heads=2,
                        tie_word_embeddings=False, rope_theta=Ellipsis,
                        rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.7}),
                    dict(_windows=[13, 30])),
    "phi3": (phi3(sliding_window=9), dict(_windows=[9, 41], _matters=[{"sliding_window": None}])),
    "phi3_longrope": (phi3(max_position_embeddings=256, original_max_position_embeddings=32,
                           rope_scaling={"type": "longrope", "short_factor": [1.0, 1.05, 1.1, 1.2, 1.4, 1.6],
                                         "long_factor": [1.1, 1.5, 2.5, 4.0, 7.5, 9.0]}),
                      dict(_windows=[32, 33, 60], _matters=[{"max_position_embeddings": 512},
                                                            {"original_max_position_embeddings": 30}])),
    "phi3_partial": (phi3(max_position_embeddings=128, original_max_position_embeddings=24, partial_rotary_factor=0.6,
                          hidden_size=40, num_attention_heads=4, num_key_value_heads=4, tie_word_embeddings=True,
                          rope_scaling={"type": "su", "original_max_position_embeddings": 24,
                                        "short_factor": [1.0, 1.1, 1.25],
                                        "long_factor": [1.3, 2.5, 6.0]}),
                     dict(_windows=[20, 40])),
    "gpt_neo": (gpt_neo(), dict(_dtype=F32, _windows=[6, 40], _matters=[
        {"window_size": 8}, {"attention_types": [[["local", "global"], 1]]}])),
    "gpt_neo_types": (gpt_neo(attention_types=[[["global"], 1], [["local"], 2]], num_layers=3, intermediate_size=52,
                              activation_function="gelu_new", tie_word_embeddings=True),
                      dict(_windows=[5, 33], _layout="masked_bias",
                           _matters=[{"attention_types": [[["global"], 2], [["local"], 1]]}])),
    "gpt2": (gpt2(), dict(_dtype=F32, _windows=[9, 40], _layout="bare",
                          _product=("transformer.h.1.mlp.c_fc", None, "transformer.h.1.mlp.c_fc"))),
    "gpt2_scaled": (gpt2(scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False, n_inner=52, n_head=4,
                         n_layer=3),
                    dict(_windows=[9, 33], _matters=[{"scale_attn_by_inverse_layer_idx": False},
                                                     {"scale_attn_weights": True}])),
    "mixtral": (llama_like("mixtral", "MixtralForCausalLM", num_attention_heads=4, num_key_value_heads=2,
                           num_local_experts=5, num_experts_per_tok=2, intermediate_size=36, sliding_window=None,
                           rope_theta=1000.0, output_router_logits=False, router_aux_loss_coef=0.02),
                dict(_windows=[12, 40], _product=("model.layers.1.mlp.experts.gate_up_proj", 2,
                                                  "model.layers.1.block_sparse_moe.experts.2.w1"))),
    "llama": (llama_like("llama", "LlamaForCausalLM", attention_bias=True, mlp_bias=True, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=256, rope_theta=200.0,
                         rope_scaling={"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                       "original_max_position_embeddings": 32, "rope_type": "llama3"}),
              dict(_windows=[11, 50], _matters=[{"rope_scaling": None}])),
    "qwen2_yarn": (qwen2(rope_scaling={"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
                         max_position_embeddings=32, rope_theta=100.0, hidden_size=64),
                   dict(_windows=[20, 50], _matters=[{"rope_scaling": None}, {"rope_scaling": {
                       "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "truncate": False}}])),
    "mpt": (mpt({}), dict(_windows=[9, 40], _matters=[{"n_heads": 4}])),
    "mpt_clip": (mpt({"clip_qkv": 1.25, "softmax_scale": 0.5}, n_heads=5, d_model=40),
                 dict(_windows=[9, 33], _matters=[{"attn_config": {"clip_qkv": 1.25}},
                                                  {"attn_config": {"softmax_scale": 0.5}}])),
    "mpt_power_of_two": (mpt({}, n_heads=4), dict(_windows=[9, 33])),
    "gpt_neox": (gpt_neox(), dict(_dtype=F16, _windows=[9, 40], _layout="masked_bias", _matters=[
        {"rotary_pct": 0.5}, {"use_parallel_residual": False}])),
    "gpt_neox_sequential": (gpt_neox(use_parallel_residual=False, rotary_pct=1.0, hidden_size=40,
                                     num_attention_heads=5),
                            dict(_windows=[9, 33], _matters=[{"rotary_pct": 0.5}, {"rotary_emb_base": 10000}])),
    "qwen3": (qwen3(), dict(_windows=[9, 40], _matters=[{"rope_theta": 100.0}])),
    "qwen3_window": (qwen3(use_sliding_window=True, sliding_window=9, max_window_layers=1, attention_bias=True,
                           tie_word_embeddings=True),
                     dict(_windows=[9, 33], _matters=[{"sliding_window": 10}, {"max_window_layers": 0}])),
    "qwen3_moe": (qwen3_moe(), dict(_windows=[9, 40], _matters=[{"norm_topk_prob": False},
                                                                {"num_experts_per_tok": 3}])),
    "qwen3_moe_mixed": (qwen3_moe(norm_topk_prob=False, num_hidden_layers=4, mlp_only_layers=[3],
                                  decoder_sparse_step=2, num_experts=7, num_experts_per_tok=3, intermediate_size=44),
                        dict(_windows=[9, 33], _matters=[{"norm_topk_prob": True}])),
    "gemma": (gemma("gemma", "GemmaForCausalLM", hidden_act="gelu", hidden_activation=Ellipsis, num_hidden_layers=2,
                    query_pre_attn_scalar=Ellipsis, sliding_window=Ellipsis, num_key_value_heads=1),
              dict(_windows=[9, 33])),
    "gemma2": (gemma2(), dict(_windows=[9, 40], _matters=[
        {"sliding_window": 10}, {"attn_logit_softcapping": 50.0}, {"final_logit_softcapping": 30.0},
        {"query_pre_attn_scalar": 12}])),
    "gemma2_keys": (gemma2(attn_logit_softcapping=Ellipsis, final_logit_softcapping=None, tie_word_embeddings=False,
                           query_pre_attn_scalar=4, num_hidden_layers=2,
                           layer_types=["full_attention", "sliding_attention"]),
                    dict(_windows=[9, 33], _matters=[
                        {"attn_logit_softcapping": None}, {"final_logit_softcapping": 30.0},
                        {"layer_types": Ellipsis}])),
    "gemma3": (gemma("gemma3_text", "Gemma3ForCausalLM", attn_logit_softcapping=None, final_logit_softcapping=None,
                     sliding_window_pattern=3, num_hidden_layers=4, rope_local_base_freq=50.0, rope_theta=1000.0,
                     rope_scaling={"factor": 8.0, "rope_type": "linear"}),
               dict(_windows=[9, 40], _matters=[{"sliding_window": 10}, {"rope_local_base_freq": 60.0},
                                                {"rope_theta": 900.0}, {"rope_scaling": None},
                                                {"sliding_window_pattern": 2}])),
    "gemma3_new_keys": (gemma("gemma3_text", "Gemma3ForCausalLM", rope_theta=Ellipsis, num_hidden_layers=2,
                              layer_types=["full_attention", "sliding_attention"], rope_parameters={
                                  "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
                                  "sliding_attention": {"rope_type": "default", "rope_theta": 40.0}}),
                        dict(_windows=[9, 33], _matters=[{"layer_types": ["sliding_attention", "full_attention"]}])),
    "olmo2": (llama_like("olmo2", "Olmo2ForCausalLM", num_attention_heads=4, num_key_value_heads=2),
              dict(_windows=[9, 40])),
    "smollm3": (llama_like("smollm3", "SmolLM3ForCausalLM", num_attention_heads=4, num_key_value_heads=2,
                           num_hidden_layers=4, tie_word_embeddings=Ellipsis, pad_token_id=2, rope_theta=100.0,
                           intermediate_size=44,
                           use_sliding_window=False, sliding_window=None, mlp_bias=False, attention_bias=False),
                dict(_windows=[9, 40], _matters=[{"no_rope_layers": [1, 1, 1, 1]}])),
    "smollm3_layers": (llama_like("smollm3", "SmolLM3ForCausalLM", num_attention_heads=4, num_key_value_heads=2,
                                  num_hidden_layers=3, tie_word_embeddings=True, rope_theta=100.0, intermediate_size=44,
                                  pad_token_id=2, use_sliding_window=True, sliding_window=8, no_rope_layers=[1, 0, 1]),
                       dict(_windows=[8, 33], _matters=[{"no_rope_layers": [1, 1, 0]}, {"sliding_window": 9}])),
    "gpt_oss": (gpt_oss(), dict(_windows=[9, 60], _matters=[
        {"swiglu_limit": 6.0}, {"sliding_window": 11}, {"rope_scaling": None},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}}])),
    "gpt_oss_mxfp4": (gpt_oss(hidden_size=64, intermediate_size=64, vocab_size=61, layer_types=Ellipsis,
                              quantization_config={"modules_to_not_convert": [
                                  "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
                                  "lm_head"], "quant_method": "mxfp4"}),
                      dict(_windows=[9, 40], _layout="mxfp4")),
    "opt": ({"architectures": ["OPTForCausalLM"], "model_type": "opt", "_remove_final_layer_norm": False,
             "activation_function": "relu", "bos_token_id": 2, "do_layer_norm_before": True, "eos_token_id": 2,
             "ffn_dim": 52, "hidden_size": 40, "max_position_embeddings": 48, "num_attention_heads": 5,
             "num_hidden_layers": 2, "pad_token_id": 1, "vocab_size": 97, "word_embed_proj_dim": 40},
            dict(_dtype=F16, _windows=[9, 40])),
    "falcon": (falcon(), dict(_windows=[9, 40])),
    "falcon_sequential": (falcon(multi_query=False, parallel_attn=False, bias=True, ffn_hidden_size=52, hidden_size=40,
                                 num_attention_heads=5, tie_word_embeddings=False), dict(_windows=[9, 33])),
    "falcon_new": (falcon(new_decoder_architecture=True, num_attention_heads=4, num_kv_heads=2, hidden_size=40,
                          ffn_hidden_size=52, tie_word_embeddings=False), dict(_windows=[9, 33])),
    "falcon_one_norm": (falcon(new_decoder_architecture=True, num_attention_heads=4, num_kv_heads=2, hidden_size=40,
                               ffn_hidden_size=52, num_ln_in_parallel_attn=1), dict(_windows=[9, 33])),
    "starcoder2": (llama_like("starcoder2", "Starcoder2ForCausalLM", num_attention_heads=4, num_key_value_heads=2,
                              hidden_act="gelu_pytorch_tanh", use_bias=True, sliding_window=9, norm_epsilon=1e-5,
                              tie_word_embeddings=Ellipsis),
                   dict(_windows=[9, 40], _matters=[{"sliding_window": 10}])),
    "stablelm": (stablelm(), dict(_windows=[9, 40])),
    "stablelm_parallel": (stablelm(use_parallel_residual=True, qk_layernorm=True, use_qkv_bias=False,
                                   partial_rotary_factor=0.5,
                                   num_attention_heads=4, num_key_value_heads=2),
                          dict(_windows=[9, 33], _matters=[{"use_parallel_residual": False}])),
    "granite": (llama_like("granite", "GraniteForCausalLM", num_attention_heads=4, num_key_value_heads=2,
                           attention_bias=True, mlp_bias=True, embedding_multiplier=3.0, logits_scaling=0.75,
                           residual_multiplier=0.44, attention_multiplier=0.25, tie_word_embeddings=True),
                dict(_windows=[9, 40], _matters=[{"embedding_multiplier": 1}, {"logits_scaling": 1},
                                                 {"residual_multiplier": 1}, {"attention_multiplier": 0.2}])),
    "olmo": (llama_like("olmo", "OlmoForCausalLM", num_attention_heads=4, num_key_value_heads=2, clip_qkv=1.25),
             dict(_windows=[9, 40], _matters=[{"clip_qkv": None}])),
    "cohere": (llama_like("cohere", "CohereForCausalLM", num_attention_heads=4, num_key_value_heads=2,
                          logit_scale=0.5, layer_norm_eps=1e-5, tie_word_embeddings=Ellipsis),
               dict(_windows=[9, 40], _matters=[{"logit_scale": 0.6}])),
    "cohere_qk_norm": (llama_like("cohere", "CohereForCausalLM", num_attention_heads=4, num_key_value_heads=2,
                                  logit_scale=0.75, layer_norm_eps=1e-5, use_qk_norm=True, attention_bias=True,
                                  tie_word_embeddings=True), dict(_windows=[9, 33])),
}
CASES["gpt_neo_bin"] = (gpt_neo(hidden_size=40, num_heads=5), dict(_dtype=F32, _windows=[6, 33], _layout="masked_bias",
                                                                   _bin=True))


# ---- random weights

def randomize(model, generator):
    """Weights with which every part matters: peaky attention, norms far from one, biases far from zero."""
    config = model.config
    tied = config.tie_word_embeddings
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=generator)
        last = name.split(".")[-2:]
        if name.endswith("sinks"):
            p.data = 1.5 + r
        elif name.endswith("bias"):
            p.data = 0.3 * r
        elif re.search(r"norm|(^|\.)ln_|\.ln_", name):
            gemma = "gemma" in config.model_type
            p.data = (0 if gemma else 1) + 0.3 * r
        elif re.search(r"embed_tokens|wte|word_embeddings|embed_in", name):
            p.data = (0.3 if tied else 1.0) * r
        elif re.search(r"wpe|embed_positions", name):
            p.data = (0.2 if tied else 0.6) * r
        else:
            conv1d = isinstance(model.get_submodule(name.rpartition(".")[0]), Conv1D)
            transposed = conv1d or (config.model_type == "gpt_oss" and p.dim() == 3)
            gain = 1.8 if re.search(r"\.(q_proj|k_proj)", name) else \
                1.5 if re.search(r"qkv|query_key_value|c_attn", name) else 1.2
            if config.model_type == "gpt_oss" and name.endswith("gate_up_proj"):
                gain = 3.5  # so that the clamp at 7 is met
            if config.model_type == "gpt_neo" and gain > 1.5:
                gain = 1.0  # scores are not scaled
            p.data = gain * r / math.sqrt(p.shape[-2] if transposed else p.shape[-1])


# ---- the hub's layout

def to_disk(model, options):
    """The tensors of `model` as the hub's checkpoints of its family hold them: [(name, tensor, parameter of ours)]."""
    family, tied, layout = model.config.model_type, model.config.tie_word_embeddings, options.get("_layout")
    out = []
    for name, p in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        if family == "mixtral":
            name_ = name.replace(".mlp.", ".block_sparse_moe.")
            if name.endswith("experts.gate_up_proj"):
                half = p.shape[1] // 2
                for e in range(p.shape[0]):
                    at = f"{name_.removesuffix('gate_up_proj')}{e}."
                    out += [(at + "w1.weight", p[e, :half], name), (at + "w3.weight", p[e, half:], name)]
                continue
            if name.endswith("experts.down_proj"):
                out += [(f"{name_.removesuffix('down_proj')}{e}.w2.weight", p[e], name) for e in range(p.shape[0])]
                continue
            out.append((name_, p, name))
        elif family == "qwen3_moe" and ".experts." in name:
            half = p.shape[1] // 2
            at = name.rpartition(".")[0]
            parts = {"gate_proj": p[:, :half], "up_proj": p[:, half:]} if name.endswith("gate_up_proj") else \
                {"down_proj": p}
            out += [(f"{at}.{e}.{part}.weight", w[e], name) for part, w in parts.items() for e in range(p.shape[0])]
        elif layout == "mxfp4" and p.dim() == 3:
            blocks, scales = pack_mxfp4(p)
            out += [(name + "_blocks", blocks, name), (name + "_scales", scales, name)]
        elif family == "gpt_neox" and name == "lm_head.weight":
            out.append(("embed_out.weight", p, name))
        else:
            disk = name.removeprefix("transformer.") if layout == "bare" else name
            out.append((disk, p, name))
    positions = getattr(model.config, "max_position_embeddings", 0)
    causal = torch.tril(torch.ones(positions, positions, dtype=torch.bool))[None, None] if layout else None
    if family == "gpt2" and layout == "bare":
        out += [(f"h.{i}.attn.bias", causal.float(), None) for i in range(model.config.n_layer)]
    if family == "gpt_neo" and layout == "masked_bias":
        for i in range(model.config.num_layers):
            out += [(f"transformer.h.{i}.attn.attention.bias", causal.byte(), None),
                    (f"transformer.h.{i}.attn.attention.masked_bias", torch.tensor(-1e9), None)]
    if family == "gpt_neox" and layout == "masked_bias":
        for i in range(model.config.num_hidden_layers):
            at = f"gpt_neox.layers.{i}.attention."
            out += [(at + "bias", causal, None), (at + "masked_bias", torch.tensor(-1e9), None),
                    (at + "rotary_emb.inv_freq", 1 / 100 ** (torch.arange(0, 4, 2) / 4), None)]
    if options.get("_bin"):
        out.append(("lm_head.weight", model.get_input_embeddings().weight, None))  # shares memory, as in real files
    return out


E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def round_to_mxfp4(w):
    """(codes, exponents) of w [E, K, N] along K, in blocks of 32 with floor scales: [E, N, K] and [E, N, K / 32]."""
    blocks = w.transpose(1, 2).unflatten(-1, (-1, 32)).double()
    exponents = torch.frexp(blocks.abs().amax(-1)).exponent - 1 - 2
    scaled = blocks * torch.exp2(-exponents[..., None].double())
    codes = (scaled.abs()[..., None] - E2M1.double()).abs().argmin(-1)
    return (codes + 8 * (scaled < 0)).flatten(-2), exponents


def decode_mxfp4(codes, exponents):
    values = E2M1[codes % 8] * (1 - 2 * (codes // 8).float())
    return (values.unflatten(-1, (-1, 32)) * torch.exp2(exponents[..., None].float())).flatten(-2).transpose(1, 2)


def pack_mxfp4(w):
    """(blocks U8 [E, N, K / 32, 16], scales U8 [E, N, K / 32]) as gpt-oss's files have them: even element low."""
    codes, exponents = round_to_mxfp4(w)
    assert torch.equal(decode_mxfp4(codes, exponents), w), "the weight is not MXFP4"
    pairs = codes.unflatten(-1, (-1, 16, 2))
    return (pairs[..., 0] + 16 * pairs[..., 1]).to(torch.uint8), (exponents + 127).to(torch.uint8)


ATTENTION = ("self_attn", "attn", "attention", "self_attention")
MLP = ("mlp", "ffn")


def role(name):
    """attention, mlp or lm_head, for a Linear of transformers' model with this dotted name."""
    *_, parent, leaf = ("", *name.split("."))
    if leaf in ("lm_head", "embed_out"):
        return "lm_head"
    if parent in ATTENTION:
        return "attention"
    if parent in MLP or parent == "experts" or leaf in ("fc1", "fc2"):
        return "mlp"
    raise ValueError(f"what is {name}?")


class Product:
    """A matrix of the model that a Linear multiplies by: `weight()` is a view [..., outputs, inputs]."""

    def __init__(self, name, parameter, transposed):
        self.name, self.parameter, self.transposed, self.role = name, parameter, transposed, role(name)

    def weight(self):
        return self.parameter.detach().transpose(-1, -2) if self.transposed else self.parameter.detach()


def products(model):
    """Every Linear, Conv1D and stack of experts; routers are none (they are modules of their own in transformers)."""
    out = []
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)):
            out.append(Product(name, module.weight, isinstance(module, Conv1D)))
        elif type(module).__name__.endswith("Experts"):
            transposed = model.config.model_type == "gpt_oss"
            out += [Product(f"{name}.{p}", getattr(module, p), transposed) for p in ("gate_up_proj", "down_proj")]
    return out


def routers(model):
    return [name for name, module in model.named_modules() if type(module).__name__.endswith("Router")]


def disk_linears(model, options):
    """[{module, role}] of every Linear and router by its name on disk, with the prefix of transformers' module names where
    the file lacks it, sorted by name. Experts that lie stacked in one
    tensor are numbered, experts.E.NAME, as those are that lie apart."""
    roles = {}
    for p in products(model):
        roles[p.name if p.parameter.dim() == 3 else p.name + ".weight"] = p.role
    roles |= {name + ".weight": "router" for name in routers(model)}
    found = {}
    for disk, tensor, name in to_disk(model, options):
        if name in roles and not disk.endswith("_scales"):
            module = disk.removesuffix(".weight").removesuffix("_blocks")
            if module.startswith("h."):
                module = "transformer." + module
            at, _, last = module.rpartition(".")
            for m in [f"{at}.{e}.{last}" for e in range(len(tensor))] if at.endswith(".experts") else [module]:
                found[m] = roles[name]
    if model.config.tie_word_embeddings:
        found["lm_head"] = "lm_head"
    return [{"module": name, "role": found[name]} for name in sorted(found)]


# ---- make, write, load

def load(folder, dtype=torch.float32, attention="eager"):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention,
                                                **expert_options(folder)).eval()


def expert_options(folder):
    config = json.loads((folder / "config.json").read_text())
    experts = any(k in config for k in ("num_local_experts", "num_experts"))
    return {"experts_implementation": "eager"} if experts else {}


def edited(config, edits):
    return {**config, **edits}


def write_config(folder, config, options):
    dtype = DTYPE_NAMES[options.get("_dtype", BF16)]
    config = {k: v for k, v in config.items() if v is not Ellipsis}
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": dtype}, indent=2, sort_keys=True) + "\n")


def seed_of(name, seed=0):
    return sum(b * (i + 1) for i, b in enumerate(name.encode())) + 1_000_003 * (CASES[name][1].get("_seed", 0) + seed)


def make_checkpoint(name, folder, seed=0):
    """Writes config.json and model.safetensors of case `name`; returns the model that was written (float32)."""
    config, options = CASES[name]
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, config, options)
    config = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    randomize(model, torch.Generator().manual_seed(seed_of(name, seed)))
    dtype = options.get("_dtype", BF16)
    with torch.no_grad():
        for p in model.parameters():
            if options.get("_layout") == "mxfp4" and p.dim() == 3:
                p.copy_(decode_mxfp4(*round_to_mxfp4(p)))
            else:
                p.copy_(p.to(dtype))
    if options.get("_bin"):
        torch.save({disk: t.detach() for disk, t, _ in to_disk(model, options)}, folder / "pytorch_model.bin")
        return model.eval()
    tensors = {disk: t.to(dtype if ours else t.dtype).contiguous().clone() if t.is_floating_point() else t.clone()
               for disk, t, ours in to_disk(model, options)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return model.eval()


def make_windows(name, model, seed=0):
    generator = torch.Generator().manual_seed(seed_of(name, seed) + 1)
    return [torch.randint(model.config.vocab_size, (1, n), generator=generator) for n in CASES[name][1]["_windows"]]


def logits_of(model, tokens, activations=None):
    """Logits [tokens, vocabulary], by a copy: RoPE of some types remembers the longest input it has seen. With
    `activations` the input of every product is quantised by that function."""
    model = copy.deepcopy(model)
    around = quantised_activations(model, activations) if activations else contextlib.nullcontext()
    with torch.no_grad(), around:
        return model(tokens, use_cache=False).logits[0]


@contextlib.contextmanager
def quantised_activations(model, quantize, roles=("attention", "mlp")):
    """Within it every product of `roles` reads quantize(input). Experts multiply inside their own forward, so their
    products are caught at torch's functions, by the weight they read."""
    chosen = [p for p in products(model) if p.role in roles]
    stacks = {p.parameter.untyped_storage().data_ptr() for p in chosen if p.parameter.dim() == 3}
    modules = [model.get_submodule(p.name) for p in chosen if p.parameter.dim() == 2]
    # Under a function mode indices arrive as lists, which torch warns of and treats as tuples.
    warnings.filterwarnings("ignore", "Using a non-tuple sequence")
    hooks = [m.register_forward_pre_hook(lambda m, args: (quantize(args[0]), *args[1:])) for m in modules]
    counts = {"experts": 0}

    class Catch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (torch.nn.functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__) and \
                    args[1].untyped_storage().data_ptr() in stacks:
                counts["experts"] += 1
                args = (quantize(args[0]), *args[1:])
            return func(*args, **(kwargs or {}))

    with Catch() if stacks else contextlib.nullcontext():
        yield
    assert bool(counts["experts"]) == bool(stacks), "experts were not caught"
    for hook in hooks:
        hook.remove()
