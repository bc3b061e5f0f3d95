"""Each private name of torch does what the package takes it to do: a release that changes it fails here, by name."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import AffineTransform, Distribution, Normal, TransformedDistribution
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from probvae.foundation import torch_internals
from probvae.foundation.torch_internals import (
    DispatchMode,
    add_to_all,
    check_value,
    default_compiler_cache,
    has_fused_adam,
    has_onednn_linear,
    headers_in,
    instance_for_expand,
    is_mutable,
    moved_transform,
    norms,
    onednn_linear,
    takes_argument,
    tree_leaves,
    tree_map_only,
    validation_kept,
    version_of,
    with_own_modules,
    written_arguments,
)

ATEN = torch.ops.aten


@pytest.mark.parametrize("name", ["_fused_adam_", "_foreach_add_", "_foreach_norm"])
def test_torch_has_the_kernel(name: str) -> None:
    """Without it everything works, by the ways round it, and more slowly."""
    assert hasattr(torch, name)
    assert has_fused_adam()


@pytest.mark.parametrize("is_there", [True, False])
def test_foreach_kernels_and_the_ways_round_them(is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_there:
        monkeypatch.setattr(torch_internals, "_ADD_TO_ALL", None)
        monkeypatch.setattr(torch_internals, "_NORMS", None)
    tensors = [torch.tensor([3.0, 4.0]), torch.tensor(2.0)]
    assert [float(norm) for norm in norms(tensors)] == [5.0, 2.0]
    assert list(norms([])) == []
    add_to_all(tensors, 1)
    assert torch.equal(tensors[0], torch.tensor([4.0, 5.0]))


def test_schema_of_an_operator() -> None:
    assert is_mutable(ATEN.add_.Tensor)
    assert not is_mutable(ATEN.add.Tensor)
    assert takes_argument(ATEN.zeros.default, "device")
    assert not takes_argument(ATEN.add.Tensor, "device")
    assert written_arguments(ATEN.add_.Tensor, ("a", "b"), {}) == ["a"]
    assert written_arguments(ATEN.add.out, ("a", "b"), {"out": "c"}) == ["c"]
    assert written_arguments(ATEN.add.Tensor, ("a", "b"), {}) == []


def test_batch_normalisation_writes_what_its_schema_does_not_declare() -> None:
    """Once torch declares it, the entry in the list is not needed any more."""
    operator = ATEN.native_batch_norm.default
    assert not is_mutable(operator)
    x, mean, variance = torch.randn(8, 2) + 3, torch.zeros(2), torch.ones(2)
    operator(x, None, None, mean, variance, True, 0.1, 1e-5)
    assert mean.abs().min() > 0
    assert written_arguments(operator, (x, None, None, mean, variance, True, 0.1, 1e-5), {}) == [mean, variance]


def test_dispatch_mode_has_the_guard_that_is_left_out() -> None:
    assert hasattr(TorchDispatchMode, "_should_skip_dynamo")
    assert DispatchMode._should_skip_dynamo() is False


def test_storage_has_one_identity_for_all_of_its_views() -> None:
    """The tracer and the count of memory know memory by it."""
    tensor = torch.zeros(4)
    identity = id(tensor.untyped_storage())
    assert all(id(view.untyped_storage()) == identity for view in (tensor.view(2, 2), tensor[1:], tensor.detach()))
    assert id(tensor.clone().untyped_storage()) != identity


def test_pytree() -> None:
    structure = ([torch.zeros(2)], {"a": 1})
    assert len(tree_leaves(structure)) == 2
    assert tree_map_only(torch.Tensor, lambda tensor: tensor.shape, structure) == ([torch.Size([2])], {"a": 1})


@pytest.mark.skipif(not has_onednn_linear(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("has_bias", [True, False])
def test_onednn_linear(has_bias: bool) -> None:
    x, weight, bias = torch.randn(5, 3), torch.randn(4, 3), torch.randn(4) if has_bias else None
    assert_close(onednn_linear(x, weight, bias), nn.functional.linear(x, weight, bias))


def test_inductor_has_its_door() -> None:
    assert importlib.util.find_spec("torch._inductor.codecache") is not None
    assert importlib.util.find_spec("torch._inductor.runtime.cache_dir_utils") is not None


@pytest.mark.slow  # it imports torch's compiler
def test_inductors_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import _inductor
    from torch._inductor import codecache

    from probvae.inference.compiled.inductor import _OPTIONS

    assert callable(_inductor.compile)
    assert [name for name in (*_OPTIONS, "cpp_wrapper") if not hasattr(_inductor.config, name)] == []
    with headers_in(tmp_path):
        assert str(tmp_path) == codecache._HEADER_DIR
    assert str(tmp_path) != codecache._HEADER_DIR
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert default_compiler_cache().parent == tmp_path


def test_validation_is_as_it_was() -> None:
    assert hasattr(Distribution, "_validate_args")
    before = Distribution._validate_args
    with validation_kept(inside=not before):
        assert Distribution._validate_args is not before
    with validation_kept():
        Distribution.set_default_validate_args(not before)
    assert Distribution._validate_args is before


def test_value_outside_the_support() -> None:
    value = torch.tensor(torch.nan)
    with pytest.raises(ValueError, match="support"):
        check_value(Normal(0.0, 1.0, validate_args=True), value)
    check_value(Normal(0.0, 1.0, validate_args=False), value)


def test_instance_for_expand() -> None:
    normal = Normal(0.0, 1.0)
    assert type(instance_for_expand(normal, Normal, None)) is Normal
    assert instance_for_expand(normal, Normal, normal) is normal


def test_version_of_a_tensor_counts_writes() -> None:
    tensor = torch.zeros(2)
    before = version_of(tensor)
    assert version_of(tensor) == before
    tensor.add_(1)
    assert version_of(tensor) != before


def test_copy_with_modules_of_its_own() -> None:
    from copy import copy

    module = nn.Sequential(nn.Linear(1, 1))
    twin = with_own_modules(copy(module))
    twin[0] = nn.Identity()
    assert isinstance(module[0], nn.Linear)


def test_moved_transform_forgets_its_inverse() -> None:
    transform = AffineTransform(torch.zeros(2), torch.ones(2), cache_size=1)
    assert hasattr(transform, "_inv")
    assert hasattr(transform, "_cached_x_y")
    assert torch.equal(transform.inv(torch.ones(2)), torch.ones(2))
    moved = moved_transform(transform, lambda tensor: tensor.double() + 1)
    assert torch.equal(moved.inv(torch.ones(2).double()), torch.zeros(2).double())
    inverse = moved_transform(transform.inv, lambda tensor: tensor.double())
    assert inverse(torch.ones(2).double()).dtype == torch.float64
    assert TransformedDistribution(Normal(torch.zeros(2), 1.0), [transform]).log_prob(torch.ones(2)).shape == (2,)
