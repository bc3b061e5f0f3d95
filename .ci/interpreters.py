"""The path of the first of the named Python versions that is installed, pyenv's among them; nothing where none is.

python .ci/interpreters.py 3.13 3.12
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path


def runs(python: str, version: str) -> bool:
    """A shim of pyenv may stand on the path without its Python, and a system's Python without venv."""
    check = f"import ensurepip, sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != '{version}')"
    return subprocess.run([python, "-c", check], capture_output=True).returncode == 0


def candidates(version: str) -> list[str]:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    return [*filter(None, [shutil.which(f"python{version}")]), *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))]


print(next((found for version in sys.argv[1:] for found in candidates(version) if runs(found, version)), ""))
