"""Text of strangers on a terminal: from files, from names, from what a run says while it goes on."""
import json
import struct
from pathlib import Path

from . import _material as material

EVIL = material.EVIL
WORD = EVIL.split(" ")[0]  # without a space

ROPE = {"rope_type": EVIL, "factor": 2.0}
QUANTIZED = {
    "quant_method": {"quant_method": EVIL},
    "compressed-tensors format": {"quant_method": "compressed-tensors", "quantization_status": "compressed",
                                  "format": EVIL},
    "quantization_status": {"quant_method": "compressed-tensors", "quantization_status": EVIL},
    "Quark's dtype": {"quant_method": "quark", "export": {},
                      "global_quant_config": {"weight": {"dtype": EVIL, "qscheme": "per_group"}}},
    "ModelOpt's quant_algo": {"quant_method": "modelopt", "quant_algo": EVIL},
}
CONFIGURATIONS = {
    "model_type": {"model_type": EVIL}, "hidden_act": {"hidden_act": EVIL},
    "rope_parameters": {"rope_parameters": ROPE}, "rope_scaling": {"rope_parameters": None, "rope_scaling": ROPE},
    "layer_types": {"model_type": "qwen3", "layer_types": [EVIL] * 8},
    "attention_types": {"model_type": "gpt_neo", "hidden_size": 256, "num_layers": 8, "num_heads": 4,
                        "attention_types": [[[EVIL], 8]]},
    **{name: {"quantization_config": value} for name, value in QUANTIZED.items()},
}


def split(pattern="a", behavior="Isolated"):
    return {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}}


def bpe(**members):
    return {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [], **members}}


def template(token):
    return {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": token, "type_id": 0}}],
                               "pair": [], "special_tokens": {}}}


