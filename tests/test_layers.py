"""Euler steps: exact adjoints, slopes of the activations, and the averaged inequality."""

from __future__ import annotations

import pytest
import torch

from pnp_cli.certificate import certify_layer
from pnp_cli.layers import Activation, BiasedReLU, EulerStep, HuberField, HuberMixture, dct_colour_frame, grid_offset

from .helpers import relative_dot_test


def activation_for(name: str, filters: int) -> Activation:
    """An activation by name, for so many filters."""
    if name == "field":
        return HuberField(filters, 4)
    if name == "relu":
        return BiasedReLU(filters)
    return HuberMixture(filters, 2 if name == "pairs" else 1)


def parameter_for(name: str, sigma: float, height: int, width: int) -> torch.Tensor:
    """What an activation depends on besides its input: a noise level, or maps."""
    if name == "field":
        return torch.randn(1, 4, height, width, dtype=torch.float64)
    if name == "map":
        return sigma * torch.rand(1, 1, height, width, dtype=torch.float64)
    return level(sigma, torch.float64)


def level(sigma: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """One noise level for the whole of one image, as the steps take it."""
    return torch.full((1, 1, 1, 1), sigma, dtype=dtype)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("size", [(4, 8), (3, 5)])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_adjoint(scale: int, size: tuple[int, int], kernel_size: int) -> None:
    for turn in range(4):
        offset = grid_offset(scale, turn)
        step = EulerStep(3, 7, kernel_size, scale, BiasedReLU(7), offset).double().requires_grad_(False)
        relative_dot_test(step.analyse, step.synthesise, torch.empty(2, 3, size[0] * scale, size[1] * scale))


@pytest.mark.parametrize("offset", [(2, 2), (1, 3), (0, 1), (3, 0)])
def test_an_offset_grid_is_that_of_the_image_with_zeros_before_it(offset: tuple[int, int]) -> None:
    step = EulerStep(3, 7, 3, 4, BiasedReLU(7), offset).requires_grad_(False)
    plain = EulerStep(3, 7, 3, 4, step.activation)
    plain.load_state_dict(step.state_dict())
    x, sigma = torch.rand(1, 3, 8, 12), level(0.1)
    canvas = torch.zeros(1, 3, 12 if offset[0] else 8, 16 if offset[1] else 12)
    where = (..., slice(offset[0], offset[0] + 8), slice(offset[1], offset[1] + 12))
    canvas[where] = x
    torch.testing.assert_close(step(x, sigma), plain(canvas, sigma)[where])


@pytest.mark.parametrize("scale", [2, 4])
def test_offsets_reach_every_row_and_column(scale: int) -> None:
    offsets = [grid_offset(scale, turn) for turn in range(4)]
    assert {row for row, _ in offsets} == {column for _, column in offsets} == set(range(scale))


@pytest.mark.parametrize("name", ["relu", "huber", "field"])
def test_slopes_are_between_0_and_1(name: str) -> None:
    activation = activation_for(name, 5).double().requires_grad_(False)
    for parameter in activation.parameters():
        torch.nn.init.normal_(parameter)
    t = torch.linspace(-3, 3, 20_001, dtype=torch.float64).expand(1, 5, 1, -1)
    for sigma in (0.0, 0.01, 0.1, 0.5):
        parameter = parameter_for(name, sigma, 1, 1)
        if name == "field":  # one threshold for all inputs
            parameter = parameter.expand(-1, -1, 1, t.shape[3])
        values = activation(t.clone(), parameter)
        slopes = values.diff(dim=3) / t.diff(dim=3)
        assert slopes.min() >= -1e-9
        assert slopes.max() <= 1 + 1e-9


def test_huber_mixture_saturates() -> None:
    """Small coefficients pass (and are subtracted from the image), large ones are clipped at the threshold."""
    activation = HuberMixture(1).requires_grad_(False)
    sigma = level(0.1)
    small, large, larger = (float(activation(torch.full((1, 1, 1, 1), t), sigma)) for t in (1e-4, 1.0, 1.1))
    assert small == pytest.approx(1e-4, rel=1e-3)
    assert (larger - large) / 0.1 < 0.05


@pytest.mark.parametrize("kind", ["level", "map"])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_huber_mixture_is_firmly_nonexpansive(group: int, kind: str) -> None:
    """|Sx - Sy|^2 <= <Sx - Sy, x - y>, down to no noise, on pairs near and far."""
    activation = HuberMixture(8, group).double().requires_grad_(False)
    for parameter in activation.parameters():
        torch.nn.init.normal_(parameter)
    for sigma in (0.0, 1e-4, 0.1, 0.5):
        parameter = parameter_for(kind, sigma, 9, 9)
        for size in (1e-6, 1e-3, 0.1, 1.0):
            x = torch.randn(1, 8, 9, 9, dtype=torch.float64)
            x[..., 0] = 0  # where a norm has no derivative
            d = size * torch.randn_like(x)
            change = activation(x + d, parameter) - activation(x.clone(), parameter)
            assert float(change.square().sum()) <= float((change * d).sum()) * (1 + 1e-9)


def test_groups_are_projected_onto_balls() -> None:
    """The direction of a group is kept, and its length cut at the threshold."""
    activation = HuberMixture(2, 2).requires_grad_(False)
    sigma = level(0.1)
    large = activation(torch.tensor([3.0, 4.0])[None, :, None, None], sigma).flatten()
    small = activation(torch.tensor([3e-4, 4e-4])[None, :, None, None], sigma).flatten()
    torch.testing.assert_close(small, torch.tensor([3e-4, 4e-4]))
    torch.testing.assert_close(large[1] / large[0], torch.tensor(4 / 3))
    alone = HuberMixture(1).requires_grad_(False)(torch.full((1, 1, 1, 1), 5.0), sigma)
    torch.testing.assert_close(large.norm(), alone.flatten().norm())


@pytest.mark.parametrize("name", ["relu", "huber", "pairs", "field"])
@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9])
def test_step_is_averaged_with_its_certified_constant(name: str, alpha: float) -> None:
    """|Tx - Ty|^2 + (1 - a)/a |(id - T)x - (id - T)y|^2 <= |x - y|^2 on random pairs, near and far."""
    step = EulerStep(3, 10, 3, 2, activation_for(name, 10)).double().requires_grad_(False)
    step.step.fill_(1.0)
    step.step.fill_(alpha / certify_layer(step, "").alpha)
    a = certify_layer(step, "").alpha
    assert a == pytest.approx(alpha)
    parameter = parameter_for(name, 0.1, 3, 5)
    for size in (0.001, 0.1, 1.0, 10.0):
        for _ in range(10):
            x = torch.randn(1, 3, 6, 10, dtype=torch.float64)
            y = x + size * torch.randn_like(x)
            tx, ty = step(x, parameter), step(y, parameter)
            left = (tx - ty).square().sum() + (1 - a) / a * ((x - tx) - (y - ty)).square().sum()
            assert float(left) <= float((x - y).square().sum()) * (1 + 1e-12)


