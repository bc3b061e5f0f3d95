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
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probvae.errors import RunError
from probvae.foundation.fault_points import fault_point
from probvae.storage.files import make_readable, refuse_link, write_text
from probvae.storage.untrusted import read_run_json

LOCK = ".lock"
# Names that `_files` writes under; others that begin with a dot are the user's own, .git among them
_HALF_WRITTEN = re.compile(r"\.writing-[a-z0-9_]{8}|\..+\.[a-z0-9_]{8}(\.\w+)?")


class Run:
    """A run folder. Nothing is on disk before :meth:`create`, which also writes the files in ``preamble``.

    From :meth:`create` or :meth:`open` to :meth:`close`, no other process can do either.
    """

    def __init__(self, folder: str | Path, preamble: Mapping[str, str] | None = None) -> None:
        self.folder = Path(folder)
        self._preamble = dict(preamble or {})
        self._lock: Any = None

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
        """Make the folder with all that is known before the fit, in one step; it must not exist yet, except empty.

        A process that is killed here leaves no run, or one that can be resumed. An empty folder that is there is
        filled where it stands: it may be a mounted one, which nothing can take the place of.
        """
        self.check_free()
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
        parent, prefix = self.folder.parent, f".{self.folder.name}."
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(f"{prefix}*/{LOCK}"):
            _remove_unless_locked(left)
        stage = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        try:
            self._lock = _acquired(stage / LOCK)  # it is the folder's own, once that has its name
            make_readable(stage)
            self._fill(stage)
            fault_point("run-filled")
            stage.replace(self.folder)
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    def _fill(self, folder: Path) -> None:
        (folder / "checkpoints").mkdir()
        # the recipe is what makes a folder a run
        for name in sorted(self._preamble, key=lambda name: name == "config.toml"):
            write_text(folder / name, self._preamble[name])

    def _cannot_write(self, error: OSError) -> RunError:
        return RunError(f"out: {self.folder} cannot be written ({error.strerror or error}). Choose another folder.")

    def open(self) -> None:
        """Take up the run that a process before this one began; raises what :meth:`lock` raises."""
        if not self.checkpoints.is_dir():
            raise RunError(f"{self.folder}: there is no run to go on with. Give a folder that `probvae fit` wrote.")
        for place in (self.checkpoints, self.folder / "metrics.jsonl", self.folder / LOCK):
            refuse_link(place)  # all three are written to, or emptied, where they stand
        self.lock()
        self._remove_leftovers()

    def lock(self) -> None:
        """Keep other processes from writing here, until :meth:`close` or the end of this process, however it ends.

        Raises :class:`~probvae.errors.RunError` where another one has the lock.
        """
        try:
            self._lock = _acquired(self.folder / LOCK)
        except OSError as error:
            raise self._cannot_write(error) from error
        if self._lock is None:
            raise RunError(f"{self.folder}: another process is writing this run. Wait until it has ended, or stop it.")

    def close(self) -> None:
        """Let other processes write here."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _remove_leftovers(self) -> None:
        """What a process that was killed was about to write; only with the lock is it known that none still is."""
        for place in (self.folder, self.checkpoints):
            for path in filter(lambda path: _HALF_WRITTEN.fullmatch(path.name), place.iterdir()):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    @property
    def model_file(self) -> Path:
        """Where the fitted weights are."""
        return self.folder / "model.safetensors"

    @property
    def figures(self) -> Path:
        """Where the pictures are."""
        return self.folder / "figures"

    @property
    def checkpoints(self) -> Path:
        """Where the states that a fit can be resumed from are."""
        return self.folder / "checkpoints"

    def append_metrics(self, line: str) -> None:
        """Add one line to ``metrics.jsonl``."""
        file = self.folder / "metrics.jsonl"
        try:
            with file.open("a", encoding="utf-8") as stream:
                fault_point("metrics-opened")
                stream.write(line + "\n")
            fault_point("metrics-appended")
        except OSError as error:
            raise RunError(f"{file}: cannot be written ({error.strerror}).") from error

    def read_json(self, name: str) -> dict[str, Any]:
        """What :meth:`write_json` wrote. Raises :class:`~probvae.errors.RunError` where it is not there, or damaged."""
        return read_run_json(self.folder, name)

    def check_unchanged(self, fingerprint: str) -> None:
        """Raise :class:`~probvae.errors.RunError` unless the run was fitted to data with this ``fingerprint``."""
        try:
            fitted = self.read_json("environment.json")["data"]["fingerprint"]
        except (KeyError, TypeError) as error:
            raise RunError(
                f"{self.folder}: environment.json does not say what data it was fitted to. Fit it again."
            ) from error
        if fitted != fingerprint:
            raise RunError(
                f"{self.folder}: its data have other values now than when it was fitted. Restore them, or fit it again."
            )

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``content`` to the file ``name``."""
        write_text(self.folder / name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Write ``text`` to the file ``name``."""
        write_text(self.folder / name, text)


def _acquired(file: Path) -> Any:
    """The lock on ``file``, which ends with this process; None where another one has it."""
    import filelock

    lock = filelock.FileLock(file, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return None
    return lock


def _remove_unless_locked(lock_file: Path) -> None:
    """What a process that was killed was about to make a run."""
    lock = _acquired(lock_file)
    if lock is not None:
        shutil.rmtree(lock_file.parent, ignore_errors=True)
        lock.release()
