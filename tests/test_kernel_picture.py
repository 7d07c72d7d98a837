"""The picture of a kernel: entries where they are, the spectrum in decibels, the origin marked."""

from __future__ import annotations

import numpy as np
import pytest

from pnp_cli import kernel_picture, kernels
from pnp_cli.images import encode_image, read_image
from pnp_cli.kernel_picture import MARGIN

SIDE = 120


def bytes_of(kernel: np.ndarray, side: int = SIDE) -> np.ndarray:
    image = kernel_picture.draw(kernel, side)
    assert image.depth == "uint8"
    return np.rint(255 * image.pixels).astype(int)


@pytest.mark.parametrize("shape", [(4, 6), (7, 3), (1, 9)])
def test_entries_are_enlarged_by_a_whole_number(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random(shape)
    kernel, factor = values / values.sum(), SIDE // max(shape)
    picture = bytes_of(kernel)
    assert picture.shape == (SIDE + 2 * MARGIN, 2 * SIDE + 3 * MARGIN, 3)
    top = MARGIN + (SIDE - factor * shape[0]) // 2
    left = MARGIN + (SIDE - factor * shape[1]) // 2
    for row, column in np.ndindex(*shape):
        y, x = top + factor * row, left + factor * column
        inside = picture[y + 1 : y + factor - 1, x + 1 : x + factor - 1]
        np.testing.assert_array_equal(inside, np.rint(255 * kernel[row, column] / kernel.max()))


@pytest.mark.parametrize("shape", [(4, 6), (7, 3), (1, 1)])
def test_the_origin_is_marked(shape: tuple[int, int]) -> None:
    factor = SIDE // max(shape)
    red = (bytes_of(np.ones(shape)) == kernel_picture.ORIGIN).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    top = MARGIN + (SIDE - factor * shape[0]) // 2 + factor * (shape[0] // 2)
    left = MARGIN + (SIDE - factor * shape[1]) // 2 + factor * (shape[1] // 2)
    assert (rows[0], rows[-1]) == (top - 1, top + factor)
    assert (columns[0], columns[-1]) == (left - 1, left + factor)


def test_spectrum_in_decibels() -> None:
    """Two equal entries side by side have |OTF| = |cos πf|; the zero frequency is in the middle."""
    picture = bytes_of(np.full((1, 2), 0.5))
    spectrum = picture[MARGIN : MARGIN + SIDE, 2 * MARGIN + SIDE : 2 * MARGIN + 2 * SIDE]
    f = np.arange(SIDE) / SIDE - 0.5
    decibels = 20 * np.log10(np.maximum(np.abs(np.cos(np.pi * f)), 1e-9))
    grey = 255 * np.clip(1 + decibels / 40, 0, 1)
    assert np.abs(spectrum - grey[None, :, None]).max() <= 0.51
    assert (spectrum[:, SIDE // 2] == 255).all()
    assert (spectrum[:, 0] == 0).all()


def test_large_kernels_are_not_made_smaller() -> None:
    picture = bytes_of(kernels.motion(200, 0), 64)
    assert picture.shape[1] == 201 + 64 + 3 * MARGIN


def test_it_is_a_png() -> None:
    image = kernel_picture.draw(kernels.disk(3))
    np.testing.assert_array_equal(read_image(encode_image(image, "PNG")).pixels, image.pixels)
