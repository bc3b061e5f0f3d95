"""Imports go one way; nothing heavy is imported early; no parameter store, no pickle."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import probvae

PACKAGE = Path(probvae.__file__).parent
# Lowest first: what stands on one level may import what stands on lower levels, and its own.
LEVELS = [
    ("errors",),
    ("foundation",),
    ("storage",),
    ("models",),
    ("data",),
    ("inference",),
    ("diagnostics",),
    ("experiments",),
    ("applications",),
    ("report",),
    ("estimators", "testing"),
    ("cli", "__main__"),
]
LEVEL_OF = {name: level for level, names in enumerate(LEVELS) for name in names}
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def imported_units(file: Path) -> set[str]:
    """The top-level parts of the package that ``file`` imports at run time, at any depth of its code."""
    units = set()
    for node in ast.walk(_without_type_checking(ast.parse(file.read_text()))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        units |= {name.split(".")[1] for name in names if name.startswith("probvae.")}
    return {unit for unit in units if unit in LEVEL_OF}


def _without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    return tree


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in LEVEL_OF, f"{own} has no level: add it to LEVELS"
    above = {unit for unit in imported_units(file) if LEVEL_OF[unit] > LEVEL_OF[own]}
    assert not above


def test_pyro_sample_stands_in_two_places() -> None:
    calls = {file.relative_to(PACKAGE).as_posix() for file in FILES if "pyro.sample(" in file.read_text()}
    assert calls == {"models/latent.py", "inference/guides/base.py"}


@pytest.mark.parametrize("code", ["import probvae", "import probvae.cli"])
def test_import_is_light(code: str) -> None:
    heavy = ["torch", "pyro", "matplotlib", "arviz", "sklearn", "scipy", "pandas", "pyarrow", "torchvision", "zuko"]
    check = f"{code}; import sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_short_fit_imports_no_compiler(tmp_path: Path) -> None:
    """torch's would take more than a second, a tenth of what the default fit takes; the ledger included."""
    code = (
        "import sys\nfrom probvae.cli import main\n"
        "sys.argv = 'probvae fit --data iris --epochs 1 --batch-size 32 --hidden 4 --no-figures --out run'.split()\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert 'torch' in sys.modules\n"
        "heavy = {'torch._dynamo', 'torch._inductor'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("[]\n")


def test_user_settings_of_waiting_threads_stay() -> None:
    from probvae.foundation.process import wait_briefly

    for given in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}):
        environment = dict(given)
        wait_briefly(environment)
        assert environment == given
