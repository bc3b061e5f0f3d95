"""The pictures of the predictive checks."""

from matplotlib.figure import Figure
from torch import Tensor

from probvae.diagnostics.prediction.predictive_check import PredictiveCheckResult
from probvae.diagnostics.prediction.typicality import Typicality
from probvae.report.drawing.arrays import data_limits
from probvae.report.drawing.tiles import is_table
from probvae.report.figures.prediction_figure import evidence_curves, replicated_statistics, typical_images
from probvae.report.illustration import Illustration
from probvae.report.tensors import as_double

_NUM_IMAGES = 8


def illustrations(
    result: PredictiveCheckResult, x: Tensor | None = None, image_shape: tuple[int, ...] | None = None
) -> list[Illustration]:
    """The statistics among their replicates, log p(x) beside that of simulated data, and the ends of it as images.

    ``x`` are the data of the check; they are drawn where ``image_shape`` says that they are pictures.
    """
    drawn = [as_double(values) for values in (result.observed, result.replicated, result.p_values)]
    number = f"{result.family_p_value:.2g}"
    found = [
        Illustration("replicated-statistics", replicated_statistics(result.names, *drawn), _STATISTICS.format(p=number))
    ]
    part = result.typicality
    if not isinstance(part, Typicality):
        return found
    curves = evidence_curves(as_double(part.log_p), as_double(part.simulated))
    found.append(Illustration("log-evidence", curves, _EVIDENCE.format(p=f"{part.p_value:.2g}", rows=_rows(part))))
    if x is None or is_table(image_shape):
        return found
    assert image_shape is not None
    return [*found, Illustration("least-and-most-probable", _images(part, x, image_shape), _IMAGES)]


def _rows(part: Typicality) -> str:
    return ", ".join(str(row) for row in part.most_anomalous(5).tolist())


def _images(part: Typicality, x: Tensor, image_shape: tuple[int, ...]) -> Figure:
    order, images = part.log_p.argsort().cpu().numpy(), as_double(x)
    middle = max(0, (len(order) - _NUM_IMAGES) // 2)
    groups = {
        "least": order[:_NUM_IMAGES],
        "median": order[middle : middle + _NUM_IMAGES],
        "most": order[::-1][:_NUM_IMAGES],
    }
    return typical_images([(name, images[rows]) for name, rows in groups.items()], image_shape, data_limits(images))


_STATISTICS = (
    "Statistics of these data (orange) among those of data sets of the same size from the model (grey). How to read "
    "it: a line outside of its histogram is something that the model does not reproduce. A good one has all lines "
    "inside; for all of them together p = {p}."
)
_EVIDENCE = (
    "How probable these data are under the model, beside data that it makes itself (Kolmogorov-Smirnov p = {p}). How "
    "to read it: data to the left hold what the model does not make; data to the right: it makes more, or noisier, "
    "data than these. A good one has both lines on each other. The least probable rows are {rows} (counted from 0)."
)
_IMAGES = (
    "The data with the smallest log p(x), those in the middle, and those with the largest. How to read it: look for "
    "what the least probable ones have in common. In a good model they are rare kinds, not whole classes. The most "
    "probable are often the plainest."
)
