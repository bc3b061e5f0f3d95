"""All diagnostics in one call: can this posterior be trusted, and if not, what should be changed?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from probvae.diagnostics.advice import advice_for
from probvae.diagnostics.calibration.calibrate import calibration, calibration_on_data
from probvae.diagnostics.convergence import NAME as CONVERGENCE
from probvae.diagnostics.convergence import TrainedOn, can_be_asked, convergence
from probvae.diagnostics.ledger.gap import LEDGER_DATA, GapResult, check_density
from probvae.diagnostics.ledger.generalisation import NAME as GENERALISATION
from probvae.diagnostics.ledger.generalisation import GeneralisationResult
from probvae.diagnostics.ledger.unsplit import UnsplitLedger, ledger_or_total
from probvae.diagnostics.prediction.predictive_check import predictive_check
from probvae.diagnostics.usage.latent_usage import latent_usage
from probvae.diagnostics.verdicts import FAIL, NOT_COMPUTED, OK, WARN, Diagnostic, NotComputed, Verdict, judge
from probvae.diagnostics.weights.importance import ImportanceDiagnostic, importance_diagnostic
from probvae.errors import ArgumentError, NotLinearGaussianError, ProbvaeError
from probvae.foundation.checks import check_count
from probvae.inference.densities.non_finite import TORCH_ERRORS, raise_as_non_finite
from probvae.inference.densities.point_mass import check_draws_have_density
from probvae.inference.evidence.log_evidence import Estimate, best_method, log_evidence
from probvae.inference.pair import VAE, check_data

_QUICK_LEDGER_DATA = {"exact": 500, "quadrature": 20, "annealed": 5}
# A guide is tried on so many rows before the sections are computed.
_NUM_TRIED = 64
Progress = Callable[[str, int, int], None]
Sections = dict[str, Diagnostic]


@dataclass(frozen=True)
class Settings:
    """How much is drawn.

    ``num_draws`` of q are for bounds and weights; ``num_simulations`` pairs (z, x) are ranked among ``num_ranks`` draws
    each; ``num_replicates`` data sets are drawn from the model. The ledger takes ``ledger_data`` rows (by the method
    for log p(x)); ``calibration_data`` rows are compared with draws of the true posterior, ``advice_data`` rows with a
    richer guide.
    """

    ledger_data: dict[str, int]
    calibration_data: int
    advice_data: int
    num_draws: int
    num_simulations: int
    num_ranks: int
    num_replicates: int
    seed: int = 0
    truth: str = "auto"
    trained_on: TrainedOn | None = None
    row_numbers: Sequence[int] | None = None


_FULL = Settings(LEDGER_DATA, 500, 50, num_draws=1000, num_simulations=2000, num_ranks=400, num_replicates=2000)
_QUICK = Settings(_QUICK_LEDGER_DATA, 25, 20, num_draws=200, num_simulations=1000, num_ranks=100, num_replicates=500)


@dataclass(frozen=True)
class Diagnosis:
    """The result of :func:`diagnose`: ``sections`` by name, ``verdicts`` on all of them, ``advice`` in sentences.

    A section that could not be computed is a :class:`~probvae.diagnostics.verdicts.NotComputed` with the reason, and
    its verdict says so. ``str()`` of it is a table of the verdicts.
    """

    sections: dict[str, Diagnostic]
    verdicts: list[Verdict]
    advice: list[str]

    @property
    def status(self) -> str:
        """The worst of what was computed: ``"fail"``, ``"warn"``, or ``"ok"``; ``"not computed"`` where nothing was.

        What was not computed lowers nothing: :attr:`told_status` counts it.
        """
        found = {verdict.status for verdict in self.verdicts}
        return next((status for status in (FAIL, WARN, OK) if status in found), NOT_COMPUTED)

    @property
    def num_not_computed(self) -> int:
        """How many checks were not computed; their verdicts say why."""
        return sum(verdict.status == NOT_COMPUTED for verdict in self.verdicts)

    @property
    def told_status(self) -> str:
        """The status in words, with the number of checks that were not computed: "ok, 2 checks not computed"."""
        number = self.num_not_computed
        if self.status == NOT_COMPUTED or not number:
            return self.status
        return f"{self.status}, {number} check{'s' * (number > 1)} not computed"

    def summary(self) -> dict[str, Any]:
        """All results as plain data, ready for JSON."""
        return {
            "status": self.status,
            "num_not_computed": self.num_not_computed,
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "advice": self.advice,
            **{name: section.summary() for name, section in self.sections.items()},
        }

    def __str__(self) -> str:
        width = max(len(verdict.name) for verdict in self.verdicts)
        lines = [f"{v.status:12}  {v.name:{width}}  {v.message}" for v in self.verdicts]
        return "\n".join([self.told_status, *lines, *(f"try: {sentence}" for sentence in self.advice)])


@raise_as_non_finite()
def diagnose(
    vae: VAE,
    x: Tensor,
    *,
    truth: str = "auto",
    num_simulations: int | None = None,
    num_draws: int | None = None,
    quick: bool = False,
    seed: int = 0,
    trained_on: TrainedOn | None = None,
    row_numbers: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Can the posterior of these data be trusted, and if not, what should be changed?

    Runs the ledger of gaps, the importance diagnostic, calibration on simulated data and on these, latent usage, the
    predictive checks, and where a c was learned or the training rows are known, convergence and generalisation. All
    tests among them are judged together by Holm's procedure, so that one right posterior
    in a hundred gets a ``fail`` from them.

    Parameters
    ----------
    x
        (N, D), best held-out data.
    truth
        Where log p(x) comes from, see :func:`~probvae.log_evidence`.
    num_simulations, num_draws
        How many data are simulated for calibration, and how many draws of q_x each datum gets.
    quick
        Fewer of both, for a first look.
    trained_on
        The rows that the pair was fitted to, and the fit's history: whether training was long enough, and whether the
        encoder has overfitted, can then be asked.
    row_numbers
        What lists of data call the rows, one for each; by default they are counted from 0.
    progress
        Called with the section's name, its number and how many there are.

    Raises :class:`~probvae.errors.DataError` for data that the model cannot read,
    :class:`~probvae.errors.ArgumentError` for a guide without a density (a point mass), and what ``log_evidence``
    raises for a ``truth`` that was named and the model does not allow.

    >>> import torch, probvae
    >>> diagnosis = diagnose(probvae.VAE.example(), torch.zeros(5, 3), quick=True)
    >>> diagnosis.status
    'fail'
    """
    check_data(vae, x)
    _check_guide(vae, x)
    others = {"seed": seed, "truth": truth, "trained_on": trained_on, "row_numbers": row_numbers}
    settings = _settings(quick, num_simulations, num_draws, **others)
    sections: dict[str, Diagnostic] = {}
    asked = _asked(vae, trained_on)
    for number, (name, compute) in enumerate(asked.items()):
        if progress is not None:
            progress(name, number, len(asked))
        sections[name] = _or_reason(name, partial(compute, vae, x, settings, sections), settings)
    verdicts = [verdict for section in sections.values() for verdict in section.verdicts()]
    verdicts += judge([test for section in sections.values() for test in section.tests()])
    verdicts.sort(key=lambda verdict: list(asked).index(verdict.name.split("/")[0]))
    return Diagnosis(
        sections, verdicts, advice_for(vae, x, sections, verdicts, num_tried=settings.advice_data, seed=seed)
    )


