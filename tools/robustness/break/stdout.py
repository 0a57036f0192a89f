"""A standard output that is full, closed, broken or gone."""
import os
import pty
import signal
import time

from ._common import SHORT, digits, ended_well, evaluation, has_round, runs, says, start, wait_for, end_of


def trials(ctx):
    short = " ".join(SHORT) + f" --text {ctx.text} --max-windows 4 --quiet"
    files = "--json o.json --html o.html --csv o.csv --markdown o.md --per-token t.csv"

    def there(folder, names=("o.json", "o.html", "o.csv", "o.md", "t.csv")):
        missing = [n for n in names if not (folder / n).exists() or not (folder / n).stat().st_size]
        return f"missing: {missing}" if missing else None

    def eval_to(where, code, *words, command="eval", more=""):
        def trial():
            folder = ctx.folder()
            outcome = ctx.shell(f"set -o pipefail; \"$M\" {command} {short} {files} {more} {where}", cwd=folder)
            return says(outcome, code, *words) or there(folder)
        return trial

    kept = "is kept in the journal"
    for name, where, code, words in (("full", "> /dev/full", 1, ("No space left", kept)),
                                     ("a broken pipe", "| true", 1, ("Broken pipe", kept)),
                                     ("closed", ">&-", 0, ()),
                                     ("read in part", "| head -c 10 > part", 0, ())):
        yield f"eval, standard output {name}: all files are there", eval_to(where, code, *words)
        if name != "read in part":
            yield f"eval --no-journal, standard output {name}", eval_to(where, code, *words[:1], more="--no-journal")
            yield f"sweep, standard output {name}", (lambda where=where, code=code, words=words: (
                lambda folder: says(ctx.shell(
                    f"set -o pipefail; \"$M\" sweep --device cpu --text {ctx.text} --context 64 --max-windows 2 --quiet "
                    f"--formats mxfp4 {files} {where}", cwd=folder), code, *words) or there(folder))(ctx.folder()))

    def json_to_full():
        folder = ctx.folder()
        outcome = ctx.shell(f"\"$M\" eval {short} --json - --html o.html > /dev/full", cwd=folder)
        return says(outcome, 1, "--json:", kept) or there(folder, ("o.html",))

    yield "--json - to a full standard output: the page is there", json_to_full

    def one_of_many(option, name):
        def trial():
            folder = ctx.folder()
            all_files = {"--json": "o.json", "--html": "o.html", "--csv": "o.csv", "--markdown": "o.md",
                         "--per-token": "t.csv"}
            all_files[option] = "/dev/full"
            if option == "--per-token":
                (folder / "full.csv").symlink_to("/dev/full")
                all_files[option] = "full.csv"
            args = " ".join(f"{o} {f}" for o, f in all_files.items())
            outcome = ctx.shell(f"\"$M\" eval {short} {args}", cwd=folder)
            said = says(outcome, 1, option, "No space left", kept)
            return said or there(folder, [n for n in ("o.json", "o.html", "o.csv", "o.md", "t.csv") if n != name]) or (
                None if "mlp=mxfp4" in outcome.stdout else "no table")
        return trial

    for option, name in (("--json", "o.json"), ("--html", "o.html"), ("--csv", "o.csv"), ("--markdown", "o.md"),
                         ("--per-token", "t.csv")):
        yield f"{option} to a full disk costs itself alone", one_of_many(option, name)

    def refused_at_once(path, *words):
        def trial():
            folder = ctx.folder()
            (folder / "file").write_text("x")
            start_time = time.monotonic()
            outcome = ctx.shell(f"\"$M\" eval --device cpu --text {ctx.text} --json {path}", cwd=folder)
            said = says(outcome, 1, *words)
            return said or (None if time.monotonic() - start_time < 5 and len(list(folder.iterdir())) == 1 else
                            "late, or files left")
        return trial

    yield "a folder that is not there", refused_at_once("none/o.json", "No such file")
    yield "a file in the place of a folder", refused_at_once("file/o.json", "Not a directory")
    yield "a folder in the place of a file", refused_at_once("..", "is a folder")
    yield "a place that cannot be written", refused_at_once("/proc/o.json", "could not be written")

    def again():
        folder = ctx.folder()
        state = {"XDG_STATE_HOME": str(folder / "state")}
        ctx.shell(f"\"$M\" eval {short} --json o.json > /dev/full", cwd=folder, env=state)
        first = digits(runs(folder / "o.json"))
        (folder / "o.json").unlink()
        outcome = ctx.shell(f"\"$M\" eval {short} --json o.json --resume", cwd=folder, env=state)
        return ended_well(outcome) or (
            None if digits(runs(folder / "o.json")) == first and "mlp=mxfp4" in outcome.stdout else "not what it was")

    yield "what the message advises gives the table", again

    def terminal(ignored):
        def trial():
            folder = ctx.folder()
            args = [str(ctx.mxlm), *evaluation(ctx, "--max-windows", "300", "--shard-tokens", "128", "--journal", "j",
                                               "--json", "o.json", "--html", "o.html")]
            pid, fd = pty.fork()
            if pid == 0:
                os.chdir(folder)
                if ignored:
                    signal.signal(signal.SIGHUP, signal.SIG_IGN)
                os.execv(args[0], args)
            wait_for(lambda: has_round(folder / "j"))
            os.close(fd)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            said = there(folder, ("o.json", "o.html"))
            if said or code != 1:
                return said or f"code {code}"
            run = runs(folder / "o.json")[0]
            return None if run["complete"] == ignored and run["windows"] > 0 else f"{run['windows']} windows"
        return trial

    yield "a terminal that closes, SIGHUP ignored", terminal(True)
    yield "a terminal that closes", terminal(False)

    result = ctx.folder()
    ctx.shell(f"\"$M\" eval {short} --json r.json", cwd=result)
    for command in ("models", "formats", "man", "--help", "--version", "completion bash", f"tokenize {ctx.model} --text "
                    f"{ctx.text}", f"inspect {ctx.model}", "report r.json -o -", "report r.json --csv -",
                    "report r.json --markdown -", "eval --help"):
        yield f"{command.split('/')[0]} to a full standard output", lambda command=command: says(
            ctx.shell(f"\"$M\" {command} > /dev/full", cwd=result), 1, "mxlm: ")
