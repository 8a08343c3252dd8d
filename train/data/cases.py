"""A case: one film of a data set with its true mask. Films that are pictures are converted to Secondary Captures, so that they
pass gate and decoding as films from a modality do."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from segmenter.errors import Refused
from segmenter.film.parse import UNREADABLE, parse
from train.data import rle

UID_NAMESPACE = uuid.UUID("4b2f0c52-7f0e-4f0c-8f43-1d0b9d6f2a11")
PICTURES = (".png", ".jpg", ".jpeg")


class DataError(ValueError):
    """A data set that cannot be used; the message names what is missing and what to do."""


class FilmError(ValueError):
    """One film that cannot be used; `kind`: its heading in the report, such as unreadable or mismatched."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class Case:
    """One film of a data set. The truth is `rle`, rows of the csv, or `mask`, a picture that is white where there is a
    pneumothorax."""

    name: str  # ImageId, or the file's name without its ending
    image: Path
    patient: str  # "" when unknown
    site: str = ""
    rle: tuple[str, ...] | None = None
    mask: Path | None = None

    @property
    def label_fingerprint(self) -> str:
        """A text that changes when the truth of the film changes."""
        if self.mask is None:
            return "\0" + "\0".join(self.rle or ())
        found = self.mask.stat()
        return f"\0{found.st_size} {found.st_mtime_ns}"

    def dataset(self) -> Dataset:
        """The film as a Dataset with File Meta. Raises FilmError."""
        if self.image.suffix.lower() in PICTURES:
            return as_secondary_capture(_grey(self.image), self.name, self.patient)
        try:
            dataset = parse(self.image.read_bytes())
            dataset.file_meta.TransferSyntaxUID  # noqa: B018  # the decoder needs it
        except (Refused, *UNREADABLE) as error:
            raise FilmError("unreadable", f"not a DICOM film ({type(error).__name__})") from error
        return dataset

    def truth(self, shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The true mask (H, W) bool on the film's native matrix of `shape`. Raises FilmError when it does not fit."""
        if self.rle is not None:
            try:
                return rle.union(self.rle, shape)
            except rle.RleError as error:
                raise FilmError("mismatched", str(error)) from error
        if self.mask is None:
            return np.zeros(shape, bool)
        mask = _grey(self.mask)
        if mask.shape != shape:
            raise FilmError("mismatched", f"mask of {mask.shape[1]} x {mask.shape[0]} px, film of {shape[1]} x {shape[0]}")
        return mask > 127


def as_secondary_capture(grey: NDArray[np.uint8], name: str, patient: str) -> Dataset:
    """A picture (H, W) uint8, lungs dark, as Secondary Capture (PS3.3 A.8.1) without window and pixel spacing."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SecondaryCaptureImageStorage
    uids = [f"2.25.{uuid.uuid5(UID_NAMESPACE, f'{what} {patient} {name}').int}" for what in ("instance", "series", "study")]
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = uids
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.Modality, ds.ConversionType, ds.BodyPartExamined = "CR", "WSD", "CHEST"
    ds.PatientID, ds.PatientName = patient, ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = grey.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = grey.tobytes() + b"\0" * (grey.size % 2)
    ds["PixelData"].VR = "OB"
    return ds


def _grey(path: Path) -> NDArray[np.uint8]:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise FilmError("unreadable", f"{path.name} cannot be read ({type(error).__name__})") from error
    picture = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if data.size else None
    if picture is None:
        raise FilmError("unreadable", f"{path.name} cannot be decoded as a picture")
    return np.asarray(picture, dtype=np.uint8)
