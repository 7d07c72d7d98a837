"""The conditioned network: averaged for every fixed reference, plain without one, and what freezing means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pnp_cli import Ensemble, Tiled, Trainer, TrainingConfig, UsageError, certify, weights
from pnp_cli.conditioned import ConditionedArchitecture, ConditionedNetwork, SelfReferenced
from pnp_cli.denoisers import EulerArchitecture, EulerNetwork
from pnp_cli.layers import BiasedReLU, EulerStep, HuberField, on_grid
from pnp_cli.presets import build
from pnp_cli.training import export

from .helpers import small_conditioned, steepest


@pytest.fixture
def network() -> ConditionedNetwork:
    return small_conditioned()


def test_without_a_reference_it_is_the_plain_network(network: ConditionedNetwork) -> None:
    x = torch.rand(1, 3, 13, 10)
    assert torch.equal(network(x, 0.1), network.plain(x, 0.1))


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 7, 9), (1, 1, 5, 6), (1, 3, 1, 1)])
def test_shapes(network: ConditionedNetwork, shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    assert network.estimate(x, 0.1).shape == shape
    assert network.condition(x, torch.full(shape[:1], 0.1))(x, 0.1).shape == shape


def test_the_reference_matters_and_stays(network: ConditionedNetwork) -> None:
    x, first, second = (torch.rand(1, 3, 16, 16) for _ in range(3))
    operator = network.condition(first, 0.1)
    before = operator(x, 0.1)
    network.condition(second, 0.1)(x, 0.1)
    assert torch.equal(operator(x, 0.1), before)
    assert not torch.allclose(network.condition(second, 0.1)(x, 0.1), before, atol=1e-4)
    with pytest.raises(ValueError, match="conditioned on"):
        operator(torch.rand(1, 3, 16, 24), 0.1)


@pytest.mark.parametrize("size", [(75, 260), (64, 333)])
def test_tiles_of_a_frozen_operator_need_the_reach_of_its_own_steps_only(
    network: ConditionedNetwork, size: tuple[int, int]
) -> None:
    """Less than half of that of both passes, and a little less is not enough."""
    network = network.double()
    x, reference = torch.rand(2, 1, 3, *size, dtype=torch.float64)
    operator = network.condition(reference, 0.1)
    whole, halo = operator(x, 0.1), operator.reach(0)
    assert 2 * halo < network.reach(0)
    torch.testing.assert_close(Tiled.of(operator, 32)(x, 0.1), whole, rtol=0, atol=1e-12)
    assert not torch.allclose(Tiled(operator, 32, halo - network.multiple)(x, 0.1), whole, rtol=0, atol=1e-12)


def test_nothing_beyond_the_reach_of_a_frozen_operator_counts(network: ConditionedNetwork) -> None:
    network = network.double()
    operator = network.condition(torch.rand(1, 3, 16, 200, dtype=torch.float64), 0.1)
    x, halo = torch.rand(1, 3, 16, 200, dtype=torch.float64), operator.reach(0)
    other = x.clone()
    other[..., : 96 - halo] += 1
    other[..., 104 + halo :] += 1
    assert torch.equal(operator(x, 0.1)[..., 96:104], operator(other, 0.1)[..., 96:104])


def test_the_shipped_weights_frozen_reach_60_pixels() -> None:
    network = weights.load("conditioned").network
    assert network.reach(0) == 204
    assert network.condition(torch.rand(1, 3, 8, 8), 0.1).reach(0) == 60


@pytest.mark.parametrize("offset", [(1, 3), (2, 0), (0, 2), (0, 0)])
def test_fields_are_interpolated_for_an_offset_grid(offset: tuple[int, int]) -> None:
    """A cell that begins so many pixels earlier sees so much of the cell before; the outermost ones see themselves."""
    step = EulerStep(3, 2, 3, 4, BiasedReLU(2), offset)
    rows, columns = torch.arange(5.0)[:, None], torch.arange(7.0)
    ramps = torch.stack([rows.expand(5, 7), columns.expand(5, 7)])[None]
    shifted = on_grid(ramps, step)
    assert shifted.shape[2:] == step.analyse(torch.zeros(1, 3, 20, 28)).shape[2:]
    for ramp, length, o in ((shifted[0, 0, :, 0], 5, offset[0]), (shifted[0, 1, 0], 7, offset[1])):
        cells = torch.arange(length + (o > 0)).float()
        torch.testing.assert_close(ramp, (cells - o / 4).clamp(0, length - 1))


def test_self_reference_freezes_at_the_first_call(network: ConditionedNetwork) -> None:
    first, second = torch.rand(2, 1, 3, 8, 8)
    denoiser = SelfReferenced(network)
    operator = network.condition(first, 0.1, noisy=False, guide_factor=SelfReferenced.GUIDE_FACTOR)
    assert torch.equal(denoiser(first, 0.1), operator(first, 0.1))
    assert torch.equal(denoiser(second, 0.1), operator(second, 0.1))


def test_references_with_and_without_noise(network: ConditionedNetwork) -> None:
    """Without noise only the plain network's estimate of the reference counts; `estimate` takes it as noisy."""
    x = torch.rand(4, 3, 16, 16)
    clean, noisy = (network.condition(x, 0.1, noisy=flag)(x, 0.1) for flag in (False, True))
    assert not torch.equal(clean, noisy)
    mixed = network.condition(x, 0.1, torch.tensor([True, False, True, False]))(x, 0.1)
    torch.testing.assert_close(mixed, torch.stack([noisy[0], clean[1], noisy[2], clean[3]]))
    assert torch.equal(network.estimate(x, 0.1), noisy)
    assert torch.equal(network.train().estimate(x, 0.1), noisy)


