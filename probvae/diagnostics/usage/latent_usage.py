"""Latent usage: how much each latent dimension carries, and whether the data fill the prior."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from probvae.diagnostics.usage.collapse import (
    ACTIVE_THRESHOLD,
    LinearTheory,
    collapse_verdict,
    linear_theory,
    num_active_directions,
)
from probvae.diagnostics.usage.marginals import marginal_kl, marginal_kl_method
from probvae.diagnostics.usage.two_sample import NUM_PERMUTATIONS, TwoSampleResult, two_sample_test
from probvae.diagnostics.verdicts import LEAST_NATS, Effect, HypothesisTest, Verdict, mean_with_error
from probvae.errors import DataError
from probvae.foundation.checks import check_count
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.kl import analytic_kl, has_analytic_kl
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.evaluation.row_tiles import tiles_within_limit
from probvae.inference.pair import VAE, check_data, check_supports

NUM_SAMPLES = 10
# The two-sample test takes so many data at most, and so many prior draws at least.
_MOST_DATA, _LEAST_PRIOR_DRAWS = 1500, 500
# The densities of the aggregate posterior fill a table of draws and data: its most entries, and the fewest that a pair
# counts for, because a flow has hidden layers.
_MOST_ENTRIES, _LEAST_WIDTH = 2**24, 32
# Added to the seed: data that were simulated with the same seed would have the noise of our draws in them.
_STREAM = 7919


@dataclass(frozen=True)
class LatentUsageResult:
    """The use that q_x makes of each latent dimension, for N data.

    - ``kl`` (N,): KL(q_x || p), the rate, by ``kl_method`` ("closed form" or "draws"); ``dimension_kl`` (N, d): the
      same for the marginals z_j, by ``dimension_method`` ("closed form", "draws" or "moments"). Nats per datum.
    - ``means`` (N, d): E_q z in standard deviations of the prior, and ``active`` (d,): whether they vary with x;
      ``variances`` (N, d): Var_q z in squares of them.
    - ``aggregate_kl`` (N,): its mean is KL(q(z) || p(z)); ``mutual_information`` (N,): its mean is I_q(x; z), with the
      own datum in q(z); ``mutual_information_upper`` (N,): with the own datum left out. The three are None where the
      prior differs from datum to datum.
    - ``z`` (N, d) and ``prior_z`` (M, d): a draw of q_x for each datum and draws of the prior, which are compared in
      ``aggregate_test``.
    - ``theory``: for a linear model, how many latents must be on.
    """

    kl: Tensor
    kl_method: str
    dimension_kl: Tensor
    dimension_method: str
    means: Tensor
    variances: Tensor
    active: Tensor
    aggregate_kl: Tensor | None
    mutual_information: Tensor | None
    mutual_information_upper: Tensor | None
    z: Tensor
    prior_z: Tensor
    aggregate_test: TwoSampleResult
    theory: LinearTheory | None
    num_samples: int
    num_permutations: int

    @property
    def activity(self) -> Tensor:
        """Var_x(E_q z_j) (d,), over N, in squared standard deviations of the prior."""
        return self.means.var(0, correction=0)

    @property
    def used(self) -> Tensor:
        """True where the mean or the variance of q_x varies with x, (d,): modes at -m(x) and m(x) have one mean."""
        return self.active | (self.variances.var(0, correction=0) > ACTIVE_THRESHOLD)

    def summary(self) -> dict[str, Any]:
        """The numbers with their standard errors (over the data), as plain data."""
        return {
            "rate": mean_with_error(self.kl),
            "rate_method": self.kl_method,
            "dimension_kl": [mean_with_error(column) for column in self.dimension_kl.unbind(1)],
            "dimension_kl_method": self.dimension_method,
            "active_units": {"value": int(self.active.sum()), "threshold": ACTIVE_THRESHOLD},
            "activity": [_variance_with_error(column) for column in self.means.unbind(1)],
            "num_active_directions": num_active_directions(self.means),
            "linear_theory": self.theory and self.theory.summary(),
            **self._surgery(),
            "aggregate_test": {"p_value": self.aggregate_test.p_value, "num_permutations": self.num_permutations},
            "num_data": len(self.kl),
            "num_samples": self.num_samples,
            "num_prior_draws": len(self.prior_z),
        }

    def _surgery(self) -> dict[str, Any]:
        names = ("mutual_information", "mutual_information_upper", "aggregate_kl")
        values = {name: getattr(self, name) for name in names}
        found = {name: None if value is None else mean_with_error(value) for name, value in values.items()}
        return {**found, "log_num_data": math.log(len(self.kl))}

    def verdicts(self) -> list[Verdict]:
        """The verdict on posterior collapse."""
        return [collapse_verdict(self.used, num_active_directions(self.means), self.theory)]

    def tests(self) -> list[HypothesisTest]:
        """The test of the aggregate posterior against the prior, valid for data that the model was not fitted to."""
        rejected = (
            f"The posteriors of all data together (the aggregate posterior) are not the prior: {self._difference()}. "
            "Draws from the prior then decode to other data than these; try a prior that is learned (mixture, vamp, "
            "flow), or train longer"
        )
        passed = "The posteriors of all data together (the aggregate posterior) cannot be told from the prior"
        test, counts = self.aggregate_test, (min(len(self.z), _MOST_DATA), len(self.prior_z))
        error = math.sqrt(sum(1 / count for count in counts))
        effect = Effect.of_mean(test.size, error, f"by the {test.difference[0]}", LEAST_NATS)
        return [HypothesisTest("latent_usage/aggregate_posterior", test.p_value, passed, rejected, effect)]

    def _difference(self) -> str:
        what, dimensions = self.aggregate_test.difference
        ours, prior = (_describe(draws.double()[:, dimensions], what) for draws in (self.z, self.prior_z))
        names = " and ".join(f"z_{j + 1}" for j in dimensions)
        return f"the {what} of {names} is {ours:.2g} and the prior's {prior:.2g}"


def latent_usage(
    vae: VAE,
    x: Tensor,
    *,
    num_samples: int = NUM_SAMPLES,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> LatentUsageResult:
    r"""Which latent dimensions are used, how much they carry, and whether the data fill the prior.

    The mean KL of the bound comes apart (Hoffman and Johnson's surgery),

    .. math:: \frac1N \sum_n \mathrm{KL}(q_{x_n} \| p) = I_q(x; z) + \mathrm{KL}(q(z) \| p(z)), \qquad
              q(z) = \frac1N \sum_n q(z|x_n)

    with q(z) evaluated at ``num_samples`` draws of each q(z|x_m). The datum m itself is in q(z): then I_q <= log N, and
    the estimate is biased downwards as an estimate of the information that q carries of a new x (by much, where that is
    near log N). With datum m left out it is biased upwards: ``mutual_information_upper``. The truth is between the two
    in expectation; ``aggregate_kl`` belongs to the former, and is biased upwards. Standard errors are over the data: a
    mean's derivative with respect to q(z) itself is zero, so the terms of the data may be taken as independent.

    KL by dimension is that of the marginals of q_x and p. For a prior that factorises, the rate is their sum plus the
    dependence between the dimensions within q_x. A latent is *active* where Var_x(E_q z_j) > 0.01, z in standard
    deviations of the prior (where it has one); for linear models the verdict counts the active directions beside the
    theory (:func:`~probvae.diagnostics.collapse.linear_theory`).

    The test (:func:`~probvae.diagnostics.two_sample.two_sample_test`) draws one z_n ~ q(z|x_n) for each datum (of at
    most 1500). Where model and guide are right and the model was not fitted to these data, they are independent draws
    of p(z), and the p-value is exact; a prior that differs from datum to datum is drawn from once for each, and
    compared in pairs.

    ``x`` is (N, D). Memory is bounded; the time grows with N^2. Nats per datum.
    Raises :class:`~probvae.errors.DataError` for fewer than two data, and for what does not fit, and
    :class:`~probvae.errors.ArgumentError` for a guide that reaches beyond the prior's support.
    Source: Hoffman and Johnson (2016), "ELBO surgery", equation 9; Burda, Grosse and Salakhutdinov (2016),
    arXiv:1509.00519, appendix C, for active units; Poole et al. (2019), arXiv:1905.06922, equations 10 and 13, for the
    two bounds of the information.

    >>> import probvae
    >>> result = latent_usage(probvae.VAE.example(), torch.randn(50, 3))
    >>> bool(torch.isclose(result.kl.mean(), (result.mutual_information + result.aggregate_kl).mean()))
    True
    """
    check_data(vae, x)
    check_count(num_samples, "num_samples")
    check_count(num_permutations, "num_permutations")
    _check_several(x)
    with isolated_seed(seed + _STREAM, x.device), torch.no_grad():
        usage = _usage(vae, x, num_samples)
        surgery = _surgery(vae, x, usage)
        z, prior_z, test = _against_prior(vae, usage.z[0], num_permutations)
    active = usage.means.var(0, correction=0) > ACTIVE_THRESHOLD
    return LatentUsageResult(
        usage.kl,
        usage.kl_method,
        usage.dimension_kl,
        usage.dimension_method,
        usage.means,
        usage.variances,
        active,
        *surgery,
        z,
        prior_z,
        test,
        linear_theory(vae.model, x),
        num_samples,
        num_permutations,
    )


class _Usage(NamedTuple):
    """Per datum: the two KLs, the means, draws z (S, N, d) with their log q and log p (S, N); and the methods."""

    kl: Tensor
    dimension_kl: Tensor
    means: Tensor
    variances: Tensor
    z: Tensor
    log_guide: Tensor
    log_prior: Tensor
    kl_method: str
    dimension_method: str


def _usage(vae: VAE, x: Tensor, num_samples: int) -> _Usage:
    parts = [_tile_usage(part, rows, num_samples) for part, rows in tiles_within_limit(vae, x, num_samples)]

    def joined(name: str, dim: int) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts], dim)

    names = ("kl", "dimension_kl", "means", "variances")
    kl, dimension_kl, means, variances = (joined(name, 0) for name in names)
    z, log_guide, log_prior = (joined(name, 1) for name in ("z", "log_guide", "log_prior"))
    return _Usage(
        kl, dimension_kl, means, variances, z, log_guide, log_prior, parts[0].kl_method, parts[0].dimension_method
    )


def _tile_usage(vae: VAE, x: Tensor, num_samples: int) -> _Usage:
    q, prior = vae.guide.distribution(x), vae.model.prior()
    check_supports(prior, q)
    p = prior.expand(q.batch_shape)
    z = q.sample(torch.Size((num_samples,)))
    log_guide, log_prior = q.log_prob(z).double(), p.log_prob(z).double()
    closed = has_analytic_kl(q, p)
    return _Usage(
        analytic_kl(q, p).double() if closed else (log_guide - log_prior).mean(0),
        marginal_kl(q, p, z).double(),
        *_in_prior_scales(*mean_and_variance(q), prior),
        z,
        log_guide,
        log_prior,
        "closed form" if closed else "draws",
        marginal_kl_method(q, p),
    )


def _in_prior_scales(mean: Tensor, variance: Tensor, prior: torch.distributions.Distribution) -> tuple[Tensor, Tensor]:
    """E_q z less the prior's mean, over its standard deviation, and Var_q z likewise; heavy tails may have neither."""
    centre, spread = mean_and_variance(prior)
    scale = torch.where(spread.isfinite() & (spread > 0), spread.sqrt(), torch.ones_like(spread))
    offset = mean - torch.where(centre.isfinite(), centre, torch.zeros_like(centre))
    return (offset / scale).double(), (variance / scale.square()).double()


def _surgery(vae: VAE, x: Tensor, usage: _Usage) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Per datum: KL(q(z) || p(z)), the information with the own datum, and without it."""
    if vae.model.prior().batch_shape:
        return None, None, None
    others, num_data = log_sum_of_others(vae, x, usage.z).double(), len(x)
    log_aggregate = torch.logaddexp(others, usage.log_guide) - math.log(num_data)
    log_others = others - math.log(num_data - 1)
    # The density of q(z) needs the draws; the information comes from the rate, which has less noise than they have.
    aggregate_kl = (log_aggregate - usage.log_prior).mean(0)
    return aggregate_kl, usage.kl - aggregate_kl, usage.kl - (log_others - usage.log_prior).mean(0)


@torch.no_grad()
def log_sum_of_others(vae: VAE, x: Tensor, z: Tensor) -> Tensor:
    r"""log sum_{n != m} q(z_sm | x_n), (S, N), for draws z (S, N, d) of which z_sm came from datum m; x is (N, D).

    The own datum is left out, because where it dominates it could not be taken out again; with it,

    .. math:: \log q(z_{sm}) = \log \Big( q(z_{sm}|x_m) + \sum_{n \ne m} q(z_{sm}|x_n) \Big) - \log N

    It costs S N^2 densities. For one datum it is minus infinity.
    """
    draws = z.flatten(0, 1)
    owner = torch.arange(z.shape[1], device=z.device).repeat(z.shape[0])
    total, first = torch.full_like(draws[:, 0], -torch.inf), 0
    for part, rows in tiles_within_limit(vae, x, 1):
        q, place = part.guide.distribution(rows), torch.arange(first, first + len(rows), device=z.device)
        size = max(1, _MOST_ENTRIES // (len(rows) * max(z.shape[2], _LEAST_WIDTH)))
        tables = zip(draws.split(size), owner.split(size), strict=True)
        sums = [
            q.log_prob(some.unsqueeze(1).expand(-1, len(rows), -1))
            .masked_fill(own.unsqueeze(1) == place, -torch.inf)
            .logsumexp(1)
            for some, own in tables
        ]
        total, first = torch.logaddexp(total, torch.cat(sums)), first + len(rows)
    return total.reshape(z.shape[:2])


def _against_prior(vae: VAE, z: Tensor, num_permutations: int) -> tuple[Tensor, Tensor, TwoSampleResult]:
    prior = vae.model.prior()
    kept = torch.randperm(len(z))[:_MOST_DATA].sort().values.to(z.device)
    if prior.batch_shape:
        prior_z = prior.sample()[kept]
    else:
        prior_z = prior.sample(torch.Size((max(len(kept), _LEAST_PRIOR_DRAWS),)))
    test = two_sample_test(z[kept], prior_z, paired=bool(prior.batch_shape), num_permutations=num_permutations)
    return z, prior_z, test


def _check_several(x: Tensor) -> None:
    if len(x) < 2:
        raise DataError(
            f"x: expected at least 2 data, got {len(x)}: whether a latent varies with x cannot be seen from one. "
            "Give more rows."
        )


def _variance_with_error(values: Tensor) -> dict[str, float | None]:
    """The variance over N, with its standard error."""
    return mean_with_error((values.double() - values.double().mean()).square())


def _describe(z: Tensor, what: str) -> float:
    """A moment of the one column of ``z``, or the correlation of its two."""
    if what == "correlation":
        return float(torch.corrcoef(z.T)[0, 1])
    if what == "mean":
        return float(z.mean())
    standard = (z - z.mean()) / z.std()
    moments = {"standard deviation": z.std(), "skewness": standard.pow(3).mean(), "kurtosis": standard.pow(4).mean()}
    return float(moments[what])
