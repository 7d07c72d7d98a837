"""Training of a denoiser: averaged up to the error of a norm estimate, and certified when exported.

While it trains, the convolution of an Euler step is W/ν(W), ν a differentiable power-iteration estimate of
the norm, and its τ is 2·sigmoid(raw) < 2. The estimate is a lower bound, so `export` computes the rigorous
bound of `certificate` and shortens τ where needed. After the start all randomness comes from one generator of
the device, and all state is in the checkpoint, so on the CPU a resumed run repeats an uninterrupted one bit for bit
(same machine and threads; with a time budget the learning rate follows the clock and runs differ). On CUDA runs may
agree to rounding only; workers of one run need processors of one model.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .certificate import certify_layer
from .conditioned import ConditionedNetwork
from .cuda_graph import Replayed
from .data import RandomCrops, luma
from .denoisers import Denoiser, EulerNetwork, colour_to_grey, grey_to_colour
from .errors import DivergenceError, UsageError, WeightsError
from .files import read_bytes, write_bytes
from .layers import EulerStep
from .metrics import psnr
from .optimiser import Optimiser
from .parallel import Workers
from .presets import Architecture, architecture_from_dict, architecture_to_dict, build
from .weights import parse

CHECKPOINT_KIND = "pnp-training-checkpoint-2"

ALPHA_LIMIT = 0.95
"""Largest averaged constant of a layer that `export` lets through; τ is shortened to it."""

VALIDATION_SIGMAS = (5, 15, 25, 50)
"""Noise levels of the validation on the 0-255 scale."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines a run besides the data; `steps` or `time_budget` must be given.

    Attributes
    ----------
    sigma : range of the noise levels, [0, 1] scale, 0 ≤ low ≤ high; every crop has its own, uniform in it.
    steps : number of training steps, ≥ 1; None for no limit.
    time_budget : seconds of training, > 0; None for no limit. The cosine schedule ends with whichever of `steps` and
        this comes first.
    batch : crops per step and worker, ≥ 1.
    crop : side of the crops in pixels, ≥ 1.
    learning_rate : at the start, > 0; see `optimiser`.
    final_rate : learning rate at the end, as a fraction of `learning_rate`, in [0, 1].
    warm_up : steps over which the learning rate rises linearly at the start, ≥ 1; at most a tenth of `steps`.
    clip : largest norm of the gradient, relative to a running mean of its norm times 4, ≥ 0; 0 switches it off.
    grey : share of the crops that a network of colour images sees as it sees grey images, in [0, 1].
    seed : of the weights at the start, the crops and the noise; an integer of 64 bits.

    Raises
    ------
    UsageError
        If the training would have no end, or a value makes no sense.
    """

    sigma: tuple[float, float] = (0.0, 55 / 255)
    steps: int | None = None
    time_budget: float | None = None
    batch: int = 10
    crop: int = 64
    learning_rate: float = 0.06
    final_rate: float = 0.02
    warm_up: int = 200
    clip: float = 1.0
    grey: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps is None and self.time_budget is None:
            raise UsageError("a training must have an end; give it a number of steps, a time budget, or both")
        low, high = self.sigma
        if not 0 <= low <= high <= 1 or high == 0:
            raise UsageError(f"the noise levels of a training must be a range in [0, 1], not {low:g} to {high:g}")
        for name in ("steps", "batch", "crop", "warm_up"):
            self._require(name, "at least 1", lambda value: value >= 1)
        for name in ("time_budget", "learning_rate"):
            self._require(name, "a positive number", lambda value: 0 < value < math.inf)
        for name in ("final_rate", "grey"):
            self._require(name, "in [0, 1]", lambda value: 0 <= value <= 1)
        self._require("clip", "a number of at least 0", lambda value: 0 <= value < math.inf)
        self._require("seed", "an integer of 64 bits", lambda value: -(2**63) <= value < 2**63)

    def _require(self, name: str, words: str, holds: Callable[[float], bool]) -> None:
        """Refuse a value that is given and makes no sense."""
        value = getattr(self, name)
        if value is not None and not holds(value):
            raise UsageError(f"the {name.replace('_', ' ')} of a training must be {words}, not {value:g}")


@dataclass(frozen=True)
class TrainingRecord:
    """One step.

    Attributes
    ----------
    step : number of the step, from 1.
    elapsed : seconds of training so far.
    progress : share of the run that is done, in [0, 1].
    learning_rate : of this step.
    loss : squared error on the [0, 1] scale, divided by σ + 2/255, mean over the batch of this worker.
    psnr : in dB by noise level on the 0-255 scale, if the network was validated.
    """

    step: int
    elapsed: float
    progress: float
    learning_rate: float
    loss: float
    psnr: dict[float, float] | None = None

    def as_json(self) -> str:
        """One line of the training log."""
        fields = asdict(self) | {"elapsed": round(self.elapsed, 2)}
        return json.dumps({key: value for key, value in fields.items() if value is not None})


# ------------------------------------------------------------------------------- parametrisations


class UnitNorm(nn.Module):
    """W ↦ W/ν(W), ν one power-iteration step per training step on a 16 × 16 torus, warm-started.

    Attributes
    ----------
    u : the image (1, C_in, 16, 16) of norm 1 that the power iteration has come to; ν = ‖W u‖ ≤ ‖W‖.
    """

    SIDE = 16
    u: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        u = torch.randn(1, weight.shape[1], self.SIDE, self.SIDE)
        self.register_buffer("u", (u / u.norm()).to(weight.device))
        with torch.no_grad():
            for _ in range(30):
                self._iterate(weight)

    @torch.no_grad()
    def _iterate(self, weight: Tensor) -> None:
        y = self._convolve(weight, self.u)
        x = self._convolve(weight.transpose(0, 1).flip(2, 3), y)
        self.u.copy_(x / x.norm())

    @staticmethod
    def _convolve(weight: Tensor, x: Tensor) -> Tensor:
        pad = weight.shape[-1] // 2
        return F.conv2d(F.pad(x, (pad,) * 4, mode="circular"), weight)

    def forward(self, weight: Tensor) -> Tensor:
        """Normalise (C_out, C_in, k, k); the power iteration advances in training mode only."""
        with torch.autocast(weight.device.type, enabled=False):
            if self.training:
                self._iterate(weight.detach())
            return weight / self._convolve(weight, self.u).norm()

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Scale the free parameter to rows of unit norm, so that the optimiser's step suits it."""
        return weight / weight.flatten(1).norm(dim=1).mean()


