"""The languages Whisper was trained on: code -> English name, in the order of their tokens in its vocabulary.

A model's tokenizer determines which of them the model supports, and their token ids. `code_of` reads what users write
for a language.
"""

import difflib
import re
from collections.abc import Mapping

_TABLE = """
    en:english zh:chinese de:german es:spanish ru:russian ko:korean fr:french ja:japanese
    pt:portuguese tr:turkish pl:polish ca:catalan nl:dutch ar:arabic sv:swedish it:italian
    id:indonesian hi:hindi fi:finnish vi:vietnamese he:hebrew uk:ukrainian el:greek ms:malay cs:czech
    ro:romanian da:danish hu:hungarian ta:tamil no:norwegian th:thai ur:urdu hr:croatian bg:bulgarian
    lt:lithuanian la:latin mi:maori ml:malayalam cy:welsh sk:slovak te:telugu fa:persian lv:latvian
    bn:bengali sr:serbian az:azerbaijani sl:slovenian kn:kannada et:estonian mk:macedonian br:breton
    eu:basque is:icelandic hy:armenian ne:nepali mn:mongolian bs:bosnian kk:kazakh sq:albanian
    sw:swahili gl:galician mr:marathi pa:punjabi si:sinhala km:khmer sn:shona yo:yoruba so:somali
    af:afrikaans oc:occitan ka:georgian be:belarusian tg:tajik sd:sindhi gu:gujarati am:amharic
    yi:yiddish lo:lao uz:uzbek fo:faroese ht:haitian_creole ps:pashto tk:turkmen nn:nynorsk
    mt:maltese sa:sanskrit lb:luxembourgish my:myanmar bo:tibetan tl:tagalog mg:malagasy as:assamese
    tt:tatar haw:hawaiian ln:lingala ha:hausa ba:bashkir jw:javanese su:sundanese yue:cantonese
"""

# Cantonese comes last because only vocabularies from large-v3 on have its token.
LANGUAGES: Mapping[str, str] = {
    code: name.replace("_", " ") for code, name in (entry.split(":") for entry in _TABLE.split())
}

# Other English names of these languages.
ALIASES: Mapping[str, str] = {
    "burmese": "my",
    "valencian": "ca",
    "flemish": "nl",
    "haitian": "ht",
    "letzeburgesch": "lb",
    "pushto": "ps",
    "panjabi": "pa",
    "moldavian": "ro",
    "moldovan": "ro",
    "sinhalese": "si",
    "castilian": "es",
    "mandarin": "zh",
}

# Other codes of these languages: of ISO 639-2 and 639-3, and codes of ISO 639-1 that Whisper does not use.
_OTHER_CODES = """
    eng:en zho,chi,cmn:zh deu,ger:de spa:es rus:ru kor:ko fra,fre:fr jpn:ja por:pt tur:tr pol:pl cat:ca
    nld,dut:nl ara:ar swe:sv ita:it ind,in:id hin:hi fin:fi vie:vi heb,iw:he ukr:uk ell,gre:el msa,may:ms
    ces,cze:cs ron,rum,mo:ro dan:da hun:hu tam:ta nor,nob,nb:no tha:th urd:ur hrv:hr bul:bg lit:lt lat:la
    mri,mao:mi mal:ml cym,wel:cy slk,slo:sk tel:te fas,per:fa lav:lv ben:bn srp:sr aze:az slv:sl kan:kn est:et
    mkd,mac:mk bre:br eus,baq:eu isl,ice:is hye,arm:hy nep:ne mon:mn bos:bs kaz:kk sqi,alb:sq swa:sw glg:gl
    mar:mr pan:pa sin:si khm:km sna:sn yor:yo som:so afr:af oci:oc kat,geo:ka bel:be tgk:tg snd:sd guj:gu
    amh:am yid,ji:yi lao:lo uzb:uz fao:fo hat:ht pus:ps tuk:tk nno:nn mlt:mt san:sa ltz:lb mya,bur:my
    bod,tib:bo tgl,fil:tl mlg:mg asm:as tat:tt lin:ln hau:ha bak:ba jav,jv:jw sun:su
"""
_BY_CODE: Mapping[str, str] = {code: code for code in LANGUAGES} | {
    other: code for others, code in (entry.split(":") for entry in _OTHER_CODES.split()) for other in others.split(",")
}
_BY_NAME: Mapping[str, str] = {name: code for code, name in LANGUAGES.items()} | dict(ALIASES)

DETECT = ("", "auto")
"""Words that ask for the language to be detected, as in whisper.cpp."""

# A language tag (BCP 47, or a locale's name): language, extended language, script, region, variants.
_TAG = re.compile(
    r"([a-z]{2,3})(?:-([a-z]{3}))?(?:-[a-z]{4})?(?:-(?:[a-z]{2}|\d{3}))?(?:-(?:[a-z\d]{5,8}|\d[a-z\d]{3}))*"
)


def code_of(language: str) -> str | None:
    """Whisper's code of a language, or None for one that it was not trained on.

    `language` is a code ("de", "ger"), an English name ("German") or a tag whose other parts say nothing about the
    language ("de-AT", "zh_Hant_TW"), in any case.
    """
    words = re.sub(r"[\s_-]+", " ", language).strip().lower()
    if words in _BY_NAME:
        return _BY_NAME[words]
    tag = _TAG.fullmatch(words.replace(" ", "-"))
    return _BY_CODE.get(tag[2] or tag[1]) if tag else None  # zh-yue is Cantonese


def similar(language: str) -> list[str]:
    """Similar English names, at most 3, each with its code: "german (de)"."""
    # Codes are left out, since every short word is similar to many; and Dutch is no hint at Deutsch, which it would be
    # below 0.84.
    near = difflib.get_close_matches(language.strip().lower(), _BY_NAME, n=3, cutoff=0.84)
    return list(dict.fromkeys(f"{LANGUAGES[_BY_NAME[name]]} ({_BY_NAME[name]})" for name in near))
