"""Values as JSON text: the only thing that crosses between the grader and a reader's code.

Nothing is pickled. Only values whose type is known to be plain data are written; anything else
becomes an :class:`Opaque` that carries its type's name and nothing more, so an object with a
hostile ``__eq__`` or ``__repr__`` never reaches a comparison. Methods of the base types are called
unbound (``dict.items(value)``), so a subclass that overrides them is written as it is, not as it
says it is.
"""

import base64
import importlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_DEPTH = 40
MAX_NODES = 2_000_000
_LARGEST_JSON_INT = 1 << 63  # beyond it, Python limits the conversion to decimal text
_LARGEST_SPREAD = 64  # memory that a strided array may take, in multiples of its elements
_NUMERIC_KINDS = "biufc"


@dataclass(frozen=True)
class Opaque:
    """Stands for a value that is not plain data. Equal to nothing but the same type's name."""

    type_name: str

    def __repr__(self) -> str:
        return f"<{self.type_name} object>"


class ValueFormatError(ValueError):
    """Text that is not what :func:`encode` writes, or is too large or too deep."""


def dumps(value: Any) -> str:
    """Write a value as JSON text of one line."""
    return json.dumps(encode(value), separators=(",", ":"))


def loads(text: str) -> Any:
    """Read what :func:`dumps` wrote.

    Raises:
        ValueFormatError: the text is anything else.
    """
    try:
        return decode(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueFormatError(f"unreadable value: {error}") from error


def encode(value: Any) -> Any:
    """Turn a value into JSON's types; lists stay lists, other containers become tagged objects."""
    return _Encoder().encode(value, 0)


def decode(tree: Any) -> Any:
    """Turn what :func:`encode` gave back into a value; tensors come back as torch tensors.

    Arrays and tensors keep their strides, and tensors whether they require a gradient, so that a
    reader's function meets the same kinds of argument as elsewhere.
    """
    if isinstance(tree, list):
        return [decode(item) for item in tree]
    if not isinstance(tree, dict):
        return tree
    reader = _DECODERS.get(tree.get("t", ""))
    if reader is None:
        raise ValueFormatError(f"unknown tag {tree.get('t')!r}")
    try:
        return reader(tree)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueFormatError(f"bad {tree['t']}: {error}") from error


class _Encoder:
    """Encodes one value; counts nodes, so that a huge value is cut short and not copied."""

    def __init__(self) -> None:
        self._nodes = 0

    def encode(self, value: Any, depth: int) -> Any:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            return _opaque(f"{type(value).__name__} that is too deep or too large")
        kind = type(value)
        if value is None or kind is bool or kind is str or kind is float:
            return value
        if kind is int and -_LARGEST_JSON_INT < value < _LARGEST_JSON_INT:
            return value
        if kind is list:
            return [self.encode(item, depth + 1) for item in value]
        return self._encode_other(value, kind, depth + 1)

    def _encode_other(self, value: Any, kind: type, depth: int) -> Any:
        # issubclass(type(value), ...) and not isinstance: __class__ can be overridden.
        for base, write in self._containers().items():
            if issubclass(kind, base):
                return write(value, depth)
        for scalar, write_scalar in _SCALARS.items():
            if issubclass(kind, scalar):
                return write_scalar(value)
        torch = sys.modules.get("torch")
        if torch is not None and issubclass(kind, torch.Tensor):
            return _encode_tensor(value)
        return _opaque(kind.__qualname__)

    def _containers(self) -> Mapping[type, Callable[[Any, int], Any]]:
        return {
            list: lambda value, depth: [self.encode(item, depth) for item in list.__iter__(value)],
            tuple: lambda value, depth: {
                "t": "tuple",
                "items": [self.encode(item, depth) for item in tuple.__iter__(value)],
            },
            dict: lambda value, depth: {
                "t": "dict",
                "items": [
                    [self.encode(key, depth), self.encode(item, depth)]
                    for key, item in dict.items(value)
                ],
            },
            set: self._encode_set,
            frozenset: self._encode_set,
        }

    def _encode_set(self, value: Any, depth: int) -> Any:
        base = set if issubclass(type(value), set) else frozenset
        items = [self.encode(item, depth) for item in base.__iter__(value)]
        return {"t": base.__name__, "items": sorted(items, key=json.dumps)}


def _opaque(type_name: str) -> dict[str, Any]:
    return {"t": "opaque", "type": str(type_name)[:80]}


def _parts(value: complex) -> list[float]:
    return [value.real, value.imag]


def _encode_text(data: bytes | bytearray) -> str:
    return base64.b64encode(data).decode("ascii")


def _encode_int(value: int) -> Any:
    plain = int.__index__(value)
    if -_LARGEST_JSON_INT < plain < _LARGEST_JSON_INT:
        return plain
    return {"t": "int", "hex": hex(plain)}


def _encode_array(value: NDArray[Any]) -> Any:
    array = np.asarray(value).view(np.ndarray)
    if array.dtype.kind not in _NUMERIC_KINDS or array.dtype.itemsize > 16:
        return _opaque(f"array of {array.dtype}")
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    tree = {
        "t": "array",
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "data": _encode_text(little.tobytes()),
    }
    strides = [stride // array.itemsize for stride in array.strides]
    return _with_strides(tree, strides) if not array.flags.c_contiguous else tree


def _with_strides(tree: dict[str, Any], strides: Sequence[int]) -> dict[str, Any]:
    """Note distances in memory, in elements, where they can be had again; else they are dropped."""
    shape = tree["shape"]
    plain = min(strides) >= 0 and _extent(shape, strides) <= _LARGEST_SPREAD * math.prod(shape)
    return {**tree, "strides": list(strides)} if plain else tree


def _extent(shape: Sequence[int], strides: Sequence[int]) -> int:
    return 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))


