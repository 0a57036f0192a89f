"""quantize() against microxcaling, bit for bit, and how it treats arrays."""

import os
import sys
import threading
import time
import tracemalloc

import mxlm
import numpy as np
import pytest


def read_goldens(path):
    """Inputs and cases of tools/goldens/make_mx_goldens.py."""
    inputs, cases = {}, []
    for line in path.read_text().splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "input":
            inputs[int(words[1])] = np.array([int(w, 16) for w in words[2:]], dtype=np.uint32).view(np.float32)
        elif words[0] == "values":
            cases.append(words[1:])
    return inputs, cases


def test_values_are_microxcalings_and_torchaos(test_data):
    inputs, cases = read_goldens(test_data / "mx" / "goldens.txt")
    compared = {}
    for oracle, name, block, bits, rule, rounding, number, *words in cases:
        spec = f"{name}@block={block}@scale_bits={bits}@rule={rule}@round={rounding}"
        x = inputs[int(number)][: len(words)]
        got = mxlm.quantize(x, spec)
        known = np.array([w != "*" for w in words])
        expected = np.array([0 if w == "*" else int(w, 16) for w in words], dtype=np.uint32).view(np.float32)
        same = (got == expected) | (np.isnan(got) & np.isnan(expected)) | ~known  # (-0 is 0)
        assert same.all(), (oracle, spec, x[~same][0], expected[~same][0], got[~same][0])
        compared[oracle] = compared.get(oracle, 0) + int(known.sum())
    assert compared["microxcaling"] > 10000, compared


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_keeps_kind_shape_and_dtype(dtype):
    x = np.linspace(-3, 3, 2 * 3 * 40, dtype=dtype).reshape(2, 3, 40)
    y = mxlm.quantize(x, "mxfp8")
    assert type(y) is np.ndarray and y.shape == x.shape and y.dtype == x.dtype
    assert np.array_equal(y[1, 2], mxlm.quantize(x[1, 2], "mxfp8"))
    assert mxlm.quantize(x, "mxfp8", dtype="float32").dtype == np.float32
    assert np.array_equal(mxlm.quantize(x, "mxfp8", dtype="float32").astype(dtype), y)


def test_odd_shapes():
    assert mxlm.quantize(np.array(2.4, np.float32), "mxfp4").item() == 2
    assert mxlm.quantize(np.zeros((0, 4), np.float32), "mxfp4").shape == (0, 4)
    assert mxlm.quantize(np.zeros((4, 0), np.float32), "mxfp4").shape == (4, 0)
    x = np.arange(4 * 64, dtype=np.float32).reshape(4, 64)
    assert np.array_equal(mxlm.quantize(x.T, "mxfp4"), mxlm.quantize(x.T.copy(), "mxfp4"))
    assert np.array_equal(mxlm.quantize(x[:, ::2], "mxfp4"), mxlm.quantize(x[:, ::2].copy(), "mxfp4"))
    fixed = x.copy()
    fixed.flags.writeable = False
    assert np.array_equal(mxlm.quantize(fixed, "mxfp4"), mxlm.quantize(x, "mxfp4"))
    assert np.array_equal(x, np.arange(4 * 64, dtype=np.float32).reshape(4, 64))  # as it was


def test_does_not_copy_the_input():
    x = np.random.default_rng(0).standard_normal((512, 2048), dtype=np.float32)
    tracemalloc.start()
    y = mxlm.quantize(x, "mxfp4")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert y.nbytes <= peak < 1.1 * y.nbytes  # the result alone


def test_other_arrays_through_dlpack():
    class Array:
        def __init__(self, inner):
            self.inner = inner

        def __dlpack__(self, **how):
            return self.inner.__dlpack__(**how)

        def __dlpack_device__(self):
            return self.inner.__dlpack_device__()

    x = np.linspace(0, 9, 64, dtype=np.float32)
    assert np.array_equal(mxlm.quantize(Array(x), "mxfp4"), mxlm.quantize(x, "mxfp4"))


