"""`tilewhisper convert`: write a model in the format of another engine."""

from argparse import Namespace

from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.progress import progress_bar
from tilewhisper.models.checkpoint import export
from tilewhisper.models.checkpoint.locate import locate

LARGE = 200_000_000
"""Parameters above which a progress bar is shown."""


def run(args: Namespace) -> int:
    """Raises ModelsError for a model, format, precision or folder that cannot be used."""
    form, precision = export.check(args.to, args.precision)
    export.check_folder(args.folder)
    source = locate(args.model)
    from tilewhisper.models.checkpoint import loader  # imports torch

    checkpoint = loader.read(source)
    errors = console(stderr=True)
    with progress_bar(errors.is_terminal, errors, above=LARGE, label="converting") as progress:
        files = export.write(checkpoint, args.to, args.folder, precision, progress)
    screen = console()
    for file in files:
        say(screen, f"{file.stat().st_size / 1e6:10.1f} MB  {file}")
    say(screen, f"{args.to}, {precision}; loaded by {form.engines}")
    return 0
