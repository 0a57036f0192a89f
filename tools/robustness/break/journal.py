"""Journals that are damaged, removed, shared, filled or of another run."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

from ._common import (digits, end_of, ended_well, evaluation, has_round, own_model, peace, runs, says, signalled, start,
                      wait_for)


def trials(ctx):
    long = ("--max-windows", "60", "--shard-tokens", "128")
    right = peace(ctx, *long)

    def resumed(folder, *more):
        outcome = ctx.run(*evaluation(ctx, *long, "--journal", folder / "j", "--resume", "--json", folder / "o.json",
                                      *more))
        if outcome.returncode != 0:
            return ended_well(outcome)
        return None if digits(runs(folder / "o.json")) == right else "other digits after resuming"

    def whole(folder):
        ctx.run(*evaluation(ctx, *long, "--quiet", "--journal", folder / "j"))
        return folder / "j" / "rounds.mxj"

    def after_signal(number):
        def trial():
            folder = ctx.folder()
            process = start(ctx, evaluation(ctx, *long, "--journal", folder / "j"), folder)
            wait_for(lambda: has_round(folder / "j"))
            _, late = signalled(process, number)
            return late or resumed(folder)
        return trial

    for name in ("KILL", "TERM", "INT", "HUP", "QUIT", "USR1", "ALRM"):
        yield f"SIG{name} after the first round, then --resume", after_signal(getattr(signal, "SIG" + name))

    def cut(share):
        def trial():
            folder = ctx.folder()
            rounds = whole(folder)
            os.truncate(rounds, int(rounds.stat().st_size * share))
            return resumed(folder)
        return trial

    for share in (0, 0.001, 0.3, 0.51, 0.99):
        yield f"the rounds' file cut to {share:.1%}", cut(share)

    def flipped(share):
        def trial():
            folder = ctx.folder()
            rounds = whole(folder)
            data = bytearray(rounds.read_bytes())
            data[int((len(data) - 1) * share)] ^= 0x40
            rounds.write_bytes(data)
            said = resumed(folder)
            # The header's bytes say whose file it is: refused, then.
            return None if share == 0 and said and "is not a file of a journal" in said else said
        return trial

    for share in (0, 0.1, 0.37, 0.72, 1):
        yield f"a bit flipped at {share:.0%}", flipped(share)

    def gone(what):
        def trial():
            folder = ctx.folder()
            process = start(ctx, evaluation(ctx, *long, "--journal", folder / "j", "--json", folder / "o.json"), folder)
            wait_for(lambda: has_round(folder / "j"))
            what(folder / "j")
            outcome = end_of(process)
            if (said := says(outcome, 0, "somebody has removed or replaced")) is not None:
                return said
            again = ctx.run(*evaluation(ctx, *long, "--journal", folder / "j", "--resume"))
            return says(again, 0, "60 of 60 windows are in the journal")
        return trial

    yield "the folder removed during a run", gone(lambda j: subprocess.run(["rm", "-rf", j], check=False))
    yield "the folder renamed during a run", gone(lambda j: j.rename(j.with_name("away")))
    yield "the rounds' file removed during a run", gone(lambda j: (j / "rounds.mxj").unlink())

    def other_run(spoil, *words, more=()):
        def trial():
            folder = ctx.folder()
            model = own_model(ctx, folder)
            text = folder / "t.txt"
            text.write_bytes(ctx.text.read_bytes()[:60000])
            args = ["eval", model, *evaluation(ctx, "--text", text, "--max-windows", "8", "--journal", folder / "j",
                                               text=False)[1:]]
            if (said := ended_well(ctx.run(*args))) is not None:
                return said
            spoil(folder)
            return says(ctx.run(*args, "--resume", *more), 1, *words)
        return trial

    def edit(name, old, new):
        def spoil(folder):
            path = folder / name
            path.write_text(path.read_text().replace(old, new, 1))
        return spoil

    yield "the text changed", other_run(edit("t.txt", "Alice", "Alise"), "data:")
    yield "config.json changed", other_run(edit("m/config.json", "{", "{ "), "configuration:")
    yield "another version's journal", other_run(edit("j/plan.json", "\"version\": \"", "\"version\": \"9"), "version:")
    yield "another dtype", other_run(lambda folder: None, "dtype:", more=("--dtype", "float32"))
    yield "another context", other_run(lambda folder: None, "protocol:", more=("--context", "32"))
    yield "no --resume", lambda: (lambda f: (whole(f), says(ctx.run(*evaluation(ctx, *long, "--journal", f / "j")), 1,
                                                           "--resume"))[1])(ctx.folder())

    def stdin_resumed():
        folder = ctx.folder()
        args = ["eval", *evaluation(ctx, text=False)[1:], "--text", "-", *long, "--journal", folder / "j", "--json",
                folder / "o.json"]
        with open(ctx.text, "rb") as text:
            process = start(ctx, args, folder, stdin=text)
            wait_for(lambda: has_round(folder / "j"))
            signalled(process, signal.SIGINT)
        with open(ctx.text, "rb") as text:
            outcome = ctx.run(*args, "--resume", stdin=text)
        # Its data has another name.
        same = digits(runs(folder / "o.json"))[0]["variants"] == right[0]["variants"]
        return ended_well(outcome) or (None if same else "other digits")

    yield "a text on stdin, interrupted, resumed", stdin_resumed

    def second():
        folder = ctx.folder()
        process = start(ctx, evaluation(ctx, "--max-windows", "600", "--shard-tokens", "128", "--journal", folder / "j"),
                        folder)
        wait_for(lambda: has_round(folder / "j"))
        outcome = ctx.run(*evaluation(ctx, "--max-windows", "600", "--journal", folder / "j", "--resume"))
        signalled(process, signal.SIGKILL)
        return says(outcome, 1, "is in use by", str(process.pid))

    yield "two processes on one journal", second

    def default_twice():
        state = {"XDG_STATE_HOME": str(ctx.folder() / "state")}
        args = evaluation(ctx, "--max-windows", "600", "--shard-tokens", "128")
        process = start(ctx, args, ctx.tmp, env=state)
        root = pathlib.Path(state["XDG_STATE_HOME"]) / "mxlm" / "journals"
        wait_for(lambda: any(has_round(j) for j in root.glob("*")))
        signalled(process, signal.SIGKILL)
        # One that ends at once must not cost the first one's rounds.
        for _ in range(2):
            process = start(ctx, args, ctx.tmp, env=state)
            wait_for(lambda: any(root.glob("*/plan.json")), 5)
            time.sleep(0.05)
            signalled(process, signal.SIGKILL)
        olds = [j for j in root.glob("*") if has_round(j)]
        return None if olds else "the killed run's rounds are gone"

    yield "unnamed journals: empty ones replace nothing", default_twice

    def linked():
        folder = ctx.folder()
        (folder / "j").mkdir()
        (folder / "victim").write_text("precious")
        for name in ("rounds.mxj", "lock", "plan.json.new"):
            (folder / "j" / name).symlink_to(folder / "victim")
        ctx.run(*evaluation(ctx, "--max-windows", "2", "--journal", folder / "j"))
        return None if (folder / "victim").read_text() == "precious" else "written through a link"

    yield "links in the place of a journal's files", linked

    def foreign_rounds():
        folder = ctx.folder()
        (folder / "j").mkdir()
        (folder / "j" / "rounds.evil.1.0.mxj").write_bytes(b"\x00" * 500)
        return ended_well(ctx.run(*evaluation(ctx, "--max-windows", "4", "--journal", folder / "j", "--shared")), (0, 1))

    yield "a junk file of rounds in a shared folder", foreign_rounds

    def shared(folder, *more):
        return evaluation(ctx, *long, "--journal", folder / "j", "--shared", "--claim-timeout", "1", "--json",
                          folder / "o.json", *more)

    def claim(make, *words):
        def trial():
            folder = ctx.folder()
            (folder / "j").mkdir()
            make(folder / "j" / "claim.0.2")
            outcome = ctx.run(*shared(folder))
            return says(outcome, 0, *words) or (None if digits(runs(folder / "o.json")) == right else "other digits")
        return trial

    def ahead(path):
        path.write_text("rounds.elsewhere.4711.0.mxj\n")
        os.utime(path, (4e9, 4e9))

    yield "a claim dated ahead", claim(ahead, "is computed again")
    yield "a claim that is a folder", claim(lambda p: p.mkdir(), "shard 3 is claimed again")
    yield "a claim that is a full folder", claim(lambda p: (p / "x").mkdir(parents=True), "shard 3 is claimed again")
    yield "a claim that is a link", claim(lambda p: p.symlink_to("/nowhere"), "shard 3 is claimed again")
    yield "a claim that is a pipe", claim(os.mkfifo, "shard 3 is claimed again")
    yield "a claim of another's words", claim(lambda p: (p.write_text("\x1b[31m\n"), os.utime(p, (1, 1))), "computed again")
    yield "a claim that names no file", claim(lambda p: p.write_text("done rounds.none.1.0.mxj\n"))

    def stopped(with_other):
        def trial():
            folder = ctx.folder()
            process = start(ctx, shared(folder), folder)
            wait_for(lambda: any((folder / "j").glob("claim.*")))
            process.send_signal(signal.SIGSTOP)
            other = ctx.run(*shared(folder)) if with_other else None
            process.send_signal(signal.SIGCONT)
            outcome = end_of(process)
            said = ended_well(outcome) or (ended_well(other) if other else None)
            return said or (None if digits(runs(folder / "o.json")) == right else "other digits")
        return trial

    yield "--shared: stopped and continued", stopped(False)
    yield "--shared: stopped while another takes its round over", stopped(True)

    def shared_removed():
        folder = ctx.folder()
        process = start(ctx, shared(folder), folder)
        wait_for(lambda: has_round(folder / "j"))
        shutil.rmtree(folder / "j", ignore_errors=True)
        return ended_well(end_of(process), (0, 1))

    yield "--shared: the folder removed", shared_removed
