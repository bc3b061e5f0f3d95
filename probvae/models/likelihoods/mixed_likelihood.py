"""A table whose columns have different types."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, cast

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Independent, constraints

from probvae.errors import ArgumentError, ConfigError, SupportError, unknown_name
from probvae.foundation.registry import option_names
from probvae.foundation.torch_internals import instance_for_expand, with_own_modules
from probvae.models.likelihoods.base import Likelihood

# guess() takes whole numbers with at most so many values for categories
_MAX_CATEGORIES = 10


class MixedLikelihood(Likelihood, name="mixed"):
    r"""A likelihood for each column: numbers, binary answers, categories and counts in one table.

    .. math:: \log p(x|z) = \sum_i \log p_i(x_i|z)

    Parameters: ``columns``, one entry a column: the name of a likelihood, a table with its name and options,
    ``{"name": "categorical", "num_categories": 3}``, or a likelihood with ``data_dim=1``. Columns with the same entry
    are evaluated together, and share a learned variance, as they would in a table of their own; with
    ``"variance": "per-dimension"`` each column has its own. ``initial_variance`` goes to the likelihoods that take it.
    The decoder gives the outputs for one kind of column after the other, in the order in which the kinds appear.

    Raises :class:`~probvae.errors.ConfigError` for a name or an option that there is not, and
    :class:`~probvae.errors.SupportError`, which names the column, for data outside a column's support.
    Source: Nazabal, Olmos, Ghahramani and Valera (2020), arXiv:1807.03653, section 2.2.

    >>> table = ["gaussian", "bernoulli", {"name": "categorical", "num_categories": 3}, "gaussian"]
    >>> MixedLikelihood(columns=table).num_outputs
    6
    """

    point_name = "mean or mode of p(x|z)"

    def __init__(self, columns: Sequence[str | Mapping[str, Any] | Likelihood], initial_variance: float = 1.0) -> None:
        if isinstance(columns, str) or not isinstance(columns, Sequence) or not columns:
            raise ConfigError(
                f'columns: expected a list like ["gaussian", "poisson"], got {columns!r}. Name one for each column.'
            )
        super().__init__(len(columns))
        self.kinds = _kinds(columns)
        parts = [kind.own or _build(kind.table, len(kind.columns), initial_variance) for kind in self.kinds]
        self.parts = nn.ModuleList(parts)
        self.takes_exposure = any(part.takes_exposure for part in parts)
        self.measure = self._joint_measure()

    @property
    def num_outputs(self) -> int:
        return sum(part.num_outputs for part in self._parts())

    def distribution(self, parameters: Tensor) -> TorchDistribution:
        return MixedColumns(self._apart(parameters, "distribution"), self._columns()).to_event(1)

    def point(self, parameters: Tensor) -> Tensor:
        return _in_order(self._apart(parameters, "point"), self._columns())

    def given_exposure(self, exposure: Tensor) -> Self:
        mixed = super().given_exposure(exposure)
        parts = [part.given_exposure(exposure) if part.takes_exposure else part for part in self._parts()]
        with_own_modules(mixed).parts = nn.ModuleList(parts)
        return mixed

    def own_parameters(self) -> dict[str, Tensor]:
        named = zip(self.kinds, self._parts(), strict=True)
        return {
            f"{kind.table['name']} {n}": value for kind, part in named for n, value in part.own_parameters().items()
        }

    def floor_warning(self, parameters: Tensor) -> str | None:
        named = zip(self.kinds, self._apart(parameters, "floor_warning"), strict=True)
        return " ".join(f"{kind.table['name']} {warning}" for kind, warning in named if warning) or None

    def check_support(self, x: Tensor) -> None:
        for kind, part in zip(self.kinds, self._parts(), strict=True):
            for column in kind.columns:
                _check_column(x[:, column : column + 1], column, part)

    def parts_by_column(self) -> list[tuple[int, Likelihood]]:
        """Each column's number with its likelihood, kind after kind."""
        named = zip(self.kinds, self._parts(), strict=True)
        return [(column, part) for kind, part in named for column in kind.columns]

    def _joint_measure(self) -> str:
        """The measure of all columns together; a mixture names the columns that have a probability, not a density."""
        pairs = list(zip(self.kinds, self._parts(), strict=True))
        counted = sorted(column for kind, part in pairs if part.measure == "probability" for column in kind.columns)
        if any(part.measure == "none" for _, part in pairs):
            return "none"
        if not counted:
            return "density"
        return "probability" if len(counted) == self.data_dim else f"probability of the columns {counted}"

    def _apart(self, parameters: Tensor, method: str) -> list[Any]:
        sizes = [part.num_outputs for part in self._parts()]
        pieces = zip(self._parts(), parameters.split(sizes, dim=-1), strict=True)
        return [getattr(part, method)(piece) for part, piece in pieces]

    def _parts(self) -> list[Likelihood]:
        return [cast(Likelihood, part) for part in self.parts]

    def _columns(self) -> list[list[int]]:
        return [kind.columns for kind in self.kinds]

    @classmethod
    def guess(cls, x: Tensor) -> Self:
        """The likelihood for a table ``x`` (N, D) by the values in its columns; NaN is left out.

        Zeros and ones are binary, few other whole numbers from 0 on are categories, many are counts, and all else is
        Gaussian. Look at ``likelihood.arguments["columns"]``: a code and a count cannot be told apart for sure.
        """
        return cls([_guess_column(column[~column.isnan()]) for column in x.unbind(1)])

    @classmethod
    def example(cls) -> Self:
        return cls(columns=["gaussian", {"name": "categorical", "num_categories": 3}, "poisson"])


