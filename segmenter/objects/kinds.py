"""The kinds of objects of a finding. A kind is a role, and a variant where destinations differ. UIDs are derived from (film,
content, model, role, variant), so two variants are two objects and never two versions of one."""

from __future__ import annotations

from enum import StrEnum

SOP_CLASSES = {
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",
    "sr": "1.2.840.10008.5.1.4.1.1.88.33",
    "capture": "1.2.840.10008.5.1.4.1.1.7",
    "presentation": "1.2.840.10008.5.1.4.1.1.11.1",
}  # by role


def kind_of(role: str, variant: str) -> str:
    """The value of the ObjectKind, also for one that this version does not know."""
    return f"{role}-{variant}" if variant else role


class ObjectKind(StrEnum):
    """The value is "role" or "role-variant"; the order is the order of sending."""

    SEG = "seg"
    SEG_POSITIONED = "seg-positioned"  # with a plane position, without which dcmqi (3D Slicer) opens no SEG
    SR = "sr"  # refers to SEG
    SR_POSITIONED = "sr-positioned"  # refers to SEG_POSITIONED
    SR_ALONE = "sr-alone"  # for a destination that gets no SEG
    CAPTURE = "capture"
    PRESENTATION = "presentation"

    @property
    def role(self) -> str:
        """seg, sr, capture or presentation."""
        return self.value.partition("-")[0]

    @property
    def variant(self) -> str:
        """positioned, alone or ""."""
        return self.value.partition("-")[2]

    @property
    def segmentation(self) -> ObjectKind | None:
        """The SEG that this kind refers to, None for none."""
        return {ObjectKind.SR: ObjectKind.SEG, ObjectKind.SR_POSITIONED: ObjectKind.SEG_POSITIONED}.get(self)


DEFAULT = (ObjectKind.SEG, ObjectKind.SR)


def kinds_for(objects: tuple[str, ...]) -> tuple[ObjectKind, ...]:
    """The kinds for a destination with these `objects`, in the order of sending; its SR refers to the SEG that it also gets.
    Raises ValueError for an unknown name."""
    wanted = {ObjectKind(one) for one in objects}
    if ObjectKind.SR in wanted:
        wanted.remove(ObjectKind.SR)
        refers = {ObjectKind.SEG: ObjectKind.SR, ObjectKind.SEG_POSITIONED: ObjectKind.SR_POSITIONED}
        wanted.add(next((report for seg, report in refers.items() if seg in wanted), ObjectKind.SR_ALONE))
    return tuple(kind for kind in ObjectKind if kind in wanted)
