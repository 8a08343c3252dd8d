"""Two engines, one answer: ONNX Runtime says what torch says, and needs no torch on the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_network import SIZE, images, tiny_artifact

import segmenter
from segmenter.engine import Segmenter
from segmenter.errors import ArtifactError
from segmenter.model.artifact import Artifact, load_artifact
from segmenter.model.predict import Predictor, engine_for
from segmenter.phantom.dicom import phantom_dataset
from segmenter.phantom.draw import draw_phantom
from segmenter.settings import Settings
from train.export.onnx_graph import add_graphs

ROOT = Path(__file__).parents[2]
DEMO = Path(segmenter.__file__).parent / "artifacts" / "demo"
CLOSE = 1e-3  # of a probability
WITHOUT_TORCH = """
import sys
sys.modules['torch'] = sys.modules['segmentation_models_pytorch'] = sys.modules['safetensors'] = None  # import fails
from pathlib import Path
import pydicom
from segmenter.model.artifact import load_artifact
from segmenter.engine import Segmenter
from segmenter.settings import Settings
segmenter, film = Segmenter(load_artifact(Path(sys.argv[1])), Settings()), pydicom.dcmread(sys.argv[2])
[finding] = segmenter.segment([film])
print(segmenter.predict.engine, finding.outcome, finding.name, *(one.role for one in segmenter.objects(film, finding)))
"""


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Two members, flips, and a temperature: all that is averaged."""
    return add_graphs(tiny_artifact(tmp_path_factory.mktemp("ensemble"), [1, 2], folds=[0, 1]))


def test_the_shipped_model_answers_the_same_on_whole_films():
    torch, onnx = (Segmenter(load_artifact(DEMO), Settings(engine=engine)) for engine in ("torch", "onnx"))
    assert torch.identity.digest == onnx.identity.digest and torch.predict.engine != onnx.predict.engine
    positives = 0
    for seed, pneumothorax, shape in ((10, True, (1250, 1024)), (29, True, (1024, 1300)), (16, False, (1100, 900))):
        film = phantom_dataset(draw_phantom(seed, shape=shape, pneumothorax=pneumothorax), kind="DX", bits=12)
        [one], [two] = torch.segment([film]), onnx.segment([film])
        assert one.decision is not None and two.decision is not None
        assert abs(one.decision.image_probability - two.decision.image_probability) < CLOSE
        assert one.decision.positive == two.decision.positive
        assert (one.decision.mask != two.decision.mask).mean() < 1e-3
        positives += one.decision.mask.any()
    assert positives == 2, "films without a mask would prove little"


def test_an_ensemble_with_flips_answers_the_same_pixel_by_pixel(ensemble: Artifact):
    films = images(3)
    torch, onnx = (Predictor(ensemble, "cpu", engine=engine)(films) for engine in ("torch", "onnx"))
    for one, two in zip(torch, onnx, strict=True):
        assert np.ptp(one.probability) > 0.1 and two.probability.shape == (SIZE, SIZE) and two.probability.dtype == np.float32
        assert np.abs(one.probability - two.probability).max() < CLOSE
        assert abs(one.image_probability - two.image_probability) < CLOSE


def test_a_machine_without_torch_segments_a_film(tmp_path: Path):
    film = phantom_dataset(draw_phantom(10, shape=(1250, 1024), pneumothorax=True))
    film.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(DEMO), str(tmp_path / "film.dcm")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["onnx", "done", "pneumothorax", "seg", "sr"]


@pytest.mark.parametrize(
    ("missing", "verb", "code", "says"),
    [
        (
            "highdicom",
            ["segment", "film.dcm", "--out", "out"],
            4,
            "highdicom is not installed here; install the extra worker-cpu",
        ),
        ("onnxruntime torch", ["demo"], 2, "neither onnxruntime nor torch is installed here; install the extra worker-cpu"),
    ],
)
def test_a_node_without_the_worker_says_what_to_install(tmp_path: Path, missing: str, verb: list[str], code: int, says: str):
    (tmp_path / "film.dcm").touch()
    program = f"""
import importlib.util, sys
found, gone = importlib.util.find_spec, {missing.split()!r}
importlib.util.find_spec = lambda name, *more: None if name in gone else found(name, *more)
sys.modules.update(dict.fromkeys(gone))
from dicom_node.cli.main import main
main({verb!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code and says in done.stderr, done.stderr[-2000:]


def test_weights_exist_once(ensemble: Artifact):
    """The graph holds none of them."""
    graphs, weights = (sum(p.stat().st_size for p in paths) for paths in (ensemble.graph_paths, ensemble.weights_paths))
    assert graphs < 0.1 * weights


def test_a_changed_graph_is_refused(tmp_path: Path):
    artifact = add_graphs(tiny_artifact(tmp_path))
    [graph] = artifact.graph_paths
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"model\.onnx has sha256"):
        load_artifact(tmp_path)


def test_an_export_anew_takes_the_old_graphs_along(tmp_path: Path):
    """Graphs point into a weights file; those of an earlier one must not stay beside the next."""
    add_graphs(tiny_artifact(tmp_path, [1, 2], folds=[0, 1]))
    alone = tiny_artifact(tmp_path, [3])
    assert alone.manifest.graphs == () and not list(tmp_path.glob("*.onnx"))
    assert engine_for(alone, "cpu") == "torch"
    with pytest.raises(ArtifactError, match="no graph for ONNX Runtime; export it again"):
        engine_for(alone, "cpu", "onnx")


@pytest.mark.parametrize(
    ("installed", "device", "engine", "answer"),
    [
        (("onnxruntime",), "auto", "auto", "onnx"),
        (("onnxruntime",), "cuda", "auto", "torch is not installed here; install the extra worker"),
        (("onnxruntime",), "cpu", "torch", "torch is not installed here"),
        (("torch",), "cpu", "auto", "torch"),
        (("torch",), "cpu", "onnx", "install the extra worker-cpu"),
        ((), "auto", "auto", "install the extra worker-cpu or worker"),
        (("torch", "onnxruntime"), "cpu", "auto", "onnx"),
        (("torch", "onnxruntime"), "cuda:1", "auto", "torch"),
        (("torch", "onnxruntime"), "cuda", "onnx", "runs on the CPU and not on cuda"),
    ],
)
def test_the_engine_is_chosen_by_what_is_here(monkeypatch, ensemble: Artifact, installed, device, engine, answer):
    monkeypatch.setattr("segmenter.model.predict._installed", lambda package: package in installed)
    monkeypatch.setattr("segmenter.model.predict._gpu_answers", lambda: False)
    if answer in ("torch", "onnx"):
        assert engine_for(ensemble, device, engine) == answer
    else:
        with pytest.raises(ArtifactError, match=answer):
            engine_for(ensemble, device, engine)


def test_the_shipped_graph_tells_nothing_of_the_machine_that_made_it():
    manifest = json.loads((DEMO / "manifest.json").read_text())
    graph = (DEMO / manifest["graphs"][0]["file"]).read_bytes()
    assert b"site-packages" not in graph and b"/home" not in graph and b".py" not in graph
