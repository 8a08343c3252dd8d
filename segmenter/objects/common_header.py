"""The common header of our objects: study and patient of the film as the bytes they arrived in, series, equipment, File Meta.

highdicom builds from a minimal header, so that no bad value of the film can stop it; the film's elements are copied afterwards.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom.charset import convert_encodings, default_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from segmenter.equipment import MANUFACTURER, MODEL_NAME
from segmenter.film.header import for_reading, is_uid, items, text
from segmenter.model.artifact import LO_CHARACTERS
from segmenter.model.identity import ModelIdentity
from segmenter.objects import codes
from segmenter.objects.kinds import SOP_CLASSES, ObjectKind
from segmenter.objects.sentences import WORDS, Words
from segmenter.objects.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, result_uid, series_uid
from segmenter.settings import Settings

_ANY_WORDS = "Pneumothorax, found by artificial intelligence"
# Type 2 of the Patient and General Study modules: present, possibly empty (PS3.3 C.7.1.1, C.7.2.1).
_ALWAYS = (
    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate",
    "PatientSex", "StudyID",
)  # fmt: skip
_IF_THERE = (
    "SpecificCharacterSet", "StudyDescription", "IssuerOfPatientID", "PatientBirthTime", "PatientAge",
    "PatientSize", "PatientWeight", "EthnicGroup", "PatientIdentityRemoved", "DeidentificationMethod",
    "StudyInstanceUID",
)  # fmt: skip
_MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.7.2", "1.2.840.10008.5.1.4.1.1.7.3")  # secondary captures, byte and word
_SERIES_OFFSET = {"seg": 0, "sr": 1, "capture": 2, "presentation": 3}


@dataclass(frozen=True)
class ObjectContext:
    """What an object is built from: the film, the model and the kind of object.

    `source`: the film's dataset, whose values are never read, so that its elements keep the bytes they arrived in; `view`: the
    same for reading values; `header`: a minimal header for highdicom, which asks for a source image.
    """

    kind: ObjectKind
    source: Dataset
    view: Dataset
    header: Dataset
    content_sha256: str
    identity: ModelIdentity
    revision: int
    settings: Settings

    @classmethod
    def of(
        cls, kind: ObjectKind, source: Dataset, content_sha256: str, identity: ModelIdentity, revision: int, settings: Settings
    ) -> ObjectContext:
        """The context with `view` and `header` of `source`."""
        view = for_reading(source)
        return cls(kind, source, view, source_header(view), content_sha256, identity, revision, settings)

    @property
    def words(self) -> Words:
        """The sentences in the site's language."""
        return WORDS[self.settings.language]

    @property
    def sop_instance_uid(self) -> str:
        """The SOP Instance UID, derived from film, content, model and kind."""
        return result_uid(*self._names(self.kind))

    @property
    def common_arguments(self) -> dict[str, Any]:
        """The arguments that every highdicom object needs."""
        return {
            "series_instance_uid": series_uid(*self._names(self.kind)),
            "series_number": self.settings.series_number + _SERIES_OFFSET[self.kind.role],
            "sop_instance_uid": self.sop_instance_uid,
            "instance_number": 1,
            "manufacturer": MANUFACTURER,
        }

    @property
    def equipment(self) -> dict[str, Any]:
        """The arguments of highdicom objects with Enhanced General Equipment (PS3.3 C.7.5.2)."""
        return {
            "manufacturer_model_name": MODEL_NAME,
            "software_versions": f"{self.identity.name} {self.identity.version}"[:LO_CHARACTERS],
            "device_serial_number": self.identity.digest,
        }

    def header_of(self, kind: ObjectKind) -> Dataset:
        """A header of another object of the same film, to refer to it."""
        other = deepcopy(self.header)  # Dataset(header) would share its elements
        other.SOPClassUID, other.SOPInstanceUID = SOP_CLASSES[kind.role], result_uid(*self._names(kind))
        other.SeriesInstanceUID = series_uid(*self._names(kind))
        return other

    def uid_parts(self, *names: str) -> tuple[str, ...]:
        """The parts from which a UID inside this object is derived."""
        return (*self._names(self.kind), *names)

    def _names(self, kind: ObjectKind) -> tuple[str, str, str, str, str]:
        return (str(self.header.SOPInstanceUID), self.content_sha256, self.identity.digest, kind.role, kind.variant)

    def as_file(self, made: Dataset, *, image: bool) -> FileDataset:
        """The object as a DICOM file with series, equipment, and the film's own elements. `image`: with PatientOrientation,
        too."""
        made.SeriesDescription = series_description(self.identity, self.revision)
        stated = "PresentationCreation" if self.kind.role == "presentation" else "Content"
        made.SeriesDate, made.SeriesTime = made[f"{stated}Date"].value, made[f"{stated}Time"].value
        made.Manufacturer, made.ManufacturerModelName = MANUFACTURER, MODEL_NAME
        made.SoftwareVersions = str(self.equipment["software_versions"])
        made.DeviceSerialNumber = self.identity.digest
        made.ContributingEquipmentSequence = Sequence([self._processing()])
        if (own := text(self.view, "SOPClassUID")) != self.header.SOPClassUID:
            _name_the_class(made, str(self.header.SOPInstanceUID), own)
        return _as_file(made, self.source, image)

    def _processing(self) -> Dataset:
        """Our software as contributing equipment (PS3.3 C.12.1.1.5), which PACS that overwrite Manufacturer keep."""
        purpose = Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = codes.PROCESSING_EQUIPMENT[:3]
        one = Dataset()
        one.PurposeOfReferenceCodeSequence = Sequence([purpose])
        one.Manufacturer, one.ManufacturerModelName = MANUFACTURER, MODEL_NAME
        one.SoftwareVersions = str(self.equipment["software_versions"])
        one.DeviceSerialNumber = self.identity.digest
        return one


