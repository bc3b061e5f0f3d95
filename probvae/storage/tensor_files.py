"""Named tensors and text in one safetensors file, which is whole or not there."""

import hashlib
import json
from collections.abc import Mapping
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from probvae.errors import RunError
from probvae.storage.files import write_atomic

# Names of dtypes in the safetensors format
_NAMES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.bool: "BOOL"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8"},
}


class Packed(NamedTuple):
    """Content of a safetensors file: names, dtypes, shapes and offsets as JSON, and all tensors' bytes in one (B,)."""

    header: str
    data: Tensor

    def digest(self, metadata: Mapping[str, str]) -> str:
        """SHA-256 of names, dtypes, shapes, values and ``metadata``, as hexadecimal digits."""
        text = json.dumps([self.header, dict(metadata)], sort_keys=True)
        found = hashlib.sha256(text.encode())
        found.update(self.data.numpy().data)
        return found.hexdigest()


@torch.no_grad()
def pack(tensors: Mapping[str, Tensor]) -> Packed:
    """A copy of ``tensors`` (any shapes) in a file's order: wide dtypes first, so that each is aligned to its size."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    ends = list(accumulate(tensor.nbytes for _, tensor in ordered))
    starts = [0, *ends[:-1]]
    header = {
        name: {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        for (name, tensor), start, end in zip(ordered, starts, ends, strict=True)
    }
    data = torch.empty(ends[-1] if ends else 0, dtype=torch.uint8)
    for (_, tensor), start, end in zip(ordered, starts, ends, strict=True):
        data[start:end].view(tensor.dtype).view(tensor.shape).copy_(tensor)
    return Packed(json.dumps(header), data)


def write_packed(path: Path, packed: Packed, metadata: Mapping[str, str]) -> None:
    """Write tensors and text atomically. Raises :class:`~probvae.errors.RunError` where they cannot be written.

    The package safetensors keeps Python's lock while it writes, and a fit would wait for it at every checkpoint; it
    also writes the texts in another order each time. Source: https://huggingface.co/docs/safetensors ("Format").
    """
    separator = ", " if packed.header != "{}" else ""
    header = ('{"__metadata__": ' + json.dumps(dict(metadata)) + separator + packed.header[1:]).encode()
    header += b" " * (-len(header) % 8)

    def write(temporary: Path) -> None:
        with temporary.open("wb", buffering=0) as file:
            _write_all(file, memoryview(len(header).to_bytes(8, "little") + header))
            _write_all(file, packed.data.numpy().data)

    write_atomic(path, write)


def _write_all(file: FileIO, content: memoryview) -> None:
    while content:
        content = content[file.write(content) :]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write ``tensors`` (any shapes) and text atomically: :func:`pack`, then :func:`write_packed`."""
    write_packed(path, pack(tensors), metadata)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name (shapes as written) and text; raises :class:`~probvae.errors.RunError` for a damaged file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunError(f"{path}: there is no such file. Was the fit stopped before its end?")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        # safetensors leaves some faults of a header to torch and Python, which raise errors of their own
        raise RunError(f"{path}: not a whole safetensors file ({error}). Fit again, or take a checkpoint.") from error
