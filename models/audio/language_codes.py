"""Language codes of audio tracks: ISO 639-1 (en), ISO 639-2 (eng, ger or deu), and tags with a region (en-US)."""

# Of the languages that Whisper knows: two letters, three letters, and the bibliographic form where it differs.
_TABLE = """
    af:afr am:amh ar:ara as:asm az:aze ba:bak be:bel bg:bul bn:ben bo:bod:tib br:bre bs:bos ca:cat cs:ces:cze
    cy:cym:wel da:dan de:deu:ger el:ell:gre en:eng es:spa et:est eu:eus:baq fa:fas:per fi:fin fo:fao fr:fra:fre
    gl:glg gu:guj ha:hau he:heb hi:hin hr:hrv ht:hat hu:hun hy:hye:arm id:ind is:isl:ice it:ita ja:jpn jv:jav
    ka:kat:geo kk:kaz km:khm kn:kan ko:kor la:lat lb:ltz ln:lin lo:lao lt:lit lv:lav mg:mlg mi:mri:mao mk:mkd:mac
    ml:mal mn:mon mr:mar ms:msa:may mt:mlt my:mya:bur nb:nob ne:nep nl:nld:dut nn:nno no:nor oc:oci pa:pan pl:pol
    ps:pus pt:por ro:ron:rum ru:rus sa:san sd:snd si:sin sk:slk:slo sl:slv sn:sna so:som sq:sqi:alb sr:srp su:sun
    sv:swe sw:swa ta:tam te:tel tg:tgk th:tha tk:tuk tl:tgl tr:tur tt:tat uk:ukr ur:urd uz:uzb vi:vie yi:yid yo:yor
    zh:zho:chi
"""

_SHORT = {long: row.split(":")[0] for row in _TABLE.split() for long in row.split(":")[1:]}


def same_language(code: str, other: str) -> bool:
    """Whether two codes name one language; regions and scripts, as in en-US, are ignored."""
    return _shortest(code) == _shortest(other)


def _shortest(code: str) -> str:
    language = code.lower().replace("_", "-").split("-")[0]
    return _SHORT.get(language, language)
