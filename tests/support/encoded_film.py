"""A film in each of the receiver's transfer syntaxes, written by the field's own encoders: dcmtk, and GDCM for JPEG 2000."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import gdcm
import pydicom
from pydicom.dataset import Dataset
from small_film import write

from dicom_node.dimse.contexts import TRANSFER_SYNTAXES

NEAR = 4  # stored values that JPEG-LS may be off
J2K_RATE = 20  # to one
# Lossy encoders of dcmtk give the film a new UID (but +un), and stretch its values to all of their range (but +sr).
BY_DCMTK = {
    "Explicit VR Little Endian": ("dcmconv", "+te"),
    "Implicit VR Little Endian": ("dcmconv", "+ti"),
    "Explicit VR Big Endian": ("dcmconv", "+tb"),
    "Deflated Explicit VR Little Endian": ("dcmconv", "+td"),
    "JPEG Lossless SV1": ("dcmcjpeg", "+un", "+e1"),
    "JPEG Lossless": ("dcmcjpeg", "+un", "+el"),
    "JPEG-LS Lossless": ("dcmcjpls", "+un", "+el"),
    "RLE Lossless": ("dcmcrle", "+un"),
    "JPEG Extended": ("dcmcjpeg", "+un", "+sr", "+ee", "+q", "98"),
    "JPEG Baseline": ("dcmcjpeg", "+un", "+sr", "+eb", "+q", "98"),
    "JPEG-LS Near-lossless": ("dcmcjpls", "+un", "+en", "+md", str(NEAR)),
}
BY_GDCM = {
    "JPEG 2000 Lossless": gdcm.TransferSyntax.JPEG2000Lossless,
    "JPEG 2000": gdcm.TransferSyntax.JPEG2000,
}
# The farthest that a decoded value is from the one encoded, measured on films with sharp edges and doubled: in stored values
# for JPEG of quality 98 (3 of 256, 4 of 4096), as a part of all values for JPEG 2000 (2 %). JPEG-LS promises its own bound.
JPEG_OFF, J2K_OFF = 8, 0.04
LOSSY = ("JPEG Extended", "JPEG Baseline", "JPEG 2000", "JPEG-LS Near-lossless")


def worst(syntax: str, bits: int) -> int:
    """How many stored values a decoded one may be off: 0 where the syntax is lossless."""
    if syntax not in LOSSY:
        return 0
    return {"JPEG-LS Near-lossless": NEAR, "JPEG 2000": int(J2K_OFF * (1 << bits))}.get(syntax, JPEG_OFF)


def encoded(dataset: Dataset, syntax: str, path: Path, tool: Callable[[str], str]) -> Path:
    """Write `dataset` (Explicit VR Little Endian) to `path` in the syntax that TRANSFER_SYNTAXES names so."""
    source = write(dataset, path.with_suffix(".native"))
    if syntax in BY_GDCM:
        _by_gdcm(source, path, syntax)
    else:
        program, *options = BY_DCMTK[syntax]
        subprocess.run([tool(program), *options, source, path], check=True, capture_output=True)
    source.unlink()
    found = pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID
    assert found == TRANSFER_SYNTAXES[syntax], f"{syntax} became {found}"
    return path


def _by_gdcm(source: Path, path: Path, syntax: str) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(BY_GDCM[syntax]))
    codec = gdcm.JPEG2000Codec()
    if syntax in LOSSY:
        codec.SetRate(0, J2K_RATE)
        change.SetUserCodec(codec)
    change.SetInput(reader.GetImage())
    assert change.Change(), syntax
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write(), syntax
    # Its pixels only: GDCM's header says a pixel is 1 mm wide where the film does not say.
    dataset, made = pydicom.dcmread(source), pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = made.file_meta.TransferSyntaxUID
    dataset.PixelData = made.PixelData
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.LossyImageCompression = "01" if syntax in LOSSY else "00"
    if syntax in LOSSY:
        dataset.LossyImageCompressionRatio, dataset.LossyImageCompressionMethod = str(J2K_RATE), "ISO_15444_1"
    write(dataset, path)
