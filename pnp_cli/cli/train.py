"""`pnp train-denoiser`: train a network on folders of images."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, UsageError
from ..interruption import STOPPING
from . import options as o
from .console import progress, say
from .paths import require_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..denoisers import Denoiser, EulerNetwork
    from ..training import Trainer, TrainingRecord

DEFAULT_STEPS = 10_000
LEARNING_RATES = {"conditioned": 0.02, "dncnn": 0.02}
"""Learning rates at the start of the presets that do not take the default one."""

PLAIN = "huber"
"""The shipped plain network in a conditioned one."""

LOG_EVERY = 100

LAUNCHER = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""Environment variables by which torchrun tells a process its number, the number of them, and its number on the
machine, with the values of a process alone."""


def train_denoiser(
    context: typer.Context,
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[DATA]...", help="Folders of training images; scikit-image's pictures if none.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Weight file to write (.safetensors); the log goes beside it."
        ),
    ] = Path("denoiser.safetensors"),
    preset: Annotated[
        str,
        typer.Option(
            "--preset",
            metavar="NAME",
            help="Architecture: huber, huber-grey, conditioned, euler, or dncnn (uncertified).",
        ),
    ] = "huber",
    plain: Annotated[
        str | None,
        typer.Option(
            "--plain",
            metavar="W",
            help="For conditioned: the trained plain network in it. Default: the shipped huber.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--start", metavar="W", help="Go on from these trained weights of the same preset."),
    ] = None,
    sigma: Annotated[
        tuple[float, float], typer.Option("--sigma", metavar="LO HI", help="Range of noise levels on the 0-255 scale.")
    ] = (0.0, 55.0),
    steps: Annotated[
        int | None,
        typer.Option(
            "--steps", metavar="N", min=1, help=f"Training steps. Default: {DEFAULT_STEPS} without --time-budget."
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option("--time-budget", metavar="MINUTES", help="Training time; the schedule follows the clock."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Crops per step.")] = 10,
    crop: Annotated[int, typer.Option("--crop", metavar="N", min=8, help="Side of the crops; a multiple of 8.")] = 64,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            metavar="RATE",
            help="Learning rate at the start. Default: 0.06; conditioned and dncnn 0.02.",
        ),
    ] = None,
    grey: Annotated[
        float,
        typer.Option(
            "--grey",
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Share of the crops in grey; for networks of colour images.",
        ),
    ] = 0.0,
    val: Annotated[Path | None, typer.Option("--val", metavar="DIR", help="Folder of validation images.")] = None,
    val_limit: Annotated[
        int, typer.Option("--val-limit", metavar="N", min=1, help="Use so many validation images, evenly spread.")
    ] = 12,
    validate_every: Annotated[
        float, typer.Option("--validate-every", metavar="MINUTES", help="Time between validations.")
    ] = 5.0,
    checkpoint_every: Annotated[
        float, typer.Option("--checkpoint-every", metavar="MINUTES", help="Time between checkpoints.")
    ] = 1.0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint beside the output, if there is one.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of everything random.")] = 0,
    quiet: o.Quiet = False,
    device: o.Device = "auto",
) -> None:
    """Train a denoiser, certified when it is written.

    On several GPUs or processes: torchrun --nproc-per-node 4 -m pnp_cli train-denoiser ..., --batch crops each.

    Ctrl-C (or SIGTERM) writes a checkpoint; --resume goes on from it, on the CPU bit for bit with --steps (with
    --time-budget the schedule follows the clock).

    Example: pnp train-denoiser photos/ -o mine.safetensors --val more/ --time-budget 60
    """
    from ..data import bundled_images, load_folders
    from ..parallel import joined
    from ..presets import PRESETS
    from ..report import certificate_line
    from ..training import Trainer, TrainingConfig
    from ..weights import save

    _check_architecture(preset, plain, start, grey)
    files = _Files.of(output)
    _check_numbers(sigma, crop, learning_rate)
    if time_budget is not None and not 0 < time_budget < float("inf"):
        raise UsageError(f"--time-budget must be a positive number of minutes, not {time_budget:g}")
    for option, value in {"validate-every": validate_every, "checkpoint-every": checkpoint_every}.items():
        if not 0 <= value < float("inf"):
            raise UsageError(f"--{option} must be a number of minutes, 0 for every step, not {value:g}")
    rank, count, place = _this_process(device)
    quiet = quiet or rank > 0
    hint = o.level_hint(sigma[1], "--sigma")
    if hint:
        say(hint, quiet)
    if rank == 0:
        files.require_new(resume)

    images = load_folders(data) if data else bundled_images()
    validation = _Validation.of(val, val_limit, validate_every)
    config = TrainingConfig(
        sigma=(sigma[0] / 255, sigma[1] / 255),
        steps=steps if steps or time_budget else DEFAULT_STEPS,
        time_budget=60 * time_budget if time_budget else None,
        batch=batch,
        crop=crop,
        learning_rate=learning_rate or LEARNING_RATES.get(preset, TrainingConfig.learning_rate),
        grey=grey,
        seed=seed,
    )
    earlier, around = _starting_networks(preset, start, plain)
    workers = context.with_resource(joined(rank, count, place))
    trainer = Trainer(PRESETS[preset], images, config, place, around, workers, earlier)
    if resume and files.checkpoint.exists() and not _resume(trainer, files, quiet):
        return
    _introduce(trainer, preset, len(images), quiet)
    del images  # the trainer has its own copy
    if rank > 0:
        _follow(trainer)
        return
    network, scores = _lead(trainer, files, validation, checkpoint_every, preset, quiet)
    facts = _facts(trainer, preset, data or [], sigma, scores)
    if start:
        facts["start"] = start
    elif around:
        facts["plain"] = plain or PLAIN
    certificate = save(output, network, facts, averaged=preset != "dncnn")
    say(f"wrote {output} ({certificate_line(certificate)}), log {files.log}", quiet)


