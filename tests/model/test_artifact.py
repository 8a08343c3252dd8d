"""A model folder is used exactly as it was made, or refused with a sentence that says what to do."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from segmenter.errors import ArtifactError
from segmenter.model.artifact import Artifact, load_artifact, write_artifact
from segmenter.model.network import build_network

SPEC = {"architecture": "unet", "encoder": "efficientnet-b4", "in_channels": 1, "image_head": True}
MANIFEST = {
    "name": "test", "version": "1", "intended_use": "research", "network": SPEC,
    "input": {"size": 64, "mean": 0.5, "std": 0.25}, "temperature": 1.0, "flips": False,
    "operating_point": "balanced", "operating_points": {
        "balanced": {"image_threshold": 0.5, "mask_threshold": 0.5, "min_area_mm2": 20.0, "min_area_px": 10}
    },
    "metrics": {}, "data": {}, "recipe": "none", "seed": 0, "generator_sha256": "", "commit": "", "folds": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    net = build_network(SPEC)
    for module in net.modules():  # statistics as a training leaves them, not the zeros and ones of a fresh network
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean, 0, 0.1)
    return net.eval()


TINY = {**SPEC, "encoder": "efficientnet-b0", "decoder_channels": [32, 16, 16, 8, 8]}
ENSEMBLE = {**MANIFEST, "network": TINY, "folds": [0, 1, 2]}


@pytest.fixture(scope="module")
def members() -> list[dict[str, torch.Tensor]]:
    return [build_network(TINY).state_dict() for _ in range(3)]


@pytest.fixture
def ensemble(tmp_path: Path, members: list[dict[str, torch.Tensor]]) -> Path:
    write_artifact(tmp_path / "ensemble", members, ENSEMBLE, "# card\n")
    return tmp_path / "ensemble"


@pytest.fixture
def folder(tmp_path: Path, network: torch.nn.Module) -> Path:
    write_artifact(tmp_path / "model", [network.state_dict()], MANIFEST, "# card\n")
    return tmp_path / "model"


def changed(folder: Path, **values: object) -> Path:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return folder


@torch.inference_mode()
def test_half_precision_costs_less_than_a_thousandth(folder: Path, network: torch.nn.Module):
    [again] = load_artifact(folder).networks()
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    for ours, theirs in zip(again(x), network(x), strict=True):
        assert (ours.sigmoid() - theirs.sigmoid()).abs().max() < 1e-3
    assert (folder / "model.safetensors").stat().st_size < 50e6


def test_statistics_and_heads_stay_float32(folder: Path):
    kinds = {name: tensor.dtype for name, tensor in load_artifact(folder).stored_tensors(0).items()}
    assert all(kinds[n] == torch.float32 for n in kinds if "running_" in n or "head" in n or "evidence" in n)
    assert torch.float16 in kinds.values()


def test_the_same_artifact_has_the_same_digests(folder: Path):
    one, two = load_artifact(folder), load_artifact(folder)
    assert isinstance(one, Artifact) and one == two and len(one.sha256) == len(one.manifest_sha256) == 64


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "is missing although the manifest names it"),
        (lambda f: (f / "manifest.json").unlink(), "has no manifest.json"),
        (lambda f: (f / "MODEL_CARD.md").unlink(), "has no MODEL_CARD.md"),
        (lambda f: (f / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda f: changed(f, schema=2), "schema 2 is not 3.*export the artifact again"),
        (lambda f: changed(f, schema=4), "schema 4 is not 3"),
        (lambda f: changed(f, treshold=0.5), "unknown key 'treshold'"),
        (lambda f: changed(f, intended_use="clinical"), "intended_use"),
        (lambda f: changed(f, operating_point="other"), "not in operating_points"),
        (lambda f: changed(f, name="x" * 65), "1 to 64 characters"),
        (lambda f: changed(f, weights=[{"file": "../other", "sha256": "0"}]), "leaves the folder"),
        (lambda f: changed(f, weights=[{"file": "..", "sha256": "0"}]), "leaves the folder"),
        (lambda f: changed(f, weights=[{"file": 7, "sha256": "0"}]), "must be texts"),
        (lambda f: changed(f, weights=[{"file": "model.safetensors"}]), r"weights\[0\]: key 'sha256' is missing"),
        (lambda f: changed(f, weights=[]), "weights must be a list of one file or more"),
        (lambda f: changed(f, weights={"file": "model.safetensors", "sha256": "0"}), "weights must be a list"),
        (lambda f: changed(f, weights=[{"file": "model.safetensors", "sha256": "0" * 64}] * 2), "name one file twice"),
        (lambda f: changed(f, weights=[{"file": "model.safetensors", "sha256": "0" * 64}]), "was changed or cut short"),
        (lambda f: changed(f, graphs=[{"file": "../model.onnx", "sha256": "0"}]), "graphs file .* leaves the folder"),
        (lambda f: changed(f, graphs=[{"file": f"{n}.onnx", "sha256": "0"} for n in "ab"]), "2 for 1 weights"),
        (lambda f: changed(f, graphs=[{"file": "model.onnx", "sha256": "0" * 64}]), "model.onnx is missing"),
        (lambda f: changed(f, folds=[0, 1]), r"folds \[0, 1\] is not one fold number for each of the 1 weights"),
        (lambda f: changed(f, folds=[True]), "is not one fold number"),
    ],
)
def test_what_does_not_match_is_refused(folder: Path, damage, says: str):
    damage(folder)
    with pytest.raises(ArtifactError, match=says):
        load_artifact(folder)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_one_flipped_bit_in_the_weights_is_refused(folder: Path):
    flip_a_bit(folder / "model.safetensors")
    with pytest.raises(ArtifactError, match="was changed or cut short"):
        load_artifact(folder)


def test_one_flipped_bit_in_the_second_member_is_refused(ensemble: Path):
    flip_a_bit(ensemble / "model-1.safetensors")
    with pytest.raises(ArtifactError, match=r"model-1\.safetensors has sha256 .* was changed or cut short"):
        load_artifact(ensemble)


def test_an_ensemble_keeps_its_members_in_order_and_names_them_all(ensemble: Path, members):
    artifact = load_artifact(ensemble)
    assert [path.name for path in artifact.weights_paths] == [f"model-{n}.safetensors" for n in range(3)]
    assert artifact.manifest.folds == (0, 1, 2)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in artifact.weights_paths]
    assert artifact.sha256 == hashlib.sha256("\n".join(digests).encode()).hexdigest()
    for network, member in zip(artifact.networks(), members, strict=True):
        assert torch.equal(network.evidence.weight, member["evidence.weight"])
        assert torch.equal(network.state_dict()["unet.segmentation_head.0.weight"], member["unet.segmentation_head.0.weight"])


def test_a_single_model_is_known_by_the_digest_of_its_file(folder: Path):
    artifact = load_artifact(folder)
    assert artifact.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_an_export_with_other_members_leaves_nothing_of_the_earlier_one(ensemble: Path, members):
    (ensemble / "model-notes.safetensors").write_text("of the user")
    kept = {"manifest.json", "MODEL_CARD.md", "model-notes.safetensors"}
    for count, names in ((2, {"model-0.safetensors", "model-1.safetensors"}), (1, {"model.safetensors"})):
        write_artifact(ensemble, members[:count], {**ENSEMBLE, "folds": []}, "# card\n")
        assert {path.name for path in ensemble.iterdir()} == kept | names
        assert len(load_artifact(ensemble).networks()) == count


def test_who_may_read_the_manifest_may_read_the_weights(folder: Path):
    """An artifact is exported by one user and served by another."""
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert len(set(modes.values())) == 1, modes


def test_tensors_of_another_network_are_refused(tmp_path: Path, network: torch.nn.Module):
    tensors = network.state_dict()
    tensors["evidence.surplus"] = tensors.pop("evidence.bias")
    artifact = write_artifact(tmp_path, [tensors], MANIFEST, "# card\n")
    with pytest.raises(ArtifactError, match=r"missing \['evidence.bias'\], unexpected \['evidence.surplus'\]"):
        artifact.networks()


def test_a_bad_manifest_never_replaces_a_good_artifact(folder: Path, network: torch.nn.Module):
    before = load_artifact(folder)
    with pytest.raises(ArtifactError):
        write_artifact(folder, [network.state_dict()] * 2, {**MANIFEST, "temperature": 0}, "# card\n")
    assert load_artifact(folder) == before and {p.name for p in folder.iterdir()} == {
        "manifest.json", "model.safetensors", "MODEL_CARD.md",
    }  # fmt: skip


def test_reading_a_manifest_does_not_import_torch(folder: Path):
    code = "import sys; from segmenter.model.artifact import load_artifact; "
    code += f"load_artifact({str(folder)!r}); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
