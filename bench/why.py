"""Rows that miss their target: why, and what was tried. Shown under the table when the row misses in that run."""

from __future__ import annotations

WHY = {
    "ledger: claim + finish, against an empty ledger": (
        "it swings with the disk (0.8 to 3.9 in the rounds of one run). Three runs of this row alone right after: 1.25, 1.26, "
        "1.32; three of the ledger before this one, in turns with them: 1.17, 1.17, 1.19."
    ),
    "inference: torch eager's seconds against ours": (
        "ONNX Runtime is the fastest of the engines here (1.5 to 1.9 over the runs) and at 0.57 of what the cores' matrix "
        "product gives. Tried: shapes fixed in the graph (kept, 5 %), QuickGelu fusion off (9 % slower), NCHWc layout off "
        "(60 % slower), the graph of torch.export (keeps 105 BatchNorms: twice slower), OpenVINO (15 % slower), "
        "torch.compile (60 % slower)."
    ),
    "inference: our seconds against the best peer": (
        "ours is that peer: the same runtime and graph, with scaling before and a sigmoid behind (1 ms). 1.01 in the run "
        "before this one; rounds differ by a third on a machine whose clock is not ours alone."
    ),
    "stages: everything but the forward pass against it": (
        "0.12 s; the forward pass came down from 0.41 to 0.20 s under them. A third of it is the report: 170 datasets of "
        "pure Python in highdicom and pydicom (28 ms to build, 11 to write). Tried and kept: content put in after "
        "highdicom's four walks (half of the report's time), items marked as encoded (3 ms of 14), OpenCV for warps and "
        "components, one copy of the pixels less. Tried in vain: garbage collection off, one heap for all threads and no "
        "returned pages (malloc), together 2 %. Left: the film's sha256 and the pixels' (7 ms each) beside the rest in a "
        "thread, which would help an idle node and no backlog."
    ),
    "backlog: 200 films, films/s against what the forward pass alone allows": (
        "measured in an account of each process' time, both cores quiet: the forward pass alone has both for 0.20 s, which "
        "is 0.40 core seconds; a film of a backlog takes 0.65, of which 0.15 are the worker's other stages, 0.02 to 0.03 "
        "the delivery, 0.03 the demo PACS and this program, and 0.04 idle: 94 % of both cores are at work, and "
        "0.61 is what is left for the forward pass. With a GPU, or with cores to spare, the others cost no time. Tried on "
        "two cores: one film after the other (18 % slower), six films at once (no gain), reading and writing at a "
        "lower priority (slower), two processes with one thread each (14 % faster before each pass had a thread of its own; "
        "now none is left in it), threads of the runtime that do not spin (kept), waking that looks less often while all "
        "children are at work (kept, 1 %)."
    ),
    "gpu: bare bf16 channels_last against eager NCHW fp16": (
        "measured once, in the first minutes on an H100 whose cores were busy with something else; not looked into yet. The "
        "predictor itself computes in float16, channels_last."
    ),
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
