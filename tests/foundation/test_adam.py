"""Adam against torch's own class."""

import pytest
import torch
from torch.testing import assert_close

from probvae.foundation import torch_internals
from probvae.foundation.adam import Adam


@pytest.mark.parametrize("has_kernel", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_is_torchs(dtype: torch.dtype, has_kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's kernel, and by the operators that a graph holds and that are the way round a torch without it."""
    if not has_kernel:
        monkeypatch.setattr(torch_internals, "_FUSED_ADAM", None)
    start = [torch.randn(3, 2, dtype=dtype), torch.randn((), dtype=dtype), torch.randn(40, dtype=dtype)]
    ours, theirs = [p.clone() for p in start], [p.clone().requires_grad_() for p in start]
    adam, reference = Adam(ours, 0.1, (0.8, 0.95), 1e-6), torch.optim.Adam(theirs, 0.1, (0.8, 0.95), 1e-6)
    for step in range(20):
        gradients = [torch.randn_like(p) if step % 3 or p.ndim else None for p in start]
        adam.learning_rate = reference.param_groups[0]["lr"] = 0.1 / (1 + step)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        adam.step(gradients)
        reference.step()
    for one, two in zip(ours, theirs, strict=True):
        assert_close(one, two.detach(), rtol=1e-12 if dtype == torch.float64 else 1e-5, atol=1e-6)


def test_a_state_that_is_taken_up_goes_on_where_it_was() -> None:
    gradients = torch.randn(6, 4)
    whole, first, second = (torch.zeros(4) for _ in range(3))
    one, two = Adam([whole]), Adam([first])
    for gradient in gradients:
        one.step([gradient])
    for gradient in gradients[:3]:
        two.step([gradient])
    second.copy_(first)
    resumed = Adam([second])
    resumed.load_state_dict({name: tensor.clone() for name, tensor in two.state_dict().items()})
    for gradient in gradients[3:]:
        resumed.step([gradient])
    assert torch.equal(second, whole)
