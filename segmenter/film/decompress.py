"""One compressed stream -> samples, by the first decoder that reads it. The decoder gets the stream that was checked, and of
the film's header only what the stream needs."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGExtended12Bit, RLELossless

from segmenter.errors import Refused
from segmenter.film.codestream import Codestream

# pydicom wraps what a plugin raises in RuntimeError; the rest comes from streams that it cannot make sense of.
_DECODER_ERRORS = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, BufferError, OSError, struct.error,
)  # fmt: skip


def decompress(
    stream: Codestream,
    shape: tuple[int, int, int],
    *,
    allocated: int,
    bits: int,
    signed: bool,
    photometric: str,
    raw: bool = False,
) -> NDArray:
    """(H, W) or (H, W, 3) uint8 or uint16 samples; signed ones keep their bit pattern. `shape`: rows, columns, samples per
    pixel. `raw`: three samples as they are in the stream; else those that `photometric` calls YBR are converted to RGB (PS3.3
    C.7.6.3.1.2).

    Raises Refused (`undecodable-pixel-data`, `truncated-pixel-data`).
    """
    rows, columns, samples = shape
    if stream.frame is not None and stream.syntax == JPEGExtended12Bit and stream.frame.precision > 8:
        return _extended_12_bit(stream.data, shape)
    options: dict[str, Any] = {
        "number_of_frames": 1,
        "rows": rows,
        "columns": columns,
        "samples_per_pixel": samples,
        "photometric_interpretation": photometric,
        "planar_configuration": 0,
        "bits_allocated": allocated,
        "bits_stored": bits,
        "pixel_representation": int(signed),
        "correct_unused_bits": False,
    }
    try:
        array, _ = get_decoder(stream.syntax).as_array(encapsulate([stream.data], has_bot=False), index=0, raw=raw, **options)
    except _DECODER_ERRORS as error:
        if stream.syntax == RLELossless:  # its head was sound: a segment ends before its rows do
            raise Refused("truncated-pixel-data", "The RLE stream holds fewer pixels than the film has.") from error
        raise Refused(
            "undecodable-pixel-data",
            f"No decoder reads this stream of transfer syntax {stream.syntax} ({type(error).__name__}).",
        ) from error
    return array.view(f"u{array.dtype.itemsize}") if array.dtype.kind == "i" else array


def _extended_12_bit(stream: bytes, shape: tuple[int, int, int]) -> NDArray[np.uint16]:
    """JPEG Extended of 12 bits: GDCM can, but pydicom does not let it."""
    import gdcm

    rows, columns, samples = shape
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetPixelFormat(gdcm.PixelFormat(samples, 16, 12, 11, 0))
    text_of_bytes = image.GetBuffer()  # GDCM hands bytes over as str, and None when it cannot read them
    data = (text_of_bytes or "").encode("utf-8", "surrogateescape")
    if len(data) != 2 * rows * columns * samples:
        raise Refused("undecodable-pixel-data", "The 12-bit JPEG stream cannot be decoded.")
    return np.frombuffer(data, "<u2").reshape(shape if samples > 1 else shape[:2])
