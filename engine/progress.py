"""How far a transcription is: a callback, and a bar on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[float, float], None]
"""Called after each window with the seconds done and the seconds in all."""


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Progress | None]:
    """A bar, gone at the end; None where it is not wanted."""
    if not wanted:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("transcribing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
