"""Evaluation in tiles of rows and blocks of draws, so that memory does not grow with either."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from probvae.foundation.onednn import fast_products
from probvae.foundation.process import reuse_freed_memory
from probvae.foundation.row_noise import RowNoise, row_keys
from probvae.inference.densities.point_mass import check_has_density
from probvae.inference.densities.traces import LogWeights, weight_terms
from probvae.inference.evaluation import memory
from probvae.inference.evaluation.memory import bytes_of_a_draw, current_limit, draw_z, unvalidated, widest_layer
from probvae.inference.evaluation.threads import map_ordered
from probvae.inference.pair import VAE

# Tiles far below the memory limit are faster: their values stay in the processor's cache, and freed memory is used
# again without asking the system for more.
_FAST_BYTES_ESTIMATED = 32 * 2**20
_FAST_BYTES_COUNTED = 16 * 2**20
# Arrays that are alive at once for one draw of one datum, in multiples of the widest layer.
_LIVE_COPIES = 6
# Rows of a tile where each has many draws: enough for the encoder's matrix products.
_ROWS = 64
# With fewer draws a datum the encoder takes most of the time, and it runs before the blocks and not in their threads.
_LEAST_DRAWS = 10


@torch.no_grad()
def over_tiles(function: Callable[[VAE, Tensor], Tensor], vae: VAE, x: Tensor, num_samples: int = 1) -> Tensor:
    """``function`` of the VAE and ``x`` (N, ...), a tile of rows at a time, joined (N, ...); without gradients."""
    return torch.cat([function(*tile) for tile in tiles_within_limit(vae, x, num_samples)])


def tiles_within_limit(vae: VAE, x: Tensor, num_samples: int) -> Iterator[tuple[VAE, Tensor]]:
    """The VAE and tiles of ``x`` (N, ...), as many rows as the memory limit allows for ``num_samples`` draws each.

    The memory is estimated from the widest layer. A pair whose covariates belong to rows differs from tile to tile.
    """
    width = max(widest_layer(vae.model), widest_layer(vae.guide), x.shape[1])
    room = current_limit() if x.is_cuda else min(current_limit(), _FAST_BYTES_ESTIMATED)
    return _split_rows(vae, x, max(1, room // (_LIVE_COPIES * x.element_size() * width * num_samples)))


def tiles(vae: VAE, x: Tensor, num_samples: int) -> Iterator[tuple[VAE, Tensor]]:
    """The VAE and tiles of ``x`` (N, D) for :func:`draw_blocks`: rows that make good matrices, for any ``num_samples``.

    Their number depends on the model, the sizes and the device, not on the memory limit.
    """
    return _tiles(vae, x, num_samples, bytes_of_a_draw(vae, x))


def _tiles(vae: VAE, x: Tensor, num_samples: int, per_draw: int) -> Iterator[tuple[VAE, Tensor]]:
    room = max(1, _tile_bytes(x) // per_draw)
    return _split_rows(vae, x, max(room // num_samples, min(room, _ROWS)))


def draw_blocks(
    vae: VAE, x: Tensor, q: Distribution, num_samples: int, seed: int
) -> Iterator[tuple[Tensor, LogWeights]]:
    """Blocks of draws z ~ q (S, N, d) for a tile ``x`` (N, D), ``num_samples`` in all, with the terms of log w (S, N).

    A row's draws depend on its content and the ``seed``, not on other rows, the tile, or the block. Distributions that
    do not depend on z (q, the prior) are made once, and no Pyro handler runs. torch's validation runs only where NaN
    came out, to say where.
    """
    check_has_density(q)
    per_draw = bytes_of_a_draw(vae, x)
    blocks = _draw(_Tile(0, vae, x, q), num_samples, per_draw, seed)
    return ((block.z, terms) for block, terms in _evaluated(blocks, x, num_samples, per_draw))


def drawn_tiles(
    vae: VAE, x: Tensor, num_samples: int, seed: int
) -> Iterator[tuple[Tensor, Iterator[tuple[Tensor, LogWeights]]]]:
    """The rows (n, D) of each tile of ``x`` (N, D), with the :func:`draw_blocks` of the guide's q_x.

    The blocks of a tile are to be taken before the next tile. Several blocks, also of different tiles, are evaluated
    side by side.
    """
    per_draw = bytes_of_a_draw(vae, x)
    numbered = enumerate(_tiles(vae, x, num_samples, per_draw))
    made = (_Tile(number, part, rows, _encode(part, rows)) for number, (part, rows) in numbered)
    blocks = (block for tile in made for block in _draw(tile, num_samples, per_draw, seed))
    found = _evaluated(blocks, x, num_samples, per_draw)
    for _, group in groupby(found, lambda pair: pair[0].tile.number):
        first = next(group)
        yield first[0].tile.x, ((block.z, terms) for block, terms in chain([first], group))


class _Tile(NamedTuple):
    """Rows ``x`` (N, D) that are evaluated together, with their q_x."""

    number: int
    vae: VAE
    x: Tensor
    q: Distribution


class _Block(NamedTuple):
    """Draws ``z`` (S, N, d) of a tile."""

    tile: _Tile
    z: Tensor
    prior: Distribution

    def terms(self, z: Tensor) -> LogWeights:
        return weight_terms(self.tile.vae.model, self.tile.x, z, self.prior, self.tile.q)

    def explain(self) -> None:
        """Have torch's checks raise where a NaN came from."""
        self.tile.vae.guide.distribution(self.tile.x)
        self.terms(self.z)


