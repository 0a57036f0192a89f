#!/usr/bin/env python3
"""Write tests/data/text/folders.json: small folders of tokenizer files, with the ids that AutoTokenizer gives.

usage: make_tokenizer_folder_goldens.py [OUT.json]      (default: tests/data/text/folders.json beside this script)

Each case is a folder: names of files and their texts ("base64:..." for bytes). "@NAME" refers to "shared", as does the
"model" of a tokenizer.json. Where "oracle" is "tokenizers", transformers builds another tokenizer than tokenizer.json
says, and the ids are those of the `tokenizers` library on that file after the tokens of the files beside it were added.
Needs: pip install transformers==5.23.0 tokenizers==0.23.3 sentencepiece.
"""
import base64
import io
import json
import logging
import sys
import tempfile
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = Path(__file__).resolve().parents[2] / "tests/data/text/folders.json"
LINES = ["the quick brown fox jumps over the lazy dog", "she sells sea shells by the sea shore", "the theory of the thing",
         "numbers 2026 and 10,000 are here", "don't they'll we've I'm", "naïve café über straße", "hello world, hello there"]
TEXTS = ["", " ", "hello world", " hello  world ", "the quick\n\nfox don't", "<s>hello</s> the<s> fox", "café \u00e9 e\u0301 \u4f60\U0001f600",
         "<|endoftext|>the <|im_start|> sea <|im_end|>\n fox", "[INST] the [/INST]<pad><unk> <image>the<extra_1>",
         "2026 and 10,000", "the\u2581fox \u2581", "a\tb\r\nc", "<bos>the<eos> <mask> <TOOL>the Tool>", "<0x41>hello\u00a0there <user>x<user>"]


