"""The one public entry: a film's answer lies on its pixels, names its maker, and no film disturbs another."""

import json
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from small_film import SHAPE, phantom, picture, raw, read_back, small_film, stored_bytes, write
from tiny_network import MANIFEST, SIZE, tiny_artifact

from dicom_node.cli.main import main
from dicom_node.runtime.config_sections import Segment
from dicom_node.runtime.errors import ConfigError
from dicom_node.work.model import load_model
from segmenter import engine
from segmenter.engine import Segmenter
from segmenter.errors import Refused
from segmenter.film.decode import decode
from segmenter.indeterminate import IndeterminateCode
from segmenter.model.artifact import OperatingPoint
from segmenter.model.identity import identify
from segmenter.objects.kinds import ObjectKind
from segmenter.phantom.dicom import phantom_dataset
from segmenter.settings import Settings
from segmenter.values import Prediction

SETTINGS = Settings(device="cpu", min_side_px=128)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    return tiny_artifact(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def segmenter(artifact):
    return Segmenter(artifact, SETTINGS)


def darkest_lung(images):
    """Stands in for the network: what is dark on the film's left half in model space is the pneumothorax."""
    answers = []
    for image in images[:, 0]:
        lung = np.where(np.arange(SIZE) < SIZE // 2, (image < 0.35) & (image > 0), False)
        answers.append(Prediction(lung.astype(np.float32), 0.9 if lung.any() else 0.1))
    return answers


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


TRUTH = (picture() < 0.35) & (np.arange(SHAPE[1]) < SHAPE[1] // 2)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("orientation", [["L", "F"], ["R", "F"], ["F", "R"], ["H", "L"]])
def test_the_mask_lies_on_the_pixels_it_came_from(segmenter, photometric, orientation):
    """The stored matrix is turned or mirrored, and the truth with it. np.rot90 turns counter-clockwise: along a row of
    the turned film one walks down the upright one, along a column one walks back along its row."""
    image, truth = picture(), TRUTH
    turn = {"LF": lambda a: a, "RF": np.fliplr, "FR": np.rot90, "HL": lambda a: np.rot90(a, -1)}["".join(orientation)]
    image, truth = np.ascontiguousarray(turn(image)), turn(truth)
    dataset = phantom_dataset(phantom(image.shape, image), kind="CR", bits=12, photometric=photometric, stored_range=(0.3, 0.6))
    dataset.PatientOrientation = orientation
    segmenter.predict = darkest_lung
    (finding,) = segmenter.segment([read_back(dataset)])
    assert finding.outcome == "done" and finding.name == "pneumothorax", finding
    assert dice(finding.decision.mask, truth) > 0.9
    result, report = segmenter.objects(read_back(dataset), finding)
    assert (report.role, report.variant) == ("sr", "")
    assert np.array_equal(read_back(result.dataset).pixel_array.squeeze() > 0, finding.decision.mask)
    assert (result.role, result.variant, result.sop_instance_uid) == ("seg", "", result.dataset.SOPInstanceUID)


def test_a_negative_film_is_done_and_has_a_report_and_a_picture_only(segmenter, artifact):
    segmenter.predict = lambda images: [Prediction(np.zeros((SIZE, SIZE), np.float32), 0.2) for _ in images]
    dataset = small_film()
    (finding,) = segmenter.segment([dataset])
    assert (finding.outcome, finding.name, finding.code) == ("done", "none", None)
    kinds = (ObjectKind.SEG, ObjectKind.SR, ObjectKind.CAPTURE, ObjectKind.PRESENTATION)
    report, shown = segmenter.objects(dataset, finding, kinds=kinds)
    assert (report.role, shown.role) == ("sr", "capture") and set(finding.seconds) >= {"decode", "predict", "mask"}
    silent = Segmenter(artifact, replace(SETTINGS, report_negative=False))
    assert silent.objects(dataset, finding, kinds=tuple(ObjectKind)) == []


@pytest.mark.parametrize(("tall", "wide"), [(2, 1), (1, 2), (4, 3), (3, 4)])
@pytest.mark.parametrize("said", ["PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"])
@pytest.mark.parametrize("orientation", [["L", "F"], ["F", "R"]])
def test_a_film_of_pixels_that_are_not_square_is_read_as_the_plain_one(segmenter, tall, wide, said, orientation):
    """The network sees the same body, whoever says the proportions, and the mask lies on the native matrix."""
    seen = []
    segmenter.predict = lambda images: seen.append(images[0, 0]) or darkest_lung(images)
    segmenter.segment([small_film(kind="CR", bits=12)])
    shape = SHAPE[0] * min(tall, wide) // tall, SHAPE[1] * min(tall, wide) // wide
    image = cv2.resize(picture(), shape[::-1], interpolation=cv2.INTER_AREA)
    truth = cv2.resize(TRUTH.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA) > 0.5
    if orientation != ["L", "F"]:
        image, truth, tall, wide = np.ascontiguousarray(np.rot90(image)), np.rot90(truth), wide, tall
    dataset = phantom_dataset(phantom(image.shape, image), kind="CR", bits=12)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        dataset.pop(keyword, None)
    scale = 1 if said == "PixelAspectRatio" else 0.1
    setattr(dataset, said, [f"{tall * scale:g}", f"{wide * scale:g}"])
    dataset.PatientOrientation = orientation
    (finding,) = segmenter.segment([read_back(dataset)])
    plain, squashed = seen
    assert np.abs(plain - squashed).mean() < 0.02, "without its proportions a body is twice as wide as long"
    assert finding.name == "pneumothorax" and dice(finding.decision.mask, truth) > 0.9
    if "Scanned" in said or "Ratio" in said:
        assert finding.decision.area_mm2 is None
    else:
        assert finding.decision.area_mm2 == pytest.approx(finding.decision.mask.sum() * 0.01 * tall * wide)


@pytest.mark.parametrize(("specks", "why"), [(0, None), (1, None), (0, IndeterminateCode.NO_REGION)])
def test_a_probability_without_a_region_is_indeterminate_and_never_absent(specks, why, artifact, monkeypatch):
    """No pixel above its threshold; a speck below the least area; a film whose pixels allow no answer, said by the decoder."""
    point = {"image_threshold": 0.5, "mask_threshold": 0.5, "min_area_mm2": 500.0, "min_area_px": 500.0}
    manifest = replace(artifact.manifest, operating_points={"only": OperatingPoint(**point)})
    segmenter = Segmenter(replace(artifact, manifest=manifest), replace(SETTINGS, report_negative=False))
    probability = np.zeros((SIZE, SIZE), np.float32)
    probability[10 : 10 + specks, 10] = 0.9
    if why is not None:
        monkeypatch.setattr(engine, "decode", lambda film: replace(decode(film), indeterminate=why))
        probability[10:40, 10:40] = 0.9
    segmenter.predict = lambda images: [Prediction(probability, 0.97) for _ in images]
    dataset = small_film()
    (finding,) = segmenter.segment([dataset])
    code = IndeterminateCode.NO_REGION
    assert (finding.outcome, finding.name, finding.code, finding.sentence) == ("indeterminate", None, code, code.sentence)
    decision = finding.decision
    assert (decision.positive, decision.image_probability, decision.image_threshold) == (False, 0.97, 0.5)
    assert not decision.mask.any() and decision.mask.shape == SHAPE and decision.area_mm2 is None
    (report,) = segmenter.objects(dataset, finding, kinds=(ObjectKind.SEG, ObjectKind.SR, ObjectKind.PRESENTATION))
    assert report.role == "sr", "whatever report_negative says"


def test_the_real_network_answers_a_batch_like_single_films(artifact):
    segmenter = Segmenter(artifact, replace(SETTINGS, absurd_fraction=1.0))
    films = [small_film(kind=kind, seed=seed) for kind, seed in (("DX", 1), ("CR", 2), ("SC", 3))]
    together = segmenter.segment(films)
    for dataset, one in zip(films, together, strict=True):
        (alone,) = segmenter.segment([dataset])
        assert one.outcome == alone.outcome == "done"
        assert one.decision.image_probability == pytest.approx(alone.decision.image_probability, abs=1e-4)


def test_no_film_disturbs_another(segmenter):
    """A truncated, a veterinary, a poisonous and a hungry film between good ones, in order."""
    films = [small_film(seed=n) for n in range(7)]
    films[1].PixelData = films[1].PixelData[:999]
    films[2].PatientSpeciesDescription = "Canis"
    films[3].PatientName, films[3].Rows = "SECRET^NAME", 0
    marks = {4: RuntimeError("SECRET in the message"), 5: MemoryError()}

    def predictor(images):
        for n, error in marks.items():
            if any(np.array_equal(image, poison[n]) for image in images[:, 0]):
                raise error
        return darkest_lung(images)

    poison = {}
    for n in marks:  # a film that the network chokes on, wherever it is in the batch
        image = np.roll(picture(), n, axis=0)
        films[n] = small_film(seed=n, image=image)
        captured = []
        segmenter.predict = lambda images, into=captured: into.append(images) or darkest_lung(images)
        segmenter.segment([films[n]])
        poison[n] = captured[0][0, 0]
    segmenter.predict = predictor
    findings = segmenter.segment(films)
    assert [f.outcome for f in findings] == ["done", "failed", "skipped", "skipped", "failed", "failed", "done"]
    assert [f.code for f in findings] == [
        None, "truncated-pixel-data", "not-human", "too-small", "internal-error", "out-of-memory", None,
    ]  # fmt: skip
    assert "RuntimeError" in findings[4].sentence
    assert not any("SECRET" in (f.sentence or "") for f in findings)
    assert segmenter.segment([]) == []


def test_bad_output_of_the_network_is_never_sent(segmenter):
    for value, code in ((np.nan, "non-finite-output"), (0.99, "absurd-mask")):
        segmenter.predict = lambda images, v=value: [Prediction(np.full((SIZE, SIZE), v, np.float32), 0.9)]
        dataset = small_film()
        (finding,) = segmenter.segment([dataset])
        assert (finding.outcome, finding.code) == ("failed", code)
        assert segmenter.objects(dataset, finding) == []


def test_the_identity_follows_what_changes_answers(artifact):
    plain = identify(artifact, SETTINGS)
    assert plain.demo and plain.commit == "abc" and plain.operating_point == "only"
    assert identify(artifact, replace(SETTINGS, threads=3, device="cuda", series_number=1)).digest == plain.digest
    assert identify(artifact, replace(SETTINGS, absurd_fraction=0.3)).digest != plain.digest
    with pytest.raises(Refused, match="no operating point 'keen'"):
        identify(artifact, replace(SETTINGS, operating_point="keen"))


PUBLISHED = {"image_threshold": 0.0, "mask_threshold": 0.05, "min_area_mm2": 0, "min_area_px": 0}


def test_an_operating_point_for_comparison_is_never_served(tmp_path):
    artifact = tiny_artifact(tmp_path, operating_points={**MANIFEST["operating_points"], "published": PUBLISHED})
    with pytest.raises(Refused, match="only to compare with a published figure; the model has only") as error:
        Segmenter(artifact, replace(SETTINGS, operating_point="published"))
    assert error.value.code == "comparison-only-operating-point"
    with pytest.raises(Refused, match=r"no operating point 'keen'; it has only\.$"):
        identify(artifact, replace(SETTINGS, operating_point="keen"))
    with pytest.raises(ConfigError, match=r"'published' exists only to compare .*; the model has only"):
        load_model(Segment(model=tmp_path, operating_point="published"))
    with pytest.raises(ConfigError, match=r"no 'keen'; it has only$"):
        load_model(Segment(model=tmp_path, operating_point="keen"))


def test_an_ensemble_answers_films_and_names_itself(tmp_path):
    films = [small_film(kind=kind, seed=seed) for kind, seed in (("DX", 1), ("CR", 2))]
    settings = replace(SETTINGS, absurd_fraction=1.0)
    both = Segmenter(tiny_artifact(tmp_path / "both", [1, 2]), settings)
    single = [Segmenter(tiny_artifact(tmp_path / str(n), [n]), settings) for n in (1, 2)]
    assert len({one.identity.digest for one in (both, *single)}) == 3
    for mean, *members in zip(both.segment(films), *(one.segment(films) for one in single), strict=True):
        expected = np.mean([member.decision.image_probability for member in members])
        assert mean.decision.image_probability == pytest.approx(expected, abs=1e-6)
        assert mean.decision.mask.shape == SHAPE


SILENT = {"image_threshold": 1.0, "mask_threshold": 0.5, "min_area_mm2": 0, "min_area_px": 0}


@pytest.mark.parametrize("verb", ["segment", "demo"])
def test_the_command_line_answers_with_the_model_it_is_given(verb, tmp_path, monkeypatch):
    """A research ensemble by a relative path: offline, and in a node of child processes."""
    artifact = tiny_artifact(tmp_path / "mine", [1, 2], name="mine", intended_use="research", operating_points={"only": SILENT})
    file = write(small_film(), tmp_path / "film.dcm")
    monkeypatch.chdir(tmp_path)
    films = [str(file)] if verb == "segment" else ["--film", str(file)]
    done = CliRunner().invoke(main, [verb, *films, "--model", "mine", "--out", "out", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (finding,) = Segmenter(artifact, SETTINGS).segment([small_film()])
    (said,) = report["films"]
    assert (said["outcome"], said["finding"]) == ("done", "none")
    assert said["probability"] == pytest.approx(finding.decision.image_probability, abs=1e-5), "another model answered"
    assert report["model"] == {
        "name": "mine", "version": "0.1", "intended_use": "research", "sha256": artifact.sha256, "operating_point": "only",
    }  # fmt: skip


MUTE = {"image_threshold": 0.0, "mask_threshold": 1.0, "min_area_mm2": 0, "min_area_px": 0}


@pytest.mark.parametrize("verb", ["segment", "demo"])
def test_the_command_line_says_indeterminate(verb, tmp_path):
    """Its code, no finding, a report and exit 0: offline, and through a node's ledger."""
    tiny_artifact(tmp_path / "mine", operating_points={"only": MUTE})
    file = write(small_film(), tmp_path / "film.dcm")
    films = [str(file)] if verb == "segment" else ["--film", str(file)]
    done = CliRunner().invoke(main, [verb, *films, "--model", str(tmp_path / "mine"), "--out", str(tmp_path / "out"), "--json"])
    assert done.exit_code == 0, done.output
    (said,) = json.loads((tmp_path / "out" / "report.json").read_text())["films"]
    assert (said["outcome"], said["code"], said["finding"], said["area_mm2"]) == ("indeterminate", "no-region", None, None)
    assert said["probability"] > 0 and said["sentence"] == IndeterminateCode.NO_REGION.sentence
    assert [one["role"] for one in said["stored"]] == ["sr"] and (tmp_path / "out" / "film.png").exists()


def test_a_model_that_is_not_there_is_named(tmp_path):
    file = write(small_film(), tmp_path / "film.dcm")
    for command in (["segment", str(file), "--out", str(tmp_path)], ["demo", "--out", str(tmp_path)]):
        done = CliRunner().invoke(main, [*command, "--model", str(tmp_path / "nothing")])
        assert done.exit_code == 2 and "nothing has no manifest.json" in done.output


def test_the_demo_refuses_two_models_at_once(tmp_path, monkeypatch):
    tiny_artifact(tmp_path / "mine")
    monkeypatch.setenv("SEGMENTER_SEGMENT__MODEL", "demo")
    done = CliRunner().invoke(main, ["demo", "--model", str(tmp_path / "mine"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2 and "names another model than --model" in done.output


def test_patient_data_never_reaches_a_warning_or_a_log(segmenter, recwarn, caplog):
    dataset = small_film(kind="SC")
    dataset.add_new("PatientBirthDate", "DA", "SECRET")
    dataset.add_new("AccessionNumber", "SH", "SECRET" * 9)
    dataset.add_new("BodyPartExamined", "CS", "chest SECRET!")
    segmenter.predict = darkest_lung
    recwarn.clear(), caplog.clear()
    (finding,) = segmenter.segment([dataset])
    assert finding.outcome == "done" and len(segmenter.objects(dataset, finding, kinds=tuple(ObjectKind))) == 7
    assert not [w for w in recwarn if "SECRET" in str(w.message)] and "SECRET" not in caplog.text


def test_reading_a_film_leaves_its_bytes_alone(segmenter, tmp_path):
    """The gate reads descriptions and UIDs; they go back as they came all the same."""
    odd = {"StudyDescription": "грудь ".encode("cp1251"), "PatientID": b" 1  ", "StudyInstanceUID": b"1.2.3.4 "}
    dataset = read_back(raw(small_film(kind="CR"), SpecificCharacterSet=b"", PatientName=b"\xc8\xe2^\xdf", **odd))
    segmenter.predict = darkest_lung
    (finding,) = segmenter.segment([dataset])
    for result in segmenter.objects(dataset, finding, kinds=tuple(ObjectKind)):
        path = write(result.dataset, tmp_path / f"{result.kind}.dcm")
        for keyword, value in odd.items():
            assert stored_bytes(path, keyword) == value, (result.kind, keyword)


def test_the_light_rooms_import_neither_torch_nor_highdicom():
    names = "values errors settings reason notes film.header film.gate film.codestream film.pixels film.greyscale film.decode"
    names += " model.placement model.artifact model.identity model.mask"
    names += " objects.uids objects.kinds objects.sentences objects.outline objects.codes"
    code = "import sys\n" + "".join(f"import segmenter.{n}\n" for n in names.split())
    code += "assert not {'torch', 'highdicom', 'segmentation_models_pytorch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
