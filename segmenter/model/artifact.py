"""A model on disk: manifest.json, weights and MODEL_CARD.md. A folder whose files do not match its manifest is never used.

The weights are model.safetensors, or for an ensemble model-0.safetensors, model-1.safetensors, ...: networks of one
architecture whose predictions are averaged (`predict.py`), usually one for each fold. Each may have a graph, model.onnx or
model-0.onnx, ...: the network for ONNX Runtime, which reads the same weights.

The command line reads manifests, too, so this module imports torch only where tensors are needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from segmenter.errors import ArtifactError

if TYPE_CHECKING:
    import torch

SCHEMA = 3
MANIFEST_FILE, CARD_FILE = "manifest.json", "MODEL_CARD.md"
ARTIFACT_FILES = re.compile(r"model(-\d+)?\.(safetensors|onnx)")  # files of earlier exports that are removed
INTENDED_USES = ("demo", "research")
# Operating points with the conditions of a published figure (no image threshold, mask threshold .05, no smallest area), for
# comparison. Nearly every film is positive at them: they must not answer films.
COMPARE_ONLY = ("published",)
LO_CHARACTERS = 64  # of a Long String (PS3.5 section 6.2): name and version are written into such elements


@dataclass(frozen=True)
class OperatingPoint:
    """The thresholds that turn probabilities into an answer. Connected components smaller than the smallest area are
    dropped."""

    image_threshold: float  # calibrated image probability from which the film is positive, 0..1
    mask_threshold: float  # pixel probability from which a pixel belongs to the mask, 0..1
    min_area_mm2: float  # smallest area when the pixel spacing is known
    min_area_px: float  # smallest area in pixels of the model grid, used when the spacing is unknown


@dataclass(frozen=True)
class Input:
    """The network's input: (size, size) px after placement, then (x - mean) / std of an image in [0, 1]."""

    size: int
    mean: float
    std: float


@dataclass(frozen=True)
class WeightsFile:
    """A file of the model folder with its digest."""

    file: str  # a name without a path
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """manifest.json, validated. Every key is required and no other is accepted, so that a misspelt threshold is an error."""

    schema: int
    name: str
    version: str
    intended_use: str  # "demo" | "research"
    network: Mapping[str, Any]  # for network.build_network
    input: Input
    temperature: float  # image probability = sigmoid(image logit / temperature)
    flips: bool  # average with the mirrored film
    operating_point: str  # name of the default
    operating_points: Mapping[str, OperatingPoint]
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    recipe: str
    seed: int
    generator_sha256: str  # of the phantom generator's source
    commit: str
    weights: tuple[WeightsFile, ...]  # one for each member, all of them of `network` and `input`
    graphs: tuple[WeightsFile, ...]  # one for each member, in the same order; empty: torch only
    folds: tuple[int, ...]  # the held-out fold of each member, in the order of `weights`; empty: unknown

    @property
    def servable_points(self) -> list[str]:
        """Names of the operating points that may answer a film, sorted."""
        return sorted(set(self.operating_points) - set(COMPARE_ONLY))


