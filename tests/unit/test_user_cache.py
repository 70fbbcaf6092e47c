"""Caches of a user who has no home."""

import os
import pwd
from pathlib import Path

from tilewhisper.kernels.user_cache import user_cache
from tilewhisper.models.checkpoint import cache_folder


def test_a_user_without_a_home_caches_nothing(monkeypatch):
    def unknown(_):
        raise KeyError("getpwuid(): uid not found")

    assert user_cache("native") == Path.home() / ".cache/tilewhisper/native"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert user_cache("native") == Path(os.devnull, "native")
    assert cache_folder._default_folder() == Path(os.devnull, "models")
