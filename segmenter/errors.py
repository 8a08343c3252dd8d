"""The errors of this package.

SegmenterError
├── Refused          a film that passed the gate but cannot be answered: the job ends as `failed` with a code
│   (undecodable pixels, a header that contradicts its pixels, output that is not finite or covers too much of the film)
└── ArtifactError    the model folder does not match its manifest: it is not used

A film that is not eligible is no error: `segmenter.film.gate` returns a `Skip`.
"""


class SegmenterError(Exception):
    """Base class of the errors of this package."""


class Refused(SegmenterError):
    """The film cannot be answered. `code` is stable and can be counted; `sentence` is for an administrator.

    The sentence must not contain patient data: element keywords, sizes and transfer syntaxes only.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class ArtifactError(SegmenterError):
    """The model folder cannot be used; the message tells what does not match and what to do."""
