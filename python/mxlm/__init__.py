"""mxlm: what happens to a language model when its matrix products run in a Microscaling (MX) format.

>>> import mxlm, numpy
>>> mxlm.quantize(numpy.array([1.0, 2.4, 5.1, 0.2], dtype="float32"), "mxfp4")
array([1., 2., 6., 0.], dtype=float32)

Mistakes of the caller raise UsageError (a ValueError too), everything else that can go wrong with files, models and
devices Error (a RuntimeError), each with a sentence that says what was wrong, where, and what to do. What the program
would log goes to logging.getLogger("mxlm").
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar, Union

from . import _core
from ._core import Error, Model, UsageError, __version__

__all__ = ["Error", "Model", "UsageError", "__version__", "cast_file", "evaluate", "formats", "load", "quantize"]

Array = TypeVar("Array")

_TYPES = ("float32", "float16", "bfloat16")


def _torch_tensor(array: Any) -> Any:
    """torch, if `array` is a tensor of it (which then is imported already)."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(array, torch.Tensor) else None


def quantize(array: Array, format: str, *, dtype: Optional[str] = None, threads: int = 0) -> Array:
    """Quantises an array in blocks along its last axis and decodes it again.

    array: a NumPy array or torch tensor of any shape, on the CPU, float32, float16 or (torch) bfloat16; anything else
        that has __dlpack__ gives a NumPy array. It is read where it lies, unless it is not contiguous.
    format: a format and its keys, "mxfp4", "mxfp8_e5m2@block=16@rule=rceil": an operand of the variant grammar.
        A scale that a tensor shares (as of nvfp4) is that of the whole array.
    dtype: of the result, "float32", "float16" or "bfloat16"; None is the array's. Values are computed in float32 and
        rounded once to it, to nearest even.
    threads: 0 = as many as there are cores, fewer for small arrays; changes no bit.

    Returns a new array of the same kind and shape. A block with a NaN or an Inf becomes NaNs. No gradient goes through.
    Raises UsageError for a format that is not known, TypeError for what is no array of such values.
    """
    if dtype is not None and dtype not in _TYPES:
        raise UsageError(f"dtype {dtype!r} is not known; it is one of {', '.join(_TYPES)}.")
    torch = _torch_tensor(array)
    if torch is not None:
        if array.device.type != "cpu":
            raise TypeError(f"the tensor is on {array.device}; move it to the CPU first")
        source = array.detach().contiguous()
        out = torch.empty_like(source, dtype=None if dtype is None else getattr(torch, dtype))
    else:
        import numpy

        if not isinstance(array, numpy.ndarray):
            if not hasattr(array, "__dlpack__"):
                raise TypeError(f"a {type(array).__name__} is no array; give a NumPy array or a torch tensor")
            array = numpy.from_dlpack(array)
        if dtype == "bfloat16":
            raise UsageError("NumPy has no bfloat16; ask for float32 or float16, or give a torch tensor.")
        source = array if array.flags.c_contiguous else array.copy(order="C")
        out = numpy.empty(source.shape, dtype=source.dtype if dtype is None else dtype)
    if str(source.dtype).replace("torch.", "") not in _TYPES:
        raise TypeError(f"values are float32, float16 or bfloat16, not {source.dtype}; convert the array first")
    _core.quantize_into(source, format, out, threads)
    return out


def formats() -> List[Dict[str, Any]]:
    """The named element formats: name, aliases, bits (of an element, without its share of a scale), exponent_bits,
    mantissa_bits, emax (exponent of the largest binade), largest and smallest (magnitudes under a scale of 1), note."""
    return _core.formats()


def cast_file(
    input: Union[str, "os.PathLike[str]"],
    output: Union[str, "os.PathLike[str]"],
    format: str,
    *,
    packed: bool = False,
    threads: int = 0,
) -> None:
    """`mxlm cast`: quantises every floating tensor of a safetensors file along its last axis and decodes it to F32; the
    others are copied. packed: writes codes (U8) and, as NAME.scale, scales (E8M0) instead. The output appears whole or
    not at all. Raises Error for files, UsageError for the format or one that cannot be packed."""
    _core.cast_file(os.fspath(input), os.fspath(output), format, packed, threads)


