"""Tiles give what the whole image gives, in one pass and in two, whatever the sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pnp_cli import Ensemble, Tiled, certify, read_image
from pnp_cli.denoisers import Denoiser, DnCNNArchitecture
from pnp_cli.exposure import Brightened
from pnp_cli.images import Image
from pnp_cli.presets import build
from pnp_cli.tiling import choose_tile, tiles_of

from .conftest import Run
from .helpers import small_conditioned, small_network


def unconstrained() -> Denoiser:
    network = build(DnCNNArchitecture(4, 8))
    network.initialise()
    torch.nn.init.normal_(network.convolutions[-1].weight, std=0.1)  # type: ignore[index, union-attr, arg-type]
    return network.requires_grad_(False)


def staggered() -> Denoiser:
    return small_network(scales=(2, 4) * 3, staggered=True, centre=0.5)


NETWORKS = {"euler": small_network, "staggered": staggered, "conditioned": small_conditioned, "dncnn": unconstrained}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("height", "width", "side"), [(41, 310, 32), (70, 264, 64), (9, 400, 64), (40, 33, 500)])
@pytest.mark.parametrize("kind", ["level", "map"])
def test_tiled_equals_whole(name: str, height: int, width: int, side: int, kind: str) -> None:
    network = NETWORKS[name]().double()
    tiled = Tiled.of(network, side)
    x = torch.rand(1, 3, height, width, dtype=torch.float64)
    y = torch.rand_like(x)
    s = 0.1 if kind == "level" else 0.02 + 0.2 * torch.rand_like(x[:, :1])
    torch.testing.assert_close(tiled(x, s), network(x, s), rtol=0, atol=1e-12)
    torch.testing.assert_close(tiled.estimate(x, s), network.estimate(x, s), rtol=0, atol=1e-12)
    whole, parts = network.condition(y, s), tiled.condition(y, s)
    torch.testing.assert_close(parts(x, s), whole(x, s), rtol=0, atol=1e-12)
    torch.testing.assert_close(Ensemble(tiled)(x, s), Ensemble(network)(x, s), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["level", "map"])
def test_dark_images_are_brightened_by_tiles(kind: str) -> None:
    """Without a copy of the whole image, and with the same result: also for a frozen reference."""
    network = small_conditioned().double()
    whole, parts = Brightened(8, network), Tiled.of(Brightened(8, network), 32)
    x, y = (torch.rand(1, 3, 41, 310, dtype=torch.float64) / 8 for _ in range(2))
    s = 0.01 if kind == "level" else 0.002 + 0.02 * torch.rand_like(x[:, :1])
    torch.testing.assert_close(parts(x, s), whole(x, s), rtol=0, atol=1e-13)
    torch.testing.assert_close(parts.estimate(x, s), whole.estimate(x, s), rtol=0, atol=1e-13)
    largest: list[int] = []
    network.register_forward_pre_hook(lambda _, arguments: largest.append(arguments[0].shape[3]))
    parts(x, s)
    assert 0 < max(largest) < 310
    operator = parts.condition(y, s)
    torch.testing.assert_close(operator(x, s), whole.condition(y, s)(x, s), rtol=0, atol=1e-13)
    assert certify(operator) == certify(network.condition(y, s))


@pytest.mark.parametrize("name", NETWORKS)
def test_no_call_is_larger_than_a_tile_with_its_halo(name: str) -> None:
    network = NETWORKS[name]()
    sizes: list[tuple[int, int]] = []
    network.register_forward_pre_hook(lambda _, arguments: sizes.append(tuple(arguments[0].shape[2:])))
    tiled = Tiled.of(network, 32)
    largest = 32 + 2 * (tiled.halo + network.multiple)
    tiled(torch.rand(1, 3, 40, 600), 0.1)
    assert len(sizes) == 2 * 19
    assert max(width for _, width in sizes) <= largest < 600


@pytest.mark.parametrize("scales", [(2, 4, 2, 4), (4, 1, 4, 1), (1, 4, 1, 4, 1, 4), (8, 2, 8, 2), (3, 2)])
def test_reach_is_exact_for_every_mixture_of_scales(scales: tuple[int, ...]) -> None:
    """What is beyond the reach of a region changes nothing; what is just within it does."""
    network = small_network(scales=scales).double()
    inner = network.multiple
    reach = network.reach(0)
    x = torch.rand(1, 3, 2 * inner, inner * (reach // inner + 4), dtype=torch.float64)
    before = network(x, 0.1)[..., :inner]
    beyond, within = x.clone(), x.clone()
    beyond[..., inner + reach :] += 1
    within[..., inner + reach - 1] += 1
    assert torch.equal(network(beyond, 0.1)[..., :inner], before)
    assert not torch.equal(network(within, 0.1)[..., :inner], before)


@pytest.mark.parametrize("name", ["staggered", "conditioned", "dncnn"])
def test_reach_is_enough_on_both_sides(name: str) -> None:
    """Of all passes, and along rows and columns, whose grids have other offsets."""
    network = NETWORKS[name]().double()
    reach = network.reach(0)
    start = 8 * (reach // 8 + 3)
    x = torch.rand(1, 3, 16, 2 * start + 8, dtype=torch.float64)
    other = x.clone()
    other[..., : start - reach] += 1
    other[..., start + 8 + reach :] += 1
    for a, b in ((x, other), (x.mT, other.mT)):
        before, after = network.estimate(a, 0.1), network.estimate(b, 0.1)
        if a is not x:
            before, after = before.mT, after.mT
        assert torch.equal(after[..., start : start + 8], before[..., start : start + 8])


def test_certificate_is_that_of_the_network() -> None:
    network = small_conditioned()
    tiled = Tiled.of(network, 64)
    assert certify(tiled).alpha == certify(network).alpha
    operator = tiled.condition(torch.rand(1, 3, 80, 90), 0.1)
    assert certify(operator).averaged


def test_tiles_cover_once() -> None:
    count = torch.zeros(100, 130)
    for tile in tiles_of(100, 130, 30, 13, 4):
        count[tile.inner] += 1
        outer = count[tile.outer]
        assert outer[tile.crop].shape == count[tile.inner].shape
        assert tile.outer[0].start % 4 == tile.outer[1].start % 4 == 0
    assert (count == 1).all()


@pytest.mark.parametrize(
    "command",
    [("denoise", "--sigma", 10), ("deblur", "--motion", 5, 0, "--sigma", 5, "--acceleration", "none", "--tol", 1e-3)],
)
def test_the_commands_with_tiles(
    pnp: Run, photo: Image, tmp_path: Path, conditioned_weights: Path, command: tuple[object, ...]
) -> None:
    """On an image of several tiles: the same floats but for rounding."""
    np.save(tmp_path / "in.npy", photo.pixels)
    results = []
    for tile in ("0", "64"):
        out = tmp_path / f"{tile}.npy"
        result = pnp(*command, tmp_path / "in.npy", "-o", out, "-w", conditioned_weights, "--tile", tile)
        assert result.returncode == 0, result.stderr
        results.append(read_image(out).pixels)
    assert results[0].shape == photo.pixels.shape
    np.testing.assert_allclose(results[1], results[0], atol=1e-4)


def test_small_images_are_not_tiled() -> None:
    assert choose_tile(321, 481, 100, torch.device("cpu")) == 0
    assert 256 <= choose_tile(200_000, 200_000, 200, torch.device("cpu")) <= 2048
