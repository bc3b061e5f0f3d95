"""Random numbers that belong to a datum: the same ones whatever other rows, in whatever order, are in the call.

In: keys for rows (from their content), and a block inside which torch's random operators draw from the rows' own
streams. Out: which functions use them (``inference/evaluation``, ``inference/evidence``, the diagnostics). The door is
:class:`RowNoise`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import Distribution

from probvae.foundation.torch_internals import DispatchMode, is_mutable, von_mises_sampler

# The multipliers and the increment of SplitMix64, as signed numbers. Source: Steele, Lea and Flood (2014), "Fast
# splittable pseudorandom number generators", figure 14.
_FIRST, _SECOND, _WEYL = -4658895280553007687, -7723592293110685705, -7046029254386353131
_aten = torch.ops.aten


def row_keys(x: Tensor) -> Tensor:
    """A key (N,) in int64 for each row of ``x`` (N, ...), from its content alone.

    Equal numbers have equal keys in float32 and float64; missing entries (NaN) are equal to each other.

    >>> keys = row_keys(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    >>> torch.equal(row_keys(torch.tensor([[3.0, 4.0]])), keys[1:])
    True
    """
    values = torch.where(x.isnan(), math.nan, x.double() + 0.0)  # minus zero is zero
    bits = values.reshape(len(x), -1).contiguous().view(torch.int64)
    columns = torch.arange(1, bits.shape[1] + 1, device=x.device) * _WEYL
    return _mixed(_mixed(bits + columns).sum(1))


class NoRowsError(RuntimeError):
    """A random operator drew numbers that belong to no row."""


def sample_rows(q: Distribution, num_samples: int, noise: "RowNoise") -> Tensor:
    """Draws (S, N, d) of ``q`` (batch_shape (N,)), those of row n from its own stream of ``noise``.

    A distribution that runs a program for all draws of all rows at once says so by ``joins_rows``, the number of them
    that one run takes.
    """
    most = getattr(q, "joins_rows", None)
    if most is None:
        with noise:
            return q.sample(torch.Size((num_samples,)))
    size, parts = max(1, most // max(1, len(noise.keys))), []
    for start in range(0, num_samples, size):
        with noise.starting_at(noise.first_draw + start, joined=True):
            parts.append(q.sample(torch.Size((min(size, num_samples - start),))))
    return torch.cat(parts)


class RowNoise(DispatchMode):
    r"""Inside the block, row n of a random operator's result is drawn from the stream of ``keys[n]``.

    .. math:: u_{s,n,e} = h\big( k_n, \text{seed}, \text{operator}, (s_0 + s) E + e \big)

    with a hash h (SplitMix64), for results of shape (S..., N, E...) whose dimension ``row_dim`` has the rows. A value
    depends on its row's key, the seed, how many random operators ran before it in the block, and its own place among
    draws and elements; ``first_draw`` is the s_0 of a block of draws. Global generators are left as they are.

    Uniform, normal, exponential, Bernoulli, Cauchy, categorical and integer draws come from the hash itself. Gamma,
    Poisson, binomial and other draws are made row by row by torch, with a generator that is seeded by the row's stream;
    of them ``first_draw`` makes other numbers, not the later ones of the same stream.
    Categories are drawn for weights whose first dimension joins ``outer`` (the batch in front of the rows), the rows,
    and the elements of a row. With ``joined`` the draws and the rows of a result are one dimension, its first.
    Raises :class:`NoRowsError` for a random operator whose result has no such dimension: its numbers would be no row's.

    >>> keys = row_keys(torch.tensor([[1.0], [2.0], [3.0]]))
    >>> with RowNoise(keys, seed=0):
    ...     all_rows = torch.randn(4, 3, 2)
    >>> with RowNoise(keys[2:], seed=0):
    ...     last = torch.randn(4, 1, 2)
    >>> torch.equal(all_rows[:, 2:], last)
    True
    """

    def __init__(
        self,
        keys: Tensor,
        seed: int | tuple[int, ...],
        row_dim: int = 1,
        first_draw: int = 0,
        outer: int = 1,
        joined: bool = False,
    ) -> None:
        super().__init__()
        self.keys, self.seed, self.row_dim, self.first_draw, self.outer = keys, seed, row_dim, first_draw, outer
        self.joined = joined
        self._num_operators = 0

    def __enter__(self) -> Self:
        self._angles = von_mises_sampler(_angles)
        self._angles.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._angles.__exit__(*error)

    def starting_at(self, first_draw: int, outer: int | None = None, joined: bool = False) -> "RowNoise":
        """The same streams from another draw on."""
        outer = self.outer if outer is None else outer
        return RowNoise(self.keys, self.seed, self.row_dim, first_draw, outer, joined)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape and dtype of ``like`` (S..., N, E...), without entering the block."""
        return _normal(self._uniform(like.shape)).to(like.dtype)

    def uniform(self, like: Tensor) -> Tensor:
        """Numbers in (0, 1) of the shape of ``like`` (S..., N, E...), in float64, without entering the block."""
        return self._uniform(like.shape)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func.overloadpacket
        if name is _aten.multinomial:
            return self._multinomial(*args, **kwargs)
        if name in (_aten.randint, _aten.randint_like):
            return self._integers(args, kwargs)
        transform = _TRANSFORMS.get(name)
        if transform is not None:
            target = args[0] if is_mutable(func) else _empty(name, args, kwargs)
            return target.copy_(transform(self._uniform(target.shape), args))
        return self._row_by_row(func, args, kwargs)

    def _stream(self) -> Tensor:
        """A start (N,) in each row's stream for the next random operator."""
        self._num_operators += 1
        numbers = self.seed if isinstance(self.seed, tuple) else (self.seed,)
        state = torch.zeros((), dtype=torch.int64)
        for number in (*numbers, self._num_operators):
            state = _mixed(state + torch.tensor(_signed(number * _WEYL)))
        return _mixed(self.keys + state.to(self.keys.device))

    def _uniform(self, shape: torch.Size) -> Tensor:
        """Numbers in (0, 1), in float64."""
        if self.joined:
            return self._uniform_of(self._apart(shape)).reshape(shape)
        return self._uniform_of(shape)

    def _apart(self, shape: torch.Size) -> torch.Size:
        """The shape (S, N, E...) of a result (S N, E...), in which draws and rows are one dimension."""
        if not shape or shape[0] % len(self.keys):
            raise NoRowsError(f"draws of {len(self.keys)} rows, got the shape {tuple(shape)}")
        return torch.Size((shape[0] // len(self.keys), len(self.keys), *shape[1:]))

    def _uniform_of(self, shape: torch.Size) -> Tensor:
        self._check(shape)
        outer, inner = math.prod(shape[: self.row_dim]), math.prod(shape[self.row_dim + 1 :])
        first = self.first_draw * math.prod(shape[1 : self.row_dim]) if self.row_dim else 0
        uniform = self._numbers(first * inner, (first + outer) * inner)
        return uniform.view(len(self.keys), outer, inner).transpose(0, 1).reshape(shape)

    def _numbers(self, start: int, stop: int) -> Tensor:
        """The numbers ``start`` to ``stop`` of each row's next stream, (N, stop - start), in (0, 1)."""
        places = torch.arange(start, stop, device=self.keys.device) * _WEYL
        bits = _mixed(self._stream()[:, None] + places)
        return _fraction(bits)

    def _check(self, shape: torch.Size) -> None:
        if len(shape) <= self.row_dim or shape[self.row_dim] != len(self.keys):
            raise NoRowsError(f"{len(self.keys)} rows in dimension {self.row_dim}, got the shape {tuple(shape)}")

    def _multinomial(self, weights: Tensor, num_samples: int, replacement: bool = False, **_: Any) -> Tensor:
        """Codes (R, S) for ``weights`` (R, C), where R are ``outer`` times the rows, times the elements of a row."""
        outer = len(weights) // len(self.keys) if self.joined else self.outer
        inner = len(weights) // max(1, outer * len(self.keys))
        if inner * outer * len(self.keys) != len(weights) or (num_samples > 1 and not replacement):
            raise NoRowsError(f"weights for {len(self.keys)} rows, got {len(weights)}")
        start = self.first_draw * (1 if self.joined else outer * inner)
        uniform = self._numbers(start, start + num_samples * outer * inner)
        uniform = uniform.view(len(self.keys), num_samples, outer, inner).permute(2, 0, 3, 1)
        uniform = uniform.reshape(len(weights), num_samples)
        cumulative = weights.double().cumsum(-1)
        codes = torch.searchsorted(cumulative.contiguous(), (uniform * cumulative[:, -1:]).contiguous(), right=True)
        return codes.clamp(max=weights.shape[1] - 1)

    def _integers(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
        """Integers from ``low`` to below ``high``, for ``randint([low], high, size)`` or ``randint_like``."""
        ends = [argument for argument in args if isinstance(argument, int)]
        like = next((argument for argument in args if isinstance(argument, Tensor)), None)
        shape = torch.Size(next(a for a in args if not isinstance(a, int | Tensor))) if like is None else like.shape
        low, high = ends if len(ends) > 1 else (0, ends[0])
        dtype = kwargs.get("dtype") or (torch.int64 if like is None else like.dtype)
        return (low + (self._uniform(shape) * (high - low)).floor().clamp(max=high - low - 1)).to(dtype)

    def _row_by_row(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """By torch's own sampler, a row at a time, each with a generator of its own."""
        shape = next(argument.shape for argument in args if isinstance(argument, Tensor))
        wide = self._apart(shape) if self.joined else shape
        self._check(wide)
        apart = [a.reshape(wide) if isinstance(a, Tensor) and a.shape == shape else a for a in args]
        seeds = self._stream().add(_mixed(torch.tensor(self.first_draw))).tolist()
        generator = torch.Generator(device=self.keys.device)
        rows = []
        for row, seed in enumerate(seeds):
            own = [self._of_row(argument, row, wide) for argument in apart]
            rows.append(func(*own, **{**kwargs, "generator": generator.manual_seed(seed)}))
        drawn = torch.stack(rows, dim=self.row_dim).reshape(shape)
        return args[0].copy_(drawn) if is_mutable(func) else drawn

    def _of_row(self, argument: Any, row: int, shape: torch.Size) -> Any:
        matches = isinstance(argument, Tensor) and argument.shape == shape
        return argument.select(self.row_dim, row).contiguous() if matches else argument


def _angles(loc: Tensor, concentration: Tensor, proposal_r: Tensor, x: Tensor) -> Tensor:
    """Draws of the von Mises distribution, of the shape of ``x``, each by rejection from a stream of its own.

    Source: Best and Fisher (1979), "Efficient simulation of the von Mises distribution".
    """
    stream = (torch.rand(x.shape, dtype=torch.float64, device=x.device) * 2.0**53).to(torch.int64)
    done, angle, number = torch.zeros(x.shape, dtype=torch.bool, device=x.device), torch.zeros_like(x), 0
    while not done.all():
        first, second, third = (_fraction(_mixed(stream + _signed((number + k) * _WEYL))).to(x) for k in (1, 2, 3))
        number += 3
        z = torch.cos(math.pi * first)
        f = (1 + proposal_r * z) / (proposal_r + z)
        c = concentration * (proposal_r - f)
        accept = ((c * (2 - c) - second) > 0) | ((c / second).log() + 1 - c >= 0)
        angle = torch.where(accept & ~done, (third - 0.5).sign() * f.clamp(-1, 1).acos(), angle)
        done = done | accept
    return (angle + math.pi + loc) % (2 * math.pi) - math.pi


def _fraction(bits: Tensor) -> Tensor:
    """Numbers in (0, 1) of the shape of ``bits``, in float64."""
    return (bits >> 11).bitwise_and_(2**53 - 1).double().mul_(2.0**-53).add_(2.0**-54)


def _mixed(numbers: Tensor) -> Tensor:
    """SplitMix64's finalizer: every bit of the result depends on every bit of ``numbers`` (any shape, int64)."""
    x = numbers ^ ((numbers >> 30) & (2**34 - 1))
    x = x.mul_(_FIRST)
    x ^= (x >> 27).bitwise_and_(2**37 - 1)
    x = x.mul_(_SECOND)
    return x.bitwise_xor_((x >> 31).bitwise_and_(2**33 - 1))


def _signed(number: int) -> int:
    """An integer modulo 2^64, as int64 has it."""
    return (number + 2**63) % 2**64 - 2**63


def _empty(name: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
    """The tensor that a random operator would make, not yet filled."""
    options = {key: kwargs[key] for key in ("dtype", "device") if kwargs.get(key) is not None}
    like = next((argument for argument in args if isinstance(argument, Tensor)), None)
    if name in (_aten.rand, _aten.randn):
        return torch.empty(args[0], **options)
    assert like is not None
    tensors = [argument for argument in args if isinstance(argument, Tensor)]
    return torch.empty_like(like.expand(torch.broadcast_shapes(*(t.shape for t in tensors))).contiguous(), **options)


def _normal(uniform: Tensor) -> Tensor:
    return torch.erfinv(uniform.mul_(2).sub_(1)).mul_(math.sqrt(2))


def _scaled_normal(uniform: Tensor, args: Sequence[Any]) -> Tensor:
    """``normal(mean, std)`` of tensors or numbers."""
    return args[0] + args[1] * _normal(uniform)


def _filled_normal(uniform: Tensor, args: Sequence[Any]) -> Tensor:
    """``tensor.normal_(mean, std)``."""
    return _normal(uniform).mul_(args[2] if len(args) > 2 else 1.0).add_(args[1] if len(args) > 1 else 0.0)


def _filled_uniform(uniform: Tensor, args: Sequence[Any]) -> Tensor:
    """``tensor.uniform_(low, high)``, below ``high`` also after rounding to the tensor's dtype."""
    low, high = (args[1] if len(args) > 1 else 0.0), (args[2] if len(args) > 2 else 1.0)
    return _below(low + (high - low) * uniform, high, args[0].dtype)


def _below(values: Tensor, high: float, dtype: torch.dtype) -> Tensor:
    limit = torch.nextafter(torch.tensor(high, dtype=dtype), torch.tensor(-math.inf, dtype=dtype))
    return values.clamp_(max=limit.item())


_TRANSFORMS: dict[Any, Callable[[Tensor, Sequence[Any]], Tensor]] = {
    _aten.rand: lambda uniform, args: _below(uniform, 1.0, torch.get_default_dtype()),
    _aten.rand_like: lambda uniform, args: _below(uniform, 1.0, args[0].dtype),
    _aten.randn: lambda uniform, args: _normal(uniform),
    _aten.randn_like: lambda uniform, args: _normal(uniform),
    _aten.normal: _scaled_normal,
    _aten.normal_: _filled_normal,
    _aten.uniform_: _filled_uniform,
    _aten.bernoulli: lambda uniform, args: (uniform < args[0]).to(args[0].dtype),
    _aten.exponential_: lambda uniform, args: -uniform.log() / (args[1] if len(args) > 1 else 1.0),
    _aten.cauchy_: lambda uniform, args: (
        (args[1] if len(args) > 1 else 0.0) + (args[2] if len(args) > 2 else 1.0) * torch.tan(math.pi * (uniform - 0.5))
    ),
}
