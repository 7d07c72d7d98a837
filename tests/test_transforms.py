"""Ψ is orthonormal for every size, and shifts of it are a Parseval frame."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from pnp_cli import Blur, UsageError, cycle, from_opponent, kernels, make_transform, to_opponent
from pnp_cli.transforms import BlockDCT, Transform

from .helpers import relative_dot_test

SIZES = [(16, 16), (15, 22), (1, 7), (33, 2), (3, 3), (1, 1)]
BASES = ["pixel", "dct", "dct4", "dct5", "haar", "db4", "sym5", "coif2"]


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("size", SIZES)
def test_orthonormal(basis: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    for psi in cycle(make_transform(basis), 3):
        c = psi.forward(x)
        assert c.shape == x.shape
        torch.testing.assert_close(psi.adjoint(c), x)
        torch.testing.assert_close(psi.forward(psi.adjoint(x)), x)
        torch.testing.assert_close(c.norm(), x.norm())
        relative_dot_test(psi.forward, psi.adjoint, x)


@pytest.mark.parametrize("basis", ["dct", "dct4", "haar", "db4"])
def test_smooth_images_become_sparse(basis: str) -> None:
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64)
    c = make_transform(basis).forward((ramp[:, None] + ramp)[None, None])
    strongest = c.square().flatten().sort(descending=True).values
    assert strongest[:256].sum() > 0.99 * strongest.sum()


def test_haar_of_a_known_image() -> None:
    """Two pixels: (a + b)/√2 and (a − b)/√2."""
    c = make_transform("haar").forward(torch.tensor([[[[3.0, 1.0]]]]))
    torch.testing.assert_close(c.abs(), torch.tensor([[[[4.0, 2.0]]]]) / 2**0.5)


def test_blocks_are_those_of_scipy() -> None:
    x = torch.randn(1, 1, 10, 9, dtype=torch.float64)
    c = BlockDCT(4, levels=1).forward(x)[0, 0].numpy()
    for rows in (slice(0, 4), slice(4, 8), slice(8, 10)):
        for columns in (slice(0, 4), slice(4, 8), slice(8, 9)):
            np.testing.assert_allclose(c[rows, columns], dctn(x[0, 0, rows, columns].numpy(), norm="ortho"), atol=1e-14)


@pytest.mark.parametrize("basis", ["bior2.2", "nonsense", "mexh", "dmey", "", "dct1", "dct65", "dct-4", "dct4x"])
def test_unusable_bases(basis: str) -> None:
    with pytest.raises(UsageError):
        make_transform(basis)


@pytest.mark.parametrize(("count", "period"), [(4, 2), (16, 4)])
def test_shifts_have_all_remainders(count: int, period: int) -> None:
    psi, mark = make_transform("dct4"), torch.zeros(1, 1, 32, 32)
    mark[0, 0, 0, 0] = 1
    places = [divmod(int(psi.adjoint(shifted.forward(mark)).argmax()), 32) for shifted in cycle(psi, count)]
    assert len({(row % period, column % period) for row, column in places}) == count == period**2


def test_shifted_pixels_are_pixels() -> None:
    assert len(cycle(make_transform("pixel"), 8)) == 1


def test_all_shifts_of_blocks_commute_with_shifts() -> None:
    """Averaged over all 16 shifts, shrinkage of 4x4 blocks does the same everywhere (sizes divisible by 4)."""
    frame = cycle(BlockDCT(4, levels=1), 16)
    x = torch.randn(1, 1, 8, 12, dtype=torch.float64)

    def shrink(x: torch.Tensor, transforms: Sequence[Transform]) -> torch.Tensor:
        return torch.stack([psi.adjoint(psi.forward(x).clamp(-0.3, 0.3)) for psi in transforms]).mean(0)

    def asymmetry(transforms: Sequence[Transform]) -> float:
        return float(
            (shrink(x.roll((1, 3), (-2, -1)), transforms).roll((-1, -3), (-2, -1)) - shrink(x, transforms)).norm()
        )

    assert asymmetry(frame) < 1e-13 < 0.1 < asymmetry(frame[:1])


def test_levels_of_blocks_make_flat_images_sparse() -> None:
    """One coefficient per block of the last level."""
    for levels, number in ((1, 8 * 16), (2, 2 * 4), (3, 1)):
        c = BlockDCT(4, levels).forward(torch.ones(1, 1, 32, 64, dtype=torch.float64))
        assert int((c.abs() > 1e-12).sum()) == number


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_opponent_colours_are_orthonormal_and_commute_with_a_blur(channels: int) -> None:
    x = torch.randn(2, channels, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(from_opponent(to_opponent(x)), x)
    torch.testing.assert_close(to_opponent(from_opponent(x)), x)
    relative_dot_test(to_opponent, from_opponent, x)
    blur = Blur(kernels.motion(4, 30), (9, 8), dtype=torch.float64)
    torch.testing.assert_close(blur.forward(to_opponent(x)), to_opponent(blur.forward(x)))
    if channels == 1:
        torch.testing.assert_close(to_opponent(x), x)


def test_grey_has_no_opponent_colours() -> None:
    grey = torch.rand(1, 1, 5, 6, dtype=torch.float64).expand(-1, 3, -1, -1)
    c = to_opponent(grey)
    torch.testing.assert_close(c[:, 0], 3**0.5 * grey[:, 0])
    assert c[:, 1:].abs().max() < 1e-15
