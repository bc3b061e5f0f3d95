"""Pairs (z, x): their joint moments, covariates and missing entries."""

import math

import torch
from torch.testing import assert_close

import probvae
from probvae.inference.evaluation.simulation import simulate_pairs
from tests.support import example_a
from tests.support.vaes import exact_vae


def test_joint_moments_of_example_a() -> None:
    pairs = simulate_pairs(exact_vae(), 100_000, seed=3)
    joint = torch.cat([pairs.z, pairs.x - example_a.B], dim=1)
    w = example_a.W
    marginal = w @ w.T + example_a.C * torch.eye(3, dtype=torch.float64)
    expected = torch.cat([torch.cat([torch.eye(2, dtype=torch.float64), w.T], 1), torch.cat([w, marginal], 1)])
    diagonal = expected.diagonal()
    error = (diagonal.outer(diagonal) + expected.square()).sqrt() / math.sqrt(len(joint))
    assert ((joint.T @ joint / len(joint) - expected).abs() < 5 * error).all()


def test_seed_decides_and_the_callers_state_is_left() -> None:
    vae, state = exact_vae(), torch.get_rng_state()
    first, second = (simulate_pairs(vae, 7, seed=5) for _ in range(2))
    assert_close(first.x, second.x, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_missing_entries_are_taken_over_from_data() -> None:
    like = torch.zeros(4, 3)
    like[:, 1] = torch.nan
    vae = probvae.VAE.example()
    assert simulate_pairs(vae, 9, like=like).x.isnan().sum(0).tolist() == [0, 9, 0]
