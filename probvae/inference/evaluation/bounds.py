"""The bound and its parts on given data, in chunks that bound the memory."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from itertools import chain, groupby
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from pyro.distributions import validation_enabled
from torch import Tensor, nn
from torch.distributions import Distribution

from probvae.foundation.checks import check_count, check_finite, check_matrix
from probvae.foundation.onednn import fast_products
from probvae.foundation.operators import peak_bytes
from probvae.foundation.process import reuse_freed_memory
from probvae.foundation.seed import isolated_seed
from probvae.inference.densities.kl import analytic_kl
from probvae.inference.densities.moments import mean_and_variance
from probvae.inference.densities.non_finite import overflow_named
from probvae.inference.densities.traces import LogWeights
from probvae.inference.evaluation.threads import in_order
from probvae.inference.pair import VAE, check_data, check_num_rows
from probvae.models import LatentModel

MEMORY_LIMIT = 512 * 2**20  # bytes
_given_limit: ContextVar[int | None] = ContextVar("memory limit", default=None)
# What is faster than as much as the memory holds: values that stay in the processor's cache, and memory that is used
# again and not asked for anew.
_FAST_CHUNK = 32 * 2**20
_FAST_TILE = 16 * 2**20  # of what is counted, not estimated
# Values kept at once for one draw of one datum, in multiples of the widest layer: forward pass, log densities.
_LIVE_COPIES = 6
# Data evaluated together where each has many draws: enough for the encoder's matrix products
_ROWS = 64
# With fewer draws of each datum the encoder counts, which is run before them and not beside them
_LEAST_DRAWS = 10
_counted: WeakKeyDictionary[LatentModel, dict[tuple[int, torch.dtype], int]] = WeakKeyDictionary()


class Bound(NamedTuple):
    """The ELBO and its two parts, each (N,), in nats per datum: elbo = log_likelihood - kl."""

    elbo: Tensor
    log_likelihood: Tensor
    kl: Tensor


@contextmanager
def limited_memory(num_bytes: int | None) -> Iterator[None]:
    """What is evaluated inside the block keeps to ``num_bytes`` beside its data and its result; None: as before.

    The default is 512 MB. On a CPU the parts that are fast (they stay in its cache) are far smaller, so that a limit
    costs no time; on a GPU it does. Down to 64 MB it changes no random number, hence nothing beyond rounding.
    Raises :class:`~probvae.errors.ArgumentError` unless it is a positive integer.

    >>> import probvae
    >>> with limited_memory(64 * 2**20):
    ...     values = elbo(probvae.VAE.example(), torch.zeros(5, 3))
    """
    if num_bytes is not None:
        check_count(num_bytes, "memory_limit")
    token = _given_limit.set(_given_limit.get() if num_bytes is None else num_bytes)
    try:
        yield
    finally:
        _given_limit.reset(token)


def current_limit() -> int:
    """How many bytes may be taken, by the innermost :func:`limited_memory` or by default."""
    return _given_limit.get() or MEMORY_LIMIT


def elbo(vae: VAE, x: Tensor, num_samples: int = 1, *, memory_limit: int | None = None) -> Tensor:
    r"""The evidence lower bound of each datum, by Monte Carlo.

    .. math:: \widehat{\mathrm{ELBO}}(x_n) = \frac1S \sum_s \log p(x_n|z_s) + \log p(z_s) - \log q_{x_n}(z_s)

    ``x`` is (N, D); the result is (N,), in nats per datum, unbiased for the bound; no gradient is kept.
    ``memory_limit`` is in bytes, see :func:`limited_memory`; memory does not grow with N or S beyond it.
    Raises :class:`~probvae.errors.ShapeError` or :class:`~probvae.errors.DataError` for data that do not fit, and
    :class:`~probvae.errors.NonFiniteError` where they overflow in the networks.
    Source: Kingma and Welling (2014), arXiv:1312.6114, equation 7.

    >>> import torch, probvae
    >>> elbo(probvae.VAE.example(), torch.zeros(5, 3)).shape
    torch.Size([5])
    """
    return bound(vae, x, num_samples, memory_limit=memory_limit).elbo


@overflow_named()
def bound(vae: VAE, x: Tensor, num_samples: int = 1, *, memory_limit: int | None = None) -> Bound:
    """:func:`elbo` together with its parts E log p(x|z) and KL(q_x || p), the latter by the same draws."""
    check_count(num_samples, "num_samples")
    check_data(vae, x)
    with limited_memory(memory_limit), torch.no_grad(), fast_products():
        parts = [_mean_terms(rows, blocks, num_samples) for rows, blocks in drawn_tiles(vae, x, num_samples)]
    log_likelihood, kl = torch.cat(parts, dim=1).to(x.dtype)
    return Bound(log_likelihood - kl, log_likelihood, kl)


def _mean_terms(rows: Tensor, blocks: Iterator[tuple[Tensor, LogWeights]], num_samples: int) -> Tensor:
    """E log p(x|z) and E log q(z) - log p(z) of each row, (2, N), in float64."""
    total = rows.new_zeros(2, len(rows), dtype=torch.float64)
    for _, terms in blocks:
        total[0] += terms.log_likelihood.sum(0)
        total[1] += (terms.log_guide - terms.log_prior).sum(0)
    return total / num_samples


def reconstruction_error(vae: VAE, x: Tensor) -> Tensor:
    """||x - E[x|z = E_q z]||^2 / D for each datum (N,), in squared units of x: the mean squared error.

    Where entries are missing it is the mean over those that were observed.
    """
    check_data(vae, x)
    return (x - reconstruct(vae, x)).square().nanmean(1)


@overflow_named()
def reconstruct(vae: VAE, x: Tensor) -> Tensor:
    """E[x | z] (N, D) at the guide's mean z = E_q[z], in the units of x (or the likelihood's other ``point``)."""
    z = posterior_mean(vae, x)
    return over_chunks(lambda vae, rows: vae.model.likelihood.point(vae.model.decoder(rows)), vae, z)


@overflow_named()
def posterior_mean(vae: VAE, x: Tensor) -> Tensor:
    """E_q[z] (N, d), in prior standard deviations."""
    _check_input(vae, x)
    return over_chunks(lambda vae, rows: mean_and_variance(vae.guide.distribution(rows))[0], vae, x)


@overflow_named()
def posterior_scale(vae: VAE, x: Tensor) -> Tensor:
    """The standard deviation of each z_j under q_x, (N, d)."""
    _check_input(vae, x)
    return over_chunks(lambda vae, rows: mean_and_variance(vae.guide.distribution(rows))[1].sqrt(), vae, x)


@overflow_named()
def plug_in_loss(vae: VAE, x: Tensor) -> Tensor:
    r"""-log p(x | z = E_q z) + KL(q_x || p), (N,), in nats per datum: **not a bound** of -log p(x).

    It is printed as "test loss" by many notebooks. With the exact posterior of a linear model it lies below
    -log p(x) by tr(I - S)/2 nats, S the posterior covariance, so it is optimistic by up to d/2 nats.
    """
    check_data(vae, x)

    def loss(vae: VAE, rows: Tensor) -> Tensor:
        q = vae.guide.distribution(rows)
        log_likelihood = vae.model.likelihood(vae.model.decoder(mean_and_variance(q)[0])).log_prob(rows)
        return analytic_kl(q, vae.model.prior().expand(q.batch_shape)) - log_likelihood

    return over_chunks(loss, vae, x)


def _check_input(vae: VAE, x: Tensor) -> None:
    """What the guide can read: grey values have a q_x, also where the likelihood wants binary ones."""
    check_matrix(x, vae.model.data_dim)
    check_num_rows(vae, len(x))
    check_finite(x.nan_to_num(nan=0.0) if vae.model.missing == "mask" else x)


@torch.no_grad()
def over_chunks(function: Callable[[VAE, Tensor], Tensor], vae: VAE, x: Tensor, num_samples: int = 1) -> Tensor:
    """``function`` of the VAE and ``x`` (N, ...), a chunk of rows at a time, joined along them; without gradients."""
    return torch.cat([function(*chunk) for chunk in chunks(vae, x, num_samples)])


def chunks(vae: VAE, x: Tensor, num_samples: int) -> Iterator[tuple[VAE, Tensor]]:
    """The VAE and rows of ``x``, as many at a time as the memory limit allows for ``num_samples`` draws each.

    A VAE with given covariates is another one for every chunk.
    """
    width = max(widest_layer(vae.model), widest_layer(vae.guide), x.shape[1])
    room = current_limit() if x.is_cuda else min(current_limit(), _FAST_CHUNK)
    return _parts(vae, x, max(1, room // (_LIVE_COPIES * x.element_size() * width * num_samples)))


def tiles(vae: VAE, x: Tensor, num_samples: int) -> Iterator[tuple[VAE, Tensor]]:
    """The VAE and rows of ``x``, for :func:`draws` of each: as many as make good matrices, whatever ``num_samples``.

    How many depends on the model, the sizes and the device, not on the memory limit: nor do the random numbers.
    """
    room = max(1, _tile_bytes(x) // _bytes_of_a_draw(vae, x))
    return _parts(vae, x, max(room // num_samples, min(room, _ROWS)))


def draws(vae: VAE, x: Tensor, q: Distribution, num_samples: int) -> Iterator[tuple[Tensor, LogWeights]]:
    """z ~ q (S, N, d) for a tile ``x``, block by block of ``num_samples`` in all, with the terms of its log w (S, N).

    What depends on the data or on nothing (q, the prior) is made once, and no Pyro handler is run. The limit cuts a
    block's evaluation into pieces, and not its random numbers. torch validates what came out as NaN, to say where.
    """
    per_draw = _bytes_of_a_draw(vae, x)
    blocks = _blocks(_Tile(0, vae, x, q), num_samples, per_draw)
    return ((block.z, terms) for block, terms in _evaluated(blocks, x, num_samples, per_draw))


def drawn_tiles(vae: VAE, x: Tensor, num_samples: int) -> Iterator[tuple[Tensor, Iterator[tuple[Tensor, LogWeights]]]]:
    """The rows of each tile of ``x``, with their :func:`draws` of the guide's q_x, which are to be taken at once.

    Several blocks are evaluated side by side, also of different tiles; the random numbers are drawn in their order.
    """
    parts, per_draw = enumerate(tiles(vae, x, num_samples)), _bytes_of_a_draw(vae, x)
    each = (_Tile(number, part, rows, part.guide.distribution(rows)) for number, (part, rows) in parts)
    blocks = (block for tile in each for block in _blocks(tile, num_samples, per_draw))
    found = _evaluated(blocks, x, num_samples, per_draw)
    for _, group in groupby(found, lambda pair: pair[0].tile.number):
        first = next(group)
        yield first[0].tile.x, ((block.z, terms) for block, terms in chain([first], group))


class _Tile(NamedTuple):
    """Data that are evaluated together."""

    number: int
    vae: VAE
    x: Tensor
    q: Distribution


class _Block(NamedTuple):
    """Draws of a tile."""

    tile: _Tile
    z: Tensor
    prior: Distribution

    def terms(self, z: Tensor) -> LogWeights:
        return _terms(self.tile.vae, self.tile.x, z, self.prior, self.tile.q)

    def explain(self) -> None:
        """Where a NaN came from, by torch's checks."""
        self.tile.vae.guide.distribution(self.tile.x)
        self.terms(self.z)


