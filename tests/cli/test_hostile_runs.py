"""Run folders that somebody made to do harm: each is refused with a reason, and nothing outside of it is touched."""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import probvae as package
from probvae.errors import RunError
from probvae.foundation.operators import BoundedAllocation
from probvae.inference.pair import VAE
from probvae.storage.files import staged
from probvae.storage.run_folder import Run
from probvae.storage.tensor_files import pack, read_tensors, write_tensors
from tests.cli.conftest import QUICK_REPORT

STORED = Path(__file__).parents[1] / "stored_runs" / "v1"
QUICK = (*QUICK_REPORT, "--num-data", "2")
READING = (("gap", "--num-data", "3"), ("report", *QUICK), ("encode",), ("reconstruct",), ("compare",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a run and its data in it; "outside" lies beside."""
    (tmp_path / "outside").mkdir()
    return Path(shutil.copytree(STORED, tmp_path / "given"))


def refused(probvae, folder: Path, message: str, commands=READING) -> None:
    """Every command ends with a message, and leaves all files as they were."""
    before = snapshot(folder.parent)
    for command, *options in commands:
        done = probvae(command, "run", *options, cwd=folder)
        assert done.returncode == 2, (command, done.stdout, done.stderr)
        assert message in " ".join(done.stderr.split()), (command, done.stderr)
        assert "Traceback" not in done.stderr
    shutil.rmtree(folder / "comparison", ignore_errors=True)
    assert snapshot(folder.parent) == before


def snapshot(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        place = str(path.relative_to(folder))
        found[place] = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
    return found


@pytest.mark.parametrize("name", ["config.toml", "environment.json", "model.safetensors"])
@pytest.mark.parametrize("target", ["../../outside/it", "/etc/passwd", "/dev/zero", "nowhere", "self"])
def test_file_that_is_a_link(probvae, folder: Path, name: str, target: str) -> None:
    file = folder / "run" / name
    shutil.copy(file, folder.parent / "outside" / "it")
    shutil.copy(file, folder / "run" / "self")
    file.unlink()
    file.symlink_to(target)
    refused(probvae, folder, f"{name} is a link", READING[:1])


@pytest.mark.parametrize("name", ["config.toml", "environment.json", "model.safetensors", "summary.json"])
def test_file_that_never_ends(probvae, folder: Path, name: str) -> None:
    """A pipe would be waited for as long as nobody writes to it."""
    (folder / "run" / name).unlink()
    os.mkfifo(folder / "run" / name)
    done = probvae("compare", "run", cwd=folder)
    assert done.returncode == 2
    assert f"{name} is no regular file" in done.stderr


def test_large_file(probvae, folder: Path) -> None:
    with (folder / "run" / "environment.json").open("r+b") as file:
        file.truncate(2**34)  # zeros, which take no place on the disk
    done = probvae("gap", "run", cwd=folder)
    assert done.returncode == 2
    assert "environment.json is larger than any fit writes it" in done.stderr


@pytest.mark.slow
def test_report_does_not_write_through_a_link(probvae, folder: Path) -> None:
    """The links are replaced: what they point at stays as it is."""
    target = folder.parent / "outside" / "precious"
    target.write_text("precious")
    names = ("report.html", "report.json", "posterior.nc")
    for name in names:
        (folder / "run" / name).symlink_to(target)
    done = probvae("report", "run", *QUICK, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert target.read_text() == "precious"
    assert not any((folder / "run" / name).is_symlink() for name in names)


@pytest.mark.usefixtures("undrawn", "unrefined")
@pytest.mark.parametrize("command", [("gap", "--num-data", "2"), ("encode",), ("reconstruct",), ("sample",)])
def test_files_beside_the_run_are_not_written_through_links(probvae, folder: Path, command: tuple[str, ...]) -> None:
    target = folder.parent / "outside" / "precious"
    names = ("gap.json", "posteriors.png", "codes.npz", "latent-plane.svg", "reconstructions.npz", "samples.npz")
    for name in names:
        (folder / "run" / name).symlink_to(target)
    target.write_text("precious")
    done = probvae(command[0], "run", *command[1:], cwd=folder)
    assert done.returncode == 0, done.stderr
    assert target.read_text() == "precious"


def write_report(run: Path) -> None:
    """As a report puts its files there."""
    with staged(run) as stage:
        (stage / "figures").mkdir()
        (stage / "figures" / "a.png").touch()
        (stage / "report.html").touch()


def test_figures_are_not_written_into_a_folder_elsewhere(folder: Path) -> None:
    """None of a report's files takes its place."""
    (folder / "run" / "figures").symlink_to(folder.parent / "outside")
    before = snapshot(folder.parent)
    with pytest.raises(RunError, match="figures: is a link"):
        write_report(folder / "run")
    assert snapshot(folder.parent) == before


def test_links_in_the_place_of_several_files_are_replaced(folder: Path) -> None:
    target = folder.parent / "outside" / "precious"
    target.write_text("precious")
    (folder / "run" / "report.html").symlink_to(target)
    write_report(folder / "run")
    assert target.read_text() == "precious"
    assert not (folder / "run" / "report.html").is_symlink()


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl", ".lock"])
def test_resuming_neither_writes_nor_tidies_up_elsewhere(folder: Path, name: str) -> None:
    """A run takes up where it was by appending to files, emptying the lock, and removing what was half written."""
    target = folder.parent / "outside"
    (target / ".precious").write_text("precious")
    (folder / "run" / name).unlink(missing_ok=True)
    if name == "checkpoints":
        (folder / "run" / name).symlink_to(target)
    else:
        (folder / "run" / "checkpoints").mkdir()
        (folder / "run" / name).symlink_to(target / ".precious")
    with pytest.raises(RunError, match=f"{name}: is a link"):
        Run(folder / "run").open()
    assert (target / ".precious").read_text() == "precious"


@pytest.fixture(scope="module")
def unfinished(probvae, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints, beside its data."""
    home = tmp_path_factory.mktemp("unfinished")
    shutil.copy(STORED / "data.csv", home)
    quiet = ("--no-figures", "--no-gap", "--no-progress")
    settings = ("--labels", "kind", "--hidden", "4", "--epochs", "2", "--batch-size", "32")
    assert probvae("fit", "--data", "data.csv", *settings, *quiet, "--out", "run", cwd=home).returncode == 0
    return home


def forged(file: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """A checkpoint whose checksum is right."""
    write_tensors(file, tensors, {**metadata, "sha256": pack(tensors).digest(metadata)})


Parts = tuple[dict[str, torch.Tensor], dict[str, str]]
CHECKPOINTS: dict[str, Callable[[Parts], Parts]] = {
    "no state": lambda p: (p[0], {"format": p[1]["format"], "components": p[1]["components"]}),
    "a deep state": lambda p: (p[0], {**p[1], "training": "[" * 100_000}),
    "an empty state": lambda p: (p[0], {**p[1], "training": "{}"}),
    "a list": lambda p: (p[0], {**p[1], "training": "[]"}),
    "weights alone": lambda p: ({name: t for name, t in p[0].items() if not name.startswith("training.")}, p[1]),
    "other sizes": lambda p: ({name: torch.zeros(3) for name in p[0]}, p[1]),
    "another generator": lambda p: ({**p[0], "training.random.cpu": torch.zeros(3, dtype=torch.uint8)}, p[1]),
}


@pytest.mark.filterwarnings("ignore::probvae.errors.CheckpointWarning")
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_checkpoint_of_something_else(probvae, unfinished: Path, tmp_path: Path, case: str) -> None:
    home = Path(shutil.copytree(unfinished, tmp_path / "home"))
    files = sorted((home / "run" / "checkpoints").glob("*.safetensors"))
    tensors, metadata = read_tensors(files[-1])
    del metadata["sha256"]
    for file in files:
        file.unlink()
    forged(files[0], *CHECKPOINTS[case]((tensors, metadata)))
    done = probvae("fit", "--resume", "run", "--no-figures", "--no-gap", "--no-progress", cwd=home)
    assert done.returncode == 2, done.stdout
    assert "checkpoint" in done.stderr
    assert "Traceback" not in done.stderr


def test_checkpoint_that_is_a_link(probvae, unfinished: Path, tmp_path: Path) -> None:
    home = Path(shutil.copytree(unfinished, tmp_path / "home"))
    for file in (home / "run" / "checkpoints").glob("*.safetensors"):
        file.rename(home / file.name)
        file.symlink_to(home / file.name)
    done = probvae("fit", "--resume", "run", "--no-figures", "--no-gap", "--no-progress", cwd=home)
    assert done.returncode == 2
    assert "is a link" in done.stderr


def changed(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


SOURCE = 'source = "data.csv"'
CONFIGS = {
    "a device": ((SOURCE, 'source = "/dev/zero"'), "expected a file ending in"),
    "a folder": ((SOURCE, 'source = ".."'), "expected a file ending in"),
    "no data at all": ((SOURCE, 'source = "/etc/passwd"'), "expected a file ending in"),
    "a URL": ((SOURCE, 'source = "http://127.0.0.1:9/x.csv"'), "there is no such file"),
    "a program": ((SOURCE, 'source = "../program.py:main"'), "there is no such file"),
    "a program, and no data": ((SOURCE, 'source = "program.py"'), "expected a file ending in"),
    "nothing": ((SOURCE, 'source = ""'), "expected a file ending in"),
    "a name with a zero": ((SOURCE, 'source = "a\\u0000.csv"'), "embedded null byte"),
    "other keys": ((SOURCE, f'{SOURCE}\nplugin = "os"'), "unknown key 'data.plugin'"),
    "another table": (("[model]", '[plugins]\nload = "os"\n[model]'), "unknown table 'plugins'"),
    "deep": (("[model]", "a = " + "[" * 10_000 + "\n[model]"), "not TOML"),
    "a long number": (("seed = 0", "seed = " + "9" * 10_000), "not TOML"),
    "data that fill the memory": (
        (SOURCE, 'source = "linear-gaussian"\noptions = { num_data = 1000000000000 }'),
        "do not fit into memory",
    ),
    "a download": (
        (SOURCE, 'source = "mnist"\ndata_dir = "../outside"'),
        "nothing is downloaded into a folder that a run names",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_recipe(probvae, folder: Path, case: str) -> None:
    (folder / "program.py").write_text("from pathlib import Path\nPath('was-run').touch()\n")
    pair, message = CONFIGS[case]
    config = folder / "run" / "config.toml"
    pairs = [pair] if pair[0] != SOURCE else [pair, ('labels = "kind"', "")]
    config.write_text(changed(config.read_text(), *pairs))
    refused(probvae, folder, message, READING[:1])


def test_data_that_never_end(probvae, folder: Path) -> None:
    (folder / "data.csv").unlink()
    os.mkfifo(folder / "data.csv")
    done = probvae("gap", "run", cwd=folder)
    assert done.returncode == 2
    assert "data.csv: expected a file, got a pipe" in done.stderr


def test_path_of_the_data_is_said(probvae, folder: Path) -> None:
    done = probvae("gap", "run", "--num-data", "2", cwd=folder)
    assert f"data: {(folder / 'data.csv').resolve()}" in done.stderr.replace("\n", "")


def test_data_that_are_a_link_are_read(probvae, folder: Path) -> None:
    """Data are the user's own, wherever they lie."""
    (folder / "data.csv").rename(folder.parent / "outside" / "data.csv")
    (folder / "data.csv").symlink_to("../outside/data.csv")
    assert probvae("gap", "run", "--num-data", "2", cwd=folder).returncode == 0


JSONS = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "1e400",
    "null": "null",
    "deep": "[" * 100_000,
    "a long number": '{"format": ' + "9" * 10_000 + "}",
    "no text": "\x00",
    "strange types": '{"format": 1, "versions": 3, "data": {"fingerprint": [1]}}',
}


@pytest.mark.parametrize("text", JSONS.values(), ids=JSONS)
def test_environment(probvae, folder: Path, text: str) -> None:
    (folder / "run" / "environment.json").write_text(text)
    refused(probvae, folder, "run", (("compare",), ("report", *QUICK)))


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000], ids=["no JSON", "a list", "deep"])
def test_summary(probvae, folder: Path, text: str) -> None:
    (folder / "run" / "summary.json").write_text(text)
    refused(probvae, folder, "summary.json", READING[-1:])


