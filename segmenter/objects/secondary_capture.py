"""A finding -> a Secondary Capture with the outline burned in (PS3.3 A.8.1), for PACS that show no other object."""

from __future__ import annotations

from highdicom.sc import ConversionTypeValues, SCImage
from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from segmenter.objects.common_header import ObjectContext
from segmenter.objects.picture import captions, picture
from segmenter.values import Finding

LONGEST_SIDE = 1250  # px; a whole film in colour would be 22 MB


def build_capture(finding: Finding, context: ObjectContext) -> FileDataset:
    """The picture of one film, whatever the answer: uint8 RGB, longer side of the film at most 1,250 px, with captions below
    it. It has no pixel spacing, so that nothing is measured on it. Raises ValueError for a finding without a decision."""
    words, header = context.words, context.header
    below = captions(finding, words, demo=context.identity.demo)
    capture = SCImage(
        pixel_array=picture(finding, LONGEST_SIDE, below),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=header.StudyInstanceUID,
        # Replaced by the film's own value: highdicom accepts fewer values than occur.
        patient_orientation=("L", "F"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **context.common_arguments,
    )
    capture.ConversionType = ConversionTypeValues.WSD.value
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.Modality, capture.BodyPartExamined = "OT", "CHEST"
    capture.BurnedInAnnotation = "YES"
    capture.DerivationDescription = words.notice
    film = Dataset()
    film.ReferencedSOPClassUID, film.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    capture.SourceImageSequence = Sequence([film])
    return context.as_file(capture, image=True)
