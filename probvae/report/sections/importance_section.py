"""The importance weights of the guide."""

from collections.abc import Iterator

from probvae.diagnostics.weights.importance import ImportanceDiagnostic
from probvae.report.figures.importance_figure import effective_draws, pareto_k
from probvae.report.sections.base import Drawn, Section, Subject, as_double


def figures(result: ImportanceDiagnostic, subject: Subject) -> Iterator[Drawn]:
    """k-hat and the effective sample size of each datum."""
    yield Drawn("pareto-k", pareto_k(as_double(result.pareto_k), result.threshold))
    num = result.num_samples
    yield Drawn("effective-draws", effective_draws(as_double(result.ess) / num, num), {"num": num})


IMPORTANCE = Section(
    name="importance",
    title="Importance weights",
    question="Can draws of the guide be weighted so that they stand for draws of the posterior? The heavier the tail "
    "of the weights (Pareto k̂), the less.",
    labels={
        "method": "method",
        "threshold": "threshold of k̂ for so many draws",
        "share_above": "share of the data above the threshold",
        "num_constant": "data with constant weights (an exact guide)",
        "median_pareto_k": "median k̂",
        "largest_pareto_k": "largest k̂",
        "ess_share": "effective share of the draws",
        "log_evidence": "log p(x) from smoothed weights, nats per datum",
        "num_data": "number of data",
        "num_samples": "draws a datum",
    },
    checks={"pareto_k": "tail of the weights (Pareto k̂)", "ess": "effective number of draws"},
    captions={
        "pareto-k": "The Pareto k̂ of each datum's importance weights p(x, z) / q(z), from the smallest to the largest; "
        "orange triangles are above the threshold. How to read it: below the dashed line, weighted draws of the guide "
        "can stand for the posterior's; above 1 nothing can be said. A good one has (almost) all data below the line. "
        "It is blind to modes that the guide never visits.",
        "effective-draws": "How many of {num} draws of the guide are left when they are weighted by p(x, z) / q(z). "
        "How to read it: 100 % would be an exact guide. A good one has its mass at the right.",
    },
    figures=figures,
)
