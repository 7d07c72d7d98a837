"""The weighing of errors that are not white, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pnp_cli.precision import BlockPrecision, WeightedPrecision

from .helpers import relative_dot_test

SIZE, SIDE = (8, 11), 3


def precise(origin: tuple[int, int] = (1, 2), left_out: Tensor | None = None) -> tuple[BlockPrecision, np.ndarray]:
    """P for two colours, and its matrix on a block."""
    root = np.random.default_rng(0).normal(size=(2 * SIDE**2, 2 * SIDE**2))
    matrix = root @ root.T / len(root) + 0.1 * np.eye(len(root))
    return BlockPrecision(matrix, origin, left_out, side=SIDE, dtype=torch.float64), matrix


def image() -> Tensor:
    return torch.randn(2, 2, *SIZE, dtype=torch.float64)


@pytest.mark.parametrize("origin", [(0, 0), (1, 2), (2, 1)])
def test_blocks_get_the_matrix_and_the_rest_is_kept(origin: tuple[int, int]) -> None:
    p, matrix = precise(origin)
    r = image()
    expected = r.clone()
    for top in range(origin[0], SIZE[0] - SIDE + 1, SIDE):
        for left in range(origin[1], SIZE[1] - SIDE + 1, SIDE):
            window = (slice(None), slice(None), slice(top, top + SIDE), slice(left, left + SIDE))
            block = r[window].reshape(2, -1) @ torch.from_numpy(matrix)
            expected[window] = block.reshape(2, 2, SIDE, SIDE)
    torch.testing.assert_close(p(r), expected)
    relative_dot_test(p, p, r)


def test_norm() -> None:
    p, _ = precise()
    n = 2 * SIZE[0] * SIZE[1]
    dense = p(torch.eye(n, dtype=torch.float64).reshape(n, 2, *SIZE)).reshape(n, n).numpy()
    eigenvalues = np.linalg.eigvalsh(dense)
    assert eigenvalues[0] > 0
    assert p.norm == pytest.approx(eigenvalues[-1])
    assert p.least == pytest.approx(eigenvalues[0])
    for factor, norm, least in ((0.5, 1, 0.5), (2, 2, 1)):
        other = BlockPrecision(factor * np.eye(64), (0, 0))
        assert (other.norm, other.least) == (norm, least), "the identity beside the blocks"


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("inner", [False, True])
def test_weights_by_place(channels: int, inner: bool) -> None:
    """W Q W, its eigenvalues within the bounds, and those of a whole image for a part of it."""
    q, _ = precise()
    w = 0.5 + torch.rand(1, channels, *SIZE, dtype=torch.float64)
    p = WeightedPrecision(w, q if inner else None)
    n = 2 * SIZE[0] * SIZE[1]
    dense = p(torch.eye(n, dtype=torch.float64).reshape(n, 2, *SIZE)).reshape(n, n).numpy()
    diagonal = np.diag(w.expand(1, 2, -1, -1).flatten().numpy())
    everywhere = q(torch.eye(n, dtype=torch.float64).reshape(n, 2, *SIZE)).reshape(n, n).numpy()
    np.testing.assert_allclose(dense, diagonal @ (everywhere if inner else np.eye(n)) @ diagonal, atol=1e-12)
    eigenvalues = np.linalg.eigvalsh(dense)
    assert 0 < p.least <= eigenvalues[0] + 1e-12
    assert eigenvalues[-1] <= p.norm * (1 + 1e-12)
    part = WeightedPrecision(w[..., :3], q if inner else None, (0.25, 3.0))
    assert part.norm == pytest.approx(9 * (q.norm if inner else 1))
    assert part.least == pytest.approx(0.0625 * (q.least if inner else 1))
    mean = w.square().mean() * (q.spectrum(SIZE) if inner else 1)
    torch.testing.assert_close(p.spectrum(SIZE), mean)


def test_blocks_that_are_left_out() -> None:
    touched = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    touched[0, 0, 2, 6] = True  # in the block of rows 1 to 3 and columns 5 to 7
    (p, _), (full, _), r = precise(left_out=touched), precise(), image()
    expected = full(r)
    expected[0, :, 1:4, 5:8] = r[0, :, 1:4, 5:8]
    torch.testing.assert_close(p(r), expected)


def test_another_grid() -> None:
    touched = torch.zeros(2, 1, *SIZE, dtype=torch.bool)
    touched[0, 0, 2, 6] = True
    (p, _), (expected, _), r = precise((0, 0)), precise(left_out=touched), image()
    torch.testing.assert_close(p.at((1, 2), touched)(r), expected(r))
    torch.testing.assert_close(p(r), precise((0, 0))[0](r))
    assert p.at((1, 2)).norm == p.norm


def test_an_image_smaller_than_a_block() -> None:
    p, r = precise((2, 2))[0], torch.randn(1, 2, 1, 4, dtype=torch.float64)
    torch.testing.assert_close(p(r), r)


def test_spectrum() -> None:
    """That of a convolution for a convolution, and of the same trace for any matrix."""
    p, matrix = precise()
    diagonal = torch.fft.irfft2(p.spectrum(SIZE), s=SIZE)[:, 0, 0].numpy()
    np.testing.assert_allclose(diagonal, np.diag(matrix).reshape(2, -1).mean(1))
    constant = BlockPrecision(3 * np.eye(2 * SIDE**2), (0, 0), side=SIDE, dtype=torch.float64)
    torch.testing.assert_close(constant.spectrum(SIZE), torch.full((2, 8, 6), 3.0, dtype=torch.float64))
