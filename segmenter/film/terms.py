"""The words by which X-ray consoles name the chest and the view, in the languages of their users: German, French,
Spanish, Portuguese, Italian, Dutch, Polish, Turkish, Swedish, Danish, Norwegian, Finnish, Czech, Slovak, Hungarian, Romanian,
Croatian, Greek, Russian, Ukrainian, Japanese, Chinese, Korean and English.

Written here with their accents; found with and without them, transcribed (ae for ä) or lost (a question mark in their place).
A trailing `*` stands for any ending. Texts are compared as `header.normalised` returns them. A film whose view no term names is
read as a frontal one: the lateral terms must be complete, and must not be found in a frontal text.
"""

from __future__ import annotations

import re
import unicodedata

from segmenter.film.header import normalised

_LETTER = "A-ZΑ-ΩА-ЯЁІЇЄҐ"
_GLUED = "".join(f"|(?<={word})" for word in ("CHEST", "THORAX", "TORAX", "TORACE", "CXR"))  # CHESTLAT, ThoraxSeitlich
_START, _END = f"(?:(?<![{_LETTER}]){_GLUED})", f"(?![{_LETTER}])"
_WRITTEN_OUT = {"ä": "AE", "ö": "OE", "ü": "UE", "å": "AA", "ø": "OE"}
_LOST = "[?\ufffd]{1,2}"  # of one character in UTF-8, two bytes are lost


def _term(written: str) -> str:
    """A regular expression for one word or phrase; a blank stands for any blanks, points and hyphens, or none."""
    found = []
    for one in unicodedata.normalize("NFC", written.rstrip("*")):
        bare = normalised(one)
        if one == " ":
            found.append(r"[ .\-]*")
        elif bare != one.upper():
            found.append("(?:" + "|".join([bare, *filter(None, [_WRITTEN_OUT.get(one)]), _LOST]) + ")")
        else:
            found.append(re.escape(bare))
    return "".join(found) + ("" if written.endswith("*") else _END)


def _any(terms: str, *more: str) -> str:
    """A regular expression for comma-separated terms that begin a word, and for `more`, which are expressions already."""
    listed = "|".join(_term(one) for one in re.split(r"\s*,\s*", terms.strip()))
    return "|".join([f"{_START}(?:{listed})", *more])


def _initials(first: str, second: str, between: str, *, bare: bool = True) -> str:
    """Two letters with points or other signs between them, and `bare` ones; not the end of a longer abbreviation (S.p.A.)."""
    together = f"|{_START}{first}{second}{_END}" if bare else ""
    return f"(?<![{_LETTER}.]){first}(?:{between}){second}{_END}{together}"


_CHEST_WORDS = (
    "pectus*, borst*, bryst*, klatk*, piersiow*, płuc*, akciğer*, göğüs*, keuhko*, rintakeh*, mellkas*, tüdő*, hrudník*, "
    "hrudní*, plíce*, plíc, pľúc*, pluća*, plămân*, longen, pneumoto*"
)
CHEST = re.compile(
    r"CHEST|THORA[XK]|TORA[XKC]|LUNG|PULMO|POUMON|POITRINE|PECHO|BRUST|CXR|RIB ?CAGE|PTX|PNEUMOTH"
    rf"|ГРУД|ЛЕГК|ЛЁГК|ЛЕГЕН|ОГК|БЕЛОДРОБ|ΘΩΡΑΚ|ΠΝΕΥΜΟΝ|胸|肺|흉부|폐|{_any(_CHEST_WORDS)}"
)
# Regions whose names contain a word for the chest, or stand beside one.
NOT_CHEST = re.compile(
    r"THORACIC ?SPINE|T[- ]?SPINE|TSPINE|DORSAL ?SPINE|BWS|RACHIS|COLUMNA|COLONNA|COLOANA|WIRBEL|WERVEL|KREGOSLUP|OMURGA"
    rf"|RYGGRAD|GERINC|{_START}PATER[{_LETTER}]*|ПОЗВОНОЧ|ΣΠΟΝΔΥΛ|胸椎|胸骨|흉추"
)