def byte_level_vocabulary():
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(LINES * 3, trainers.BpeTrainer(vocab_size=330, show_progress=False,
                                                         initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(t.to_str())["model"]
    return model["vocab"], [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]


def sentencepiece_model(kind, **options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 5), model_writer=out, model_type=kind, vocab_size=options.pop("vocab_size", 340),
        byte_fallback=options.pop("byte_fallback", True), hard_vocab_limit=False, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, **options)
    return "base64:" + base64.b64encode(out.getvalue()).decode()


def special(content, **flags):
    return dict({"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                 "special": True}, **flags)


def typed(content, **flags):
    token = special(content, **flags)
    del token["special"]
    return dict(token, __type="AddedToken")


VOCAB, MERGES = byte_level_vocabulary()
END = len(VOCAB)
GPT2_VOCAB = json.dumps(dict(VOCAB, **{"<|endoftext|>": END}), ensure_ascii=False)
OPT_VOCAB = json.dumps(dict({"<s>": END, "<pad>": END + 1, "</s>": END + 2, "<unk>": END + 3}, **VOCAB), ensure_ascii=False)
LLAMA = sentencepiece_model("bpe")
USER = sentencepiece_model("bpe", user_defined_symbols=["<user>", "[INST]"], control_symbols=["<TOOL>"])
GEMMA = sentencepiece_model("bpe", pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>", bos_piece="<bos>",
                            eos_piece="<eos>", user_defined_symbols=["<mask>"], add_dummy_prefix=False)
UNIGRAM = sentencepiece_model("unigram", vocab_size=130, byte_fallback=False)
SHARED = {"gpt2_vocab": GPT2_VOCAB, "merges": "#version: 0.2\n" + "\n".join(MERGES) + "\n", "opt_vocab": OPT_VOCAB,
          "llama_model": LLAMA, "user_model": USER, "gemma_model": GEMMA, "unigram_model": UNIGRAM}


def byte_level_json(pre=None, post=None, added=(), normalizer=None, vocab=GPT2_VOCAB):
    t = Tokenizer(models.BPE(vocab=json.loads(vocab), merges=[tuple(m.split(" ")) for m in MERGES]))
    t.pre_tokenizer = pre or pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    t.post_processor = post or processors.ByteLevel(trim_offsets=False)
    t.add_tokens(list(added))
    return t.to_str()


def bos_template(token, id):
    return processors.TemplateProcessing(single=f"{token} $A", pair=f"{token} $A {token} $B", special_tokens=[(token, id)])


def llama_json(folder):
    """What LlamaTokenizerFast of transformers 4 saved: Prepend and Replace, no pre-tokenizer, a template."""
    whole = json.loads(transformers.LlamaTokenizer.from_pretrained(folder).backend_tokenizer.to_str())
    whole["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}
    whole["pre_tokenizer"] = None
    whole["model"]["unk_token"] = "<unk>"
    whole["post_processor"] = json.loads(byte_level_json(post=bos_template("<s>", 1)))["post_processor"]
    return json.dumps(whole, ensure_ascii=False)


def config(model_type, **more):
    return json.dumps(dict({"model_type": model_type}, **more))


def cases():
    qwen = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
        behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                      pre_tokenizers.ByteLevel(add_prefix_space=False)])
    end = AddedToken("<|endoftext|>", special=True)
    im = {str(END): special("<|endoftext|>"), str(END + 1): special("<|im_start|>"), str(END + 2): special("<|im_end|>", rstrip=True)}
    gpt2 = {"vocab.json": "@gpt2_vocab", "merges.txt": "@merges"}
    opt = {"vocab.json": "@opt_vocab", "merges.txt": "@merges", "config.json": config("opt")}
    opt_special = {k: special(v, normalized=True) for k, v in
                   {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}.items()}
    for token in opt_special.values():
        del token["special"]
    # --- vocab.json and merges.txt alone
    yield "opt", dict(opt, **{
        "tokenizer_config.json": json.dumps({
            "errors": "replace", "add_prefix_space": False, "add_bos_token": True, "tokenizer_class": "GPT2Tokenizer",
            "model_max_length": int(1e30), **{k: typed(v["content"], normalized=True) for k, v in opt_special.items()}}),
        "special_tokens_map.json": json.dumps(opt_special)})
    yield "opt without a tokenizer_config.json", opt
    yield "gpt2", dict(gpt2, **{"config.json": config("gpt2")})
    yield "gpt2 with a CR before each LF and no #version", {
        "vocab.json": "@gpt2_vocab", "merges.txt": "\r\n".join(MERGES), "config.json": config("gpt_neo"),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True})}
    yield "phi with added_tokens.json", dict(gpt2, **{
        "config.json": config("phi"), "added_tokens.json": json.dumps({"\t\t": END + 2, "  ": END + 1}),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "CodeGenTokenizer", "bos_token": "<|endoftext|>"})})
    yield "qwen2", dict(gpt2, **{
        "config.json": config("qwen2"), "tokenizer_config.json": json.dumps({
            "added_tokens_decoder": im, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "bos_token": None,
            "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer"})})
    yield "gpt_neox with BOS", dict(gpt2, **{
        "config.json": config("gpt_neox"),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": True, "add_eos_token": True})})
    yield "cohere", dict(gpt2, **{"config.json": config("cohere")})
    yield "roberta", dict(opt, **{"config.json": config("roberta")})
    # --- tokenizer.model alone
    yield "vicuna", {
        "tokenizer.model": "@llama_model", "config.json": config("llama"),
        "special_tokens_map.json": json.dumps({k: {kk: vv for kk, vv in special(v, normalized=True).items() if kk != "special"}
                                               for k, v in {"bos_token": "<s>", "eos_token": "</s>"}.items()}
                                              | {"pad_token": "<unk>", "unk_token": "<unk>"}),
        "tokenizer_config.json": json.dumps({
            "add_bos_token": True, "add_eos_token": False, "bos_token": typed("<s>", normalized=True),
            "eos_token": typed("</s>", normalized=True), "unk_token": typed("<unk>", normalized=True), "pad_token": None,
            "legacy": False, "model_max_length": int(1e30), "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer"})}
    yield "llama, legacy", {
        "tokenizer.model": "@user_model", "config.json": config("llama"),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_eos_token": True})}
    yield "llama, legacy null and no prefix space", {
        "tokenizer.model": "@user_model", "config.json": config("llama"), "added_tokens.json": json.dumps({"<pad>": 400}),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "LlamaTokenizer", "legacy": None, "add_bos_token": True,
                                             "add_prefix_space": False, "additional_special_tokens": []})}
    yield "llama without a tokenizer_config.json", {"tokenizer.model": "@llama_model", "config.json": config("llama")}
    yield "mistral, user symbols", {
        "tokenizer.model": "@user_model", "config.json": config("mistral"),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "LlamaTokenizer", "add_bos_token": True,
                                             "added_tokens_decoder": {"0": special("<unk>"), "1": special("<s>"), "2": special("</s>")}})}
    yield "gemma", {
        "tokenizer.model": "@gemma_model", "config.json": config("gemma2"),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "GemmaTokenizer", "add_bos_token": True})}
    yield "code llama", {
        "tokenizer.model": "@llama_model", "config.json": config("llama"),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "CodeLlamaTokenizer"})}
    yield "a unigram model", {"tokenizer.model": "@unigram_model", "config.json": config("stablelm")}
    # --- vocab.txt alone
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + list("abcdefghijklmnopqrstuvwxyz,'0123456789") + [
        "##" + c for c in "abcdefghijklmnopqrstuvwxyz0123456789"] + ["the", "hello", "##ing", "world", "cafe"]
    yield "bert", {"vocab.txt": "\n".join(words) + "\n", "config.json": config("bert")}
    # --- files beside tokenizer.json
    fast = {"config.json": config("llama")}
    yield "flags in added_tokens_decoder", dict(fast, **{
        "tokenizer.json": byte_level_json(added=[end, AddedToken("<user>", special=True)]),
        "tokenizer_config.json": json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "add_bos_token": True, "added_tokens_decoder": {
                str(END): special("<|endoftext|>", rstrip=True), str(END + 1): special("<user>", lstrip=True, single_word=True),
                str(END + 2): special("[INST]", special=False, normalized=True), str(END + 3): special("<s>")}})})
    yield "special_tokens_map.json and added_tokens.json", dict(fast, **{
        "tokenizer.json": byte_level_json(added=[end]),
        "added_tokens.json": json.dumps({"<pad>": END + 1, "<image>": END + 2}),
        "special_tokens_map.json": json.dumps({"bos_token": "<s>", "pad_token": "<pad>", "eos_token": {
            "content": "</s>", "lstrip": True, "normalized": False, "rstrip": False, "single_word": False},
            "additional_special_tokens": ["[INST]", "[/INST]"]}),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"})})
    yield "a role of special_tokens_map.json alone", dict(fast, **{
        "tokenizer.json": byte_level_json(added=[end]),
        "special_tokens_map.json": json.dumps({"image_token": "<image>", "extra_special_tokens": ["<user>", "<TOOL>"]}),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "audio_token": typed("<extra_1>"),
                                             "extra_special_tokens": ["<user>"]})})
    yield "added_tokens.json against tokenizer.json", dict(fast, **{
        "tokenizer.json": byte_level_json(added=[end]), "added_tokens.json": json.dumps({"<s>": END, "<pad>": END + 1}),
        "special_tokens_map.json": json.dumps({"bos_token": {"content": "<s>", "lstrip": True}, "pad_token": "<pad>"}),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": typed("<pad>", rstrip=True)})})
    yield "extra_special_tokens by name", dict(fast, **{
        "tokenizer.json": byte_level_json(added=[end], post=bos_template("<|endoftext|>", END)),
        "tokenizer_config.json": json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", "image_token": "<image>", "eos_token": "<|endoftext|>",
            "extra_special_tokens": {"tool_token": "<TOOL>", "first": "<extra_1>"}})})
    yield "extra_special_tokens as a list", dict(fast, **{
        "tokenizer.json": byte_level_json(added=[end]),
        "tokenizer_config.json": json.dumps({
            "tokenizer_class": "TokenizersBackend", "additional_special_tokens": ["<image>"], "eos_token": "<|endoftext|>",
            "extra_special_tokens": ["<TOOL>", "<user>"]})})
    yield "additional_special_tokens with flags", dict(fast, **{
        "tokenizer.json": byte_level_json(added=[end]), "config.json": config("falcon"),
        "tokenizer_config.json": json.dumps({
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>",
            "additional_special_tokens": [typed("<image>", lstrip=True), "<user>"]})})
    yield "tokenizer.json alone", {"tokenizer.json": byte_level_json(added=[end]), "config.json": config("gpt_oss")}
    yield "LlamaTokenizer with ByteLevel", dict(fast, **{
        "tokenizer.json": byte_level_json(added=[AddedToken("<s>", special=True)], post=bos_template("<s>", END + 1)),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False, "eos_token": "</s>"})})
    yield "Qwen2Tokenizer as its tokenizer.json", {
        "config.json": config("qwen3"), "tokenizer.json": byte_level_json(pre=qwen, normalizer=normalizers.NFC(), added=[end]),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": im, "eos_token": "<|im_end|>"})}
    yield "CohereTokenizer as its tokenizer.json", {
        "config.json": config("cohere"), "tokenizer.json": byte_level_json(
            pre=digits, normalizer=normalizers.NFC(), added=[end, AddedToken("<bos>", special=True)], post=bos_template("<bos>", END + 1)),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "CohereTokenizerFast", "bos_token": "<bos>", "eos_token": "<eos>",
                                             "pad_token": "<pad>", "unk_token": None, "cls_token": "<CLS>"})}
    yield "GPT2Tokenizer with a prefix space that tokenizer.json lacks", {
        "config.json": config("gpt2"), "tokenizer.json": byte_level_json(added=[end]),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True})}
    yield "GPTNeoXTokenizer with digits apart and a template", {
        "config.json": config("olmo"), "tokenizer.json": byte_level_json(pre=digits, added=[end], post=bos_template("<|endoftext|>", END)),
        "tokenizer_config.json": json.dumps({"tokenizer_class": "GPTNeoXTokenizer", "add_bos_token": True, "pad_token": "<pad>"})}
    with tempfile.TemporaryDirectory() as folder:
        write({"tokenizer.model": "@llama_model"}, Path(folder))
        llama = llama_json(folder)
    llama_config = json.dumps({"tokenizer_class": "LlamaTokenizer", "bos_token": typed("<s>"), "eos_token": typed("</s>"),
                               "unk_token": typed("<unk>"), "pad_token": "<pad>", "legacy": False})
    yield "LlamaTokenizer with Prepend", {"tokenizer.json": llama, "config.json": config("llama"),
                                          "tokenizer_config.json": llama_config}
    yield "MistralTokenizer with Prepend", {"tokenizer.json": llama, "config.json": config("mistral"),
                                            "tokenizer_config.json": llama_config}
    yield "phi3 with Prepend", {"tokenizer.json": llama, "config.json": config("phi3"), "tokenizer_config.json": llama_config}