def test_the_guide_may_be_told_another_level(network: ConditionedNetwork) -> None:
    """That changes the thresholds, but not what else depends on the level."""
    x = torch.rand(1, 3, 16, 16)
    told = network.condition(x, 0.1, noisy=False, guide_factor=0.5)
    maps = network.condition(x, 0.1, noisy=False).maps
    assert not torch.allclose(told.maps[2], maps[2])
    told.maps = maps
    assert torch.equal(told(x, 0.1), network.condition(x, 0.1, noisy=False)(x, 0.1))


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_nonexpansive_for_every_reference_however_wild_the_guide(network: ConditionedNetwork, scale: float) -> None:
    """Thresholds between e⁻³⁰ and e³⁰ from a guide of random weights: the constant of the certificate holds."""
    network = network.double()
    for step in network.euler_steps:
        assert isinstance(step.activation, HuberField)
        torch.nn.init.normal_(step.activation.projection.weight, std=scale)
    alpha = certify(network.condition(torch.rand(1, 3, 16, 16).double(), 0.1)).alpha
    assert alpha < 1
    kappa = (1 - alpha) / alpha
    for _ in range(3):
        reference = torch.rand(1, 3, 16, 16, dtype=torch.float64)
        operator = network.condition(reference, 0.1)
        assert steepest(operator, torch.rand_like(reference), 0.1) <= 1 + 1e-9
        x, y = torch.rand(2, 1, 3, 16, 16, dtype=torch.float64)
        out = operator(x, 0.1) - operator(y, 0.1)
        bent = out.square().sum() + kappa * ((x - y) - out).square().sum()
        assert float(bent) <= float((x - y).square().sum()) * (1 + 1e-12)


def test_certificate_covers_both_passes(network: ConditionedNetwork) -> None:
    both, plain = certify(network), certify(network.plain)
    operator = certify(network.condition(torch.rand(1, 3, 8, 8), 0.1))
    assert both.averaged
    assert both.alpha == max(plain.alpha, operator.alpha)
    assert [layer.name for layer in both.layers] == [
        *(f"plain.steps.{i}" for i in range(4)),
        *(f"steps.{i}" for i in range(4)),
    ]
    assert certify(Ensemble(network)).alpha == both.alpha
    network.euler_steps[1].step.data.fill_(9.0)
    assert certify(network.plain).averaged
    assert not certify(network).averaged
    assert "steps.1" in certify(network).reason


