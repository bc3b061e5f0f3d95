"""Extreme but mostly legal data, sizes, weights and options, fitted and evaluated as `probvae fit` does.

Every case is an extreme, a likelihood and a guide. Right are numbers that are all finite, and an error of the package
that says what is wrong; a number that is not finite, a warning of another package, a traceback and a hang are not.
"""

import multiprocessing
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

import probvae
from probvae.data import column_variances
from probvae.errors import ProbvaeError
from probvae.experiments import recipe_data, run
from probvae.experiments import summary as numbers
from probvae.experiments.build import build_objective, build_vae
from probvae.experiments.recipe import Recipe, check_recipe, resolve
from probvae.inference.evidence.quadrature import quadrature
from probvae.inference.guides import Guide
from probvae.models import Likelihood
from tests.faults.running import Hang, alarm

NUMBERS, MESSAGE = "finite numbers", "message"
NOT_FINITE, WARNING, TRACEBACK, HANG = "not finite", "warning of another package", "traceback", "hang"
RIGHT = (NUMBERS, MESSAGE)
# of the processor, so that a busy machine makes no hang; a case takes about half a second
_SECONDS = 60
# The search for the best member of a family, else 12 stages of 100 steps, and the cells of quadrature, else 20,000,
# are nearly all of a case's time
_SHORT_SEARCH, _FEW_CELLS = {"_MAX_STAGES": 3, "_STEPS_IN_A_STAGE": 10}, 300
_SHAPE = (24, 3)
_SEED = 0
_NUM_CATEGORIES, _NUM_LEVELS = 4, 16
Values = np.ndarray
Change = Callable[[Values], Values]


def _number_of_held_out_row(num_data: int) -> int:
    return int(np.random.default_rng(_SEED).permutation(num_data)[0])


def _unit(x: Values) -> Values:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def _mixed(x: Values) -> Values:
    kinds = (lambda v: v, _SUPPORTS["bernoulli"], _SUPPORTS["categorical"], _SUPPORTS["poisson"])
    return np.stack([kinds[number % 4](column) for number, column in enumerate(x.T)], axis=1)


def _counts(x: Values) -> Values:
    return np.floor(3 * np.abs(x))


# likelihood -> what makes data in its support of real numbers; the others take all of them
_SUPPORTS: dict[str, Change] = {
    "bernoulli": lambda x: np.where(x > 0, 1.0, 0.0),
    "categorical": lambda x: np.clip(np.floor(x + 2), 0, _NUM_CATEGORIES - 1),
    "continuous-bernoulli": _unit,
    "discretized-logistic": lambda x: np.round(_unit(x) * (_NUM_LEVELS - 1)) / (_NUM_LEVELS - 1),
    "mixed": _mixed,
    "negative-binomial": _counts,
    "poisson": _counts,
}
_LIKELIHOODS: dict[str, dict[str, Any]] = {
    "categorical": {"num_categories": _NUM_CATEGORIES},
    "discretized-logistic": {"num_levels": _NUM_LEVELS},
}
# the noise that a likelihood has beside the decoder: its option, and the power of a variance that it is in
_NOISE = {
    "gaussian": ("variance", 1.0),
    "laplace": ("scale", 0.5),
    "student-t": ("scale", 0.5),
    "discretized-logistic": ("scale", 0.5),
    "negative-binomial": ("dispersion", 1.0),
}
# what a guide needs of the rest
_GUIDES: dict[str, dict[str, Any]] = {
    "constrained": {"inference": {"guide": "diagonal"}, "model": {"prior": "uniform-hypercube"}},
    "exact": {"inference": {"guide": "exact"}, "model": {"decoder": "linear"}},
    "flow": {"inference": {"guide": {"name": "flow", "hidden": [8]}}},
    "semi-amortized": {"inference": {"guide": {"name": "semi-amortized", "num_steps": 3}}},
}
_SMALL: Recipe = {
    "model": {"decoder": {"name": "mlp", "hidden": [8]}},
    "inference": {"encoder": {"name": "mlp", "hidden": [8]}},
    "training": {"epochs": 3, "batch_size": 8, "seed": _SEED, "device": "cpu", "compile": False},
}


@dataclass(frozen=True)
class Extreme:
    """What is extreme: the ``data``, ``model`` and ``training`` of the recipe, the noise, the first weights.

    ``change`` makes extreme real numbers of a normal sample; ``variance`` is a likelihood's noise or how it is learned;
    ``weights`` are factors and constants for parameters whose names begin so.
    """

    change: Change = lambda x: x
    shape: tuple[int, int] = _SHAPE
    recipe: Mapping[str, Any] = field(default_factory=dict)
    variance: float | str | None = None
    weights: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    exposure: bool = False


