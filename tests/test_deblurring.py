"""Deblurring in one call: what is left open is chosen, patches share one plan, and a false certificate is noticed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pnp_cli import (
    Blur,
    Choices,
    UsageError,
    from_tensor,
    kernels,
    prepare_deblurring,
    read_image,
    to_tensor,
    weights,
)
from pnp_cli.boundaries import BOUNDARIES
from pnp_cli.certificate import Certificate
from pnp_cli.deblurring import Deblurring
from pnp_cli.images import Image, encode_image
from pnp_cli.light import to_light, to_samples
from pnp_cli.patches import windows
from pnp_cli.plugandplay import BRIGHTEST, Plan, Settings, plan_deblurring
from pnp_cli.presets import PRESETS, build

from .conftest import SAMPLES, Run
from .helpers import psnr_of, shared_noise

KERNEL = kernels.motion(7, 20)
NOISE = 2.55 / 255


def measured(photo: Image, exposure: float = 1.0, lamp: float | None = None) -> tuple[Tensor, Tensor]:
    """A photograph, maybe with a lamp in a corner, and what a moving camera saw of it, clipped at white.

    Both without what depends on the surroundings.
    """
    scene = exposure * to_tensor(photo)
    if lamp is not None:
        scene[:, :, 15:25, 15:25] = lamp
    frame = (slice(None), slice(None), slice(7, -7), slice(7, -7))
    seen = Blur(KERNEL, photo.size).forward(scene)[frame]
    return scene[frame].clamp(0, 1), (seen + NOISE * torch.randn_like(seen)).clamp(0, 1)


@pytest.fixture(scope="module")
def loaded(small_weights: Path) -> weights.LoadedDenoiser:
    return weights.load(small_weights)


def test_nothing_set(photo: Image, loaded: weights.LoadedDenoiser) -> None:
    truth, y = measured(photo)
    deblurring = prepare_deblurring(y, KERNEL, loaded)
    assert deblurring.errors.noise == pytest.approx(NOISE, rel=0.2)
    assert deblurring.errors.correlation == 1
    assert (deblurring.boundary, deblurring.patches) == ("free", 1)
    deblurring.guarantee.require()
    steps = []
    end = deblurring.run(lambda patch, record: steps.append((patch, record.iteration)))
    assert end.converged
    assert end.violations == ()
    assert end.discrepancy is not None
    assert steps[-1] == (0, end.solution.iterations)
    assert end.frame.shape == y.shape
    assert psnr_of(truth.numpy(), end.frame.numpy()) > psnr_of(truth.numpy(), y.numpy()) + 1


def test_what_is_set_is_taken(photo: Image, loaded: weights.LoadedDenoiser) -> None:
    choices = Choices(0.02, "periodic", settings={"strength": 0.03, "envelope": 7.0, "box": False})
    deblurring = prepare_deblurring(measured(photo)[1], KERNEL, loaded, choices)
    settings = deblurring.plan.settings
    assert (deblurring.errors.noise, deblurring.boundary) == (0.02, "periodic")
    assert (settings.strength, settings.envelope, deblurring.plan.box) == (0.03, 7.0, None)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (Choices(noise=2.55), "on the [0, 1] scale"),
        (Choices(noise=-0.1), "on the [0, 1] scale"),
        (Choices(settings={"clip_level": 0.5}), "'clip_level' is none of the settings"),
        (Choices(settings={"steps": 3}), "'steps' is none of the settings"),
    ],
)
def test_choices_that_make_no_sense(photo: Image, loaded: weights.LoadedDenoiser, choices: Choices, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        prepare_deblurring(to_tensor(photo), KERNEL, loaded, choices)


def test_one_image_at_a_time(photo: Image, loaded: weights.LoadedDenoiser) -> None:
    for y in (to_tensor(photo)[0], to_tensor(photo).expand(2, -1, -1, -1)):
        with pytest.raises(UsageError, match="one image is deblurred at a time"):
            prepare_deblurring(y, KERNEL, loaded)


def test_patches_share_what_is_known_beforehand(loaded: weights.LoadedDenoiser) -> None:
    """Only one of the patches has clipped samples; L, μ, the box and the theorem are those of all."""
    image = read_image(SAMPLES / "coffee.png")
    truth, y = measured(image.with_pixels(image.pixels[:160, :220]), exposure=0.5, lamp=3)
    deblurring = prepare_deblurring(y, KERNEL, loaded, Choices(boundary="periodic", patch=128, settings={"tol": 1e-3}))
    assert deblurring.boundary == "free"
    assert deblurring.patches == len(plans_of(deblurring)) > 1
    for plan in plans_of(deblurring):
        assert plan.guarantee == deblurring.guarantee
        assert plan.box == BRIGHTEST
    numbers = set()
    end = deblurring.run(lambda patch, record: numbers.add(patch))
    assert numbers == set(range(deblurring.patches))
    assert end.frame.max() <= 1
    assert end.converged
    assert psnr_of(truth.numpy(), end.frame.numpy()) > psnr_of(truth.numpy(), y.numpy())


def plans_of(deblurring: Deblurring) -> list[Plan]:
    size = (deblurring.y.shape[2], deblurring.y.shape[3])
    parts = windows(size, deblurring.side, deblurring.overlap)
    return [deblurring._plan_for(window) for window in parts]


def compressed(y: Tensor, photo: Image, quality: int) -> Image:
    """A measurement as a JPEG file, read."""
    return read_image(encode_image(from_tensor(y, photo), "JPEG", quality=quality))


@pytest.mark.parametrize("exposure", [0.8, 1.5])
def test_a_compressed_measurement(photo: Image, loaded: weights.LoadedDenoiser, exposure: float) -> None:
    """Knowing how it was rounded is worth 0.4 decibels; theorem and checks stand, with clipped samples, too."""
    truth, y = measured(photo, exposure)
    file = compressed(y, photo, 80)
    scores = []
    for jpeg in (None, file.jpeg):
        deblurring = prepare_deblurring(to_tensor(file), KERNEL, loaded, Choices(jpeg=jpeg))
        assert (deblurring.clipped > 0) == (exposure > 1)
        deblurring.guarantee.require()
        end = deblurring.run()
        assert end.converged
        assert end.violations == ()
        scores.append(psnr_of(truth.numpy(), end.frame.numpy()))
    assert scores[1] > scores[0] + 0.4


@pytest.mark.parametrize("boundary", list(BOUNDARIES))
@pytest.mark.parametrize("data_term", ["envelope", "least-squares"])
@pytest.mark.parametrize("ridge", [0.0, 0.01])
def test_a_compressed_measurement_otherwise(
    photo: Image, loaded: weights.LoadedDenoiser, boundary: str, data_term: str, ridge: float
) -> None:
    """In grey, at every boundary and for every data term."""
    grey = photo.with_pixels(photo.pixels.mean(2, keepdims=True))
    truth, y = measured(grey, 0.8)
    file = compressed(y, grey, 60)
    assert file.jpeg is not None
    settings = {"data_term": data_term, "ridge": ridge, "tol": 1e-3}
    choices = Choices(boundary=boundary, jpeg=file.jpeg, settings=settings)
    deblurring = prepare_deblurring(to_tensor(file), KERNEL, loaded, choices)
    deblurring.guarantee.require()
    assert deblurring.guarantee.theorem == ("contraction" if ridge else "averaged-box")
    end = deblurring.run()
    assert end.violations == ()
    if boundary == "free":
        assert psnr_of(truth.numpy(), end.frame.numpy()) > psnr_of(truth.numpy(), y.numpy()) + 0.5


def test_noise_that_neighbours_share(photo: Image) -> None:
    """Measured at every second pixel and counted as more it is not amplified; the theorem holds."""
    denoiser = weights.load("conditioned")
    scene = to_tensor(photo)
    frame = (slice(None), slice(None), slice(7, -7), slice(7, -7))
    noise = to_tensor(Image(shared_noise(photo.pixels.shape, 5)))
    truth, y = scene[frame], (Blur(KERNEL, photo.size).forward(scene) + noise)[frame]
    scores = []
    for n in (1, None):
        deblurring = prepare_deblurring(y, KERNEL, denoiser, Choices(correlation=n))
        assert deblurring.errors.correlated == (n is None)
        deblurring.guarantee.require()
        end = deblurring.run()
        assert end.violations == ()
        scores.append(psnr_of(truth.numpy(), end.frame.numpy()))
    assert 5 < 255 * deblurring.errors.noise < 10, "between the deviation and the root of the power at low frequencies"
    assert scores[1] > scores[0] + 0.5
    with pytest.raises(UsageError, match="1 pixel or more"):
        prepare_deblurring(y, KERNEL, denoiser, Choices(correlation=0))


@pytest.mark.parametrize("shared", [False, True])
def test_noise_of_light(photo: Image, loaded: weights.LoadedDenoiser, shared: bool) -> None:
    """It is one of the samples, where these were rounded and where neighbours share it."""
    light = to_light(to_tensor(photo))
    samples = to_samples(Blur(KERNEL, photo.size).forward(light)).clamp(0, 1)
    noise = to_tensor(Image(shared_noise(photo.pixels.shape, 8))) if shared else 8 / 255 * torch.randn_like(samples)
    file = read_image(encode_image(from_tensor(samples + noise, photo), "PNG" if shared else "JPEG", quality=90))
    choices = Choices(linear_light=True, jpeg=file.jpeg)
    deblurring = prepare_deblurring(to_tensor(file), KERNEL, loaded, choices)
    assert deblurring.errors.correlated == shared
    assert 255 * deblurring.errors.noise == pytest.approx(1.46 * 8 if shared else 8, rel=0.15)


def test_another_jpeg(photo: Image, loaded: weights.LoadedDenoiser) -> None:
    """How a colour image was rounded says nothing of a grey one."""
    jpeg = compressed(to_tensor(photo), photo, 60).jpeg
    with pytest.raises(UsageError, match="3 components, but the image has 1"):
        prepare_deblurring(to_tensor(photo)[:, :1], KERNEL, loaded, Choices(jpeg=jpeg))


def test_patches_of_a_compressed_measurement(loaded: weights.LoadedDenoiser) -> None:
    """Blocks are where they are in the whole image: weighing a part of an image gives that part of it weighed."""
    image = read_image(SAMPLES / "coffee.png")
    _, y = measured(image.with_pixels(image.pixels[:150, :221]), exposure=0.8)
    file = compressed(y, image, 60)
    y = to_tensor(file)
    deblurring = prepare_deblurring(y, KERNEL, loaded, Choices(jpeg=file.jpeg, patch=128))
    whole = prepare_deblurring(y, KERNEL, loaded, Choices(jpeg=file.jpeg, patch=0, noise=deblurring.errors.noise))
    r = torch.randn_like(y)
    weighed = whole.plan.base.weigh(r)
    parts = windows((y.shape[2], y.shape[3]), deblurring.side, deblurring.overlap)
    assert any(columns.start % 8 for _, columns in parts)
    for (rows, columns), plan in zip(parts, plans_of(deblurring), strict=True):
        part = plan.base.weigh(r[:, :, rows, columns])
        inside = (slice(None), slice(None), slice(8, -8), slice(8, -8))
        torch.testing.assert_close(part[inside], weighed[:, :, rows, columns][inside])


@pytest.mark.parametrize("boundary", list(BOUNDARIES))
@pytest.mark.parametrize("clipped", [False, True])
def test_no_check_fails_in_a_long_run(
    photo: Image, loaded: weights.LoadedDenoiser, boundary: str, clipped: bool
) -> None:
    """In single precision and far below the tolerance, where rounding is all that moves."""
    _, y = measured(photo, exposure=1.5 if clipped else 0.5)
    choices = Choices(boundary=boundary, settings={"tol": 0.0, "max_iter": 300})
    deblurring = prepare_deblurring(y, KERNEL, loaded, choices)
    assert (deblurring.clipped > 0) == clipped
    end = deblurring.run()
    assert end.violations == ()
    assert end.solution.checked > 200
    assert end.solution.allowance < 1e-4 * float(y.norm())


class Sharpener(torch.nn.Module):
    """Claims to denoise, and makes the finest stripes larger by a hundredth."""

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        return x + 0.005 * (x - x.roll(1, 3))


def test_the_allowance_hides_no_expansion(photo: Image) -> None:
    """In single precision, with the allowance for rounding and inexact steps."""
    _, y = measured(photo)
    blur = Blur(KERNEL, (y.shape[2], y.shape[3]), BOUNDARIES["free"])
    settings = Settings.for_noise(NOISE, tol=0.0, max_iter=300, box=False)
    plan = plan_deblurring(y, blur, Sharpener(), Certificate(True, 0.5, "forged"), settings)
    assert plan.run().violations


@pytest.fixture
def forged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of an expansive network, in a program that takes every network for averaged."""
    network = build(PRESETS["dncnn"])
    network.initialise()
    for parameter in network.parameters():
        parameter.data *= 3
    path = tmp_path / "forged.safetensors"
    weights.save(path, network)
    monkeypatch.setattr(weights, "certify", lambda *_, **__: Certificate(True, 0.5, "forged"))
    return path


@pytest.mark.parametrize("unsafe", [[], ["--allow-unsafe"]])
def test_a_false_certificate_fails_the_file(
    pnp: Run, photo_file: Path, tmp_path: Path, forged: Path, unsafe: list[str]
) -> None:
    out = tmp_path / "out.png"
    options = ["-w", forged, "--no-continuation", "--max-iter", 20, "--json", *unsafe]
    result = pnp("deblur", photo_file, "-o", out, "--motion", 7, 20, "--sigma", 2.55, *options)
    assert result.returncode == 3, result.stderr
    assert not out.exists()
    text = result.stderr.decode()
    assert "VIOLATION" in text
    assert "a certificate is false" in text
    fields = json.loads(result.stdout)
    assert not fields["ok"]
    assert fields["violations"]


def test_a_false_certificate_fails_denoising(pnp: Run, photo_file: Path, tmp_path: Path, forged: Path) -> None:
    out = tmp_path / "out.png"
    result = pnp("denoise", photo_file, "-o", out, "-w", forged, "--sigma", 10, "--repeat", 3)
    assert result.returncode == 3, result.stderr
    assert not out.exists()
    assert "VIOLATION" in result.stderr.decode()
