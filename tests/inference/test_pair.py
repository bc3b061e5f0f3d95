"""The pair: saved and loaded bit for bit, without pickle."""

import copy
import json
import struct
from pathlib import Path

import pytest
import torch

import probvae
from probvae.errors import ConfigError, ProbvaeError, RunError, ShapeError
from probvae.inference import DiagonalGuide, Encoder, FullCovarianceGuide, Guide, LinearEncoder
from probvae.inference import model_file as specification
from probvae.inference.pair import VAE
from probvae.models import (
    Decoder,
    GaussianLikelihood,
    LatentModel,
    Likelihood,
    LinearDecoder,
    Prior,
    StandardNormalPrior,
)

BASE = {"prior": "standard-normal", "decoder": "linear", "likelihood": "gaussian", "guide": "diagonal"}
FAMILIES = {"prior": Prior, "decoder": Decoder, "likelihood": Likelihood, "guide": Guide}
# those that belong to one model, or to one guide, are saved with it in tests of their own
TIED = {"exact", "semi-amortized", "vamp", "conditional-normal"}
PARTS = [(role, name) for role, family in FAMILIES.items() for name in sorted(set(family.registry) - TIED)]


def assembled(**names: str) -> VAE:
    """The base with other parts: each that is named once, by its example."""
    chosen = {role: FAMILIES[role].registry[name].example() for role, name in (BASE | names).items()}
    if (size := chosen["likelihood"].num_outputs) != 3 and "decoder" not in names:
        chosen["decoder"] = LinearDecoder(2, 3, num_outputs=size)
    return VAE(LatentModel(chosen["prior"], chosen["decoder"], chosen["likelihood"]), chosen["guide"])


@pytest.mark.parametrize(("role", "name"), PARTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_and_loaded_bit_for_bit(role: str, name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    vae = assembled(**{role: name}).to(dtype)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.copy_(torch.randn_like(parameter))
    vae.save(tmp_path / "vae.safetensors")
    again = probvae.load(tmp_path / "vae.safetensors")
    assert again.state_dict().keys() == vae.state_dict().keys()
    assert all(torch.equal(vae.state_dict()[name], tensor) for name, tensor in again.state_dict().items())
    x = getattr(vae.guide, "x", torch.rand(4, 3, dtype=dtype))
    z = vae.model.prior().sample((4,))
    assert torch.equal(vae(x).log_prob(z), again(x).log_prob(z))
    assert torch.equal(vae.model.prior().log_prob(z), again.model.prior().log_prob(z))
    parameters = vae.model.decoder(z), again.model.decoder(z)
    assert torch.equal(vae.model.likelihood(parameters[0]).mean, again.model.likelihood(parameters[1]).mean)


def test_options_survive() -> None:
    encoder = probvae.MLPEncoder(4, hidden=(7, 5), activation="tanh")
    likelihood = GaussianLikelihood(4, variance="per-dimension", initial_variance=0.3, minimum_variance=0.01)
    guide = probvae.FullCovarianceGuide(encoder, 2)
    again = specification.build(specification.describe(guide))
    assert [type(layer).__name__ for layer in again.encoder.network] == ["Linear", "Tanh", "Linear", "Tanh"]
    assert specification.describe(again) == specification.describe(guide)
    same = specification.build(specification.describe(likelihood))
    assert (same.mode, same.minimum_variance) == ("per-dimension", 0.01)


def test_model_and_guide_must_agree() -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3))
    with pytest.raises(ShapeError, match="guide: expected latent_dim=2"):
        VAE(model, DiagonalGuide(LinearEncoder(3), 3))