TOKENIZERS = {
    "model": bpe(type=EVIL), "normalizer": {"normalizer": {"type": EVIL}},
    "normalizer of a sequence": {"normalizer": {"type": "Sequence", "normalizers": [{"type": EVIL}]}},
    "pre-tokenizer": {"pre_tokenizer": {"type": EVIL}},
    "pre-tokenizer of a sequence": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": EVIL}]}},
    "post-processor": {"post_processor": {"type": EVIL}}, "decoder": {"decoder": {"type": EVIL}},
    "decoder of a sequence": {"decoder": {"type": "Sequence", "decoders": [{"type": EVIL}]}},
    "behavior": split(behavior=EVIL), "regular expression": split(EVIL + "("),
    "property of a regular expression": split("\\p{" + EVIL + "}"), "group of a regular expression": split("(?" + EVIL),
    "prepend_scheme": {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": EVIL}},
    "merge, as a pair": bpe(merges=[["a", EVIL]]), "merge, as a string": bpe(merges=["a " + WORD]),
    "unk_token": bpe(unk_token=EVIL), "token of a template": template(EVIL),
    "token beyond the limit": bpe(vocab={"a": 0, EVIL: 1 << 40}),
}
OPTIONS = ["eval --text {}", "eval {}", "inspect {}", "{}", "eval --{}", "eval --mx {}", "eval --mx linear=mxfp4@{}",
           "eval --mx {}=mxfp4", "eval --data {}", "eval --dtype {}", "eval --bos {}", "eval --gemm {}",
           "eval --device {}", "eval --protocol {}", "eval --mx-format {}", "eval --tier {}", "eval --config {}",
           "eval --per-token {}", "eval --per-token no/{}.csv", "eval --json no/{}", "report -o x.html {}",
           "cast -o x --format mxfp4 {}", "cast -o x --format {} x", "tokenize {} --text x", "models {}",
           "sweep --formats {}", "sweep --sensitivity {}", "logits x --tokens {} -o x", "fetch {}", "bench {}"]


def folder_with(ctx, name, config=None):
    folder = ctx.tmp / name
    folder.mkdir(exist_ok=True)
    for file in Path(ctx.model).iterdir():
        link = folder / file.name
        if not link.exists() and not link.is_symlink():
            link.symlink_to(file.resolve())
    if config is not None:
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def safetensors(header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(**members):
    return {EVIL: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **members}}


SAFETENSORS = {
    "tensor that is cut": safetensors(tensor(), b"\0" * 4), "tensor of an unknown dtype": safetensors(tensor(dtype=EVIL)),
    "tensor of another size": safetensors(tensor(shape=[3])), "tensor with odd offsets": safetensors(tensor(data_offsets=[8, 0])),
}


def trials(ctx):
    config = json.loads((Path(ctx.model) / "config.json").read_text())
    for name, change in CONFIGURATIONS.items():
        def configuration(change=change):
            changed = {key: value for key, value in {**config, **change}.items() if value is not None}
            return material.harmless(material.run(ctx, "inspect", str(folder_with(ctx, "m", changed))), code=1)
        yield f"config.json: {name}", configuration

    text = ctx.tmp / "text.txt"
    text.write_text("a b")
    base = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
            "decoder": None, **bpe()}
    for name, change in TOKENIZERS.items():
        def tokenizer(change=change):
            path = ctx.tmp / "tokenizer.json"
            path.write_text(json.dumps({**base, **change}))
            return material.harmless(material.run(ctx, "tokenize", str(path), "--text", str(text)), code=1)
        yield f"tokenizer.json: {name}", tokenizer

    def added_token():
        path = ctx.tmp / "tokenizer.json"
        token = {"id": 7, "content": EVIL, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                 "special": True}
        path.write_text(json.dumps({**base, "added_tokens": [token]}))
        return material.harmless(material.run(ctx, "tokenize", str(path), "--text", str(text)), code=0)
    yield "tokenizer.json: an added token's id, a warning of a run that goes on", added_token

    for name, content in SAFETENSORS.items():
        def safetensors_file(content=content):
            path = ctx.tmp / "EVIL.safetensors"
            path.write_bytes(content)
            return material.harmless(material.run(ctx, "cast", str(path), "-o", str(ctx.tmp / "o"), "--format", "mxfp4"), code=1)
        yield f"safetensors: {name}", safetensors_file

    def index():
        folder = folder_with(ctx, "indexed")
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../" + EVIL}}))
        return material.harmless(material.run(ctx, "inspect", str(folder)), code=1)
    yield "a shard's name in an index", index

    def subsets():
        path = ctx.tmp / "d.jsonl"
        path.write_text(json.dumps({"text": "one two", "meta": {"pile_set_name": EVIL}}) + "\n")
        return material.harmless(material.run(ctx, "eval", "--data", f"{path}::q"))
    yield "the list of a data set's subsets", subsets

    def configuration_file():
        path = ctx.tmp / "c.toml"
        path.write_text(f'"{WORD}" = 1\n'.replace("\n", " ") + "\n")
        return material.harmless(material.run(ctx, "eval", "--config", str(path)))
    yield "an option's name in a TOML file", configuration_file

    def plan():
        folder = ctx.tmp / "EVIL-journal"
        folder.mkdir(exist_ok=True)
        (folder / "plan.json").write_text(json.dumps({"version": EVIL}))
        return material.harmless(material.run(ctx, "eval", "--text", str(ctx.text), "--context", "32", "--max-windows", "1",
                                         "--journal", str(folder), "--resume"))
    yield "a journal's plan", plan

    for name, content in {"schema": {"schema": EVIL},
                          "percentile": {**material.result(), "runs": [{**material.result()["runs"][0], "variants": [
                              {"name": "a", "vs_baseline": {"kld_percentiles": {EVIL: 1}}}]}]}}.items():
        def results(content=content):
            path = ctx.tmp / "r.json"
            path.write_text(json.dumps(content))
            return material.harmless(material.run(ctx, "report", str(path), "-o", "-"), code=1)
        yield f"a result's {name}", results

    for words in OPTIONS:
        for kind, evil in {"": EVIL, ", bare bytes": b"EVIL\x9b[31m\xff\xc2"}.items():
            def option(words=words, evil=evil):
                shown = evil.decode("utf-8", "surrogateescape") if isinstance(evil, bytes) else evil
                done = material.run(ctx, *[word.replace("{}", shown) for word in words.split(" ")], timeout=120)
                return material.harmless(done, quotes=None) if done.returncode else "is taken"
            yield f"{words.replace('{}', 'NAME')}{kind}", option

    run = ("--text", str(ctx.text), "--context", "32", "--max-windows", "2", "--threads", "1", "--shard-tokens", "32")

    def names_in_a_run():
        folder = folder_with(ctx, "m" + EVIL)
        log = ctx.tmp / "log"
        done = material.run(ctx, "eval", str(folder), *run, "--mx", "mlp=mxfp4", "--journal", str(ctx.tmp / ("j" + EVIL)),
                       "--log-file", str(log))
        return material.harmless(done, code=0) or material.disrupts(log.read_bytes())
    yield "the model's and the journal's folder in a table and a log", names_in_a_run

    def names_in_inspect():
        return material.harmless(material.run(ctx, "inspect", str(folder_with(ctx, "m" + EVIL))), code=0)
    yield "the model's folder in inspect", names_in_inspect

    def faithful():
        done = material.run(ctx, "eval", str(folder_with(ctx, "m" + EVIL)), *run, "--no-journal", "--no-variants", "--quiet",
                       "--json", "-")
        name = json.loads(done.stdout)["runs"][0]["model"]["name"]
        return None if EVIL in name else f"the JSON has {name!r}"
    yield "JSON stays faithful", faithful
