"""The public interface of this package: films in, findings and DICOM objects out.

gate -> decode -> place -> predict -> mask         and from the finding -> SEG, SR, picture, presentation state
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from segmenter.errors import Refused
from segmenter.film.decode import decode
from segmenter.film.gate import SkippedFilm, gate
from segmenter.film.header import for_reading, without_warnings
from segmenter.indeterminate import IndeterminateCode
from segmenter.model.artifact import Artifact
from segmenter.model.body import body_mask
from segmenter.model.identity import ModelIdentity, identify
from segmenter.model.mask import decide, indeterminate_decision
from segmenter.model.placement import Placement
from segmenter.model.predict import Predictor
from segmenter.objects.build import applies, build
from segmenter.objects.kinds import DEFAULT, ObjectKind, kind_of
from segmenter.settings import Settings
from segmenter.values import Finding, Image, Prediction, Radiograph


@dataclass(frozen=True)
class ResultObject:
    """One DICOM object of a result, ready to be written. Its UID is derived from role, variant and the film's identity."""

    role: str  # of `kinds.ObjectKind`
    variant: str
    sop_class_uid: str
    sop_instance_uid: str
    dataset: FileDataset

    @property
    def kind(self) -> ObjectKind:
        """Role and variant as one value."""
        return ObjectKind(kind_of(self.role, self.variant))


@contextmanager
def _single_film(stage: str) -> Iterator[None]:
    """Turns any exception into a Refused of this film, so that the other films of the batch are answered. The sentence names
    the exception's type only: messages of libraries quote header values."""
    try:
        yield
    except (SkippedFilm, Refused):
        raise
    except MemoryError as error:
        raise Refused("out-of-memory", f"There was not enough memory to {stage} this film.") from error
    except Exception as error:
        sentence = f"Unexpected {type(error).__name__} while trying to {stage} this film."
        raise Refused("internal-error", sentence) from error


@dataclass
class Film:
    """One film between the stages `read`, `forward` and `decide` of Segmenter; `finding` is set by the stage that concludes
    it."""

    dataset: Dataset
    finding: Finding | None = None
    radiograph: Radiograph | None = None
    placement: Placement | None = None
    image: Image | None = None  # on the model grid
    prediction: Prediction | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, stage: str, step: Callable[[Film], None]) -> None:
        """Run one stage unless the film is concluded; a failure concludes this film and no other."""
        if self.finding is not None:
            return
        started = time.perf_counter()
        try:
            with _single_film(stage):
                step(self)
        except SkippedFilm as error:
            self.conclude("skipped", error.skip.code, error.skip.sentence)
        except Refused as error:
            self.conclude("failed", error.code, error.sentence)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    def conclude(self, outcome: str, code: str | None = None, sentence: str | None = None, **answer: object) -> None:
        """Set the finding; no later stage runs. Arguments as of `Finding`."""
        self.finding = Finding(outcome, code, sentence, seconds=self.seconds, **answer)  # type: ignore[arg-type]