# P.A., P-A, P/A, P->A, P to A ...
_ARROW = r"[ ]?(?:-*>|-|→|TO)[ ]?"
_OF_DEPTH = rf"[ ]?[./\-]+[ ]?|[ ]|{_ARROW}"
FRONTAL = re.compile(
    _any(
        # written so in several languages
        "frontal*, face, front, postero anterior*, antero posterior*, post ant, ant post, dorso ventral*, ventro dorsal*, "
        # de, fr, es, pt, it, nl, ro
        "frontbild, 1. Ebene, vorne, fronte, frente, vooraanzicht, voor achterwaarts*, achter voorwaarts*, "
        "față, "
        # sv, da, no, fi
        "framifrån, forfra, bakifrån, etukuva*, edestä, taka etu*, etu taka*, "
        # pl, cs, sk, hu, hr
        "przednio tyln*, tylno przedn*, czołow*, z przodu, zadopředn*, předozadn*, přední, zepředu, predozadn*, zadnopredn*, "
        "szemb*, elölről, "
        # tr
        "ön arka*, arka ön*, önden, önden arkaya, arkadan öne",
        _initials("P", "A", _OF_DEPTH),
        _initials("A", "P", _OF_DEPTH),
        _any("pas, aps, pae, ape, paap, appa"),  # PA standing, AP supine, PA erect ...
        "ПРЯМ|ФРОНТ|ПЕРЕДН|ЗАДНЕ|ФАС(?![А-Я])|ОБЗОРН",
        "ΠΡΟΣΘΙ|ΟΠΙΣΘ|ΜΕΤΩΠ|ΚΑΤΑ ?ΜΕΤΩΠΟ",
        "正面|正位|正侧|正側|[后後][ ]*[-→>]*[ ]*前|前[ ]*[-→>]*[ ]*[后後]|ショウメン|しょうめん",
        "정면|후[ ]*[-→>]*[ ]*전|전[ ]*[-→>]*[ ]*후",
    )
)

# not BILATERAL, COLLATERAL, IPSILATERAL ...; not LATERALITY in any language
_LATERAL_STEM = r"(?<!BI)(?<!COL)(?<!UNI)(?<!IPSI)(?<!HOMO)(?<!OMO)(?<!TRA)(?<!TRO)"
LATERAL = re.compile(
    _any(
        # written so in several languages
        "side view*, sideview*, pfl, "
        "llat, rlat, latl, latr, ltlat, rtlat, l lat, r lat, xlat, xtlat, x table, xtable, cross table, cross lat*, profil, "
        "profile, profilo, profils, profiel, profilaufnahme, profilbild, "
        # de
        "seitl*, seitenb*, seitenau*, seitenan*, seitenpr*, seitwärts, von der Seite, 2. Ebene, zweite Ebene, II. Ebene, "
        "2. Eb, linksanl*, rechtsanl*, li anl*, re anl*, links anl*, rechts anl*, "
        # es, pt
        "perfil*, "
        # nl
        "dwars*, zijdelings*, zijaanzicht*, zijwaarts*, zijopname*, zijfoto*, zijbeeld*, van opzij, "
        # sv, da, no
        "sidobild*, sidovy*, sidoproj*, sidoupp*, från sidan, sidebil*, sideopt*, sideopp*, sideproj*, fra siden, "
        # fi
        "sivukuva*, sivusta, sivulta, sivuproj*, sivusuun*, "
        # pl, cs, sk, hr, sl
        "boczn*, boczne, z boku, lewobocz*, prawobocz*, boční*, bočný, bočné, bočná, bočno, bokem, zboku, levobočn*, "
        "pravobočn*, profiln*, stransk*, "
        # hu
        "oldalir*, oldalsó, oldalfelv*, oldalkép*, oldalnézet*, oldalról, harántirány*, haránt, "
        # tr
        "yandan, yanal, yan grafi*, sol yan, sağ yan, "
        # ro, vi
        "din profil, nghiêng",
        rf"{_LATERAL_STEM}(?:LATERAA?L(?!I[TDZS]|IS[AE])|LATERO(?![{_LETTER}]*(?:POSI|GRAP)))",
        rf"{_LATERAL_STEM}LAT[?\ufffd]{{1,2}}RAL",
        rf"{_START}(?:LAT(?:ER)?{_END}|SEIT\.)",  # without its point, SEIT is German for "since"
        rf"{_START}(?:DEXTRO|SINISTRO)[ -]?(?:SINIST|DEXT)[{_LETTER}]*",
        _initials("L", "L", r"[ ]?[.\-/]+[ ]?|[ ]"),
        _initials("R", "L", _ARROW),
        _initials("L", "R", _ARROW, bare=False),  # LR: both sides
        "БОКОВ|БІЧН|БОЧН|ЛАТЕРАЛ|(?<![А-Я])ЛАТ(?![А-Я])|ПРОФІЛ|ПРОФИЛ|СТРАНИЧ|(?<!НА )(?<![А-Я])БОК(?![А-Я])",
        "ΠΛΑΓΙ|ΠΛΑΓ(?![Α-Ω])|ΠΡΟΦΙΛ",
        "側面|側方|側位|侧位|侧面|(?:胸|胸部|胸片)[ (]*[左右]?[侧側](?![卧臥])|正侧|正側"
        "|ソクメン|そくめん|ラテラル"
        "|右[ ]*[→>]+[ ]*左|左[ ]*[→>]+[ ]*右",
        "측면|측방|래터럴|옆",
        "جانب",
    )
)

