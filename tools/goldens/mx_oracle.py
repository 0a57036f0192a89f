"""The MX oracle: microsoft/microxcaling's PyTorch path on a CPU in float32, rounding `even` unless said otherwise.

Every tool that writes golden data takes the folder that holds microxcaling's `mx` package as --microxcaling; nothing of
that library is copied here.
"""
import sys

import torch

# Our format names -> microxcaling's.
FORMATS = {"mxfp8_e4m3": "fp8_e4m3", "mxfp8_e5m2": "fp8_e5m2", "mxfp6_e3m2": "fp6_e3m2", "mxfp6_e2m3": "fp6_e2m3",
           "mxfp4_e2m1": "fp4_e2m1", "mxint8": "int8"}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


class Microxcaling:
    """quantize(x, format) -> x quantised and decoded along its last axis, in x's dtype."""

    def __init__(self, folder):
        sys.path.insert(0, str(folder))
        from mx.mx_ops import quantize_mx_op
        from mx.specs import MxSpecs
        self._op, self._specs = quantize_mx_op, MxSpecs

    def quantize(self, x, format, block=32, rounding="even"):
        specs = self._specs({"scale_bits": 8, "block_size": block, "custom_cuda": False,
                             "shared_exp_method": "max"})
        return self._op(x, specs, elem_format=FORMATS[format], axes=[-1], round=rounding)


def role(module):
    """attention, mlp or lm_head, for the Linear of a llama model with this dotted name."""
    last = module.split(".")[-1]
    return "attention" if last in ATTENTION else "mlp" if last in MLP else "lm_head"


def free_head(model):
    """Gives a tied head its own copy of the weight: a head is quantised as a Linear, the embedding never."""
    head, embedding = model.lm_head, model.get_input_embeddings()
    if head.weight.data_ptr() == embedding.weight.data_ptr():
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def quantize_weights(model, oracle, format, roles=("attention", "mlp"), **options):
    """Replaces the weight of every Linear with one of `roles` by its quantised value, in place; returns their names."""
    if "lm_head" in roles:
        free_head(model)
    replaced = []
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and role(name) in roles:
                module.weight.copy_(oracle.quantize(module.weight.float(), format, **options))
                replaced.append(name)
    return replaced