class StepBelowTwo(nn.Module):
    """raw ↦ 2·sigmoid(raw): τ in (0, 2) for ‖A‖ = 1."""

    def forward(self, raw: Tensor) -> Tensor:
        """τ of the raw scalar."""
        return 2 * torch.sigmoid(raw)

    def right_inverse(self, tau: Tensor) -> Tensor:
        """Raw scalar of τ."""
        return torch.logit(tau / 2)


def constrain(network: Denoiser) -> None:
    """Parametrise every Euler step that is trained so that τ‖A‖² stays below 2, up to the error of ν.

    The power iterations start from torch's global generator.
    """
    for module in network.modules():
        if isinstance(module, EulerStep) and module.weight.requires_grad:
            parametrize.register_parametrization(module, "weight", UnitNorm(module.weight.detach()))
            parametrize.register_parametrization(module, "step", StepBelowTwo())


@torch.no_grad()
def export(network: Denoiser) -> Denoiser:
    """A plain float32 CPU copy of a network in training, every step within its certified interval.

    Raises
    ------
    ValueError
        If a convolution is not finite.
    """
    was_training = network.training
    network.eval()
    plain = build(network.architecture)
    for name, parameter in plain.named_parameters():
        value: Tensor = functools.reduce(getattr, name.split("."), network)  # type: ignore[assignment]
        parameter.copy_(value)
    for step in (module for module in plain.modules() if isinstance(module, EulerStep)):
        layer = certify_layer(step, "")
        if layer.alpha > ALPHA_LIMIT:
            step.step.fill_(2 * ALPHA_LIMIT / layer.norm_upper**2)
    network.train(was_training)
    return plain.eval()


