"""Networks for images, norms and dropout."""

import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae.assembly import build_vae
from probvae.errors import ArgumentError, ConfigError, ShapeError
from probvae.inference import ConvEncoder, DiagonalGuide, MLPEncoder, elbo, fit, posterior_mean
from probvae.models import ConvDecoder, GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior
from probvae.recipes import resolve


@pytest.mark.parametrize("shape", [[8, 8], [5, 7], [28, 28], [3, 6, 9], [1, 1]])
@pytest.mark.parametrize("multiple", [1, 3])
def test_conv_decoder_fits_every_image(shape: list[int], multiple: int) -> None:
    size = torch.Size(shape).numel()
    decoder = ConvDecoder(2, size, shape, channels=(4, 6), num_outputs=multiple * size)
    assert decoder(torch.randn(3, 5, 2)).shape == (3, 5, multiple * size)
    assert decoder.last is None
    encoder = ConvEncoder(size, shape, channels=(4, 6))
    assert encoder(torch.randn(3, 5, size)).shape == (3, 5, encoder.num_features)


def test_conv_decoder_is_local() -> None:
    """The transposed convolutions see a pixel's neighbourhood: two far corners depend on different start channels."""
    decoder = ConvDecoder(2, 256, [16, 16], channels=(4, 4))
    start = torch.zeros(1, 4, 4, 4, requires_grad=True)
    image = decoder.network.module[2:](start)
    (gradient,) = torch.autograd.grad(image[0, 0, 0, 0], start)
    assert image.shape == (1, 1, 16, 16)
    assert gradient[..., 0, 0].abs().sum() > 0
    assert gradient[..., 3, 3].abs().sum() == 0


def test_numbers_of_a_pixel_stand_beside_each_other() -> None:
    """As a categorical likelihood reads them: (..., D, K)."""
    decoder = ConvDecoder(2, 12, [3, 4], channels=(5,), num_outputs=24)
    z = torch.randn(2, 2)
    image = decoder.network(z)  # (2, 2, 3, 4): two channels a pixel
    assert_close(decoder(z).reshape(2, 12, 2)[:, :, 1], image[:, 1].flatten(1))


def test_conv_decoder_with_one_number_more() -> None:
    decoder = ConvDecoder(2, 12, [3, 4], channels=(5,), num_outputs=13)
    assert decoder(torch.zeros(4, 2)).shape == (4, 13)


def test_covariates_and_masks_stand_beside_the_features() -> None:
    encoder = ConvEncoder(12 + 3, [3, 4], channels=(5,))
    x = torch.randn(4, 15)
    assert torch.equal(encoder(x)[:, -3:], x[:, -3:])
    assert encoder(x).shape[1] == encoder.num_features


@pytest.mark.parametrize("part", [MLPDecoder, MLPEncoder, ConvDecoder, ConvEncoder])
def test_dropout_is_for_training_only(part: type) -> None:
    sizes = {"data_dim": 12, "dropout": 0.5}
    if "Decoder" in part.__name__:
        sizes["latent_dim"] = 3
    if "Conv" in part.__name__:
        sizes["image_shape"] = [3, 4]
    module = part(**sizes)
    x = torch.randn(6, 3 if "Decoder" in part.__name__ else 12)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_fit_trains_with_dropout_and_evaluates_without() -> None:
    seen = []

    class Watched(MLPEncoder):
        def features(self, x):
            seen.append(self.training)
            return super().features(x)

    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 4, hidden=(8,)), GaussianLikelihood(4))
    vae = probvae.VAE(model, DiagonalGuide(Watched(4, hidden=(8,), dropout=0.3), 2))
    x = torch.randn(60, 4)
    vae.eval()
    fit(vae, x, epochs=2, batch_size=30, validation=0.5, progress=False)
    assert {True, False} == set(seen)
    assert not vae.training
    assert torch.equal(posterior_mean(vae, x), posterior_mean(vae, x))
    del seen[:]
    elbo(vae, x)
    assert not any(seen)


def test_layer_norm_by_hand() -> None:
    encoder = MLPEncoder(4, hidden=(5,), activation="tanh", layer_norm=True).double()
    x = torch.randn(6, 4, dtype=torch.float64)
    first = encoder.network[0](x)
    centred = first - first.mean(-1, keepdim=True)
    normed = centred / (first.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    assert_close(encoder(x), torch.tanh(normed), rtol=1e-12, atol=1e-12)


def test_weights_of_the_plain_network_are_what_they_were() -> None:
    """Options that are off leave names and random numbers alone: saved models load, seeds give the same fit."""
    torch.manual_seed(0)
    decoder = MLPDecoder(2, 5, hidden=(4, 3))
    assert [name for name, _ in decoder.named_parameters()][-1] == "network.4.bias"
    torch.manual_seed(0)
    assert torch.equal(torch.nn.Linear(2, 4).weight, decoder.network[0].weight)


def test_bad_options() -> None:
    with pytest.raises(ArgumentError, match=r"dropout: expected a probability in \[0, 1\), got 1.0"):
        MLPEncoder(4, dropout=1.0)
    with pytest.raises(ShapeError, match=r"image_shape: expected 12 pixels \(data_dim\), got \[3, 5\], which has 15"):
        ConvDecoder(2, 12, [3, 5])
    with pytest.raises(ShapeError, match=r"expected \[H, W\] or \[C, H, W\]"):
        ConvDecoder(2, 12, [12])
    recipe = resolve([{"model": {"decoder": {"name": "conv"}}}])
    with pytest.raises(ConfigError, match=r"decoder 'conv': expected a value for 'image_shape'.*no images: take 'mlp'"):
        build_vae(recipe, 12, 1.0)
