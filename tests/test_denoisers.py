"""Networks: shapes, sizes, what the padding means, and that they denoise before any training."""

from __future__ import annotations

import math

import pytest
import torch

from pnp_cli import Ensemble, Tiled, UsageError, certify, psnr, to_tensor
from pnp_cli.denoisers import EulerArchitecture
from pnp_cli.images import Image
from pnp_cli.presets import PRESETS, architecture_from_dict, architecture_to_dict, build

from .helpers import small_conditioned, small_network, steepest


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 7, 9), (1, 1, 5, 6), (1, 3, 1, 1)])
def test_shapes(preset: str, shape: tuple[int, ...]) -> None:
    network = build(PRESETS[preset])
    network.initialise()
    with torch.no_grad():
        assert network(torch.rand(shape), 0.1).shape == shape
        assert network(torch.rand(shape), torch.full(shape[:1], 0.1)).shape == shape


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "dncnn"])
def test_presets_start_averaged(preset: str) -> None:
    network = build(PRESETS[preset])
    network.initialise()
    assert certify(network, grid=16).averaged


@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_odd_sizes_are_padded_with_the_centre(centre: float) -> None:
    network = small_network(centre=centre)
    x = torch.rand(1, 3, 9, 14)
    padded = torch.full((1, 3, 12, 16), centre)
    padded[:, :, :9, :14] = x
    torch.testing.assert_close(network(x, 0.1), network(padded, 0.1)[:, :, :9, :14])


@pytest.mark.parametrize("channels", [1, 3])
def test_nothing_happens_to_an_image_that_is_its_own_padding(channels: int) -> None:
    """So a mid-grey image has no frame, in colour and through the embedding of grey images."""
    network = small_network(staggered=True, centre=0.5)
    x = torch.full((1, channels, 11, 14), 0.5)
    torch.testing.assert_close(network(x, 0.1), x)


@pytest.mark.parametrize("preset", PRESETS)
def test_without_noise_it_is_the_identity(preset: str) -> None:
    network = build(PRESETS[preset])
    network.initialise()
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(network(x, 0), x)
    assert torch.equal(network.estimate(x, 0.0), x)
    assert torch.equal(network.condition(x, 0.0)(x, 0.0), x)


def test_one_noise_level_per_image() -> None:
    network = small_network()
    x = torch.rand(2, 3, 8, 8)
    both = network(x, torch.tensor([0.05, 0.2]))
    torch.testing.assert_close(both[:1], network(x[:1], 0.05))
    torch.testing.assert_close(both[1:], network(x[1:], 0.2))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("size", [(8, 8), (7, 13), (1, 1)])
def test_a_map_of_one_noise_level_is_that_level(preset: str, size: tuple[int, int]) -> None:
    """In one pass and in two, of images of any size and any number of channels."""
    network = build(PRESETS[preset]).requires_grad_(False)
    network.initialise()
    for channels in (1, 3):
        x, levels = torch.rand(2, channels, *size), torch.tensor([0.05, 0.2])
        maps = levels[:, None, None, None].expand(-1, 1, *size)
        for denoise in (network, network.estimate):
            torch.testing.assert_close(denoise(x, maps), denoise(x, levels))


@pytest.mark.parametrize("name", ["plain", "conditioned"])
def test_a_noise_map_acts_where_it_is(name: str) -> None:
    """Far from the border between two levels the result is that of each."""
    network = small_conditioned() if name == "conditioned" else small_network(staggered=True)
    reach = network.reach(8)
    x = torch.rand(1, 3, 16, 2 * reach + 16)
    levels = torch.full_like(x[:, :1], 0.05)
    levels[..., reach + 8 :] = 0.3
    result = network.estimate(x, levels)
    torch.testing.assert_close(result[..., :8], network.estimate(x, 0.05)[..., :8])
    torch.testing.assert_close(result[..., -8:], network.estimate(x, 0.3)[..., -8:])


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "dncnn"])
def test_nonexpansive_for_every_noise_map(preset: str) -> None:
    """Whatever the map, down to no noise in places: the constant of the certificate holds."""
    network = build(PRESETS[preset]).double().requires_grad_(False)
    network.initialise()
    alpha = certify(network).alpha
    x, y = torch.rand(2, 1, 3, 17, 22, dtype=torch.float64)
    levels = 0.4 * (torch.rand_like(x[:, :1]) - 0.3).clamp_min(0)
    operator = network.condition(y, levels)
    assert steepest(operator, x, levels) <= 1 + 1e-9
    change = operator(x, levels) - operator(y, levels)
    bent = change.square().sum() + (1 - alpha) / alpha * ((x - y) - change).square().sum()
    assert float(bent) <= float((x - y).square().sum()) * (1 + 1e-12)


def test_grey_is_the_isometric_embedding() -> None:
    """x ↦ (x, x, x)/√3 and back by the adjoint, so a grey image is as averaged as a colour one."""
    network = small_network()
    x = torch.rand(1, 1, 8, 12)
    colour = network(x.expand(-1, 3, -1, -1) / math.sqrt(3), 0.1)
    torch.testing.assert_close(network(x, 0.1), colour.sum(1, keepdim=True) / math.sqrt(3))


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_the_frame_denoises_before_training(photo: Image, sigma: float) -> None:
    network = build(PRESETS["huber"])
    network.initialise()
    clean = to_tensor(photo)
    noisy = clean + sigma / 255 * torch.randn_like(clean)
    with torch.no_grad():
        restored = network(noisy, sigma / 255)
    assert psnr(clean.numpy(), restored.numpy()) > psnr(clean.numpy(), noisy.numpy()) + 1


