"""What can be made of one answer. Each kind is a role, and a variant where destinations differ; (film, content, model, role,
variant) derive its UIDs, so two variants are two objects and never two versions of one."""

from __future__ import annotations

from enum import StrEnum

SOP_CLASSES = {
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",
    "sr": "1.2.840.10008.5.1.4.1.1.88.33",
    "capture": "1.2.840.10008.5.1.4.1.1.7",
    "presentation": "1.2.840.10008.5.1.4.1.1.11.1",
}  # by role


def kind_of(role: str, variant: str) -> str:
    """The value of `Kind`, also of one that this program does not know."""
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
        return self.value.partition("-")[0]

    @property
    def variant(self) -> str:
        return self.value.partition("-")[2]

    @property
    def segmentation(self) -> ObjectKind | None:
        """The SEG that this kind refers to."""
        return {ObjectKind.SR: ObjectKind.SEG, ObjectKind.SR_POSITIONED: ObjectKind.SEG_POSITIONED}.get(self)


DEFAULT = (ObjectKind.SEG, ObjectKind.SR)


def kinds_for(objects: tuple[str, ...]) -> tuple[ObjectKind, ...]:
    """What one destination gets: the kinds of its `objects`, its SR being the one that refers to the SEG it also gets."""
    wanted = {ObjectKind(one) for one in objects}
    if ObjectKind.SR in wanted:
        wanted.remove(ObjectKind.SR)
        refers = {ObjectKind.SEG: ObjectKind.SR, ObjectKind.SEG_POSITIONED: ObjectKind.SR_POSITIONED}
        wanted.add(next((report for seg, report in refers.items() if seg in wanted), ObjectKind.SR_ALONE))
    return tuple(kind for kind in ObjectKind if kind in wanted)