# -------------------------------------------------------------------------------- before any work


def _check_architecture(preset: str, plain: str | None, start: str | None, grey: float) -> None:
    from ..presets import PRESETS

    if preset not in PRESETS:
        raise UsageError(f"unknown --preset '{preset}'; use one of {', '.join(PRESETS)}")
    if plain and (start or not _is_conditioned(preset)):
        raise UsageError("--plain belongs to the conditioned presets without --start; leave it out")
    for option, name in {"--start": start, "--plain": plain}.items():
        if name:
            require_weights(name, option)
    if grey and PRESETS[preset] == PRESETS["huber-grey"]:
        raise UsageError("--grey is a share of colour crops, and this preset is for grey images; leave it out")


def _is_conditioned(preset: str) -> bool:
    from ..conditioned import ConditionedArchitecture
    from ..presets import PRESETS

    return isinstance(PRESETS[preset], ConditionedArchitecture)


def _check_numbers(sigma: tuple[float, float], crop: int, learning_rate: float | None) -> None:
    if not 0 <= sigma[0] <= sigma[1] <= 255 or sigma[1] == 0:
        raise UsageError(f"--sigma needs 0 <= LO <= HI <= 255 and HI > 0, not {sigma[0]:g} {sigma[1]:g}")
    if crop % 8:
        raise UsageError(f"--crop must be a multiple of 8, not {crop}")
    if learning_rate is not None and not 0 < learning_rate < 1:
        raise UsageError(f"--learning-rate must be between 0 and 1, not {learning_rate:g}")


@dataclass(frozen=True)
class _Files:
    """What a training writes: the weights and, beside them, the checkpoint and the log."""

    weights: Path
    checkpoint: Path
    log: Path

    @classmethod
    def of(cls, output: Path) -> _Files:
        """The files that go with a weight file."""
        if output.suffix != ".safetensors":
            raise UsageError(f"{output}: a weight file must end in .safetensors")
        return cls(output, output.with_suffix(".checkpoint"), output.with_suffix(".log.jsonl"))

    def require_new(self, resume: bool) -> None:
        """Refuse to replace any of them, unless there is a checkpoint to resume."""
        if resume and self.checkpoint.exists():
            return
        for path in (self.weights, self.checkpoint, self.log):
            if path.exists():
                hint = "--resume it or choose another -o" if path == self.checkpoint else "choose another -o"
                raise UsageError(f"{path}: exists already; {hint}")

    def weights_made_at(self) -> int | None:
        """The step of the training that the weights were made at; None if there are none, or they do not say."""
        from ..weights import load

        try:
            steps = load(self.weights).training.get("steps")
        except InputError:
            return None
        return steps if isinstance(steps, int) else None


