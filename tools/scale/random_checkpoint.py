#!/usr/bin/env python3
"""Writes a checkpoint of Llama's layout with random weights: what speed depends on, without a download.

usage: random_checkpoint.py OUT [--shape llama-3.1-8b|tiny] [--layers K] [--tokenizer FOLDER] [--text TOKENS]

Weights are BF16, normal with a standard deviation of 0.02 (norms: 1), cut out of one block of random numbers from another
offset each; its length is a prime, so that no two rows of a matrix are equal. The tokenizer is that of FOLDER
(models/booklet-7m), whose 4,096 tokens are the first of the vocabulary. --text also writes OUT/text.txt, random words
of at least so many tokens. Standard library only; 16 GB take as long as their writing. The same bytes every time.
"""
import argparse
import array
import json
import math
import os
import random
import shutil
import statistics
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPREAD = 0.02
BLOCK = 4194301  # elements; a prime
SHARD_BYTES = 2 << 30

SHAPES = {
    "llama-3.1-8b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                         "original_max_position_embeddings": 8192}},
    "tiny": {
        "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 4224, "max_position_embeddings": 2048,
        "rope_theta": 10000.0, "rope_scaling": None},
}


def config_of(shape):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
            "rms_norm_eps": 1e-05, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
            "bos_token_id": 0, "eos_token_id": 0, "initializer_range": SPREAD, **shape}


def tensors_of(config):
    """(name, shape) of every tensor, in the order of a forward pass."""
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        yield at + "input_layernorm.weight", (hidden,)
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            yield f"{at}self_attn.{name}_proj.weight", (rows, hidden)
        yield at + "self_attn.o_proj.weight", (hidden, q)
        yield at + "post_attention_layernorm.weight", (hidden,)
        yield at + "mlp.gate_proj.weight", (wide, hidden)
        yield at + "mlp.up_proj.weight", (wide, hidden)
        yield at + "mlp.down_proj.weight", (hidden, wide)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (config["vocab_size"], hidden)


def bfloat16(x):
    """Its upper half, rounded to the nearest; ties do not matter here."""
    return (struct.unpack("<I", struct.pack("<f", x))[0] + 0x8000) >> 16


def normal_block():
    """BLOCK normal numbers as BF16, several times over: the quantiles of 65,536 steps at random."""
    normal = statistics.NormalDist(0, SPREAD)
    quantiles = [bfloat16(normal.inv_cdf((i + 0.5) / 65536)) for i in range(65536)]
    steps = array.array("H", random.Random(1).randbytes(2 * BLOCK))
    block = array.array("H", map(quantiles.__getitem__, steps))
    if struct.pack("=H", 1) != struct.pack("<H", 1):
        block.byteswap()
    return block.tobytes() * 8


def write_shard(path, tensors, block):
    """`tensors`: (name, shape, number in the model)."""
    header, at = {}, 0
    for name, shape, _ in tensors:
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    view = memoryview(block)
    with open(path, "wb", buffering=0) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape, number in tensors:
            left = 2 * math.prod(shape)
            if len(shape) == 1:
                file.write(struct.pack("<H", bfloat16(1.0)) * shape[0])
                continue
            start = 2 * (number * 1000003 % BLOCK)
            while left > 0:
                written = file.write(view[start:start + min(left, len(view) - start)])
                left -= written
                start = (start + written) % (2 * BLOCK)


def write_checkpoint(out, shape, tokenizer):
    """Returns the bytes of all weights."""
    out.mkdir(parents=True, exist_ok=True)
    config = config_of(shape)
    shards, size, total = [[]], 0, 0
    for number, (name, dims) in enumerate(tensors_of(config)):
        bytes_ = 2 * math.prod(dims)
        if shards[-1] and size + bytes_ > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append((name, dims, number))
        size += bytes_
        total += bytes_
    names = ["model.safetensors"] if len(shards) == 1 else [
        f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    block = normal_block()
    with ThreadPoolExecutor(max_workers=min(len(shards), os.cpu_count() or 1)) as pool:
        for done in [pool.submit(write_shard, out / name, tensors, block) for name, tensors in zip(names, shards)]:
            done.result()
    if len(shards) > 1:
        weight_map = {tensor[0]: name for name, tensors in zip(names, shards) for tensor in tensors}
        (out / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    (out / "config.json").write_text(json.dumps(config, indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, out / name)
    return total


def random_text(tokens):
    """Words of two syllables or three, at least one token each."""
    generator = random.Random(2)
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in "aeiou"]
    words = ["".join(generator.choices(syllables, k=2 + i % 2)) for i in range(5000)]
    return " ".join(generator.choices(words, k=tokens)) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--tokenizer", type=Path, default=ROOT / "models/booklet-7m")
    parser.add_argument("--text", type=int, metavar="TOKENS")
    args = parser.parse_args()
    shape = dict(SHAPES[args.shape])
    if args.layers:
        shape["num_hidden_layers"] = args.layers
    total = write_checkpoint(args.out, shape, args.tokenizer)
    if args.text:
        (args.out / "text.txt").write_text(random_text(args.text))
    print(f"{args.out}: {total / 1e9:.2f} GB of weights")


if __name__ == "__main__":
    main()
