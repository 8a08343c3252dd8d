"""Pictures that were made from a film: bone suppressed, dual-energy bone and soft tissue, subtraction, tomosynthesis, another
software's result. They are sent together with the film that they were made from, and the model was never measured on them: only
the film is answered. The usual ImageType of a processed DX or CR (DERIVED, PRIMARY) does not make it such a picture.
"""

from __future__ import annotations

import re

from pydicom.dataset import Dataset

from segmenter.film.header import items, normalised, text, words

_WRITTEN = (
    "SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription", "AcquisitionDeviceProcessingCode",
    "DerivationDescription",
)  # fmt: skip

# PS3.16 CID 7203: pixel by pixel mask, subtraction, division, maximum, minimum and multiplication, segmentation, reformatting
# and rendering, multi-energy weighting; material suppressed. Not smoothing, sharpening, resampling and compression.
_DERIVATIONS = {
    "113046", "113047", "113048", "113051", "113053", "113062", "113072", "113073", "113074", "113075", "113076", "113077",
    "113078", "113079", "113093", "113097", "129326",
}  # fmt: skip
_BONE = r"(?:BONES?|RIBS?|OSE[AO]|HUESOS?|OSSEUSE|OSSE[AO]|OSSOS|KNOCHEN|RIPPEN|KOSCI)"
_SHADOWS = (  # without bones, without soft tissue, or the difference of two films
    rf"{_BONE}[ -]?(?:SUPPR|SUPRES|SOPPR|UNTERDR|SUBTR|REMOV|REDUC|ELIMIN|SELECT|ENHANC|ONLY|IMAGE|IMG|BILD|FREE|LESS|FREI)",
    rf"(?:SUPPRE\w*|SUPRES\w*|SOPPRES\w*|SUBTRA\w*|IMAGE|WITHOUT|MINUS) (?:OF )?(?:DE )?{_BONE}\b|\bBONE ?SUP",
    r"(?:CHEST|THORAX|TORAX|CXR|\bPA|\bAP|ENERGY)\b.*\bBONE$|\b(?:DE|ES|E\.S\.|ENERGYSUB)[ -](?:BONE|SOFT|TISSUE)\b|\bBSI\b",
    r"CLEARREAD|SOFTVIEW",
    r"SOFT ?-?TISSUE|SOFT ?-?PARTS|SUBTRACT|SUBTRAKT|SOUSTRACTION|SUSTRACCION|SOTTRAZ|DIFFERENCE IMAGE|MATERIAL SUPPRESSED",
    r"WEICHTEIL|TISSUS MOUS|PARTES (?:BLANDAS|MOLES)|TESSUTI MOLLI|WEKE ?DELEN|TKANK\w* MIEK|YUMUSAK DOKU|MJUKDEL",
    r"骨抑制|骨除去|骨减影|骨組織|骨组织|骨像|軟部|软组织|サブトラクション|差分|减影|减骨|双能|뼈 ?억제|연부",
)
_LAYERS = (r"TOMOS[IY]NT|\bTOMO\b|TOMOGR|\bDTS\b|VOLUMERAD|\b(?:MIP|MPR|DRR|MINIP)\b|断層|断层|トモシンセシス|단층",)
_RESULTS = (
    r"HEAT ?-?MAP|SALIENCY|GRAD ?-?CAM|(?:ATTENTION|ACTIVATION|PROBABILITY|ABNORMALITY|COLOU?R) ?-?MAP|SEGMENTATION",
    r"(?<!NO )(?<!WITHOUT )\bOVERLAY|\bANNOTATED\b|SCREEN ?-?(?:SHOT|SAVE|CAP)|(?<!FOR )\bCAD[EX]?\b",
    r"\b[AK]I ?-?(?:BEFUND|ERGEBNIS)",
    r"\bA\.?I\.?\b.*\b(?:RESULT|REPORT|OUTPUT|FINDING|ANALY|DETECT|TRIAGE|SECONDARY|CAPTURE|SUMMARY)",
    r"\b(?:RESULT|REPORT|OUTPUT|FINDING|ANALYSIS|DETECTION)S?\b.*\bA\.?I\b|热力图|ヒートマップ|히트맵",
)
_COMPANIONS = (  # a second processing of the same film
    r"COMPANION (?:VIEW|IMAGE)|\b(?:TUBE|LINE|CATHETER|PTX|PNEUMOTHORAX|NODULE)\w*\b.{0,12}\b(?:VISUALI|ENHANCE|ACCENTUAT)",
)
_DERIVED = re.compile("|".join((*_SHADOWS, *_LAYERS, *_RESULTS, *_COMPANIONS)))
_IMAGE_TYPES = re.compile(
    r"\b(?:BONES?|SOFT|TISSUE|SOFTTISSUE|A\.?I|CAD|RESULTS?|TOMO|SUB|SUBTRACTED|HEATMAP|OVERLAY|VOLUME|DUAL ENERGY LOW)\b"
)
# Vendors and products that read chest films: what they send is their result.
_READERS = re.compile(
    r"\b(?:LUNIT|QURE|QXR|OXIPIT|CHESTLINK|CHESTEYE|ANNALISE|GLEAMER|AIDOC|RIVERAIN|INFERVISION|INFERREAD|VUNO|DEEPTEK|MILVUE"
    r"|AZMED|RAYVOLVE|BEHOLD\.?AI|RAYSCAPE|DEEPNOID|CAREBOT|ARTERYS|ZEBRA MEDICAL|ENLITIC|CONTEXTFLOW|ICOMETRIX|HARRISON\.?AI"
    r"|CRITICAL CARE SUITE|RADIOBOTICS|AI ?-?RAD COMPANION|CAD4TB|DRAID|CXR-?AID)\b"
)
_DUAL_ENERGY = re.compile(
    r"DUAL ?-?ENERG|ZWEI ?-?ENERG|DOPPEL ?-?ENERG|DOUBLE ?-?ENERG|ENERGIA DUAL|DOPPIA ENERG|エネルギー|\bDE[ -]ST(?:D|ANDARD)\b"
)
_STANDARD = re.compile(r"\b(?:STD|STANDARD|HIGH|COMPOSITE|ORIGINAL)\b")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def is_derived(dataset: Dataset) -> bool:
    """Whether the header declares a picture that was made from a film (ImageType, PS3.3 C.7.6.1.1.2; DerivationCodeSequence,
    PS3.16 CID 7203; descriptions)."""
    texts = [normalised(text(dataset, keyword)) for keyword in _WRITTEN]
    kinds = normalised(" | ".join(words(dataset, "ImageType")[2:]))
    derivations = items(dataset, "DerivationCodeSequence")
    meant = [normalised(text(one, "CodeMeaning")) for one in derivations]
    coded = {text(one, "CodeValue") for one in derivations} & _DERIVATIONS
    named = any(_DERIVED.search(one) for one in (*texts, *meant, normalised(" | ".join(words(dataset, "ImageType")))))
    if text(dataset, "SOPClassUID").startswith(_SECONDARY_CAPTURE):
        named = named or any(re.search(r"\bA\.?I\b", one) for one in texts)
    return bool(coded or named or _IMAGE_TYPES.search(kinds) or _by_reader(dataset, texts) or _half_energy(texts, kinds))


def is_dual_energy(dataset: Dataset) -> bool:
    """Whether a film belongs to a dual-energy acquisition, whose standard image is answered like any film."""
    texts = [normalised(text(dataset, keyword)) for keyword in _WRITTEN]
    return any(_DUAL_ENERGY.search(one) for one in (*texts, normalised(" | ".join(words(dataset, "ImageType")))))


def _by_reader(dataset: Dataset, texts: list[str]) -> bool:
    """Whether the manufacturer, the model or a description names software that reads films."""
    makers = [normalised(text(dataset, keyword)) for keyword in ("Manufacturer", "ManufacturerModelName")]
    return any(_READERS.search(one) for one in (*makers, *texts))


def _half_energy(texts: list[str], kinds: str) -> bool:
    """Whether it is the low-energy exposure, or a bone, soft tissue or water picture, of a dual-energy acquisition."""
    everything = " | ".join((*texts, kinds))
    if not _DUAL_ENERGY.search(everything) or _STANDARD.search(everything):
        return False
    return bool(re.search(r"\bLOW\b|\bBONE\b|\bSOFT\b|\bTISSUE\b|\bWATER\b", everything))
