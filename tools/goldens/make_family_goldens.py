#!/usr/bin/env python3
"""Make tests/data/families/NAME: a tiny random model of each family and what transformers and microxcaling say of it.

usage: make_family_goldens.py --microxcaling FOLDER_OF_mx [-o tests/data/families] [NAME...]

Each folder holds a checkpoint as the hub has that family (config.json, model.safetensors; family_models.py) and
in expected/
  golden.json
    windows      lists of token ids; each is one forward from position 0
    baseline     {nll, by_window}: mean NLL in nats of every token but a window's first, of all windows and of each
    weight_only  {format: {nll, by_window}}: the weights of all Linears of attention and MLP, experts included, quantised
                 by microxcaling along their inputs; routers, norms, embeddings and the head untouched
    weight_and_activation  the same, and the inputs of those Linears quantised too; also the NLL by_token, and the
                 largest change of the mean NLL (spread) and of the median token (median_spread) in six runs whose
                 inputs were first multiplied by 1 + 3e-7 N(0, 1)
    linears      [{module, role}]: every Linear and router by its name on disk; experts that lie stacked in one tensor
                 are numbered, as others are on disk
    largest      max |logit|
    product      (some) the module on disk of which product.safetensors holds a product
    double_error max |float32 logits - logits of the same model in float64|: what float32 itself may differ by
  logits.safetensors   logits.WINDOW F32 [tokens, vocabulary]: float32 forward with eager attention and eager experts
  product.safetensors  (some) one Linear's MX product as in make_product_goldens.py: x F32 [M, K] its input in the
                 float32 forward, y.FORMAT and abs.FORMAT F64 [M, N] of the first N outputs

Every figure comes from the folder as it lies on disk, loaded by from_pretrained in float32. Also checked here: what was
written loads as what was made; each parameter and each key of `_matters` changes the logits; routers have no near ties.
Made with transformers 5.23.0, torch 2.15.0 (CPU), safetensors 0.8.0, microxcaling 7bc41952.
"""
import argparse
import copy
import json
import shutil
import tempfile
from pathlib import Path

import safetensors
import torch
import transformers
from safetensors.torch import save_file

import family_models as families
from make_product_goldens import check_faultless
from mx_oracle import Microxcaling

WEIGHT_ONLY = ("mxfp8_e4m3", "mxfp6_e3m2", "mxfp4_e2m1", "mxint8")
WEIGHT_AND_ACTIVATION = ("mxfp8_e4m3", "mxfp4_e2m1")
PRODUCT_ROWS, PRODUCT_OUTPUTS = 12, 30
NOISY_RUNS = 6


def token_nll(logits, windows):
    """NLL in nats of every token but a window's first, [windows][tokens - 1], in float64."""
    return [-torch.log_softmax(l[:-1].double(), -1).gather(-1, tokens[0, 1:, None])[:, 0]
            for l, tokens in zip(logits, windows)]


def summary(nll):
    return {"nll": torch.cat(nll).mean().item(), "by_window": [n.mean().item() for n in nll]}


def nll_of(logits, windows):
    return summary(token_nll(logits, windows))


def all_logits(model, windows, activations=None):
    return [families.logits_of(model, w, activations) for w in windows]


def difference(a, b):
    return max((x.double() - y.double()).abs().max().item() for x, y in zip(a, b))


def quantised(model, oracle, format):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for p in families.products(model):
            if p.role != "lm_head":
                w = p.weight().contiguous()
                check_faultless(w.reshape(-1, w.shape[-1]), format)
                p.weight().copy_(oracle.quantize(w, format))
    return model


def unquantised_parameters(model):
    chosen = {id(p.parameter) for p in families.products(model) if p.role != "lm_head"}
    return {n: p for n, p in model.named_parameters() if id(p) not in chosen}


