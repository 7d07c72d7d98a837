"""Training: resumed runs repeat uninterrupted ones, and every exported network is certified."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from pnp_cli import InputError, Trainer, TrainingConfig, UsageError, WeightsError, certify, weights
from pnp_cli.data import RandomCrops, bundled_images, load_folders
from pnp_cli.denoisers import DnCNNArchitecture, EulerArchitecture
from pnp_cli.images import Image, write_image
from pnp_cli.optimiser import Optimiser
from pnp_cli.training import ALPHA_LIMIT, export, read_checkpoint, validate

HUBER = EulerArchitecture(scales=(2, 1), filters=12, activation="huber")
RELU = EulerArchitecture(scales=(1, 1), filters=12, activation="relu", width=8)
CONFIG = TrainingConfig(steps=30, batch=2, crop=16, learning_rate=1e-2)


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, 20, 31), generator=generator, dtype=torch.uint8) for _ in range(3)]


def parameters_after(trainer: Trainer) -> dict[str, Tensor]:
    for _ in trainer.run():
        pass
    return trainer.network.state_dict()


@pytest.mark.parametrize("architecture", [HUBER, RELU, DnCNNArchitecture(3, 8)], ids=["huber", "relu", "dncnn"])
def test_resumed_training_equals_uninterrupted(tmp_path: Path, pictures: list[Tensor], architecture) -> None:  # type: ignore[no-untyped-def]
    whole = parameters_after(Trainer(architecture, pictures, CONFIG))
    first = Trainer(architecture, pictures, CONFIG)
    for record in first.run(lambda: first.step == 13):
        assert record.step == first.step
    first.save(tmp_path / "c")
    second = Trainer(architecture, pictures, CONFIG)
    assert second.load(tmp_path / "c") == ()
    assert second.step == 13
    resumed = parameters_after(second)
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(8, 3, 3, 3), (3, 8, 1, 1), (4, 1, 3, 3)])
def test_convolutions_move_alike_in_every_direction(layout: torch.memory_format, size: tuple[int, ...]) -> None:
    """By a matrix of nearly orthonormal rows or columns, against the gradient, whatever its size and layout."""
    weight = nn.Parameter(torch.randn(size).to(memory_format=layout))
    bias = nn.Parameter(torch.zeros(3))
    before = weight.detach().clone()
    gradient = torch.randn(size)
    weight.grad, bias.grad = 1e3 * gradient, torch.ones(3)
    optimiser = Optimiser([weight, bias])
    optimiser.rate.fill_(0.1)
    optimiser.step()
    moved = (weight.detach() - before).flatten(1)
    scales = torch.linalg.svdvals(moved) / (0.1 * max(1, moved.shape[0] / moved.shape[1]) ** 0.5)
    assert 0.5 < scales.min() <= scales.max() < 1.5
    u, _, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    nearest = u @ v
    assert float(-(moved * nearest).sum() / (moved.norm() * nearest.norm())) > 0.95
    torch.testing.assert_close(bias.detach(), torch.full((3,), -0.1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_replayed_steps_are_steps(tmp_path: Path, pictures: list[Tensor], conditioned_weights: Path) -> None:
    """On a GPU: the same losses and weights to rounding, also after a resumption, whether recorded or not."""
    start = weights.load(conditioned_weights).network
    config = replace(CONFIG, learning_rate=1e-3)
    trainers = [Trainer(start.architecture, pictures, config, torch.device("cuda"), start=start) for _ in range(3)]
    one_by_one, replayed, resumed = trainers
    one_by_one._advance = one_by_one._step_on
    expected = [record.loss for record in one_by_one.run()]
    losses = []
    for record in replayed.run(lambda: replayed.step == 13):
        losses.append(record.loss)
        assert certify(export(replayed.network)).averaged
    replayed.save(tmp_path / "c")
    for _ in itertools.islice(resumed.run(), 6):
        pass
    assert resumed.load(tmp_path / "c") == ()
    rest, again = ([record.loss for record in trainer.run()] for trainer in (replayed, resumed))
    assert losses + rest == pytest.approx(expected, rel=1e-3)
    assert again == pytest.approx(rest, rel=1e-3)
    for trainer in (replayed, resumed):
        for name, value in one_by_one.network.state_dict().items():
            torch.testing.assert_close(trainer.network.state_dict()[name], value, rtol=1e-3, atol=1e-3)


def test_a_gradient_of_zero_stops_nothing(pictures: list[Tensor]) -> None:
    """The limit of the norm follows the norms there were; there is none as long as all were 0."""
    trainer = Trainer(HUBER, pictures, replace(CONFIG, steps=3))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.network.zero_grad(set_to_none=False)
    trainer._clip_gradient()
    assert float(trainer.gradient_norm) == 0
    after = parameters_after(trainer)
    assert float(trainer.gradient_norm) > 0
    assert any(not torch.equal(after[name], value) for name, value in before.items() if "weight" in name)


def test_seeds_matter_and_repeat(pictures: list[Tensor]) -> None:
    a, b, c = (
        parameters_after(Trainer(HUBER, pictures, TrainingConfig(steps=3, batch=2, crop=16, seed=s))) for s in (0, 0, 1)
    )
    name = "steps.0.activation.logits"
    assert torch.equal(a[name], b[name])
    assert not torch.equal(a[name], c[name])


@pytest.mark.parametrize("architecture", [HUBER, RELU], ids=["huber", "relu"])
def test_exported_networks_are_certified_at_every_moment(pictures: list[Tensor], architecture) -> None:  # type: ignore[no-untyped-def]
    """Even at an absurd learning rate, which drives the raw parameters anywhere."""
    trainer = Trainer(architecture, pictures, TrainingConfig(steps=20, batch=2, crop=16, learning_rate=1.0))
    for record in trainer.run():
        certificate = certify(export(trainer.network))
        assert certificate.averaged, record.step
        assert all(layer.alpha <= ALPHA_LIMIT * (1 + 1e-6) for layer in certificate.layers)


def test_export_is_the_trained_network(pictures: list[Tensor]) -> None:
    trainer = Trainer(HUBER, pictures, CONFIG)
    parameters_after(trainer)
    plain = export(trainer.network)
    assert trainer.network.training
    trainer.network.eval()
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(plain(x, 0.1), trainer.network(x, 0.1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": None, "time_budget": 0.0}, "time budget"),
        ({"steps": None, "time_budget": math.inf}, "time budget"),
        ({"sigma": (0.2, 0.1)}, "noise levels"),
        ({"sigma": (0.0, 55.0)}, "noise levels"),
        ({"sigma": (0.0, 0.0)}, "noise levels"),
        ({"batch": 0}, "batch"),
        ({"crop": 0}, "crop"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"learning_rate": math.nan}, "learning rate"),
        ({"final_rate": 1.5}, "final rate"),
        ({"warm_up": 0}, "warm up"),
        ({"clip": -1.0}, "clip"),
        ({"grey": 1.5}, "grey"),
        ({"seed": 2**63}, "seed"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainingConfig(**{"steps": 1, **fields})


def test_a_training_without_an_end() -> None:
    """Neither steps nor seconds, as by default, would go on forever at the first learning rate."""
    with pytest.raises(UsageError, match="must have an end"):
        TrainingConfig()
    assert TrainingConfig(time_budget=1.0).steps is None


def test_a_training_starts_from_trained_weights(pictures: list[Tensor]) -> None:
    first = Trainer(HUBER, pictures, CONFIG)
    parameters_after(first)
    trained = export(first.network)
    second = export(Trainer(HUBER, pictures, CONFIG, start=trained).network)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(second(x, 0.1), trained(x, 0.1), atol=2e-3, rtol=0)
    with pytest.raises(UsageError, match="another architecture"):
        Trainer(RELU, pictures, CONFIG, start=trained)


@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_crops_in_grey_are_what_the_network_sees_of_grey_images(centre: float) -> None:
    """Along the grey axis alone, and with the noise that an orthonormal embedding leaves of white noise."""
    noise = 0.2
    config = TrainingConfig(sigma=(noise, noise), steps=1, batch=200, crop=16, grey=0.5)
    architecture = EulerArchitecture((2, 1), 12, "huber", centre=centre)
    trainer = Trainer(architecture, [torch.full((3, 20, 31), 200, dtype=torch.uint8)], config)
    seen: list[Tensor] = []
    trainer.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    parameters_after(trainer)
    (batch,) = seen
    grey = (batch - batch.mean(1, keepdim=True)).flatten(1).abs().amax(1) < 1e-6
    assert 60 < grey.sum() < 140
    along = (batch - centre).sum(1) / 3**0.5
    assert float(along[grey].mean()) == pytest.approx(200 / 255 - centre, abs=0.01)
    assert float(along[~grey].mean()) == pytest.approx(3**0.5 * (200 / 255 - centre), abs=0.01)
    assert float(along[grey].std()) == pytest.approx(noise, rel=0.03)


def test_training_improves_the_denoiser() -> None:
    trainer = Trainer(HUBER, bundled_images(), TrainingConfig(steps=80, batch=8, crop=32))
    crop = [bundled_images()[0][:, 100:164, 200:264]]
    before = validate(export(trainer.network), crop)
    parameters_after(trainer)
    after = validate(export(trainer.network), crop)
    assert sum(after.values()) > sum(before.values()) + 4 * 0.5


def test_validation_is_repeatable_and_takes_grey_levels_apart(pictures: list[Tensor]) -> None:
    network = export(Trainer(HUBER, pictures, CONFIG).network)
    first = validate(network, pictures, sigmas=(5, 50))
    assert first == validate(network, pictures, sigmas=(5, 50))
    assert first[5] > first[50]
    assert set(validate(network, pictures, sigmas=(2.3, 2.7))) == {2.3, 2.7}
    with pytest.raises(UsageError, match="at least one image"):
        validate(network, [])


def test_checkpoints_of_something_else(tmp_path: Path, pictures: list[Tensor]) -> None:
    trainer = Trainer(HUBER, pictures, CONFIG)
    trainer.save(tmp_path / "c")
    with pytest.raises(WeightsError, match="another architecture"):
        Trainer(RELU, pictures, CONFIG).load(tmp_path / "c")
    changed = Trainer(HUBER, pictures, TrainingConfig(steps=30, batch=3, crop=16, learning_rate=1e-2))
    assert changed.load(tmp_path / "c") == ("batch",)
    (tmp_path / "bad").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="bad"):
        trainer.load(tmp_path / "bad")
    with pytest.raises(InputError, match="absent"):
        trainer.load(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("optimiser.muon.0.momentum_buffer", lambda value: None),
        ("optimiser.adam.1.exp_avg", lambda value: value[..., :1]),
        ("optimiser.sgd.0.momentum_buffer", lambda value: torch.zeros(1)),
    ],
)
def test_a_checkpoint_with_a_damaged_optimiser(  # type: ignore[no-untyped-def]
    tmp_path: Path, pictures: list[Tensor], name: str, change
) -> None:
    """Refused, and not resumed without its momentum."""
    trainer = Trainer(HUBER, pictures, CONFIG)
    next(trainer.run())
    trainer.save(tmp_path / "c")
    header, tensors = read_checkpoint(tmp_path / "c")
    value = change(tensors.pop(name, None))
    if value is not None:
        tensors[name] = value.contiguous()
    (tmp_path / "c").write_bytes(save(tensors, metadata=header))
    with pytest.raises(WeightsError, match="damaged"):
        Trainer(HUBER, pictures, CONFIG).load(tmp_path / "c")


def test_a_checkpoint_of_another_device(tmp_path: Path, pictures: list[Tensor]) -> None:
    """Its generator is of no use here: new crops, which is said, and the same network and optimiser."""
    trainer = Trainer(HUBER, pictures, CONFIG)
    for _ in itertools.islice(trainer.run(), 3):
        pass
    trainer.save(tmp_path / "c")
    header, tensors = read_checkpoint(tmp_path / "c")
    header["device"], tensors["generator"] = "cuda", torch.zeros(16, dtype=torch.uint8)
    (tmp_path / "c").write_bytes(save(tensors, metadata=header))
    resumed = Trainer(HUBER, pictures, CONFIG)
    assert resumed.load(tmp_path / "c") == ("device",)
    assert resumed.step == 3
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value)
    assert math.isfinite(next(resumed.run()).loss)


def test_crops(pictures: list[Tensor]) -> None:
    crops = RandomCrops(pictures, 16, torch.Generator().manual_seed(0)).batch(50)
    assert crops.shape == (50, 3, 16, 16)
    assert 0 <= crops.min() < crops.max() <= 1
    assert len({crop.sum().item() for crop in crops}) > 40
    with pytest.raises(InputError, match="21 pixels"):
        RandomCrops(pictures, 21, torch.Generator())


def test_crops_are_windows_of_the_images() -> None:
    """All eight flips and rotations of windows anywhere, borders included, and nothing else."""
    images = [torch.arange(h * w, dtype=torch.uint8).reshape(1, h, w).expand(3, -1, -1) for h, w in ((9, 13), (11, 8))]
    windows: dict[bytes, tuple[int, int, int, int]] = {}
    for i, image in enumerate(images):
        for top in range(image.shape[1] - 7):
            for left in range(image.shape[2] - 7):
                window = image[0, top : top + 8, left : left + 8]
                for turns in range(4):
                    for flip in (0, 1):
                        turned = torch.rot90(window.flip(1) if flip else window, turns)
                        windows[turned.contiguous().numpy().tobytes()] = (i, top, left, 2 * turns + flip)
    crops = RandomCrops(images, 8, torch.Generator().manual_seed(0)).batch(3000)
    found = {windows[(255 * crop[2]).round().byte().numpy().tobytes()] for crop in crops}
    assert len(found) == len(windows)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        load_folders([tmp_path / "absent"])
    with pytest.raises(InputError, match="no image files"):
        load_folders([tmp_path])
    write_image(Image(torch.rand(5, 6, 1).numpy()), tmp_path / "sub" / "grey.png")
    (grey,) = load_folders([tmp_path])
    assert grey.shape == (3, 5, 6)
    assert torch.equal(grey[0], grey[2])


def test_bundled_pictures_need_no_download() -> None:
    assert len(bundled_images()) >= 4


WORKER = """
import os, sys, torch
from pnp_cli import Trainer, TrainingConfig, weights
from pnp_cli.parallel import joined
rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
images = torch.load(sys.argv[1])
with joined(rank, count, torch.device("cpu")) as workers:
    for file, checkpoint in zip(sys.argv[2::2], sys.argv[3::2]):
        start = weights.load(file).network
        config = TrainingConfig(steps=12, batch=3, crop=16, learning_rate=1e-3)
        trainer = Trainer(start.architecture, images, config, workers=workers, start=start)
        for _ in trainer.run():
            pass
        if rank == 0:
            trainer.save(checkpoint)
"""


def test_two_workers_are_one_with_the_doubled_batch(
    tmp_path: Path, pictures: list[Tensor], small_weights: Path, conditioned_weights: Path
) -> None:
    """Two real processes under the launcher, gloo, against one process; an odd batch begins anywhere in the whole.

    They train a plain network, then a conditioned one: to start them takes far longer.
    """
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    torch.save(pictures, tmp_path / "images.pt")
    trainings = [(file, tmp_path / file.stem) for file in (small_weights, conditioned_weights)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    run = subprocess.run(
        [*launch, "--standalone", script, tmp_path / "images.pt", *itertools.chain(*trainings)],
        timeout=300,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    for file, checkpoint in trainings:
        start = weights.load(file).network
        configs = [TrainingConfig(steps=12, batch=batch, crop=16, learning_rate=1e-3) for batch in (6, 3)]
        alone, both = (Trainer(start.architecture, pictures, config, start=start) for config in configs)
        parameters_after(alone)
        both.load(checkpoint)
        assert both.step == 12
        for name, value in alone.network.state_dict().items():
            torch.testing.assert_close(both.network.state_dict()[name], value, rtol=1e-3, atol=2e-4)
