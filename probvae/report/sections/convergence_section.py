"""Convergence: whether the pair was trained long enough."""

from collections.abc import Iterator

from probvae.diagnostics.convergence import ConvergenceResult
from probvae.report.figures.training_figure import bound_by_epoch, residual_ratios
from probvae.report.sections.base import Drawn, Section, Subject, as_double


def figures(result: ConvergenceResult, subject: Subject) -> Iterator[Drawn]:
    """The residuals where a c was learned, and the bound by epoch where the history is known."""
    if result.ratio is not None:
        yield Drawn("residuals", residual_ratios(as_double(result.ratio)))
    if result.trend is not None:
        yield Drawn("last-epochs", bound_by_epoch(result.trend.bound, result.trend.epochs), {"of": result.trend.of})


CONVERGENCE = Section(
    name="convergence",
    title="Convergence",
    question="Was it trained long enough? Where training ends, the learned c is the mean squared residual, and the "
    "bound no longer rises.",
    labels={
        "rows": "which rows the residuals are of",
        "variance_ratio": "mean squared residual in units of the learned c, expected 1",
        "gain_of_variance": "what the best c would win by itself, nats per datum",
        "num_data": "number of data",
        "num_epochs": "epochs",
        "gain_of_last_epochs": "what as many epochs again would win at the pace of the last ones, nats per datum",
        "last_epochs": "the last epochs: how many",
        "bound": "the last epochs: which bound",
    },
    checks={"variance": "the learned c at its optimum", "last_epochs": "trend of the last epochs"},
    captions={
        "residuals": "The squared residual of each datum in units of the learned c, from the smallest to the largest. "
        "How to read it: a dashed mean below the dotted 1 is a c on its way down. A good one has both on each other.",
        "last-epochs": "Blue: {of} after each epoch (the first fifth may lie outside). Orange: a line through the last "
        "epochs. How to read it: a line that rises says that more epochs would win more. A good one is flat.",
    },
    figures=figures,
)
