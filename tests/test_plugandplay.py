"""The Plug-and-Play iteration end to end: fixed points, rates, continuation, and honesty about failure."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from pnp_cli import Blur, Settings, UsageError, certify, kernels, plan_deblurring, to_tensor
from pnp_cli.accelerators import Anderson
from pnp_cli.boundaries import BoundaryModel, Free, Periodic, Reflect
from pnp_cli.certificate import Certificate
from pnp_cli.conditioned import Conditioned
from pnp_cli.images import Image
from pnp_cli.plugandplay import BRIGHTEST, Plan
from pnp_cli.solvers import Solution, Status, fixed_point

from .helpers import psnr_of, small_conditioned, small_network

NOISE = 2.55 / 255
KERNEL = kernels.motion(7, 20)


def problem(photo: Image) -> tuple[Tensor, Blur, Tensor]:
    truth = to_tensor(photo, dtype=torch.float64)
    blur = Blur(KERNEL, photo.size, dtype=torch.float64)
    y = blur.forward(truth)
    return truth, blur, y + NOISE * torch.randn_like(y)


def plan(photo: Image, **choices: object) -> tuple[Plan, Tensor]:
    truth, blur, y = problem(photo)
    network = small_network().double()
    settings = Settings.for_noise(NOISE, **choices)  # type: ignore[arg-type]
    return plan_deblurring(y, blur, network, certify(network), settings), truth


@pytest.mark.parametrize("data_term", ["envelope", "least-squares"])
def test_it_reaches_a_fixed_point_monotonically(photo: Image, data_term: str) -> None:
    p, truth = plan(photo, data_term=data_term, tol=1e-6, max_iter=3000, acceleration="none")
    solution = p.run()
    assert solution.status is Status.CONVERGED
    assert solution.violations == ()
    residuals = [record.residual for record in solution.records if not record.warm]
    assert all(b <= a for a, b in pairwise(residuals))
    assert solution.residual_bound is not None
    assert residuals[-1] <= solution.residual_bound
    again = p.operator()(solution.value)
    assert float((again - solution.value).norm() / again.norm()) <= 1e-6
    assert psnr_of(truth.numpy(), solution.value.numpy()) > psnr_of(truth.numpy(), p.start.numpy()) + 1.5


def test_warm_and_cold_starts_meet_with_a_ridge(photo: Image) -> None:
    """Strongly convex: one fixed point, a linear rate, and an error bound that holds."""
    warm, _ = plan(photo, ridge=0.2, envelope=5.0, tol=1e-9, max_iter=2000)
    cold, _ = plan(photo, ridge=0.2, envelope=5.0, tol=1e-9, max_iter=2000, continuation=0)
    assert warm.guarantee.theorem == "contraction"
    q = warm.guarantee.contraction
    assert q is not None
    assert len(list(warm.warm_up())) == warm.warm == Settings.continuation
    assert list(cold.warm_up()) == []
    # The two problems were made with different noise, so start the cold one from the warm one's data.
    a = warm.run()
    b = fixed_point(warm.operator(), torch.zeros_like(warm.start), tol=1e-9, max_iter=2000)
    torch.testing.assert_close(a.value, b.value, atol=1e-7, rtol=0)
    early = fixed_point(warm.operator(), warm.start, tol=0, max_iter=10)
    residuals = [record.residual for record in early.records]
    assert all(later <= q * before for before, later in pairwise(residuals))
    assert float((early.value - a.value).norm()) <= q * residuals[-1] / (1 - q)


def test_iterates_stay_in_the_box_only_if_asked(photo: Image) -> None:
    boxed, _ = plan(photo, max_iter=30)
    free, _ = plan(photo, max_iter=30, box=False)
    assert boxed.guarantee.theorem == "averaged-box"
    assert free.guarantee.theorem == "averaged"
    x = boxed.run().value
    assert x.min() >= 0
    assert x.max() <= 1


@pytest.mark.parametrize("boundary", [Periodic, Free])
def test_clipped_highlights(photo: Image, boundary: BoundaryModel) -> None:
    """An overexposed picture: taking white for what it was ruins its surroundings; the theorem holds with both."""
    scene = 1.6 * to_tensor(photo, dtype=torch.float64)
    frame = (slice(None), slice(None), slice(7, -7), slice(7, -7)) if boundary is Free else ...
    blurred = Blur(KERNEL, photo.size, dtype=torch.float64).forward(scene)[frame]
    truth = scene[frame].clamp(0, 1)
    y = (blurred + NOISE * torch.randn_like(blurred)).clamp(0, 1)
    blur = Blur(KERNEL, (y.shape[2], y.shape[3]), boundary, dtype=torch.float64)
    network = small_network().double()
    scores = {}
    for clip_level in (None, 1.0):
        settings = Settings.for_noise(NOISE, clip_level=clip_level, max_iter=400)
        p = plan_deblurring(y, blur, network, certify(network), settings)
        solution = p.run()
        assert p.guarantee.theorem == "averaged-box"
        assert p.box == (BRIGHTEST if clip_level else 1)
        assert solution.violations == ()
        residuals = [record.residual for record in solution.records if not record.warm]
        assert all(b <= a + 1e-6 for a, b in pairwise(residuals))
        assert solution.residual_bound is not None
        assert residuals[-1] <= solution.residual_bound
        restored = blur.boundary.frame_of(solution.value)
        assert restored.max() <= (p.box or 0)
        scores[clip_level] = psnr_of(truth.numpy(), restored.clamp(0, 1).numpy())
    assert scores[1.0] > scores[None] + 1


def test_inadmissible_step_is_listed_and_its_run_reported(photo: Image) -> None:
    p, _ = plan(photo, data_term="least-squares", step=2.0, max_iter=30)
    assert "admissible interval" in p.guarantee.failures[0]
    wild, _ = plan(photo, data_term="least-squares", step=1e30, max_iter=300, box=False, continuation=0)
    assert wild.run().status is Status.DIVERGED


class Expansive(nn.Module):
    """Claims to denoise and sharpens instead."""

    def forward(self, x: Tensor, sigma: float) -> Tensor:
        return x + 0.9 * (x - x.roll(1, 3))


def test_false_certificate_is_caught_in_the_run(photo: Image) -> None:
    _, blur, y = problem(photo)
    settings = Settings.for_noise(NOISE, max_iter=60, continuation=0, box=False)
    p = plan_deblurring(y, blur, Expansive(), Certificate(True, 0.5, "forged"), settings)
    p.guarantee.require()
    assert p.run().violations


@pytest.mark.parametrize("boundary", [Free, Reflect])
def test_unknown_surroundings(photo: Image, boundary: BoundaryModel) -> None:
    """Inexact data steps: their errors are summed, admitted by the checks, and the fixed point is one."""
    truth = to_tensor(photo, dtype=torch.float64)
    h, w = KERNEL.shape
    if boundary is Free:
        y = Blur(KERNEL, photo.size, dtype=torch.float64).forward(truth)[:, :, h:-h, w:-w]
    else:
        y = Blur(KERNEL, photo.size, boundary, dtype=torch.float64).forward(truth)
    y += NOISE * torch.randn_like(y)
    network = small_network().double()
    settings = Settings.for_noise(NOISE, tol=2e-5, max_iter=600)
    blur = Blur(KERNEL, (y.shape[2], y.shape[3]), boundary, dtype=torch.float64)
    p = plan_deblurring(y, blur, network, certify(network), settings)
    solution = p.run()
    assert solution.converged
    assert solution.violations == ()
    assert 0 < solution.inexactness < 2e-4 * float(y.norm())
    summed = sum(r.error for r in solution.records)  # with another rounding, since Python 3.12 compensates for it
    assert solution.inexactness >= (1 - 1e-12) * summed
    assert solution.value.shape[2:] == blur.scene
    again = p.operator()
    moved = float((again(solution.value) - solution.value).norm())
    assert moved <= 2e-5 * float(solution.value.norm()) + again.error


def test_anderson_reaches_the_fixed_point_sooner(photo: Image) -> None:
    """With a ridge there is one fixed point; the checks hold at extrapolated points, and the residual never rises."""
    plain, _ = plan(photo, ridge=0.2, envelope=5.0, tol=1e-9, max_iter=3000)
    expected = plain.run()

    def cold(acceleration: str) -> Solution:
        settings = replace(plain.settings, acceleration=acceleration, tol=1e-5)
        return Plan(settings, plain.guarantee, plain.base, plain.denoiser, warm=0).run()

    fast, slow = cold("anderson"), cold("none")
    assert fast.converged
    assert fast.violations == ()
    assert fast.iterations < slow.iterations
    residuals = [record.residual for record in fast.records]
    assert residuals == sorted(residuals, reverse=True)
    assert fast.residual_bound is not None
    assert residuals[-1] <= fast.residual_bound
    assert fast.error_bound is not None
    assert float((fast.value - expected.value).norm()) <= fast.error_bound


def test_a_deviation_that_does_not_pay_is_taken_back() -> None:
    """An accelerator that always overshoots: the residuals fall nevertheless, and the last image is a plain one."""

    class Overshoot(Anderson):
        def next(self, x: Tensor, image: Tensor) -> Tensor:
            self.deviation = 1.0
            return image + 1

    solution = fixed_point(lambda v: v / 2, torch.ones(1, 1, 2, 2), tol=0, max_iter=20, accelerator=Overshoot())
    numbers = [record.iteration for record in solution.records]
    residuals = [record.residual for record in solution.records]
    assert residuals == sorted(residuals, reverse=True)
    assert any(b - a == 2 for a, b in pairwise(numbers))
    assert float((solution.value - 0.5 ** len(numbers)).abs().max()) == 0


@pytest.mark.parametrize(("refresh", "warm", "references"), [(1, 20, 1), (4, 20, 4), (40, 20, 21), (3, 0, 1)])
def test_references_are_renewed_then_frozen(photo: Image, refresh: int, warm: int, references: int) -> None:
    _, blur, y = problem(photo.with_pixels(photo.pixels[:41, :46]))
    network = small_conditioned().double()
    settings = Settings.for_noise(
        NOISE, refresh=refresh, continuation=warm, max_iter=300, tol=1e-5, acceleration="none"
    )
    p = plan_deblurring(y, blur, network, certify(network), settings)
    assert p.references == references
    renewals: list[int] = []
    condition = network.condition

    def spy(reference: Tensor, sigma: float, noisy: bool, guide_factor: float) -> Conditioned:
        assert not noisy
        renewals.append(len(seen))
        return condition(reference, sigma, noisy, guide_factor)

    seen: list[Tensor] = []
    network.condition = spy  # type: ignore[method-assign, assignment]
    solution = p.run(lambda _, x: seen.append(x))
    assert len(renewals) == references
    assert renewals[-1] == warm, "the last reference is taken when the warm-up ends"
    assert all(iteration < warm for iteration in renewals[:-1])
    # From the freeze on it is one averaged map: the checks hold and the residual of the plain iteration never grows.
    assert solution.violations == ()
    residuals = [record.residual for record in solution.records if not record.warm]
    assert all(b <= a for a, b in pairwise(residuals))
    frozen = p.operator()
    frozen(seen[warm - 1] if warm else p.start)
    torch.testing.assert_close(frozen(seen[-2]), seen[-1], rtol=0, atol=1e-12)
    again = p.run()
    assert torch.equal(again.value, solution.value), "a second run takes its references anew"


def test_no_refresh_is_the_plain_network(photo: Image) -> None:
    _, blur, y = problem(photo)
    network = small_conditioned().double()
    settings = Settings.for_noise(NOISE, refresh=0, max_iter=25)
    certificate = certify(network)
    conditioned = plan_deblurring(y, blur, network, certificate, settings)
    plain = plan_deblurring(y, blur, network.plain, certificate, settings)
    assert conditioned.references == 0
    assert torch.equal(conditioned.run().value, plain.run().value)


@pytest.mark.parametrize(
    "choices",
    [
        {"strength": -1.0},
        {"strength": math.nan},
        {"envelope": 0.0},
        {"ridge": -0.1},
        {"tol": math.inf},
        {"step": math.nan},
        {"max_iter": 0},
        {"refresh": -1},
        {"data_term": "other"},
        {"acceleration": "nesterov"},
    ],
    ids=str,
)
def test_settings_that_make_no_sense(choices: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Settings.for_noise(NOISE, **choices)  # type: ignore[arg-type]


def test_stopping_and_callback() -> None:
    seen: list[int] = []
    solution = fixed_point(
        lambda v: v / 2, torch.ones(1, 1, 2, 2), tol=1e-3, max_iter=50, callback=lambda r, _: seen.append(r.iteration)
    )
    # x_k = 2^-k, so the residual equals |x_{k+1}| at every step: relative residual 1, never converged.
    assert solution.status is Status.ITERATION_LIMIT
    assert seen == list(range(1, 51))
    assert fixed_point(lambda v: v, torch.ones(1, 1, 2, 2)).iterations == 1
