"""Named tensors and text in one safetensors file, which is whole or not there."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from probvae._files import write_atomic
from probvae.errors import RunError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write both atomically. Raises :class:`~probvae.errors.RunError` where that cannot be."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        try:
            save_file(content, temporary, dict(metadata))
        except SafetensorError as error:  # a full disk, in its own words
            raise OSError(str(error)) from error

    write_atomic(path, write)


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


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, shapes, dtypes, values and text."""
    content: list[bytes | memoryview] = []
    content += [f"{name}={len(text)}:{text};".encode() for name, text in sorted(metadata.items())]
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        content += [f"{name}={values.dtype}{tuple(values.shape)};".encode()]
        content += [values.flatten().view(torch.uint8).numpy().data]
    # in one piece: a thread that hashes it lets the others run once, and not at each of hundreds of tensors
    return hashlib.sha256(b"".join(content)).hexdigest()