def test_the_derivative_of_the_clip(network: ConditionedNetwork) -> None:
    """The hand-written derivative, against finite differences, away from the kinks."""
    activation = HuberField(3, 2).double()
    t = torch.tensor([-2.0, -0.4, 0.3, 1.7], dtype=torch.float64).reshape(1, 1, 2, 2).repeat(1, 3, 1, 1)
    maps = torch.rand(1, 2, 2, 2, dtype=torch.float64)
    torch.nn.init.normal_(activation.projection.weight, std=0.1)
    assert torch.autograd.gradcheck(activation, (t.requires_grad_(), maps.requires_grad_()))
    with torch.no_grad():
        inference = activation(t.clone(), maps)
    torch.testing.assert_close(inference, activation(t, maps))


def test_one_file_holds_both(network: ConditionedNetwork, tmp_path: Path) -> None:
    path = tmp_path / "both.safetensors"
    weights.save(path, network, averaged=True)
    loaded = weights.load(path)
    x = torch.rand(1, 3, 9, 12)
    torch.testing.assert_close(loaded.network(x, 0.1), network(x, 0.1))
    torch.testing.assert_close(loaded.network.estimate(x, 0.1), network.estimate(x, 0.1))
    assert loaded.certificate.averaged


def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, 20, 31), generator=generator, dtype=torch.uint8) for _ in range(3)]


def test_training_leaves_the_plain_network_as_it_is(network: ConditionedNetwork) -> None:
    config = TrainingConfig(steps=4, batch=2, crop=16)
    plain = build(network.architecture.plain)
    plain.load_state_dict(network.plain.state_dict())
    assert isinstance(plain, EulerNetwork)
    trainer = Trainer(network.architecture, pictures(), config, plain=plain)
    start = export(trainer.network).state_dict()
    list(trainer.run())
    end = export(trainer.network).state_dict()
    changed = {name for name, value in end.items() if not torch.equal(value, start[name])}
    assert not any(name.startswith("plain.") for name in changed)
    assert {name.split(".")[0] for name in changed} == {"guide", "steps"}
    with pytest.raises(UsageError, match="plain network"):
        Trainer(network.architecture, pictures(), config)


def test_training_takes_every_second_reference_as_free_of_noise(network: ConditionedNetwork) -> None:
    """The same weights denoise and serve inverse problems, whose iterates hold no white noise."""
    trainer = Trainer(network.architecture, pictures(), TrainingConfig(steps=2, batch=3, crop=16), start=network)
    seen: list[tuple[Tensor, ...]] = []
    trainer.network.guide.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))  # type: ignore[union-attr, arg-type]
    list(trainer.run())
    assert len(seen) == 2
    for reference, estimate, _ in seen:
        assert [bool(torch.equal(r, e)) for r, e in zip(reference, estimate, strict=True)] == [False, True, False]


def test_grey_networks_take_the_channels_of_a_colour_image_one_by_one() -> None:
    plain = EulerArchitecture((2, 4), 12, "huber", width=1, image_channels=1)
    network = build(ConditionedArchitecture(plain, (2, 4), 12, (4, 8, 4), 5))
    assert isinstance(network, ConditionedNetwork)
    network.initialise()
    network.eval()
    x = torch.rand(2, 3, 9, 8)
    sigma = torch.tensor([0.05, 0.1])
    with torch.no_grad():
        for denoise in (network, network.estimate):
            whole = denoise(x, sigma)
            for i in range(2):
                for c in range(3):
                    torch.testing.assert_close(whole[i, c], denoise(x[i : i + 1, [c]], float(sigma[i]))[0, 0])
