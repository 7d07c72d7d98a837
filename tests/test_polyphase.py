"""Denoising by phases: an orthogonal split, so as averaged as the denoiser, and for noise that neighbours share."""

from __future__ import annotations

import pytest
import torch

from pnp_cli import Ensemble, Polyphase, Tiled, UsageError, certify

from .helpers import small_conditioned, small_network, steepest


@pytest.mark.parametrize("size", [(40, 41), (1, 9), (3, 2), (1, 1)])
@pytest.mark.parametrize("stride", [2, 3])
def test_every_phase_is_denoised_by_itself(size: tuple[int, int], stride: int) -> None:
    network = small_conditioned()
    x, y = torch.rand(2, 2, 3, *size)
    levels = 0.3 * torch.rand_like(x[:, :1])
    whole, operator = Polyphase(stride, network), Polyphase(stride, network).condition(y, 0.1)
    by_map = whole.condition(y, levels)(x, levels)
    for row in range(min(stride, size[0])):
        for column in range(min(stride, size[1])):
            phase, reference = x[:, :, row::stride, column::stride], y[:, :, row::stride, column::stride]
            torch.testing.assert_close(whole(x, 0.1)[:, :, row::stride, column::stride], network(phase, 0.1))
            expected = network.condition(reference, 0.1)(phase, 0.1)
            torch.testing.assert_close(operator(x, 0.1)[:, :, row::stride, column::stride], expected)
            own = levels[:, :, row::stride, column::stride]
            expected = network.condition(reference, own)(phase, own)
            torch.testing.assert_close(by_map[:, :, row::stride, column::stride], expected)


def test_it_is_as_averaged_as_the_denoiser() -> None:
    network = small_network()
    assert certify(Polyphase(2, network)) == certify(network)
    x = torch.rand(1, 3, 21, 22, dtype=torch.float64)
    assert steepest(Polyphase(2, network.double()), x, 0.2) <= 1
    operator = Polyphase(2, small_conditioned().double()).condition(torch.rand_like(x), 0.2)
    assert steepest(operator, x, 0.2) <= 1


def test_with_tiles_and_symmetries() -> None:
    """Both inside; tiles have other phases, so they are not outside."""
    network = small_conditioned().double()
    x = torch.rand(1, 3, 90, 131, dtype=torch.float64)
    expected = Polyphase(2, network).estimate(x, 0.1)
    torch.testing.assert_close(Polyphase(2, Tiled.of(network, 32)).estimate(x, 0.1), expected, rtol=0, atol=1e-12)
    turned = Polyphase(2, Ensemble(network)).estimate(x, 0.1)[:, :, ::2, ::2]
    torch.testing.assert_close(turned, Ensemble(network).estimate(x[:, :, ::2, ::2], 0.1))
    with pytest.raises(UsageError, match="tile the denoiser in it"):
        Tiled.of(Polyphase(2, network), 32)


def test_no_such_split() -> None:
    for arguments in ((0, small_network()), (2,)):
        with pytest.raises(UsageError, match="stride of 1 or more and a denoiser"):
            Polyphase(*arguments)