def _encode_tensor(value: Any) -> Any:
    """Write a torch tensor through numpy; floats that numpy lacks, such as bfloat16, as float32."""
    torch = sys.modules["torch"]
    try:
        with torch._C.DisableTorchFunctionSubclass():  # as it is, not as a subclass says it is
            plain = torch.Tensor.detach(value).as_subclass(torch.Tensor).cpu()
            needs_grad = torch.Tensor.requires_grad.__get__(value)
            whole = plain.contiguous().resolve_conj().resolve_neg()
            if whole.is_floating_point() and whole.dtype not in _numpy_floats(torch):
                whole = whole.float()
            tree = _encode_array(whole.numpy())
            if not plain.is_contiguous():
                tree = _with_strides(tree, plain.stride())
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantized, meta
        return _opaque(f"tensor that is not plain ({error})")
    tree |= {"t": "tensor", "torch_dtype": str(plain.dtype).removeprefix("torch.")}
    return {**tree, "requires_grad": True} if needs_grad else tree


def _numpy_floats(torch: Any) -> tuple[Any, ...]:
    return torch.float16, torch.float32, torch.float64


_SCALARS: dict[type, Callable[[Any], Any]] = {
    int: _encode_int,
    float: lambda value: float.__float__(value),
    str: lambda value: str.__str__(value),
    bytes: lambda value: {"t": "bytes", "data": _encode_text(bytes.__add__(value, b""))},
    bytearray: lambda value: {
        "t": "bytearray",
        "data": _encode_text(bytearray.__add__(value, b"")),
    },
    complex: lambda value: {"t": "complex", "parts": _parts(complex.__complex__(value))},
    range: lambda value: {"t": "range", "of": [value.start, value.stop, value.step]},
    np.ndarray: _encode_array,
    np.generic: lambda value: {**_encode_array(np.asarray(value)), "t": "scalar"},
}


def _decode_array(tree: Mapping[str, Any]) -> NDArray[Any]:
    dtype = np.dtype(str(tree["dtype"]))
    if dtype.kind not in _NUMERIC_KINDS:
        raise ValueFormatError(f"dtype {dtype} is not a numeric one")
    shape = tuple(int(size) for size in tree["shape"])
    data = base64.b64decode(tree["data"], validate=True)
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueFormatError(f"shape {shape} does not fit {len(data)} bytes")
    little = np.frombuffer(data, dtype=dtype.newbyteorder("<"))
    array = little.astype(dtype).reshape(shape)
    if "strides" not in tree:
        return array
    strides = [int(step) * array.itemsize for step in tree["strides"]]
    return np.lib.stride_tricks.as_strided(_spread(array, tree), shape, strides)


def _spread(array: NDArray[Any], tree: Mapping[str, Any]) -> NDArray[Any]:
    """Memory in which elements lie at the distances that ``tree`` notes."""
    strides = [int(step) for step in tree["strides"]]
    if len(strides) != array.ndim or min(strides) < 0 or array.size == 0:
        raise ValueFormatError(f"strides {strides} do not fit the shape {array.shape}")
    extent = _extent(array.shape, strides)
    if extent > _LARGEST_SPREAD * array.size:
        raise ValueFormatError(f"strides {strides} are too wide for the shape {array.shape}")
    room = np.zeros(extent, array.dtype)
    steps = [step * array.itemsize for step in strides]
    np.lib.stride_tricks.as_strided(room, array.shape, steps)[...] = array
    return room


def _decode_tensor(tree: Mapping[str, Any]) -> Any:
    torch = importlib.import_module("torch")  # only where a tensor is: it takes two seconds
    dtype = getattr(torch, str(tree["torch_dtype"]))
    array = _decode_array({key: item for key, item in tree.items() if key != "strides"})
    if "strides" in tree:
        room = torch.from_numpy(_spread(array, tree)).to(dtype)
        plain = room.as_strided(array.shape, tree["strides"])
    else:
        plain = torch.from_numpy(array).to(dtype)
    return plain.requires_grad_() if tree.get("requires_grad") else plain


def _decode_dict(tree: Mapping[str, Any]) -> dict[Any, Any]:
    return {decode(key): decode(item) for key, item in tree["items"]}


_DECODERS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "tuple": lambda tree: tuple(decode(item) for item in tree["items"]),
    "dict": _decode_dict,
    "set": lambda tree: {decode(item) for item in tree["items"]},
    "frozenset": lambda tree: frozenset(decode(item) for item in tree["items"]),
    "int": lambda tree: int(tree["hex"], 16),
    "bytes": lambda tree: base64.b64decode(tree["data"], validate=True),
    "bytearray": lambda tree: bytearray(base64.b64decode(tree["data"], validate=True)),
    "complex": lambda tree: complex(*tree["parts"]),
    "range": lambda tree: range(*tree["of"]),
    "array": _decode_array,
    "scalar": lambda tree: _decode_array(tree)[()],
    "tensor": _decode_tensor,
    "opaque": lambda tree: Opaque(str(tree["type"])),
}
