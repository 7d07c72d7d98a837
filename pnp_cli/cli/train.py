"""`pnp train-denoiser`: train a network on folders of images."""

from __future__ import annotations

import json as jsonlib
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ..errors import UsageError
from . import options as o
from .console import progress, say


def train_denoiser(
    data: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DATA]...", help="Folders of training images; scikit-image's pictures if none.", show_default=False),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Weight file to write (.safetensors); the log goes beside it.")
    ] = Path("denoiser.safetensors"),
    preset: Annotated[str, typer.Option("--preset", help="Architecture: huber, euler or dncnn (uncertified).")] = "huber",
    sigma: Annotated[
        tuple[float, float], typer.Option("--sigma", metavar="LO HI", help="Range of noise levels on the 0-255 scale.")
    ] = (0.0, 55.0),
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Training steps. Default: 10000 without --time-budget.")] = None,
    time_budget: Annotated[
        float | None, typer.Option("--time-budget", metavar="MINUTES", help="Training time; the schedule follows the clock.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Crops per step.")] = 10,
    crop: Annotated[int, typer.Option("--crop", min=8, help="Side of the crops; a multiple of 4.")] = 64,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Adam's rate at the start. Default: 0.003; 0.001 for dncnn.")
    ] = None,
    val: Annotated[Path | None, typer.Option("--val", metavar="DIR", help="Folder of validation images.")] = None,
    val_limit: Annotated[int, typer.Option("--val-limit", min=1, help="Use so many validation images, evenly spread.")] = 12,
    validate_every: Annotated[float, typer.Option("--validate-every", metavar="MINUTES", help="Time between validations.")] = 5.0,
    checkpoint_every: Annotated[float, typer.Option("--checkpoint-every", metavar="MINUTES", help="Time between checkpoints.")] = 1.0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint beside the output, if there is one.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of everything random.")] = 0,
    quiet: o.Quiet = False,
    device: o.Device = "auto",
) -> None:
    """Train a denoiser; averaged networks stay averaged throughout and are certified when written.

    Ctrl-C (or SIGTERM) writes a checkpoint; --resume goes on from it, bit for bit.

    Example: pnp train-denoiser photos/ -o mine.safetensors --val more/ --time-budget 60
    """
    from ..data import bundled_images, load_folders
    from ..denoisers import PRESETS
    from ..devices import choose_device, describe_device
    from ..training import Trainer, TrainingConfig, TrainingRecord, export, validate
    from ..weights import save

    if preset not in PRESETS:
        raise UsageError(f"unknown --preset '{preset}'; use one of {', '.join(PRESETS)}")
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: a weight file must end in .safetensors")
    if not 0 <= sigma[0] <= sigma[1] <= 255 or sigma[1] == 0:
        raise UsageError(f"--sigma needs 0 <= LO <= HI <= 255 and HI > 0, not {sigma[0]:g} {sigma[1]:g}")
    if crop % 4:
        raise UsageError(f"--crop must be a multiple of 4, not {crop}")
    checkpoint, log = output.with_suffix(".checkpoint"), output.with_suffix(".log.jsonl")
    if output.exists() and not resume:
        raise UsageError(f"{output}: exists already; choose another -o, or --resume to go on training it")

    folders = data or []
    images = load_folders(folders) if folders else bundled_images()
    validation = load_folders([val]) if val else []
    validation = validation[:: max(1, len(validation) // val_limit)][:val_limit]
    config = TrainingConfig(
        sigma=(sigma[0] / 255, sigma[1] / 255),
        steps=steps if steps or time_budget else 10_000,
        time_budget=60 * time_budget if time_budget else None,
        batch=batch,
        crop=crop,
        learning_rate=learning_rate or (1e-3 if preset == "dncnn" else 3e-3),
        seed=seed,
    )
    place = choose_device(device)
    trainer = Trainer(PRESETS[preset], images, config, place)
    if resume and checkpoint.exists():
        trainer.load(checkpoint)
        say(f"resumed at step {trainer.step}, {trainer.elapsed / 60:.1f} minutes", quiet)
    kept = _log_until(log, trainer.step)
    log.parent.mkdir(parents=True, exist_ok=True)
    say(f"{preset} on {len(images)} images, {describe_device(place)}", quiet)

    stopping = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    previous = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    record: TrainingRecord | None = None
    try:
        with log.open("w", encoding="utf-8") as stream, progress(preset, 1.0, quiet) as show:
            stream.writelines(kept)
            since_validation = since_checkpoint = time.monotonic()
            losses: list[float] = []
            for record in trainer.run(lambda: stopping):
                losses = [*losses[-99:], record.loss]
                show(record.progress, f"step {record.step}, loss {sum(losses) / len(losses):.5f}")
                now = time.monotonic()
                if validation and now - since_validation > 60 * validate_every:
                    _log(stream, record, losses, validate(export(trainer.network).to(place), validation), quiet)
                    since_validation = time.monotonic()
                elif record.step % 100 == 0:
                    _log(stream, record, losses, None, True)
                if now - since_checkpoint > 60 * checkpoint_every:
                    stream.flush()
                    trainer.save(checkpoint)
                    since_checkpoint = time.monotonic()
            stream.flush()
            trainer.save(checkpoint)
            if stopping:
                say(f"pnp: interrupted at step {trainer.step}; continue with --resume")
                raise typer.Exit(130)
            network = export(trainer.network)
            psnr = validate(network, validation) if validation else None
            if record is not None:
                _log(stream, record, losses, psnr, quiet)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    facts = {
        "preset": preset,
        "data": [str(f.name) for f in folders] or ["scikit-image"],
        "images": len(images),
        "sigma": list(sigma),
        "seed": seed,
        "steps": trainer.step,
        "seconds": round(trainer.elapsed, 1),
        "batch": batch,
        "crop": crop,
        "learning_rate": config.learning_rate,
        "device": describe_device(place),
        "validation_psnr": psnr,
    }
    certificate = save(output, network, facts, averaged=preset != "dncnn")
    verdict = f"averaged, α = {certificate.alpha:.4f}" if certificate.averaged else f"not certified: {certificate.reason}"
    say(f"wrote {output} ({verdict}), log {log}", quiet)


def _log(stream: object, record: object, losses: list[float], psnr: dict[int, float] | None, quiet: bool) -> None:
    from dataclasses import replace

    record = replace(record, loss=sum(losses) / len(losses), psnr=psnr)  # type: ignore[type-var]
    print(record.as_json(), file=stream)  # type: ignore[attr-defined, call-overload]
    scores = "  ".join(f"{s}: {v:.2f}" for s, v in (psnr or {}).items())
    words = f"step {record.step}  {record.elapsed / 60:.1f} min  loss {record.loss:.5f}"  # type: ignore[attr-defined]
    say(words + (f"  PSNR {scores}" if scores else ""), quiet)


def _log_until(log: Path, step: int) -> list[str]:
    """Lines of an earlier log up to `step`, so that a resumed log reads as one."""
    if not step or not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.startswith("{") and jsonlib.loads(line)["step"] <= step]