# --------------------------------------------------------------------------------------- training


class SecondPass(nn.Module):
    """What is trained: the network for the image itself as its reference; a network without one, as it stands.

    In use the reference holds the noise of the image, when denoising, or none, as the iterates of an inverse problem
    do; the same weights have to serve both.
    """

    def __init__(self, network: Denoiser) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, sigma: Tensor, noisy: Tensor) -> Tensor:
        """Restore `x` (B, C, H, W) at noise levels (B,); `noisy` (B,) says which references count as such."""
        return self.network.condition(x, sigma, noisy)(x, sigma)


@torch.no_grad()
def validate(
    restore: Callable[[Tensor, float], Tensor],
    images: Sequence[Tensor],
    sigmas: Sequence[float] = VALIDATION_SIGMAS,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> dict[float, float]:
    """Mean PSNR in dB (peak 1.0) of a denoiser over images, at noise levels on the 0-255 scale.

    `restore` takes (1, C, H, W) and the level on the [0, 1] scale: a network or its `estimate`. Images are uint8
    tensors (C, H, W). The noise of image i at each level comes from seed + i, so that every call sees the same
    noise. The result is by noise level, on the 0-255 scale as given.

    Raises
    ------
    UsageError
        If there are no images.
    """
    if not images:
        raise UsageError("a validation needs at least one image")
    result = {}
    for sigma in sigmas:
        total = 0.0
        for i, image in enumerate(images):
            clean = image[None].float() / 255
            generator = torch.Generator().manual_seed(seed + i)
            noisy = clean + sigma / 255 * torch.randn(clean.shape, generator=generator)
            restored = restore(noisy.to(device), sigma / 255).cpu()
            total += psnr(clean.numpy(), restored.numpy())
        result[sigma] = total / len(images)
    return result


class Trainer:
    """State of a training run: network, optimiser, generator, step and elapsed time.

    Attributes
    ----------
    network : the network in training, with the parametrisations of `constrain`; `export` makes a plain one of it.
    step : number of steps taken.
    elapsed : seconds that they took.
    gradient_norm : running mean of the norm of the gradient, a scalar on the device; 0 if it is not known yet.
    """

    def __init__(
        self,
        architecture: Architecture,
        images: Sequence[Tensor],
        config: TrainingConfig,
        device: torch.device | None = None,
        plain: EulerNetwork | None = None,
        workers: Workers | None = None,
        start: Denoiser | None = None,
    ) -> None:
        """Prepare the first step.

        Parameters
        ----------
        architecture : of the network to train.
        images : training images, uint8 tensors (3, H, W).
        config : everything else that determines the run.
        device : where to compute; the CPU by default.
        plain : the trained plain network of a conditioned one, kept as it is.
        workers : see `parallel`; this process alone by default.
        start : a trained network of the same architecture to go on from, its plain network included.

        Raises
        ------
        UsageError
            If `start` or `plain` has another architecture, or is missing.
        InputError
            If no image is as large as a crop, or the device has no room for them.
        """
        self.workers = workers or Workers()
        self.architecture = architecture
        self.config = config
        self.device = device or torch.device("cpu")
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = build(architecture)
            self.network.initialise()
            if start is not None:
                if start.architecture != architecture:
                    raise UsageError("the network to start from has another architecture than the preset")
                self.network.load_state_dict(start.state_dict())
            elif isinstance(self.network, ConditionedNetwork):
                if plain is None or plain.architecture != self.network.plain.architecture:
                    raise UsageError("a conditioned network is trained around a trained plain network of its preset")
                self.network.adopt(plain.state_dict())
            if isinstance(self.network, ConditionedNetwork):
                self.network.plain.requires_grad_(False)
            constrain(self.network)
        self.network.to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.restore = self.workers.share(SecondPass(self.network))
        self._advance = self._new_advance()
        self.trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimiser = Optimiser(self.trained)
        self.crops = RandomCrops(images, config.crop, self.generator, self.network.image_channels)
        self.step = 0
        self.elapsed = 0.0
        self.gradient_norm = torch.zeros((), device=self.device)

    @property
    def progress(self) -> float:
        """Fraction of the run that is done, in [0, 1]."""
        by_steps = self.step / self.config.steps if self.config.steps else 0.0
        by_time = self.elapsed / self.config.time_budget if self.config.time_budget else 0.0
        return min(max(by_steps, by_time), 1.0)

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[TrainingRecord]:
        """Train to the end of the schedule, one record per step; `stop` is asked before each step.

        Raises
        ------
        DivergenceError
            If the loss is no longer a finite number; the last checkpoint is still good.
        """
        while self.progress < 1 and not self.workers.any(stop()):
            start = time.perf_counter()
            rate = self._learning_rate()
            loss = self._train_step(rate)
            if not math.isfinite(loss):
                raise DivergenceError(f"the training diverged at step {self.step + 1}; resume with a smaller rate")
            self.step += 1
            self.elapsed = self.workers.agree(self.elapsed + time.perf_counter() - start)
            yield TrainingRecord(self.step, self.elapsed, self.progress, rate, loss)

    def _learning_rate(self) -> float:
        c = self.config
        cosine = (1 + math.cos(math.pi * self.progress)) / 2
        ramp = min(c.warm_up, max(1, c.steps // 10)) if c.steps else c.warm_up
        warm_up = min(1.0, (self.step + 1) / ramp)
        return c.learning_rate * warm_up * (c.final_rate + (1 - c.final_rate) * cosine)

    def _train_step(self, rate: float) -> float:
        self.optimiser.rate.fill_(rate)
        return float(self._advance(*self._batch()))

    def _new_advance(self) -> Callable[..., Tensor]:
        """`_step_on`, to be replayed by one process on a GPU; an exchange between several is not to be recorded."""
        if self.device.type != "cuda" or self.workers.count > 1:
            return self._step_on
        return Replayed(self._step_on, self.device)

    def _step_on(self, clean: Tensor, noisy: Tensor, sigma: Tensor, noisy_reference: Tensor) -> Tensor:
        """Move the parameters by the gradient for a batch; its loss before that."""
        gpu = self.device.type == "cuda"
        # Without the cache, whose copies of the weights a recording must not meet.
        mixed = torch.autocast(self.device.type, torch.bfloat16, enabled=gpu, cache_enabled=False)
        with mixed, parametrize.cached():
            restored = self.restore(noisy, sigma, noisy_reference)
        # The squared error grows with σ; the weight makes every noise level count about equally.
        error = (restored.float() - clean).square().mean((1, 2, 3))
        loss = (error / (sigma + 2 / 255)).mean()
        self.network.zero_grad()
        torch.autograd.backward(loss)
        self._clip_gradient()
        self.optimiser.step()
        return loss.detach()

    def _batch(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """This worker's clean and noisy crops (B, C, size, size), their noise levels and the kind of reference (B,).

        Every second crop is a reference that counts as noisy; see `SecondPass`.
        """
        c = self.config
        total = c.batch * self.workers.count
        uniform = functools.partial(torch.rand, generator=self.generator, device=self.device)
        clean = self.crops.batch(total)
        low, high = c.sigma
        sigma = low + (high - low) * uniform(total)
        noise = sigma[:, None, None, None] * torch.randn(clean.shape, generator=self.generator, device=self.device)
        if c.grey and self.network.image_channels == 3:
            grey = uniform(total, 1, 1, 1) < c.grey
            centre = self.network.centre
            clean = torch.where(grey, grey_to_colour(luma(clean) - centre) + centre, clean)
            noise = torch.where(grey, grey_to_colour(colour_to_grey(noise)), noise)
        noisy_reference = torch.arange(total, device=self.device) % 2 == 0
        clean, noisy, sigma, noisy_reference = (
            self.workers.part(t) for t in (clean, clean + noise, sigma, noisy_reference)
        )
        return clean, noisy.contiguous(memory_format=torch.channels_last), sigma, noisy_reference

    def _clip_gradient(self) -> None:
        """Clip to four times a running mean of the norm: only outliers are shortened."""
        if not self.config.clip:
            return
        norm = nn.utils.get_total_norm([p.grad for p in self.trained if p.grad is not None])
        known = self.gradient_norm > 0
        limit = torch.where(known, 4 * self.config.clip * self.gradient_norm, math.inf)
        nn.utils.clip_grads_with_norm_(self.trained, 1.0, norm / limit)
        mean = 0.98 * self.gradient_norm + 0.02 * torch.minimum(norm, limit)
        self.gradient_norm.copy_(torch.where(known, mean, norm))

    # ---------------------------------------------------------------------------- checkpoints

    def save(self, path: str | Path) -> None:
        """Write the whole state atomically (safetensors; no pickle).

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        tensors = {f"network.{k}": v.contiguous() for k, v in self.network.state_dict().items()}
        tensors |= {f"optimiser.{k}": v for k, v in self.optimiser.state().items()}
        tensors["generator"] = self.generator.get_state()
        progress = {"step": self.step, "elapsed": self.elapsed, "gradient_norm": float(self.gradient_norm)}
        header = {
            "kind": CHECKPOINT_KIND,
            "architecture": json.dumps(architecture_to_dict(self.architecture)),
            "config": json.dumps(asdict(self.config)),
            "device": self.device.type,
            "progress": json.dumps(progress),
        }
        write_bytes(path, save_tensors({k: v.cpu() for k, v in tensors.items()}, metadata=header))

    def load(self, path: str | Path) -> tuple[str, ...]:
        """Continue from a checkpoint of a run with the same architecture.

        Returns
        -------
        Names of the settings that the checkpoint was made with other values of; those of `config` apply. "device" is
        among them if it was made on a GPU and this is the CPU, or the other way round; the crops are drawn anew then.

        Raises
        ------
        InputError
            If the file cannot be read.
        WeightsError
            If it is not a checkpoint of this architecture.
        """
        header, tensors = read_checkpoint(path)
        try:
            made_for = architecture_from_dict(json.loads(header["architecture"]))
        except (KeyError, ValueError) as error:
            raise WeightsError(f"{path}: the checkpoint is damaged; start the training anew") from error
        if made_for != self.architecture:
            raise WeightsError(f"{path}: the checkpoint is of another architecture; use the preset it was made with")
        network, optimiser = (
            {k.removeprefix(owner): v for k, v in tensors.items() if k.startswith(owner)}
            for owner in ("network.", "optimiser.")
        )
        try:
            self.network.load_state_dict(network)
            self.optimiser.load_state(optimiser)
            self._advance = self._new_advance()  # a recording would go on with the state that it knew
            same_device = header.get("device", "cpu") == self.device.type
            if same_device:
                self.generator.set_state(tensors["generator"])
            progress = json.loads(header["progress"])
            self.step, self.elapsed = int(progress["step"]), float(progress["elapsed"])
            self.gradient_norm.fill_(float(progress["gradient_norm"]))
            then, now = json.loads(header["config"]), json.loads(json.dumps(asdict(self.config)))
        except (KeyError, RuntimeError, ValueError) as error:
            raise WeightsError(f"{path}: the checkpoint is damaged; start the training anew") from error
        if not same_device:  # a CPU's generator cannot go on where a GPU's stopped: new crops instead of the first ones
            self.generator.manual_seed(self.config.seed + self.step)
        changed = [name for name, value in now.items() if then.get(name) != value]
        return (*changed, *([] if same_device else ["device"]))


def read_checkpoint(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a training checkpoint.

    Raises
    ------
    InputError
        If the file cannot be read.
    WeightsError
        If it is not a checkpoint.
    """
    data = read_bytes(path)
    return parse(data, str(path), CHECKPOINT_KIND)
