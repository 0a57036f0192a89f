"""What several groups of trials need: results of any content, and checks of what was printed."""
import json
import subprocess
import unicodedata

# A window title, a forged line, a C1 control, a mark that turns text around, a line separator, a byte order mark.
EVIL = "EVIL\x1b]0;title\x07\nmxlm: error: fake\r\u009b[31m\u202etxt\u2066\u2028\ufeff"


def run(ctx, *arguments, timeout=60):
    """Runs mxlm; its output stays bytes, for carriage returns and bytes that are no UTF-8 are what is looked for."""
    return subprocess.run([str(ctx.mxlm), *map(str, arguments)], capture_output=True, timeout=timeout, cwd=ctx.tmp,
                          env=ctx.environment(), stdin=subprocess.DEVNULL)


def disrupts(data, kept=b"\n"):
    """What a terminal would obey, or nothing: control characters, bare bytes, marks of direction, separators."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"a bare byte at {error.start}: {data[max(0, error.start - 20):error.start + 20]!r}"
    for i, c in enumerate(text):
        if c.encode() in [bytes([b]) for b in kept]:
            continue
        bidirectional = unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        if unicodedata.category(c) in ("Cc", "Zl", "Zp") or bidirectional or c == "\ufeff":
            return f"U+{ord(c):04X} at {i}: {text[max(0, i - 20):i + 20]!r}"
    return None


def harmless(done, quotes="EVIL", code=None):
    """None if nothing that was printed is obeyed, no line is forged, and the hostile text is there."""
    out, err = done.stdout, done.stderr
    if b"\nmxlm: error: fake" in out + err:
        return "a forged line"
    if quotes and quotes.encode() not in out + err:
        return f"does not quote what it read: {err[-200:]!r}"
    if code is not None and done.returncode != code:
        return f"exit code {done.returncode}, not {code}: {err[-200:]!r}"
    return disrupts(out) or disrupts(err)


def one_sentence(done, code=1):
    """None if the program ended with `code` and one line."""
    err = done.stderr
    if done.returncode != code:
        return f"exit code {done.returncode}, not {code}: {err[-300:]!r}"
    lines = [line for line in err.split(b"\n") if line and b": info: " not in line]
    return None if len(lines) == 1 and lines[0].startswith(b"mxlm: ") else f"not one sentence: {err[-300:]!r}"


def limited(ctx, arguments, kilobytes, timeout=60):
    """Runs mxlm with an address space of so many kilobytes."""
    script = f'ulimit -v {kilobytes}; exec "$0" "$@"'
    return subprocess.run(["bash", "-c", script, str(ctx.mxlm), *map(str, arguments)], capture_output=True,
                          timeout=timeout, cwd=ctx.tmp, env=ctx.environment({"MALLOC_ARENA_MAX": "1"}))


def figures(value, text):
    return {"nll": value, "ppl": value, "ppl_stderr": value, "ppl_stderr_windows": value, "tokens": 640, "nonfinite": 0,
            "vs_baseline": {"ppl_ratio": value, "ln_ppl_ratio": value, "ln_ppl_ratio_stderr": value,
                            "correlation": value, "kld_mean": value, "kld_stderr": value, "kld_median": value,
                            "kld_max": value, "kld_percentiles": {"50": value, text[:5]: value},
                            "top1_agreement": value, "top1_stderr": value, "delta_p_mean": value,
                            "delta_p_rms": value, "delta_p_rms_stderr": value, "delta_p_percentiles": {"50": value}}}


def result(text="name", value=0.5, variants=3):
    """A full result whose strings are all `text` and whose figures are all `value`."""
    operand = {"sqnr_db": value, "cosine": value, "saturated": value, "flushed": value, "subnormal": value,
               "spread": {"mean": value, "max": value}}
    side = {"first": -3, "zeros": 1, "counts": [1, 2, 3]}

    def variant(index):
        out = {"name": text, "spec": text + ".", "tokens_per_second": value,
               "seconds": {"load": value, "prepare": value, "forward": value, "head": value},
               "replaced": [{"tensor": text, "role": text, "weights": text, "activations": text}],
               "weight_bytes": {"baseline": value, "variant": value},
               "weight_bits": {"baseline": value, "variant": value},
               "noise": {"nll": value, "kld_mean": value, "top1_agreement": value},
               "layers": [{"layer": n, "part": text, "sqnr_db": value, "cosine": value} for n in range(2)],
               "linears": [{"tensor": text, "role": text, "weight": operand, "activation": operand,
                            "output_sqnr_db": value, "output_cosine": value}], **figures(value, text)}
        if index == 0:
            out["vs_baseline"] = None
        return out

    run = {"model": {key: text for key in ("name", "family", "dtype", "compute_dtype", "revision", "sha256")},
           "data": {"name": text, "sha256": text, "documents": 1},
           "protocol": {"name": text, "context": 64, "bos": text, "aggregate": text}, "command": text,
           "complete": False, "windows": 10, "variants": [variant(i) for i in range(variants)],
           "subsets": [{"name": text, "windows": 1, "variants": [figures(value, text) for _ in range(variants)]}],
           "exponents": [{"tensor": text, "role": text, "weight": side, "activation": side}],
           "pairs": [{"a": text, "b": text, "ln_ppl_ratio": value, "ln_ppl_ratio_stderr": value}],
           "seconds": {"total": value, "load": value, "tokenize": value}, "peak_memory_bytes": value}
    return {"schema": "mxlm.eval/1", "version": text,
            "machine": {"cpu": text, "backend": text, "os": text, "cores": 1, "threads": 1, "memory_bytes": 1},
            "runs": [run]}


def write_result(ctx, name="r.json", **kinds):
    path = ctx.tmp / name
    path.write_text(json.dumps(result(**kinds)))
    return path


def report(ctx, path, option="-o", *more):
    """What `report` writes to stdout for a result."""
    return run(ctx, "report", str(path), option, "-", *more)
