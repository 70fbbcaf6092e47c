"""The documentation against the code: code blocks run or parse, links have targets, generated parts are current.

A fence's info string says how its block is tested:

    python          executed; the blocks of one page share their names and run from top to bottom
    sh              every line is a `tilewhisper`, `python scripts/…` or `python examples/…` command, and is run
    sh parse-only   the same, read by the command's own argument parser only: it needs time, other data or a download
    sh set-up       any commands, checked by `bash -n`; those of this project are read by their argument parsers
    sh server       run by bash, with a server at the address that the block names; every curl must succeed
    toml            a policy, read by the policy parser
    text            output or a diagram

Any other info string is an error. Blocks run in a temporary folder where the sample has the file names they use.
"""

import argparse
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import SAMPLE, SAMPLE_WORDS, require_weights

from tilewhisper import WhisperModel
from tilewhisper.engine.commands import main as command
from tilewhisper.engine.commands.flags import FLAGS
from tilewhisper.engine.routing.policy import load_policy, parse_policy, presets
from tilewhisper.kernels import registry
from tilewhisper.models.checkpoint.export import FORMATS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "tests/data/README.md") if path.is_file()
)
SAMPLE_NAMES = ("talk.mp3", "talk.m4a", "talk.mp4", "talk.wav", "recordings/first.flac", "recordings/second.wav")
INFOS = ("python", "sh", "sh parse-only", "sh set-up", "sh server", "toml", "text")
SERVER = "127.0.0.1:8000"
"""The address in the documentation; the tests' own server has another port."""
_FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block. `line` is that of its first line of code, counted from 1."""

    page: str
    line: int
    info: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str) -> Iterator[Block]:
    for fence in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, fence.start("code")) + 1, fence["info"], fence["code"])


BLOCKS = [block for path in PAGES for block in blocks_of(str(path.relative_to(ROOT)), path.read_text("utf-8"))]
PYTHON_PAGES = sorted({block.page for block in BLOCKS if block.info == "python"})


def with_info(info: str) -> list[Block]:
    return [block for block in BLOCKS if block.info == info]


def of_info(*infos: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("block", [block for info in infos for block in with_info(info)], ids=str)


def commands_of(code: str) -> list[list[str]]:
    """The simple commands of a shell text, as words: its lines, and the parts of a list such as `a && b`."""
    commands = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split, words.commenters = True, "#"
        command: list[str] = []
        for word in words:
            if word in ("&&", "||", ";", "|"):
                commands.append(command)
                command = []
            else:
                command.append(word)
        commands.append(command)
    return [command for command in commands if command]


def is_ours(words: Sequence[str]) -> bool:
    if Path(words[0]).name == "tilewhisper":
        return True
    return Path(words[0]).name == "python" and len(words) > 1 and words[1].startswith(("scripts/", "examples/"))


def run(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run one of this project's commands in this process; its exit status."""
    if Path(words[0]).name == "tilewhisper":
        return command.main(words[1:])
    script = ROOT / words[1]
    monkeypatch.setattr(sys, "argv", [str(script), *words[2:]])
    monkeypatch.syspath_prepend(script.parent)
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        assert end.code is None or isinstance(end.code, int), end.code
        return end.code or 0
    return 0


class Parsed(BaseException):
    """Ends a command after its arguments were parsed. No handler of the command catches it."""


