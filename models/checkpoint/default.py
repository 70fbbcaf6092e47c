"""The model that is used where none is named: an installed multilingual one, else an installed English-only one.

Installed models need no download: their weights came by pip or are in the Hugging Face cache. Imports nothing heavy.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from tilewhisper.models.checkpoint import catalog
from tilewhisper.models.checkpoint.locate import DEFAULT_HUB_USE, HubUse, Source, find_installed, locate
from tilewhisper.models.errors import ModelNotFound

FALLBACK = "base"
"""Downloaded where no suitable model is installed; the one to install, as it comes by pip."""

_BY_SIZE = tuple(name for name in catalog.SIZES if name != FALLBACK)
MULTILINGUAL: Sequence[str] = (FALLBACK, *(name for name in _BY_SIZE if not catalog.is_english_only(name)))
"""In order of preference: the smallest first, after the one that comes by pip."""
ENGLISH_ONLY: Sequence[str] = tuple(name for name in _BY_SIZE if catalog.is_english_only(name))


def installed_default(
    *, multilingual: bool = False, find: Callable[[str], Source | None] = find_installed
) -> Source | None:
    """The first installed model by preference, None where there is none; `multilingual` excludes English-only ones."""
    preferences = [(MULTILINGUAL, "default, multilingual")]
    if not multilingual:
        preferences.append((ENGLISH_ONLY, "default, as no multilingual model is installed"))
    for names, reason in preferences:
        if source := next(filter(None, map(find, names)), None):
            return replace(source, reason=reason)
    return None


def default_model(hub_use: HubUse = DEFAULT_HUB_USE, *, multilingual: bool = False) -> Source:
    """The installed default, else `FALLBACK` from the hub. Raises ModelNotFound where it cannot be downloaded."""
    if source := installed_default(multilingual=multilingual, find=partial(find_installed, hub_use=hub_use)):
        return source
    missing = f"no {'multilingual ' if multilingual else ''}model is installed"
    try:
        return replace(locate(FALLBACK, hub_use), reason=f"default, as {missing}")
    except ModelNotFound as error:
        raise ModelNotFound(f"{missing}: {error}") from error


def english_only_note(name: str) -> str:
    """The limit of an English-only default, and the remedy."""
    extra = catalog.PACKAGES[FALLBACK].extra
    return f"{name} understands only English; for other languages: pip install 'tilewhisper[{extra}]'"


def default_name() -> str:
    """The default's name, for work that needs the sizes of a model and no weights."""
    source = installed_default()
    return source.name if source else FALLBACK
