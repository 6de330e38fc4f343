"""Spoken languages: every usual way to write one, and the code a model takes for it.

Data and two look-ups. The canonical code is ISO 639-1 where there is one, else
ISO 639-3. Nothing here knows a model but by the list of codes it takes.

Sources:
    The languages are the 100 of Whisper (``whisper/tokenizer.py``) and the rest of FLEURS
    (Conneau et al., *FLEURS: Few-shot Learning Evaluation of Universal Representations of
    Speech*, 2022); codes are from the ISO 639-2 registration authority
    (https://www.loc.gov/standards/iso639-2/) and ISO 639-3 (https://iso639-3.sil.org/).
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import TYPE_CHECKING

from voxvec.errors import ConfigError

if TYPE_CHECKING:
    from voxvec.models import TranscriptionModel

__all__ = ["for_model", "is_named", "lookup", "name", "normalize"]

# Canonical code | English name | other codes | other names.
_TABLE = """
af|Afrikaans|afr|
am|Amharic|amh|
ar|Arabic|ara arb|
as|Assamese|asm|
ast|Asturian||Bable, Asturleonese
az|Azerbaijani|aze azj|Azeri
ba|Bashkir|bak|
be|Belarusian|bel|Belorussian
bg|Bulgarian|bul|
bn|Bengali|ben|Bangla
bo|Tibetan|bod tib|
br|Breton|bre|
bs|Bosnian|bos|
ca|Catalan|cat|Valencian
ceb|Cebuano||Bisayan
ckb|Sorani Kurdish||Sorani, Central Kurdish
cs|Czech|ces cze|
cy|Welsh|cym wel|
da|Danish|dan|
de|German|deu ger|
el|Greek|ell gre|Modern Greek
en|English|eng|
es|Spanish|spa|Castilian
et|Estonian|est ekk|
eu|Basque|eus baq|
fa|Persian|fas per pes|Farsi
ff|Fula|ful|Fulah, Fulani
fi|Finnish|fin|
fo|Faroese|fao|
fr|French|fra fre|
ga|Irish|gle|
gl|Galician|glg|
gu|Gujarati|guj|
ha|Hausa|hau|
haw|Hawaiian||
he|Hebrew|heb iw|
hi|Hindi|hin|
hr|Croatian|hrv|
ht|Haitian Creole|hat|Haitian
hu|Hungarian|hun|
hy|Armenian|hye arm|
id|Indonesian|ind in|
ig|Igbo|ibo|
is|Icelandic|isl ice|
it|Italian|ita|
ja|Japanese|jpn|
jv|Javanese|jav jw|
ka|Georgian|kat geo|
kam|Kamba||
kea|Kabuverdianu||Cape Verdean Creole
kk|Kazakh|kaz|
km|Khmer|khm|Cambodian
kn|Kannada|kan|
ko|Korean|kor|
ku|Kurdish|kur|
ky|Kyrgyz|kir|Kirghiz
la|Latin|lat|
lb|Luxembourgish|ltz|Letzeburgesch
lg|Ganda|lug|Luganda
ln|Lingala|lin|
lo|Lao|lao|
lt|Lithuanian|lit|
luo|Luo||Dholuo
lv|Latvian|lav lvs|
mg|Malagasy|mlg plt|
mi|Maori|mri mao|Māori
mk|Macedonian|mkd mac|
ml|Malayalam|mal|
mn|Mongolian|mon khk|
mr|Marathi|mar|
ms|Malay|msa may zsm|
mt|Maltese|mlt|
my|Myanmar|mya bur|Burmese
ne|Nepali|nep npi|
nl|Dutch|nld dut|Flemish
nn|Nynorsk|nno|Norwegian Nynorsk
no|Norwegian|nor nb nob|Bokmål, Norwegian Bokmål
nso|Northern Sotho||Sepedi, Pedi
ny|Chichewa|nya|Nyanja, Chewa
oc|Occitan|oci|
om|Oromo|orm|
or|Odia|ori ory|Oriya
pa|Punjabi|pan|Panjabi
pl|Polish|pol|
ps|Pashto|pus pbt|Pushto
pt|Portuguese|por|
ro|Romanian|ron rum mo mol|Moldavian, Moldovan
ru|Russian|rus|
sa|Sanskrit|san|
sd|Sindhi|snd|
si|Sinhala|sin|Sinhalese
sk|Slovak|slk slo|
sl|Slovenian|slv|Slovene
sn|Shona|sna|
so|Somali|som|
sq|Albanian|sqi alb als|
sr|Serbian|srp|
su|Sundanese|sun|
sv|Swedish|swe|
sw|Swahili|swa swh|
ta|Tamil|tam|
te|Telugu|tel|
tg|Tajik|tgk|
th|Thai|tha|
tk|Turkmen|tuk|
tl|Tagalog|tgl fil|Filipino
tr|Turkish|tur|
tt|Tatar|tat|
uk|Ukrainian|ukr|
umb|Umbundu||
ur|Urdu|urd|
uz|Uzbek|uzb uzn|
vi|Vietnamese|vie|
wo|Wolof|wol|
xh|Xhosa|xho|
yi|Yiddish|yid ydd ji|
yo|Yoruba|yor|
yue|Cantonese||
zh|Chinese|zho chi cmn|Mandarin, Mandarin Chinese
zu|Zulu|zul|
"""

# Language, script, region, as in RFC 5646 section 2.1.
_TAG = re.compile(r"([a-z]{2,3})(?:-[a-z]{4})?(?:-(?:[a-z]{2}|[0-9]{3}))?")

# What to send in a code's place to a model that does not list the code itself.
_STAND_INS = {"jv": ("jw",), "no": ("nb", "nn"), "nn": ("no", "nb"), "tl": ("fil",), "he": ("iw",)}


def _fold(written: str) -> str:
    decomposed = unicodedata.normalize("NFKD", written.strip().casefold())
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return " ".join(bare.replace("_", "-").split())


def _read_table() -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    titles: dict[str, str] = {}
    codes: dict[str, str] = {}
    words: dict[str, str] = {}
    for row in _TABLE.split("\n")[1:-1]:
        code, title, more_codes, more_names = row.split("|")
        titles[code] = title
        codes |= dict.fromkeys([code, *more_codes.split()], code)
        words |= dict.fromkeys([_fold(word) for word in [title, *more_names.split(",")] if word], code)
    return titles, codes, words


_NAMES, _BY_CODE, _BY_NAME = _read_table()


def lookup(language: str) -> str | None:
    """Canonical code of a language, or None if it is not known here; for what a server wrote.

    Args:
        language: A name (``"Korean"``, ``"mandarin"``), an ISO 639-1, -2 or -3 code, or a tag with
            a region or script (``"ko-KR"``, ``"zh_Hant_TW"``), in upper or lower case.
    """
    folded = _fold(language)
    tag = _TAG.fullmatch(folded)
    return _BY_NAME.get(folded) or (_BY_CODE.get(tag[1]) if tag else None)


def normalize(language: str) -> str:
    """Canonical code of a language: ``"Korean"``, ``"kor"`` and ``"ko-KR"`` are ``"ko"``.

    Norwegian Bokmål is ``"no"``, Nynorsk stays ``"nn"``, Javanese is ``"jv"``, Cantonese ``"yue"``.

    Args:
        language: As in `lookup`.

    Raises:
        ConfigError: No such language is known; the message names what is written alike.
    """
    code = lookup(language)
    if code is None:
        raise ConfigError(f"no language {language!r} is known{_alike(language)}; nothing was sent")
    return code


def _alike(language: str) -> str:
    # Codes are too short to be alike by accident only: two of two letters always share something.
    close = difflib.get_close_matches(_fold(language), _BY_NAME, n=3, cutoff=0.75)
    found = list(dict.fromkeys(f"{_NAMES[_BY_NAME[word]]} ({_BY_NAME[word]})" for word in close))
    return f"; did you mean {' or '.join(found)}?" if found else "; give a name such as 'Korean' or a code such as 'ko'"


def name(code: str) -> str:
    """English name of a language: ``"ko"`` is ``"Korean"``.

    Raises:
        ConfigError: No such language is known.
    """
    return _NAMES[normalize(code)]


def is_named(language: str | None) -> bool:
    """Whether a caller named a language, rather than None or ``"auto"``, which leave it to the server."""
    return language is not None and _fold(language) != "auto"


def for_model(language: str | None, model: TranscriptionModel) -> str | None:
    """The code to send for a language, or None if none should be sent.

    Args:
        language: As in `lookup`, or a code the model lists; None or ``"auto"`` leaves it to the server.
        model: Whose list of codes it must be in, if the list is known.

    Returns:
        The canonical code, or the one the model lists in its place: ``"jw"`` for Javanese,
        ``"no"`` for Nynorsk.

    Raises:
        ConfigError: The language is not known, or the model does not take it.
    """
    if language is None or not is_named(language):
        return None
    listed = model.languages
    if listed is not None and language in listed:
        return language
    code = normalize(language)
    if listed is None:
        return code
    for candidate in (code, *_STAND_INS.get(code, ())):
        if candidate in listed:
            return candidate
    raise ConfigError(
        f"{model.name} does not take {_NAMES[code]} ({code}) as language, nothing was sent; leave language out, "
        f"so that the server listens for itself, or choose of {', '.join(sorted(listed))}"
    )
