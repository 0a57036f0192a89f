"""Messages that nobody can read: stderr closed, full or broken. No line of them may get into a file."""
import fcntl
import os
import pty
import re
import struct
import termios

from ._common import SHORT, digits, evaluation, runs


def trials(ctx):
    size = " ".join(SHORT) + f" --text {ctx.text} --max-windows 30 --shard-tokens 128"
    files = "--json o.json --html o.html --csv o.csv --markdown o.md --per-token t.csv --journal j"
    right = {}

    def outputs(folder):
        return {"json": digits(runs(folder / "o.json")), "tokens": (folder / "t.csv").read_bytes(),
                "lock": (folder / "j" / "lock").read_bytes()[:8],
                "page": (folder / "o.html").read_text().rstrip()[-7:], "table": (folder / "o.md").read_text()[:30]}

    folder = ctx.folder()
    ctx.shell(f"\"$M\" eval {size} {files}", cwd=folder)
    right.update(outputs(folder))

    def trial_of(where, code=0):
        def trial():
            folder = ctx.folder()
            outcome = ctx.shell(f"set -o pipefail; \"$M\" eval {size} {files} {where}", cwd=folder)
            if outcome.returncode != code:
                return f"code {outcome.returncode}"
            got = outputs(folder)
            wrong = [k for k in right if got[k] != right[k]]
            if wrong:
                return f"other content: {wrong}"
            resumed = ctx.shell(f"\"$M\" eval {size} {files} --resume", cwd=folder)
            return None if resumed.returncode == 0 and "30 of 30 windows" in resumed.stderr else resumed.stderr[-300:]
        return trial

    yield "stderr closed", trial_of("2>&-")
    yield "stdout and stderr closed", trial_of(">&- 2>&-")
    yield "all three closed", trial_of("<&- >&- 2>&-")
    yield "stdin closed", trial_of("<&-")
    yield "stdin and stderr closed", trial_of("<&- 2>&-")
    yield "stderr full", trial_of("2> /dev/full")
    yield "stderr a broken pipe", trial_of("2> >(true)")
    yield "all closed, and a log", trial_of("--log-file log <&- >&- 2>&-")

    def log_full():
        folder = ctx.folder()
        # The choice of the embedded text is a line in the log.
        outcome = ctx.shell("\"$M\" eval --context 64 --max-windows 2 --no-journal --log-file /dev/full", cwd=folder)
        return None if outcome.returncode == 0 and "the log file '/dev/full' misses lines" in outcome.stderr and (
            "LOG ERROR" not in outcome.stderr) else outcome.stderr[-300:]

    yield "a log on a full disk", log_full

    def narrow(columns):
        def trial():
            pid, fd = pty.fork()
            if pid == 0:
                fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
                null = os.open("/dev/null", os.O_WRONLY)
                os.dup2(null, 1)
                os.execv(ctx.mxlm, [str(ctx.mxlm), *evaluation(ctx, "--max-windows", "400", "--no-journal",
                                                               "--shard-tokens", "128")])
            said = b""
            try:
                while piece := os.read(fd, 4096):
                    said += piece
            except OSError:  # the end of a terminal
                pass
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            lines = [line for line in re.split(r"\r\x1b\[K|[\r\n]+", said.decode()) if "%" in line]
            longest = max(map(len, lines), default=0)
            return None if code == 0 and 0 < longest < columns else f"code {code}, {len(lines)} lines, {longest} columns"
        return trial

    for columns in (20, 40, 100):
        yield f"the progress line on {columns} columns", narrow(columns)

    def other(command, out):
        def trial():
            folder = ctx.folder()
            peace = ctx.shell(f"\"$M\" {command}", cwd=folder)
            before = (folder / out).read_bytes()
            (folder / out).unlink()
            closed = ctx.shell(f"\"$M\" {command} >&- 2>&-", cwd=folder)
            same = (folder / out).read_bytes() == before
            return None if peace.returncode == closed.returncode == 0 and same else f"code {closed.returncode}"
        return trial

    yield "cast with closed streams", other(f"cast {ctx.model}/model.safetensors -o c.safetensors --format mxfp4",
                                            "c.safetensors")
    ids = ctx.folder() / "ids.json"
    ids.write_text("[[1, 2, 3, 4]]")
    yield "logits with closed streams", other(f"logits {ctx.model} --tokens {ids} -o l.safetensors --device cpu",
                                              "l.safetensors")
