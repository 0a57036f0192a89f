"""mxlm: what happens to a language model when its matrix products run in a Microscaling (MX) format.

>>> import mxlm, numpy
>>> mxlm.quantize(numpy.array([1.0, 2.4, 5.1, 0.2], dtype="float32"), "mxfp4")
array([1., 2., 6., 0.], dtype=float32)

Mistakes of the caller raise UsageError (a ValueError too), everything else that can go wrong with files, models and
devices Error (a RuntimeError), each with a sentence that says what was wrong, where, and what to do. What the program
would log goes to logging.getLogger("mxlm").
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Mapping, Optional, Sequence, TypeVar, Union

from . import _core
from ._core import Error, Model, UsageError, __version__

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._options import Options

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
    progress: Optional[Callable[[float, float], None]] = None,
    **options: Unpack[Options],
) -> Dict[str, Any]:
    """Baseline and variants of a model side by side, as `mxlm eval`.

    model: as for load(), or what load() gave.
    text: a text, or several. data: NAME_OR_PATH[:SPLIT[:SUBSET]] as --data takes it, files too. Neither: the text that is
        built in.
    progress: is given (done, total), tokens x variants, now and then; what it raises ends the work.

    Returns what `mxlm eval --json` writes (schema mxlm.eval/1), with one run: result["runs"][0]["variants"], the baseline
    first. The GIL is free meanwhile. Ctrl-C ends the work within about a second and raises KeyboardInterrupt; with a
    journal, finished shards are kept. Raises UsageError for options that make no sense, Error for everything else.

    The options, of which None is the default; variants=[] is the baseline alone:
    """
    if text is not None and data is not None:
        raise UsageError("text and data exclude one another; leave one of them out.")
    given = _current_options(options)
    if text is not None:
        texts = [text] if isinstance(text, str) else list(text)
        source = _core.text_data([t.encode("utf-8", "surrogatepass") for t in texts])
    elif data is not None:
        source = _core.read_data(os.fspath(data), given)
    else:
        source = _core.embedded_data()
    opened = model if isinstance(model, Model) else load(model)
    return json.loads(_core.evaluate(opened, source, given, progress))


_OPTIONS = {row["name"]: row for row in _core.options()}
_FORMER = {row["former"][2:].replace("-", "_"): name for name, row in _OPTIONS.items() if row["former"]}


def _current_options(options: Mapping[str, Any]) -> Dict[str, Any]:
    """The options under their current names. Raises TypeError for a name that is none."""
    out: Dict[str, Any] = {}
    for name, value in options.items():
        current = _FORMER.get(name, name)
        if current != name:
            warnings.warn(f"{name} is now called {current}", DeprecationWarning, stacklevel=3)
        if current not in _OPTIONS:
            raise TypeError(f"evaluate() got an unexpected keyword argument {name!r}")
        if current in out:
            raise TypeError(f"evaluate() got {name!r} and {current!r}, which are one option")
        out[current] = value
    return out


def _describe(function: Callable[..., Any]) -> None:
    """Gives `function`, which takes **options, the signature and the documentation that the table of options implies."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for name, row in _OPTIONS.items():
        default = None if row["default"] == "" else row["default"]
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=row["type"])
        )
        function.__doc__ = f"{function.__doc__}{name}: {row['help']}.\n    "
    setattr(function, "__signature__", signature.replace(parameters=parameters))


_describe(evaluate)
