"""evaluate() against the program, and how it ends early."""

import inspect
import json
import logging
import os
import pathlib
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
import warnings

import mxlm
import pytest
from mxlm import _core

SMALL = {"context": 64, "max_windows": 3, "device": "cpu"}

# What depends on the moment, not on what is computed.
MEASURED = {"command", "machine", "seconds", "tokens_per_second", "peak_memory_bytes", "planned_memory_bytes", "journal"}


def without_measured(node):
    if isinstance(node, dict):
        return {k: without_measured(v) for k, v in node.items() if k not in MEASURED}
    if isinstance(node, list):
        return [without_measured(v) for v in node]
    return node


def test_the_dict_is_the_programs_json(tmp_path, program):
    variants = ["mlp=mxfp4", "w4: linear=mxfp4/none@rule=rceil"]
    ours = mxlm.evaluate(variants=variants, **SMALL)
    out = tmp_path / "out.json"
    command = [program, "eval", "--context", "64", "--max-windows", "3", "--device", "cpu", "--no-journal"]
    command += ["--quiet", "--json", str(out)]
    for variant in variants:
        command += ["--mx", variant]
    subprocess.run(command, check=True, capture_output=True)
    theirs = json.loads(out.read_text())
    assert ours["schema"] == "mxlm.eval/1"
    assert ours["runs"][0]["seconds"].keys() == theirs["runs"][0]["seconds"].keys()
    assert without_measured(ours) == without_measured(theirs)


def test_variants():
    default = mxlm.evaluate(**SMALL)["runs"][0]["variants"]
    assert [v["name"] for v in default] == ["baseline", "attention=mxfp8_e4m3,mlp=mxfp8_e4m3"]
    alone = mxlm.evaluate(variants=[], **SMALL)["runs"][0]["variants"]
    assert [v["name"] for v in alone] == ["baseline"]
    one = mxlm.evaluate(variants="mlp=mxfp4", **SMALL)["runs"][0]["variants"]
    assert [v["name"] for v in one] == ["baseline", "mlp=mxfp4_e2m1"]
    assert one[0]["nll"] == default[0]["nll"]


def test_models_and_texts(tmp_path):
    model = mxlm.load()
    assert (model.name, model.family) == ("booklet-7m", "llama") and model.parameters > 6e6
    text = "Alice was beginning to get very tired of sitting by her sister on the bank."
    run = mxlm.evaluate(model, text=text, **SMALL)["runs"][0]
    assert run["data"]["documents"] == 1 and run["variants"][0]["tokens"] > 10
    assert mxlm.evaluate(model, text=[text, text], **SMALL)["runs"][0]["data"]["documents"] == 2
    path = tmp_path / "text.txt"
    path.write_text(text)
    of_file = mxlm.evaluate(model, data=path, **SMALL)["runs"][0]
    assert of_file["variants"][0]["nll"] == run["variants"][0]["nll"]
    assert of_file["data"]["sha256"] == run["data"]["sha256"]


def write_adapter(folder):
    """A LoRA adapter of rank 1 for the first query projection of booklet-7m."""
    hidden = 256
    at = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    header = json.dumps({
        f"{at}A.weight": {"dtype": "F32", "shape": [1, hidden], "data_offsets": [0, 4 * hidden]},
        f"{at}B.weight": {"dtype": "F32", "shape": [hidden, 1], "data_offsets": [4 * hidden, 8 * hidden]},
    }).encode()
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 2, "target_modules": ["q_proj"]}))
    values = struct.pack(f"<{2 * hidden}f", *[0.1] * (2 * hidden))
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + values)


def test_an_adapter_is_merged_as_the_program_does(tmp_path, program):
    adapter = tmp_path / "adapter"
    write_adapter(adapter)
    ours = mxlm.evaluate(mxlm.load(adapter=adapter), variants="mlp=mxfp4", **SMALL)
    out = tmp_path / "out.json"
    command = [program, "eval", "--context", "64", "--max-windows", "3", "--device", "cpu", "--no-journal", "--quiet"]
    subprocess.run([*command, "--adapter", str(adapter), "--mx", "mlp=mxfp4", "--json", str(out)], check=True,
                   capture_output=True)
    assert without_measured(ours) == without_measured(json.loads(out.read_text()))
    plain = mxlm.evaluate(variants="mlp=mxfp4", **SMALL)["runs"][0]
    assert ours["runs"][0]["variants"][0]["nll"] != plain["variants"][0]["nll"]
    with pytest.raises(mxlm.Error, match="adapter_config.json"):
        mxlm.load(adapter=tmp_path)


def test_errors_are_exceptions(tmp_path):
    for wrong in (
        {"variants": ["mpl=mxfp4"]},
        {"protocol": "windows"},
        {"bos": "sometimes"},
        {"dtype": "int8"},
        {"gemm": "slow"},
        {"context": -1},
        {"text": "a", "data": "b"},
        {"text": []},
        {"resume": True},
    ):
        with pytest.raises(mxlm.UsageError):
            mxlm.evaluate(**{**SMALL, **wrong})
    with pytest.raises(mxlm.Error, match="nothing-here"):
        mxlm.evaluate(str(tmp_path / "nothing-here"), **SMALL)
    with pytest.raises(mxlm.Error):
        mxlm.load(tmp_path)


