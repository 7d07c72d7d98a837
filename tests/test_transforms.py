"""Ψ is orthonormal for every size."""

from __future__ import annotations

import pytest
import torch

from pnp_cli import UsageError, make_transform

from .helpers import relative_dot_test

SIZES = [(16, 16), (15, 22), (1, 7), (33, 2), (3, 3), (1, 1)]


@pytest.mark.parametrize("basis", ["pixel", "dct", "haar", "db4", "sym5", "coif2"])
@pytest.mark.parametrize("size", SIZES)
def test_orthonormal(basis: str, size: tuple[int, int]) -> None:
    psi = make_transform(basis)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    c = psi.forward(x)
    assert c.shape == x.shape
    torch.testing.assert_close(psi.adjoint(c), x)
    torch.testing.assert_close(psi.forward(psi.adjoint(x)), x)
    torch.testing.assert_close(c.norm(), x.norm())
    relative_dot_test(psi.forward, psi.adjoint, x)


@pytest.mark.parametrize("basis", ["dct", "haar", "db4"])
def test_smooth_images_become_sparse(basis: str) -> None:
    ramp = torch.linspace(0, 1, 64, dtype=torch.float64)
    c = make_transform(basis).forward((ramp[:, None] + ramp)[None, None])
    strongest = c.square().flatten().sort(descending=True).values
    assert strongest[:64].sum() > 0.99 * strongest.sum()


def test_haar_of_a_known_image() -> None:
    """Two pixels: (a + b)/√2 and (a − b)/√2."""
    c = make_transform("haar").forward(torch.tensor([[[[3.0, 1.0]]]]))
    torch.testing.assert_close(c.abs(), torch.tensor([[[[4.0, 2.0]]]]) / 2**0.5)


@pytest.mark.parametrize("basis", ["bior2.2", "nonsense", "mexh", "dmey", ""])
def test_unusable_bases(basis: str) -> None:
    with pytest.raises(UsageError):
        make_transform(basis)
