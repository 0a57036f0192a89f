"""The hub's token, the modes of files, and what a result tells of the machine."""
import os
import pathlib
import socket
import stat

from ._common import SHORT, ended_well, evaluation, start, wait_for, has_round, signalled

TOKEN = "hf_breakTestSecretToken"


def trials(ctx):
    files = "--json o.json --html o.html --csv o.csv --markdown o.md --per-token t.csv --journal j --log-file log"
    args = f"eval {' '.join(SHORT)} --text {ctx.text} --max-windows 4 {files}"

    def searched(word, umask="022", env=None):
        def trial():
            folder = ctx.folder()
            outcome = ctx.shell(f"umask {umask}; \"$M\" {args}", cwd=folder, env=env)
            said = ended_well(outcome)
            found = [str(p) for p in folder.rglob("*") if p.is_file() and word.encode() in p.read_bytes()]
            return said or (f"found in {found}" if found or word in outcome.stdout + outcome.stderr else None)
        return trial

    for umask in ("000", "022", "077"):
        yield f"the token is nowhere, umask {umask}", searched(TOKEN, umask, {"HF_TOKEN": TOKEN})
    yield "the host's name is nowhere but in the lock", lambda: (
        lambda folder: ended_well(ctx.shell(f"\"$M\" {args}", cwd=folder)) or (
            None if not socket.gethostname() or not [p for p in folder.glob("o.*") if socket.gethostname().encode()
                                                     in p.read_bytes()] else "in a result"))(ctx.folder())
    yield "the environment is nowhere", searched("aValueOfTheEnvironment", env={"SOME_SECRET": "aValueOfTheEnvironment"})

    for address in (f"https://user:{TOKEN}@127.0.0.1:9", f"https://127.0.0.1:9/?token={TOKEN}", "http://127.0.0.1:9"):
        def refused(address=address):
            outcome = ctx.run("eval", "org/name", "--text", ctx.text, env={"HF_ENDPOINT": address, "HF_TOKEN": TOKEN,
                                                                           "HF_HOME": str(ctx.folder())})
            return ended_well(outcome, (1, 2)) or ("the token is shown" if TOKEN in outcome.stdout + outcome.stderr
                                                   else None)
        yield f"the token with the endpoint {address.replace(TOKEN, 'TOKEN')}", refused

    def line_break():
        outcome = ctx.run("eval", "org/name", "--text", ctx.text,
                          env={"HF_TOKEN": TOKEN + "\r\nX: y", "HF_ENDPOINT": "http://127.0.0.1:9",
                               "HF_HOME": str(ctx.folder())})
        return ended_well(outcome, (1, 2)) or ("the token is shown" if TOKEN in outcome.stderr else None)

    yield "a token with a line break", line_break

    def modes(umask):
        def trial():
            folder = ctx.folder()
            state = folder / "a" / "state"
            outcome = ctx.shell(f"umask {umask}; (\"$M\" eval {' '.join(SHORT)} --text {ctx.text} --max-windows 4 > "
                                f"/dev/full); \"$M\" {args} > /dev/null", cwd=folder, env={"XDG_STATE_HOME": str(state)})
            wrong = []
            for root in (folder / "j", state):
                for path in (root, *root.rglob("*")):
                    if stat.S_IMODE(path.stat().st_mode) & 0o077:
                        wrong.append(str(path.relative_to(folder)))
            return ended_well(outcome) or (f"others may use {wrong}" if wrong else None)
        return trial

    for umask in ("000", "002", "022", "077"):
        yield f"journals and their folders under umask {umask}", modes(umask)

    def homes(env):
        def trial():
            folder = ctx.folder()
            outcome = ctx.run(*evaluation(ctx, "--max-windows", "2", "--quiet"), cwd=folder,
                              env={"XDG_STATE_HOME": None, **env})
            return ended_well(outcome) or (f"made {os.listdir(folder)}" if os.listdir(folder) else None)
        return trial

    yield "HOME unset", homes({"HOME": None})
    yield "HOME empty", homes({"HOME": ""})
    yield "HOME relative", homes({"HOME": "here"})
    yield "HOME where nothing can be made", homes({"HOME": "/proc/self"})
    yield "XDG_STATE_HOME relative", homes({"HOME": None, "XDG_STATE_HOME": "here"})

    def no_core():
        folder = ctx.folder()
        process = start(ctx, evaluation(ctx, "--max-windows", "600", "--shard-tokens", "128", "--journal", "j"), folder)
        wait_for(lambda: has_round(folder / "j"))
        limits = pathlib.Path(f"/proc/{process.pid}/limits").read_text()
        signalled(process, 6)
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size")).split()[4]
        cores = [f for f in os.listdir(folder) if f.startswith("core")]
        return None if core in ("0", "1") and not cores else f"limit {core}, {cores}"

    yield "no core dump holds the token", no_core