@dataclass(frozen=True)
class Artifact:
    """A verified model folder: each file has the digest of the manifest."""

    folder: Path
    manifest: Manifest
    manifest_sha256: str

    @property
    def sha256(self) -> str:
        """Digest of the weights: of a single model, that of its file; of an ensemble, the sha256 of its members' hexadecimal
        digests in the manifest's order, joined by newlines."""
        digests = [weights.sha256 for weights in self.manifest.weights]
        return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    @property
    def weights_paths(self) -> list[Path]:
        """One file for each member."""
        return [self.folder / weights.file for weights in self.manifest.weights]

    @property
    def graph_paths(self) -> list[Path]:
        """One ONNX file for each member, or no file."""
        return [self.folder / graph.file for graph in self.manifest.graphs]

    def state_dict(self, member: int) -> dict[str, torch.Tensor]:
        """Tensors of a member by name; floating point ones as float32, counters unchanged. Raises ArtifactError."""
        return {name: t.float() if t.is_floating_point() else t for name, t in self.stored_tensors(member).items()}

    def stored_tensors(self, member: int) -> dict[str, torch.Tensor]:
        """Tensors of a member by name as in its file, float16 and float32. Raises ArtifactError when it cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.weights_paths[member]
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise ArtifactError(
                f"{path} cannot be read as safetensors ({error}); export or download the artifact again"
            ) from error

    def networks(self) -> list[torch.nn.Module]:
        """The members in the order of `weights`, one for a single model: in evaluation mode, float32, on the CPU.

        Raises ArtifactError when a tensor is missing, unexpected or of another shape.
        """
        return [self._network(member) for member in range(len(self.manifest.weights))]

    def _network(self, member: int) -> torch.nn.Module:
        from segmenter.model.network import build_network

        try:
            network = build_network(self.manifest.network)
        except (ValueError, KeyError) as error:
            raise ArtifactError(f"{self.folder / MANIFEST_FILE}: {error}") from error
        tensors, wanted = self.state_dict(member), network.state_dict()
        missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
        misshapen = [n for n in wanted if n in tensors and wanted[n].shape != tensors[n].shape]
        if missing or unexpected or misshapen:
            raise ArtifactError(
                f"{self.weights_paths[member]} does not fit the network of its manifest: missing {missing[:3]}, "
                f"unexpected {unexpected[:3]}, other shape {misshapen[:3]}; "
                "export the artifact again with `python -m train export`"
            )
        network.load_state_dict(tensors)
        return network.eval()


def load_artifact(folder: Path) -> Artifact:
    """Read and verify a model folder. Raises ArtifactError for a missing file, an unknown or missing key of the manifest, a
    value out of range, another schema version, or a file whose sha256 is not the manifest's."""
    folder = Path(folder)
    for name in (MANIFEST_FILE, CARD_FILE):
        if not (folder / name).is_file():
            raise ArtifactError(
                f"{folder} has no {name}: a model folder holds {MANIFEST_FILE}, its weights and {CARD_FILE}; "
                "check the path of the model, or export the artifact again"
            )
    text = (folder / MANIFEST_FILE).read_bytes()
    manifest = parse_manifest(text, where=str(folder / MANIFEST_FILE))
    for one in (*manifest.weights, *manifest.graphs):
        _verify(folder / one.file, one.sha256)
    return Artifact(folder, manifest, hashlib.sha256(text).hexdigest())


def _verify(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing although the manifest names it; copy the whole model folder again")
    digest = file_sha256(path)
    if digest != wanted:
        raise ArtifactError(
            f"{path} has sha256 {digest[:16]}..., its manifest says {wanted[:16]}...: the file was changed"
            " or cut short; copy the model folder again from where it came"
        )


def parse_manifest(text: bytes | str, where: str = MANIFEST_FILE) -> Manifest:
    """The manifest of a JSON text; `where` names it in messages. Raises ArtifactError that names the key."""
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
            "weights": _files(table["weights"], "weights", where),
            "graphs": _files(table["graphs"], "graphs", where),
            "folds": _folds(table["folds"], len(table["weights"]), where),
        }
    )
    _check_values(manifest, where)
    return manifest


def write_artifact(
    folder: Path, state_dicts: Sequence[Mapping[str, torch.Tensor]], manifest: Mapping[str, Any], card: str
) -> Artifact:
    """Write a model folder and read it back: a single model, or an ensemble of as many members as there are `state_dicts`.
    `manifest`: the JSON object without `schema`, `weights` and `graphs`, which are added here. Large tensors are stored as
    float16; BatchNorm, heads and all small tensors stay float32 (`as_stored`).

    Raises ArtifactError, and leaves the folder as it was, when the result would be invalid.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    several = len(state_dicts) > 1
    names = [f"model-{n}.safetensors" if several else "model.safetensors" for n in range(len(state_dicts))]
    temporary = {name: folder / f".{name}.{os.getpid()}" for name in (*names, CARD_FILE, MANIFEST_FILE)}
    try:
        for name, state_dict in zip(names, state_dicts, strict=True):
            _save(state_dict, temporary[name])
        weights = [{"file": name, "sha256": file_sha256(temporary[name])} for name in names]
        text = _json({**manifest, "schema": SCHEMA, "weights": weights, "graphs": []})
        parse_manifest(text)  # an invalid artifact replaces nothing
        temporary[CARD_FILE].write_text(card, "utf-8")
        temporary[MANIFEST_FILE].write_text(text, "utf-8")
        for name, file in temporary.items():  # the manifest last: until then the mixture is invalid and not used
            file.replace(folder / name)
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)
    for file in folder.iterdir():  # of an earlier export with other members
        if ARTIFACT_FILES.fullmatch(file.name) and file.name not in names:
            file.unlink()
    return load_artifact(folder)


def with_graphs(artifact: Artifact, graphs: Sequence[bytes]) -> Artifact:
    """Write one ONNX graph for each member (made by `train/export/onnx_graph.py`) into the model folder, in place of earlier
    ones. Raises ArtifactError."""
    folder = artifact.folder
    names = [Path(one.file).with_suffix(".onnx").name for one in artifact.manifest.weights]
    for name, graph in zip(names, graphs, strict=True):
        _replace(folder / name, graph)
    digests = [hashlib.sha256(graph).hexdigest() for graph in graphs]
    listed = [{"file": name, "sha256": digest} for name, digest in zip(names, digests, strict=True)]
    manifest = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    _replace(folder / MANIFEST_FILE, _json({**manifest, "graphs": listed}).encode())
    return load_artifact(folder)


def _replace(file: Path, data: bytes) -> None:
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(file)


def _save(state_dict: Mapping[str, torch.Tensor], path: Path) -> None:
    from safetensors.torch import save

    # Not save_file: only the owner can read its files, and the worker may run as another user.
    path.write_bytes(save({name: as_stored(name, t) for name, t in state_dict.items()}, metadata={"format": "pt"}))


def _json(whole: dict[str, Any]) -> str:
    """The manifest's text, keys in the order of `Manifest`; unknown ones at the end, for `parse_manifest` to name."""
    return json.dumps({f.name: whole.pop(f.name) for f in fields(Manifest) if f.name in whole} | whole, indent=2) + "\n"


