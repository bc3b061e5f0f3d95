"""Numbers of a whole data set, which replicated data sets should have too."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from probvae.errors import ArgumentError
from probvae.models import LatentModel

# A statistic takes data sets (..., N, D) and gives one number for each, (...).
Statistic = Callable[[Tensor], Tensor]

# Correlations of more columns would cost more than they show.
_MOST_COLUMNS = 50
# Smaller eigenvalues than this share of the largest count as this share.
_SMALLEST_EIGENVALUE = 1e-6
_FARTHEST = 1e300


def default_statistics(model: LatentModel, simulated: Tensor) -> dict[str, Statistic]:
    r"""The statistics that are taken where the user names none, for a model and data ``simulated`` (M, D) from it.

    - mean and standard deviation (the root of the columns' mean variance), skewness and kurtosis (means over the
      columns), smallest and largest entry;
    - the mean absolute correlation of the columns, where there are several;
    - of the data whitened by the model, y = (x - m) S^{-1/2} with the mean and covariance of the simulated data: the
      variance (the mean of y_i^2, about one for data from the model), the largest kurtosis of a y_i, and for all of y
      together Mardia's kurtosis, free of scale, mean |y|^4 / (mean |y|^2)^2, and the largest |y|^2. The noise
      is the whole of many directions of y, so that these see a wrong c and heavy tails;
    - the share of zeros, where the entries are counts, categories or binary.

    Correlations and whitened data are of 50 columns at most, evenly spaced. Missing entries (NaN) are left out (in y
    they are the mean), columns that are constant have no skewness, kurtosis or correlation, and codes of categories are
    taken as numbers: a statistic need not mean much to show that replicated data differ.
    Source: Mardia (1970), "Measures of multivariate skewness and kurtosis with applications", for the joint kurtosis.

    >>> from probvae.models import LinearGaussianModel
    >>> list(default_statistics(LinearGaussianModel(torch.ones(1, 1)), torch.randn(100, 1)))[:5]
    ['mean', 'standard deviation', 'skewness', 'kurtosis', 'smallest']
    """
    found: dict[str, Statistic] = {
        "mean": lambda x: _mean(x, (-2, -1)),
        "standard deviation": _spread,
        "skewness": lambda x: _moment(x, 3),
        "kurtosis": lambda x: _moment(x, 4),
        "smallest": lambda x: -_largest(-x),
        "largest": _largest,
    }
    if model.data_dim > 1:
        found["mean |correlation|"] = _correlation
    whiten = _Whitening(simulated)
    found["whitened variance"] = lambda x: whiten(x).square().mean((-2, -1))
    found["whitened kurtosis"] = lambda x: _kurtosis(whiten(x)).amax(-1)
    found["whitened joint kurtosis"] = lambda x: _joint_kurtosis(whiten(x))
    found["largest whitened distance"] = lambda x: whiten(x).square().sum(-1).amax(-1)
    if model.likelihood.measure.startswith("probability"):
        found["share of zeros"] = lambda x: torch.where(x.isnan(), torch.nan, (x == 0).to(x)).nanmean((-2, -1))
    return found


class _Whitening:
    """x -> (x - m) V diag(l)^{-1/2} for the mean m and the eigenvectors V and eigenvalues l of simulated data."""

    def __init__(self, simulated: Tensor) -> None:
        x = _fewer_columns(simulated).nan_to_num()
        self.mean = x.mean(0)
        values, vectors = torch.linalg.eigh((x - self.mean).double().mT.cov(correction=0).reshape(x.shape[1], -1))
        # A datum with a direction that the model does not have would be infinitely far; the floor makes it very far.
        floor = _SMALLEST_EIGENVALUE * values[-1].clamp(min=torch.finfo(x.dtype).tiny)
        self.matrix = (vectors / values.clamp(min=float(floor)).sqrt()).to(x)

    def __call__(self, x: Tensor) -> Tensor:
        return (_fewer_columns(x) - self.mean).nan_to_num() @ self.matrix


def _fewer_columns(x: Tensor) -> Tensor:
    return x[..., :: -(-x.shape[-1] // _MOST_COLUMNS)]


def evaluate(statistics: Mapping[str, Statistic], x: Tensor) -> Tensor:
    """The statistics (R, K) of the data sets ``x`` (R, N, D), in float64; an error that names one that goes wrong."""
    return torch.stack([_checked(name, statistic(x), x) for name, statistic in statistics.items()], dim=1)


def _checked(name: str, values: Tensor, x: Tensor) -> Tensor:
    expected = tuple(x.shape[:1])
    if not isinstance(values, Tensor) or tuple(values.shape) != expected:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ArgumentError(
            f"statistics: expected {name!r} to give one number for each data set, a tensor of shape {expected} for x "
            f"of shape {tuple(x.shape)}, got {got}. Reduce the last two dimensions only: x.mean((-2, -1))."
        )
    if values.isnan().any():
        raise ArgumentError(
            f"statistics: expected numbers from {name!r}, got NaN. With missing entries or constant columns use what "
            "leaves them out: x.nanmean((-2, -1))."
        )
    # An infinite statistic counts as farther than all others.
    return values.double().nan_to_num(posinf=_FARTHEST, neginf=-_FARTHEST)


def _mean(x: Tensor, dim: int | tuple[int, ...], keepdim: bool = False) -> Tensor:
    """The mean of what is not NaN; where nothing is NaN it costs a quarter of ``nanmean``."""
    mean = x.mean(dim, keepdim)
    return x.nanmean(dim, keepdim) if mean.isnan().any() else mean


def _spread(x: Tensor) -> Tensor:
    centred = x - _mean(x, -2, keepdim=True)
    return _mean(_mean(centred.square(), -2), -1).sqrt()


def _standardised(x: Tensor) -> Tensor:
    """Columns with mean zero and variance one; NaN in constant ones."""
    centred = x - _mean(x, -2, keepdim=True)
    variance = _mean(centred.square(), -2, keepdim=True)
    # A constant column's variance is the rounding of its mean, and counts as zero.
    rounding = (torch.finfo(x.dtype).eps * x.nan_to_num().abs().amax(-2, keepdim=True)).square()
    return centred / torch.where(variance > 4 * rounding, variance, torch.nan).sqrt()


def _moment(x: Tensor, order: int) -> Tensor:
    return _mean(_standardised(x).pow(order), (-2, -1)).nan_to_num()


def _kurtosis(x: Tensor) -> Tensor:
    return _standardised(x).pow(4).mean(-2).nan_to_num()


def _joint_kurtosis(y: Tensor) -> Tensor:
    squared = y.square().sum(-1)
    return (squared.square().mean(-1) / squared.mean(-1).square()).nan_to_num()


def _largest(x: Tensor) -> Tensor:
    return x.nan_to_num(nan=-torch.inf, posinf=torch.inf).amax((-2, -1))


def _correlation(x: Tensor) -> Tensor:
    """The mean absolute correlation of two columns; a missing entry counts as its column's mean."""
    z = _standardised(_fewer_columns(x))
    known = ~z.isnan().all(-2)  # (..., D)
    z = z.nan_to_num()
    correlation = (z.mT @ z).abs() / z.shape[-2]
    pairs = (known.sum(-1).square() - known.sum(-1)).clamp(min=1)
    return (correlation.sum((-2, -1)) - correlation.diagonal(dim1=-2, dim2=-1).sum(-1)) / pairs
