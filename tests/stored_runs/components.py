"""Store one model file for each registered component, for the tests of versions to come.

    python tests/stored_runs/components.py

writes tests/stored_runs/components-<version>: a model file for each component, and expected.json with log p(z),
log p(x|z) and log q_x(z) at points that stand there too. A file keeps the name of a component and of its arguments:
versions to come have to read both.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pyro import poutine

import probvae
from probvae import (
    VAE,
    ConditionalNormalPrior,
    ConstrainedGuide,
    DiagonalGuide,
    FreeGuide,
    GaussianLikelihood,
    LatentModel,
    LinearDecoder,
    LinearGaussianModel,
    MLPEncoder,
    NumberCovariates,
    StandardNormalPrior,
    VampPrior,
)
from probvae.inference import Encoder, ExactGuide, Guide, SemiAmortizedGuide
from probvae.models import Decoder, Likelihood, Prior

HERE = Path(__file__).parent
NUM_ROWS = 3


def pairs() -> Iterator[tuple[str, VAE]]:
    """A VAE with each component that ``probvae`` registers, at weights other than those of the start."""
    for family in (Prior, Likelihood, Decoder, Encoder, Guide):
        for name, component in sorted(family.registry.items()):
            if component.__module__.startswith("probvae."):
                torch.manual_seed(0)
                vae = pair_with(component)
                with torch.no_grad():
                    for parameter in vae.parameters():
                        parameter.add_(0.1 * torch.randn_like(parameter))
                yield f"{family.family}-{name}", vae


def pair_with(component: type) -> VAE:
    """A small VAE that has the component."""
    model, guide = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3)), None
    if component is ConditionalNormalPrior:
        covariates = NumberCovariates(means=[0.0, 1.0, 2.0], scales=[1.0, 2.0, 3.0])
        model = LatentModel(component.example(), LinearDecoder(5, 3), GaussianLikelihood(3), covariates=covariates)
        guide = DiagonalGuide(MLPEncoder(6, hidden=(4,)), 2)
    elif component is VampPrior:
        guide = DiagonalGuide(MLPEncoder(3, hidden=(4,)), 2)
        model = LatentModel(VampPrior(guide, data_dim=3, num_components=2), model.decoder, model.likelihood)
    elif component is ExactGuide:
        linear = LinearGaussianModel(torch.randn(3, 2), torch.zeros(3), 0.5)
        model, guide = linear, ExactGuide(linear)
    elif component is SemiAmortizedGuide:
        guide = SemiAmortizedGuide(MLPEncoder(3, hidden=(4,)), 2, model, num_steps=2)
    elif issubclass(component, Prior):
        model = LatentModel(component.example(), model.decoder, model.likelihood)
    elif issubclass(component, Likelihood):
        likelihood = component.example()
        decoder = LinearDecoder(2, likelihood.data_dim, likelihood.num_outputs)
        model = LatentModel(model.prior, decoder, likelihood)
    elif issubclass(component, Decoder):
        decoder = component.example()
        prior = StandardNormalPrior(decoder.latent_dim)
        model = LatentModel(prior, decoder, GaussianLikelihood(decoder.num_outputs))
    elif issubclass(component, Encoder):
        encoder = component.example()
        decoder = LinearDecoder(2, encoder.data_dim)
        model = LatentModel(model.prior, decoder, GaussianLikelihood(encoder.data_dim))
        guide = DiagonalGuide(encoder, 2)
    elif issubclass(component, Guide):
        guide = component.example()
    return VAE(model, guide or DiagonalGuide(MLPEncoder(model.data_dim, hidden=(4,)), model.latent_dim))


def points(vae: VAE) -> dict[str, Any]:
    """Rows x and latents z that the pair itself draws, as plain data; and covariates y, where the model has some."""
    y = None
    if vae.model.covariates is not None:
        y = torch.randn(NUM_ROWS, vae.model.covariates.num_covariates)
        vae = vae.given(y)
    drawn = poutine.trace(vae.model).get_trace(num_data=NUM_ROWS).nodes
    x, z = drawn["x"]["value"].detach(), drawn["z"]["value"].detach()
    if isinstance(vae.guide, FreeGuide):
        x = vae.guide.x[:NUM_ROWS]  # such a guide knows its own rows alone
    if isinstance(vae.guide, ConstrainedGuide):
        z = vae.guide.distribution(x).sample()
    return {"x": x.tolist(), "z": z.tolist(), "y": None if y is None else y.tolist()}


def densities(vae: VAE, at: dict[str, Any]) -> dict[str, list[float]]:
    """log p(z), log p(x|z) and log q_x(z), each (N,), in float64."""
    vae = vae.double()
    x, z = (torch.tensor(at[name], dtype=torch.float64) for name in ("x", "z"))
    if at["y"] is not None:
        vae = vae.given(torch.tensor(at["y"], dtype=torch.float64))
    with torch.no_grad():
        found = {
            "log p(z)": vae.model.prior().log_prob(z),
            "log p(x|z)": vae.model.likelihood(vae.model.decoder(z)).log_prob(x),
        }
    found["log q_x(z)"] = vae.guide.distribution(x).log_prob(z)
    return {name: value.tolist() for name, value in found.items()}


def store(folder: Path) -> None:
    """A model file for each component, and what it has to give."""
    expected = {}
    for name, vae in pairs():
        vae.save(folder / f"{name}.safetensors")
        at = points(vae)
        expected[name] = {"at": at, "densities": densities(probvae.load(folder / f"{name}.safetensors"), at)}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    target = HERE / f"components-{probvae.__version__}"
    target.mkdir()
    store(target)
