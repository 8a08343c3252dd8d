"""Regular expressions of the configuration: they mean what they mean in Python, and no value of a header makes them slow."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata

import pytest

from dicom_node.runtime.patterns import compiled, found_in

# Each takes Python's own engine minutes to years for the value beside it.
ENDLESS = [
    (r"^(\w{1,16} ?)+$", "a" * 1023 + "!"),
    (r"^(\w+\s?)+STAT$", "portable " * 113),
    (r"^(a|aa)+$", "a" * 1023 + "b"),
    (r"^(.*,){12}P$", "1," * 500),
]
_LOOK = """
import sys
from dicom_node.runtime.config_sections import Queue, Rule
from dicom_node.receive.rules import Rules
import io, pydicom
film = pydicom.Dataset()
film.ImageComments = sys.argv[2]
data = io.BytesIO()
pydicom.dcmwrite(data, film, implicit_vr=False, little_endian=True)
rule = Rule(name="all", any_of={"ImageComments": sys.argv[1]}, priority="urgent")
rules = Rules(Queue(urgent_when={"ImageComments": sys.argv[1]}), [rule])
print(rules.decide("ANY", "PTXSEG", memoryview(data.getvalue()), "1.2.840.10008.1.2.1").queue)
"""


@pytest.mark.parametrize(("pattern", "value"), ENDLESS)
def test_no_value_of_a_header_stands_a_receiver_still(pattern: str, value: str) -> None:
    done = subprocess.run([sys.executable, "-c", _LOOK, pattern, value], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout.strip()) == (0, "normal"), done.stderr


@pytest.mark.parametrize(
    "pattern",
    [r"^\w+$", r"\W", r"^\d+$", r"\D", r"\s", r"\S", r"[\w.-]{4}", r"[^\w\s]", r"[\s\S]", r"[\W\d]", r"(?i)RÖNTGEN",
     r"(?i)thorax", r"^(CR|DX)$", "STAT|HIGH", r"^QA", r"\bAP\b", r"[[]", r"[]x]", r"[^]]", r"[a\]]", r"AP\Z", r"r\u00f6",
     r"[\u00f6]n", r"(?P<a>A)P", r"a.*?b", r"^$", r"\.", r"x{2,3}", r"[[:alpha:]]"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_pattern_means_what_it_means_in_python(pattern: str) -> None:
    values = ["", "AP", "CR", "XDX", "THORAX pa", "Röntgen", "röntgen thorax", "Ü-1", "胸部", "١٢", "a.b"]
    values += ["[x]", "]", " ", "xx.", "a:l]"]
    python, ours = re.compile(pattern), compiled(pattern)
    assert [found_in(ours, one) for one in values] == [bool(python.search(one)) for one in values]


@pytest.mark.parametrize("letter", "wWdDsS")
def test_classes_know_every_letter_that_python_knows(letter: str) -> None:
    known = [chr(code) for code in range(0x3000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    for pattern in (rf"^\{letter}$", rf"^[\{letter}]$", rf"^[^\{letter}]$"):
        python, ours = re.compile(pattern, re.DOTALL), compiled(f"(?s){pattern}")
        differ = [one for one in known if one != "\n" and found_in(ours, one) != bool(python.search(one))]
        assert not differ, (pattern, differ[:5])


def test_a_text_with_half_characters_is_looked_at() -> None:
    assert found_in(compiled("AP"), "\udc81 AP")
