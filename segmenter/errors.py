"""What can go wrong inside the core.

SegmenterError
├── Refused          the film is ours, but no answer may be given from it: ends the job as `failed` with a code
│   (undecodable pixels, a header that lies about its pixels, output that is not finite or absurd)
└── ArtifactError    the model folder does not hold what it says: nothing is served from it

A film that is not ours is no error: `segmenter.film.gate` answers it with a `Skip`.
"""


class SegmenterError(Exception):
    """Something the core could not do."""


class Refused(SegmenterError):
    """The film cannot be answered; `code` is stable and countable, the message is for an administrator.

    The message must not hold patient data: element keywords, sizes and syntaxes only.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class ArtifactError(SegmenterError):
    """The model folder was refused; the message says what does not match and what to do."""
