"""`import torchvision` beside a torch that its operators were not built for."""

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_data_sets_load() -> None:
    code = (
        "from probvae.data.vision import import_torchvision;"
        "print(import_torchvision().datasets.MNIST.__name__, import_torchvision() is import_torchvision())"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["MNIST", "True"]


def test_the_failure_that_is_mended_is_real_here() -> None:
    done = run(
        "try:\n    import torchvision\n    print('loads')\nexcept RuntimeError as error:\n    print(error)\n"
        "from probvae.data.vision import import_torchvision\n"
        "import_torchvision()\nimport torchvision, torchvision.transforms\nprint('works')"
    )
    assert done.returncode == 0, done.stderr
    plain, mended = done.stdout.splitlines()
    if plain == "loads":
        pytest.skip("torchvision's operators load beside this torch: there is nothing to mend")
    assert "torchvision::nms does not exist" in plain
    assert mended == "works"
