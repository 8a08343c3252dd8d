"""A model on disk: manifest.json + model.safetensors + MODEL_CARD.md. Weights never travel alone, and nothing
that does not match its manifest is ever used.

The receiver and the command line read manifests too, so this module imports torch only where tensors are
built.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from segmenter.errors import ArtifactError

if TYPE_CHECKING:
    import torch

SCHEMA = 1
MANIFEST_FILE, WEIGHTS_FILE, CARD_FILE = "manifest.json", "model.safetensors", "MODEL_CARD.md"
INTENDED_USES = ("demo", "research")
LO_CHARACTERS = 64  # name and version go into DICOM elements of VR LO (PS3.5 section 6.2)


@dataclass(frozen=True)
class OperatingPoint:
    """Where probabilities become an answer. Areas below the floor are dropped, one connected component at a
    time."""

    image_threshold: float  # calibrated image probability from which the film is called positive, 0..1
    mask_threshold: float  # pixel probability from which a pixel belongs to the mask, 0..1
    min_area_mm2: float  # floor when the pixel spacing is known
    min_area_px: float  # floor in pixels of the model grid, used when the spacing is unknown


@dataclass(frozen=True)
class Input:
    """What the network was shown: (size, size) px after placement, then (x - mean) / std of an image in [0,
    1]."""

    size: int
    mean: float
    std: float


@dataclass(frozen=True)
class WeightsFile:
    file: str  # a plain name inside the artifact folder
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """manifest.json, validated. Every key is required and no other is accepted, so that a misspelt threshold
    is an error."""

    schema: int
    name: str
    version: str
    intended_use: str  # "demo" | "research"
    network: Mapping[str, Any]  # for network.build_network
    input: Input
    temperature: float  # image probability = sigmoid(image logit / temperature)
    flips: bool  # average with the mirrored film
    operating_point: str  # the name of the default one
    operating_points: Mapping[str, OperatingPoint]
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    recipe: str
    seed: int
    generator_sha256: str  # digest of the phantom generator's source
    commit: str
    weights: WeightsFile


@dataclass(frozen=True)
class Artifact:
    """A verified model folder: the weights file has the digest its manifest names."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str

    @property
    def sha256(self) -> str:
        """Digest of the weights file."""
        return self.manifest.weights.sha256

    @property
    def weights_path(self) -> Path:
        return self.folder / self.manifest.weights.file

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Tensors by name; floating point ones as float32, counters as they are."""
        return {name: t.float() if t.is_floating_point() else t for name, t in self.stored_tensors().items()}

    def stored_tensors(self) -> dict[str, torch.Tensor]:
        """Tensors by name as they lie in the file, float16 and float32."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.weights_path)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(
                f"{self.weights_path} can not be read as safetensors ({error}); export or download the artifact again"
            ) from error

    def network(self) -> torch.nn.Module:
        """The network with these weights, in evaluation mode, float32, on the CPU.

        Raises ArtifactError when a tensor is missing, unexpected or of another shape.
        """
        from segmenter.network import build_network

        try:
            network = build_network(self.manifest.network)
        except (ValueError, KeyError) as error:
            raise ArtifactError(f"{self.folder / MANIFEST_FILE}: {error}") from error
        tensors, wanted = self.state_dict(), network.state_dict()
        missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
        misshapen = [n for n in wanted if n in tensors and wanted[n].shape != tensors[n].shape]
        if missing or unexpected or misshapen:
            raise ArtifactError(
                f"{self.weights_path} does not fit the network of its manifest: missing {missing[:3]}, "
                f"unexpected {unexpected[:3]}, other shape {misshapen[:3]}; "
                "export the artifact again with `python -m train export`"
            )
        network.load_state_dict(tensors)
        return network.eval()


def load_artifact(folder: Path) -> Artifact:
    """Read and verify a model folder. Raises ArtifactError for a missing file, an unknown or missing manifest
    key, a value out of range, another schema version, or weights whose sha256 is not the manifest's."""
    folder = Path(folder)
    for name in (MANIFEST_FILE, CARD_FILE):
        if not (folder / name).is_file():
            raise ArtifactError(
                f"{folder} has no {name}: a model folder holds {MANIFEST_FILE}, {WEIGHTS_FILE} "
                f"and {CARD_FILE}; "
                "check the path of the model, or export the artifact again"
            )
    text = (folder / MANIFEST_FILE).read_bytes()
    manifest = parse_manifest(text, where=str(folder / MANIFEST_FILE))
    weights = folder / manifest.weights.file
    if not weights.is_file():
        raise ArtifactError(f"{weights} is missing although the manifest names it; copy the whole model folder again")
    digest = file_sha256(weights)
    if digest != manifest.weights.sha256:
        raise ArtifactError(
            f"{weights} has sha256 {digest[:16]}..., its manifest says {manifest.weights.sha256[:16]}...: "
            "the file was changed"
            " or cut short; copy the model folder again from where it came"
        )
    return Artifact(folder, manifest, hashlib.sha256(text).hexdigest())


