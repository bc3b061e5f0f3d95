"""Convergence: whether the pair was trained long enough."""

from probvae.report.sections.base import Section

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
)