def _at(row: int, value: float, every_column: bool = False) -> Change:
    """``value`` in one row; row -1 is one that is held out."""

    def change(x: Values) -> Values:
        number = _number_of_held_out_row(len(x)) if row < 0 else row
        x[number, slice(None) if every_column else 0] = value
        return x

    return change


def _constant(columns: slice, value: float = 1.0) -> Change:
    def change(x: Values) -> Values:
        x[:, columns] = value
        return x

    return change


def _missing(rows: slice, columns: slice) -> Change:
    return lambda x: _with_missing(x, rows, columns)


def _with_missing(x: Values, rows: slice, columns: slice) -> Values:
    x[rows, columns] = np.nan
    return x


def _all_but_one_row(value: float) -> Change:
    return lambda x: _at(0, -value, every_column=True)(np.full_like(x, value))


def _training(**options: Any) -> dict[str, Any]:
    return {"training": options}


def _model(**options: Any) -> dict[str, Any]:
    return {"model": options}


def _objective(name: str, **options: Any) -> dict[str, Any]:
    return {"inference": {"objective": {"name": name, **options}}}


_OUTLIER, _MASK = _at(0, 1e6), _model(missing="mask")
_DOUBLE = torch.float64
EXTREMES: dict[str, Extreme] = {
    # scales
    "all of scale 1e-40": Extreme(lambda x: 1e-40 * x),
    "all of scale 1e-12": Extreme(lambda x: 1e-12 * x),
    "all of scale 1e-6": Extreme(lambda x: 1e-6 * x),
    "all of scale 1e6": Extreme(lambda x: 1e6 * x),
    "all of scale 1e12": Extreme(lambda x: 1e12 * x),
    "all of scale 1e18": Extreme(lambda x: 1e18 * x),
    "columns of scales 1e-6 to 1e6": Extreme(lambda x: x * np.logspace(-6, 6, x.shape[1])),
    "an offset of 1e6": Extreme(lambda x: x + 1e6),
    "an offset beyond the digits": Extreme(lambda x: 1e-3 * x + 1e6),
    "unit scaling of 1e-6 to 1e6": Extreme(lambda x: np.exp(5 * x), recipe={"data": {"scaling": "unit"}}),
    "standardised columns of scales 1e-6 to 1e6": Extreme(
        lambda x: x * np.logspace(-6, 6, x.shape[1]), recipe={"data": {"scaling": "standardize"}}
    ),
    # outliers and tails
    "an outlier of 1e6": Extreme(_OUTLIER),
    "an outlier of 1e12": Extreme(_at(0, 1e12)),
    "an outlier of 1e18": Extreme(_at(0, 1e18)),
    "an outlier of 1e25": Extreme(_at(0, 1e25)),
    "a standardised outlier of 1e25": Extreme(_at(0, 1e25), recipe={"data": {"scaling": "standardize"}}),
    "a held-out outlier of 1e6": Extreme(_at(-1, 1e6)),
    "a held-out outlier of 1e18": Extreme(_at(-1, 1e18)),
    "Cauchy tails": Extreme(lambda x: x / np.abs(x[:, ::-1] - 0.01)),
    "log-normal tails": Extreme(lambda x: np.exp(5 * x)),
    # nothing to learn in a part
    "a constant column": Extreme(_constant(slice(1))),
    "constant columns but one": Extreme(_constant(slice(1, None))),
    "an almost constant column": Extreme(lambda x: x * np.array([1e-6] + [1.0] * (x.shape[1] - 1))),
    "columns that are copies": Extreme(lambda x: np.repeat(x[:, :1], x.shape[1], axis=1)),
    "all low but one row": Extreme(_all_but_one_row(-1e3)),
    "all high but one row": Extreme(_all_but_one_row(1e3)),
    "zeros but one entry": Extreme(lambda x: _at(0, 1.0)(np.zeros_like(x))),
    "only the ends": Extreme(lambda x: np.where(x > 0, 1e3, -1e3)),
    # sizes
    "D = 1": Extreme(shape=(24, 1)),
    "N = 2": Extreme(shape=(2, 3), recipe=_training(batch_size=1, validation=0)),
    "N = 3, batches of one": Extreme(shape=(3, 3), recipe=_training(batch_size=1)),
    "batches of one": Extreme(recipe=_training(batch_size=1)),
    "d = 1": Extreme(recipe=_model(latent_dim=1)),
    "d > D": Extreme(recipe=_model(latent_dim=8)),
    "D = 1, N = 2, d = 8": Extreme(
        shape=(2, 1), recipe=_training(batch_size=1, validation=0) | _model(latent_dim=8)
    ),
    "D = 200": Extreme(shape=(10, 200), recipe=_training(batch_size=4)),
    # missing entries
    "missing entries": Extreme(_missing(slice(None, None, 3), slice(1, None)), recipe=_MASK),
    "a missing column": Extreme(_missing(slice(None), slice(1)), recipe=_MASK),
    "a missing row": Extreme(_missing(slice(1), slice(None)), recipe=_MASK),
    "missing entries and an outlier": Extreme(
        lambda x: _at(1, 1e6)(_with_missing(x, slice(None, None, 3), slice(1, None))), recipe=_MASK
    ),
    "a column observed once": Extreme(_missing(slice(1, None), slice(1)), recipe=_MASK),
    "NaN that is refused": Extreme(_missing(slice(1), slice(1))),
    "infinity": Extreme(_at(0, np.inf)),
    # exposures
    "exposures of 1e-6 to 1e6": Extreme(exposure=True),
    # options
    "a learning rate of 1e-30": Extreme(recipe=_training(learning_rate=1e-30)),
    "a learning rate of 10": Extreme(recipe=_training(learning_rate=10.0)),
    "a learning rate of 1e6": Extreme(recipe=_training(learning_rate=1e6)),
    "a learning rate of 1e30": Extreme(recipe=_training(learning_rate=1e30)),
    "a weight of 1e6 on the KL": Extreme(recipe=_objective("elbo", beta=1e6)),
    "1e6 free nats": Extreme(recipe=_objective("elbo", free_bits=1e6)),
    "an outlier for IWAE": Extreme(_OUTLIER, recipe=_objective("iwae")),
    "an outlier for Renyi's bound": Extreme(_OUTLIER, recipe=_objective("renyi")),
    "an outlier for DReG": Extreme(_OUTLIER, recipe=_objective("dreg")),
    "an outlier for the KL in closed form": Extreme(_OUTLIER, recipe=_objective("analytic-kl")),
    "an outlier for STL": Extreme(_OUTLIER, recipe=_objective("stl")),
    "an outlier for the MMD": Extreme(_OUTLIER, recipe=_objective("mmd")),
    "an outlier under a mixture": Extreme(_OUTLIER, recipe=_model(prior="mixture")),
    "an outlier under a flow": Extreme(_OUTLIER, recipe=_model(prior="flow")),
    "an outlier under a VampPrior": Extreme(_OUTLIER, recipe=_model(prior={"name": "vamp", "num_components": 3})),
    # noise
    "a variance of 1e-12": Extreme(variance=1e-12),
    "a variance of 1e12": Extreme(variance=1e12),
    "a variance for each column, one constant": Extreme(_constant(slice(1)), variance="per-dimension"),
    "a variance for each datum, one outlier": Extreme(_OUTLIER, variance="per-datum"),
    "the optimal variance of copies": Extreme(
        lambda x: np.repeat(x[:, :1], x.shape[1], axis=1), variance="optimal", recipe=_training(learning_rate=0.1)
    ),
    "noise that starts at its floor": Extreme(variance="learned", weights={"model.likelihood": (0.0, -80.0)}),
    # first weights
    "encoder weights of 1e6": Extreme(weights={"guide": (1e6, 0.0)}),
    "encoder weights of 1e18": Extreme(weights={"guide": (1e18, 0.0)}),
    "decoder weights of 1e6": Extreme(weights={"model.decoder": (1e6, 0.0)}),
    "decoder weights of 1e18": Extreme(weights={"model.decoder": (1e18, 0.0)}),
    "no weights": Extreme(weights={"": (0.0, 0.0)}),
    "scales of 1e6 in the guide": Extreme(weights={"guide.log_scale": (1.0, 1e6)}),
    "scales of -1e6 in the guide": Extreme(weights={"guide.log_scale": (1.0, -1e6)}),
    # double precision
    "all of scale 1e-100 in float64": Extreme(lambda x: 1e-100 * x, dtype=_DOUBLE),
    "all of scale 1e100 in float64": Extreme(lambda x: 1e100 * x, dtype=_DOUBLE),
    "an outlier of 1e25 in float64": Extreme(_at(0, 1e25), dtype=_DOUBLE),
    "a learning rate of 1e30 in float64": Extreme(recipe=_training(learning_rate=1e30), dtype=_DOUBLE),
}  # fmt: skip