def as_stored(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as it is stored: float16 for the large convolutions only. BatchNorm variances overflow or vanish in float16,
    errors of the heads reach the answer directly, and tensors under 65,536 elements take little space but cause most of the
    error."""
    import torch

    small = tensor.numel() < 65536 or "head" in name or "running_" in name
    keep = small or not tensor.is_floating_point()
    return (
        (tensor.detach().float() if tensor.is_floating_point() else tensor)
        .to(tensor.dtype if not tensor.is_floating_point() else torch.float32 if keep else torch.float16)
        .contiguous()
    )


def file_sha256(path: Path) -> str:
    """sha256 of a file, hexadecimal. Raises OSError."""
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


def _files(raw: Any, key: str, where: str) -> tuple[WeightsFile, ...]:
    if not isinstance(raw, list) or not (raw or key == "graphs"):
        raise ArtifactError(f"{where}: {key} must be a list of one file or more; restore it from the export")
    files = tuple(WeightsFile(**_exact(one, WeightsFile, f"{where}: {key}[{n}]")) for n, one in enumerate(raw))
    for one in files:
        if not isinstance(one.file, str) or not isinstance(one.sha256, str):
            raise ArtifactError(f"{where}: {key} {one.file!r}: file and sha256 must be texts; restore it from the export")
        if one.file in ("", "..") or Path(one.file).name != one.file:
            raise ArtifactError(f"{where}: {key} file {one.file!r} leaves the folder; restore it from the export")
    if len({one.file for one in files}) < len(files):
        raise ArtifactError(f"{where}: {key} name one file twice; each member has its own, restore it from the export")
    return files


def _folds(raw: Any, members: int, where: str) -> tuple[int, ...]:
    whole = isinstance(raw, list) and all(type(fold) is int and fold >= 0 for fold in raw)
    if not whole or len(raw) not in (0, members):
        raise ArtifactError(
            f"{where}: folds {raw!r} is not one fold number for each of the {members} weights, nor []; "
            "correct it or export the artifact again"
        )
    return tuple(raw)


def _check_values(manifest: Manifest, where: str) -> None:
    """Raises ArtifactError for values out of range."""
    m = manifest
    problems = [
        (m.intended_use in INTENDED_USES, f"intended_use {m.intended_use!r} is not one of {INTENDED_USES}"),
        (isinstance(m.flips, bool), f"flips {m.flips!r} is not true or false"),
        (
            isinstance(m.temperature, int | float) and m.temperature > 0,
            f"temperature {m.temperature!r} is not above 0",
        ),
        (m.input.size >= 32 and m.input.size % 32 == 0, f"input.size {m.input.size} is not a multiple of 32"),
        (
            len(m.graphs) in (0, len(m.weights)),
            f"graphs: {len(m.graphs)} for {len(m.weights)} weights, not one for each or none",
        ),
        (m.input.std > 0, f"input.std {m.input.std} is not above 0"),
        (
            m.operating_point in m.operating_points,
            f"operating_point {m.operating_point!r} is not in operating_points",
        ),
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