@pytest.mark.parametrize("scale", [1, 2])
def test_complete_frame_is_tight(scale: int) -> None:
    """All rows but the constant of the first colour: AᵀA = k² id on signals without a mean."""
    filters = 3 * (3 * scale) ** 2
    step = EulerStep(3, filters, 3, scale, HuberMixture(filters)).double().requires_grad_(False)
    step.weight.copy_(dct_colour_frame(3, scale, 3, filters) / 3)
    x = torch.zeros(1, 3, 12 * scale, 12 * scale, dtype=torch.float64)
    x[:, :, 4 * scale : 8 * scale, 4 * scale : 8 * scale] = torch.randn(3, 4 * scale, 4 * scale)
    grey = torch.ones(3, dtype=torch.float64)[:, None, None] / 3**0.5
    x = x - grey * (x * grey).sum(1, keepdim=True)  # no luminance, so the missing row does not matter
    torch.testing.assert_close(step.synthesise(step.analyse(x)), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("group", [1, 2])
def test_tiny_thresholds_are_finite_in_single_precision(group: int) -> None:
    """Steep thresholds at hardly any noise, and coefficients that are exactly zero."""
    activation = HuberMixture(4, group)
    torch.nn.init.constant_(activation.log_threshold_slope, 12.0)
    t = torch.randn(1, 4, 6, 6)
    t[..., :3] = 0
    t.requires_grad_(True)
    out = activation(t, level(1e-6))
    out.square().sum().backward()
    assert out.isfinite().all()
    assert t.grad is not None
    assert t.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in activation.parameters())