def _this_process(device: str) -> tuple[int, int, torch.device]:
    """Number of this process among those of a launcher, their number, and where this one computes."""
    import torch

    from ..devices import choose_device

    rank, count, local = (int(os.environ.get(name, default)) for name, default in LAUNCHER.items())
    place = choose_device(device)
    if count > 1 and place.type == "cuda":
        place = torch.device("cuda", local)
    return rank, count, place


def _starting_networks(
    preset: str, start: str | None, plain: str | None
) -> tuple[Denoiser | None, EulerNetwork | None]:
    """The trained network to go on from, if one is given, and else the plain one in a conditioned one."""
    from ..denoisers import EulerNetwork
    from ..weights import load

    if start:
        return load(start).network, None
    around = load(plain or PLAIN).network if _is_conditioned(preset) else None
    return None, around if isinstance(around, EulerNetwork) else None


def _resume(trainer: Trainer, files: _Files, quiet: bool) -> bool:
    """Go on from the checkpoint; false if it and the weights are those of the end."""
    changed = trainer.load(files.checkpoint)
    if trainer.progress >= 1 and files.weights_made_at() == trainer.step:
        done = f"is at step {trainer.step} already, so there is nothing to do; raise --steps or --time-budget"
        say(f"{files.checkpoint}: {done}", quiet)
        return False
    say(f"resumed at step {trainer.step}, {trainer.elapsed / 60:.1f} minutes", quiet)
    if changed:
        settings = f"was made with other settings ({', '.join(changed)}); those given now apply"
        say(f"{files.checkpoint}: {settings}", quiet)
    return True


def _introduce(trainer: Trainer, preset: str, total: int, quiet: bool) -> None:
    from ..devices import describe_device

    used, count = trainer.crops.count, trainer.workers.count
    left_out = f" ({total - used} smaller than a crop left out)" if used < total else ""
    others = "" if count == 1 else f", {count} workers"
    say(
        f"{preset} on {used} image{'s' if used != 1 else ''}{left_out}, {describe_device(trainer.device)}{others}",
        quiet,
    )


# ------------------------------------------------------------------------------------- the training


def _follow(trainer: Trainer) -> None:
    """Train as one of several workers; the leading one does everything else."""
    with _SignalFlag() as interrupted:
        for _ in trainer.run(interrupted):
            pass


def _lead(
    trainer: Trainer, files: _Files, validation: _Validation, checkpoint_every: float, label: str, quiet: bool
) -> tuple[Denoiser, dict[float, float] | None]:
    """Train, with a log, validations and checkpoints; the network as it is to be used, and its scores."""
    from ..training import export

    with _SignalFlag() as interrupted, _TrainingLog(files.log, trainer.step, quiet) as log:
        save_again = _Every(checkpoint_every)
        validation.again.start()
        with progress(label, 1.0, quiet) as show:
            for record in trainer.run(interrupted):
                log.add(record)
                show(record.progress, f"step {record.step}, loss {log.loss:.5f}")
                if validation.images and validation.again.due():
                    log.write(validation.scores(export(trainer.network), trainer))
                    validation.again.start()
                elif record.step % LOG_EVERY == 0:
                    log.write()
                if save_again.due():
                    trainer.save(files.checkpoint)
                    save_again.start()
        trainer.save(files.checkpoint)
        if trainer.progress < 1:
            say(f"stopped at step {trainer.step}; continue with --resume")
            raise typer.Exit(130)
        network = export(trainer.network)
        scores = validation.scores(network, trainer)
        log.write(scores)
    return network.cpu(), scores


