"""Figures as Markdown tables, for report.md and for the model card."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROWS = {
    "mean_positive_dice": "mean Dice of positive films, a miss counts 0",
    "tp_dice": "mean Dice of the films found",
    "kaggle_dice": "mean Dice of all films, 1 when both are empty",
    "pooled_dice": "Dice of all pixels together at 512",
    "pooled_iou": "IoU of all pixels together at 512",
    "pooled_precision": "precision of all pixels together at 512",
    "pooled_recall": "recall of all pixels together at 512",
    "auroc": "AUROC of the image probability",
    "average_precision": "average precision of the image probability",
    "sensitivity": "sensitivity at the operating point",
    "specificity": "specificity at the operating point",
    "ece": "calibration error of the image probability",
}
# PTX-498, U-Net with EfficientNet-B4 at 512, all 498 films (positives) as one vector.
PUBLISHED_FIGURES = {"pooled_dice": 0.8241, "pooled_iou": 0.7008, "pooled_precision": 0.9269, "pooled_recall": 0.7418}


def figures_table(report: Mapping[str, Any], targets: Mapping[str, float]) -> str:
    """One row per figure: all films with their 95 % interval, the target if there is one, thirds by area, sites."""
    parts = {f"{name} third": part for name, part in report["by_area"].items()} | dict(report.get("by_site", {}))
    text = f"| figure | all | 95 % interval | {'target | ' if targets else ''}{' | '.join(parts)} |\n"
    text += "|---" * (3 + bool(targets) + len(parts)) + "|\n"
    for name, words in ROWS.items():
        low_high = report.get("intervals", {}).get(name)
        interval = "" if low_high is None else f"{low_high[0]:.3f} to {low_high[1]:.3f}"
        target = (
            ([f">= {targets[name]}" if name != "ece" else f"<= {targets[name]}"] if name in targets else [""])
            if targets
            else []
        )
        cells = [_figure(report[name]), interval, *target, *(_figure(part[name]) for part in parts.values())]
        text += f"| {words} (`{name}`) | {' | '.join(cells)} |\n"
    return text


def published_table(report: Mapping[str, Any]) -> str:
    """The figures that were measured as the published ones were, beside those; "" without any."""
    ours = report.get("published")
    if not ours:
        return ""
    reference = report["source"] == "PTX-498"
    text = f"\nMeasured as the published figures were ({ours['films']} positive films, squashed to 512 x 512, no image gate, "
    text += "threshold .05, no floor, all pixels as one vector):\n\n"
    text += f"| figure | this model |{' published |' if reference else ''}\n|---|---|{'---|' if reference else ''}\n"
    for name, theirs in PUBLISHED_FIGURES.items():
        text += f"| `{name}` | {_figure(ours[name])} |{f' {theirs} |' if reference else ''}\n"
    return text + (
        "" if reference else "\nThe published figures are of PTX-498, other films: they do not stand beside these.\n"
    )


def markdown(report: Mapping[str, Any]) -> str:
    """report.md."""
    model = report["model"]
    text = f"# {report['source']}\n\nModel {model['name']} {model['version']}, weights `{model['weights_sha256'][:16]}`, "
    text += f"operating point `{report['operating_point']}`. {report['films']} films of {report['patients']} patients, "
    text += f"{report['positives']} with pneumothorax. Intervals: bootstrap by patient. "
    text += f"Unanswered: {_counted(report['unanswered'])}. Unusable: {len(report['unusable'])}.\n\n"
    text += f"{report['note']}\n\n" if report["note"] else ""
    return (
        text
        + figures_table(report, {})
        + "\nEach third is of the positives by area, beside all negatives.\n"
        + published_table(report)
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _counted(found: Mapping[str, int]) -> str:
    return ", ".join(f"{code} {count}" for code, count in found.items()) or "none"
