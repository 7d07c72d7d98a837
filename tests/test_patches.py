"""Patches cover the image, blend exactly, and restore nearly what the whole image gives."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from pnp_cli import Blur, Settings, certify, kernels, plan_deblurring, to_tensor
from pnp_cli.boundaries import Free
from pnp_cli.images import Image
from pnp_cli.patches import Window, restore_by_patches, windows

from .helpers import small_network


@pytest.mark.parametrize("size", [(40, 40), (97, 40), (41, 200), (333, 250)])
@pytest.mark.parametrize(("side", "overlap"), [(40, 8), (64, 30)])
def test_windows(size: tuple[int, int], side: int, overlap: int) -> None:
    count = torch.zeros(size)
    for rows, columns in windows(size, side, overlap):
        assert rows.stop - rows.start == min(side, size[0])
        assert columns.stop - columns.start == min(side, size[1])
        count[rows, columns] += 1
    assert count.min() >= 1
    for axis in (0, 1):
        starts = sorted({w[axis].start for w in windows(size, side, overlap)})
        assert all(a + side - b >= overlap for a, b in pairwise(starts))


def test_blending_keeps_an_image_and_a_ramp() -> None:
    y = torch.rand(1, 3, 97, 130)
    torch.testing.assert_close(restore_by_patches(y, 48, 16, lambda w: y[:, :, w[0], w[1]]), y)
    # Patches that disagree by a constant are mixed without a seam: no step is larger than the ramp's slope.
    values, zero = iter(range(100)), torch.zeros(1, 1, 20, 200)
    mixed = restore_by_patches(zero, 60, 20, lambda w: zero[:, :, w[0], w[1]] + next(values))
    assert float(mixed.diff(dim=3).abs().max()) <= 1 / 20 + 1e-4


def test_deblurring_by_patches_is_close_to_the_whole(photo: Image) -> None:
    kernel = kernels.motion(5, 20)
    truth = to_tensor(photo, dtype=torch.float64)
    y = Blur(kernel, photo.size, dtype=torch.float64).forward(truth)
    network = small_network().double()
    certificate = certify(network)
    settings = Settings.for_noise(2.55 / 255, tol=1e-3)

    def restore(window: Window) -> torch.Tensor:
        part = y[:, :, window[0], window[1]]
        blur = Blur(kernel, (part.shape[2], part.shape[3]), Free, dtype=torch.float64)
        plan = plan_deblurring(part, blur, network, certificate, settings)
        return blur.boundary.frame_of(plan.run().value)

    whole, parts = restore((slice(None), slice(None))), restore_by_patches(y, 64, 24, restore)
    difference = (whole - parts).square().mean().sqrt()
    assert float(difference) < 0.2 * float((whole - truth).square().mean().sqrt())