def test_module_of_the_users_cannot_be_saved_by_name(tmp_path: Path) -> None:
    model = LatentModel(StandardNormalPrior(2), torch.nn.Linear(2, 3), GaussianLikelihood(3))
    vae = VAE(model, DiagonalGuide(LinearEncoder(3), 2))
    with pytest.raises(ConfigError, match=r"Linear: cannot be saved by name.*Inherit Decoder"):
        vae.save(tmp_path / "vae.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_class_of_the_users_can_be_saved_once_it_has_a_name(tmp_path: Path) -> None:
    class ScaledDecoder(LinearDecoder, name="scaled-for-this-test"):
        """A linear map times a number."""

        def __init__(self, latent_dim: int, data_dim: int, factor: float = 2.0) -> None:
            super().__init__(latent_dim, data_dim)
            self.factor = factor

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return self.factor * super().forward(z)

    try:
        model = LatentModel(StandardNormalPrior(2), ScaledDecoder(2, 3, factor=-0.5), GaussianLikelihood(3))
        VAE(model, DiagonalGuide(LinearEncoder(3), 2)).save(tmp_path / "vae.safetensors")
        z = torch.randn(4, 2)
        assert torch.equal(probvae.load(tmp_path / "vae.safetensors").model.decoder(z), model.decoder(z))
    finally:
        del Decoder.registry["scaled-for-this-test"]


def rewritten(path: Path, **metadata: str) -> None:
    """The safetensors file at ``path`` with other metadata."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"].update(metadata)
    new = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"format": "99", "probvae": "7.0"},
            r"was written in format 99 by probvae 7\.0; this version .* up to 2. Update",
        ),
        ({"components": "prior = "}, "damaged"),
        ({"components": ""}, "damaged"),
        ({"components": '[prior]\nfamily = "prior"\nname = "os.system"'}, "unknown prior 'os.system'"),
        ({"components": '[prior]\nfamily = "builtins"\nname = "eval"'}, "unknown component family 'builtins'"),
        ({"components": '[prior]\nfamily = "prior"\nname = "standard-normal"\nlatent = 2'}, "unknown option"),
        ({"components": "prior = 3"}, "expected a table with family and name, got 3"),
    ],
)
def test_description_names_registered_classes_only(tmp_path: Path, metadata: dict[str, str], message: str) -> None:
    path = tmp_path / "vae.safetensors"
    VAE.example().save(path)
    rewritten(path, **metadata)
    with pytest.raises(ProbvaeError, match=message):
        probvae.load(path)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "vae.safetensors"
    VAE.example().save(path)
    import tomlkit

    components = tomlkit.dumps(VAE.example().components())
    save_file({"a": torch.zeros(3)}, path, {"format": "1", "components": components})
    with pytest.raises(RunError, match="do not fit"):
        probvae.load(path)


def test_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no such run"):
        probvae.load(tmp_path / "nothing")


def test_every_encoder_is_described() -> None:
    for encoder in Encoder.registry.values():
        description = specification.describe(encoder.example())
        assert specification.describe(specification.build(description)) == description


@pytest.mark.parametrize("encoder", sorted(Encoder.registry))
@pytest.mark.parametrize("family", [DiagonalGuide, FullCovarianceGuide])
def test_every_encoder_is_saved_bit_for_bit(encoder: str, family: type[Guide], tmp_path: Path) -> None:
    model = LatentModel(StandardNormalPrior(2), LinearDecoder(2, 3), GaussianLikelihood(3, variance=0.1))
    vae = VAE(model, family(Encoder.registry[encoder].example(), 2))
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.copy_(torch.randn_like(parameter))
    vae.save(tmp_path / "vae.safetensors")
    again = probvae.load(tmp_path / "vae.safetensors")
    x, z = torch.randn(5, 3), torch.randn(5, 2)
    assert torch.equal(vae(x).log_prob(z), again(x).log_prob(z))
    assert again.double().model.likelihood.fixed_variance.item() == 0.1


def test_a_copy_is_apart_and_can_be_saved(tmp_path: Path) -> None:
    vae = VAE.example()
    twin = copy.deepcopy(vae)
    with torch.no_grad():
        twin.model.decoder.weight += 1
    assert not torch.equal(vae.model.decoder.weight, twin.model.decoder.weight)
    twin.save(tmp_path / "twin.safetensors")
    assert torch.equal(probvae.load(tmp_path / "twin.safetensors").model.decoder.weight, twin.model.decoder.weight)
    assert twin.components() == vae.components()


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_file_that_was_cut_short(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    VAE.example().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match="not a whole safetensors file"):
        probvae.load(path)
