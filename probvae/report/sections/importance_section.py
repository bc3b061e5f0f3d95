"""The importance weights of the guide as they stand in a report."""

from probvae.diagnostics.weights.importance import ImportanceDiagnostic
from probvae.report.figures.importance_figure import effective_draws, pareto_k
from probvae.report.illustration import Illustration
from probvae.report.tensors import as_double

_TAIL = (
    "The Pareto k̂ of each datum's importance weights p(x, z) / q(z), from the smallest to the largest; orange "
    "triangles are above the threshold. How to read it: below the dashed line, weighted draws of the guide can stand "
    "for the posterior's; above 1 nothing can be said. A good one has (almost) all data below the line. It is blind to "
    "modes that the guide never visits."
)
_EFFECTIVE = (
    "How many of {num} draws of the guide are left when they are weighted by p(x, z) / q(z). How to read it: 100 % "
    "would be an exact guide. A good one has its mass at the right."
)


def illustrations(result: ImportanceDiagnostic) -> list[Illustration]:
    """k-hat and the effective sample size of each datum."""
    k, ess = as_double(result.pareto_k), as_double(result.ess)
    effective = effective_draws(ess / result.num_samples, result.num_samples)
    return [
        Illustration("pareto-k", pareto_k(k, result.threshold), _TAIL),
        Illustration("effective-draws", effective, _EFFECTIVE.format(num=result.num_samples)),
    ]
