"""The norm bound against dense matrices of real convolutions, and what the certificate concludes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pnp_cli.certificate import certify, compose, norm_lower_bound, norm_upper_bound
from pnp_cli.denoisers import DnCNNArchitecture, Ensemble
from pnp_cli.presets import build

from .helpers import small_network

SHAPES = [(5, 3, 3, 3), (3, 7, 3, 3), (4, 4, 5, 5), (2, 3, 3, 5), (3, 2, 1, 1)]


def dense_norm(weight: Tensor, size: tuple[int, int], padding: str) -> float:
    """Largest singular value of the convolution on images of `size`, by a dense SVD."""
    channels = weight.shape[1]
    n = channels * size[0] * size[1]
    basis = torch.eye(n, dtype=torch.float64).reshape(n, channels, *size)
    pad = [k // 2 for k in (weight.shape[3], weight.shape[3], weight.shape[2], weight.shape[2])]
    padded = F.pad(basis, pad, mode="circular" if padding == "periodic" else "constant")
    matrix = F.conv2d(padded, weight.double()).reshape(n, -1).numpy()
    return float(np.linalg.svd(matrix, compute_uv=False)[0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(5, 5), (6, 9), (11, 8)])
@pytest.mark.parametrize("padding", ["zero", "periodic"])
@pytest.mark.parametrize("grid", [8, 32, 64])
def test_upper_bound_is_never_below_a_dense_svd(
    shape: tuple[int, ...], size: tuple[int, int], padding: str, grid: int
) -> None:
    weight = torch.randn(shape)
    assert norm_upper_bound(weight, grid) >= dense_norm(weight, size, padding)


@pytest.mark.parametrize("shape", SHAPES)
def test_bounds_enclose_the_supremum_tightly(shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape)
    upper, lower = norm_upper_bound(weight), norm_lower_bound(weight)
    fine = norm_upper_bound(weight, 512)
    assert lower <= fine <= upper <= 1.02 * lower


def test_bound_of_a_kernel_between_grid_frequencies() -> None:
    """1 + e^{i(w - w0)} peaks between the frequencies of every coarse grid; the norm is 2."""
    turn = math.pi / 8  # half a grid step of N = 8
    c, s = math.cos(turn), math.sin(turn)
    weight = torch.zeros(2, 2, 1, 3)
    weight[:, :, 0, 1] = torch.eye(2)
    weight[:, :, 0, 2] = torch.tensor([[c, -s], [s, c]])
    assert norm_lower_bound(weight, side=8) < 1.97
    for grid in (8, 16, 64):
        assert 2 <= norm_upper_bound(weight, grid) <= 2 / math.cos(math.pi / grid) * 1.0001


def test_known_norms() -> None:
    identity = torch.zeros(1, 1, 3, 3)
    identity[0, 0, 1, 1] = 1
    assert norm_upper_bound(identity) == pytest.approx(1, rel=3e-3)
    difference = torch.tensor([[[[0.0, -1.0, 1.0]]]])
    assert norm_upper_bound(difference) == pytest.approx(2, rel=3e-3)
    assert norm_lower_bound(difference) == pytest.approx(2, rel=1e-12)


def test_bound_refuses_what_has_no_norm() -> None:
    with pytest.raises(ValueError, match="not finite"):
        norm_upper_bound(torch.full((1, 1, 3, 3), math.nan))
    with pytest.raises(ValueError, match="grid finer"):
        norm_upper_bound(torch.ones(1, 1, 3, 3), grid=2)


def test_compose() -> None:
    assert compose([]) == 0
    assert compose([0.3]) == pytest.approx(0.3)
    assert compose([0.5, 0.5]) == pytest.approx(2 / 3)  # two projections: Combettes & Yamada, with n/(n + 1)
    assert compose([0.0, 0.5]) == pytest.approx(0.5)
    assert compose([0.5, 1.0]) == 1.0
    assert compose([0.5, 1.2]) == 1.0


@pytest.mark.parametrize("activation", ["huber", "relu"])
@pytest.mark.parametrize("size", [(16, 16), (13, 18)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("staggered", [False, True])
def test_network_is_averaged_on_random_pairs(
    activation: str, size: tuple[int, int], channels: int, staggered: bool
) -> None:
    network = small_network(activation, (2, 4, 2, 4), staggered, centre=0.5 * staggered).double()
    a = certify(network).alpha
    assert a < 1
    for denoise in (network, Ensemble(network)):
        for distance in (0.001, 0.1, 5.0):
            x = torch.rand(1, channels, *size, dtype=torch.float64)
            y = x + distance * torch.randn_like(x)
            tx, ty = denoise(x, 0.1), denoise(y, 0.1)
            left = (tx - ty).square().sum() + (1 - a) / a * ((x - tx) - (y - ty)).square().sum()
            assert float(left) <= float((x - y).square().sum()) * (1 + 1e-12)


def test_step_at_or_past_the_limit_is_not_certified() -> None:
    network = small_network()
    step = network.steps[1]  # type: ignore[index]
    for factor in (1 + 1e-6, 1.5):  # τ is stored in float32
        step.step.fill_(factor * 2 / norm_upper_bound(step.weight) ** 2)
        certificate = certify(network)
        assert not certificate.averaged
        assert certificate.alpha == 1.0
        assert "steps.1" in certificate.reason
    step.step.fill_(-0.1)
    assert not certify(network).averaged
    step.step.fill_(math.nan)
    assert not certify(network).averaged


def test_ensemble_has_the_certificate_of_its_network() -> None:
    network = small_network()
    assert certify(Ensemble(network)) == certify(network)


def test_unconstrained_network_is_not_certified() -> None:
    certificate = certify(build(DnCNNArchitecture()))
    assert not certificate.averaged
    assert "unconstrained" in certificate.reason