class Segmenter:
    """A model with its settings. It holds the network: make one per process and reuse it."""

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        """Raises ArtifactError or Refused when model and settings do not fit each other."""
        self.identity: ModelIdentity = identify(artifact, settings)
        self._settings = settings
        self.size = artifact.manifest.input.size
        self.predict = Predictor(artifact, settings.device, settings.threads, settings.engine)

    @property
    def films_at_once(self) -> int:
        """How many films in one call of `forward` fill the device."""
        return self.predict.films_at_once

    def segment(self, datasets: Sequence[Dataset]) -> list[Finding]:
        """One Finding per film, in order. Never raises for a film: it ends as "skipped" or "failed" with a code.

        Datasets need `file_meta.TransferSyntaxUID`. All films of the call are in memory at once and share one forward
        pass: the caller chooses how many.
        """
        films = [self.read(dataset) for dataset in datasets]
        self.forward(films)
        return [self.decide(film) for film in films]

    # The stages of `segment`, for a caller that decodes one film while the device computes another. Each may run in a thread of
    # its own.

    def read(self, dataset: Dataset) -> Film:
        """Gate, decode and place a film on the model's grid. Never raises: a film that fails is concluded."""
        film = Film(dataset)
        with without_warnings():
            film.run("gate", self._gate)
            film.run("decode", self._decode)
            film.run("place", self._place)
        return film

    def forward(self, films: Sequence[Film]) -> None:
        """One forward pass of all films that are not concluded. Never raises."""
        self._predict([film for film in films if film.finding is None])

    def decide(self, film: Film) -> Finding:
        """The finding, with its mask. Never raises."""
        film.run("mask", self._decide)
        assert film.finding is not None
        return film.finding

    def objects(
        self, dataset: Dataset, finding: Finding, *, revision: int = 1, kinds: Sequence[ObjectKind] = DEFAULT
    ) -> list[ResultObject]:
        """The DICOM objects of a finding, of those `kinds` that apply: a film without pneumothorax has no SEG, a film without
        an answer has no objects. `revision` 2 and higher marks results of other pixels under a SOP Instance UID that was used
        before. Raises Refused when an object cannot be built."""
        if finding.decision is None or finding.radiograph is None:
            return []
        view = for_reading(dataset)
        wanted = [kind for kind in kinds if applies(kind, view, finding, self._settings)]
        return [self._object(dataset, finding, revision, kind) for kind in wanted]

    def _object(self, dataset: Dataset, finding: Finding, revision: int, kind: ObjectKind) -> ResultObject:
        with without_warnings(), _single_film(f"write the {kind} of"):
            made = build(kind, dataset, finding, self.identity, self._settings, revision=revision)
        return ResultObject(kind.role, kind.variant, str(made.SOPClassUID), str(made.SOPInstanceUID), made)

    def _gate(self, film: Film) -> None:
        film.dataset = for_reading(film.dataset)  # `objects` needs the bytes as they arrived
        skip = gate(film.dataset, self._settings)
        if skip is not None:
            film.conclude("skipped", skip.code, skip.sentence)

    def _decode(self, film: Film) -> None:
        film.radiograph = decode(film.dataset)

    def _place(self, film: Film) -> None:
        assert film.radiograph is not None
        radiograph = film.radiograph
        shape: tuple[int, int] = radiograph.image.shape  # type: ignore[assignment]
        film.placement = Placement.fit(shape, self.size, radiograph.turn, radiograph.aspect)
        film.image = film.placement.to_model(radiograph.image)

    def _predict(self, films: list[Film]) -> None:
        """All films in one batch; when that fails, one by one, so that only the film at fault fails."""
        if len(films) > 1:
            started = time.perf_counter()
            predictions: list[Prediction] = []
            with suppress(Refused), _single_film("predict"):  # the film at fault fails again below, alone
                predictions = self.predict(np.stack([film.image for film in films])[:, None])  # type: ignore[misc]
            for film, prediction in zip(films, predictions, strict=False):
                film.prediction = prediction
                film.seconds["predict"] = (time.perf_counter() - started) / len(films)
        for film in films:
            if film.prediction is None:
                film.run("predict", self._predict_one)

    def _predict_one(self, film: Film) -> None:
        assert film.image is not None
        (film.prediction,) = self.predict(film.image[None, None])

    def _decide(self, film: Film) -> None:
        assert film.prediction is not None and film.placement is not None and film.radiograph is not None
        point, code = self.identity.thresholds, film.radiograph.indeterminate
        if code is None:
            absurd, on_body = self._settings.absurd_fraction, partial(body_mask, film.radiograph)
            decision = decide(film.prediction, film.placement, point, film.radiograph.spacing, absurd, on_body)
            code = IndeterminateCode.NO_REGION if decision.lacks_region else None
        if code is None:
            film.conclude("done", radiograph=film.radiograph, decision=decision)
        else:
            decision = indeterminate_decision(film.prediction, film.placement.shape, point)
            film.conclude("indeterminate", code.value, code.sentence, radiograph=film.radiograph, decision=decision)