def load(
    model: Union[str, "os.PathLike[str]", None] = None, *, adapter: Union[str, "os.PathLike[str]", None] = None
) -> Model:
    """Opens a model: a folder with config.json, weights and tokenizer.json, a hub id ("org/name[@revision]", downloaded
    unless the Hugging Face cache has it) or a name of `mxlm models`; None is the one that is built in. Its files stay
    mapped as long as it lives. adapter: the folder of a LoRA adapter to merge into its weights. Raises Error."""
    return _core.load("" if model is None else os.fspath(model), "" if adapter is None else os.fspath(adapter))


def evaluate(
    model: Union[str, "os.PathLike[str]", Model, None] = None,
    *,
    text: Union[str, Sequence[str], None] = None,
    data: Union[str, "os.PathLike[str]", None] = None,
    variants: Union[str, Sequence[str], None] = None,
    protocol: Optional[str] = None,
    context: int = 0,
    stride: int = 0,
    max_windows: int = 0,
    windows: int = 0,
    max_samples: int = 0,
    field: str = "text",
    bos: str = "template",
    allow_long_context: bool = False,
    dtype: str = "auto",
    device: str = "auto",
    gemm: str = "exact",
    threads: int = 0,
    batch_size: int = 0,
    round_tokens: int = 0,
    stream: bool = False,
    noise: bool = False,
    jensen_shannon: bool = False,
    linear_errors: bool = False,
    exponents: bool = False,
    journal: Union[str, "os.PathLike[str]", None] = None,
    resume: bool = False,
    progress: Optional[Callable[[float, float], None]] = None,
) -> Dict[str, Any]:
    """Baseline and variants of a model side by side; the options are those of `mxlm eval`, 0 being its default.

    model: as for load(), or what load() gave.
    text: a text, or several. data: NAME_OR_PATH[:SPLIT[:SUBSET]] as --data takes it, files too. Neither: the text that is
        built in.
    variants: in the variant grammar, "mlp=mxfp4/mxfp8"; None is attention and MLP in mxfp8_e4m3, [] the baseline alone.
    context, stride: tokens. max_windows: the first so many; windows: so many, spread evenly over the text. journal: a folder that keeps finished rounds; resume: go on with those that it holds.
    progress: is given (done, total), tokens x variants, now and then; what it raises ends the work.

    Returns what `mxlm eval --json` writes (schema mxlm.eval/1), with one run: result["runs"][0]["variants"], the baseline
    first. The GIL is free meanwhile. Ctrl-C ends the work within about a second and raises KeyboardInterrupt; with a
    journal, finished rounds are kept. Raises UsageError for options that make no sense, Error for everything else.
    """
    if text is not None and data is not None:
        raise UsageError("text and data exclude one another; leave one of them out.")
    arguments = _core.Arguments()
    if variants is not None:
        arguments.variants = [variants] if isinstance(variants, str) else list(variants)
    arguments.protocol = protocol or ""
    arguments.context = context
    arguments.stride = stride
    arguments.max_windows = max_windows
    arguments.windows = windows
    arguments.bos = bos
    arguments.allow_long_context = allow_long_context
    arguments.dtype = dtype
    arguments.device = device
    arguments.gemm = gemm
    arguments.threads = threads
    arguments.batch_windows = batch_size
    arguments.round_tokens = round_tokens
    arguments.stream = stream
    arguments.noise = noise
    arguments.jensen_shannon = jensen_shannon
    arguments.linear_errors = linear_errors
    arguments.exponents = exponents
    arguments.journal = "" if journal is None else os.fspath(journal)
    arguments.resume = resume

    if text is not None:
        texts = [text] if isinstance(text, str) else list(text)
        source = _core.text_data([t.encode("utf-8", "surrogatepass") for t in texts])
    elif data is not None:
        source = _core.read_data(os.fspath(data), field, max_samples, protocol in ("document", "self"))
    else:
        source = _core.embedded_data()
    opened = model if isinstance(model, Model) else load(model)
    return json.loads(_core.evaluate(opened, source, arguments, progress))
