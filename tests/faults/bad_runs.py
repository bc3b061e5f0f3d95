"""Run folders that are damaged, or that somebody has made."""

import json
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.bad_arrays import X
from tests.faults.bad_recipes import toml
from tests.faults.damage import damaged

# not `report`: it opens a run as `gap` does, and works on it for seconds
_COMMANDS = (
    ["encode", "run"],
    ["encode", "run"],
    ["reconstruct", "run"],
    ["sample", "run"],
    ["sample", "run", "-n", "3"],
    ["gap", "run"],
    ["impute", "run"],
    ["compare", "run", "run"],
)
_CHECKPOINT = "checkpoints/epoch-000001.safetensors"
_RESUME = ["fit", "--resume", "run", "--no-gap", "--no-figures", "--no-progress"]
_WITH_A_NUMBER = (
    ["sample", "run", "-n"],
    ["sample", "run", "--seed"],
    ["gap", "run", "--seed"],
    ["gap", "run", "--num-data"],
    ["impute", "run", "-n"],
    ["impute", "run", "--interval"],
    ["encode", "run", "--memory-limit"],
    ["sample", "run", "--given"],
    ["gap", "run", "--truth"],
    ["gap", "run", "--data"],
)
_NUMBERS = (
    "0",
    "-1",
    "1",
    "1000000000",
    "9" * 18,
    "9" * 30,
    "9" * 5000,
    "nan",
    "inf",
    "-0.0",
    "1e-300",
    "x",
    "",
    "1GB",
    "0GB",
)
_JSON = (
    "", "{}", "[]", "null", "1", '"x"', "nan", "[" * 100_000, '{"a":' * 5000, "9" * 5000, "\x00", '{"elbo": NaN}',
    '{"elbo": {"value": "x"}}', '{"data": 1}', '{"data": {"fingerprint": 5}}', '{"num_held_out": -1}',
)  # fmt: skip


def run(rng: Random, folder: Path) -> list[str]:
    """A run folder with one file that is not as the fit wrote it, or an option that no run has an answer to."""
    write_run(folder)
    if rng.random() < 0.15:
        return [*rng.choice(_WITH_A_NUMBER), rng.choice(_NUMBERS), "--out", "out"]
    make: Callable[[Path, Random], None] = rng.choice(
        [
            _damage,
            _damage,
            _damage,
            _lying_weights,
            _other_description,
            _other_recipe,
            _other_json,
            _leave_out,
            _replace,
        ]
    )
    make(folder / "run", rng)
    return _RESUME if rng.random() < 0.2 else [*rng.choice(_COMMANDS), "--out", "out"]


def write_run(folder: Path) -> None:
    """A small run of ``good.npy``, both in ``folder``."""
    for name, content in _original().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@cache
def _original() -> dict[str, bytes]:
    import contextlib

    import numpy as np

    from probvae.experiments.recipe import resolve
    from probvae.experiments.run import run_recipe

    recipe: dict[str, dict[str, Any]] = {
        "data": {"source": "good.npy"},
        "training": {"epochs": 1, "batch_size": 8},
        "model": {"decoder": {"hidden": [4]}},
        "inference": {"encoder": {"hidden": [4]}},
    }
    with tempfile.TemporaryDirectory() as home, contextlib.chdir(home):
        np.save("good.npy", X)
        run_recipe(resolve([recipe]), "run", progress=False, ledger=False)
        files = [path for path in Path().rglob("*") if path.is_file()]
        return {path.as_posix(): path.read_bytes() for path in files}


def _file(run: Path, rng: Random) -> Path:
    often, rarely = (
        ("model.safetensors", "config.toml", _CHECKPOINT),
        ("summary.json", "environment.json", "metrics.jsonl"),
    )
    return run / rng.choice(often * 2 + rarely)


def _damage(run: Path, rng: Random) -> None:
    file = _file(run, rng)
    file.write_bytes(damaged(file.read_bytes(), rng))


def _lying_weights(run: Path, rng: Random) -> None:
    """A header of weights or a checkpoint that says what is not so."""
    file = run / rng.choice(["model.safetensors", "model.safetensors", _CHECKPOINT])
    header, tensors = _header(file)
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    change: Callable[[], Any] = rng.choice(
        [
            lambda: entry.update(
                shape=rng.choice([[10**12], [10**6, 10**6], [-1], [], [0], [2**62, 4], "x", None, [1.5]])
            ),
            lambda: entry.update(
                dtype=rng.choice(["F64", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "X", 1, None])
            ),
            lambda: entry.update(
                data_offsets=rng.choice([[0, 10**12], [-1, 4], [4, 0], [0, 0], [], None, [2**63, 2**64]])
            ),
            lambda: header.update({rng.choice(["", "../x", "x" * 5000, "\u0000", "<b>"]): header.pop(name)}),
            lambda: header.pop(name),
            lambda: header.update({f"more{number}": entry for number in range(1000)}),
        ]
    )
    change()
    _write(file, header, tensors, rng.choice([None, None, None, 0, 2**63, 10**12]))


def _other_description(run: Path, rng: Random) -> None:
    """Other metadata: the components, from which the model is built."""
    file = run / "model.safetensors"
    header, tensors = _header(file)
    metadata = header["__metadata__"]
    components = metadata["components"]
    old = rng.choice(
        ["linear", "mlp", "gaussian", "standard-normal", "diagonal", "prior", "decoder", "= 2", "= 3", "[4]", "silu"]
    )
    new = rng.choice([
        "os.system", "", "= -1", "= 1000000000", "= 0", "[1000000000]", "[]", "exact", "vamp", "flow", "= nan", "'x'",
        "__import__('os')", "uniform-hypercube", "= [[", "bernoulli", "= 1" + "0" * 40, "= '\\u0000'",
    ])  # fmt: skip
    metadata["components"] = rng.choice(
        [
            components.replace(old, new),
            components.replace(old, new, 1),
            toml(rng).decode("utf-8", "replace")[: 10**5],
            damaged(components.encode(), rng).decode("utf-8", "replace"),
            "",
            "a = " + "[" * 5000,
        ]
    )
    if rng.random() < 0.2:
        metadata["format"] = rng.choice(["", "0", "2", "99", "1.0", "x" * 10_000])
    _write(file, header, tensors)


def _other_recipe(run: Path, rng: Random) -> None:
    file = run / "config.toml"
    text = file.read_text()
    source = rng.choice(
        ["/dev/zero", "/etc/passwd", "../good.npy", "", "missing.csv", "run/model.safetensors", "iris", "run"]
    )
    file.write_bytes(
        rng.choice(
            [toml(rng), text.replace("good.npy", source).encode(), text.encode() + toml(rng), text.encode("utf-16")]
        )
    )


def _other_json(run: Path, rng: Random) -> None:
    (run / rng.choice(["summary.json", "environment.json", "metrics.jsonl"])).write_text(rng.choice(_JSON))


def _leave_out(run: Path, rng: Random) -> None:
    _file(run, rng).unlink()


def _replace(run: Path, rng: Random) -> None:
    """A folder, or a link that leads nowhere, in circles or out of the run, in the place of a file."""
    file = _file(run, rng)
    file.unlink()
    kind = rng.choice(["folder", "endless", "loop", "outside"])
    if kind == "folder":
        file.mkdir()
    else:
        file.symlink_to({"endless": "/dev/zero", "loop": file, "outside": "/etc/hostname"}[kind])


def _header(file: Path) -> tuple[dict[str, Any], bytes]:
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _write(file: Path, header: dict[str, Any], tensors: bytes, length: int | None = None) -> None:
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + tensors)
