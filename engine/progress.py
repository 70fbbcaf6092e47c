"""How far a transcription is: a callback, and a bar on standard error or on a screen of the caller's."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[float, float], None]
"""Called with what is done and what there is in all: after each window with seconds, after each file with files."""


@contextmanager
def progress_bar(wanted: bool, screen: "Console | None" = None, above: float = 0) -> Iterator[Progress | None]:
    """A bar, gone at the end, and not seen unless there is more than `above` in all; None where it is not wanted."""
    if not wanted:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=screen or Console(stderr=True), transient=True) as bar:
        task = bar.add_task("transcribing", total=None, visible=not above)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=total > above)
