"""What a run reports, as text lines and as plain dictionaries for JSON. Nothing here prints."""

from __future__ import annotations

from typing import Any

import torch

from .accelerators import ACCELERATORS
from .certificate import Certificate
from .conditions import Guarantee
from .correlated_noise import white_level
from .measurement import MeasurementErrors
from .noise import MIN_NOISE
from .noise_curve import NoiseCurve
from .operators import Blur
from .plugandplay import BRIGHTEST, Plan, Settings
from .solvers import Solution, Status
from .sparse import SparseSolution

EXPLAINED = (0.85, 1.05)
"""Discrepancies that restorations with the right kernel and noise level have (`benchmarks.deblurring`)."""

EXPLAINED_IF_NOT_WHITE = 0.1
"""The least of those of JPEG files, where coefficients are rounded to zero and errors are smaller than the steps allow,
and of noise that counts as larger than it is."""

TOO_MUCH = 1.5
"""How many times more noise is seen than there is in hardly any image (`benchmarks.noise_level`)."""


def certificate_line(certificate: Certificate) -> str:
    """What is proven about a network."""
    if certificate.averaged:
        return f"certified averaged, α = {certificate.alpha:.4f}, for every image size"
    return f"NOT certified: {certificate.reason}"


def denoiser_lines(name: str, certificate: Certificate, conditioned: bool, *, mapped: bool = False) -> list[str]:
    """What is proven about one application of a denoiser, or its two passes; `mapped` if by a map of the noise."""
    lines = [f"denoiser    {name}, {certificate_line(certificate)}"]
    if conditioned and certificate.averaged:
        lines += [
            "            first pass: averaged; second pass: averaged for its fixed reference, image and first pass",
            "            both together, with the reference computed from the input: not known to be nonexpansive",
        ]
    if mapped and certificate.averaged:
        lines.append("            each pass is averaged for a fixed map of the noise, which is computed from the input")
    return lines


def blur_line(blur: Blur) -> str:
    """The constants of the forward model."""
    relation = "=" if blur.diagonal else "≥"
    return f"blur        L {relation} ‖K‖², L = {blur.lipschitz:.6g}, μ = {blur.strong_convexity:.3g}"


def clipping_line(share: float, box: bool) -> str:
    """How much of the measurement is clipped, and where the scene may be instead of in [0, 1]."""
    scene = f", the box is [0, {BRIGHTEST:g}]" if box else ""
    return f"clipped     {_percent(share)} of the samples are white, so the scene may be brighter there{scene}"


def cut_off_line(share: float) -> str:
    """How many samples noise was cut off at."""
    return f"clipped     at {_percent(share)} of the samples black or white cut off noise, whose mean is restored"


def _percent(share: float) -> str:
    return f"{share:.2%}" if share >= 5e-5 else "less than 0.01%"


def noise_words(curve: NoiseCurve, noise: float, origin: str) -> str:
    """How large the noise is, `origin` says how that is known; `noise` is its mean, on the 0-255 scale."""
    points = curve_points(curve)
    if points is None:
        return f"{noise:.3g} (0-255 scale, {origin})"
    (dark, least), (bright, most) = points[0], points[-1]
    return (
        f"{noise:.3g} on average (0-255 scale, {origin}), "
        f"from {least:.3g} at brightness {dark:.0f} to {most:.3g} at {bright:.0f}"
    )


def error_lines(errors: MeasurementErrors, rounding: float | None, linear_light: bool, origin: str) -> list[str]:
    """How large the errors of a measurement are; `rounding` is that of JPEG compression, on the 0-255 scale."""
    noise = 255 * errors.noise
    lines = [f"noise       {noise_words(errors.curve, noise, origin)}"]
    if errors.correlated:
        lines.append(sharing_line(1))
    if errors.correlation > 1:
        lines.append(correlation_line(errors.correlation, white_level(noise, errors.correlation)))
    if linear_light:
        lines.append(light_line(noise, noise * errors.slope))
    if rounding is not None:
        lines.append(compression_line(rounding, 255 * errors.level))
    return lines


def doubt_lines(given: float, seen: float, gain: float) -> list[str]:
    """That the noise that was given is far less than is seen at the frequencies that the blur has removed, if it is.

    Both on the 0-255 scale, of an image that is best made brighter by a gain. Less than is there comes back as texture.
    """
    if seen <= TOO_MUCH * max(given, 255 * MIN_NOISE / gain):
        return []
    return [f"            the image seems to hold noise of {seen:.3g}, so {given:.3g} is too little"]


