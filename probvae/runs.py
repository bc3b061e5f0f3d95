"""A run on disk: one folder, every file in it whole, nothing in it that can execute code.

config.toml          the recipe that reproduces the run
environment.json     versions, seed, device, threads, data fingerprint
metrics.jsonl        one line an epoch
checkpoints/         the newest two states
model.safetensors    weights, and how to rebuild the components
summary.json         the numbers that the command line printed
figures/             PNG and SVG
report.html, report.json, posterior.nc    what `probvae report` adds
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probvae._files import write_text
from probvae.errors import RunError

NUM_CHECKPOINTS = 2


class Run:
    """A run folder. Nothing is on disk before :meth:`create`, which also writes the files in ``preamble``."""

    def __init__(self, folder: str | Path, preamble: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self._preamble = dict(preamble or {})

    def add_to_environment(self, content: Mapping[str, Any]) -> None:
        """More for ``environment.json``, before it is written."""
        known = json.loads(self._preamble.get("environment.json", "{}"))
        self._preamble["environment.json"] = json.dumps({**known, **content}, indent=2) + "\n"

    def check_free(self) -> None:
        """Raise :class:`~probvae.errors.RunError` when there is something at the folder's place already."""
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            return
        if self.folder.exists() or self.folder.is_symlink():
            raise RunError(f"out: {self.folder} exists. Choose another folder, or remove this one.")

    def create(self) -> None:
        """Make the folder; it must not exist yet, except empty."""
        try:
            self.check_free()
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "checkpoints").mkdir()
        except RunError:
            raise
        except OSError as error:
            raise RunError(
                f"out: {self.folder} cannot be written ({error.strerror}). Choose another folder."
            ) from error
        for name, text in self._preamble.items():
            self.write_text(name, text)

    @property
    def model_file(self) -> Path:
        """Where the fitted weights are."""
        return self.folder / "model.safetensors"

    @property
    def figures(self) -> Path:
        """Where the pictures are."""
        return self.folder / "figures"

    def checkpoint_file(self, epoch: int) -> Path:
        """Where the state after ``epoch`` is."""
        return self.folder / "checkpoints" / f"epoch-{epoch:06d}.safetensors"

    def drop_old_checkpoints(self) -> None:
        """Keep the newest two."""
        for file in sorted((self.folder / "checkpoints").glob("epoch-*.safetensors"))[:-NUM_CHECKPOINTS]:
            file.unlink()

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add one line to ``metrics.jsonl``."""
        file = self.folder / "metrics.jsonl"
        try:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record, allow_nan=False) + "\n")
        except OSError as error:
            raise RunError(f"{file}: cannot be written ({error.strerror}).") from error

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``content`` to the file ``name``."""
        write_text(self.folder / name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` to the file ``name``."""
        write_text(self.folder / name, text)
