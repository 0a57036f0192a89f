from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Union

__version__: str

class Error(RuntimeError): ...
class UsageError(Error, ValueError): ...
class Interrupted(RuntimeError): ...

class Model:
    """An opened checkpoint, as mxlm.load() gives it."""
    @property
    def name(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def parameters(self) -> int: ...
    @property
    def max_positions(self) -> int: ...

class Data: ...

class Arguments:
    variants: List[str]
    protocol: str
    context: int
    stride: int
    max_windows: int
    windows: int
    bos: str
    allow_long_context: bool
    dtype: str
    device: str
    gemm: str
    threads: int
    batch_windows: int
    round_tokens: int
    stream: bool
    noise: bool
    jensen_shannon: bool
    linear_errors: bool
    exponents: bool
    journal: Union[str, Path]
    resume: bool

def load(model: str) -> Model: ...
def embedded_data() -> Data: ...
def text_data(texts: List[bytes]) -> Data: ...
def read_data(name: str, field: str, max_documents: int, wikitext_rows: bool) -> Data: ...
def quantize_into(array: Any, spec: str, out: Any, threads: int) -> None: ...
def formats() -> List[Dict[str, Any]]: ...
def cast_file(input: Union[str, Path], output: Union[str, Path], spec: str, packed: bool, threads: int) -> None: ...
def evaluate(
    model: Model, data: Data, arguments: Arguments, progress: Optional[Callable[[float, float], None]]
) -> str: ...
