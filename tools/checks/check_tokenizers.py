#!/usr/bin/env python3
"""Compare `mxlm tokenize` with Hugging Face `tokenizers` and transformers, id by id.

usage: check_tokenizers.py MXLM TOKENIZERS_DIR TEXT... [--only NAME,...] [--no-decode]
       check_tokenizers.py MXLM --folders FOLDER... [--texts TEXT...]
       check_tokenizers.py MXLM --random N [--seed S]

TOKENIZERS_DIR holds NAME/tokenizer.json (tools that make them: see docs). Each TEXT is encoded by both, without special
tokens, and decoded by both from the library's ids. --folders compares whole folders with AutoTokenizer, without and with
special tokens; --random does so for N variations of the folders that make_tokenizer_folder_goldens.py writes. Where mxlm
warns that transformers builds another tokenizer than tokenizer.json says, the library's ids of tokenizer.json count.
Exit code 1 if anything differs.
Needs: pip install tokenizers transformers sentencepiece.
"""
import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tokenizers

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))


def mxlm(binary, *arguments):
    done = subprocess.run([binary, "tokenize", *arguments], capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr.decode()[:500]}")
    return done.stdout


def first_difference(ours, theirs, tokenizer, text):
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    offset = tokenizer.encode(text, add_special_tokens=False).offsets[max(0, min(at, len(theirs) - 1))][0]
    around = text[max(0, offset - 15):offset + 15]
    return (f"token {at} of {len(theirs)} (ours {len(ours)}): ours {ours[at:at + 5]}, theirs {theirs[at:at + 5]} near "
            f"{around!r} {[hex(ord(c)) for c in around]}")


def check_folder(binary, folder, texts):
    """A word on how mxlm and AutoTokenizer differ in a folder; both may refuse it."""
    import transformers
    try:
        auto = transformers.AutoTokenizer.from_pretrained(str(folder))
    except Exception as error:
        auto, reason = None, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    for text in texts:
        for special in (False, True):
            with tempfile.NamedTemporaryFile("w", suffix=".txt", newline="") as file:
                file.write(text)
                file.flush()
                done = subprocess.run([binary, "tokenize", str(folder), "--text", file.name] + ["--special"] * special,
                                      capture_output=True)
            message = done.stderr.decode().strip()
            if done.returncode != 0:
                return f"refused by both: {message}" if auto is None else f"refused: {message}"
            if auto is None:
                return f"read, though transformers does not: {reason}"
            ours = json.loads(done.stdout)
            try:
                theirs = auto(text, add_special_tokens=special).input_ids
            except Exception as error:
                return f"read, though transformers does not encode: {error}"
            if "transformers 5 builds" in message:
                library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
                library.add_tokens([auto.added_tokens_decoder[i] for i in sorted(auto.added_tokens_decoder)])
                theirs = library.encode(text, add_special_tokens=special).ids
            if ours != theirs:
                return f"DIFFERENT ({type(auto).__name__}, special {special}): {text[:60]!r}: {ours[:20]} for {theirs[:20]}"
    return "equal"