def _check_guide(vae: VAE, x: Tensor) -> None:
    """Raise for a guide without a density; one that fails for other reasons is told of by the sections."""
    rows = slice(_NUM_TRIED)
    try:
        with torch.no_grad():
            q = vae.at(rows).guide.distribution(x[rows] if vae.guide.amortized else x)
    except (ProbvaeError, *TORCH_ERRORS):
        return
    check_draws_have_density(q)


def _settings(quick: bool, num_simulations: int | None, num_draws: int | None, **others: Any) -> Settings:
    """The defaults, quick or not, with what the caller has asked for."""
    default = _QUICK if quick else _FULL
    simulations = default.num_simulations if num_simulations is None else num_simulations
    draws = default.num_draws if num_draws is None else num_draws
    check_count(simulations, "num_simulations", least=100)
    check_count(draws, "num_draws", least=100)
    return replace(default, num_draws=draws, num_simulations=simulations, **others)


def _asked(vae: VAE, trained_on: TrainedOn | None) -> "dict[str, Compute]":
    """The sections: all, but for those that ask about a training of which nothing is known."""
    left_out = set() if trained_on is not None and vae.guide.amortized else {GENERALISATION}
    left_out |= set() if can_be_asked(vae, trained_on) else {CONVERGENCE}
    return {name: compute for name, compute in _SECTIONS.items() if name not in left_out}