def parse(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a command parse its arguments, and stop it there."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, args=None, namespace=None):
        original(parser, args, namespace)
        raise Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        with pytest.raises(Parsed):
            status = run(words, patch)
            pytest.fail(f"{shlex.join(words)} ended with status {status} before its arguments were parsed")


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """The current folder: the sample under the names that the documentation uses, and a policy."""
    require_weights("tiny.en")
    for name in SAMPLE_NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(SAMPLE, tmp_path / name)
    (tmp_path / "mine.toml").write_text('default = "torch"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server_address() -> Iterator[str]:
    """The address of a server with tiny.en."""
    pytest.importorskip("fastapi", reason="serving needs pip install 'tilewhisper[serve]'")
    pytest.importorskip("openai", reason="the client of an example")
    from running_server import running, wait_for

    require_weights("tiny.en")
    with running(WhisperModel) as server:
        wait_for(server.server.pool.loaded)  # a busy machine still loads when `curl` has started
        yield server.url.removeprefix("http://")


def test_every_block_has_a_known_info_string():
    assert not [f"{block}: {block.info!r}" for block in BLOCKS if block.info not in INFOS]
    assert sum(path.read_text("utf-8").count("\n```") for path in PAGES) == 2 * len(BLOCKS), "a fence is not closed"


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_blocks_run(page, desk, capsys, request):
    names = {"__name__": "__main__"}
    for block in with_info("python"):
        if block.page == page:
            code = "\n" * (block.line - 1) + block.code  # a traceback then shows the page's own lines
            if SERVER in code:
                code = code.replace(SERVER, request.getfixturevalue("server_address"))
            exec(compile(code, str(ROOT / page), "exec"), names)
    assert SAMPLE_WORDS in capsys.readouterr().out


NEEDS_AN_NPU = {
    "a built design": lambda words: any(word.endswith((".bin", ".xclbin")) for word in words),
    "the tools that compile": lambda words: "--compile" in words,
    "an NPU": lambda words: words[1] in ("transcribe", "npu-check") and "emulated" not in words,
    "a policy without a fallback": lambda words: "--npu_fault" in words,
}


@pytest.mark.parametrize(
    "words",
    [
        words
        for block in BLOCKS
        if block.page == "docs/npu.md" and block.info in ("sh parse-only", "sh set-up")
        for words in commands_of(block.code)
        if is_ours(words)
    ],
    ids=shlex.join,
)
def test_only_commands_that_need_an_npu_or_its_tools_are_not_run(words):
    """All other commands of the page are in blocks that `test_shell_blocks_run` runs."""
    assert any(needs(words) for needs in NEEDS_AN_NPU.values())


@pytest.mark.slow
@of_info("sh")
def test_shell_blocks_run(block, desk, monkeypatch):
    if "build_kernels.py" in block.code:
        pytest.importorskip("xdsl", reason="checking designs needs xDSL: pip install 'tilewhisper[npu]'")
    for words in commands_of(block.code):
        assert is_ours(words), f"{shlex.join(words)}: not a command of this project; is the block a set-up?"
        assert run(words, monkeypatch) == 0, shlex.join(words)


@pytest.mark.slow
@of_info("sh server")
def test_commands_for_a_server_run(block, desk, server_address, monkeypatch):
    if not shutil.which("curl"):
        pytest.skip("curl is missing")
    (desk / ".curlrc").write_text("fail\n")  # a refused request is a failure, which it is not by itself
    monkeypatch.setenv("CURL_HOME", str(desk))
    script = block.code.replace(SERVER, server_address)
    done = subprocess.run(["bash", "-e"], input=script, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answers = SAMPLE_WORDS if "file=@" in script else "tilewhisper"
    assert answers in " ".join(done.stdout.split())


@pytest.mark.slow
@of_info("sh parse-only", "sh set-up")
def test_commands_are_parsed(block, monkeypatch):
    for words in commands_of(block.code):
        if is_ours(words):
            parse(words, monkeypatch)
        else:
            assert block.info == "sh set-up", f"{shlex.join(words)}: not a command of this project"


@of_info("sh", "sh parse-only", "sh set-up", "sh server")
def test_bash_reads_shell_blocks(block):
    subprocess.run(["bash", "-n"], input=block.code, text=True, check=True, timeout=60)


@of_info("toml")
def test_policies_are_read_and_name_known_backends(block):
    policy = parse_policy(block.code, str(block))
    backends = {policy.default, policy.decoder.backend, *(rule.backend for rule in policy.rules)}
    assert backends <= set(registry.names())


@pytest.mark.parametrize("page", [str(path.relative_to(ROOT)) for path in PAGES])
def test_links_lead_to_files_and_headings(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", _FENCE.sub("", text)):
        if not target.startswith(("http://", "https://", "mailto:")):
            file, _, anchor = target.partition("#")
            linked = (ROOT / page).parent / file if file else ROOT / page
            assert linked.exists(), f"{page} links to {target}"
            if anchor:
                assert anchor in anchors(linked.read_text("utf-8")), f"{page} links to {target}"


def anchors(text: str) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_has_one_test_command():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) < 185
    assert len([line for line in lines if line.endswith(".venv/bin/pytest")]) == 1, "the line that .ci/run looks for"


@pytest.mark.slow
@pytest.mark.usefixtures("only_tiny_en")
def test_the_readme_shows_what_the_command_prints(capsys):
    """Figures differ from run to run; the text and the tables' headings do not. The README installs only tiny.en."""
    assert command.main(["transcribe", str(SAMPLE)]) == 0
    text, figures = capsys.readouterr()
    shown = [" ".join(line.split()) for block in with_info("text") for line in block.code.splitlines()]
    assert text.strip() in shown
    headings = [" ".join(line.split()) for line in figures.splitlines() if line.startswith(("stage ", "requested "))]
    assert len(headings) == 2
    assert set(headings) <= set(shown)


@pytest.mark.slow
@pytest.mark.usefixtures("only_tiny_en")
def test_the_readme_shows_the_subtitles_that_the_recipe_writes(desk, monkeypatch):
    (recipe,) = (block for block in with_info("sh") if block.page == "README.md" and "-f srt" in block.code)
    for words in commands_of(recipe.code):
        run(words, monkeypatch)
    assert (desk / "talk.srt").read_text("utf-8").strip() in [block.code.strip() for block in with_info("text")]


@pytest.mark.parametrize("name", ["transcribe", "batch", "convert", "listen", "plan", "serve"])
def test_every_flag_is_documented_and_every_documented_flag_exists(name, capsys):
    with pytest.raises(SystemExit):
        command.main([name, "--help"])
    flags = set(re.findall(r"(?<![\w-])--[a-z_0-9]+", capsys.readouterr().out)) - {"--help"}
    if name == "batch":  # documented once, with `transcribe`
        flags -= {f"--{spelling}" for flag in FLAGS.values() for spelling in (flag.name, flag.field.option.alias)}
    section = (ROOT / "docs/usage.md").read_text("utf-8").partition(f"## Flags of `{name}`")[2].partition("\n## ")[0]
    names = re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
    documented = {flag for name in names for flag in re.findall("--[a-z_0-9]+", name)}
    assert documented == flags


def test_every_preset_and_backend_is_documented():
    text = (ROOT / "docs/policies-and-backends.md").read_text("utf-8")
    first_cells = set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE))
    assert first_cells >= {*presets(), *registry.names()}
    for name in presets():
        default = load_policy(name).decoder.backend
        row = re.search(rf"^\| `{name}` \|.*\| `(\w+)` \|$", text, re.MULTILINE)
        assert row and row[1] == default, f"the decoder of preset {name}"


def test_the_formats_that_convert_writes_are_documented():
    text = (ROOT / "docs/usage.md").read_text("utf-8")
    for name, form in FORMATS.items():
        assert f"| `{name}` | {form.engines} | {', '.join(f'`{one}`' for one in form.precisions)} |" in text


def load_script(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return runpy.run_path(str(ROOT / "scripts" / name))


def test_the_list_of_modules_is_current(monkeypatch):
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    assert page == load_script("list_modules.py", monkeypatch)["updated"](page), "run python scripts/list_modules.py"


def test_the_benchmarks_page_is_rendered_from_the_stored_figures(monkeypatch):
    script = load_script("make_benchmarks.py", monkeypatch)
    rendered = script["rendered"](script["LATEST"])
    assert script["PAGE"].read_text("utf-8") == rendered, "run python scripts/make_benchmarks.py render"


def test_a_wrong_block_is_noticed(monkeypatch):
    text = "words\n\n```sh parse-only\ntilewhisper transcribe x.wav --no-such-flag 1 && true\n```\n"
    (block,) = blocks_of("page.md", text)
    assert (block.line, block.info) == (4, "sh parse-only")
    ours, other = commands_of(block.code)
    assert is_ours(ours)
    assert not is_ours(other)
    with pytest.raises(SystemExit):
        parse(ours, monkeypatch)
    parse(["tilewhisper", "transcribe", "x.wav"], monkeypatch)
