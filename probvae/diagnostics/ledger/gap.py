"""The ledger: what the bound loses to the guide's family, and what to its encoder."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

from probvae.diagnostics.verdicts import FAIL, OK, WARN, HypothesisTest, Verdict, mean_with_error, with_error
from probvae.errors import ArgumentError
from probvae.foundation.checks import check_count
from probvae.inference.densities.non_finite import check_finite_values, raise_as_non_finite
from probvae.inference.evaluation.refine import refine
from probvae.inference.evaluation.row_tiles import tiles
from probvae.inference.evidence.importance_sampling import weighted_draws
from probvae.inference.evidence.log_evidence import Estimate, joined_estimates, log_evidence
from probvae.inference.guides import Guide
from probvae.inference.guides.families import as_normal
from probvae.inference.linear.closed_form_model import has_exact_posterior
from probvae.inference.linear.exact import exact_posterior
from probvae.inference.linear.gaussian_gaps import diagonal_gap
from probvae.inference.pair import VAE, check_data, in_double

NUM_SAMPLES = 1000
# A ledger takes so many data at most: annealing costs a hundred times what the closed form and quadrature do.
LEDGER_DATA = {"exact": 500, "quadrature": 500, "annealed": 50}
# KL in nats. By Pinsker's inequality no probability under q is off by more than sqrt(KL/2), here 0.16 and 0.5.
WARN_GAP, FAIL_GAP = 0.05, 0.5
# A closed form is off by its rounding, which is below this in nats.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Gap:
    """One entry of the ledger: ``value`` (N,) and ``standard_error`` (N,), in nats per datum."""

    value: Tensor
    standard_error: Tensor

    def mean(self) -> dict[str, float | None]:
        """The mean over the data, with its standard error (None for one datum)."""
        return mean_with_error(self.value)


@dataclass(frozen=True)
class GapResult:
    """``total`` = ``approximation`` + ``amortisation`` for each datum, and the truth they stand on.

    ``truth`` is the estimate of log p(x) with its method and kind; against a lower bound, ``total`` and
    ``approximation`` are lower bounds too. ``converged`` (N,) says where the best member of the family was found.
    ``refined`` is the guide of those best members, None where a closed form made it unnecessary.
    """

    total: Gap
    approximation: Gap
    amortisation: Gap
    truth: Estimate
    converged: Tensor
    refined: Guide | None

    def summary(self) -> dict[str, Any]:
        """The means, as plain data."""
        parts = {name: getattr(self, name).mean() for name in ("total", "approximation", "amortisation")}
        return {
            **parts,
            "truth": self.truth.method,
            "kind": self.truth.kind,
            "truth_error": float(self.truth.standard_error.max()),
            "num_data": len(self.total.value),
            "num_converged": int(self.converged.sum()),
        }

    def verdicts(self) -> list[Verdict]:
        """The verdict on the total gap."""
        return [total_gap_verdict(self.total, self.truth)]

    def tests(self) -> list[HypothesisTest]:
        return []


def total_gap_verdict(total: Gap, truth: Estimate) -> Verdict:
    """The verdict on the size of log p(x) - ELBO; three standard errors of the draws are left to chance.

    The gap is a KL. Below zero by more than that, it says that one of the two numbers is wrong.
    """
    mean = total.mean()
    value, error = mean["value"] or 0.0, mean["standard_error"] or 0.0
    noise = float(total.standard_error.square().mean().sqrt()) / math.sqrt(len(total.value))
    if value + 3 * noise < -_ROUNDING:
        return _negative_gap(value, error, -(value + 3 * noise), truth)
    status = FAIL if value - 3 * noise > FAIL_GAP else WARN if value - 3 * noise > WARN_GAP else OK
    told = f"The guide is {'at least ' if truth.kind == 'lower bound' else ''}{with_error(value, error)} nats per datum"
    message = {
        OK: f"{told} from the posterior",
        WARN: f"{told} from the posterior: its intervals are off",
        FAIL: f"{told} from the posterior: do not use it in the posterior's place",
    }[status]
    return Verdict("gap/total", status, value, FAIL_GAP, message)


def _negative_gap(value: float, error: float, surely: float, truth: Estimate) -> Verdict:
    """The verdict on a bound that lies above log p(x), for ``surely`` so many nats."""
    told = f"The guide's bound lies {with_error(-value, error)} nats per datum above log p(x)"
    if truth.kind == "lower bound":
        status = FAIL if surely > WARN_GAP else WARN
        message = (
            f"{told} as {truth.method} estimates it: that estimate is too low, and the gap is not known. Take another "
            'truth ("quadrature", "exact"), or more draws'
        )
    else:
        status = FAIL
        message = (
            f"{told}, which no bound can: a log density is wrong. Does log_prob of the guide (and of the model) belong "
            "to its draws, and integrate to one?"
        )
    return Verdict("gap/total", status, value, 0.0, message)


@raise_as_non_finite()
def posterior_gap(
    vae: VAE, x: Tensor, *, truth: str = "auto", num_samples: int = NUM_SAMPLES, seed: int = 0
) -> GapResult:
    r"""How many nats the guide's posterior costs, and why.

    .. math:: \underbrace{\log p(x) - \mathrm{ELBO}(q_x)}_{\text{total} = \mathrm{KL}(q_x \| p(z|x))} =
              \underbrace{\log p(x) - \mathrm{ELBO}(q_x^*)}_{\text{approximation}} +
              \underbrace{\mathrm{ELBO}(q_x^*) - \mathrm{ELBO}(q_x)}_{\text{amortisation}}

    q* is the best member of the guide's own family for that datum. The approximation gap is what a richer family could
    win, the amortisation gap what a better encoder could. Where posterior and guide are Gaussian, all is in
    closed form; otherwise q* is found by :func:`~probvae.inference.refine.refine`, both bounds are taken at the same
    ``num_samples`` draws, and log p(x) comes from :func:`~probvae.inference.evidence.log_evidence`.

    ``x`` is (N, D); ``truth`` a method of ``log_evidence``. Nats per datum; standard errors are of the draws.

    Raises what these functions raise. Source: Cremer, Li and Duvenaud (2018), arXiv:1801.03558, equation 6.

    >>> import probvae
    >>> result = posterior_gap(probvae.VAE.example(), torch.zeros(5, 3))
    >>> bool(torch.allclose(result.total.value, result.approximation.value + result.amortisation.value))
    True
    """
    check_data(vae, x)
    check_count(num_samples, "num_samples", least=2)
    if (found := vae.groups(len(x))) is not None:
        options: dict[str, Any] = {"truth": truth, "num_samples": num_samples, "seed": seed}
        return _joined([posterior_gap(vae.at(rows[:1]), x[rows], **options) for rows in found], found)
    vae, x = in_double(vae, x)
    evidence = log_evidence(vae, x, truth, seed=seed)
    if evidence.method == "exact":
        closed = _closed_form(vae, x, evidence)
        if closed is not None:
            return closed
    refinement = refine(vae, x, seed=seed)
    own, best = paired_bounds(vae, vae.guide, refinement.guide, x, num_samples, seed)
    check_finite_values(evidence.value - own.mean(0), "the gap")
    return _ledger(evidence, own, best, refinement.converged, refinement.guide)


def full_covariance_gain(
    vae: VAE, x: Tensor, gap: GapResult, *, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> Gap | None:
    r"""How many nats the best normal with a full covariance wins over the best diagonal one, datum by datum.

    .. math:: \mathrm{ELBO}(q^*_{\text{full}}) - \mathrm{ELBO}(q^*_{\text{diagonal}})

    ``gap`` is the ledger of ``x`` (N, D) or of more data that begin with it; where it is in closed form, so is this.
    The result is None for a guide that is not a diagonal normal, or has one dimension. Nats per datum; both bounds are
    taken at the same draws.

    Raises what :func:`~probvae.refine` raises.

    >>> import probvae
    >>> vae, x = probvae.VAE.example(), torch.zeros(5, 3)
    >>> gap = probvae.posterior_gap(vae, x)
    >>> bool((full_covariance_gain(vae, x, gap).value == gap.approximation.value).all())
    True
    """
    check_count(num_samples, "num_samples", least=2)
    with torch.no_grad():
        normal = as_normal(vae.guide.distribution(x))
    if normal is None or normal[2] or normal[0].shape[-1] == 1:
        return None
    if gap.refined is None and _posterior_is_normal(vae, x):  # a full covariance wins all
        return Gap(gap.approximation.value[: len(x)], gap.approximation.standard_error[: len(x)])
    vae, x = in_double(vae, x)
    full = refine(vae, x, seed=seed, full_covariance=True).guide
    diagonal = refine(vae, x, seed=seed).guide if gap.refined is None else gap.refined
    first, second = paired_bounds(vae, diagonal, full, x, num_samples, seed)
    return Gap(second.mean(0) - first.mean(0), monte_carlo_error(second - first))


@torch.no_grad()
def _posterior_is_normal(vae: VAE, x: Tensor) -> bool:
    model = vae.at(slice(1)).model
    return has_exact_posterior(model) and isinstance(exact_posterior(model, x[:1]), MultivariateNormal)


def check_density(vae: VAE) -> None:
    """Raise :class:`~probvae.errors.ArgumentError` where p(x|z) is no probability, so that log p(x) is none."""
    if getattr(vae.model.likelihood, "allow_grey", False):
        raise ArgumentError("grey data have no probability under a Bernoulli likelihood")


def _joined(parts: list[GapResult], rows: list[Tensor]) -> GapResult:
    """The ledgers of several groups of data, in the order of the data."""
    order = torch.cat(rows).argsort()

    def gap(name: str) -> Gap:
        entries = [getattr(part, name) for part in parts]
        return Gap(*(torch.cat([getattr(e, n) for e in entries])[order] for n in ("value", "standard_error")))

    truth = joined_estimates([part.truth for part in parts], rows)
    converged = torch.cat([part.converged for part in parts])[order]
    return GapResult(gap("total"), gap("approximation"), gap("amortisation"), truth, converged, None)


def _closed_form(vae: VAE, x: Tensor, evidence: Estimate) -> GapResult | None:
    """The ledger where posterior and guide are both Gaussian; None where they are not."""
    if not has_exact_posterior(vae.model):
        return None
    with torch.no_grad():
        posterior, q = exact_posterior(vae.model, x), vae.guide.distribution(x)
        if not isinstance(posterior, MultivariateNormal) or (family := _as_full_normal(q)) is None:
            return None
        kl = kl_divergence(family.double_precision(), _double(posterior))
        gap = diagonal_gap(_double(posterior).precision_matrix) if family.diagonal else torch.zeros_like(kl)
    total, approximation, amortisation = (Gap(v, torch.zeros_like(v)) for v in (kl, gap, kl - gap))
    return GapResult(total, approximation, amortisation, evidence, torch.ones_like(gap, dtype=torch.bool), None)


@dataclass(frozen=True)
class _Normal:
    loc: Tensor
    scale_tril: Tensor
    diagonal: bool

    def double_precision(self) -> MultivariateNormal:
        return MultivariateNormal(self.loc.double(), scale_tril=self.scale_tril.double())


def _as_full_normal(q: Distribution) -> _Normal | None:
    if isinstance(q, MultivariateNormal):
        return _Normal(q.loc, q.scale_tril, diagonal=False)
    if isinstance(q, Independent) and isinstance(q.base_dist, Normal):
        return _Normal(q.base_dist.loc, torch.diag_embed(q.base_dist.scale), diagonal=True)
    return None


def _double(p: MultivariateNormal) -> MultivariateNormal:
    return MultivariateNormal(p.loc.double(), scale_tril=p.scale_tril.double())


@torch.no_grad()
def paired_bounds(
    vae: VAE, first: Guide, second: Guide, x: Tensor, num_samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """log p(x, z) - log q(z), (S, N), of two guides at ``x`` (N, D), from the same random draws."""
    columns = []
    for part, rows in tiles(vae, x, num_samples):
        pair = []
        for guide in (first, second):
            q = guide.distribution(rows)
            pair.append(weighted_draws(part, rows, num_samples, seed, q=q).log_weights)
        columns.append(torch.stack(pair))
    one, other = torch.cat(columns, dim=-1)
    return one, other


def _ledger(evidence: Estimate, own: Tensor, best: Tensor, converged: Tensor, refined: Guide) -> GapResult:
    log_p, doubt = evidence.value.double(), evidence.standard_error.double()
    total = Gap(log_p - own.mean(0), (monte_carlo_error(own).square() + doubt.square()).sqrt())
    approximation = Gap(log_p - best.mean(0), (monte_carlo_error(best).square() + doubt.square()).sqrt())
    # At the same draws most of the noise is common to both bounds, and cancels.
    amortisation = Gap(total.value - approximation.value, monte_carlo_error(best - own))
    return GapResult(total, approximation, amortisation, evidence, converged, refined)


def monte_carlo_error(draws: Tensor) -> Tensor:
    """The standard error (N,) of the mean of ``draws`` (S, N)."""
    return draws.std(0) / math.sqrt(len(draws))
