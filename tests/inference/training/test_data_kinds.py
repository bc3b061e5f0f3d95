"""What a fit takes: arrays, tensors and tables of every kind, with what they say of missing entries; small tables."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch.utils.data import Subset, TensorDataset

import probvae
from probvae import VAE, RowsOnDisk, fit
from probvae.errors import ProbvaeError
from probvae.inference import DiagonalGuide, MaskedEncoder, MLPEncoder
from probvae.inference.training.training_data import as_plain
from probvae.models import GaussianLikelihood, LatentModel, MLPDecoder, NumberCovariates, StandardNormalPrior

X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
MASK = X > 1


def make(missing: str = "refuse") -> VAE:
    torch.manual_seed(0)
    encoder = MLPEncoder(5, hidden=(8,))
    if missing == "mask":
        encoder = MaskedEncoder(MLPEncoder(10, hidden=(8,)), 5)
    model = LatentModel(StandardNormalPrior(2), MLPDecoder(2, 5, hidden=(8,)), GaussianLikelihood(5), missing=missing)
    return VAE(model, DiagonalGuide(encoder, 2))


def weights(x: Any, missing: str = "refuse", **options: Any) -> torch.Tensor:
    """All weights after a short fit to ``x``."""
    vae = make(missing)
    fit(vae, x, **{"epochs": 2, "batch_size": 8, "progress": False, **options})
    return torch.cat([parameter.flatten() for parameter in vae.parameters()]).detach()


def in_inference_mode() -> torch.Tensor:
    with torch.inference_mode():
        return torch.tensor(X) * 1


def of_a_graph() -> torch.Tensor:
    return torch.tensor(X, requires_grad=True) * 1


pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass is not the recommended way")

KINDS: dict[str, Callable[[], Any]] = {
    "array": lambda: X,
    "array of rows in Fortran's order": lambda: np.asfortranarray(X),
    "reversed twice": lambda: X[::-1].copy()[::-1],
    "flipped twice": lambda: np.fliplr(np.fliplr(X).copy()),
    "read-only array": lambda: np.frombuffer(X.tobytes(), dtype=np.float32).reshape(X.shape),
    "float64": lambda: X.astype(np.float64),
    "matrix": lambda: np.asmatrix(X),
    "masked array without a mask": lambda: np.ma.masked_array(X),
    "tensor of a graph": of_a_graph,
    "parameter": lambda: torch.nn.Parameter(torch.tensor(X)),
    "inference-mode tensor": in_inference_mode,
    "sparse tensor": lambda: torch.tensor(X).to_sparse(),
    "sparse tensor in rows": lambda: torch.tensor(X).to_sparse_csr(),
    "sparse matrix": lambda: scipy.sparse.csr_matrix(X),
    "sparse array": lambda: scipy.sparse.coo_array(X),
    "pandas": lambda: pd.DataFrame(X),
    "pandas with an index": lambda: pd.DataFrame(X, index=[f"r{n}" for n in range(40)], columns=list("abcde")),
    "dataset": lambda: TensorDataset(torch.tensor(X)),
    "dataset of a graph": lambda: TensorDataset(of_a_graph()),
    "dataset in inference mode": lambda: TensorDataset(in_inference_mode()),
    "part of a dataset": lambda: Subset(TensorDataset(torch.tensor(X)), range(40)),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("kind", KINDS)
def test_one_fit_for_every_kind(kind: str) -> None:
    assert torch.equal(weights(KINDS[kind]()), weights(torch.tensor(X)))


@pytest.mark.parametrize("kind", ["array", "inference-mode tensor", "tensor of a graph", "pandas", "sparse matrix"])
def test_validation_data_are_of_any_kind_too(kind: str) -> None:
    expected = weights(torch.tensor(X), validation=torch.tensor(X), patience=1)
    assert torch.equal(weights(X, validation=KINDS[kind](), patience=1), expected)


HIDDEN = np.where(MASK, 1e6, X)
MISSING: dict[str, Callable[[], Any]] = {
    "masked array": lambda: np.ma.masked_array(HIDDEN.astype(np.float32), mask=MASK),
    "masked float64": lambda: np.ma.masked_array(HIDDEN, mask=MASK),
    "pandas": lambda: pd.DataFrame(np.where(MASK, np.nan, X)),
    "nullable pandas": lambda: pd.DataFrame(np.where(MASK, np.nan, X)).astype("Float32"),
}


@pytest.mark.parametrize("kind", MISSING)
def test_masked_entries_are_missing(kind: str) -> None:
    nan = torch.tensor(np.where(MASK, np.nan, X).astype(np.float32))
    assert torch.equal(weights(MISSING[kind](), "mask"), weights(nan, "mask"))
    rows = int(MASK.any(1).sum())
    with pytest.raises(ProbvaeError, match=rf"x: {rows} of 40 rows contain NaN.*missing='mask'"):
        weights(MISSING[kind]())


def test_masked_integers() -> None:
    counts = np.ma.masked_equal(np.arange(6).reshape(3, 2), 3)
    np.testing.assert_array_equal(as_plain(counts), [[0, 1], [2, np.nan], [4, 5]])


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "meta tensor": (lambda: torch.empty(40, 5, device="meta"), "x: expected values, got a meta tensor"),
    "nested tensor": (lambda: torch.nested.nested_tensor([torch.zeros(5), torch.zeros(4)]), "got a nested tensor"),
    "objects": (lambda: X.astype(object), "x: expected numbers, got dtype object"),
    "text": (lambda: X.astype(str), "x: expected numbers"),
    "dates": (lambda: X.astype("datetime64[s]"), "x: expected numbers"),
    "masked text": (lambda: np.ma.masked_array(X.astype(str)), "x: expected numbers"),
    "text in a frame": (lambda: pd.DataFrame({"a": list("uvw")}), "x: expected numbers in column 'a'"),
    "a wide sparse matrix": (lambda: scipy.sparse.csr_matrix((10**6, 10**6)), "do not fit into memory"),
    "a series": (lambda: pd.Series(X[:, 0]), "x: expected a torch.Tensor, got Series"),
    "a list": (lambda: X.tolist(), "x: expected a torch.Tensor, got list"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", REFUSED)
def test_the_rest_is_refused_by_a_message(kind: str) -> None:
    make_x, message = REFUSED[kind]
    with pytest.raises(ProbvaeError, match=message):
        weights(make_x())


@pytest.mark.parametrize("kind", [*KINDS, *MISSING])
def test_the_advice_of_other_functions_works(kind: str) -> None:
    """elbo and its like take tensors, and say how to make one: their advice is followed here, word for word."""
    x = {**KINDS, **MISSING}[kind]()
    if isinstance(x, torch.Tensor) or "dataset" in kind:
        pytest.skip("a tensor already, or of fit alone")
    with pytest.raises(ProbvaeError, match=r"Convert it with (torch\.as_tensor\(.*\))\.") as caught:
        probvae.elbo(make(), x)
    (call,) = re.findall(r"Convert it with (.*)\.$", str(caught.value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of read-only memory
        made = eval(call, {"torch": torch, "numpy": np, "x": x})
    torch.testing.assert_close(made.float().nan_to_num(7), torch.tensor(np.where(MASK & (kind in MISSING), 7, X)))


@pytest.mark.parametrize(("make_x", "word"), [(lambda x: x.to("meta"), "meta"), (lambda x: x.to_sparse(), "to_dense")])
def test_tensors_without_values(make_x: Callable[[torch.Tensor], torch.Tensor], word: str) -> None:
    for function in (probvae.elbo, probvae.posterior_mean):
        with pytest.raises(ProbvaeError, match=word):
            function(make(), make_x(torch.tensor(X)))


def test_no_mask_of_covariates_is_lost() -> None:
    y = np.ma.masked_greater(X[:, 0], 1)
    with pytest.raises(ProbvaeError, match=r"y: \d+ of 40 rows have a masked entry"):
        NumberCovariates([0.0], [1.0]).encode(y)
    labels = np.ma.masked_equal(np.arange(40) % 3, 2)
    with pytest.raises(ProbvaeError, match="y: 13 of 40 rows have a masked entry"):
        probvae.models.covariates_for(labels)


@pytest.mark.parametrize("num_rows", [2, 5, 40, 127])
@pytest.mark.parametrize("kind", ["tensor", "disk", "dataset"])
def test_a_small_table_is_one_minibatch(num_rows: int, kind: str) -> None:
    x = torch.tensor(np.resize(X, (num_rows, 5)) + np.arange(num_rows)[:, None].astype(np.float32))
    data: Any = {
        "tensor": lambda: x,
        "disk": lambda: RowsOnDisk(x.numpy()),
        "dataset": lambda: Subset(TensorDataset(x, torch.arange(num_rows)), range(num_rows)),
    }[kind]()
    assert torch.equal(weights(data, batch_size=128), weights(data, batch_size=num_rows))


@pytest.mark.parametrize("objective", sorted(probvae.inference.Objective.all_registered()))
def test_every_objective_fits_a_small_table(objective: str) -> None:
    result = fit(make(), torch.tensor(X), objective=objective, epochs=2, validation=0.2, progress=False)
    assert len(result.history) == 2
