"""Signals at every stage: each has to end the run soon, keep what is finished and touch nothing else."""
import os
import signal
import subprocess
import time

from ._common import SHORT, ended_well, evaluation, has_round, runs, signalled, start, wait_for

NUMBERS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}


def trials(ctx):
    outputs = ("o.json", "o.html", "o.csv", "o.md", "o.tokens.csv")

    def with_outputs(*more):
        return evaluation(ctx, "--json", "o.json", "--html", "o.html", "--csv", "o.csv", "--markdown", "o.md",
                          "--per-token", "o.tokens.csv", *more)

    def after(seconds, number):
        def trial():
            folder = ctx.folder()
            for name in outputs:
                (folder / name).write_text("good")
            process = start(ctx, with_outputs("--max-windows", "500", "--shard-tokens", "1000000"), folder)
            time.sleep(seconds)
            outcome, late = signalled(process, number)
            if outcome.returncode == -number:  # before its handler
                outcome.returncode, outcome.stderr = 130, "mxlm: interrupted\n"
            kept = [n for n in outputs if (folder / n).read_text() != "good"]
            rest = sorted(f.name for f in folder.iterdir() if f.name not in outputs)
            if outcome.returncode == 0:
                return None
            return late or ended_well(outcome, (130,)) or (
                f"replaced by nothing: {kept}, left: {rest}" if kept or rest else None)
        return trial

    for name, number in NUMBERS.items():
        for seconds in (0.01, 0.03, 0.06, 0.1, 0.2, 0.4):
            yield f"SIG{name} {seconds} s after the start: earlier results stay", after(seconds, number)

    def with_a_round(number):
        def trial():
            folder = ctx.folder()
            process = start(ctx, with_outputs("--max-windows", "600", "--shard-tokens", "128", "--journal", "j"), folder)
            wait_for(lambda: has_round(folder / "j"))
            outcome, late = signalled(process, number)
            if late or outcome.returncode != 130:
                return late or f"code {outcome.returncode}: {outcome.stderr[-300:]}"
            if not all((folder / n).exists() for n in outputs):
                return "a file is missing"
            run = runs(folder / "o.json")[0]
            return None if not run["complete"] and run["windows"] > 0 else "no figures of what was finished"
        return trial

    for name, number in NUMBERS.items():
        yield f"SIG{name} after a round: its figures are written", with_a_round(number)

    def tokenising(number, lines):
        def trial():
            folder = ctx.folder()
            book = ctx.text.read_text()
            if lines:
                import json
                (folder / "t.jsonl").write_text((json.dumps({"text": book}) + "\n") * 300)
                more = ("--data", folder / "t.jsonl", "--protocol", "window")
            else:
                (folder / "t.txt").write_text(book * 400)
                more = ("--text", folder / "t.txt")
            process = start(ctx, evaluation(ctx, *more, text=False), folder)
            time.sleep(1)
            outcome, late = signalled(process, number)
            return late or ended_well(outcome, (130,))
        return trial

    for name, number in NUMBERS.items():
        yield f"SIG{name} while a long text is tokenised", tokenising(number, False)
        yield f"SIG{name} while many documents are tokenised", tokenising(number, True)

    def waiting(make, *more, number=signal.SIGTERM):
        def trial():
            folder = ctx.folder()
            stdin = make(folder)
            process = start(ctx, evaluation(ctx, *more, text=False), folder, stdin=stdin)
            time.sleep(0.7)
            outcome, late = signalled(process, number)
            return late or ended_well(outcome, (130,))
        return trial

    def fifo(folder):
        os.mkfifo(folder / "pipe")
        return subprocess.DEVNULL

    for name, number in NUMBERS.items():
        yield f"SIG{name} while a pipe is opened", waiting(fifo, "--text", "pipe", number=number)
        yield f"SIG{name} while stdin is read", waiting(lambda _: subprocess.PIPE, "--text", "-", number=number)

    def hashing():
        folder = ctx.folder()
        # A model with 2 GB of zeros behind an unused name, which take seconds to hash.
        import json
        import struct
        source = (ctx.model / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", source[:8])[0]
        header, data = json.loads(source[8:8 + length]), source[8 + length:]
        extra = 2 << 30
        header["unused.weight"] = {"dtype": "U8", "shape": [extra], "data_offsets": [len(data), len(data) + extra]}
        text = json.dumps(header).encode()
        (folder / "m").mkdir()
        for name in ("config.json", "tokenizer.json"):
            (folder / "m" / name).write_bytes((ctx.model / name).read_bytes())
        with open(folder / "m" / "model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text + data)
            file.truncate(8 + len(text) + len(data) + extra)
        process = start(ctx, ["eval", "m", *evaluation(ctx, "--max-windows", "4")[1:]], folder)
        time.sleep(0.5)
        outcome, late = signalled(process, signal.SIGTERM)
        return late or ended_well(outcome, (130,))

    yield "SIGTERM while a large model is hashed", hashing

    def waiting_for_others(number):
        def trial():
            folder = ctx.folder()
            args = evaluation(ctx, "--max-windows", "4", "--shard-tokens", "128", "--journal", "j", "--shared")
            (folder / "j").mkdir()
            for round_ in range(2):
                path = folder / "j" / f"claim.0.{round_}"
                path.write_text("rounds.elsewhere.1.0.mxj\n")
            process = start(ctx, args, folder)
            time.sleep(1)
            outcome, late = signalled(process, number)
            return late or ended_well(outcome, (130,))
        return trial

    for name, number in NUMBERS.items():
        yield f"SIG{name} while others' rounds are waited for", waiting_for_others(number)

    def blocked_output():
        folder = ctx.folder()
        read, write = os.pipe()
        process = start(ctx, evaluation(ctx, "--max-windows", "400", "--no-journal", "--json", "-",
                                        "--exponents", "--linear-errors"), folder, stdout=write)
        os.close(write)
        time.sleep(3)  # nobody reads
        outcome, late = signalled(process, signal.SIGTERM)
        os.close(read)
        return late or (None if outcome.returncode in (0, 1, 130) else f"code {outcome.returncode}")

    yield "SIGTERM while a pipe that nobody reads is written", blocked_output

    def twice(first, second):
        def trial():
            folder = ctx.folder()
            process = start(ctx, evaluation(ctx, "--max-windows", "600", "--shard-tokens", "128", "--journal", "j",
                                            "--json", "o.json"), folder)
            wait_for(lambda: has_round(folder / "j"))
            process.send_signal(first)
            outcome, late = signalled(process, second)
            return late or (None if outcome.returncode == 130 else f"code {outcome.returncode}")
        return trial

    yield "two SIGINTs", twice(signal.SIGINT, signal.SIGINT)
    yield "two SIGTERMs", twice(signal.SIGTERM, signal.SIGTERM)

    def hangup_twice():
        folder = ctx.folder()
        process = start(ctx, evaluation(ctx, "--max-windows", "600", "--shard-tokens", "128", "--journal", "j", "--json",
                                        "o.json"), folder)
        wait_for(lambda: has_round(folder / "j"))
        process.send_signal(signal.SIGHUP)
        outcome, late = signalled(process, signal.SIGHUP)
        return late or (None if outcome.returncode == 130 and (folder / "o.json").exists() else "no result")

    yield "two SIGHUPs, as a shell and the kernel send them: results are written", hangup_twice

    def nohup():
        folder = ctx.folder()
        outcome = ctx.shell("trap '' HUP; \"$M\" eval " + " ".join(SHORT) + f" --text {ctx.text} --max-windows 60 "
                            "--shard-tokens 128 --no-journal --json o.json & pid=$!; "
                            "for i in 1 2 3; do sleep 0.1; kill -HUP $pid; done; wait $pid", cwd=folder)
        return ended_well(outcome) or (None if runs(folder / "o.json")[0]["complete"] else "ended early")

    yield "SIGHUP ignored from the start, as nohup has it", nohup

    def other(number):
        def trial():
            folder = ctx.folder()
            process = start(ctx, evaluation(ctx, "--max-windows", "60", "--shard-tokens", "128", "--no-journal", "--json",
                                            "o.json"), folder)
            time.sleep(0.3)
            process.send_signal(number)
            _, err = process.communicate(timeout=60)
            return None if process.returncode == 0 and runs(folder / "o.json")[0]["complete"] else err[-300:]
        return trial

    for name in ("PIPE", "XFSZ", "CHLD", "WINCH", "CONT", "URG"):
        yield f"SIG{name} changes nothing", other(getattr(signal, "SIG" + name))
