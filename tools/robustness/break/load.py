"""Sizes at both ends: contexts, texts, documents, variants."""
import json

from ._common import digits, ended_well, evaluation, runs


def trials(ctx):
    def well(*more, codes=(0, 1), text=True, timeout=120):
        def trial():
            folder = ctx.folder()
            return ended_well(ctx.run(*evaluation(ctx, "--no-journal", "--max-windows", "4", "--json", folder / "o.json",
                                                  *more, text=text), timeout=timeout), codes)
        return trial

    for context in (1, 2, 3, 2047, 2048, 2049, 1 << 31, 1 << 62):
        yield f"--context {context}", well("--context", context, codes=(0, 1, 2))
    for protocol in ("window", "document", "gptq", "hf-stride", "llamacpp", "lmeval", "self"):
        yield f"{protocol} with a context of 2", well("--protocol", protocol, "--context", "2", codes=(0, 1, 2))
    yield "a stride of 1", well("--protocol", "hf-stride", "--stride", "1", codes=(0,))

    def text_of(content, codes=(0, 1)):
        path = ctx.folder() / "t.txt"
        path.write_bytes(content)
        return well("--text", path, text=False, codes=codes)

    yield "an empty text", text_of(b"", (1,))
    yield "one letter", text_of(b"a", (0, 1))
    yield "two letters", text_of(b"a b", (0, 1))
    yield "4,000 NULs", text_of(b"\0" * 4000)
    yield "bytes that are no text", text_of(bytes(range(256)) * 50)
    yield "one repeated token", text_of(b"the " * 5000, (0,))
    yield "a word of a million letters", text_of(b"a" * 1000000, (0,))
    yield "spaces alone", text_of(b" " * 100000, (0,))
    yield "newlines alone", text_of(b"\n" * 100000, (0,))
    yield "combining marks alone", text_of("\u0301".encode() * 50000, (0,))

    def lines(documents, *more, codes=(0,), timeout=120):
        def trial():
            path = ctx.folder() / "d.jsonl"
            path.write_text("".join(json.dumps(d) + "\n" for d in documents()))
            return well("--data", path, "--max-windows", "50", *more, text=False, codes=codes, timeout=timeout)()
        return trial

    yield "20,000 documents of one word", lines(lambda: ({"text": "word word"} for _ in range(20000)))
    yield "2,000 subsets", lines(lambda: ({"text": "some words here", "meta": {"pile_set_name": f"s{i}"}}
                                          for i in range(2000)), "--max-windows", "2000")
    yield "a document of 20 MB", lines(lambda: [{"text": "Alice was beginning to get very tired. " * 500000}])
    yield "empty documents", lines(lambda: ({"text": ""} for _ in range(100)), codes=(1,))
    yield "documents of one token", lines(lambda: ({"text": "a"} for _ in range(100)), codes=(1,))

    def many_variants(count):
        def trial():
            folder = ctx.folder()
            more = [a for i in range(count) for a in ("--mx", f"v{i}: mlp=mxfp4@block={8 + i}")]
            outcome = ctx.run("eval", "--device", "cpu", "--quiet", "--no-journal", "--context", "32", "--max-windows", "1",
                              "--text", ctx.text, *more, "--json", folder / "o.json", "--html", folder / "o.html",
                              timeout=200)
            return ended_well(outcome) or (
                None if len(runs(folder / "o.json")[0]["variants"]) == count + 1 else "not all variants")
        return trial

    for count in (1, 10, 60):
        yield f"{count} variants with a page", many_variants(count)

    def first_windows(protocol, *more):
        """The windows of --max-windows are the first ones, though less of the text is tokenised."""
        def trial():
            folder = ctx.folder()
            text = folder / "t.txt"
            text.write_bytes(ctx.text.read_bytes()[:40000])
            heads = []
            for size in ("3", "1000000"):
                out = folder / f"{size}.csv"
                outcome = ctx.run(*evaluation(ctx, "--text", text, "--quiet", "--no-journal", "--protocol", protocol,
                                              "--max-windows", size, "--per-token", out, *more, text=False))
                if (said := ended_well(outcome)) is not None:
                    return said
                heads.append(out.read_text().splitlines())
            few, all_rows = heads
            return None if few == all_rows[:len(few)] and len(few) > 10 else "other tokens than the first ones"
        return trial

    for protocol in ("window", "gptq", "hf-stride", "llamacpp"):
        yield f"{protocol}: --max-windows takes the first windows", first_windows(protocol)
    yield "hf-stride with a stride of 7: the first windows", first_windows("hf-stride", "--stride", "7")
