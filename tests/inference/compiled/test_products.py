"""Matrix products by oneDNN: in float32's precision or not at all."""

import importlib

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import probvae
from probvae.foundation.onednn import keeps_float32, product_operator
from probvae.inference.compiled.fast_products import use_fast_products
from probvae.inference.compiled.recording import Trace, record

PRODUCT = product_operator()


def layer(x: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor) -> list[Tensor]:
    """An affine layer, and the gradients of its input and of its weight."""
    return [torch.addmm(bias, x, weight.T), gradient @ weight, gradient.T @ x]


def tensors(rows: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(size, dtype=dtype) for size in ((rows, 300), (200, 300), (200,), (rows, 200))]


def recorded(inputs: list[Tensor]) -> Trace:
    return use_fast_products(record(layer, inputs, []))


def targets(trace: Trace) -> list[object]:
    return [node.target for node in trace.operators]


def test_large_products_of_a_layer_are_float64s_to_rounding() -> None:
    inputs = tensors(128)
    recording = recorded(inputs)
    assert targets(recording).count(PRODUCT) == 3
    for found, expected in zip(recording.function()(*inputs), layer(*(part.double() for part in inputs)), strict=True):
        assert_close(found.double(), expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize(("rows", "dtype"), [(16, torch.float32), (128, torch.float64), (128, torch.bfloat16)], ids=str)
def test_small_products_and_other_precisions_stay(rows: int, dtype: torch.dtype) -> None:
    assert PRODUCT not in targets(recorded(tensors(rows, dtype)))


def test_a_bias_that_is_a_matrix_or_a_scaled_product_stays() -> None:
    x, weight, _, bias = tensors(128)
    recording = record(
        lambda x, w, c: [torch.addmm(c, x, w.T), torch.addmm(c[0], x, w.T, alpha=2.0)], [x, weight, bias], []
    )
    assert PRODUCT not in targets(use_fast_products(recording))


@pytest.mark.parametrize("k", [1, 50, 784])
def test_a_product_that_rounds_to_bfloat16_is_refused(k: int) -> None:
    def rounded(a: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
        return torch.mm(a.bfloat16(), b.bfloat16()).float()

    assert not keeps_float32(rounded, 64, k, 32)
    assert not keeps_float32(lambda a, b, c: a.bfloat16().float() @ b.bfloat16().float(), 64, k, 32)
    assert keeps_float32(lambda a, b, c: a @ b, 64, k, 32)


def test_a_weight_that_is_not_finite_shows() -> None:
    """oneDNN's own rectifier would make a zero of it."""
    x, weight, bias, gradient = tensors(128)
    run = recorded([x, weight, bias, gradient]).function()
    weight[3, 5] = torch.nan
    output = run(x, weight, bias, gradient)[0]
    assert output[:, 3].isnan().all()


def wide_fit(compile: str | bool) -> probvae.FitResult:
    torch.manual_seed(0)
    guide = probvae.DiagonalGuide(probvae.MLPEncoder(200, (256,)), 2)
    decoder = probvae.MLPDecoder(2, 200, (256,))
    model = probvae.LatentModel(probvae.StandardNormalPrior(2), decoder, probvae.GaussianLikelihood(200))
    x = torch.randn(256, 200)
    return probvae.fit(probvae.VAE(model, guide), x, epochs=2, batch_size=128, compile=compile, progress=False)


@pytest.mark.parametrize("compile", ["graph", pytest.param(True, marks=pytest.mark.slow)])
def test_wide_fits_agree_with_pyro_and_repeat_themselves(compile: str | bool) -> None:
    results = [wide_fit(way) for way in (False, compile, compile)]
    plain, one, two = ([epoch["objective"] for epoch in result.history] for result in results)
    assert results[1].path == ("compiled" if compile is True else "traced")
    assert one == two
    assert one == pytest.approx(plain, rel=1e-5)


def test_a_module_that_is_loaded_again_defines_the_operator_once() -> None:
    from probvae.foundation import onednn

    product_operator()
    again = importlib.reload(onednn).product_operator()
    a, b, c = torch.randn(4, 5), torch.randn(5, 6), torch.randn(6)
    assert_close(again(a, b, c), a @ b + c)