def series_description(identity: ModelIdentity, revision: int) -> str:
    """SeriesDescription, which the reading list shows: model and version, the demo notice, and "rev 2" for other pixels under a
    used UID. LO, 64 characters (PS3.5 section 6.2)."""
    before = f"{WORDS['en'].demo_notice} " if identity.demo else f"{MODEL_NAME} "
    after = f" {identity.version[:16]}" + (f" rev {revision}" if revision > 1 else "")
    return before + identity.name[: LO_CHARACTERS - len(before) - len(after)] + after


def source_header(source: Dataset) -> Dataset:
    """A header with the elements that highdicom reads from a source image, all of them valid."""
    header = Dataset()
    for keyword in _ALWAYS:
        setattr(header, keyword, "")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(header, keyword, text(source, keyword))
    if header.SOPClassUID in _MULTI_FRAME:  # highdicom would ask for frames; `as_file` restores the film's own class
        header.SOPClassUID = SOP_CLASSES["capture"]
    if is_uid(frame := text(source, "FrameOfReferenceUID")):
        header.FrameOfReferenceUID = frame
    header.Modality = text(source, "Modality") or "OT"
    return header


def _name_the_class(made: Dataset, instance: str, sop_class: str) -> None:
    """Set ReferencedSOPClassUID wherever the film is referred to, at any depth."""
    for element in made:
        if element.VR == "SQ":
            for item in items(made, element.keyword):
                if item.get("ReferencedSOPInstanceUID") == instance:
                    item.ReferencedSOPClassUID = sop_class
                _name_the_class(item, instance, sop_class)


def _as_file(made: Dataset, source: Dataset, image: bool) -> FileDataset:
    """A dataset with our File Meta, and the study and patient elements as the bytes of the source."""
    correct_ambiguous_vr(made, True)
    _items_are_as_written(made)
    file = FileDataset(BytesIO(), dict(made.items()), b"\0" * 128, made.file_meta, False, True)
    file.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    file.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    for keyword in (*_ALWAYS, *_IF_THERE):
        tag = Tag(keyword)
        if tag in source:
            file[tag] = _unchanged(source, tag)
    if image:
        # Type 2C without a known position (PS3.3 C.7.6.1); equal to the film's, because the matrix has the same orientation.
        orientation = Tag("PatientOrientation")
        file[orientation] = _unchanged(source, orientation) if orientation in source else DataElement(orientation, "CS", None)
    # pydicom writes raw elements unchanged only if the character set is the original one.
    file.set_original_encoding(False, True, _character_set(file))
    return file


def _items_are_as_written(made: Dataset) -> None:
    """Declare that every sequence item is encoded as the file will be: else pydicom, writing an item, traverses all its
    elements once more, at each depth (a third of the time of writing a report)."""
    for element in made.elements():
        if element.VR == "SQ":
            for item in made[element.tag].value:
                item.set_original_encoding(False, True, default_encoding)
                _items_are_as_written(item)


def _character_set(file: Dataset) -> str | list[str]:
    """The encodings for pydicom. An invalid SpecificCharacterSet is removed: no reader could use it, and it may even name a
    codec of Python that is no character set."""
    tag = Tag("SpecificCharacterSet")
    if tag not in file:
        return default_encoding
    try:
        named = convert_encodings(file[tag].value)
        if all(_ANY_WORDS.encode(one, "replace") == _ANY_WORDS.encode() for one in named):
            return named
    except (LookupError, UnicodeError, ValueError, TypeError, AttributeError):
        pass
    del file[tag]
    return default_encoding


def _unchanged(source: Dataset, tag: BaseTag) -> RawDataElement | DataElement:
    """The element with the bytes it arrived in, unless its value has been converted."""
    element = source.get_item(tag, keep_deferred=True)
    if not isinstance(element, RawDataElement):
        return element
    value = element.value or b""
    padding = (b"\0" if dictionary_VR(tag) == "UI" else b" ") if len(value) % 2 else b""
    return RawDataElement(tag, dictionary_VR(tag), len(value + padding), value + padding, 0, False, True)