def changed(row):
    """A value of an option that is not the default."""
    if row["words"]:
        return row["words"][-1]
    if row["type"] == "bool":
        return not row["default"]
    if row["type"] in ("int", "float"):
        return type(row["default"])(row["least"] + 1 if row["type"] == "int" else (row["least"] + row["most"]) / 2)
    return ["mlp=mxfp4", "w: linear=mxint8"] if isinstance(row["default"], list) else "7"


def test_every_option_of_the_table_is_a_keyword():
    rows = _core.options()
    parameters = inspect.signature(mxlm.evaluate).parameters
    assert len(rows) > 25
    for row in rows:
        name, value = row["name"], changed(row)
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == (None if row["default"] == "" else row["default"])
        assert f"\n    {name}: {row['help']}." in mxlm.evaluate.__doc__
        if name == "shared":  # which needs a journal
            resolved = _core.resolved_options({name: value, "journal": "here"})
        else:
            resolved = _core.resolved_options({name: value})
        assert value != row["default"] and resolved[name] == value, name
        assert _core.resolved_options({name: None}) == _core.resolved_options({})
        for wrong in (object(), "many" if row["type"] in ("int", "float", "bool") else 3):
            with pytest.raises(TypeError, match=name):
                _core.resolved_options({name: wrong})
        if row["most"] > 0:
            with pytest.raises(mxlm.UsageError, match=row["flag"]):
                _core.resolved_options({name: row["default"].__class__(row["most"] + 1)})
    annotations = (pathlib.Path(mxlm.__file__).parent / "_options.pyi").read_text()
    assert [line.split(":")[0].strip() for line in annotations.splitlines() if ": Optional" in line] == [
        row["name"] for row in rows
    ]


def test_former_and_unknown_keywords():
    with pytest.warns(DeprecationWarning, match="round_tokens is now called shard_tokens"):
        run = mxlm.evaluate(variants=[], round_tokens=64, **SMALL)["runs"][0]
    assert len(run["seconds"]["by_round"][0]) == 3
    for wrong in ({"contxt": 3}, {"round_tokens": 64, "shard_tokens": 64}):
        with pytest.raises(TypeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mxlm.evaluate(**wrong)


def test_progress():
    seen = []
    mxlm.evaluate(progress=lambda done, total: seen.append((done, total)), **SMALL)
    assert seen and seen[-1][0] == pytest.approx(seen[-1][1]) and seen[-1][1] > 0

    def stop(done, total):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        mxlm.evaluate(progress=stop, **SMALL)


def test_the_log_is_pythons(caplog):
    with caplog.at_level(logging.INFO, logger="mxlm"):
        mxlm.evaluate(context=64, max_windows=1, text="Down, down, down.")
    assert all(r.name == "mxlm" for r in caplog.records)


def long_run():
    mxlm.evaluate(context=512, device="cpu", noise=True, variants=["mlp=mxfp4", "linear=mxfp8", "linear=mxint8"])


def own_threads():
    return len(os.listdir("/proc/self/task"))


def test_ctrl_c_raises_and_leaves_nothing_behind():
    mxlm.evaluate(**SMALL)
    threads, files = own_threads(), len(os.listdir("/proc/self/fd"))
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        long_run()
    assert 0.9 < time.monotonic() - start < 3  # issue: under two seconds after the signal
    time.sleep(0.1)  # the timer's thread
    assert own_threads() == threads and len(os.listdir("/proc/self/fd")) == files
    assert mxlm.evaluate(**SMALL)["runs"][0]["complete"]  # as if nothing had been


def test_ctrl_c_while_another_thread_works():
    results = []
    other = threading.Thread(target=lambda: results.append(mxlm.evaluate(context=256, max_windows=8, device="cpu")))
    other.start()
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        long_run()
    other.join()
    assert results[0]["runs"][0]["complete"]


def test_ends_a_script_as_pythons_do():
    script = textwrap.dedent(
        """
        import mxlm
        print("begun", flush=True)
        mxlm.evaluate(context=512, device="cpu", noise=True, variants=["mlp=mxfp4", "linear=mxfp8"])
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert out == "" and "KeyboardInterrupt" in err and process.returncode == -signal.SIGINT


def test_examples_of_the_documentation(tmp_path, monkeypatch):
    """Every Python block of docs/library.md runs, one after the other."""
    monkeypatch.chdir(tmp_path)
    lines = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "library.md").read_text()
    blocks = lines.split("```python\n")[1:]
    assert blocks
    scope = {}
    for block in blocks:
        exec(compile(block.split("```")[0], "docs/library.md", "exec"), scope)
