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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_DEPTH = 40
MAX_NODES = 2_000_000
_LARGEST_JSON_INT = 1 << 63  # beyond it, Python limits the conversion to decimal text
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
    """Turn what :func:`encode` gave back into a value; tensors come back as torch tensors."""
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


def _encode_text(data: bytes) -> str:
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
    return {
        "t": "array",
        "dtype": array.dtype.name,
        "shape": list(array.shape),
        "data": _encode_text(little.tobytes()),
    }


def _encode_tensor(value: Any) -> Any:
    """Write a torch tensor through numpy; bfloat16, which numpy lacks, as float32."""
    torch = sys.modules["torch"]
    plain = value.detach().cpu()
    if plain.dtype == torch.bfloat16:
        plain = plain.float()
    tree = _encode_array(plain.resolve_conj().resolve_neg().numpy())
    tree["t"] = "tensor" if tree["t"] == "array" else tree["t"]
    tree["torch_dtype"] = str(value.dtype).removeprefix("torch.")
    return tree


_SCALARS: dict[type, Callable[[Any], Any]] = {
    int: _encode_int,
    float: lambda value: float.__float__(value),
    str: lambda value: str.__str__(value),
    bytes: lambda value: {"t": "bytes", "data": _encode_text(bytes.__add__(value, b""))},
    bytearray: lambda value: {"t": "bytearray", "data": _encode_text(bytes(value))},
    complex: lambda value: {"t": "complex", "parts": [value.real, value.imag]},
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
    return little.astype(dtype).reshape(shape)


def _decode_tensor(tree: Mapping[str, Any]) -> Any:
    torch = importlib.import_module("torch")  # only where a tensor is: it takes two seconds
    return torch.from_numpy(_decode_array(tree)).to(getattr(torch, str(tree["torch_dtype"])))


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