def router_margin(model, windows):
    """The least gap between the last expert chosen and the first one not, in logits."""
    gaps = []

    def look(module, args, out):
        top = out[0].topk(module.top_k + 1, -1).values
        gaps.append((top[..., -2] - top[..., -1]).min().item())

    model = copy.deepcopy(model)
    for name in families.routers(model):
        model.get_submodule(name).register_forward_hook(look)
    all_logits(model, windows)
    return min(gaps, default=None)


def check_every_parameter(name, model, windows, logits, largest):
    """A change by a tenth must be seen, else a reader that drops or mistakes the tensor would not be noticed. Of what
    lies stacked for all experts each expert's part."""
    blind = []
    for key, p in model.named_parameters():
        for part in range(len(p)) if ".experts." in key else [slice(None)]:
            changed = copy.deepcopy(model)
            with torch.no_grad():
                q = changed.get_parameter(key)[part]
                q += 0.1 * q.roll(1, -1)
            if difference(all_logits(changed, windows[-1:]), logits[-1:]) < 1e-3 * largest:
                blind.append((key, part))
    # Adding one vector to all keys shifts all scores of a query alike: softmax does not see it unless RoPE turns it.
    blind = [b for b in blind if not (model.config.model_type == "opt" and b[0].endswith("k_proj.bias"))]
    assert not blind, (name, "parameters that do not matter", blind)


def check_every_edit(name, folder, windows, logits, largest):
    config, options = families.CASES[name]
    for edit in options.get("_matters", []):
        with tempfile.TemporaryDirectory() as tmp:
            other = Path(tmp)
            families.write_config(other, families.edited(config, edit), options)
            for file in folder.glob("*model.*"):
                (other / file.name).symlink_to(file.resolve())
            changed = all_logits(families.load(other), windows)
        assert difference(changed, logits) > 1e-3 * largest, (name, "does not matter", edit)


def product_golden(model, oracle, name, expert, windows, path, metadata):
    """One Linear's input in the float32 forward and its product with the weight, as make_product_goldens.py has it."""
    model = copy.deepcopy(model)
    product = next(p for p in families.products(model) if p.name == name)
    weight, reader = product.weight(), name
    if expert is not None:  # What goes into the stack, before routing, is what each of its first products reads.
        weight, reader = weight[expert], name.rpartition(".")[0]
    seen = []
    model.get_submodule(reader).register_forward_pre_hook(
        lambda module, args: seen.append(args[0].reshape(-1, args[0].shape[-1]).clone()))
    all_logits(model, windows[-1:])
    x, w = seen[0][:PRODUCT_ROWS].contiguous(), weight[:PRODUCT_OUTPUTS].contiguous()
    tensors = {"x": x}
    for format in WEIGHT_ONLY:
        check_faultless(x, format)
        check_faultless(w, format)
        qx, qw = (oracle.quantize(t, format).double() for t in (x, w))
        tensors[f"y.{format}"] = qx @ qw.T
        tensors[f"abs.{format}"] = qx.abs() @ qw.abs().T
    save_file(tensors, path, metadata)


def both_quantised(replaced, oracle, format, windows):
    """NLL with activations quantised too, and how far it moves when float32's last bits do: a value at the edge between
    two codes falls to either side."""
    generator = torch.Generator().manual_seed(7)

    def noisy(x):
        return oracle.quantize(x * (1 + 3e-7 * torch.randn(x.shape, generator=generator)), format)

    nll = token_nll(all_logits(replaced, windows, lambda x: oracle.quantize(x, format)), windows)
    moves = [torch.cat(token_nll(all_logits(replaced, windows, noisy), windows)) - torch.cat(nll)
             for _ in range(NOISY_RUNS)]
    return {**summary(nll), "by_token": [[round(v, 6) for v in n.tolist()] for n in nll],
            "spread": max(abs(m.mean().item()) for m in moves),
            "median_spread": max(m.abs().median().item() for m in moves)}


