#!/usr/bin/env python3
"""Writes tests/data/eval/protocol_figures.json: figures of booklet-7m in float32 under the protocols hf-stride, lmeval
and self, by independent implementations, on the first bytes of data/wiki.test.raw (and of data/alice.txt as a text
that is no WikiText).

* hf-stride: the loop of the Hugging Face guide "Perplexity of fixed-length models".
* lmeval: lm-evaluation-harness itself: its HFLM, its wikitext task with the pages read from a file, and a plain
  loglikelihood_rolling task whose target is the text.
* self: the formula in torch: documents padded on the right, the padding masked as keys, the most likely token of each
  position scored at that position.

Usage: tools/goldens/make_protocol_figures.py [OUT]   (needs torch, transformers, lm-eval, accelerate; versions in the file)
"""

import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import lm_eval
import lm_eval.tasks
import torch
import transformers
import yaml
from lm_eval.models.huggingface import HFLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/booklet-7m"
DEFAULT_OUT = ROOT / "tests/data/eval/protocol_figures.json"


def wikitext_pages(text):
    """As the loader of EleutherAI/wikitext_document_level cuts the raw file."""
    pages, lines = [], []
    for line in text.split("\n"):
        title = line.replace("= = =", "===").replace("= =", "==").strip()
        if title.startswith("= ") and title.endswith(" ="):
            if "\n".join(lines).strip():
                pages.append("\n".join(lines))
            lines = []
        lines.append(line)
    return pages + ["\n".join(lines)]


def wikitext_rows(text):
    return [line if line.strip() else "" for line in text.splitlines(keepends=True)]


def hf_stride(model, tokenizer, text, max_length, stride):
    encodings = tokenizer(text, return_tensors="pt")
    seq_len = encodings.input_ids.size(1)
    nll_sum, n_tokens, prev_end_loc = 0.0, 0, 0
    for begin_loc in range(0, seq_len, stride):
        end_loc = min(begin_loc + max_length, seq_len)
        trg_len = end_loc - prev_end_loc  # may be different from stride on last loop
        input_ids = encodings.input_ids[:, begin_loc:end_loc]
        target_ids = input_ids.clone()
        target_ids[:, :-trg_len] = -100
        with torch.no_grad():
            neg_log_likelihood = model(input_ids, labels=target_ids).loss.double()
        num_valid_tokens = (target_ids != -100).sum().item()
        num_loss_tokens = num_valid_tokens - target_ids.size(0)  # the labels are shifted inside
        nll_sum += neg_log_likelihood * num_loss_tokens
        n_tokens += num_loss_tokens
        prev_end_loc = end_loc
        if end_loc == seq_len:
            break
    return (nll_sum / n_tokens).item()


def lm_eval_task(name, pages, directory):
    """The harness's own wikitext task on pages of ours, or the same task without its detokeniser and word count."""
    folder = pathlib.Path(lm_eval.__file__).parent / "tasks/wikitext"
    (directory / "preprocess_wikitext.py").write_text((folder / "preprocess_wikitext.py").read_text())
    data = directory / f"{name}.jsonl"
    data.write_text("".join(json.dumps({"page": page}) + "\n" for page in pages))
    config = yaml.load((folder / "wikitext.yaml").read_text().replace("!function ", "function:"), yaml.SafeLoader)
    config.update(task=name, dataset_path="json", dataset_name=None, should_decontaminate=False,
                  dataset_kwargs={"data_files": {"test": str(data)}, "cache_dir": str(directory)})
    del config["training_split"], config["validation_split"], config["doc_to_decontamination_query"]
    if name == "plain":
        config["doc_to_target"] = "{{page}}"
        del config["process_results"]
    text = yaml.safe_dump(config).replace("'function:", "!function ").replace("function:", "!function ")
    text = text.replace("detokenizer'", "detokenizer").replace("process_results'", "process_results")
    (directory / f"{name}.yaml").write_text(text)


def lmeval(model, tokenizer, pages, plain, max_length):
    lm = HFLM(pretrained=model, tokenizer=tokenizer, max_length=max_length, batch_size=1, device="cpu")
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        task = "plain" if plain else "wiki_pages"
        lm_eval_task(task, pages, directory)
        manager = lm_eval.tasks.TaskManager(include_path=name, include_defaults=False)
        results = lm_eval.simple_evaluate(lm, tasks=[task], task_manager=manager, bootstrap_iters=0)["results"][task]
    return {key: results[f"{key},none"] for key in ("word_perplexity", "byte_perplexity", "bits_per_byte")}


def self_figures(model, tokenizer, documents, length):
    """The loss of each position's own most likely token, and the entropy with log(p + 1e-12)."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    nll, entropy = [], []
    for text in documents:
        ids = tokenizer(text, truncation=True, max_length=length).input_ids
        mask = [1] * len(ids) + [0] * (length - len(ids))
        ids = ids + [pad] * (length - len(ids))
        with torch.no_grad():
            logits = model(torch.tensor([ids]), attention_mask=torch.tensor([mask])).logits[0].float()
        targets = logits.argmax(-1)
        nll.append(torch.nn.functional.cross_entropy(logits, targets, reduction="none").double())
        p = logits.softmax(-1)
        entropy.append(-(p.double() * (p.double() + 1e-12).log()).sum(-1))
    nll, entropy = torch.cat(nll), torch.cat(entropy)
    return {"self_nll": nll.mean().item(), "self_perplexity": nll.mean().exp().item(),
            "mean_entropy": entropy.mean().item(), "positions": nll.numel()}


def main():
    torch.set_num_threads(1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager")
    wiki = (ROOT / "data/wiki.test.raw").read_bytes()
    wiki = wiki[: wiki.index(b"\n = Du Fu = \n") + 1 + 4000]
    wiki = wiki[: wiki.rindex(b"\n") + 1]
    alice = (ROOT / "data/alice.txt").read_bytes()[:6000]
    rows = wikitext_rows(wiki.decode())
    pages = wikitext_pages(wiki.decode())
    documents = [row for row in rows if row]
    cases = []

    def case(text, protocol, context, figures, **more):
        cases.append({"text": text, "protocol": protocol, "context": context, **more, "figures": figures})
        print(cases[-1])

    joined = "\n\n".join(rows)
    for context, stride in ((256, 128), (256, 256), (200, 77), (1024, 512)):
        case("wiki", "hf-stride", context, {"nll": hf_stride(model, tokenizer, joined, context, stride)}, stride=stride)
    case("alice", "hf-stride", 300, {"nll": hf_stride(model, tokenizer, alice.decode(), 300, 100)}, stride=100)
    for context in (256, 1024):
        case("wiki", "lmeval", context, lmeval(model, tokenizer, pages, False, context), pages=len(pages))
    case("alice", "lmeval", 256, lmeval(model, tokenizer, [alice.decode()], True, 256), pages=1)
    case("wiki", "self", 96, self_figures(model, tokenizer, documents, 96), documents=len(documents))
    case("alice", "self", 512, self_figures(model, tokenizer, [alice.decode()[:500]], 512), bytes=500)

    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_OUT
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("torch", "transformers", "lm-eval"))
    out.write_text(json.dumps({
        "made_with": f"tools/goldens/make_protocol_figures.py, {versions}, float32, eager attention, CPU",
        "texts": {"wiki": {"file": "data/wiki.test.raw", "bytes": len(wiki)},
                  "alice": {"file": "data/alice.txt", "bytes": len(alice)}},
        "cases": cases,
    }, indent=1) + "\n")


if __name__ == "__main__":
    main()