def test_ensemble_commutes_with_flips_and_rotations() -> None:
    ensemble = Ensemble(small_network())
    x, levels = torch.rand(1, 3, 8, 12), 0.3 * torch.rand(1, 1, 8, 12)
    for change in (lambda t: t.flip(3), lambda t: torch.rot90(t, 1, (2, 3)), lambda t: t.transpose(2, 3)):
        torch.testing.assert_close(ensemble(change(x), 0.1), change(ensemble(x, 0.1)))
        torch.testing.assert_close(ensemble(change(x), change(levels)), change(ensemble(x, levels)))


def test_conditioned_ensemble_is_that_of_the_two_passes() -> None:
    """Each symmetry takes its own reference, so the mean is that of the whole restoration."""
    network = small_conditioned()
    x = torch.rand(1, 3, 8, 12)
    ensemble = Ensemble(network).condition(x, 0.1)
    total = torch.zeros_like(x)
    for flip in (False, True):
        for turns in range(4):
            turned = torch.rot90(x.flip(3) if flip else x, turns, (2, 3))
            back = torch.rot90(network.estimate(turned, 0.1), -turns, (2, 3))
            total += back.flip(3) if flip else back
    torch.testing.assert_close(ensemble(x, 0.1), total / 8)
    torch.testing.assert_close(Ensemble(network).estimate(x, 0.1), total / 8)
    assert certify(ensemble).averaged
    plain = small_network()
    assert plain.condition(x, 0.1) is plain


@pytest.mark.parametrize("size", [(40, 96), (41, 99)])
def test_an_ensemble_is_made_of_a_tiled_network_and_not_tiled(size: tuple[int, int]) -> None:
    """A tile that is turned has its grid from another corner than the turned image, unless the sizes happen to fit."""
    network = small_network(scales=(2, 4), staggered=True).double()
    x = torch.rand(1, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(Ensemble(Tiled.of(network, 32))(x, 0.1), Ensemble(network)(x, 0.1), rtol=0, atol=1e-12)
    with pytest.raises(UsageError, match="tile the denoiser in it"):
        Tiled.of(Ensemble(network), 32)
    by_force = Tiled(Ensemble(network), 32, network.reach(0))
    assert torch.allclose(by_force(x, 0.1), Ensemble(network)(x, 0.1), atol=1e-3) == (size == (40, 96))


@pytest.mark.parametrize("preset", PRESETS)
def test_architecture_round_trip(preset: str) -> None:
    architecture = PRESETS[preset]
    assert architecture_from_dict(architecture_to_dict(architecture)) == architecture


PLAIN = {"family": "euler", "scales": [2], "filters": 4, "activation": "huber"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"family": "transformer"},
        {"family": "euler"},
        {"family": "euler", "scales": 3, "filters": 4, "activation": "huber"},
        {"family": "euler", "scales": [0], "filters": 4, "activation": "huber"},
        {"family": "euler", "scales": [1], "filters": -4, "activation": "huber"},
        {"family": "euler", "scales": [1], "filters": 4, "activation": "exp"},
        {"family": "euler", "scales": [1], "filters": 4, "activation": "huber", "kernel_size": 4},
        {"family": "euler", "scales": [1], "filters": 4, "activation": "huber", "width": 2},
        {"family": "euler", "scales": ["a"], "filters": 4, "activation": "huber"},
        {"family": "euler", "scales": [1], "filters": 4, "activation": "huber", "image_channels": 2},
        {"family": "euler", "scales": [1], "filters": 4, "activation": "huber", "staggered": 2},
        {"family": "euler", "scales": [1], "filters": 4, "activation": "huber", "centre": "a"},
        {"family": "euler", "scales": [1], "filters": 4, "activation": "huber", "centre": True},
        {"family": "euler", "scales": [1], "filters": 4, "activation": "huber", "centre": float("nan")},
        {"family": "dncnn", "depth": 0},
        {"family": "conditioned", "plain": {}, "scales": [2], "filters": 4, "maps": 2, "guide_widths": [4, 4, 4]},
        {"family": "conditioned", "plain": PLAIN, "scales": [3], "filters": 4, "maps": 2, "guide_widths": [4, 4, 4]},
        {"family": "conditioned", "plain": PLAIN, "scales": [2], "filters": 4, "maps": 2, "guide_widths": [4, 4]},
        {"family": "conditioned", "plain": PLAIN, "scales": [2], "filters": 4, "maps": 2, "guide_widths": [4, 5, 4]},
        {"family": "conditioned", "plain": 3, "scales": [2], "filters": 4, "maps": 2, "guide_widths": [4, 4, 4]},
    ],
    ids=str,
)
def test_malformed_descriptions(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="architecture"):
        architecture_from_dict(fields)


def test_unusual_architectures_work() -> None:
    network = build(EulerArchitecture(scales=(3, 1), filters=5, activation="relu", width=4, kernel_size=5))
    network.initialise()
    with torch.no_grad():
        assert network(torch.rand(1, 3, 7, 7), 0.1).shape == (1, 3, 7, 7)