def _facts(
    trainer: Trainer, preset: str, folders: list[Path], sigma: tuple[float, float], scores: dict[float, float] | None
) -> dict[str, Any]:
    """What the weight file is to say about its training."""
    from ..devices import describe_device

    config = trainer.config
    return {
        "preset": preset,
        "data": [folder.resolve().name for folder in folders] or ["scikit-image"],
        "images": trainer.crops.count,
        "sigma": list(sigma),
        "seed": config.seed,
        "steps": trainer.step,
        "seconds": round(trainer.elapsed, 1),
        "batch": config.batch,
        "workers": trainer.workers.count,
        "crop": config.crop,
        "learning_rate": config.learning_rate,
        "grey": config.grey,
        "device": describe_device(trainer.device),
        "validation_psnr": scores,
    }


class _Every:
    """Tells when more than so many minutes have gone by since it was last started."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self.start()

    def start(self) -> None:
        """Count from now."""
        self._since = time.monotonic()

    def due(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() - self._since > self._seconds


@dataclass(frozen=True)
class _Validation:
    """Images to score a network on while it is trained, uint8 tensors (3, H, W), and when to do so again."""

    images: list[Tensor]
    again: _Every

    @classmethod
    def of(cls, folder: Path | None, limit: int, every: float) -> _Validation:
        """At most `limit` images of a folder, evenly spread; none without one."""
        from ..data import load_folders

        images = load_folders([folder]) if folder else []
        spread = range(0, len(images) * limit, max(len(images), limit))
        return cls([images[i // limit] for i in spread], _Every(every))

    def scores(self, network: Denoiser, trainer: Trainer) -> dict[float, float] | None:
        """PSNR by noise level of a network, moved to the device of its trainer; None without images."""
        from ..data import to_grey
        from ..training import validate

        if not self.images:
            return None
        images = [to_grey(image) for image in self.images] if network.image_channels == 1 else self.images
        return validate(network.to(trainer.device).estimate, images, device=trainer.device)


class _SignalFlag:
    """Inside the context a signal to stop sets a flag; calling it tells whether one has come."""

    def __enter__(self) -> _SignalFlag:
        self._set = False
        self._previous = {s: signal.signal(s, self._handle) for s in STOPPING if signal.getsignal(s) != signal.SIG_IGN}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return self._set

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._set = True


class _TrainingLog:
    """JSON lines in a file, and lines for people: all of them in a log, those with scores on a terminal.

    Lines of an earlier run up to `step` are kept, so that the log of a resumed run reads as one.
    """

    def __init__(self, path: Path, step: int, quiet: bool) -> None:
        try:
            kept = path.read_text(encoding="utf-8").splitlines(keepends=True) if step and path.exists() else []
            kept = [line for line in kept if json.loads(line)["step"] <= step]
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("w", encoding="utf-8", buffering=1)
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path}: not the log of this training; move it away") from None
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
        self._stream.writelines(kept)
        self._quiet = quiet
        self._losses: deque[float] = deque(maxlen=LOG_EVERY)
        self._record: TrainingRecord | None = None

    def __enter__(self) -> _TrainingLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    @property
    def loss(self) -> float:
        """Mean loss of the last steps."""
        return sum(self._losses) / len(self._losses)

    def add(self, record: TrainingRecord) -> None:
        """Take note of a step."""
        self._record = record
        self._losses.append(record.loss)

    def write(self, psnr: dict[float, float] | None = None) -> None:
        """Write the last step, its loss smoothed; with validation scores also for people."""
        if self._record is None:
            return
        record = replace(self._record, loss=self.loss, psnr=psnr)
        print(record.as_json(), file=self._stream)
        scores = "".join(f"  {sigma:g}: {value:.2f}" for sigma, value in (psnr or {}).items())
        words = f"step {record.step}  {record.elapsed / 60:.1f} min  loss {record.loss:.5f}"
        if scores or not sys.stderr.isatty():
            say(words + ("  PSNR at sigma" + scores if scores else ""), self._quiet)