def make(name, out, oracle):
    folder, expected = out / name, out / name / "expected"
    shutil.rmtree(folder, ignore_errors=True)
    expected.mkdir(parents=True)
    made = families.make_checkpoint(name, folder)
    options = families.CASES[name][1]
    windows = families.make_windows(name, made)
    model = families.load(folder)
    logits = all_logits(model, windows)
    largest = max(l.abs().max().item() for l in logits)
    assert difference(logits, all_logits(made, windows)) < 1e-6 * largest, (name, "reads as something else")
    double_error = difference(logits, all_logits(families.load(folder, torch.float64), windows))
    assert double_error < 1e-5 * largest, (name, double_error, largest)
    check_every_parameter(name, model, windows, logits, largest)
    check_every_edit(name, folder, windows, logits, largest)

    margins = [router_margin(model, windows)]
    weight_only, both = {}, {}
    for format in WEIGHT_ONLY:
        replaced = quantised(model, oracle, format)
        for key, p in unquantised_parameters(model).items():
            assert torch.equal(p, replaced.get_parameter(key)), key
        for p, q in zip(families.products(model), families.products(replaced)):
            exact = options.get("_layout") == "mxfp4" and p.parameter.dim() == 3  # exact in every format
            assert (p.role == "lm_head" or exact) == torch.equal(p.parameter, q.parameter), p.name
        weight_only[format] = nll_of(all_logits(replaced, windows), windows)
        margins.append(router_margin(replaced, windows))
        if format in WEIGHT_AND_ACTIVATION:
            both[format] = both_quantised(replaced, oracle, format, windows)
    if margins[0] is not None:
        assert min(margins) > 2e-5, (name, "a router nearly ties; take another _seed", margins)

    versions = {"transformers": transformers.__version__, "torch": torch.__version__,
                "safetensors": safetensors.__version__}
    metadata = {"versions": json.dumps(versions)}  # one key: safetensors writes several in any order
    save_file({f"logits.{i}": l.contiguous() for i, l in enumerate(logits)}, expected / "logits.safetensors", metadata)
    golden = {"versions": {**versions, "microxcaling": "7bc41952"}, "rule": "floor", "round": "even", "block": 32,
              "windows": [w[0].tolist() for w in windows], "largest": largest, "double_error": double_error,
              "baseline": nll_of(logits, windows), "weight_only": weight_only, "weight_and_activation": both}
    if "_product" in options:
        name_here, expert, golden["product"] = options["_product"]
        product_golden(model, oracle, name_here, expert, windows, expected / "product.safetensors", metadata)
    golden["linears"] = families.disk_linears(made, options)
    write_golden(expected / "golden.json", golden)
    files = [f for f in folder.rglob("*") if f.is_file()]
    for file in files:
        file.chmod(0o644)
    size = sum(f.stat().st_size for f in files)
    text = " ".join(f"{f[2:]} {v['nll']:.4f}" for f, v in weight_only.items())
    wa = " ".join(f"{v['nll']:.4f}+-{v['spread']:.0e},{v['median_spread']:.0e}" for v in both.values())
    print(f"{name:20} {size / 1024:6.0f} KB |logit| {largest:5.1f} f32-f64 {double_error / largest:.1e} nll "
          f"{golden['baseline']['nll']:.4f} {text} W+A {wa}"
          f"{'' if margins[0] is None else f' margin {min(margins):.1e}'}", flush=True)


def write_golden(path, golden):
    """One line a key, one a Linear."""
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in golden.items() if k != "linears"]
    linears = ",\n  ".join(json.dumps(l) for l in golden["linears"])
    path.write_text("{\n " + ",\n ".join(lines) + ',\n "linears": [\n  ' + linears + "\n ]\n}\n")
    json.loads(path.read_text())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases to make (all)")
    parser.add_argument("--microxcaling", required=True, help="folder that holds microxcaling's `mx` package")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).resolve().parents[2] / "tests/data/families")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()  # of masks that old checkpoints hold
    oracle = Microxcaling(args.microxcaling)
    for name in args.names or families.CASES:
        make(name, args.out, oracle)


if __name__ == "__main__":
    main()
