"""Annealed importance sampling, and the bracket that its reverse gives on simulated data."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from probvae.errors import unknown_name
from probvae.foundation.checks import check_count
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.densities.non_finite import check_finite_values
from probvae.inference.evaluation.memory import draw_z
from probvae.inference.evaluation.refine import refine
from probvae.inference.evaluation.row_tiles import tiles_within_limit
from probvae.inference.evidence.log_mean_errors import log_mean_error, summed, two_sigma_factor
from probvae.inference.pair import VAE, check_data, frozen, in_double

STARTS = {
    "guide": "from q_x(z): short, where the guide is good",
    "prior": "from p(z): needs no guide",
    "refined": "from the best member of the guide's family for each datum: the shortest",
}
_TARGET_ACCEPTANCE = 0.7
# How fast the preliminary run moves the logarithm of the step size toward the target
_ADAPTATION_RATE = 0.3
_FIRST_STEP = 0.5  # standard deviations of the start
# With fewer chains all begin at the start itself.
_LEAST_CHAINS = 8


@dataclass(frozen=True)
class AnnealedResult:
    """The result of annealing, in nats per datum.

    ``log_evidence`` (N,): log mean_c w_c over the chains, which in expectation is below log p(x), with its
    ``standard_error`` (N,): log p(x) is within two of them for about 95 of 100 data. ``lower`` (N,): mean_c log w_c of
    the chains that did not begin at the prior, a looser bound in expectation. ``log_weight`` (C, N);
    ``acceptance`` (N,): of the HMC proposals.
    """

    log_evidence: Tensor
    lower: Tensor
    standard_error: Tensor
    log_weight: Tensor
    acceptance: Tensor


class Bracket(NamedTuple):
    """log p(x) of simulated data between two stochastic bounds, each (N,), in nats.

    ``lower`` and ``upper`` are means over the chains, below and above log p(x) in expectation, with their standard
    errors; ``x`` (N, D) and ``z`` (N, d) are the simulated data and the draws that made them.
    """

    lower: Tensor
    upper: Tensor
    lower_error: Tensor
    upper_error: Tensor
    x: Tensor
    z: Tensor

    def interval(self, num_sigmas: float = 3.0) -> tuple[Tensor, Tensor]:
        """The bounds, each (N,), moved outwards by ``num_sigmas`` standard errors, because the chains are noisy."""
        return self.lower - num_sigmas * self.lower_error, self.upper + num_sigmas * self.upper_error


def annealed_log_evidence(
    vae: VAE,
    x: Tensor,
    *,
    num_temperatures: int = 200,
    num_chains: int = 16,
    num_leapfrog: int = 4,
    start: str = "guide",
    seed: int = 0,
) -> AnnealedResult:
    r"""log p(x) by annealed importance sampling with Hamiltonian Monte Carlo transitions.

    .. math:: \log w = \sum_{t=1}^T \log f_t(z_{t-1}) - \log f_{t-1}(z_{t-1}), \qquad
              f_t(z) = f_0(z)^{1 - \beta_t} \, p(x, z)^{\beta_t}, \qquad E[w] = p(x)

    f_0 begins at the guide (``start="guide"``), at the best member of its family for each datum (``"refined"``), or at
    the prior. With eight chains or more, the first two are a mixture of three sources: half of the chains begin at the
    guide, a quarter at a normal with its standard deviations times 1 + 1/sqrt(d), because chains that begin too far
    inside have rare and large weights, and a quarter at the prior. A mode that the guide has missed is found by some
    of these, or by one, and shows in the standard error.

    Steps are measured in the source's standard deviations; their size is tuned for each datum, source and temperature
    in a preliminary run and then held, because a step size that depends on the chain's own past would bias the weights.
    ``x`` is (N, D); T and C are ``num_temperatures`` and ``num_chains``.

    Raises :class:`~probvae.errors.ArgumentError` for a count below one or another start.
    Source: Neal (2001), "Annealed importance sampling"; Wu et al. (2017), arXiv:1611.04273; Owen and Zhou (2000), "Safe
    and effective importance sampling", for mixtures with a share of the prior.

    >>> import probvae
    >>> result = annealed_log_evidence(probvae.VAE.example(), torch.zeros(5, 3), num_temperatures=5, num_chains=2)
    >>> result.log_weight.shape
    torch.Size([2, 5])
    """
    check_data(vae, x)
    options, dtype = _Options(num_temperatures, num_chains, num_leapfrog, start), x.dtype
    # Chains run in float64: the rounding of a product of another height may turn an acceptance, and the whole chain.
    vae, x = in_double(vae, x)
    with isolated_seed(seed, x.device), frozen(vae):
        results = [_forward(part, rows, options, seed) for part, rows in tiles_within_limit(vae, x, num_chains)]
    found = AnnealedResult(*(torch.cat(column, dim=-1).to(dtype) for column in zip(*results, strict=True)))
    check_finite_values(found.log_evidence, "log p(x)")
    return found


def bracket_log_evidence(
    vae: VAE,
    num_data: int,
    *,
    num_temperatures: int = 200,
    num_chains: int = 16,
    num_leapfrog: int = 4,
    start: str = "guide",
    seed: int = 0,
) -> Bracket:
    r"""Bracket log p(x) for data simulated from the model, by annealing forward and back.

    The z that made x is an exact draw from p(z|x). Chains that start there and run the temperatures backwards have
    E[1/w] = 1/p(x), so the mean of their log w lies above log p(x) in expectation, as that of the forward chains
    lies below. The width bounds how wrong both are.

    Raises what :func:`annealed_log_evidence` raises.
    Source: Grosse, Ghahramani and Adams (2015), arXiv:1511.02543, section 3.

    >>> import probvae
    >>> bracket_log_evidence(probvae.VAE.example(), 4, num_temperatures=5, num_chains=2).upper.shape
    torch.Size([4])
    """
    check_count(num_data, "num_data")
    check_count(num_chains, "num_chains", least=2)
    options = _Options(num_temperatures, num_chains, num_leapfrog, start)
    with isolated_seed(seed, next(vae.guide.parameters()).device), frozen(vae):
        with torch.no_grad():
            z = vae.model.prior().sample(torch.Size((num_data,)))
            x = vae.model.likelihood(vae.model.decode(z)).sample()
        path = _Path(vae, x, options, seed, _one_source(vae, x, options))
        steps = path.tune()
        lower, upper = path.forward(steps)[0], path.reverse(steps, z)
    lower_error, upper_error = lower.std(0) / math.sqrt(num_chains), upper.std(0) / math.sqrt(num_chains)
    return Bracket(lower.mean(0), upper.mean(0), lower_error, upper_error, x, z)


@dataclass(frozen=True)
class _Options:
    num_temperatures: int
    num_chains: int
    num_leapfrog: int
    start: str

    def __post_init__(self) -> None:
        for name in ("num_temperatures", "num_chains", "num_leapfrog"):
            check_count(getattr(self, name), name)
        if self.start not in STARTS:
            raise unknown_name("start", self.start, STARTS)


def _forward(vae: VAE, rows: Tensor, options: _Options, seed: int) -> tuple[Tensor, ...]:
    """The fields of an :class:`AnnealedResult` for a tile."""
    with torch.no_grad():
        sources = _sources(vae, rows, options)
    path = _Path(vae, rows, options, seed, sources)
    weights, acceptance = path.forward(path.tune())
    num_chains = options.num_chains
    # The guide's chains and the wider ones are one sample of their mixture.
    num_near = num_chains - sources[-1].num_chains if len(sources) > 1 else num_chains
    lower = weights[:num_near].mean(0) + math.log(num_near / num_chains)
    estimate = torch.logsumexp(weights, 0) - math.log(num_chains)
    return estimate, lower, _standard_error(weights, num_near), weights, acceptance


def _standard_error(log_weight: Tensor, num_near: int) -> Tensor:
    """The error (N,) of log mean w over the chains (C, N): the first ``num_near`` are one sample, the rest another."""
    near, far = log_weight[:num_near], log_weight[num_near:]
    error = log_mean_error(summed([near], num_near)).to(log_weight)
    if not len(far):
        return error
    log_sum = torch.logsumexp(log_weight, 0)
    share = (torch.logsumexp(far, 0) - log_sum).exp()
    # A log-normal says nothing of weights that differ by tens of nats; the delta method's error is at most the mean.
    spread = (far - log_sum).exp().std(0) * math.sqrt(len(far)) * two_sigma_factor(len(far) - 1)
    return ((error * (1 - share)).square() + spread.square()).sqrt()


class _Source(NamedTuple):
    """So many chains begin at ``start`` (batch_shape (N,)), which has the same share of f_0."""

    start: Distribution
    num_chains: int


class _Path:
    """The densities f_t between the start and p(x, z), and the chains along them."""

    def __init__(self, vae: VAE, x: Tensor, options: _Options, seed: int, sources: list[_Source]) -> None:
        self.vae, self.model, self.x, self.options, self.sources = vae, vae.model, x, options, sources
        self.noise = RowNoise(row_keys(x), seed)
        with torch.no_grad():
            log_scales = [_log_scale(source.start) for source in sources]
        # (C, N, d) at the beginning; at the end all chains are where the guide is
        counts = [source.num_chains for source in sources]
        self.first_scale = torch.cat([s.expand(n, *s.shape) for s, n in zip(log_scales, counts, strict=True)])
        self.last_scale = log_scales[0]
        self.counts = counts
        self.betas = _schedule(options, x)

    def tune(self) -> Tensor:
        """Step sizes (T, C, N), the same for all chains of a source, from a run whose weights are thrown away."""
        z, steps = self._draw(), []
        log_step = torch.full_like(z[..., 0], math.log(_FIRST_STEP))
        for beta in self.betas[1:]:
            steps.append(log_step.exp())
            z, acceptance = self._transition(z, beta, steps[-1])
            mean = torch.cat([part.mean(0).expand_as(part) for part in acceptance.split(self.counts)])
            log_step = log_step + _ADAPTATION_RATE * (mean - _TARGET_ACCEPTANCE)
        return torch.stack(steps)

    def forward(self, steps: Tensor) -> tuple[Tensor, Tensor]:
        """log w (C, N) and the mean acceptance (N,)."""
        z, accepted = self._draw(), torch.zeros_like(self.x[:, 0])
        log_weight = torch.zeros(z.shape[:2], dtype=self.x.dtype, device=self.x.device)
        for t in range(1, len(self.betas)):
            log_weight += self._increment(z, t)
            z, acceptance = self._transition(z, self.betas[t], steps[t - 1])
            accepted += acceptance.mean(0) / (len(self.betas) - 1)
        return log_weight, accepted

    def reverse(self, steps: Tensor, exact: Tensor) -> Tensor:
        """log w (C, N) of chains that begin at ``exact``, a draw from the posterior, and run backwards."""
        z = exact.expand(self.options.num_chains, *exact.shape)
        log_weight = torch.zeros(z.shape[:2], dtype=self.x.dtype, device=self.x.device)
        for t in range(len(self.betas) - 1, 0, -1):
            z, _ = self._transition(z, self.betas[t], steps[t - 1])
            log_weight += self._increment(z, t)
        return log_weight

    def _draw(self) -> Tensor:
        with torch.no_grad():
            parts = [draw_z(self.vae, self.x, part.start, part.num_chains, self.noise) for part in self.sources]
            return torch.cat(parts)

    @torch.no_grad()
    def _increment(self, z: Tensor, t: int) -> Tensor:
        at_joint, at_start = self._log_ends(z)
        return (self.betas[t] - self.betas[t - 1]) * (at_joint - at_start)

    def _log_ends(self, z: Tensor) -> tuple[Tensor, Tensor]:
        num_chains = self.options.num_chains
        parts = [part.start.log_prob(z) + math.log(part.num_chains / num_chains) for part in self.sources]
        return self.model.log_joint(self.x, z), parts[0] if len(parts) == 1 else torch.logsumexp(torch.stack(parts), 0)

    def _log_density(self, z: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """log f_beta (C, N) and its gradient in z."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            at_joint, at_start = self._log_ends(z)
            value = beta * at_joint + (1 - beta) * at_start
            (gradient,) = torch.autograd.grad(value.sum(), z)
        # a density may underflow; any bounded field leaves the leapfrog steps reversible, and the density refuses them
        limit = torch.finfo(z.dtype).max ** 0.5
        return value.detach(), gradient.nan_to_num(0.0).clamp(-limit, limit)

    def _transition(self, z: Tensor, beta: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """One HMC proposal with the mass 1 / scale^2, accepted or not; the acceptance probability (C, N)."""
        momentum = self.noise.normal(z)
        scale = torch.lerp(self.first_scale, self.last_scale.expand_as(self.first_scale), beta).exp()
        before, gradient = self._log_density(z, beta)
        proposal, velocity, after = z, momentum, before
        move = step.unsqueeze(-1)
        for _ in range(self.options.num_leapfrog):
            velocity = velocity + 0.5 * move * scale * gradient
            proposal = proposal + move * scale * velocity
            after, gradient = self._log_density(proposal, beta)
            velocity = velocity + 0.5 * move * scale * gradient
        change = after - before + 0.5 * (momentum.square() - velocity.square()).sum(-1)
        probability = change.clamp(max=0).exp().nan_to_num(0.0)  # a step into nowhere is refused
        accept = self.noise.uniform(probability) < probability
        return torch.where(accept.unsqueeze(-1), proposal, z), probability


def _one_source(vae: VAE, x: Tensor, options: _Options) -> list[_Source]:
    return [_Source(_start(vae, x, options.start), options.num_chains)]


def _sources(vae: VAE, x: Tensor, options: _Options) -> list[_Source]:
    """The sources of the chains: the start itself, a wider normal, and the prior; the start alone for few chains."""
    if options.num_chains < _LEAST_CHAINS or options.start == "prior":
        return _one_source(vae, x, options)
    start, quarter = _start(vae, x, options.start), options.num_chains // 4
    mean, scale = mean_and_variance(start)[0], _log_scale(start).exp()
    wide = Independent(Normal(mean, (1 + 1 / math.sqrt(mean.shape[-1])) * scale), 1)
    prior = _start(vae, x, "prior")
    return [_Source(start, options.num_chains - 2 * quarter), _Source(wide, quarter), _Source(prior, quarter)]


def _log_scale(start: Distribution) -> Tensor:
    """log sd (N, d); zero where heavy tails have no variance, so that steps are measured in units of z."""
    scale = mean_and_variance(start)[1].sqrt()
    return torch.where(scale.isfinite() & (scale > 0), scale, torch.ones_like(scale)).log()


def _start(vae: VAE, x: Tensor, start: str) -> Distribution:
    if start == "guide":
        return vae.guide.distribution(x)
    if start == "refined":
        return refine(vae, x).guide.distribution(x)
    return vae.model.prior().expand(x.shape[:1])


def _schedule(options: _Options, x: Tensor) -> Tensor:
    """0 = beta_0 < ... < beta_T = 1: even from the guide; slow at both ends, along a sigmoid, from the prior."""
    even = torch.linspace(0, 1, options.num_temperatures + 1, dtype=x.dtype, device=x.device)
    if options.start != "prior":
        return even
    bent = torch.sigmoid(8 * (even - 0.5))
    return (bent - bent[0]) / (bent[-1] - bent[0])
