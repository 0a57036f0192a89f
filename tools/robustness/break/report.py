"""`report` on files that are small and mean much: an end in time, in memory, with a page or one sentence."""
import json
import time

from . import _material as material

KILOBYTES = 2_000_000


def listed(item, count):
    return "[" + ",".join([item] * count) + "]"


def document(runs):
    return '{"schema":"mxlm.eval/1","runs":' + runs + "}"


def run_with(variants, more=""):
    return '{"model":{},"data":{},"protocol":{},"variants":' + variants + more + "}"


def one(member, item, count, variants=1):
    return document("[" + run_with(listed('{"name":"a","' + member + '":' + listed(item, count) + "}", variants)) + "]")


def of_run(member, item, count):
    return document("[" + run_with('[{"name":"a"}]', ',"' + member + '":' + listed(item, count)) + "]")


def percentiles(variants):
    items = ",".join('{"name":"a","vs_baseline":{"kld_percentiles":{%s}}}' %
                     ",".join(f'"{v}.{i}":1' for i in range(500)) for v in range(variants))
    return document("[" + run_with("[" + items + "]") + "]")


BOMBS = {
    "100 runs of 10,000 variants": lambda: document(listed(run_with(listed('{"name":"a"}', 10_000)), 100)),
    "30 runs of 10,000 variants": lambda: document(listed(run_with(listed('{"name":"a"}', 10_000)), 30)),
    "1,000 runs of 1,000 variants": lambda: document(listed(run_with(listed('{"name":"a"}', 1_000)), 1_000)),
    "a variant of 1,000,000 linears": lambda: one("linears", "{}", 1_000_000),
    "three variants of 1,000,000 linears": lambda: one("linears", "{}", 1_000_000, 3),
    "a variant of 3,000,000 layers": lambda: one("layers", "{}", 3_000_000),
    "a variant of 3,000,000 products": lambda: one("replaced", "{}", 3_000_000),
    "1,000,000 histograms": lambda: of_run("exponents", '{"weight":{"first":0,"counts":[1]}}', 1_000_000),
    "1,000,000 subsets": lambda: of_run("subsets", '{"variants":[{}]}', 1_000_000),
    "3,000,000 pairs": lambda: of_run("pairs", "{}", 3_000_000),
    "500 percentiles each of 1,000 variants": lambda: percentiles(1_000),
    "10,000 rows of a name of 1 MB": lambda: document(
        "[" + run_with(listed('{"name":"a"}', 10_000)).replace('"model":{}', '"model":{"name":"' + "x" * 999_999 + '"}')
        + "]"),
    "40 MB of nothing": lambda: " " * 40_000_000 + document("[]"),
    "a string of 70 MB": lambda: document("[" + run_with('[{"name":"' + "x" * 70_000_000 + '"}]') + "]"),
}
BROKEN = {
    "an empty file": "", "no JSON": "{", "a number": "1", "nesting": "[" * 100_000 + "]" * 100_000,
    "another schema": '{"schema":"mxlm.eval/9"}', "runs that are a string": document('"x"'),
    "a huge count": document("[" + run_with('[{"name":"a","tokens":1' + "0" * 400 + "}]") + "]"),
    "a negative count": document("[" + run_with('[{"name":"a","tokens":-1}]') + "]"),
    "a layer that is a million": one("layers", '{"layer":1000000}', 1),
    "no variant's name": document("[" + run_with("[{}]") + "]"),
}


def trials(ctx):
    for name, make in BOMBS.items():
        for option in ("-o", "--csv"):
            def bomb(make=make, option=option):
                path = ctx.tmp / "bomb.json"
                path.write_text(make())
                begin = time.monotonic()
                done = material.limited(ctx, ["report", path, option, ctx.tmp / "bomb.out"], KILOBYTES)
                path.unlink()
                took = time.monotonic() - begin
                if took > 30:
                    return f"took {took:.0f} s"
                if done.returncode == 0:
                    return None
                if b"Out of memory" in done.stderr or b"--batch-size" in done.stderr:
                    return f"advice that is not of report: {done.stderr[-200:]!r}"
                return material.one_sentence(done)
            yield f"{name}, {option}", bomb
    for name, text in BROKEN.items():
        def broken(text=text):
            path = ctx.tmp / "broken.json"
            path.write_text(text)
            return material.one_sentence(material.run(ctx, "report", str(path), "-o", str(ctx.tmp / "broken.html")))
        yield name, broken

    def invalid_utf8():
        path = ctx.tmp / "broken.json"
        path.write_bytes(b'{"schema":"\xff"}')
        return material.one_sentence(material.run(ctx, "report", str(path), "-o", str(ctx.tmp / "broken.html")))
    yield "invalid UTF-8", invalid_utf8

    def many_files():
        path = ctx.tmp / "many.json"
        path.write_text(document(listed(run_with(listed('{"name":"a"}', 3_000)), 1)))
        done = material.limited(ctx, ["report", *[path] * 300, "-o", ctx.tmp / "many.html"], KILOBYTES)
        return None if done.returncode == 0 else material.one_sentence(done)
    yield "300 files of 3,000 variants", many_files

    def eval_writes():
        lines = (json.dumps({"text": "one two", "meta": {"pile_set_name": f"s{n}"}}) for n in range(11_000))
        data, out = ctx.tmp / "subsets.jsonl", ctx.tmp / "subsets.json"
        data.write_text("\n".join(lines) + "\n")
        done = material.run(ctx, "eval", str(ctx.model), "--data", str(data), "--context", "16", "--max-samples", "20000",
                       "--max-windows", "11000", "--no-variants", "--quiet", "--no-journal", "--json", str(out),
                       "--html", str(ctx.tmp / "subsets.html"), timeout=300)
        if done.returncode != 0:
            return f"eval: {done.stderr[-200:]!r}"
        done = material.run(ctx, "report", str(out), "-o", str(ctx.tmp / "again.html"))
        return None if done.returncode == 0 else f"report: {done.stderr[-200:]!r}"
    yield "11,000 subsets that eval wrote", eval_writes
