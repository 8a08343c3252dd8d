"""A film's way: the forward pass, the stages beside it, and accepted to stored."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from apparatus import ROUNDS, Row, row, send
from servers import Node, running_node

from dicom_node.config import Segment
from dicom_node.model import load_model, segment_settings
from dicom_node.standin import StandInPacs
from segmenter import phantom

POSITIVE_SEEDS = (7, 10, 29, 38, 54, 69)  # films that the shipped model answers with a SEG


def inference(scratch: Path) -> Iterator[Row]:
    from segmenter.engine import Segmenter

    film = phantom.film(phantom.draw(1, shape=(2500, 2048), pneumothorax=True), kind="DX", bits=12)
    segmenter = Segmenter(load_model(Segment()), segment_settings(Segment()))
    segmenter.segment([film])
    stages: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        [finding] = segmenter.segment([film])
        for stage, seconds in finding.seconds.items():
            stages.setdefault(stage, []).append(seconds)
    medians = {stage: statistics.median(values) for stage, values in stages.items()}
    forward = medians.pop("predict")
    yield row("inference: forward pass of one film, CPU", forward, "s", "itself", "lower")
    yield row(
        "stages: gate, decode and mask against the forward pass",
        sum(medians.values()) / forward,
        "ratio",
        "forward",
        "lower",
        0.5,
    )


def accept(scratch: Path) -> Iterator[Row]:
    """C-STORE accepted -> SEG stored in the PACS, one 2500x2048 film, idle node."""
    with (
        StandInPacs(scratch / "sink", ae_title="PACS").serving() as pacs,
        running_node(scratch / "accept", ("PACS", pacs.port)) as node,
    ):
        times = [_accept_once(node, pacs, seed) for seed in POSITIVE_SEEDS][1:]  # the first one warms up
    yield row("accept: C-STORE accepted to SEG in the PACS", statistics.median(times), "s", "itself", "lower")


def _accept_once(node: Node, pacs: StandInPacs, seed: int) -> float:
    film = phantom.film(phantom.draw(seed, shape=(2500, 2048), pneumothorax=True), kind="DX", bits=12)
    file = node.folder / f"{seed}.dcm"
    film.save_as(file, enforce_file_format=True)
    send(node.port, "PTXSEG", [file])
    started = time.monotonic()
    node.delivered(film.SOPInstanceUID)
    return time.monotonic() - started