class MixedColumns(TorchDistribution):
    """Columns with distributions of their own: ``parts`` over the columns in ``columns``, (..., D)."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, parts: Sequence[Any], columns: Sequence[Sequence[int]], validate_args: bool | None = None
    ) -> None:
        self.parts = [_per_column(part) for part in parts]
        self.columns = columns
        self.has_rsample = all(part.has_rsample for part in self.parts)
        batch = torch.broadcast_shapes(*(part.batch_shape[:-1] for part in self.parts))
        super().__init__(torch.Size((*batch, sum(map(len, columns)))), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The columns' supports, one beside the other."""
        supports = {c: p.support for p, columns in zip(self.parts, self.columns, strict=True) for c in columns}
        return constraints.cat([supports[c] for c in sorted(supports)], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p (..., D) of each column of ``value`` (..., D)."""
        pairs = zip(self.parts, self.columns, strict=True)
        return _in_order([part.log_prob(value[..., list(columns)]) for part, columns in pairs], self.columns)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws (sample_shape, ..., D)."""
        return _in_order([part.sample(sample_shape) for part in self.parts], self.columns)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws (sample_shape, ..., D) with gradients."""
        return _in_order([part.rsample(sample_shape) for part in self.parts], self.columns)

    @property
    def mean(self) -> Tensor:
        """The columns' means (..., D)."""
        return _in_order([part.mean for part in self.parts], self.columns)

    @property
    def variance(self) -> Tensor:
        """The columns' variances (..., D)."""
        return _in_order([part.variance for part in self.parts], self.columns)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "MixedColumns":
        expanded = instance_for_expand(self, MixedColumns, _instance)
        shape = torch.Size(batch_shape)[:-1]
        expanded.columns, expanded.has_rsample = self.columns, self.has_rsample
        expanded.parts = [p.expand((*shape, len(c))) for p, c in zip(self.parts, self.columns, strict=True)]
        TorchDistribution.__init__(expanded, torch.Size(batch_shape), validate_args=False)
        return expanded


class _Kind(NamedTuple):
    table: dict[str, Any]
    columns: list[int]
    # The likelihood itself, if the user has made it
    own: Likelihood | None = None


def _kinds(columns: Sequence[Any]) -> list[_Kind]:
    """The different entries, each with its columns; a likelihood that the user has made is of a kind of its own."""
    kinds: list[_Kind] = []
    for number, entry in enumerate(columns):
        if isinstance(entry, Likelihood):
            kinds.append(_Kind({"name": _of_one_column(number, entry)}, [number], entry))
            continue
        table = _table(number, entry)
        known = next((kind for kind in kinds if kind.own is None and kind.table == table), None)
        if known is None:
            kinds.append(_Kind(table, [number]))
        else:
            known.columns.append(number)
    return kinds


def _of_one_column(number: int, likelihood: Likelihood) -> str:
    if likelihood.data_dim != 1:
        raise ConfigError(f"columns: entry {number} has data_dim={likelihood.data_dim}. Make it with data_dim=1.")
    return likelihood.registered_name or type(likelihood).__name__


def _table(number: int, entry: Any) -> dict[str, Any]:
    table = {"name": entry} if isinstance(entry, str) else dict(entry) if isinstance(entry, Mapping) else {}
    if not isinstance(table.get("name"), str):
        raise ConfigError(f"columns: entry {number} has no name, got {entry!r}. Give the name of a likelihood.")
    return table


def _build(table: Mapping[str, Any], data_dim: int, initial_variance: float) -> Likelihood:
    options = dict(table)
    likelihood = Likelihood.named(options.pop("name"))
    known = option_names(likelihood)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of likelihood {table['name']!r}", option, set(known) - {"data_dim"})
    if likelihood is MixedLikelihood or options.get("variance") == "optimal":
        raise ArgumentError(f"columns: {dict(table)!r} cannot stand in a mixed table. Take a learned variance.")
    beginning = {"initial_variance": initial_variance} if "initial_variance" in known else {}
    try:
        return likelihood(**{"data_dim": data_dim, **beginning, **options})
    except TypeError as error:
        raise ConfigError(f"columns: likelihood {table['name']!r}: {error}. Write a table with its options.") from error


def _per_column(part: Any) -> Any:
    if not isinstance(part, Independent) or part.reinterpreted_batch_ndims != 1:
        raise ConfigError(f"columns: expected likelihoods of independent columns, got {type(part).__name__}.")
    return part.base_dist


def _in_order(values: Sequence[Tensor], columns: Sequence[Sequence[int]]) -> Tensor:
    """Values of the kinds, (..., number of their columns), put where the columns stand in the table."""
    batch = torch.broadcast_shapes(*(value.shape[:-1] for value in values))
    joined = torch.cat([value.expand(*batch, value.shape[-1]) for value in values], dim=-1)
    place = torch.tensor([column for kind in columns for column in kind], device=joined.device)
    return joined[..., place.argsort()]


def _check_column(values: Tensor, column: int, part: Likelihood) -> None:
    try:
        part.check_support(values)
    except SupportError as error:
        raise SupportError(f"x: column {column}: {str(error).removeprefix('x: ')}") from error


def _guess_column(values: Tensor) -> str | dict[str, Any]:
    if not len(values) or (values != values.round()).any() or values.min() < 0:
        return "gaussian"
    if values.max() <= 1:
        return "bernoulli"
    if values.max() < _MAX_CATEGORIES:
        return {"name": "categorical", "num_categories": int(values.max()) + 1}
    return "poisson"
