"""A run on disk: one folder, every file in it whole, nothing in it that can execute code.

config.toml          the recipe that reproduces the run
environment.json     versions, seed, device, threads, data fingerprint
transform.json       the scaling, with the statistics of the training rows
metrics.jsonl        one line an epoch
checkpoints/         the newest two states
model.safetensors    weights, and how to rebuild the components
summary.json         the numbers that the command line printed
figures/             PNG and SVG
report.html, report.json, posterior.nc    what `probvae report` adds
"""

import errno
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from probvae.errors import RunError
from probvae.storage.files import write_text
from probvae.storage.temporary import acquired, marked_folder, remove_leftovers
from probvae.storage.untrusted import read_run_json, refuse_link

LOCK = ".lock"
# The system's words for a folder that was there already, and not empty
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY)


class Run:
    """A run folder. Nothing is on disk before :meth:`create`, which also writes the files in ``preamble``.

    From :meth:`create` or :meth:`open` to :meth:`close`, no other process can create or open the same folder. Where
    another process takes ``folder`` before :meth:`create` does, the run goes into the first free one of ``others``.
    """

    def __init__(
        self, folder: str | Path, preamble: Mapping[str, str] | None = None, others: Iterable[Path] = ()
    ) -> None:
        self.folder = Path(folder)
        self._others = iter(others)
        self._preamble = dict(preamble or {})
        self._lock: Any = None

    def add_preamble(self, files: Mapping[str, str]) -> None:
        """Have :meth:`create` write these texts too, by the names of their files."""
        self._preamble.update(files)

    def add_to_environment(self, content: Mapping[str, Any]) -> None:
        """Add ``content`` to ``environment.json``, before :meth:`create` writes the file."""
        known = json.loads(self._preamble.get("environment.json", "{}"))
        self._preamble["environment.json"] = json.dumps({**known, **content}, indent=2) + "\n"

    def check_free(self) -> None:
        """Raise :class:`~probvae.errors.RunError` when there is something at the folder's place already."""
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            return
        if self.folder.exists() or self.folder.is_symlink():
            raise RunError(f"out: {self.folder} exists. Choose another folder, or remove this one.")

    def create(self) -> None:
        """Make the folder, with the preamble in it, in one step. The folder must be new or empty.

        A process that is killed here leaves no run, or a run that can be resumed. An empty folder is filled where it
        stands, because a mounted folder cannot be replaced.
        """
        try:
            self.check_free()
        except RunError:
            self._take_other()
        try:
            if self.folder.is_dir():
                self.lock()
                self._fill(self.folder)
            else:
                self._appear()
        except RunError:
            raise
        except OSError as error:
            raise self._cannot_write(error) from error

    def _appear(self) -> None:
        """Fill a folder in a place of our own, and give it the name of the run."""
        parent = self.folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(parent)
        with marked_folder(parent) as own:
            stage = own / "run"
            stage.mkdir()
            self._lock = acquired(stage / LOCK)  # the lock stays with the folder when the folder gets its name
            self._fill(stage)
            self._take_name(stage)

    def _take_name(self, stage: Path) -> None:
        while True:
            try:
                stage.replace(self.folder)
                return
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
                self._take_other()

    def _take_other(self) -> None:
        """Go on with the next free one of the other names."""
        free = (folder for folder in self._others if not folder.exists())
        taken, self.folder = self.folder, next(free, self.folder)
        if self.folder == taken:
            raise RunError(f"out: {taken} exists. Choose another folder, or remove this one.")

    def _fill(self, folder: Path) -> None:
        (folder / "checkpoints").mkdir()
        # The recipe comes last, because a folder with a recipe is taken for a run
        for name in sorted(self._preamble, key=lambda name: name == "config.toml"):
            write_text(folder / name, self._preamble[name])

    def _cannot_write(self, error: OSError) -> RunError:
        return RunError(f"out: {self.folder} cannot be written ({error.strerror or error}). Choose another folder.")

    def open(self) -> None:
        """Go on with the run that an earlier process began; raises as :meth:`lock` does."""
        if not self.checkpoints.is_dir():
            raise RunError(f"{self.folder}: there is no run to go on with. Give a folder that `probvae fit` wrote.")
        for place in (self.checkpoints, self.folder / "metrics.jsonl", self.folder / LOCK):
            refuse_link(place)  # the fit writes to, or empties, each of the three in its place
        self.lock()
        for place in (self.folder, self.checkpoints, self.figures):
            if not place.is_symlink():
                remove_leftovers(place)

    def lock(self) -> None:
        """Keep other processes from writing here until :meth:`close`, or until this process ends in any way.

        Raises :class:`~probvae.errors.RunError` where another process has the lock.
        """
        try:
            self._lock = acquired(self.folder / LOCK)
        except OSError as error:
            raise self._cannot_write(error) from error
        if self._lock is None:
            raise RunError(f"{self.folder}: another process is writing this run. Wait until it has ended, or stop it.")

    def close(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def model_file(self) -> Path:
        """The file of the fitted weights."""
        return self.folder / "model.safetensors"

    @property
    def figures(self) -> Path:
        """The folder of the pictures."""
        return self.folder / "figures"

    @property
    def checkpoints(self) -> Path:
        """The folder of the states from which a fit can be resumed."""
        return self.folder / "checkpoints"

    def append_metrics(self, line: str) -> None:
        """Add one line to ``metrics.jsonl``."""
        file = self.folder / "metrics.jsonl"
        try:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise RunError(f"{file}: cannot be written ({error.strerror}).") from error

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file; raises :class:`~probvae.errors.RunError` where it is missing or damaged."""
        return read_run_json(self.folder, name)

    def check_unchanged(self, fingerprint: str, source: str) -> None:
        """Raise :class:`~probvae.errors.RunError` unless the run was fitted to data with this ``fingerprint``.

        ``source`` is the file or the named set that they were read from.
        """
        try:
            fitted = self.read_json("environment.json")["data"]["fingerprint"]
        except (KeyError, TypeError) as error:
            raise RunError(
                f"{self.folder}: environment.json does not say what data it was fitted to. Fit it again."
            ) from error
        if fitted != fingerprint:
            raise RunError(
                f"{self.folder}: its data have other values now than when it was fitted ({source} has changed). "
                "Restore them, fit it again, or give a file of other values explicitly, as an argument."
            )

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``content`` to the file ``name``."""
        write_text(self.folder / name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` to the file ``name``."""
        write_text(self.folder / name, text)
