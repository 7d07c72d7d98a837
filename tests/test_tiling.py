"""Tiles give what the whole image gives, in one pass and in two, whatever the sizes."""

from __future__ import annotations

import pytest
import torch

from pnp_cli import Ensemble, Tiled, certify
from pnp_cli.denoisers import Denoiser, DnCNNArchitecture
from pnp_cli.presets import build
from pnp_cli.tiling import choose_tile, tiles_of

from .helpers import small_conditioned, small_network


def unconstrained() -> Denoiser:
    network = build(DnCNNArchitecture(4, 8))
    network.initialise()
    torch.nn.init.normal_(network.convolutions[-1].weight, std=0.1)  # type: ignore[index, union-attr, arg-type]
    return network.requires_grad_(False)


NETWORKS = {"euler": small_network, "conditioned": small_conditioned, "dncnn": unconstrained}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("height", "width", "side"), [(75, 210, 32), (64, 64, 20), (9, 300, 64), (40, 33, 500)])
def test_tiled_equals_whole(name: str, height: int, width: int, side: int) -> None:
    network = NETWORKS[name]().double()
    tiled = Tiled.of(network, side)
    x = torch.rand(1, 3, height, width, dtype=torch.float64)
    y = torch.rand_like(x)
    torch.testing.assert_close(tiled(x, 0.1), network(x, 0.1), rtol=0, atol=1e-12)
    torch.testing.assert_close(tiled.estimate(x, 0.1), network.estimate(x, 0.1), rtol=0, atol=1e-12)
    whole, parts = network.condition(y, 0.1), tiled.condition(y, 0.1)
    torch.testing.assert_close(parts(x, 0.1), whole(x, 0.1), rtol=0, atol=1e-12)
    torch.testing.assert_close(Ensemble(tiled)(x, 0.1), Ensemble(network)(x, 0.1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_radius_is_sharp_enough(name: str) -> None:
    """A change beyond the radius changes nothing; a change of the pixel itself does."""
    network = NETWORKS[name]().double()
    radius = network.radius + 2 * network.multiple
    x = torch.rand(1, 3, 16, 16 + 8 * (2 * radius // 8), dtype=torch.float64)
    other = x.clone()
    other[..., radius + 8 :] = torch.rand_like(other[..., radius + 8 :])
    before, after = network.estimate(x, 0.1), network.estimate(other, 0.1)
    assert torch.equal(before[..., :8], after[..., :8])
    assert not torch.allclose(before[..., radius + 8 :], after[..., radius + 8 :])


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


def test_small_images_are_not_tiled() -> None:
    assert choose_tile(321, 481, 100, torch.device("cpu")) == 0
    assert 256 <= choose_tile(200_000, 200_000, 200, torch.device("cpu")) <= 2048
