"""Digits that must not depend on how, where and beside what they are computed."""
from ._common import digits, ended_well, runs


def trials(ctx):
    variants = ["mlp=mxfp4", "attention=mxfp8", "qk=mxfp8,pv=mxfp8", "linear=nvfp4", "mlp=mxfp4@rule=mse",
                "linear=mxint8@block=16"]

    def result(*more, env=None, order=None, protocol=()):
        folder = ctx.folder()
        args = ["eval", "--device", "cpu", "--text", ctx.text, "--context", "48", "--max-windows", "9", "--no-journal",
                "--quiet", "--json", folder / "o.json", *protocol, *more]
        for variant in order or variants:
            args += ["--mx", variant]
        outcome = ctx.run(*args, env=env)
        said = ended_well(outcome)
        assert said is None, said
        run = digits(runs(folder / "o.json"))[0]
        for variant in run["variants"]:
            for extra in ("linears", "exponents"):
                variant.pop(extra, None)
        return run

    right = result()["variants"]

    def same(*more, env=None):
        return lambda: None if result(*more, env=env)["variants"] == right else "other digits"

    for threads in (1, 2, 3, 7):
        yield f"--threads {threads}", same("--threads", threads)
    for batch in (1, 2, 5, 64):
        yield f"--batch-size {batch}", same("--batch-size", batch)
    for tokens in (1, 48, 100, 1000):
        yield f"--shard-tokens {tokens}", same("--shard-tokens", tokens)
    yield "--stream", same("--stream")
    yield "--stream with small rounds and threads", same("--stream", "--shard-tokens", "48", "--threads", "3")
    yield "--loader-workers 0", same("--loader-workers", "0")
    yield "--loader-workers 5", same("--loader-workers", "5")
    yield "--exponents", same("--exponents")
    yield "--linear-errors", same("--linear-errors")
    for name, value in (("LC_ALL", "de_DE.UTF-8"), ("LC_ALL", "tr_TR.UTF-8"), ("LC_ALL", "C"), ("TZ", "Asia/Tokyo"),
                        ("OMP_NUM_THREADS", "1"), ("MALLOC_PERTURB_", "165"), ("MALLOC_ARENA_MAX", "1"),
                        ("LANG", "ar_EG.UTF-8"), ("NO_COLOR", "1"), ("COLUMNS", "10"), ("HOME", "/nowhere")):
        yield f"{name}={value}", same(env={name: value})

    def reversed_order():
        run = result(order=variants[::-1])
        by_spec = {v["spec"]: v for v in run["variants"]}
        return None if all(by_spec[v["spec"]]["nll"] == v["nll"] for v in right) else "other digits"

    yield "the variants in the other order", reversed_order

    def alone(index):
        def trial():
            one = result(order=[variants[index]])["variants"]
            keys = ("nll", "ppl", "tokens", "vs_baseline")
            return None if all(one[1][k] == right[index + 1][k] for k in keys) and one[0]["nll"] == right[0]["nll"] else (
                "other digits")
        return trial

    for index, variant in enumerate(variants):
        yield f"{variant} alone", alone(index)

    def protocols(protocol):
        def trial():
            one = result(protocol=("--protocol", protocol, "--threads", "1"))
            other = result(protocol=("--protocol", protocol, "--threads", "3", "--batch-size", "2", "--stream"))
            return None if one == other else "other digits"
        return trial

    for protocol in ("document", "gptq", "hf-stride", "llamacpp", "lmeval", "self"):
        yield f"{protocol}, cut in two ways", protocols(protocol)

    def portable():
        env = {"MXLM_ISA": "portable"}
        one, other = result("--threads", "1", env=env), result("--threads", "3", "--batch-size", "2", "--stream", env=env)
        return None if one == other else "other digits"

    yield "MXLM_ISA=portable, cut in two ways", portable
    yield "MXLM_ISA of no instruction set", lambda: ended_well(
        ctx.run("eval", "--max-windows", "1", env={"MXLM_ISA": "sse9"}), (1, 2))