@pytest.mark.usefixtures("unrefined")
@pytest.mark.parametrize("value", ["NaN", "1e999", '"[red]<b>"', "[[]]", "9" * 400, "true", "null"])
def test_numbers_of_the_fit_that_are_none(probvae, folder: Path, value: str) -> None:
    (folder / "run" / "summary.json").write_text(f'{{"epochs": {value}, "beta": {value}}}')
    (folder / "run" / "metrics.jsonl").write_text(f'{{"seconds": {value}}}\n')
    done = probvae("compare", "run", "--no-figures", cwd=folder)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((folder / "comparison" / "compare.json").read_text())["runs"]
    assert (run["epochs"], run["beta"], run["seconds"]) == (None, None, None)


def with_header(path: Path, header: dict[str, object], content: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def components(folder: Path) -> str:
    content = (folder / "run" / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size])["__metadata__"]["components"]


def one_tensor(**entry: object) -> dict[str, object]:
    return {"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **entry}}


HEADERS: dict[str, Callable[[Path], None]] = {
    "10^12 elements": lambda p: with_header(p, one_tensor(shape=[10**12], data_offsets=[0, 4 * 10**12]), b"1234"),
    "10^12 elements in four bytes": lambda p: with_header(p, one_tensor(shape=[10**12]), b"1234"),
    "more than 2^64 elements": lambda p: with_header(p, one_tensor(shape=[2**40, 2**40]), b"1234"),
    "a negative shape": lambda p: with_header(p, one_tensor(shape=[-1]), b"1234"),
    "overlapping": lambda p: with_header(p, {**one_tensor(), "b": one_tensor()["weight"]}, b"1234"),
    "an unknown dtype": lambda p: with_header(p, one_tensor(dtype="object"), b"1234"),
    "a pickle": lambda p: p.write_bytes(b"\x80\x04\x95cos\nsystem\n(S'true'\ntR."),
    "a header of 2^60 bytes": lambda p: p.write_bytes(struct.pack("<Q", 2**60) + b"{}"),
    "a deep header": lambda p: p.write_bytes(struct.pack("<Q", 10**5) + b"[" * 10**5),
    "no header": lambda p: p.write_bytes(b""),
}


@pytest.mark.parametrize("case", HEADERS)
def test_weights(probvae, folder: Path, case: str) -> None:
    HEADERS[case](folder / "run" / "model.safetensors")
    refused(probvae, folder, "model.safetensors: not a whole safetensors file", READING[:1])


def rewritten(folder: Path, text: str) -> Path:
    """The run's model file with another description of its components."""
    path = folder / "run" / "model.safetensors"
    tensors = VAE.load(path).state_dict()
    save_file(tensors, path, {"format": "1", "components": text})
    return path


COMPONENTS = {
    "10^9 latents": ("latent_dim = 2", f"latent_dim = {10**9}"),
    "10^9 columns": ("data_dim = 4", f"data_dim = {10**9}"),
    "a wide layer": ("hidden = [6]", f"hidden = [6, {10**9}]"),
    "wide layers": ("hidden = [6]", "hidden = [20000, 20000]"),
    "many layers": ("hidden = [6]", f"hidden = {[1] * 100_000}"),
    "layers of nothing": ("hidden = [6]", "hidden = [0]"),
    "a negative size": ("latent_dim = 2", "latent_dim = -2"),
    "no whole number": ("latent_dim = 2", "latent_dim = 2.5"),
    "not a number": ("latent_dim = 2", "latent_dim = nan"),
    "a text": ("latent_dim = 2", 'latent_dim = "2"'),
    "a table": ("latent_dim = 2", "latent_dim = { a = 1 }"),
    "more than 64 bits": ("latent_dim = 2", f"latent_dim = {2**70}"),
    "another guide": ('name = "diagonal"', 'name = "full-covariance"'),
    "a path": ('name = "standard-normal"', 'name = "../../program.py:main"'),
    "a program": ('name = "standard-normal"', 'name = "program.py:main"'),
    "a module": ('name = "standard-normal"', 'name = "probvae.errors"'),
    "a builtin": ('family = "prior"', 'family = "builtins"'),
    "a dunder": ('name = "standard-normal"', 'name = "__class__"'),
    "an option of Python's": ("latent_dim = 2", "latent_dim = 2\n__class__ = 3"),
}


@pytest.mark.parametrize("case", COMPONENTS)
def test_components(probvae, folder: Path, case: str) -> None:
    (folder / "program.py").write_text("from pathlib import Path\nPath('was-run').touch()\nmain = None\n")
    rewritten(folder, changed(components(folder), COMPONENTS[case]))
    refused(probvae, folder, "", READING[:1])


def test_flow_of_a_billion_steps(folder: Path) -> None:
    vae = VAE.example()
    vae.guide = package.FlowGuide(package.MLPEncoder(3, hidden=(5,)), 2)
    path = folder / "flow.safetensors"
    vae.save(path)
    text = changed(vae.metadata()["components"], ("num_transforms = 2", f"num_transforms = {10**9}"))
    save_file(vae.state_dict(), path, {"format": "1", "components": text})
    with pytest.raises(RunError, match=r"expected at most .* steps, as the weights are few"):
        package.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(probvae, folder: Path, value: float) -> None:
    path = folder / "run" / "model.safetensors"
    vae = VAE.load(path)
    with torch.no_grad():
        next(vae.model.decoder.parameters())[0] = value
    vae.save(path)
    refused(probvae, folder, "has entries that are not finite", READING[:1])


def test_bound_is_on_what_is_made_together() -> None:
    with BoundedAllocation(100, 1000):
        assert torch.cat([torch.zeros(20), torch.ones(20)]).shape == (40,)
        with pytest.raises(RunError, match="at most 100 numbers"):
            torch.zeros(30)
    with BoundedAllocation(10**6, 5), pytest.raises(RunError, match="at most 5 steps"):
        torch.stack([torch.zeros(1) for _ in range(6)])
    with BoundedAllocation(100, 100), pytest.raises(RunError, match="at most 100 numbers"):
        torch.arange(3.0)[:, None].expand(3, 10**9).clone()
    with BoundedAllocation(100, 100), pytest.raises(RunError, match="at most 100 numbers"):
        torch.zeros(3).new_zeros(10**12)
    with BoundedAllocation(960, 100):
        torch.zeros(30, 1) + torch.zeros(30)  # 60 numbers, and 900 made of them
    with BoundedAllocation(959, 100), pytest.raises(RunError, match="at most 959 numbers"):
        torch.zeros(30, 1) + torch.zeros(30)
    with BoundedAllocation(100, 100), pytest.raises(RuntimeError, match="must match"):
        torch.zeros(3) + torch.zeros(2)


def test_loading_leaves_the_random_numbers_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    package.load(folder / "run")
    assert torch.equal(torch.rand(3), expected)


def test_npz_that_claims_too_much(probvae, folder: Path) -> None:
    import io
    import zipfile

    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 4)})
    with zipfile.ZipFile(folder / "data.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    config = folder / "run" / "config.toml"
    config.write_text(changed(config.read_text(), (SOURCE, 'source = "data.npz"'), ('labels = "kind"', "")))
    refused(probvae, folder, "GiB", READING[:1])