def curve_points(curve: NoiseCurve) -> list[list[float]] | None:
    """Points of brightness and level, 0-255 scale; None for noise that is as large everywhere."""
    return None if curve.constant else [[255 * b, 255 * v**0.5] for b, v in curve.points()]


def light_line(noise: float, in_light: float) -> str:
    """That it is the light that is restored; deviations on the 0-255 scale."""
    return f"light       linear, the sRGB curve is undone: noise of {noise:.3g} is {in_light:.3g} there on average"


def light_origin_line(linear: bool) -> str:
    """Why light or samples count as what was blurred where nobody has said."""
    if linear:
        return "            as in a camera, of which the EXIF data tell; --no-linear-light takes samples as they are"
    return "light       the samples count as what was blurred; compare --linear-light if this is a photograph"


def exposure_line(gain: float) -> str:
    """That an image is dark, and how much brighter the denoiser sees it."""
    return f"exposure    far below white: the denoiser sees it {gain:g} times as bright"


def compression_line(rounding: float, level: float) -> str:
    """What JPEG compression adds to the noise; deviations on the 0-255 scale."""
    return f"jpeg        rounding errors count as noise of {rounding:.3g}, and together with the noise as {level:.3g}"


def sharing_line(stride: int) -> str:
    """What is done about noise that neighbouring pixels share, removed from the phases of every so-many-th pixel."""
    if stride == 1:
        return "correlation neighbouring pixels share the noise: that is the white noise that does as much harm"
    return f"correlation neighbouring pixels share the noise: pixels that lie {stride} apart are denoised together"


def correlation_line(correlation: int, level: float) -> str:
    """What noise counts as that neighbouring pixels share; a deviation on the 0-255 scale."""
    return f"correlation noise is independent from {correlation} pixels on: under blur it counts as {level:.3g}"


def guarantee_lines(guarantee: Guarantee, settings: Settings) -> list[str]:
    """What is known before a Plug-and-Play run, and the numbers it rests on."""
    g, s = guarantee, settings
    lines = [f"theorem     {g.statement}"]
    lines += [f"  fails     {failure}" for failure in g.failures]
    term = f"{s.data_term}, h = {s.envelope:.4g}" if s.data_term == "envelope" else s.data_term
    lines.append(f"data term   {term}: L = {g.lipschitz:.6g}, μ = {g.strong_convexity:.3g}")
    proximal = s.data_term == "envelope" and g.step == s.envelope
    inside = "in" if 0 < g.step < g.step_limit else "NOT in"
    lines.append(
        f"step        {g.step:.6g} {inside} (0, {g.step_limit:.6g})" + (", the proximal map" if proximal else "")
    )
    if g.theorem != "none":
        constant = f"averaged with α = {g.alpha:.4f}"
        if g.contraction is not None:
            constant += f", contraction factor q = {g.contraction:.6g}"
        lines.append(f"operator    {constant}")
    lines.append(f"denoiser    strength {255 * s.strength:.3g} (0-255 scale)")
    return lines


def solution_lines(
    solution: Solution,
    plan: Plan,
    discrepancy: float | None = None,
    *,
    compressed: bool = False,
    correlated: bool = False,
    hint: str = "",
) -> list[str]:
    """How a Plug-and-Play run ended; `discrepancy` of `LeastSquares.discrepancy`, the rest for `discrepancy_line`."""
    settings, warm = plan.settings, plan.warm
    last = solution.records[-1]
    size = float(solution.value.norm())
    h = settings.envelope if settings.data_term == "envelope" else 0.0
    exactness = 2 * torch.finfo(solution.value.dtype).eps * (1 + h * plan.base.lipschitz)
    limited = solution.status is Status.ITERATION_LIMIT and settings.tol < exactness
    hidden = limited and size > 0 and settings.tol * size < last.error
    lines = [
        f"result      {solution.status.value} after {solution.iterations} iterations: relative residual "
        f"{last.relative:.2e}{f', known to {last.error / size:.1e}' if hidden else ''} (tolerance {settings.tol:.1e})"
    ]
    if hidden:
        lines.append(
            "            data steps in single precision are no more exact, so more iterations do not meet the "
            "tolerance: lower --envelope or raise --tol"
        )
    if warm and plan.guarantee.theorem != "none":
        lines.append(f"            the guarantee holds from iteration {warm + 1}, after {warm} warm iterations")
    if plan.references:
        references = f"{plan.references} references, the last" if plan.references > 1 else "1 reference,"
        lines.append(f"            {references} frozen at iteration {warm + 1}")
    statement = ACCELERATORS[settings.acceleration].statement
    if statement:
        lines.append(f"            {statement}")
    if solution.inexactness and not plan.base.diagonal:
        lines.append(f"inexact     data steps by conjugate gradients, errors of sum {solution.inexactness:.2g} at most")
    if solution.checked:
        kept = solution.checked - len(solution.violations)
        lines.append(
            f"checks      {kept} of {solution.checked} steps satisfy the inequality of averaged maps, "
            f"the last within {solution.allowance:.2g} for rounding and inexactness"
        )
    if solution.residual_bound is not None:
        lines.append(f"residual    {last.residual:.4g} measured, a-priori bound {solution.residual_bound:.4g}")
    if solution.error_bound is not None:
        lines.append(f"error       at most {solution.error_bound:.4g} from the unique fixed point (Euclidean norm)")
    if discrepancy is not None:
        lines.append(discrepancy_line(discrepancy, compressed=compressed, correlated=correlated, hint=hint))
    return lines


