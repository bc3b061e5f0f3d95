"""Named tensors and text in one safetensors file, which is whole or not there."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probvae._files import write_atomic
from probvae.errors import RunError

# The format's names of dtypes
_NAMES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
}


class Packed(NamedTuple):
    """Tensors as a safetensors file has them: a header with names, dtypes, shapes and places, and their own bytes."""

    header: dict[str, dict[str, Any]]
    parts: list[memoryview]

    def digest(self, metadata: Mapping[str, str]) -> str:
        """SHA-256 of names, dtypes, shapes and values, and of the text beside them."""
        found = hashlib.sha256(json.dumps([self.header, dict(metadata)], sort_keys=True).encode())
        for part in self.parts:
            found.update(part)
        return found.hexdigest()


def pack(tensors: Mapping[str, Tensor]) -> Packed:
    """Bring tensors into the order of a file: large numbers first, so that each lies at a multiple of its size."""
    header: dict[str, dict[str, Any]] = {}
    parts: list[memoryview] = []
    place = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])):
        part = _bytes_of(tensor)
        offsets = [place, place + len(part)]
        header[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
        parts.append(part)
        place += len(part)
    return Packed(header, parts)


def _bytes_of(tensor: Tensor) -> memoryview:
    values = tensor.detach().cpu().contiguous()
    if values.dtype is torch.bfloat16:  # numpy has none
        values = values.view(torch.int16)
    return values.numpy().reshape(-1).view("u1").data


def write_packed(path: Path, packed: Packed, metadata: Mapping[str, str]) -> None:
    """Write tensors and text atomically. Raises :class:`~probvae.errors.RunError` where that cannot be.

    The package safetensors keeps Python's lock while it writes, and a fit would wait for it at every checkpoint; it
    also writes the texts in another order each time. Source: https://huggingface.co/docs/safetensors ("Format").
    """
    header = json.dumps({"__metadata__": dict(metadata), **packed.header}).encode()
    header += b" " * (-len(header) % 8)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            file.writelines(packed.parts)

    write_atomic(path, write)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """:func:`write_packed` of :func:`pack`."""
    write_packed(path, pack(tensors), metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What :func:`write_tensors` wrote. Raises :class:`~probvae.errors.RunError` for a file that is not whole."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunError(f"{path}: there is no such file. Was the fit stopped before its end?")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # what safetensors does not look for in a header, torch and Python are the first to complain of
        raise RunError(f"{path}: not a whole safetensors file ({error}). Fit again, or take a checkpoint.") from error
