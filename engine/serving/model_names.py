"""The names of a server's models: what `/v1/models` lists, and which model each name of a request stands for."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.serving.errors import RequestError
from tilewhisper.models.checkpoint import catalog

OPENAI_NAME = "whisper-1"
"""OpenAI's name of Whisper, which clients send unless they are told another."""


class ModelNames:
    """The served models by name. A path is served under the name of its file or folder."""

    def __init__(self, models: Sequence[str]) -> None:
        """`models` are names or paths, the default first. Raises OptionError."""
        self.sources: Mapping[str, str] = {served_name(model): model for model in reversed(models)}
        """Name -> the name or path to load."""
        if len(self.sources) < len(set(models)):
            raise OptionError(f"--model: two models have the same name, of {', '.join(map(served_name, models))}")
        self.served = tuple(dict.fromkeys(map(served_name, models)))
        self.default = self.served[0]

    def resolve(self, name: str) -> str:
        """The served model that a name stands for: its own, else the default for an official name or whisper-1.

        Raises RequestError for any other name.
        """
        size = name.removeprefix("openai/").removeprefix("whisper-")
        for spelling in (name, size, catalog.ALIASES.get(size, size)):
            if spelling in self.served:
                return spelling
        if name == OPENAI_NAME or catalog.repository(size):
            return self.default
        raise RequestError(
            404,
            f"there is no model {name[:100]!r} here; the models are {', '.join(self.served)}, and {OPENAI_NAME} is "
            f"another name of {self.default}",
            param="model",
            code="model_not_found",
        )


def served_name(model: str) -> str:
    """A model's name in requests and answers: never a path of the server."""
    is_path = model.startswith((".", "/", "~")) or "\\" in model or model.count("/") > 1 or Path(model).exists()
    if is_path and not catalog.repository(model):
        return Path(model.replace("\\", "/")).name.removesuffix(".pt")
    return model