class Case(NamedTuple):
    """Names of an extreme, a likelihood and a guide."""

    extreme: str
    likelihood: str
    guide: str


class Outcome(NamedTuple):
    """What a case came to, and the message, the number or the traceback."""

    verdict: str
    detail: str = ""


def likelihoods() -> list[str]:
    return sorted(Likelihood.all_registered())


def guides() -> list[str]:
    return sorted(Guide.all_registered())


def all_cases(extremes: Sequence[str] = tuple(EXTREMES)) -> list[Case]:
    """Every extreme with every pair of a likelihood and a guide; wherever one stops, pairs and extremes are even."""
    pairs = list(product(likelihoods(), guides()))
    rounds = range(len(extremes))
    return [
        Case(extremes[(turn + place) % len(extremes)], *pair) for turn in rounds for place, pair in enumerate(pairs)
    ]


def extremes(num: int, seed: int = 0, workers: int = 1, progress: bool = False) -> dict[str, Any]:
    """``num`` extremes that ``seed`` draws (at most all), with all likelihoods and guides: what they came to.

    ``counts`` has the verdicts, ``wrong`` the details of those that are not right. The cases are ``quick`` ones.
    """
    cases = all_cases(Random(seed).sample(list(EXTREMES), min(num, len(EXTREMES))))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        told = pool.map(partial(run_case, quick=True), cases, chunksize=4)
        shown = track(told, "extremes", len(cases), console=Console(stderr=True), disable=not progress)
        outcomes = dict(zip(cases, shown, strict=True))
    wrong = {", ".join(case): outcome for case, outcome in outcomes.items() if outcome.verdict not in RIGHT}
    return {
        "num": len(cases),
        "extremes": len({case.extreme for case in cases}),
        "counts": dict(Counter(outcome.verdict for outcome in outcomes.values())),
        "wrong": {name: outcome._asdict() for name, outcome in wrong.items()},
    }


