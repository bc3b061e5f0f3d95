"""`import torchvision` beside a torch that its operators were not built for."""

import subprocess
import sys

import pytest

from probvae.data.vision import import_torchvision


def test_data_sets_load() -> None:
    """The first time and again; the other test sees it in a process of its own."""
    assert import_torchvision().datasets.MNIST.__name__ == "MNIST"
    assert import_torchvision() is import_torchvision()


def test_the_failure_that_is_mended_is_real_here() -> None:
    code = (
        "try:\n    import torchvision\n    print('loads')\nexcept RuntimeError as error:\n    print(error)\n"
        "from probvae.data.vision import import_torchvision\n"
        "import_torchvision()\nimport torchvision, torchvision.transforms\nprint('works')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, mended = done.stdout.splitlines()
    if plain == "loads":
        pytest.skip("torchvision's operators load beside this torch: there is nothing to mend")
    assert "torchvision::nms does not exist" in plain
    assert mended == "works"
