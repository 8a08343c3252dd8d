"""One film, whatever syntax, photometric interpretation or depth it comes in: the same picture and the same digest."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from small_film import SHAPE, picture, read_back, small_film, write

from segmenter.errors import Refused
from segmenter.film.decode import decode
from segmenter.film.gate import SkippedFilm
from segmenter.film.geometry import spacing_of, turn_of, turned
from segmenter.notes import NoteCode
from segmenter.values import Spacing

FILMS = os.environ.get("SEGMENTER_FILMS")

CONVERSIONS = {
    "implicit": ("dcmconv", "+ti"),
    "big endian": ("dcmconv", "+tb"),
    "deflated": ("dcmconv", "+td"),
    "RLE": ("dcmcrle",),
    "JPEG lossless .70": ("dcmcjpeg", "+e1"),
    "JPEG lossless .57": ("dcmcjpeg", "+el"),
    "JPEG-LS": ("dcmcjpls", "+el"),
}
LOSSY = {
    "JPEG baseline": (8, ("dcmcjpeg", "+eb", "+q", "95")),
    "JPEG extended": (12, ("dcmcjpeg", "+ee", "+q", "98")),
    "JPEG-LS near-lossless": (12, ("dcmcjpls", "+en", "+md", "4")),
}


def converted(dataset: Dataset, tool, folder: Path, command: tuple[str, ...]) -> Dataset:
    source, target = write(dataset, folder / "in.dcm"), folder / "out.dcm"
    subprocess.run([tool(command[0]), *command[1:], source, target], check=True, capture_output=True)
    return pydicom.dcmread(target)


def jpeg2000(dataset: Dataset, folder: Path) -> Dataset:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(write(dataset, folder / "in.dcm")))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEG2000Lossless))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "out.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    result = pydicom.dcmread(folder / "out.dcm")
    assert result.file_meta.TransferSyntaxUID == JPEG2000Lossless
    return result


def film_of(kind: str) -> Dataset:
    """8 bits; 12 bits of 16, windowed; signed with a padded border, a rescale and a VOI LUT in OW."""
    if kind == "8 bit":
        return small_film(kind="SC", bits=8)
    if kind == "12 bit":
        return small_film(kind="DX", bits=12, stored_range=(0.2, 0.7), photometric="MONOCHROME1")
    dataset = small_film(kind="CR", bits=16, stored_range=(0.0, 0.2))
    values = np.frombuffer(dataset.PixelData, "<u2").reshape(SHAPE).astype(np.int16) - 5000
    values[:10] = -9000
    dataset.PixelData, dataset.PixelRepresentation = values.tobytes(), 1
    dataset.add_new("PixelPaddingValue", "SS", -9000)
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "0.5", "10", "US"
    del dataset.WindowCenter, dataset.WindowWidth
    table = Dataset()
    table.add_new("LUTDescriptor", "SS", [4096, -2500, 12])
    table.add_new("LUTData", "US", np.linspace(0, 4095, 4096).astype(int).tolist())
    dataset.VOILUTSequence = Sequence([table])
    return read_back(dataset)


@pytest.mark.parametrize("kind", ["8 bit", "12 bit", "signed"])
def test_lossless_syntaxes_are_one_film(kind, tool, tmp_path):
    source = film_of(kind)
    first = decode(source)
    films = {name: converted(source, tool, tmp_path, command) for name, command in CONVERSIONS.items()}
    if kind != "signed":  # GDCM's encoder does not keep the sign
        films["JPEG 2000"] = jpeg2000(source, tmp_path)
    assert len({f.file_meta.TransferSyntaxUID for f in films.values()}) == len(films)
    for name, film in films.items():
        again = decode(film)
        assert np.array_equal(again.image, first.image), name
        assert again.content_sha256 == first.content_sha256, name


def test_what_changes_the_picture_changes_the_digest():
    plain = decode(film_of("8 bit")).content_sha256
    changes = [
        {"PhotometricInterpretation": "MONOCHROME1"},
        {"WindowCenter": "90", "WindowWidth": "200"},
        {"PixelPaddingValue": 3},
        {"PatientOrientation": ["R", "F"]},
        {"PixelSpacing": ["0.2", "0.2"]},
        {"RescaleSlope": "2", "RescaleIntercept": "-3"},
    ]
    digests = {plain}
    for change in changes:
        film = film_of("8 bit")
        film.update(change)
        digests.add(decode(film).content_sha256)
    assert len(digests) == len(changes) + 1
    renamed = film_of("8 bit")
    renamed.PatientName, renamed.SOPInstanceUID, renamed.StudyDescription = "Other^Name", "1.2.3", "changed on its way"
    assert decode(renamed).content_sha256 == plain


@pytest.mark.parametrize("name", LOSSY)
def test_lossy_syntaxes_stay_close(name, tool, tmp_path):
    bits, command = LOSSY[name]
    source = small_film(kind="DX", bits=bits)
    film = converted(source, tool, tmp_path, command)
    assert film.file_meta.TransferSyntaxUID != source.file_meta.TransferSyntaxUID
    difference = np.abs(decode(film).image - decode(source).image)
    assert difference.max() < 0.05 and difference.mean() < 0.005


@pytest.mark.parametrize("kind", ["DX", "CR", "SC"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_both_photometric_interpretations_show_the_lungs_dark(kind, bits):
    """DX says MONOCHROME1 and INVERSE, two words for one inversion."""
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        film = small_film(kind=kind, bits=bits, photometric=photometric, stored_range=(0.25, 0.75))
        assert np.abs(decode(film).image - picture()).max() < 2.5 / (1 << bits) * 2 + 1e-3


def test_inverse_alone_inverts_too():
    film = small_film(kind="CR", image=1 - picture())
    film.PresentationLUTShape = "INVERSE"
    assert np.abs(decode(film).image - picture()).max() < 0.01


def test_a_window_for_other_pixels_falls_back_to_percentiles():
    for centre, width in (("60000", "200"), ("-1024", "4096"), ("2048", "900000"), ("2000", "0"), ("x", "y")):
        film = small_film(kind="CR", stored_range=(0.4, 0.6), window=False)
        film.add_new("WindowCenter", "LO", centre)  # LO: no conversion on the way into the test
        film.add_new("WindowWidth", "LO", width)
        radiograph = decode(film)
        assert {NoteCode.WINDOW_IGNORED, NoteCode.GREYS_ASSUMED} <= set(radiograph.notes)
        assert np.corrcoef(radiograph.image.ravel(), picture().ravel())[0, 1] > 0.99
        assert radiograph.image.min() == 0 and radiograph.image.max() == 1


def test_a_wide_black_border_does_not_discredit_the_window():
    image = picture()
    image[:, :90] = image[:, -90:] = 0
    assert (image == 0).mean() > 0.6
    assert NoteCode.WINDOW_IGNORED not in decode(small_film(kind="CR", image=image)).notes


def test_window_functions_follow_the_standard():
    film = small_film(kind="CR", bits=8)
    stored = np.frombuffer(film.PixelData, np.uint8).reshape(SHAPE).astype(float)
    film.WindowCenter, film.WindowWidth = "128", "200"
    assert np.allclose(decode(film).image, np.clip((stored - 127.5) / 199 + 0.5, 0, 1), atol=1e-5)
    film.VOILUTFunction = "LINEAR_EXACT"
    assert np.allclose(decode(film).image, np.clip((stored - 128) / 200 + 0.5, 0, 1), atol=1e-5)
    film.VOILUTFunction = "SIGMOID"
    assert np.allclose(decode(film).image, 1 / (1 + np.exp(-4 * (stored - 128) / 200)), atol=1e-5)


def test_tables_are_applied_before_the_window():
    film = small_film(kind="CR", bits=8, window=False, image=1 - picture())
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "US"
    table.add_new("LUTData", "US", [65535 - 257 * v for v in range(256)])
    film.ModalityLUTSequence = Sequence([table])
    film.WindowCenter, film.WindowWidth = "32768", "65536"
    assert np.abs(decode(film).image - picture()).max() < 0.01
    voi = Dataset()
    voi.LUTDescriptor = [256, 0, 8]
    voi.add_new("LUTData", "OW", bytes(255 - v for v in range(256)))  # 8-bit entries, two to a word
    del film.ModalityLUTSequence
    film.VOILUTSequence = Sequence([voi])
    assert np.abs(decode(film).image - picture()).max() < 0.01


def test_padding_is_black_and_does_not_stretch_the_contrast():
    film = small_film(kind="CR", bits=12, stored_range=(0.3, 0.5), window=False)
    values = np.frombuffer(film.PixelData, "<u2").reshape(SHAPE).copy()
    values[:, :60], values[:, -20:] = 4095, 4090
    film.PixelData = values.tobytes()
    film.PixelPaddingValue, film.PixelPaddingRangeLimit = 4095, 4090
    image = decode(film).image
    assert image[:, :60].max() == 0 and image[:, -20:].max() == 0
    assert np.corrcoef(image[:, 60:-20].ravel(), picture()[:, 60:-20].ravel())[0, 1] > 0.99
    assert image[:, 60:-20].max() > 0.95


def test_overlay_bits_are_masked_and_a_wrong_bits_stored_is_not_believed():
    plain = decode(small_film(kind="CR", bits=12))
    overlay = small_film(kind="CR", bits=12)
    values = np.frombuffer(overlay.PixelData, "<u2").reshape(SHAPE).copy()
    values[50:60] |= 0x8000
    overlay.PixelData = values.tobytes()
    overlay.add_new(0x60000100, "US", 16)
    overlay.add_new(0x60000102, "US", 15)
    assert decode(overlay).content_sha256 == plain.content_sha256
    for bits, high in ((10, 9), (12, 3), (0, 0), (40, 39)):
        wrong = small_film(kind="CR", bits=12)
        wrong.BitsStored, wrong.HighBit = bits, high
        assert np.array_equal(decode(wrong).image, plain.image)


def test_three_samples_of_grey_are_a_film_and_a_colour_picture_is_not(tool, tmp_path):
    grey = np.repeat(np.rint(picture() * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    film = small_film(kind="SC", bits=8, window=False)
    expected = decode(film).image
    film.SamplesPerPixel, film.PhotometricInterpretation, film.PlanarConfiguration = 3, "RGB", 0
    film.PixelData = grey.tobytes()
    film["PixelData"].VR = "OB"
    assert np.abs(decode(film).image - expected).max() < 0.01
    ybr = converted(film, tool, tmp_path, ("dcmcjpeg", "+eb", "+q", "95"))
    assert ybr.PhotometricInterpretation.startswith("YBR")
    assert np.abs(decode(ybr).image - expected).max() < 0.05
    grey[:, :100, 0] //= 3
    film.PixelData = grey.tobytes()
    with pytest.raises(SkippedFilm) as error:
        decode(film)
    assert error.value.skip.code == "colour"
    # The same picture of 10 bits in 16: colour is judged on the scale that the film uses.
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 10, 9
    film.PixelData = (grey.astype(np.uint16) * 4).tobytes()
    film["PixelData"].VR = "OW"
    with pytest.raises(SkippedFilm) as error:
        decode(film)
    assert error.value.skip.code == "colour"


@pytest.mark.parametrize(
    ("keyword", "value"), [("RescaleSlope", "1e30"), ("RescaleSlope", "1e-46"), ("RescaleIntercept", "-1e35")]
)
def test_an_absurd_rescale_is_ignored_and_said(keyword, value):
    film = small_film(kind="CR", bits=12, window=False)
    expected = decode(film).image
    film.RescaleSlope, film.RescaleIntercept, film.RescaleType = "1", "0", "US"
    setattr(film, keyword, value)
    found = decode(film)
    assert NoteCode.RESCALE_IGNORED in found.notes and np.array_equal(found.image, expected)


def bad(change) -> Dataset:
    film = small_film(kind="CR", bits=12)
    change(film)
    return film


def set_syntax(film, syntax, data=None):
    film.file_meta.TransferSyntaxUID = syntax
    if data is not None:
        film.PixelData = data


JPEG_OF_65500 = bytes.fromhex("ffd8ffc3000b0cffdcffdc01011100") + b"\0" * 64
BAD = {
    "cut short": ("truncated-pixel-data", lambda f: setattr(f, "PixelData", f.PixelData[:5000])),
    "rows doubled": ("truncated-pixel-data", lambda f: setattr(f, "Rows", f.Rows * 2)),
    "60,000 x 60,000": ("truncated-pixel-data", lambda f: f.update({"Rows": 60000, "Columns": 60000})),
    "0 x 0": ("bad-pixel-description", lambda f: f.update({"Rows": 0, "Columns": 0})),
    "32 bits": ("bad-pixel-description", lambda f: setattr(f, "BitsAllocated", 32)),
    "two samples": ("bad-pixel-description", lambda f: setattr(f, "SamplesPerPixel", 2)),
    "unknown photometric": ("bad-pixel-description", lambda f: setattr(f, "PhotometricInterpretation", "CMYK")),
    "MPEG": ("unsupported-transfer-syntax", lambda f: set_syntax(f, "1.2.840.10008.1.2.4.102")),
    "no file meta": ("missing-transfer-syntax", lambda f: delattr(f, "file_meta")),
    "half of raw pixels called JPEG": (
        "undecodable-pixel-data", lambda f: set_syntax(f, JPEGLosslessSV1, f.PixelData[: len(f.PixelData) // 2])),
    "garbage called JPEG": (
        "undecodable-pixel-data", lambda f: set_syntax(f, JPEGBaseline8Bit, encapsulate([b"garbage!" * 9]))),
    "garbage called JPEG 2000": (
        "undecodable-pixel-data", lambda f: set_syntax(f, JPEG2000Lossless, encapsulate([b"\xff\x4f\xff\x51" * 90]))),
    "garbage called RLE": ("undecodable-pixel-data", lambda f: set_syntax(f, RLELossless, encapsulate([b"x" * 99]))),
    "a huge picture in a small stream": (
        "undecodable-pixel-data", lambda f: set_syntax(f, JPEGLosslessSV1, encapsulate([JPEG_OF_65500]))),
    "a huge film in a small stream": (
        "absurd-size",
        lambda f: (f.update({"Rows": 65500, "Columns": 65500}), set_syntax(f, JPEGLosslessSV1, encapsulate([JPEG_OF_65500]))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_pixels_are_refused_with_a_sentence(name):
    code, change = BAD[name]
    with pytest.raises(Refused) as error:
        decode(bad(change))
    assert error.value.code == code and error.value.sentence.endswith(".")


def test_a_truncated_stream_is_refused(tool, tmp_path):
    """Decoders fill up with grey what is missing: half a film must not be read as a whole one."""
    source = small_film(kind="DX", bits=12)
    for command in (("dcmcrle",), ("dcmcjpeg", "+e1"), ("dcmcjpeg", "+ee"), ("dcmcjpls", "+el"), ()):
        film = converted(source, tool, tmp_path, command) if command else jpeg2000(source, tmp_path)
        stream = next(pydicom.encaps.generate_frames(film.PixelData, number_of_frames=1))
        for length in (30, 400, len(stream) // 2):
            film.PixelData = encapsulate([stream[:length]])
            with pytest.raises(Refused) as error:
                decode(film)
            assert error.value.code in ("undecodable-pixel-data", "truncated-pixel-data")


def test_changed_bytes_in_a_jpeg_are_found_before_the_decoder_meets_them(tool, tmp_path):
    """GDCM ends the process on some of them, and fills up with grey after others."""
    film = converted(small_film(kind="DX", bits=12), tool, tmp_path, ("dcmcjpeg", "+e1"))
    stream = next(pydicom.encaps.generate_frames(film.PixelData, number_of_frames=1))
    for at, found in ((2, b"\x00"), (11, b"\x05"), (len(stream) // 2, b"\xff\x08"), (len(stream) // 2, b"\xff\xd9")):
        film.PixelData = encapsulate([stream[:at] + found + stream[at + len(found) :]])
        with pytest.raises(Refused):
            decode(film)


def test_a_blank_film_is_no_film():
    with pytest.raises(SkippedFilm) as error:
        decode(bad(lambda f: setattr(f, "PixelData", bytes(len(f.PixelData)))))
    assert error.value.skip.code == "blank"


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turned_and_mirrored_films_are_brought_upright(mirror, quarters):
    """The film is turned together with its orientation; `turned` brings back the upright one."""
    upright, rows, columns = picture(), "L", "F"
    opposite = {"L": "R", "R": "L", "H": "F", "F": "H"}
    image = upright
    if mirror:
        image, rows = image[:, ::-1], opposite[rows]
    for _ in range(quarters):  # the standard's words, not the code's: columns become rows, rows run backwards
        image, rows, columns = np.rot90(image), columns, opposite[rows]
    film = small_film(image.shape, image=np.ascontiguousarray(image), kind="CR", bits=8)
    film.PatientOrientation = [rows, columns]
    radiograph = decode(film)
    assert np.abs(radiograph.image - image).max() < 0.01
    assert np.abs(turned(radiograph.image, radiograph.turn) - upright).max() < 0.01


def test_an_orientation_that_says_nothing_leaves_the_film_alone():
    for words in ("", "L", ["L", "L"], ["A", "F"], ["", "F"], ["X", "Y"]):
        film = Dataset()
        film.add_new("PatientOrientation", "CS", words)
        assert turn_of(film) == turn_of(Dataset())


@pytest.mark.parametrize(
    ("values", "spacing"),
    [
        ({"PixelSpacing": ["0.2", "0.1"]}, Spacing(0.2, 0.1, "PixelSpacing")),
        ({"PixelSpacing": ["0", "0"], "ImagerPixelSpacing": ["0.2", "0.2"]}, Spacing(0.2, 0.2, "ImagerPixelSpacing")),
        ({"ImagerPixelSpacing": ["0.2", "0.2"], "EstimatedRadiographicMagnificationFactor": "1.25"},
         Spacing(0.16, 0.16, "ImagerPixelSpacing", True)),
        ({"ImagerPixelSpacing": ["0.2", "0.2"], "EstimatedRadiographicMagnificationFactor": "0"},
         Spacing(0.2, 0.2, "ImagerPixelSpacing")),
        ({"PixelSpacing": ["0", "0"]}, None),
        ({"PixelSpacing": ["143", "143"]}, None),
        ({"PixelSpacing": ["-0.1", "0.1"]}, None),
        ({"Rows": 1500, "Columns": 1250, "PixelSpacing": ["1", "1"]}, None),
        ({"Rows": 3000, "Columns": 2500, "PixelSpacing": ["0.2", "0.1"]}, Spacing(0.2, 0.1, "PixelSpacing")),
        ({"PixelSpacing": ["0.1"]}, None),
        ({"NominalScannedPixelSpacing": ["0.1", "0.1"]}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_spacing(values, spacing):
    film = Dataset()
    film.update(values)
    assert spacing_of(film) == spacing


if FILMS is not None:  # real films, where somebody has some

    def test_real_films_show_dark_lungs():
        """Lungs, a fifth in from each side, are darker than the mediastinum between them, of a retagged film too."""
        for path in sorted(Path(FILMS).glob("*.dcm")):
            if "dog" in path.name:
                continue
            image = decode(pydicom.dcmread(path)).image
            h, w = image.shape
            side, upper = w // 3 - w // 5, slice(h // 3, h // 2)
            lungs = np.median([image[upper, w // 5 :][:, :side], image[upper, ::-1][:, w // 5 :][:, :side]])
            middle = np.median(image[h // 3 : h // 2, w * 9 // 20 : w * 11 // 20])
            assert lungs < middle, path.name
