"""Checkpoints and texts that change while they are in use."""
import os
import shutil

from ._common import digits, end_of, ended_well, evaluation, has_round, own_model, peace, runs, says, start, wait_for


def trials(ctx):
    size = ("--max-windows", "60", "--shard-tokens", "128")
    right = peace(ctx, *size)

    def disturbed(change, *more, rounds=1):
        """Changes the model once the journal holds a round: the outcome, and the result if there is one."""
        folder = ctx.folder()
        model = own_model(ctx, folder)
        journal = folder / "j"
        args = ["eval", model, *evaluation(ctx, *size, "--journal", journal, "--json", folder / "o.json", *more)[1:]]
        process = start(ctx, args, folder)
        if rounds:
            wait_for(lambda: has_round(journal))
        change(model)
        outcome = end_of(process)
        result = runs(folder / "o.json")[0] if (folder / "o.json").exists() else None
        return folder, args, outcome, result

    def overwrite(offset, length=1 << 20, keep_date=False):
        def change(model):
            path = model / "model.safetensors"
            before = path.stat()
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(b"\x11" * length)
            if keep_date:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return change

    def told(change, *more, rounds=1):
        def trial():
            folder, args, outcome, result = disturbed(change, *more, rounds=rounds)
            said = says(outcome, 1, "model.safetensors'")
            if said is not None:
                return said
            if result is not None:
                if result["complete"]:
                    return "a complete result of weights that changed"
                # The figures are of windows before the change: those of a run of so many windows.
                same = peace(ctx, "--max-windows", str(result["windows"]), "--shard-tokens", "128")[0]["variants"]
                if digits(result["variants"]) != same:
                    return "other digits than without the change"
            shutil.copyfile(ctx.model / "model.safetensors", folder / "m" / "model.safetensors")
            again = ctx.run(*args, "--resume")
            return ended_well(again) or (None if digits(runs(folder / "o.json"))[0]["variants"] == right[0]["variants"]
                                         else "other digits after resuming")
        return trial

    for offset in (0, 1 << 20, 4 << 20, 8 << 20, 12 << 20):
        yield f"overwritten at {offset >> 20} MiB", told(overwrite(offset))
        yield f"overwritten at {offset >> 20} MiB, --stream", told(overwrite(offset), "--stream")
    yield "overwritten with its date kept", told(overwrite(4 << 20, keep_date=True))
    yield "one byte overwritten", told(overwrite(5 << 20, 1))
    yield "longer by a byte", told(lambda m: open(m / "model.safetensors", "ab").write(b"x"))
    for share in (0, 0.1, 0.9):
        yield f"cut to {share:.0%}", told(
            lambda m, share=share: os.truncate(m / "model.safetensors",
                                               int((m / "model.safetensors").stat().st_size * share)), "--stream")

    def before_a_round():
        # At the start: refused, or the run's beginning is told as the rest.
        _, _, outcome, result = disturbed(overwrite(4 << 20), rounds=0)
        if outcome.returncode == 0:
            return None if digits(result)["variants"] != [] else "nothing"
        return ended_well(outcome, (1,))

    yield "overwritten while it loads", before_a_round

    def harmless(change, *more):
        def trial():
            _, _, outcome, result = disturbed(change, *more)
            if outcome.returncode != 0:
                return ended_well(outcome)
            return None if digits(result)["variants"] == right[0]["variants"] else "other digits"
        return trial

    def replaced(name):
        def change(model):
            (model / "new").write_bytes(b"something else")
            os.replace(model / "new", model / name)
        return change

    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        yield f"{name} replaced by a rename", harmless(replaced(name))
        yield f"{name} removed", harmless(lambda m, name=name: (m / name).unlink())
    yield "the folder renamed", harmless(lambda m: m.rename(m.with_name("away")))
    yield "the folder removed", harmless(shutil.rmtree, "--stream")
    yield "a new date", harmless(lambda m: os.utime(m / "model.safetensors"))
    yield "another mode", harmless(lambda m: (m / "model.safetensors").chmod(0o400))
    yield "one more link", harmless(lambda m: os.link(m / "model.safetensors", m / "link"))
    yield "the same bytes again", harmless(
        lambda m: (lambda p, b: open(p, "r+b").write(b))(m / "model.safetensors",
                                                         (m / "model.safetensors").read_bytes()))
    yield "config.json overwritten in place", harmless(lambda m: (m / "config.json").write_text("{}"))

    def text_after():
        folder = ctx.folder()
        text = folder / "t.txt"
        text.write_bytes(ctx.text.read_bytes())
        process = start(ctx, ["eval", *evaluation(ctx, "--text", text, *size, "--journal", folder / "j", "--json",
                                                  folder / "o.json", text=False)[1:]], folder)
        wait_for(lambda: has_round(folder / "j"))
        text.write_text("other")
        return ended_well(end_of(process)) or (
            None if digits(runs(folder / "o.json"))[0]["variants"] == right[0]["variants"] else "other digits")

    yield "the text overwritten once it was read", text_after
