"""The environments of the packages that the speed benchmark compares with: one each, beside this project's own.

    python benchmarks/speed_environments.py

Needs the network. What cannot be installed is said, and its row in the table stays empty.
"""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
# torch as in the environment that the numbers in docs/speed.md are from
ENVIRONMENTS = {
    "numpyro": ("numpyro==0.22.0", "jax==0.10.2", "jaxlib==0.10.2", "optax==0.2.8"),
    "pythae": ("pythae==0.1.2", "torch==2.13.0"),
}


def python_of(name: str) -> Path:
    """The interpreter of an environment; it need not exist."""
    return ROOT / f".venv-{name}" / "bin" / "python"


def make(name: str) -> bool:
    """Make an environment anew; whether all of it could be installed."""
    venv.create(ROOT / f".venv-{name}", clear=True, with_pip=True)
    command = [str(python_of(name)), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[name]]
    return subprocess.run(command, check=False).returncode == 0


def main() -> None:
    """Make all of them."""
    missing = [name for name in ENVIRONMENTS if not make(name)]
    if missing:
        sys.exit(f"could not be installed: {', '.join(missing)}. The benchmark says so in their rows.")


if __name__ == "__main__":
    main()