def test_errors_are_exceptions():
    x = np.ones(4, np.float32)
    with pytest.raises(mxlm.UsageError, match="mxfp3"):
        mxlm.quantize(x, "mxfp3")
    with pytest.raises(ValueError):  # as UsageError
        mxlm.quantize(x, "mxfp4@block=1000000")
    with pytest.raises(mxlm.Error):
        mxlm.quantize(x, "llm_int8")
    for wrong in (x.astype(np.float64), x.astype(np.int32)):
        with pytest.raises(TypeError, match="float32, float16 or bfloat16"):
            mxlm.quantize(wrong, "mxfp4")
    with pytest.raises(TypeError, match="list"):
        mxlm.quantize([1.0, 2.0], "mxfp4")
    with pytest.raises(mxlm.UsageError, match="dtype"):
        mxlm.quantize(x, "mxfp4", dtype="int8")


def test_the_gil_is_free_meanwhile():
    x = np.random.default_rng(0).standard_normal((4096, 8192), dtype=np.float32)
    running = threading.Event()
    end = []

    def work():
        running.set()
        mxlm.quantize(x, "mxfp4@rule=mse", threads=1)
        end.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    running.wait()
    ticks = []
    while thread.is_alive():
        ticks.append(time.monotonic())
        time.sleep(0.001)
    thread.join()
    # Were the GIL held, this thread would have waited for all of it.
    assert sum(t < end[0] for t in ticks) > 10


def test_formats():
    table = {f["name"]: f for f in mxlm.formats()}
    assert table["mxfp4_e2m1"]["largest"] == 6 and table["mxfp4_e2m1"]["bits"] == 4
    assert "mxfp8" in table["mxfp8_e4m3"]["aliases"]


def test_cast_file_gives_the_bytes_of_the_program(tmp_path, program):
    import json
    import subprocess

    x = np.random.default_rng(1).standard_normal((3, 100), dtype=np.float32)
    header = json.dumps({"x": {"dtype": "F32", "shape": [3, 100], "data_offsets": [0, 1200]}}).encode()
    header += b" " * (-len(header) % 8)
    source = tmp_path / "in.safetensors"
    source.write_bytes(len(header).to_bytes(8, "little") + header + x.tobytes())
    mxlm.cast_file(source, tmp_path / "ours", "mxfp6@block=16")
    subprocess.run([program, "cast", source, "-o", tmp_path / "theirs", "--format", "mxfp6@block=16"], check=True)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").read_bytes()[-1200:] == mxlm.quantize(x, "mxfp6@block=16").tobytes()
    with pytest.raises(mxlm.Error, match="nowhere"):
        mxlm.cast_file(tmp_path / "nowhere", tmp_path / "out", "mxfp4")
    assert not (tmp_path / "out").exists()


# --- torch, where it is


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_torch_tensors(torch):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.linspace(-5, 5, 6 * 70).reshape(6, 70).to(dtype)
        y = mxlm.quantize(x, "mxfp4")
        assert isinstance(y, torch.Tensor) and y.dtype == dtype and y.shape == x.shape
        expected = mxlm.quantize(x.float().numpy(), "mxfp4")
        assert torch.equal(y.float(), torch.from_numpy(expected))
        assert torch.equal(mxlm.quantize(x.T, "mxfp4"), mxlm.quantize(x.T.contiguous(), "mxfp4"))
    leaf = torch.ones(4, requires_grad=True)
    assert not mxlm.quantize(leaf, "mxfp4").requires_grad
    with pytest.raises(TypeError):
        mxlm.quantize(torch.ones(4, dtype=torch.int32), "mxfp4")


def test_microxcaling_beside_us(torch):
    """Needs the folder of microxcaling in MICROXCALING; tools/checks/check_python_microxcaling.py compares much more."""
    folder = os.environ.get("MICROXCALING")
    if not folder:
        pytest.skip("MICROXCALING names no folder")
    sys.path.insert(0, folder)
    from mx.mx_ops import _quantize_mx

    x = torch.randn(64, 96, generator=torch.Generator().manual_seed(0)) * 10
    for ours, theirs in (("mxfp4", "fp4_e2m1"), ("mxfp8_e4m3", "fp8_e4m3"), ("mxint8", "int8")):
        expected = _quantize_mx(x, 8, theirs, shared_exp_method="max", axes=[-1], block_size=32, round="even")
        assert torch.equal(mxlm.quantize(x, ours), expected), ours
