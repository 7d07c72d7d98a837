"""Weight files: round trip, honest labels, and distrust of every header."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from pnp_cli import InputError, WeightsError, to_tensor, weights
from pnp_cli.denoisers import DnCNNArchitecture
from pnp_cli.images import Image
from pnp_cli.presets import PRESETS, build

from .helpers import small_network, steepest


def header_of(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]


def rewrite(path: Path, **changes: str) -> None:
    """Change entries of the header and keep the tensors."""
    tensors = load_tensors(path.read_bytes())
    path.write_bytes(save_tensors(tensors, metadata=header_of(path) | changes))


def test_round_trip(tmp_path: Path) -> None:
    network, path = small_network(), tmp_path / "w.safetensors"
    certificate = weights.save(path, network, {"seed": 3})
    loaded = weights.load(path)
    x = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(loaded.network(x, 0.1), network(x, 0.1))
    assert loaded.training == {"seed": 3}
    assert loaded.certificate.averaged
    # The bound at load is on a coarser grid, so it is larger, by less than 4 % of the norm squared.
    assert certificate.alpha <= loaded.certificate.alpha <= certificate.alpha + 0.03
    for fine, coarse in zip(certificate.layers, loaded.certificate.layers, strict=True):
        assert fine.norm_upper <= coarse.norm_upper <= 1.018 * fine.norm_upper
    stored = json.loads(header_of(path)["certificate"])
    for layer in stored["layers"]:
        assert layer["norm_lower"] <= layer["norm_upper"] <= 1.02 * layer["norm_lower"]


def test_save_refuses_a_false_label(tmp_path: Path) -> None:
    network, path = small_network(), tmp_path / "w.safetensors"
    network.steps[0].step.fill_(5.0)  # type: ignore[index, union-attr]
    with pytest.raises(WeightsError, match=r"refused.*steps\.0"):
        weights.save(path, network, averaged=True)
    with pytest.raises(WeightsError, match="refused"):
        weights.save(path, build(DnCNNArchitecture(2, 4)), averaged=True)
    assert list(tmp_path.iterdir()) == []


def test_load_recomputes_what_the_header_claims(tmp_path: Path) -> None:
    honest, doctored = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    network = small_network()
    weights.save(honest, network, averaged=True)
    network.steps[0].step.fill_(5.0)  # type: ignore[index, union-attr]
    weights.save(doctored, network)
    claims = header_of(honest)
    rewrite(doctored, certificate=claims["certificate"])
    loaded = weights.load(doctored)
    assert not loaded.certificate.averaged
    assert "steps.0" in loaded.certificate.reason


def corrupt_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def corrupt_text(path: Path) -> None:
    path.write_text("no weights here")


def corrupt_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"steps.0.weight": [1, 2]}))


def corrupt_header_length(path: Path) -> None:
    path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:])


def corrupt_foreign(path: Path) -> None:
    path.write_bytes(save_tensors({"weight": torch.zeros(3)}))


def corrupt_architecture(path: Path) -> None:
    rewrite(path, architecture='{"family": "euler", "scales": [1, 1], "filters": 9, "activation": "huber"}')


def corrupt_gigantic(path: Path) -> None:
    rewrite(path, architecture='{"family": "euler", "scales": [999], "filters": 65000, "activation": "huber"}')


def corrupt_json(path: Path) -> None:
    rewrite(path, architecture="{")


def corrupt_nan(path: Path) -> None:
    tensors = load_tensors(path.read_bytes())
    tensors["steps.0.weight"][0, 0, 0, 0] = torch.nan
    path.write_bytes(save_tensors(tensors, metadata=header_of(path)))


def corrupt_type(path: Path) -> None:
    tensors = {name: tensor.half() for name, tensor in load_tensors(path.read_bytes()).items()}
    path.write_bytes(save_tensors(tensors, metadata=header_of(path)))


@pytest.mark.parametrize(
    "corrupt",
    [
        corrupt_truncated,
        corrupt_text,
        corrupt_pickle,
        corrupt_header_length,
        corrupt_foreign,
        corrupt_architecture,
        corrupt_gigantic,
        corrupt_json,
        corrupt_nan,
        corrupt_type,
    ],
)
def test_corrupted_and_foreign_files(tmp_path: Path, corrupt) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "w.safetensors"
    weights.save(path, small_network())
    corrupt(path)
    with pytest.raises(InputError, match=r"w\.safetensors") as caught:
        weights.load(path)
    assert "\n" not in str(caught.value)


def test_missing_files() -> None:
    with pytest.raises(WeightsError, match=r"'nothing'.*huber"):
        weights.load("nothing")
    with pytest.raises(WeightsError, match="no such weight file"):
        weights.load("nowhere/else.safetensors")


def twins(folder: Path) -> tuple[Path, Path]:
    """Two weight files, for colour and for grey images."""
    paths = folder / "own.safetensors", folder / "own-grey.safetensors"
    weights.save(paths[0], small_network())
    weights.save(paths[1], small_network(scales=(2, 1)))
    return paths


def test_a_pickled_shelf_takes_the_grey_weights_along(tmp_path: Path) -> None:
    """Which weights a grey image gets is decided where the shelf is pickled, not by the disk of another machine."""
    own, grey = twins(tmp_path)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (own, grey)]
    shelf = weights.Shelf(own)
    assert shelf.paths == (own, grey)
    sent = pickle.dumps(shelf)
    content = grey.read_bytes()
    grey.unlink()
    alone = pickle.dumps(weights.Shelf(own))
    own.unlink()
    there = pickle.loads(sent)
    assert [there.get(channels).sha256 for channels in (3, 1)] == hashes
    assert there.get(1) is there.get(1)
    grey.write_bytes(content)
    assert pickle.loads(alone).get(1).sha256 == hashes[0], "one that only the other machine has"


def test_grey_weights_are_read_when_they_are_needed(tmp_path: Path) -> None:
    own, grey = twins(tmp_path)
    grey.write_bytes(b"damaged")
    shelf = weights.Shelf(own)
    assert shelf.get(3).path == own
    for each in (shelf, pickle.loads(pickle.dumps(shelf))):
        assert each.get(3).path == own
        with pytest.raises(InputError, match=r"own-grey\.safetensors: not a safetensors file"):
            each.get(1)


SHIPPED = {path.stem: path for folder in weights.shipped_folders() for path in folder.glob("*.safetensors")}
CERTIFIED = sorted(set(SHIPPED) - {"dncnn"})


def test_shipped_files() -> None:
    """Every preset has its file, its model card and its log; together they are small."""
    assert {"conditioned", "huber", "euler", "dncnn"} <= set(SHIPPED) <= set(PRESETS)
    assert sum(path.stat().st_size for path in SHIPPED.values()) < 8e6
    for name, path in SHIPPED.items():
        loaded = weights.load(name)
        assert loaded.network.architecture == PRESETS[name]
        assert {"data", "sigma", "seed", "steps", "seconds"} <= set(loaded.training)
        assert path.with_suffix(".md").is_file()


@pytest.mark.parametrize("name", CERTIFIED)
def test_shipped_certificates_are_tight(name: str) -> None:
    loaded = weights.load(name, grid=64, lower=True)
    assert loaded.certificate.averaged
    assert json.loads(header_of(SHIPPED[name])["certificate"])["averaged"]
    for layer in loaded.certificate.layers:
        assert layer.norm_lower is not None
        assert layer.norm_lower <= layer.norm_upper <= 1.01 * layer.norm_lower, layer.name


@pytest.mark.parametrize("name", CERTIFIED)
def test_no_attack_on_a_shipped_network_exceeds_one(name: str, photo: Image) -> None:
    """Gradient ascent of |J d|/|d| at a noisy photograph; for a conditioned network at a fixed reference, too."""
    network = weights.load(name).network.double()
    clean = to_tensor(photo, dtype=torch.float64)[:, : network.image_channels, 20:44, 20:44]
    noisy = clean + 25 / 255 * torch.randn_like(clean)
    for sigma in (5 / 255, 50 / 255):
        for operator in {network, network.condition(noisy, sigma)}:
            assert steepest(operator, noisy, sigma, iterations=8) <= 1 + 1e-9
            attacked = noisy + 0.1 * torch.randn_like(noisy)
            apart = float((attacked - noisy).norm())
            assert float((operator(attacked, sigma) - operator(noisy, sigma)).norm()) <= apart
