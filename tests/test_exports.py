"""A public name is written once, in its room's ``__init__``, and is there for users, type checkers and ``import *``."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import probvae
from probvae.inference import Encoder, Guide, Objective
from probvae.models import Covariates, Decoder, Likelihood, Prior

PACKAGE = Path(probvae.__file__).parent
FAMILIES = (Prior, Likelihood, Decoder, Covariates, Encoder, Guide, Objective)
ROOMS = probvae._ROOMS
OPENED = [file for file in PACKAGE.rglob("__init__.py") if "export_public_names(__name__)" in file.read_text()]
# The names of version 0.1, which stay
OF_VERSION_0_1 = """
    VAE BernoulliLikelihood CategoricalLikelihood CompiledStep ConditionalNormalPrior ConstrainedGuide
    ContinuousBernoulliLikelihood ConvDecoder ConvEncoder Dataset DiagonalGuide DiscretizedLogisticLikelihood
    ExactGuide FitResult FlowGuide FlowPrior FreeGuide FullCovarianceGuide GaussianLikelihood Guide LabelCovariates
    LaplaceLikelihood LaplacePrior LatentModel Likelihood LinearDecoder LinearEncoder LinearGaussianModel
    LowRankGuide MLPDecoder MLPEncoder MaskedEncoder MixedLikelihood MixtureGuide MixturePrior
    NegativeBinomialLikelihood NormalPrior NumberCovariates PoissonLikelihood Prior SemiAmortizedGuide
    StandardNormalPrior StudentTLikelihood StudentTPrior UniformHypercubePrior VampPrior best_diagonal_guide c2st
    calibrate_pairs calibration calibration_on_data diagnose diagnose_program distance_bounds elbo
    equivalent_variance exact_log_evidence exact_posterior fit fit_probabilistic_pca importance_diagnostic impute
    impute_exact latent_usage load load_data log_evidence optimal_variance plug_in_loss posterior_gap
    predictive_check program_vae refine resample sample to_arviz
"""


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.family)
def test_every_component_is_importable_from_the_package(family: type) -> None:
    own = [component for component in family.registry.values() if component.__module__.startswith("probvae.")]
    assert own
    for component in [family, *own]:
        assert getattr(probvae, component.__name__) is component


@pytest.mark.parametrize("name", OF_VERSION_0_1.split())
def test_names_of_version_0_1_stay(name: str) -> None:
    assert name in probvae.__all__
    assert name in dir(probvae)
    assert getattr(probvae, name) is not None


def test_a_name_has_one_meaning() -> None:
    """Nothing in two rooms, and nothing with the name of a room."""
    names = probvae.__all__
    assert len(names) == len(set(names))
    assert not set(names) & {path.stem for path in PACKAGE.iterdir()}


def test_names_that_are_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'probvae' has no attribute 'MixturPrior'"):
        _ = probvae.MixturPrior
    with pytest.raises(ImportError, match="cannot import name 'MixturPrior'"):
        exec("from probvae import MixturPrior", {})


def test_star_import_gives_the_same_names() -> None:
    names: dict[str, object] = {}
    exec("from probvae import *", names)
    assert names.keys() - {"__builtins__"} == set(probvae.__all__)
    for room in ROOMS:
        names = {}
        exec(f"from probvae.{room} import *", names)
        assert names.keys() - {"__builtins__"} == set(getattr(probvae, room).__all__)


def test_type_checkers_see_the_rooms_that_are_looked_up() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = [(node.module, node.names[0].name) for node in block.body if isinstance(node, ast.ImportFrom)]
    assert sorted(seen) == sorted((f"probvae.{room}", "*") for room in ROOMS)


@pytest.mark.parametrize("file", OPENED, ids=lambda file: str(file.parent.relative_to(PACKAGE)))
def test_type_checkers_see_what_a_room_exports(file: Path) -> None:
    """``from .file import Name as Name`` is public for them, ``from .file import Name`` is not."""
    imports = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.ImportFrom) and node.level]
    assert imports
    for alias in (alias for node in imports for alias in node.names):
        assert alias.name in ("*", alias.asname)


def run(code: str, folder: Path | None = None) -> str:
    """What ``code`` prints, with the package in ``folder`` instead of this one."""
    path = {} if folder is None else {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **path},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_rooms_are_looked_up_without_torch() -> None:
    code = "import sys, probvae; probvae.errors.DataError; from probvae import errors; print('torch' in sys.modules)"
    assert run(code) == "False"


def test_help_reads_the_names() -> None:
    code = "import probvae, pydoc; print(pydoc.plain(pydoc.render_doc(probvae)))"
    page = run(code)
    assert all(text in page for text in ("class MixturePrior(", "load_data(", "fit("))


def test_a_new_prior_is_one_file_and_one_line(tmp_path: Path) -> None:
    """Registered in its folder, it is importable from the package, and from ``probvae.models``, with no other edit."""
    shutil.copytree(PACKAGE, tmp_path / "probvae", ignore=shutil.ignore_patterns("__pycache__"))
    priors = tmp_path / "probvae" / "models" / "priors"
    text = (priors / "laplace_prior.py").read_text()
    (priors / "twin_prior.py").write_text(text.replace("LaplacePrior", "TwinPrior").replace('"laplace"', '"twin"'))
    room, after = (priors / "__init__.py").read_text(), "from .vamp_prior import"
    (priors / "__init__.py").write_text(room.replace(after, f"from .twin_prior import TwinPrior as TwinPrior\n{after}"))
    code = (
        "import probvae, probvae.models; from probvae.models import TwinPrior\n"
        "print(probvae.TwinPrior(2)().event_shape, 'TwinPrior' in dir(probvae), probvae.__file__)"
    )
    assert run(code, tmp_path) == f"torch.Size([2]) True {tmp_path / 'probvae' / '__init__.py'}"