def run_case(case: Case, ledger: bool = True, quick: bool = False) -> Outcome:
    """Fit and evaluate, with the ``ledger`` of gaps or without, in a folder that is gone afterwards.

    A ``quick`` ledger goes the same way, but breaks its search and its integration off early.
    """
    effort = _little_effort() if quick else nullcontext()
    with tempfile.TemporaryDirectory(prefix="extreme-") as home, warnings.catch_warnings(record=True) as told, effort:
        warnings.simplefilter("always")
        try:
            with alarm(_SECONDS, of_processor=True), _default_dtype(EXTREMES[case.extreme].dtype):
                numbers = _numbers(case, Path(home), ledger)
        except ProbvaeError as error:
            return Outcome(MESSAGE, str(error))
        except Hang:
            return Outcome(HANG, traceback.format_exc())
        except Exception:
            return Outcome(TRACEBACK, traceback.format_exc())
    foreign = [warning for warning in told if not warning.category.__module__.startswith("probvae")]
    if foreign:
        return Outcome(WARNING, f"{foreign[0].filename}:{foreign[0].lineno}: {foreign[0].message}")
    bad = [name for name, value in numbers if not np.isfinite(value)]
    return Outcome(NOT_FINITE, ", ".join(bad)) if bad else Outcome(NUMBERS)


@contextmanager
def _little_effort() -> Iterator[None]:
    few_cells = partial(quadrature, max_cells=_FEW_CELLS)
    with (
        patch.multiple("probvae.inference.evaluation.refine", **_SHORT_SEARCH),
        patch("probvae.inference.evidence.log_evidence.quadrature", few_cells),
    ):
        yield


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _numbers(case: Case, home: Path, ledger: bool) -> list[tuple[str, float]]:
    """All that the user is shown, and the numbers of each datum beside."""
    extreme = EXTREMES[case.extreme]
    recipe = recipe_of(case, _data_file(case, home))
    fit = _fit_with_weights if extreme.weights else _fit_as_the_command_line
    # annealing, where there are more dimensions, takes a hundred times as long
    vae, x, shown = fit(recipe, extreme, home, ledger and recipe["model"]["latent_dim"] <= 2)
    evidence = probvae.log_evidence(vae, x, "importance", num_samples=50)
    values = {"elbo of each": probvae.elbo(vae, x, 4), "evidence": evidence.value, "error": evidence.standard_error}
    return [*_flat("", shown), *(pair for name, value in values.items() for pair in _flat(name, value))]


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers in ``value``, with where they stand."""
    if isinstance(value, Tensor):
        yield from ((f"{name}[{place}]", float(v)) for place, v in enumerate(value.detach().flatten().tolist()))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for place, inner in enumerate(value):
            yield from _flat(f"{name}[{place}]", inner)
    elif isinstance(value, int | float):
        yield name, float(value)


def _data_file(case: Case, home: Path) -> Path:
    """The data, in the likelihood's support; as a table, where they have an exposure."""
    extreme = EXTREMES[case.extreme]
    rng = np.random.default_rng(_SEED)
    num_data, data_dim = extreme.shape
    x = rng.standard_normal((num_data, 1)) + 0.5 * rng.standard_normal((num_data, data_dim))
    with np.errstate(all="ignore"):  # an infinity and a NaN go through the arithmetic as they are
        real = extreme.change(x)
        values = _SUPPORTS.get(case.likelihood, lambda x: x)(real)
    values = np.where(np.isfinite(real), values, real).astype(str(extreme.dtype).removeprefix("torch."))
    if not extreme.exposure:
        np.save(home / "data.npy", values)
        return home / "data.npy"
    columns = ["exposure", *(f"x{number}" for number in range(data_dim))]
    table = np.column_stack([np.logspace(-6, 6, num_data), values])
    np.savetxt(home / "data.csv", table, delimiter=",", header=",".join(columns), comments="", fmt="%.9g")
    return home / "data.csv"


