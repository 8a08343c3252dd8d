"""The model card, written from the manifest, so that the two can not tell different figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS = (
    ("mean_positive_dice", "mean Dice of positive films, a miss counts 0 (`mean_positive_dice`)"),
    ("pooled_dice", "Dice of all pixels together (`pooled_dice`)"),
    ("pooled_iou", "IoU of all pixels together (`pooled_iou`)"),
    ("kaggle_dice", "mean Dice of all films, 1 when both are empty (`kaggle_dice`)"),
    ("tp_dice", "mean Dice of the films found (`tp_dice`)"),
    ("auroc", "AUROC of the image probability (`auroc`)"),
    ("average_precision", "average precision (`average_precision`)"),
    ("sensitivity", "sensitivity at the operating point (`sensitivity`)"),
    ("specificity", "specificity at the operating point (`specificity`)"),
    ("ece", "calibration error of the image probability (`ece`)"),
)
TARGETS = {
    "mean_positive_dice": 0.75, "pooled_dice": 0.80, "auroc": 0.97, "sensitivity": 0.93, "specificity": 0.93,
}  # fmt: skip


def card(manifest: Mapping[str, Any]) -> str:
    """Markdown. `manifest`: the JSON object of the artifact; with metrics.exam, the figures of the exam are
    shown."""
    network, size = manifest["network"], manifest["input"]["size"]
    head = f"""# {manifest["name"]} {manifest["version"]}

**Demonstration model. NOT FOR CLINICAL USE.** It has seen synthetic phantoms only, never a patient's film,
and nobody has measured it on patients. It shows that films go in and segmentations come out; its answers
about real films mean nothing.

- What it is: U-Net with encoder {network["encoder"]} and an image-level head, {size} x {size} px, one grey
  channel.
- Task: outline the air of a pneumothorax on a frontal chest film, and say whether there is one.
- Trained on: {manifest["data"]["train"]}; {manifest["data"]["description"]}.
- Thresholds and temperature from: {manifest["data"]["validation"]}.
- Recipe `{manifest["recipe"]}` (`train/recipes/{manifest["recipe"]}.toml`), seed {manifest["seed"]}, commit
  `{manifest["commit"][:12]}`, phantom generator `{manifest["generator_sha256"][:16]}`.
- Made by `python -m train fit`, then `export`, then `evaluate`.

## Operating points

| name | image threshold | mask threshold | smallest component |
|---|---|---|---|
"""
    points = "".join(
        f"| {name}{' (default)' if name == manifest['operating_point'] else ''} | {p['image_threshold']} | "
        f"{p['mask_threshold']} | {p['min_area_mm2']:g} mm2, or {p['min_area_px']} px of the model's grid |\n"
        for name, p in manifest["operating_points"].items()
    )
    return head + points + _exam(manifest["metrics"].get("exam")) + LIMITS


def _exam(exam: Mapping[str, Any] | None) -> str:
    if not exam:
        return "\n## Exam\n\nNot taken yet.\n"
    areas, frozen = exam["by_area"], "yes" if exam["frozen"] else "NO"
    text = f"""
## Exam

{exam["films"]} held-out phantoms ({exam["positives"]} with pneumothorax) sent as DICOM objects through
decoding, placement, network and mask: not square, 1,500 to 3,000 px, MONOCHROME1 and 2, 8 to 16 bits, shifted
windows. Seeds and generator were fixed by hash before the training (`train/exam.sha256`; still the same:
{frozen}).
Measured with `{exam["command"]}`. Answers refused or skipped: {exam["unanswered"]}.

| figure | all | target | {" | ".join(f"{n} third" for n in areas)} |
|---|---|---|{"---|" * len(areas)}
"""
    for name, words in ROWS:
        target = f">= {TARGETS[name]}" if name in TARGETS else ""
        text += f"| {words} | {exam[name]} | {target} | {' | '.join(str(a[name]) for a in areas.values())} |\n"
    short = [name for name, target in TARGETS.items() if exam[name] is None or exam[name] < target]
    text += "\nEach third is of the positives by area, beside all negatives. "
    text += f"Short of the target: {', '.join(short)}.\n" if short else "All targets are met.\n"
    base = exam["baseline"]
    return text + (
        f"A baseline without learning (the best of {base['thresholds']} grey thresholds, "
        "largest dark component) "
        f"reaches `mean_positive_dice` {base['mean_positive_dice']}.\n"
    )


LIMITS = """
## Limits

- Phantoms are simpler than people: no surgical emphysema, no old scars, few devices, adults only, frontal
  only.
- Lesion sizes and sites follow the SIIM-ACR masks; other diseases do not follow anything.
- On real films expect false alarms and misses of any size. The node writes "DEMO - NOT FOR CLINICAL USE"
  into all that this model makes, and sends it to no other machine unless told to.
"""
