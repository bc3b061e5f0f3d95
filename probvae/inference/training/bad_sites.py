"""Where the numbers of a model and a guide stop being finite."""

import torch
from torch import Tensor

from probvae.inference.densities.non_finite import TORCH_ERRORS
from probvae.inference.densities.traces import paired_traces
from probvae.inference.pair import VAE


@torch.no_grad()
def first_bad_site(vae: VAE, rows: Tensor) -> str | None:
    """The first sample site whose parameters or log density are not finite."""
    try:
        vae.guide.distribution(rows)
    except TORCH_ERRORS:
        return "z"  # the guide's own parameters are not finite: torch refuses to build the distribution
    try:
        traces = paired_traces(vae.model, vae.guide, rows, 1)
    except TORCH_ERRORS:
        return "x"  # the decoder's output is not
    for trace in reversed(traces):
        try:
            trace.compute_log_prob()
        except TORCH_ERRORS:
            return "z" if "z" in trace.nodes and "x" not in trace.nodes else "x"
        for name, site in trace.nodes.items():
            if site["type"] == "sample" and not torch.isfinite(site["log_prob"]).all():
                return str(name)
    return None


def first_bad_gradient(vae: VAE, loss: Tensor) -> tuple[str, str] | None:
    """A parameter whose gradient is not finite, and the site whose distribution it belongs to.

    The likelihood's come first: what is wrong at x reaches the guide through z.
    """
    parts = (("x", "model", vae.model), ("z", "guide", vae.guide))
    named = [(site, f"{part}.{name}", p) for site, part, module in parts for name, p in module.named_parameters()]
    named = [each for each in named if each[2].requires_grad]
    if not (named and loss.requires_grad):
        return None
    found = torch.autograd.grad(loss, [parameter for _, _, parameter in named], allow_unused=True)
    for (site, name, _), gradient in zip(named, found, strict=True):
        if gradient is not None and not torch.linalg.vector_norm(gradient).isfinite():
            return ("z" if name.startswith("model.prior.") else site), name
    return None