# Words with other meanings too: lateral only beside a word for the chest, or alone.
LATERAL_BESIDE_CHEST = re.compile(
    _any("side, sida, sido, sidan, siden, seite, zij, zijde, yan, bok, boky, prof, perf, perfl, sivu, sivukuv*, oldal, oldalt")
)
_A_SIDE = _any(
    "left, right, both, one, linke*, rechte*, beide*, vänster, höger, båda, venstre, høyre, højre, begge, bal, jobb, két, "
    "mindkét, lewy, prawy, levý, pravý, sol taraf, sağ taraf, same, samma"
)
# Shorter words for the chest, beside which those count too.
CHEST_IN_SHORT = re.compile(_any("thx, tx, pulm, cor, s+p, kl, klp, kl piers*, paac, pac, akc, ac"))
# "left side", "side up", "5 lat" (years, pl): a word of the lateral view that names no view
NO_VIEW = re.compile(
    rf"(?:{_A_SIDE})[ ]*(?:SIDE|SIDA|SIDAN|SIDEN|SEITE|OLDALI?|BOK|ZIJ){_END}"
    rf"|SIDE[ -]?(?:UP|DOWN|BY[ -]?SIDE|MARK\w*|EFFECT\w*)"
    rf"|(?:DO|OD|PONAD|POWYZEJ|PONIZEJ|WIEK|DZIEC\w*|[<>])[ ]*\d+[ ]*LAT{_END}|\d+[ ]*-[ ]*\d+[ ]*LAT{_END}"
    rf"|(?<![{_LETTER}])S[. ]*P[. ]*A{_END}"
)

# Oblique: PS3.3 C.8.1.1, PS3.16 CID 4010.
OBLIQUE = re.compile(
    _any(
        "obl, obliq*, obliek*, oblik*, oblic*, lao, rao, lpo, rpo, rlo, llo, schräg*, schuin*, driekwart*, skośn*, skos, "
        "sned*, skrå*, viisto*, šikm*, kos*projekc*, ferde*",
        "КОСАЯ|КОСОЙ|КОСЫ|КОС[ .]*ПР|ΛΟΞ|斜位|斜|사위|사면|빗",
    )
)
_LYING = r"(?:SUPIN|DORSAL|PRON|VENTRAL|ACOSTAD|COUCH|ALIT|DEITAD)"
OTHER = re.compile(
    _any(
        "lld, rld, lordot*, lordos, lordotic*, apicolord*, lindblom, seitenlage*, linksseitenl*, rechtsseitenl*, zijligging*, "
        "sidoläge*, sidläge*, sideleie*, sideleje*, kylkimak*, na boku, oldalfekv*, yan yat*, latdecub*",
        # the lateral decubitus; "decubito supino" and "decubitus dorsal" are a patient on the back, seen from the front, and
        # "decubito" alone in Romance languages no more than lying
        rf"{_START}DECUB(?!IT[OI]{_END}|ITO ?{_LYING}|ITUS? ?{_LYING}|ITUS? {_LYING})[{_LETTER}]*",
        rf"DECUBITO[ ]*(?:LAT|IZQ|DER|ESQ|DIR|SX|DX|SIN|DES)|(?:LATERAL|LAT\.?)[ ]*(?:DE)?[ ]*DECUB[{_LETTER}]*",
        "ЛОРДОТ|НА БОКУ|ЛАТЕРОПОЗ|ЛАТЕРОГР|ΚΑΤΑΚΛ|側臥|侧卧|側卧|デクビ|前弓|측와|옆으로 누",
    )
)

# "Two views", in one description for both.
BOTH_VIEWS = re.compile(
    rf"(?<![0-9{_LETTER}])(?:2|II|(?:TWO|ZWEI|DEUX|DOS|DUAS|DUE|TWEE|DWIE|DWOCH|IKI|TVA|DVE|KET|DOUA|KAKSI)(?=[ -]))[ -]*"
    rf"(?:(?:V|VW|VWS|PLAN|PLANI){_END}|VIEW|PROJ|EBENEN|INCID|VISTAS?|PROY|PROIEZ|RICHTING|RIKTNING|YON|IRANY|SUUNTA)"
    r"|IN (?:2|ZWEI) EBENE|KETIRANY|[2二两兩][ ]*方向|[二两兩]位"
)

_CHEST_ALONE = rf"(?:{CHEST.pattern})[{_LETTER}部片부]*(?: PIERSIOWE[JA]| KLETKA)?"
_BEFORE = _any("rx, rtg, xr, x ray, röntgen, rö, dr, cr, dx, radiografia, rad, w, ap?a")
# A whole chest has no side: a text that names one means a lateral view, or half of the chest.
ONE_SIDE = re.compile(
    rf"(?:(?:{_BEFORE})[ .,:-]*(?:D[EOI]L? )?)?{_CHEST_ALONE}(?:[ .,:/()-]+|(?<=[部片부]))(?:"
    + _any(
        "l, li, sin, sinistr*, sx, lt, left, links, gauche, izq*, izda, esq*, vä, vänster, venstre, lewy, lewa, lewe, sol, "
        "vasen, rt, right, rechts, droit, droite, der*, dcha, destr*, höger, høyre, højre, prawy, prawa, prawe, sağ, oikea, "
        "좌측, 우측, 左, 右"
    )
    + r")(?: (?:SIDE|SIDA|SEITE|ZIJDE|STRONA|TARAF|OLDALI?))?[ .)]*\d*"
)
