"""Rows that miss their target: why, and what was tried. Shown under the table when the row misses in that run."""

from __future__ import annotations

WHY = {
    "inference: torch eager's seconds against ours": "ONNX Runtime is the fastest of the engines here; 1.9 was the most that "
    "was seen with both cores idle. Tried: shapes fixed in the graph (kept, 5 %), QuickGelu fusion off (9 % slower), NCHWc "
    "layout off (60 % slower), the graph of torch.export (keeps 105 BatchNorms: twice slower), OpenVINO (15 % slower), "
    "torch.compile (60 % slower).",
    "backlog: 200 films, films/s against what the forward pass alone allows": "the forward pass alone has both cores; "
    "here reading, writing, delivery and the stand-in for the PACS want them too, 0.2 to 0.3 core seconds a film beside the "
    "0.45 of the forward pass: two cores can not do much better than 0.65. With a GPU, or with cores to spare, they cost no "
    "time. Tried on two cores: one film after the other (18 % slower), two processes with one thread each (14 % faster than "
    "one with two, but an idle node answers in twice the time: `work.processes = 2`, `segment.threads = 1` where backlogs "
    "matter more), six films on the bench (no gain), reading and writing at a lower priority (slower), threads of the runtime "
    "that do not spin (10 % faster, the forward pass of an idle node 8 % slower).",
}


def explained(rows: list[dict]) -> str:
    """Markdown about the rows that miss; empty when none does."""
    missed = [one["name"] for one in rows if misses(one)]
    if not missed:
        return ""
    lines = [f"- **{name}**: {WHY.get(name, 'not looked into yet.')}" for name in missed]
    return "\n## Misses its target\n\n" + "\n".join(lines) + "\n"


def misses(one: dict) -> bool:
    if one["target"] is None or one["value"] is None:
        return False
    return bool(one["value"] < one["target"] if one["better"] == "higher" else one["value"] > one["target"])
