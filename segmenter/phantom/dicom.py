"""A phantom as the DICOM object that a modality would send: DX, CR or Secondary Capture, with a synthetic patient.

Attributes follow PS3.3 A.26 (DX), A.2 (CR) and A.8.1 (SC) as far as dciodvfy checks. Everything follows from the phantom's
seed, UIDs included: the same call gives the same bytes.
"""

from __future__ import annotations

import uuid
from typing import Literal

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from segmenter.phantom.values import Phantom

ImageIOD = Literal["DX", "CR", "SC"]
SOP_CLASSES = {
    "DX": DigitalXRayImageStorageForPresentation,
    "CR": ComputedRadiographyImageStorage,
    "SC": SecondaryCaptureImageStorage,
}
NAMESPACE = uuid.UUID("6f5b3c1e-5d3a-4c8f-9a55-3e0f3f0c7d10")
GIVEN_NAMES = (
    "Ada",
    "Bela",
    "Chandra",
    "Dunya",
    "Emil",
    "Farah",
    "Goran",
    "Hana",
    "Ivo",
    "Jun",
    "Kofi",
    "Lena",
)
STREAM = 1000  # of random numbers, separate from those of the picture


def phantom_dataset(
    phantom: Phantom,
    *,
    kind: ImageIOD = "DX",
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2",
    bits: int = 12,
    stored_range: tuple[float, float] = (0.0, 1.0),
    window: bool = True,
    rescale: tuple[float, float] = (1.0, 0.0),
) -> Dataset:
    """A complete Dataset with File Meta (Explicit VR Little Endian, uncompressed).

    Args:
        bits: Bits Stored, 8 to 16; 8 bits are allocated for 8, else 16. stored_range: the part of the stored
        values that the picture fills, e.g. (0.3, 0.7): a dull film unless windowed. window: write Window
        Center and Width that show exactly that part. A DX is always windowed, as the standard asks. rescale:
        slope and intercept; other than (1, 0) only in CR, which is where the standard has them.

    Raises ValueError for another kind, photometric interpretation or number of bits, or a range outside 0..1.
    """
    low, high = stored_range
    if kind not in SOP_CLASSES or photometric not in ("MONOCHROME1", "MONOCHROME2") or not 8 <= bits <= 16:
        raise ValueError(f"no such film: kind {kind!r}, photometric {photometric!r}, {bits} bits")
    if not 0 <= low < high <= 1 or (rescale != (1.0, 0.0) and kind != "CR"):
        raise ValueError(f"no such film: stored_range {stored_range}, rescale {rescale} on {kind}")
    ds = _patient(phantom, kind)
    top = (1 << bits) - 1
    shown = phantom.image if photometric == "MONOCHROME2" else 1 - phantom.image
    stored = np.round((low + shown * (high - low)) * top).astype(np.uint8 if bits == 8 else np.uint16)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = (
        stored.itemsize * 8,
        bits,
        bits - 1,
        0,
    )
    slope, intercept = rescale
    if kind == "DX" or rescale != (1.0, 0.0):
        ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = f"{slope:g}", f"{intercept:g}", "US"
    if window or kind == "DX":
        # linear function of PS3.3 C.11.2.1.2.1: from c - .5 - (w - 1) / 2 to c - .5 + (w - 1) / 2
        first, last = low * top * slope + intercept, high * top * slope + intercept
        ds.WindowCenter, ds.WindowWidth = f"{(first + last) / 2 + 0.5:.6g}", f"{last - first + 1:.6g}"
    if kind == "DX":
        ds.PresentationLUTShape = "IDENTITY" if photometric == "MONOCHROME2" else "INVERSE"
        ds.PixelIntensityRelationship = "LOG"
        ds.PixelIntensityRelationshipSign = -1 if photometric == "MONOCHROME2" else 1
    ds.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    return ds


def _uid(phantom: Phantom, kind: str, what: str) -> UID:
    contents = f"{phantom.pneumothorax} {sorted(phantom.distractors)}"
    name = f"{what} {kind} {phantom.seed} {phantom.image.shape} {contents}"
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, name).int}")


def _patient(phantom: Phantom, kind: ImageIOD) -> Dataset:
    """Everything but the pixels."""
    rng = np.random.default_rng([phantom.seed, STREAM])
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = SOP_CLASSES[kind]
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = _uid(phantom, kind, "instance")
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(phantom, kind, "study"), _uid(phantom, kind, "series")
    ds.SpecificCharacterSet = "ISO_IR 192"
    date = f"20{rng.integers(20, 26)}{rng.integers(1, 13):02}{rng.integers(1, 29):02}"
    time = f"{rng.integers(0, 24):02}{rng.integers(0, 60):02}{rng.integers(0, 60):02}"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = time
    ds.PatientName = f"Phantom^{GIVEN_NAMES[int(rng.integers(len(GIVEN_NAMES)))]} {phantom.seed}"
    ds.PatientID, ds.PatientSex = f"PHANTOM-{phantom.seed}", str(rng.choice(["F", "M"]))
    ds.PatientBirthDate = f"{int(date[:4]) - 60 + int(rng.integers(0, 40))}0101"
    ds.AccessionNumber, ds.StudyID = f"PH{phantom.seed % 10**10:010}", str(phantom.seed % 10**12)
    ds.ReferringPhysicianName, ds.StudyDescription = "", "Synthetic chest film"
    ds.Manufacturer, ds.ManufacturerModelName = "Synthetic", "Phantom"
    ds.SeriesNumber, ds.InstanceNumber, ds.SeriesDescription = 1, 1, "Chest frontal"
    ds.PatientOrientation, ds.BodyPartExamined = ["L", "F"], "CHEST"
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    spacing = [f"{phantom.spacing_mm:.6g}"] * 2
    if kind == "SC":
        ds.Modality, ds.ConversionType, ds.ImageType = "CR", "DF", ["DERIVED", "SECONDARY"]
        ds.PixelSpacing, ds.PatientOrientation = spacing, ["L", "F"]
        return ds
    ds.ImageType = ["ORIGINAL", "PRIMARY"] + ([""] if kind == "DX" else [])
    ds.Modality, ds.ViewPosition = kind, str(rng.choice(["PA", "AP"]))
    ds.ImagerPixelSpacing, ds.KVP, ds.Exposure = spacing, str(rng.choice([90, 110, 125])), "3"
    if kind == "DX":
        _digital_xray(ds)
    return ds


def _digital_xray(ds: Dataset) -> None:
    """The elements that a DX needs beyond a CR: intent (PS3.3 C.8.11.1), anatomy (C.8.11.2), detector (C.8.11.4), acquisition
    context."""
    ds.PresentationIntentType, ds.ImageLaterality = "FOR PRESENTATION", "U"
    ds.AcquisitionContextSequence, ds.DetectorType = [], "DIRECT"
    ds.AnatomicRegionSequence = [_code("43799004", "SCT", "Thoracic cavity structure")]
    ds.ViewCodeSequence = [
        _code("399348003", "SCT", "Antero-posterior projection")
        if ds.ViewPosition == "AP"
        else _code("272460009", "SCT", "Postero-anterior projection")
    ]
    ds.ViewCodeSequence[0].ViewModifierCodeSequence = []
    ds.PositionerType = "COLUMN"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "0", "1"


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item
