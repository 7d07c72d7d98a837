"""`pnp train-denoiser`: train a network on folders of images."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, UsageError
from . import options as o
from .console import progress, say
from .interruption import STOPPING

if TYPE_CHECKING:
    from ..training import TrainingRecord

DEFAULT_STEPS = 10_000
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
        typer.Option("--preset", help="Architecture: huber, huber-grey, conditioned, euler, or dncnn (uncertified)."),
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
        typer.Option("--steps", min=1, help=f"Training steps. Default: {DEFAULT_STEPS} without --time-budget."),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option("--time-budget", metavar="MINUTES", help="Training time; the schedule follows the clock."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Crops per step.")] = 10,
    crop: Annotated[int, typer.Option("--crop", min=8, help="Side of the crops; a multiple of 8.")] = 64,
    learning_rate: Annotated[
        float | None,
        typer.Option("--learning-rate", help="Learning rate at the start. Default: 0.06; conditioned and dncnn 0.02."),
    ] = None,
    grey: Annotated[
        float,
        typer.Option(
            "--grey",
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Share of the crops in grey; for networks of colour images.",
        ),
    ] = 0.0,
    val: Annotated[Path | None, typer.Option("--val", metavar="DIR", help="Folder of validation images.")] = None,
    val_limit: Annotated[
        int, typer.Option("--val-limit", min=1, help="Use so many validation images, evenly spread.")
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
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    quiet: o.Quiet = False,
    device: o.Device = "auto",
) -> None:
    """Train a denoiser; averaged networks are certified when written.

    On several GPUs or processes: torchrun --nproc-per-node 4 -m pnp_cli train-denoiser ..., --batch crops each.

    Ctrl-C (or SIGTERM) writes a checkpoint; --resume goes on from it, on the CPU bit for bit with --steps (with
    --time-budget the schedule follows the clock).

    Example: pnp train-denoiser photos/ -o mine.safetensors --val more/ --time-budget 60
    """
    import torch

    from ..conditioned import ConditionedArchitecture
    from ..data import bundled_images, load_folders, to_grey
    from ..denoisers import EulerNetwork
    from ..devices import choose_device, describe_device
    from ..parallel import joined
    from ..presets import PRESETS
    from ..report import certificate_line
    from ..training import Trainer, TrainingConfig, export, validate
    from ..weights import load, save

    if preset not in PRESETS:
        raise UsageError(f"unknown --preset '{preset}'; use one of {', '.join(PRESETS)}")
    architecture = PRESETS[preset]
    conditioned = isinstance(architecture, ConditionedArchitecture)
    if plain and (start or not conditioned):
        raise UsageError("--plain belongs to the conditioned presets without --start; leave it out")
    if grey and architecture == PRESETS["huber-grey"]:
        raise UsageError("--grey is a share of colour crops, and this preset is for grey images; leave it out")
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: a weight file must end in .safetensors")
    if not 0 <= sigma[0] <= sigma[1] <= 255 or sigma[1] == 0:
        raise UsageError(f"--sigma needs 0 <= LO <= HI <= 255 and HI > 0, not {sigma[0]:g} {sigma[1]:g}")
    if crop % 8:
        raise UsageError(f"--crop must be a multiple of 8, not {crop}")
    if learning_rate is not None and not 0 < learning_rate < 1:
        raise UsageError(f"--learning-rate must be between 0 and 1, not {learning_rate:g}")
    if time_budget is not None and not 0 < time_budget < float("inf"):
        raise UsageError(f"--time-budget must be a positive number of minutes, not {time_budget:g}")
    rank, count, local = (int(os.environ.get(name, default)) for name, default in LAUNCHER.items())
    place = choose_device(device)
    if count > 1 and place.type == "cuda":
        place = torch.device("cuda", local)
    leads = rank == 0
    quiet = quiet or not leads
    checkpoint, log_file = output.with_suffix(".checkpoint"), output.with_suffix(".log.jsonl")
    if leads and not (resume and checkpoint.exists()):
        for path in (output, checkpoint, log_file):
            if path.exists():
                hint = "--resume it or choose another -o" if path == checkpoint else "choose another -o"
                raise UsageError(f"{path}: exists already; {hint}")

    folders = data or []
    images = load_folders(folders) if folders else bundled_images()
    validation = load_folders([val]) if val else []
    spread = range(0, len(validation) * val_limit, max(len(validation), val_limit))  # evenly, at most val_limit
    validation = [validation[i // val_limit] for i in spread]
    config = TrainingConfig(
        sigma=(sigma[0] / 255, sigma[1] / 255),
        steps=steps if steps or time_budget else DEFAULT_STEPS,
        time_budget=60 * time_budget if time_budget else None,
        batch=batch,
        crop=crop,
        learning_rate=learning_rate or (0.02 if conditioned or preset == "dncnn" else TrainingConfig.learning_rate),
        grey=grey,
        seed=seed,
    )
    earlier = load(start).network if start else None
    first = load(plain or "huber").network if conditioned and not start else None
    first = first if isinstance(first, EulerNetwork) else None
    workers = context.with_resource(joined(rank, count, place))
    trainer = Trainer(architecture, images, config, place, first, workers, earlier)
    if trainer.network.image_channels == 1:
        validation = [to_grey(image) for image in validation]
    if resume and checkpoint.exists():
        changed = trainer.load(checkpoint)
        if trainer.progress >= 1 and _made_at(output) == trainer.step:
            say(f"{checkpoint}: is at step {trainer.step} already, so there is nothing to do; raise --steps", quiet)
            return
        say(f"resumed at step {trainer.step}, {trainer.elapsed / 60:.1f} minutes", quiet)
        if changed:
            say(f"{checkpoint}: was made with other settings ({', '.join(changed)}); those given now apply", quiet)
    total, used = len(images), trainer.crops.count
    del images  # the trainer has its own copy
    left_out = f" ({total - used} smaller than a crop left out)" if used < total else ""
    alone = "" if count == 1 else f", {count} workers"
    say(f"{preset} on {used} images{left_out}, {describe_device(place)}{alone}", quiet)
    if not leads:
        with _SignalFlag() as interrupted:
            for _ in trainer.run(interrupted):
                pass
        return

    with _SignalFlag() as interrupted, _TrainingLog(log_file, trainer.step, quiet) as log:
        with progress(preset, 1.0, quiet) as show:
            validated = saved = time.monotonic()
            for record in trainer.run(interrupted):
                log.add(record)
                show(record.progress, f"step {record.step}, loss {log.loss:.5f}")
                if validation and time.monotonic() - validated > 60 * validate_every:
                    log.write(validate(export(trainer.network).to(place).estimate, validation, device=place))
                    validated = time.monotonic()
                elif record.step % LOG_EVERY == 0:
                    log.write()
                if time.monotonic() - saved > 60 * checkpoint_every:
                    trainer.save(checkpoint)
                    saved = time.monotonic()
        trainer.save(checkpoint)
        if trainer.progress < 1:
            say(f"pnp: interrupted at step {trainer.step}; continue with --resume")
            raise typer.Exit(130)
        network = export(trainer.network)
        psnr = validate(network.to(place).estimate, validation, device=place) if validation else None
        log.write(psnr)
        network.cpu()
    facts = {
        "preset": preset,
        "data": [folder.resolve().name for folder in folders] or ["scikit-image"],
        "images": used,
        "sigma": list(sigma),
        "seed": seed,
        "steps": trainer.step,
        "seconds": round(trainer.elapsed, 1),
        "batch": batch,
        "workers": count,
        "crop": crop,
        "learning_rate": config.learning_rate,
        "grey": grey,
        "device": describe_device(place),
        "validation_psnr": psnr,
    }
    if start:
        facts["start"] = start
    elif conditioned:
        facts["plain"] = plain or "huber"
    certificate = save(output, network, facts, averaged=preset != "dncnn")
    say(f"wrote {output} ({certificate_line(certificate)}), log {log_file}", quiet)


def _made_at(weights: Path) -> int | None:
    """The step of the training that a weight file was made at; None if there is none, or it does not say."""
    from ..weights import load

    try:
        steps = load(weights).training.get("steps")
    except InputError:
        return None
    return steps if isinstance(steps, int) else None


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
