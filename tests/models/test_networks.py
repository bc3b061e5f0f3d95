"""Networks for images, norms and dropout."""

import itertools
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import probvae
from probvae import testing
from probvae.errors import ArgumentError, ConfigError, NonFiniteLossError, ShapeError
from probvae.experiments.build import build_vae
from probvae.experiments.recipe import resolve
from probvae.inference import ConvEncoder, DiagonalGuide, MLPEncoder, elbo, fit, posterior_mean
from probvae.models import ConvDecoder, GaussianLikelihood, LatentModel, MLPDecoder, StandardNormalPrior


@pytest.mark.parametrize("shape", [[8, 8], [5, 7], [28, 28], [3, 6, 9], [1, 1]])
@pytest.mark.parametrize("multiple", [1, 3])
def test_conv_decoder_fits_every_image(shape: list[int], multiple: int) -> None:
    size = torch.Size(shape).numel()
    decoder = ConvDecoder(2, size, shape, channels=(4, 6), num_outputs=multiple * size)
    assert decoder(torch.randn(3, 5, 2)).shape == (3, 5, multiple * size)
    assert decoder.rest is None
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
    """The image stays what convolutions make of it; the log c beside it is affine in the image."""
    decoder = ConvDecoder(2, 12, [3, 4], channels=(5,), num_outputs=13)
    z = torch.randn(4, 2)
    image = decoder.network(z).flatten(1)
    assert_close(decoder(z)[:, :12], image)
    assert_close(decoder(z)[:, 12:], image @ decoder.rest.weight.T + decoder.rest.bias)


@pytest.mark.parametrize("shape", [(5, 4), (1, 7), (6, 6)])
def test_convolutions_by_hand(shape: tuple[int, int], double: None) -> None:
    """One layer each way, pixel by pixel: kernel 3, stride 2, one pixel of padding."""
    height, width = shape
    rows, columns = -(-height // 2), -(-width // 2)
    encoder = ConvEncoder(height * width, shape, channels=(2,), activation="tanh")
    x = torch.randn(height * width)
    weight, bias = encoder.network.module[0].weight, encoder.network.module[0].bias
    features = bias[:, None, None].repeat(1, rows, columns)
    for i, j, a, b in itertools.product(range(rows), range(columns), range(3), range(3)):
        row, column = 2 * i + a - 1, 2 * j + b - 1
        if 0 <= row < height and 0 <= column < width:
            features[:, i, j] += weight[:, 0, a, b] * x.reshape(shape)[row, column]
    assert_close(encoder(x), features.tanh().flatten(), rtol=1e-12, atol=1e-12)

    decoder = ConvDecoder(3, height * width, shape, channels=(2,), activation="tanh")
    linear, last, z = decoder.network.module[0], decoder.network.module[-1], torch.randn(3)
    start = (linear.weight @ z + linear.bias).tanh().reshape(2, rows, columns)
    image = last.bias[:, None, None].repeat(1, height, width)
    for i, j, a, b in itertools.product(range(rows), range(columns), range(3), range(3)):
        row, column = 2 * i + a - 1, 2 * j + b - 1
        if 0 <= row < height and 0 <= column < width:
            image[0, row, column] += (last.weight[:, 0, a, b] * start[:, i, j]).sum()
    assert_close(decoder(z), image.flatten(), rtol=1e-12, atol=1e-12)


def test_covariates_and_masks_stand_beside_the_features() -> None:
    encoder = ConvEncoder(12 + 3, [3, 4], channels=(5,), num_beside=3)
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


def conv_vae(data_dim: int = 12, dropout: float = 0.5) -> probvae.VAE:
    decoder = ConvDecoder(2, data_dim, [3, 4], channels=(4,), dropout=dropout)
    model = LatentModel(StandardNormalPrior(2), decoder, GaussianLikelihood(data_dim))
    return probvae.VAE(model, DiagonalGuide(ConvEncoder(data_dim, [3, 4], channels=(4,), dropout=dropout), 2))


def test_a_loaded_vae_has_no_dropout(tmp_path: Path) -> None:
    vae, x = conv_vae(), torch.randn(5, 12)
    vae.save(tmp_path / "vae.safetensors")
    loaded = probvae.load(tmp_path / "vae.safetensors")
    assert torch.equal(posterior_mean(loaded, x), posterior_mean(loaded, x))
    assert torch.equal(posterior_mean(loaded, x), posterior_mean(vae.eval(), x))


def test_a_fit_that_fails_leaves_no_dropout() -> None:
    vae, x = conv_vae(), torch.randn(20, 12)
    with pytest.raises(NonFiniteLossError):
        fit(vae, x, epochs=2, batch_size=10, learning_rate=1e30, progress=False)
    assert not any(module.training for module in vae.modules())


def test_the_contract_takes_dropout() -> None:
    """Dropout is noise of the training, not a row that looks at another."""
    vae = conv_vae()
    testing.check_decoder(vae.model.decoder)
    testing.check_encoder(vae.guide.encoder)
    testing.check_guide(vae.guide, data_dim=12)
    assert vae.guide.encoder.training


def test_covariates_and_masks_of_images_in_a_recipe() -> None:
    """The recipe's encoder is told how many columns are no pixels, and refuses an image of another size."""
    recipe = resolve(
        [{"model": {"decoder": {"name": "conv"}, "missing": "mask"}, "inference": {"encoder": {"name": "conv"}}}]
    )
    vae = build_vae(recipe, 12, 1.0, image_shape=(3, 4))
    x = torch.randn(5, 12)
    x[0, 3] = torch.nan
    assert vae(x).mean.shape == (5, 2)
    wrong = resolve([recipe, {"inference": {"encoder": {"image_shape": [2, 2]}}}])
    with pytest.raises(ShapeError, match=r"expected 12 pixels \(data_dim\), got \[2, 2\]"):
        build_vae(wrong, 12, 1.0, image_shape=(3, 4))


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
    for shape in ([12], 12, "3x4"):
        with pytest.raises(ShapeError, match=r"expected \[H, W\] or \[C, H, W\]"):
            ConvDecoder(2, 12, shape)
    for layer_norm in ("yes", 2):
        with pytest.raises(ArgumentError, match="layer_norm: expected true or false"):
            MLPEncoder(4, layer_norm=layer_norm)
    for channels in ([], 32):
        with pytest.raises(ArgumentError, match="channels: expected a count for each layer"):
            ConvEncoder(12, [3, 4], channels=channels)
    with pytest.raises(ArgumentError, match="num_outputs: expected at least one a pixel"):
        ConvDecoder(2, 12, [3, 4], num_outputs=5)
    recipe = resolve([{"model": {"decoder": {"name": "conv"}}}])
    with pytest.raises(ConfigError, match=r"decoder 'conv': expected a value for 'image_shape'.*no images: take 'mlp'"):
        build_vae(recipe, 12, 1.0)
