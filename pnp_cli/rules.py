"""How the settings of deblurring follow from noise and kernel: rules fitted on blurred images, in the weight files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .noise import MIN_NOISE


@dataclass(frozen=True)
class Rule:
    """h and strength for a noise level and a kernel, as `benchmarks.deblurring_rules` fits them.

    Attributes
    ----------
    weight : h is weight/noise.
    scale, power, weakness : the strength on the 0-255 scale is scale·levelᵖᵒʷᵉʳ·exp(−weakness·w) for that h,
        level = 255·noise, w the share of frequencies that the kernel loses (`kernels.weak_share`).
    """

    weight: float
    scale: float
    power: float
    weakness: float = 0.0

    def __post_init__(self) -> None:
        if not all(isinstance(v, int | float) and math.isfinite(v) for v in asdict(self).values()):
            raise ValueError(f"not a rule of finite numbers: {self}")
        if not (self.weight > 0 and self.scale > 0):
            raise ValueError(f"weight and scale of a rule are positive: {self}")

    def envelope(self, noise: float) -> float:
        """h for noise of standard deviation `noise`, [0, 1] scale."""
        return self.weight / max(noise, MIN_NOISE)

    def strength(self, noise: float, h: float, weak: float = 0.0) -> float:
        """Denoiser strength for a noise level, a data weight h and a weak share, noise and strength in [0, 1].

        Along strength² ∝ h the fixed points have about the same quality.
        """
        level = 255 * max(noise, MIN_NOISE)
        fitted = self.scale * level**self.power * math.exp(-self.weakness * weak)
        return fitted / 255 * math.sqrt(h / self.envelope(noise))


@dataclass(frozen=True)
class Rules:
    """The rules of one weight file: for its plain network, and for the conditioned one if it has one."""

    plain: Rule = Rule(0.1, 2.61, 0.41, 0.8)
    conditioned: Rule | None = None

    def of(self, referenced: bool) -> Rule:
        """The rule for runs that take references, or for those that do not."""
        return self.conditioned if referenced and self.conditioned is not None else self.plain

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Rules:
        """Inverse of `as_dict`.

        Raises
        ------
        ValueError
            If the fields are not those of rules.
        """
        try:
            return cls(**{key: Rule(**value) for key, value in fields.items() if value is not None})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"malformed deblurring rules ({error})") from error


PLAIN_RULES = Rules()
CONDITIONED_RULES = Rules(conditioned=Rule(0.2, 4.82, 0.32, 0.65))
"""For networks whose file has no rules of its own."""
