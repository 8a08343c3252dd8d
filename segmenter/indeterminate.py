"""Why a film was answered neither with a pneumothorax nor without one: a person must look at it.

A code fits a Code Value (SH, 16 characters), a sentence a Code Meaning (LO, 64 characters; PS3.5 section 6.2).
"""

from __future__ import annotations

from segmenter.reason import Reason


class IndeterminateCode(Reason):
    """The code, and the sentence that a reader of the report sees."""

    NO_REGION = "no-region", "Probability above the threshold, but no region can be marked."
    POLARITY = "polarity-unclear", "Black and white may be exchanged; the pixels do not tell."
