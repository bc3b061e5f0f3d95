"""Where the numbers of a model and a guide stop being finite."""

import torch
from torch import Tensor

from probvae.inference.evaluation import ModelAndGuide
from probvae.inference.traces import paired_traces


@torch.no_grad()
def first_bad_site(vae: ModelAndGuide, rows: Tensor) -> str | None:
    """The first sample site whose parameters or log density are not finite."""
    try:
        vae.guide.distribution(rows)
    except ValueError:
        return "z"  # the guide's own parameters are not finite: torch refuses to build the distribution
    try:
        traces = paired_traces(vae.model, vae.guide, rows, 1)
    except ValueError:
        return "x"  # the decoder's output is not
    for trace in reversed(traces):
        trace.compute_log_prob()
        for name, site in trace.nodes.items():
            if site["type"] == "sample" and not torch.isfinite(site["log_prob"]).all():
                return str(name)
    return None