def _or_reason(name: str, compute: Callable[[], Diagnostic], settings: Settings) -> Diagnostic:
    try:
        with raise_as_non_finite():
            return compute()
    except (ArgumentError, NotLinearGaussianError) as error:
        if name == "gap" and settings.truth != "auto":
            raise  # the user has asked for this truth by name
        return NotComputed(name, str(error))
    except ProbvaeError as error:
        return NotComputed(name, str(error))


def _gap(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Diagnostic:
    return _ledger(vae, x, settings)


def _ledger(vae: VAE, x: Tensor, settings: Settings) -> GapResult | UnsplitLedger:
    check_density(vae)
    method = best_method(vae) if settings.truth == "auto" else settings.truth
    rows = slice(settings.ledger_data.get(method, settings.ledger_data["annealed"]))
    return ledger_or_total(
        vae.at(rows), x[rows], truth=settings.truth, num_samples=settings.num_draws, seed=settings.seed
    )


def _generalisation(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Diagnostic:
    """The ledger of the training rows beside that of these, which has been computed."""
    held_out, known = before["gap"], settings.trained_on
    assert known is not None
    if not isinstance(held_out, GapResult | UnsplitLedger):
        return NotComputed(GENERALISATION, "there is no ledger of these rows to compare with")
    return GeneralisationResult(_ledger(known.vae, known.x, settings), held_out)


def _convergence(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Diagnostic:
    return convergence(vae, x, settings.trained_on, seed=settings.seed)


def _importance(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Diagnostic:
    check_density(vae)
    return importance_diagnostic(vae, x, settings.num_draws, settings.seed)


def _calibration(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Diagnostic:
    counts = {"num_simulations": settings.num_simulations, "num_draws": settings.num_ranks}
    return calibration(vae, **counts, seed=settings.seed, like=x)


def _calibration_on_data(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Diagnostic:
    rows = slice(settings.calibration_data)
    return calibration_on_data(vae.at(rows), x[rows], num_draws=settings.num_ranks, seed=settings.seed)


def _latent_usage(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Diagnostic:
    return latent_usage(vae, x, seed=settings.seed)


def _prediction(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Diagnostic:
    check_density(vae)
    return predictive_check(
        vae,
        x,
        num_replicates=settings.num_replicates,
        num_draws=settings.num_ranks,
        evidence=_evidence(vae, x, settings, before),
        num_listed=settings.advice_data,
        row_numbers=settings.row_numbers,
        seed=settings.seed,
    )


def _evidence(vae: VAE, x: Tensor, settings: Settings, before: Sections) -> Estimate:
    """log p(x) of the ledger's rows; from the importance weights of all rows where there is no ledger."""
    gap, importance = before.get("gap"), before.get("importance")
    if isinstance(gap, GapResult | UnsplitLedger):
        return gap.truth
    if isinstance(importance, ImportanceDiagnostic):
        # smoothed weights are no longer unbiased
        return Estimate(importance.log_evidence, importance.standard_error, "importance", "estimate")
    return log_evidence(vae, x, "importance", seed=settings.seed)


Compute = Callable[[VAE, Tensor, Settings, Sections], Diagnostic]
_SECTIONS: dict[str, Compute] = {
    "gap": _gap,
    GENERALISATION: _generalisation,
    CONVERGENCE: _convergence,
    "importance": _importance,
    "calibration": _calibration,
    "calibration_on_data": _calibration_on_data,
    "latent_usage": _latent_usage,
    "prediction": _prediction,
}