# fast_products() is entered around each call that multiplies matrices, and not around a whole evaluation: inside of it
# every access to a tensor costs microseconds more.
def _encode(vae: VAE, x: Tensor) -> Distribution:
    with fast_products():
        q = vae.guide.distribution(x)
    check_has_density(q)
    return q


def _draw(tile: _Tile, num_samples: int, per_draw: int, seed: int) -> Iterator[_Block]:
    with fast_products():
        prior = tile.vae.model.prior()
    noise = RowNoise(row_keys(tile.x), seed)
    size = max(1, _tile_bytes(tile.x) // (per_draw * len(tile.x)))
    for start in range(0, num_samples, size):
        with fast_products():
            z = draw_z(tile.vae, tile.x, tile.q, min(size, num_samples - start), noise.starting_at(start))
        yield _Block(tile, z, prior)


def _evaluated(
    blocks: Iterator[_Block], x: Tensor, num_samples: int, per_draw: int
) -> Iterator[tuple[_Block, LogWeights]]:
    num_workers = _num_workers(x, per_draw * len(x) * num_samples) if num_samples >= _LEAST_DRAWS else 1
    room = current_limit() if num_workers == 1 else min(_tile_bytes(x), current_limit() // (2 * num_workers))
    found = map_ordered(((block, _split_block(block, room // per_draw)) for block in blocks), num_workers)
    while True:
        with unvalidated():
            block, results = next(found, (None, []))
        if block is None:
            return
        terms = results[0] if len(results) == 1 else LogWeights(*map(torch.cat, zip(*results, strict=True)))
        if terms.log_weight.isnan().any():
            block.explain()
        yield block, terms


def _num_workers(x: Tensor, num_bytes: int) -> int:
    """As many as torch has threads, if each has the work of a tile and the limit has room for all of them."""
    most = 1 if x.is_cuda else min(num_bytes, current_limit() // 2) // _FAST_BYTES_COUNTED
    return max(1, min(torch.get_num_threads(), most))


def _split_block(block: _Block, num_draws: int) -> list[Callable[[], LogWeights]]:
    """Evaluations of a block's draws that hold at most ``num_draws`` z at once; each may run in a thread."""
    size = max(1, num_draws // len(block.tile.x))
    return [partial(_evaluate, block, z) for z in block.z.split(size)]


def _evaluate(block: _Block, z: Tensor) -> LogWeights:
    with torch.no_grad(), fast_products():  # a new thread has none of the caller's settings
        return block.terms(z)


def _split_rows(vae: VAE, x: Tensor, size: int) -> Iterator[tuple[VAE, Tensor]]:
    reuse_freed_memory()
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        yield vae.at(rows), x[rows]


def _tile_bytes(x: Tensor) -> int:
    return memory.MEMORY_LIMIT if x.is_cuda else _FAST_BYTES_COUNTED
