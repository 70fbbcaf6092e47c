"""Report the progress of long work: a callback type, and a progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[float, float], None]
"""Called with the work done and the total: seconds after each window, files after each file, values when converting."""

OnRead = Callable[[float], None]
"""Called with the seconds read so far, whenever a block of audio was read or searched for speech."""


@contextmanager
def progress_bar(
    enabled: bool, screen: "Console | None" = None, above: float = 0, label: str = "transcribing"
) -> Iterator[Progress | None]:
    """Yield a callback that moves a bar on `screen` (default: standard error), or None if not `enabled`.

    The bar is shown only for totals above `above`, and disappears at the end.
    """
    if not enabled:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=screen or Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None, visible=not above)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=total > above)
