"""Limits of the process: memory, descriptors, stack, file sizes, time."""
from ._common import SHORT, digits, ended_well, peace, runs


def trials(ctx):
    args = f"eval {' '.join(SHORT)} --text {ctx.text} --max-windows 8 --no-journal --json o.json"
    right = peace(ctx, "--max-windows", "8")

    def limited(limit, codes=(0, 1)):
        def trial():
            folder = ctx.folder()
            outcome = ctx.shell(f"ulimit {limit} && exec \"$M\" {args}", cwd=folder)
            if outcome.returncode == 127 or "bash" in outcome.stderr[:20]:
                return None if not (folder / "o.json").exists() else "a result though the program did not start"
            said = ended_well(outcome, codes)
            if said is None and outcome.returncode == 0 and digits(runs(folder / "o.json")) != right:
                return "other digits"
            return said
        return trial

    for kilobytes in (60000, 80000, 100000, 140000, 200000, 300000, 1000000):
        yield f"ulimit -v {kilobytes}", limited(f"-v {kilobytes}")
    for files in (4, 5, 6, 7, 8, 10, 12, 20):
        yield f"ulimit -n {files}", limited(f"-n {files}")
    for kilobytes in (64, 256, 8192):
        yield f"ulimit -s {kilobytes}", limited(f"-s {kilobytes}")
    for blocks in (0, 1, 4, 8, 40, 1000):
        yield f"ulimit -f {blocks}", limited(f"-f {blocks}")
    yield "ulimit -u 1", limited("-u 1")
    yield "ulimit -c unlimited", limited("-c unlimited", (0,))

    def all_outputs(blocks):
        def trial():
            folder = ctx.folder()
            for name in ("o.json", "o.html", "o.csv", "o.md"):
                (folder / name).write_text("old")
            outcome = ctx.shell(f"ulimit -f {blocks} && exec \"$M\" {args} --html o.html --csv o.csv --markdown o.md",
                                cwd=folder)
            said = ended_well(outcome, (0, 1))
            rest = [f.name for f in folder.iterdir() if f.name not in ("o.json", "o.html", "o.csv", "o.md")]
            torn = [n for n in ("o.json", "o.html") if (t := (folder / n).read_text()) != "old"
                    and not t.rstrip().endswith(("}", "</html>"))]
            return said or (f"left {rest}, torn {torn}" if rest or torn else None)
        return trial

    for blocks in (0, 1, 4, 16, 64):
        yield f"ulimit -f {blocks}: old results stay, or are replaced whole", all_outputs(blocks)
