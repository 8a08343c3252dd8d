"""The model card, written from the manifest, so that both have the same figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.report.tables import figures_table, published_table

MEASURED = ("sensitivity", "specificity", "mean_positive_dice", "kaggle_dice")
TARGETS = {"mean_positive_dice": 0.80, "pooled_dice": 0.85, "auroc": 0.98, "ece": 0.05}  # of the exam


def card(manifest: Mapping[str, Any]) -> str:
    """MODEL_CARD.md as Markdown. `manifest`: the JSON object of the artifact, with the figures of calibration and evaluations
    in `metrics`."""
    demo = manifest["intended_use"] == "demo"
    return "".join(
        [
            f"# {manifest['name']} {manifest['version']}\n\n",
            DEMO if demo else RESEARCH,
            _what(manifest),
            _data(manifest["data"]),
            _points(manifest),
            *(_evaluation(name, report) for name, report in manifest["metrics"].get("evaluations", {}).items()),
            LIMITS_OF_DEMO if demo else LIMITS,
        ]
    )


def _what(m: Mapping[str, Any]) -> str:
    network, size, folds, runs = m["network"], m["input"]["size"], m["folds"], m["data"]["runs"]
    members = "one network"
    if len(folds) > 1:
        members = f"{len(folds)} networks, one for each of the folds {folds}, their predictions averaged"
    flips = ", each averaged with the mirrored film" if m["flips"] else ""
    channels = network["in_channels"]
    trained = [f"fold {r['fold']}, {r['steps']} steps, best at {r['best_step']}, commit `{r['commit'][:12]}`" for r in runs]
    lines = [
        "Task: outline the air of a pneumothorax on a frontal chest film, and say whether there is one.",
        f"U-Net with encoder {network['encoder']} and an image-level head, {size} x {size} px, {channels} grey channel; "
        f"{members}{flips}.",
        f"Recipe `{m['recipe']}`, seed {m['seed']}; runs: {'; '.join(trained)}.",
        f"Started from: {m['data']['start']}.",
    ]
    return "".join(f"- {line}\n" for line in lines)


def _data(data: Mapping[str, Any]) -> str:
    left_out = ", ".join(f"{count} {kind}" for kind, count in data["left_out"].items() if count) or "none"
    strata = ", ".join(f"{count} {kind}" for kind, count in data["strata"].items())
    return f"""
## Data

{data["description"]} {data["films"]} films of {data["patients"]} patients: {strata} (by area, thirds of the positives). Left
out: {left_out}. {data["folds"]} folds by {data["split"]}; `folds_sha256` {data["folds_sha256"][:16]}, `index_sha256`
{data["index_sha256"][:16]}.
"""


def _points(m: Mapping[str, Any]) -> str:
    found = m["metrics"]["out_of_fold"]
    apart = m["data"]["split"] == "patient"
    films = f"films of a data set of their own ({found['on']})" if found["on"] else "out-of-fold films"
    network = (
        "has not seen its patient"
        if apart or found["on"]
        else "has not seen it; but it may have seen another film of the same patient"
    )
    text = f"""
## Operating points

Chosen on {found["films"]} {films} ({found["positives"]} positive), each predicted by a network that {network}:
AUROC {found["auroc"]}, calibration error {found["ece"]}, temperature {found["temperature"]}.

| name | image threshold | mask threshold | smallest region | sensitivity | specificity | `mean_positive_dice` | `kaggle_dice` |
|---|---|---|---|---|---|---|---|
"""
    for name, p in m["operating_points"].items():
        of = found["figures"].get(name)
        measured = [f"{of[k]:.4f}" if of else "" for k in MEASURED]
        default = " (default)" if name == m["operating_point"] else ""
        floor = f"{p['min_area_mm2']:g} mm2, or {p['min_area_px']:g} px of the grid"
        text += f"| {name}{default} | {p['image_threshold']:g} | {p['mask_threshold']:g} | {floor} | {' | '.join(measured)} |\n"
    if not found["sensitivity_met"]:
        text += "\n`clinical` asks for a sensitivity of .95; no threshold reached it on these films.\n"
    return text + "\n`published` exists to compare with the published figures only; it is never served.\n"


def _evaluation(name: str, report: Mapping[str, Any]) -> str:
    exam = name == "exam"
    text = f"\n## Evaluation: {report['source']}\n\n{EXAM if exam else ''}{report['films']} films of {report['patients']} "
    text += f"patients, {report['positives']} with pneumothorax, operating point `{report['operating_point']}`; "
    text += f"refused or skipped: {sum(report['unanswered'].values()) or 'none'}. Measured with `{report['command']}`.\n\n"
    text += figures_table(report, TARGETS if exam else {}) + published_table(report)
    text += "\nEach third is of the positives by area, beside all negatives. Intervals: bootstrap by patient.\n"
    text += f"{report['note']}\n" if report.get("note") else ""
    if exam:
        short = [k for k, t in TARGETS.items() if report[k] is None or (report[k] > t if k == "ece" else report[k] < t)]
        text += f"Short of the target: {', '.join(short)}.\n" if short else "All targets are met.\n"
        text += "A baseline without learning (grey threshold, largest dark region) reaches "
        text += f"`mean_positive_dice` {report['baseline']}.\n"
    return text


DEMO = """**Demonstration model. NOT FOR CLINICAL USE.** It has seen synthetic phantoms only, never a patient's film,
and nobody has measured it on patients. It shows that films go in and segmentations come out; its answers
about real films mean nothing.

"""
RESEARCH = """**Research software, not a medical device.** No regulatory body has cleared it. Whoever uses it on patients
answers for it.

"""
EXAM = """Held-out phantoms sent as DICOM objects through decoding, placement, network and mask: not square, 1,500 to 3,000
px, MONOCHROME1 and 2, 8 to 16 bits, shifted windows. The pixels and the truth of every film were checked against the hashes of
the frozen exam (`train/evaluate/exam.sha256`). """
LIMITS_OF_DEMO = """
## Limits

- Phantoms are simpler than people, even the harder ones: adults only, frontal only.
- Lesion sizes and sites follow the SIIM-ACR masks; other diseases do not follow anything.
- On real films expect false alarms and misses of any size. The node writes "DEMO - NOT FOR CLINICAL USE"
  into all that this model makes, and sends it to no other machine unless told to.
"""
LIMITS = """
## Limits

- Adults, frontal films. Lateral films, children and other bodies are skipped where the header tells them.
- Films of other makers, countries and departments than those of the data above may be answered worse; measure before use.
- Small apical pneumothoraces are missed most (see the thirds by area). A negative answer rules nothing out.
- Labels were drawn by radiologists who disagree with each other (two readers: mean Dice about .71 on another data set).
"""