def _blocks(tile: _Tile, num_samples: int, per_draw: int) -> Iterator[_Block]:
    prior = tile.vae.model.prior()
    size = max(1, _tile_bytes(tile.x) // (per_draw * len(tile.x)))
    for start in range(0, num_samples, size):
        yield _Block(tile, _drawn(tile, min(size, num_samples - start)), prior)


def _drawn(tile: _Tile, num_samples: int) -> Tensor:
    try:
        return tile.q.sample(torch.Size((num_samples,)))
    except RuntimeError:  # of torch's generators, which do not say that it was a NaN: its checks do
        with validation_enabled():
            tile.vae.guide.distribution(tile.x)
        raise


def _evaluated(
    blocks: Iterator[_Block], x: Tensor, num_samples: int, per_draw: int
) -> Iterator[tuple[_Block, LogWeights]]:
    num_workers = _num_workers(x, per_draw * len(x) * num_samples) if num_samples >= _LEAST_DRAWS else 1
    room = current_limit() if num_workers == 1 else min(_tile_bytes(x), current_limit() // (2 * num_workers))
    found = in_order(((block, _pieces(block, room // per_draw)) for block in blocks), num_workers)
    while True:
        with _unvalidated():
            block, parts = next(found, (None, []))
        if block is None:
            return
        terms = parts[0] if len(parts) == 1 else LogWeights(*map(torch.cat, zip(*parts, strict=True)))
        if terms.log_weight.isnan().any():
            block.explain()
        yield block, terms


def _num_workers(x: Tensor, num_bytes: int) -> int:
    """As many as torch has threads, where each has a tile's worth to do and all of them have the room."""
    most = 1 if x.is_cuda else min(num_bytes, current_limit() // 2) // _FAST_TILE
    return max(1, min(torch.get_num_threads(), most))


def _pieces(block: _Block, num_draws: int) -> list[Callable[[], LogWeights]]:
    size = max(1, num_draws // len(block.tile.x))
    return [partial(_alone, block, z) for z in block.z.split(size)]


def _alone(block: _Block, z: Tensor) -> LogWeights:
    """In a thread that knows of none of the caller's settings."""
    with torch.no_grad(), fast_products():
        return block.terms(z)


def _bytes_of_a_draw(vae: VAE, x: Tensor) -> int:
    """What one z for one datum holds at the peak of its evaluation: counted once for a model and a guide."""
    known = _counted.setdefault(vae.model, {})
    key = (id(vae.guide), x.dtype)
    if key not in known:
        known[key] = max(1, _count_bytes(vae, x[:2]))
    return known[key]


def _count_bytes(vae: VAE, x: Tensor) -> int:
    part = vae.at(slice(0, len(x)))
    with isolated_seed(0, x.device), torch.no_grad():
        prior, q = part.model.prior(), part.guide.distribution(x)
        few, many = (q.sample(torch.Size((number,))) for number in (1, 3))
        peaks = [peak_bytes(partial(_terms, part, x, z, prior, q)) for z in (few, many)]
    return (peaks[1] - peaks[0]) // (2 * len(x))


@contextmanager
def _unvalidated() -> Iterator[None]:
    """Without torch's checks of every parameter: a tenth of the time of large blocks."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def _terms(vae: VAE, x: Tensor, z: Tensor, prior: Distribution, q: Distribution) -> LogWeights:
    log_likelihood = vae.model.likelihood(vae.model.decoder(z)).log_prob(x)
    return LogWeights(log_likelihood, prior.log_prob(z), q.log_prob(z))


def _parts(vae: VAE, x: Tensor, size: int) -> Iterator[tuple[VAE, Tensor]]:
    reuse_freed_memory()
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        yield vae.at(rows), x[rows]


def _tile_bytes(x: Tensor) -> int:
    return MEMORY_LIMIT if x.is_cuda else _FAST_TILE


def widest_layer(module: nn.Module) -> int:
    """The largest dimension of any parameter."""
    return max((max(parameter.shape, default=1) for parameter in module.parameters()), default=1)


@contextmanager
def frozen(vae: VAE) -> Iterator[None]:
    """No gradient for parameters inside the block: what moves there is z only."""
    parameters = [p for part in (vae.model, vae.guide) for p in part.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