def recipe_of(case: Case, source: Path) -> Recipe:
    """What `probvae fit` would be told."""
    extreme = EXTREMES[case.extreme]
    likelihood = {"name": case.likelihood, **_LIKELIHOODS.get(case.likelihood, {}), **_noise(case)}
    guide = _GUIDES.get(case.guide, {"inference": {"guide": case.guide}})
    data = {"source": str(source), **({"exposure": "exposure"} if extreme.exposure else {})}
    parts = (_SMALL, guide, {"model": {"likelihood": likelihood}, "data": data}, extreme.recipe)
    return resolve([check_recipe(part) for part in parts])


def _noise(case: Case) -> dict[str, Any]:
    variance = EXTREMES[case.extreme].variance
    if variance is None or case.likelihood not in _NOISE:
        return {}
    option, power = _NOISE[case.likelihood]
    if isinstance(variance, str):
        return {option: variance if case.likelihood == "gaussian" or variance == "per-dimension" else "learned"}
    return {option: variance**power}


Fitted = tuple[probvae.VAE, Tensor, dict[str, Any]]


def _fit_as_the_command_line(recipe: Recipe, extreme: Extreme, home: Path, ledger: bool) -> Fitted:
    done = run.run_recipe(recipe, home / "run", progress=False, ledger=ledger)
    assert done is not None
    try:
        loaded = probvae.load(home / "run")
    except ProbvaeError as error:
        raise AssertionError("a run that was written cannot be read") from error
    shown = {"summary": done.summary, "history": done.fit.history, "weights": dict(loaded.named_parameters())}
    return done.vae, done.x, shown | _ledger(done.gap)


def _fit_with_weights(recipe: Recipe, extreme: Extreme, home: Path, ledger: bool) -> Fitted:
    """The same steps, with other weights to start from."""
    data = recipe_data.load_recipe_data(recipe)
    recipe = recipe_data.with_columns(recipe, data)
    train, held_out = recipe_data.split(data, recipe["data"]["held_out"], _SEED)
    variance = float(column_variances(train.x).mean())
    vae = build_vae(recipe, data.data_dim, variance, train.num_data)
    run.start_from(vae, train, None, _SEED)
    _set_weights(vae, extreme.weights)
    training = recipe["training"] | {"validation": recipe["training"]["validation"] if vae.guide.amortized else None}
    x = recipe_data.as_tensor(train)
    result = probvae.fit(vae, x, objective=build_objective(recipe), progress=False, **training)
    vae = numbers.for_other_data(vae, held_out, _SEED)
    gap, gap_summary = numbers.first_ledger(vae, held_out, _SEED) if ledger else (None, None)
    summary = {**numbers.evaluate(vae, held_out, _SEED), "gap": gap_summary}
    numbers.check_summary(summary)
    shown = {"summary": summary, "history": result.history, "weights": dict(vae.named_parameters())}
    return vae, recipe_data.as_tensor(held_out), shown | _ledger(gap)


def _ledger(gap: Any) -> dict[str, Tensor]:
    return {} if gap is None else {"total": gap.total.value, "truth": gap.truth.value}


@torch.no_grad()
def _set_weights(vae: probvae.VAE, weights: Mapping[str, tuple[float, float]]) -> None:
    for begin, (factor, constant) in weights.items():
        for name, parameter in vae.named_parameters():
            if name.startswith(begin):
                parameter.mul_(factor).add_(constant)