def random_folders(count, seed):
    """Variations of the small folders: members of their files taken away, added and changed."""
    import make_tokenizer_folder_goldens as goldens
    rng = random.Random(seed)
    cases = list(goldens.cases())
    tokens = ["<s>", "</s>", "<pad>", "<unk>", "<|endoftext|>", "<user>", "<image>", "the", "[INST]", "hello"]
    classes = ["PreTrainedTokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "GPTNeoXTokenizerFast",
               "LlamaTokenizer", "LlamaTokenizerFast", "CohereTokenizerFast", "GemmaTokenizer", "TokenizersBackend",
               "BloomTokenizerFast", "UnheardOfTokenizer", None]
    types = ["llama", "mistral", "gpt2", "opt", "qwen2", "qwen3", "gpt_neox", "olmo", "olmo2", "phi", "phi3", "falcon", "gemma2",
             "stablelm", "starcoder2", "mpt", "cohere", "gpt_oss", "granite", "smollm3", "mixtral"]
    flag = lambda: rng.random() < 0.5

    def token(typed):
        content = rng.choice(tokens)
        if typed and flag():
            return content
        entry = {"content": content, "lstrip": flag(), "rstrip": flag(), "single_word": rng.random() < 0.2, "normalized": flag()}
        if typed is None:
            entry["special"] = flag()
        elif typed:
            entry["__type"] = "AddedToken"
        return entry

    for _ in range(count):
        name, files = rng.choice(cases)
        files = dict(files)
        config = json.loads(files.get("tokenizer_config.json", "{}"))
        for _ in range(rng.randint(0, 4)):
            key = rng.choice(["class", "drop", "named", "extra", "additional", "bos", "prefix", "legacy", "decoder", "own", "nan"])
            if key == "class":
                config["tokenizer_class"] = rng.choice(classes)
            elif key == "drop" and config:
                del config[rng.choice(list(config))]
            elif key == "named":
                config[rng.choice(["bos", "eos", "unk", "pad", "cls", "sep", "mask"]) + "_token"] = rng.choice([None, token(True), token(True)])
            elif key == "extra":
                config["extra_special_tokens"] = rng.choice([[], [token(True) for _ in range(3)], {"a_token": "<user>", "b": "<b>"}])
            elif key == "additional":
                config["additional_special_tokens"] = [token(True) for _ in range(rng.randint(0, 3))]
            elif key == "bos":
                config[rng.choice(["add_bos_token", "add_eos_token"])] = flag()
            elif key == "prefix":
                config["add_prefix_space"] = flag()
            elif key == "legacy":
                config["legacy"] = rng.choice([True, False, None])
            elif key == "decoder":
                config["added_tokens_decoder"] = {str(330 + i): token(None) for i in range(rng.randint(0, 4))}
            elif key == "own":
                config[rng.choice(["image_token", "audio_token"])] = "<image>"
            elif key == "nan":
                config["model_max_length"] = rng.choice([int(1e30), 1e30, 512])
        files["tokenizer_config.json"] = json.dumps(config)
        if config == {} or rng.random() < 0.05:
            del files["tokenizer_config.json"]
        if flag():
            files["special_tokens_map.json"] = json.dumps(
                {rng.choice(["bos", "eos", "pad"]) + "_token": rng.choice([token(False), "<pad>"]) for _ in range(2)}
                | ({"additional_special_tokens": ["<user>", "<s>"]} if flag() else {}))
        if rng.random() < 0.3:
            files["added_tokens.json"] = json.dumps({t: 330 + i for i, t in enumerate(rng.sample(tokens, 2))})
        if rng.random() < 0.4:
            files["config.json"] = json.dumps({"model_type": rng.choice(types)})
        with tempfile.TemporaryDirectory() as folder:
            goldens.write(files, Path(folder))
            yield name, files, Path(folder)


def check_folders(args):
    import logging
    import make_tokenizer_folder_goldens as goldens
    logging.disable(logging.WARNING)
    texts = [Path(t).read_bytes().decode("utf-8", errors="replace") for t in args.texts_of_folders] or goldens.TEXTS[2:]
    folders = ((str(f), None, f) for f in args.folders) if args.folders else random_folders(args.random, args.seed)
    counts = {}
    for name, files, folder in folders:
        # A random folder sees two texts, one of them full of tokens.
        verdict = check_folder(args.binary, folder, texts if args.folders else
                               [texts[hash(str(folder)) % len(texts)], "<s>the</s> <pad>hello <unk> <user> x<image>[INST] <|endoftext|>"])
        word = verdict.split(":")[0].split(" (")[0]
        counts[word] = counts.get(word, 0) + 1
        if files is None or word in ("DIFFERENT", "refused"):
            print(f"{name}: {verdict}", flush=True)
        if files is not None and word == "DIFFERENT":
            print("   ", {k: v for k, v in files.items() if k.endswith("config.json") or "tokens" in k or v[0] == "@"})
    print(counts)
    return counts.get("DIFFERENT", 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("texts", nargs="*", type=Path)
    parser.add_argument("--folders", nargs="+", type=Path, default=[])
    parser.add_argument("--texts", dest="texts_of_folders", nargs="+", default=[])
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--no-decode", action="store_true")
    args = parser.parse_args()
    if args.folders or args.random:
        sys.exit(1 if check_folders(args) else 0)
    if not args.texts:
        parser.error("TOKENIZERS_DIR and a TEXT are needed")
    only = set(filter(None, args.only.split(",")))
    print(f"tokenizers {tokenizers.__version__}")
    failures = 0
    for path in sorted(args.folder.glob("*/tokenizer.json")):
        name = path.parent.name
        if only and name not in only:
            continue
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
        for file in args.texts:
            text = file.read_bytes().decode("utf-8", errors="replace")
            started = time.time()
            theirs = tokenizer.encode(text, add_special_tokens=False).ids
            seconds = time.time() - started
            ours = json.loads(mxlm(args.binary, str(path), "--text", str(file)))
            verdict = "equal" if ours == theirs else "DIFFERENT: " + first_difference(ours, theirs, tokenizer, text)
            if ours == theirs and not args.no_decode:
                with tempfile.NamedTemporaryFile("w", suffix=".json") as ids:
                    json.dump(theirs, ids)
                    ids.flush()
                    decoded = mxlm(args.binary, str(path), "--text", ids.name, "--decode")
                if decoded != tokenizer.decode(theirs, skip_special_tokens=False).encode():
                    verdict = "equal, DECODED DIFFERENTLY"
            failures += "DIFFERENT" in verdict
            print(f"{name:14} {file.name:20} {len(theirs):9} ids ({seconds:5.2f} s) {verdict}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