def text_of(content):
    if content.startswith("@"):
        return text_of(SHARED[content[1:]])
    return base64.b64decode(content[7:]) if content.startswith("base64:") else content.encode()


def write(files, folder):
    for name, content in files.items():
        (folder / name).write_bytes(text_of(content))


def shared_model(text):
    """The text of a tokenizer.json with its model by name, which is kept once."""
    whole = json.loads(text)
    model = json.dumps(whole["model"], ensure_ascii=False)
    name = next((n for n, m in SHARED.items() if m == model), f"model_{len(SHARED)}")
    SHARED[name] = model
    return json.dumps(dict(whole, model="@" + name), ensure_ascii=False)


def golden(name, files):
    with tempfile.TemporaryDirectory() as folder:
        write(files, Path(folder))
        auto = transformers.AutoTokenizer.from_pretrained(folder)
        out = {"name": name, "class": type(auto).__name__, "oracle": "transformers", "files": dict(files),
               "ids": [auto(t, add_special_tokens=False).input_ids for t in TEXTS],
               "special": [auto(t).input_ids for t in TEXTS]}
        library = auto.backend_tokenizer
        if "tokenizer.json" in files:
            library = Tokenizer.from_file(folder + "/tokenizer.json")
            library.add_tokens([auto.added_tokens_decoder[i] for i in sorted(auto.added_tokens_decoder)])
            theirs = {"ids": [library.encode(t, add_special_tokens=False).ids for t in TEXTS],
                      "special": [library.encode(t).ids for t in TEXTS]}
            if theirs != {k: out[k] for k in theirs}:
                out.update(theirs, oracle="tokenizers")
            out["files"]["tokenizer.json"] = shared_model(files["tokenizer.json"])
        for role in ("bos", "eos", "pad"):
            token = getattr(auto, role + "_token")
            out[role] = -1 if token is None else library.token_to_id(token)
        out["decoded"] = library.decode(out["special"][2], skip_special_tokens=False)
        return out


def main():
    logging.disable(logging.WARNING)
    out = {"made_by": f"tools/goldens/make_tokenizer_folder_goldens.py with transformers {transformers.__version__}, tokenizers "
                      f"{tokenizers.__version__}, sentencepiece {sentencepiece.__version__}",
           "texts": TEXTS, "shared": SHARED, "cases": []}
    for name, files in cases():
        c = golden(name, files)
        out["cases"].append(c)
        print(f"{name}: {c['class']}, {c['oracle']}, {c['special'][2]} {c['decoded']!r}")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    path.write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