def discrepancy_line(discrepancy: float, *, compressed: bool = False, correlated: bool = False, hint: str = "") -> str:
    """Whether the restored image explains the measurement up to its noise, and what to look at if not.

    What compression has rounded to zero is explained too well by images without detail, so of a `compressed` image less
    than the noise is left; so it is of `correlated` noise, which counts as larger than it is. `hint` is for an image of
    which more is left.
    """
    rest = "noise and compression alone are left" if compressed else "noise alone is left"
    verdict = f"{rest}, as it should be (a wrong kernel may leave as little)"
    if discrepancy < (EXPLAINED_IF_NOT_WHITE if compressed or correlated else EXPLAINED[0]):
        verdict = "LESS than noise is left: it is not white, as in what was once a JPEG, or --sigma is too high"
    elif discrepancy > EXPLAINED[1]:
        verdict = f"MORE than noise is left: are kernel, --boundary and --sigma right?{hint}"
    return f"discrepancy {discrepancy:.3f} = ‖Kx − y‖/(σ√n): {verdict}"


def guarantee_dict(guarantee: Guarantee, settings: Settings) -> dict[str, Any]:
    """The same for JSON; noise levels on the 0-255 scale."""
    g, s = guarantee, settings
    return {
        "theorem": g.theorem,
        "statement": g.statement,
        "failures": list(g.failures),
        "data_term": s.data_term,
        "envelope": s.envelope if s.data_term == "envelope" else None,
        "lipschitz": g.lipschitz,
        "strong_convexity": g.strong_convexity,
        "step": g.step,
        "step_limit": g.step_limit,
        "alpha": g.alpha,
        "contraction": g.contraction,
        "strength": 255 * s.strength,
        "box": s.box,
        "clip_level": s.clip_level,
        "ridge": s.ridge,
    }


def solution_dict(solution: Solution, plan: Plan, discrepancy: float | None = None) -> dict[str, Any]:
    """The same for JSON."""
    last = solution.records[-1]
    return {
        "status": solution.status.value,
        "converged": solution.converged,
        "iterations": solution.iterations,
        "guaranteed_from_iteration": plan.warm + 1 if plan.guarantee.theorem != "none" else None,
        "references": plan.references,
        "residual": last.residual,
        "relative_residual": last.relative,
        "acceleration": plan.settings.acceleration,
        "inexactness": solution.inexactness,
        "residual_bound": solution.residual_bound,
        "error_bound": solution.error_bound,
        "discrepancy": discrepancy,
        "checked": solution.checked,
        "allowance": solution.allowance,
        "violations": list(solution.violations),
        "residuals": [record.residual for record in solution.records],
    }


def sparse_lines(
    solution: SparseSolution, tol: float, discrepancy: float | None = None, compressed: bool = False
) -> list[str]:
    """How an ISTA run ended; `discrepancy` and `compressed` as in `discrepancy_line`."""
    last = solution.records[-1]
    lines = [
        f"result      {solution.status.value} after {last.iteration} iterations: "
        f"relative duality gap {last.relative_gap:.2e} (tolerance {tol:.1e})",
        f"objective   {last.objective:.8g}, at most {last.gap:.4g} above the minimum",
    ]
    if discrepancy is not None:
        lines.append(discrepancy_line(discrepancy, compressed=compressed))
    return lines


def sparse_dict(solution: SparseSolution, discrepancy: float | None = None) -> dict[str, Any]:
    """The same for JSON."""
    last = solution.records[-1]
    return {
        "status": solution.status.value,
        "converged": solution.converged,
        "iterations": last.iteration,
        "objective": last.objective,
        "gap": last.gap,
        "relative_gap": last.relative_gap,
        "discrepancy": discrepancy,
    }
