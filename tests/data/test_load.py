"""Named data sets, their scaling and binarisation, against known answers."""

import random
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from probvae.data import DATASETS, load_data
from probvae.errors import ArgumentError, ConfigError, DataError, SupportError, UnknownNameError


def test_digits() -> None:
    data = load_data("digits")
    assert data.x.shape == (1797, 64)
    assert data.x.dtype == np.float32
    assert (data.x.min(), data.x.max()) == (0.0, 1.0)
    assert data.image_shape == (8, 8)
    assert data.scaling == "unit"
    assert np.bincount(data.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # total variance of digits/16, as in Tipping and Bishop's closed form
    assert data.x.astype(np.float64).var(0).sum() == pytest.approx(4.69327632, abs=1e-6)


def test_digits_unscaled_are_counts() -> None:
    assert set(np.unique(load_data("digits", scaling="none").x)) == set(range(17))


@pytest.mark.parametrize(("name", "shape"), [("iris", (150, 4)), ("wine", (178, 13)), ("breast-cancer", (569, 30))])
def test_tables_are_standardised(name: str, shape: tuple[int, int]) -> None:
    data = load_data(name)
    assert data.x.shape == shape
    np.testing.assert_allclose(data.x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.x.std(0), 1, atol=1e-5)
    assert len(data.feature_names) == shape[1]
    assert len(data.labels) == shape[0]


def test_constant_columns_are_centred_not_divided() -> None:
    data = load_data("digits", scaling="standardize")
    assert np.isfinite(data.x).all()
    spread = data.x.std(0)
    assert (spread < 1e-6).sum() == 3  # three pixels of the digits are always empty
    np.testing.assert_allclose(spread[spread > 1e-6], 1, atol=1e-4)


def test_linear_gaussian_has_the_covariance_of_its_truth() -> None:
    num = 200_000
    data = load_data("linear-gaussian", options={"num_data": num, "data_dim": 3, "variance": 0.25, "seed": 5})
    truth = data.truth
    covariance = truth.weight @ truth.weight.T + 0.25 * np.eye(3)
    x = data.x.astype(np.float64)
    diagonal = np.diag(covariance)
    error = np.sqrt((np.outer(diagonal, diagonal) + covariance**2) / num)  # of a sample covariance
    assert (np.abs(np.cov(x.T) - covariance) < 5 * error).all()
    assert (np.abs(x.mean(0) - truth.bias) < 5 * np.sqrt(diagonal / num)).all()


def test_linear_gaussian_depends_on_its_seed_only() -> None:
    one, same, other = (load_data("linear-gaussian", seed=s).fingerprint() for s in (1, 1, 2))
    assert one == same != other


def test_random_states_are_left_alone() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    load_data("digits", binarization="fixed")
    load_data("linear-gaussian")
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert before == after


def test_fingerprint_sees_one_value() -> None:
    data, again = load_data("iris"), load_data("iris")
    assert data.fingerprint() == again.fingerprint()
    again.x[77, 2] += 1e-3
    assert data.fingerprint() != again.fingerprint()


def test_fixed_binarisation_has_the_right_mean() -> None:
    grey, binary = load_data("digits"), load_data("digits", binarization="fixed", seed=3)
    assert set(np.unique(binary.x)) == {0.0, 1.0}
    p = grey.x.astype(np.float64)
    standard_error = np.sqrt((p * (1 - p)).sum())
    assert abs(binary.x.sum(dtype=np.float64) - p.sum()) < 5 * standard_error
    assert (binary.x[grey.x == 1] == 1).all()
    assert binary.fingerprint() != load_data("digits", binarization="fixed", seed=4).fingerprint()


def test_threshold_and_fresh() -> None:
    grey = load_data("digits")
    assert (load_data("digits", binarization="threshold").x == (grey.x > 0.5)).all()
    fresh = load_data("digits", binarization="fresh")
    assert (fresh.x == grey.x).all()
    assert fresh.binarization == "fresh"


def test_take_keeps_data_and_labels_together() -> None:
    data = load_data("digits")
    part = data.take(np.array([3, 10, 5]))
    assert part.labels.tolist() == data.labels[[3, 10, 5]].tolist()
    assert (part.x == data.x[[3, 10, 5]]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"source": "digit"}, UnknownNameError, "Did you mean 'digits'"),
        ({"source": "digits", "scaling": "standardise"}, UnknownNameError, "Did you mean 'standardize'"),
        ({"source": "digits", "binarization": "freshly"}, UnknownNameError, "Did you mean 'fresh'"),
        ({"source": "iris", "binarization": "fixed"}, SupportError, r"values in \[0, 1\].*scaling='unit'"),
        ({"source": "iris", "split": "test"}, ConfigError, "split: 'iris' does not take it"),
        ({"source": "iris", "labels": "x"}, ConfigError, "labels: 'iris' does not take it"),
        ({"source": "mnist", "split": "validation"}, ConfigError, "'train' or 'test'"),
        ({"source": "iris", "num_data": 0}, ArgumentError, "expected 1 to 150"),
        ({"source": "iris", "num_data": 151}, ArgumentError, "expected 1 to 150"),
        ({"source": "linear-gaussian", "options": {"num_dat": 5}}, UnknownNameError, "Did you mean 'num_data'"),
        ({"source": "linear-gaussian", "options": {"variance": -1}}, ArgumentError, "finite number > 0, got -1"),
        ({"source": "linear-gaussian", "options": {"data_dim": 0}}, ArgumentError, "integer >= 1, got 0"),
    ],
)
def test_mistakes(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_data(**arguments)


def write_idx(folder: Path, images: np.ndarray, labels: np.ndarray, prefix: str) -> None:
    """MNIST's own file format."""
    folder.mkdir(parents=True, exist_ok=True)
    num, height, width = images.shape
    header = struct.pack(">IIII", 0x803, num, height, width)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.astype(np.uint8).tobytes())
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(
        struct.pack(">II", 0x801, num) + labels.astype(np.uint8).tobytes()
    )


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST"), ("kmnist", "KMNIST")]
)
def test_torchvision_folder_is_read_without_a_network(tmp_path: Path, name: str, folder: str) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (7, 28, 28)), np.arange(7)
    for prefix in ("train", "t10k"):
        write_idx(tmp_path / folder / "raw", images + (prefix == "t10k"), labels, prefix)
    data = load_data(name, data_dir=tmp_path)
    np.testing.assert_allclose(data.x, images.reshape(7, 784) / 255, atol=1e-7)
    assert data.labels.tolist() == list(range(7))
    assert data.image_shape == (28, 28)
    test = load_data(name, data_dir=tmp_path, split="test", scaling="none")
    np.testing.assert_array_equal(test.x, ((images + 1) % 256).reshape(7, 784))


def test_damaged_torchvision_folder(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw, np.zeros((3, 28, 28)), np.arange(3), "train")
    write_idx(raw, np.zeros((3, 28, 28)), np.arange(3), "t10k")
    (raw / "train-images-idx3-ubyte").write_bytes(b"\x00\x00")
    with pytest.raises(DataError, match="MNIST"):
        load_data("mnist", data_dir=tmp_path)


def test_every_named_set_says_what_it_is() -> None:
    assert all(spec.summary for spec in DATASETS.values())


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    read, bunch = load_data("digits", scaling="none"), load_digits()
    assert np.array_equal(read.x, bunch.data)
    assert np.array_equal(read.labels, bunch.target)
    assert read.labels.dtype == bunch.target.dtype
