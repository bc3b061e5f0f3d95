"""The predictive checks: could the data have come from the model?"""

from collections.abc import Iterator

from matplotlib.figure import Figure
from torch import Tensor

from probvae.diagnostics.prediction.predictive_check import PredictiveCheckResult
from probvae.diagnostics.prediction.typicality import Typicality
from probvae.diagnostics.verdicts import told_p_value
from probvae.report.drawing.arrays import data_limits
from probvae.report.drawing.tiles import is_table
from probvae.report.figures.prediction_figure import evidence_curves, replicated_statistics, typical_images
from probvae.report.sections.base import Drawn, Section, Subject, as_double

_NUM_IMAGES, _NUM_ROWS = 8, 5


def figures(result: PredictiveCheckResult, subject: Subject) -> Iterator[Drawn]:
    """The statistics among their replicates, log p(x) beside that of simulated data, and the ends of it as images."""
    values = [as_double(tensor) for tensor in (result.observed, result.replicated, result.p_values)]
    statistics = replicated_statistics(result.names, *values)
    yield Drawn("replicated-statistics", statistics, {"p": told_p_value(result.family_p_value)})
    part = result.typicality
    if not isinstance(part, Typicality):
        return
    curves = evidence_curves(as_double(part.log_p), as_double(part.simulated))
    rows = ", ".join(map(str, part.numbers_of(part.most_anomalous(_NUM_ROWS))))
    told = {"p": told_p_value(part.p_value), "method": part.method, "rows": rows, "ranked": part.evidence.method}
    yield Drawn("log-evidence", curves, told)
    image_shape = subject.data.image_shape
    if image_shape is not None and not is_table(image_shape):
        yield Drawn("least-and-most-probable", _images(part, subject.x, image_shape))


def _images(part: Typicality, x: Tensor, image_shape: tuple[int, ...]) -> Figure:
    """The rows of ``x`` (N, D) with the smallest, the middle and the largest log p(x), as images."""
    order, images = part.log_p.argsort().cpu().numpy(), as_double(x)
    middle = max(0, (len(order) - _NUM_IMAGES) // 2)
    groups = {
        "least": part.most_anomalous(_NUM_IMAGES).cpu().numpy(),
        "median": order[middle : middle + _NUM_IMAGES],
        "most": order[::-1][:_NUM_IMAGES],
    }
    return typical_images([(name, images[rows]) for name, rows in groups.items()], image_shape, data_limits(images))


PREDICTION = Section(
    name="prediction",
    title="Prediction",
    question="Could the data have come from this model?",
    labels={
        "log_evidence": "log p(x), nats per datum",
        "log_evidence.method": "log p(x) comes from",
        "log_evidence.kind": "log p(x) is",
        "log_evidence.largest_error": "largest error of log p(x), nats",
        "log_evidence.num_data": "data whose log p(x) was taken",
        "statistics": "Statistics of the data, and of data sets from the model (median and 95 % of them)",
        "statistics.name": "statistic",
        "statistics.observed": "these data",
        "statistics.replicated": "from the model",
        "statistics.p_value": "p-value",
        "statistics.posterior_p_value": "p-value with z from the guide",
        "family_p_value": "p-value of all statistics together, not adjusted",
        "typicality.log_p": "typicality: log p(x) of these data, nats per datum",
        "typicality.simulated_log_p": "typicality: log p(x) of simulated data, nats per datum",
        "typicality.p_value": "typicality: p-value, not adjusted",
        "typicality.num_below_all_simulated": "typicality: data less probable than all simulated ones",
        "typicality.num_simulated": "typicality: number of simulated data",
        "typicality.method": "typicality: log p(x) comes from",
        "typicality.ranked_by": "least probable data: log p(x) comes from",
        "typicality.num_samples": "typicality: importance draws a datum",
        "typicality.most_anomalous": "Typicality: the least probable data",
        "typicality.most_anomalous.row": "row of the data, counted from 0",
        "typicality.most_anomalous.log_p": "log p(x), nats",
        "typicality.most_anomalous.standard_error": "its standard error",
        "typicality.most_anomalous.anomaly": "share of simulated data that are less probable",
        "typicality.not_computed": "typicality: not computed, because",
        "loo": "PSIS-LOO",
        "loo.elpd_loo": "PSIS-LOO: expected log predictive density, nats per datum",
        "loo.good_k": "PSIS-LOO: largest Pareto k̂ that is good",
        "loo.num_above_good_k": "PSIS-LOO: data with a larger k̂, whose value is not reliable",
        "loo.meaning": "PSIS-LOO: what it says",
        "loo.not_computed": "PSIS-LOO: not computed, because",
        "num_data": "number of data",
        "num_rows": "data whose statistics were taken",
        "num_replicates": "data sets from the model",
        "num_posterior_replicates": "data sets from the model with z from the guide",
    },
    checks={
        "statistics": "statistics of the data",
        "typicality": "probability of the data",
        "loo": "leave-one-out prediction (PSIS-LOO)",
    },
    captions={
        "replicated-statistics": "Statistics of these data (orange) among those of data sets of the same size from the "
        "model (grey). How to read it: a line outside of its histogram is something that the model does not "
        "reproduce. A good one has all lines inside; for all of them together p {p}.",
        "log-evidence": "How probable these data are under the model, beside data that it makes itself (log p(x) by "
        "{method}, Kolmogorov-Smirnov p {p}). How to read it: data to the left hold what the model does not make; data "
        "to the right: it makes more, or noisier, data than these. A good one has both lines on each other. The least "
        "probable rows of the data are {rows} (counted from 0; log p(x) by {ranked}).",
        "least-and-most-probable": "The data with the smallest log p(x), those in the middle, and those with the "
        "largest. How to read it: look for what the least probable ones have in common. In a good model they are rare "
        "kinds, not whole classes. The most probable are often the plainest.",
    },
    figures=figures,
)
