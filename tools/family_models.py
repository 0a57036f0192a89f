"""Tiny random models of every family: config.json as the hub has it, weights in the hub's layout, and what they are.

Shared by make_family_goldens.py and check_families.py. A case is (config.json, options):
  _dtype    of the weights on disk (bfloat16)
  _windows  lengths of the windows of tokens
  _matters  edits of config.json of which each has to change the logits (None deletes a key), as a proof that the
            figures see the detail
  _layout   how the tensors lie on disk, where one family has several
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
    "gpt2": (gpt2(), dict(_dtype=F32, _windows=[9, 40], _layout="bare")),
    "gpt2_scaled": (gpt2(scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False, n_inner=52, n_head=4, n_layer=3),
                    dict(_windows=[9, 33], _matters=[{"scale_attn_by_inverse_layer_idx": False},
                                                     {"scale_attn_weights": True}])),
    "mixtral": (llama_like("mixtral", "MixtralForCausalLM", num_attention_heads=4, num_key_value_heads=2,
                           num_local_experts=5, num_experts_per_tok=2, intermediate_size=36, sliding_window=None,
                           rope_theta=1000.0, output_router_logits=False, router_aux_loss_coef=0.02),
                dict(_windows=[12, 40])),
}


# ---- random weights

def randomize(model, generator):
    """Weights with which every part matters: peaky attention, norms far from one, biases far from zero."""
    config = model.config
    tied = config.tie_word_embeddings
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=generator)
        last = name.split(".")[-2:]
        if name.endswith("sinks"):
            p.data = r
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
    return out


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
    """[{module, role}] of every Linear and router by its name on disk, sorted by name; stacked experts are one entry."""
    roles = {}
    for p in products(model):
        roles[p.name if p.parameter.dim() == 3 else p.name + ".weight"] = p.role
    roles |= {name + ".weight": "router" for name in routers(model)}
    found = {disk.removesuffix(".weight").removesuffix("_blocks"): roles[name]
             for disk, tensor, name in to_disk(model, options)
             if name in roles and not disk.endswith("_scales")}
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
    return {k: v for k, v in {**config, **edits}.items() if v is not None}


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
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager")
    randomize(model, torch.Generator().manual_seed(seed_of(name, seed)))
    dtype = options.get("_dtype", BF16)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype))
    tensors = {disk: t.to(dtype if ours else t.dtype).contiguous().clone() if t.is_floating_point() else t
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