def parse_manifest(text: bytes | str, where: str = MANIFEST_FILE) -> Manifest:
    """Manifest from JSON. Raises ArtifactError that names `where` and the key."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"{where} is not valid JSON ({error}); restore it from the export") from error
    if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
        found = raw.get("schema") if isinstance(raw, dict) else type(raw).__name__
        raise ArtifactError(
            f"{where}: schema {found!r} is not {SCHEMA}, the one this version reads; "
            "export the artifact again with this version"
        )
    table = _exact(raw, Manifest, where)
    points = {k: _numbers(v, OperatingPoint, f"{where}: operating_points.{k}") for k, v in _mapping(table, where).items()}
    manifest = Manifest(
        **{
            **table,
            "network": MappingProxyType(table["network"]),
            "input": _numbers(table["input"], Input, f"{where}: input"),
            "operating_points": MappingProxyType(points),
            "weights": WeightsFile(**_exact(table["weights"], WeightsFile, f"{where}: weights")),
        }
    )
    _check_values(manifest, where)
    return manifest


def write_artifact(folder: Path, state_dict: Mapping[str, torch.Tensor], manifest: Mapping[str, Any], card: str) -> Artifact:
    """Write a model folder and read it back. `manifest` is the JSON object without `schema` and `weights`,
    which are filled in here. Big tensors are stored as float16; BatchNorm, heads and all small tensors stay
    float32 (`stored`)."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{WEIGHTS_FILE}.{os.getpid()}"
    save_file({name: stored(name, t) for name, t in state_dict.items()}, temporary, metadata={"format": "pt"})
    whole = {
        **manifest,
        "schema": SCHEMA,
        "weights": {"file": WEIGHTS_FILE, "sha256": file_sha256(temporary)},
    }
    text = json.dumps({f.name: whole.pop(f.name) for f in fields(Manifest) if f.name in whole} | whole, indent=2) + "\n"
    try:
        parse_manifest(text)  # nothing is replaced by an artifact that would be refused
    except ArtifactError:
        temporary.unlink()
        raise
    temporary.replace(folder / WEIGHTS_FILE)
    (folder / MANIFEST_FILE).write_text(text)
    (folder / CARD_FILE).write_text(card)
    return load_artifact(folder)


def stored(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as it goes into the file: float16 for the big convolutions only. BatchNorm variances
    overflow or vanish in float16, heads act on the answer directly, and tensors under 64 Ki elements cost
    nothing but carry most of the error."""
    import torch

    small = tensor.numel() < 65536 or "head" in name or "running_" in name
    keep = small or not tensor.is_floating_point()
    return (
        (tensor.detach().float() if tensor.is_floating_point() else tensor)
        .to(tensor.dtype if not tensor.is_floating_point() else torch.float32 if keep else torch.float16)
        .contiguous()
    )


def file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _exact(raw: Any, kind: type, where: str) -> dict[str, Any]:
    """`raw` if it is an object with exactly the fields of `kind`."""
    names = {f.name for f in fields(kind)}
    if not isinstance(raw, dict):
        raise ArtifactError(f"{where} must be an object with the keys {sorted(names)}; restore it from the export")
    if unknown := sorted(raw.keys() - names):
        raise ArtifactError(f"{where}: unknown key {unknown[0]!r}; known are {sorted(names)}; correct or remove it")
    if missing := sorted(names - raw.keys()):
        raise ArtifactError(f"{where}: key {missing[0]!r} is missing; export the artifact again")
    return raw


def _numbers(raw: Any, kind: type, where: str) -> Any:
    table = _exact(raw, kind, where)
    for key, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ArtifactError(f"{where}.{key} is {value!r}, not a number; restore it from the export")
    return kind(**table)


def _mapping(table: dict[str, Any], where: str) -> dict[str, Any]:
    for key in ("network", "operating_points", "metrics", "data"):
        if not isinstance(table[key], dict):
            raise ArtifactError(f"{where}: {key} must be an object; restore it from the export")
    return table["operating_points"]


def _check_values(manifest: Manifest, where: str) -> None:
    """Ranges. A threshold of 5 or a path that leaves the folder is a mistake to name, not to run."""
    m = manifest
    problems = [
        (m.intended_use in INTENDED_USES, f"intended_use {m.intended_use!r} is not one of {INTENDED_USES}"),
        (isinstance(m.flips, bool), f"flips {m.flips!r} is not true or false"),
        (
            isinstance(m.temperature, int | float) and m.temperature > 0,
            f"temperature {m.temperature!r} is not above 0",
        ),
        (m.input.size >= 32 and m.input.size % 32 == 0, f"input.size {m.input.size} is not a multiple of 32"),
        (m.input.std > 0, f"input.std {m.input.std} is not above 0"),
        (
            m.operating_point in m.operating_points,
            f"operating_point {m.operating_point!r} is not in operating_points",
        ),
        (Path(m.weights.file).name == m.weights.file, f"weights.file {m.weights.file!r} leaves the folder"),
        *(
            (isinstance(t, str) and 0 < len(t) <= LO_CHARACTERS, f"{t!r} is not a text of 1 to 64 characters")
            for t in (m.name, m.version)
        ),
        *(
            (
                0 <= p.image_threshold <= 1 and 0 <= p.mask_threshold <= 1 and p.min_area_mm2 >= 0 and p.min_area_px >= 0,
                f"operating point {n!r} has thresholds outside 0..1 or a negative area",
            )
            for n, p in m.operating_points.items()
        ),
    ]
    for good, message in problems:
        if not good:
            raise ArtifactError(f"{where}: {message}; correct it or export the artifact again")
