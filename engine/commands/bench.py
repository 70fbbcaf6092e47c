"""`tilewhisper bench`: compare the real-time factors of policies and of transformers."""

import json
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

from tilewhisper.engine.commands import loading
from tilewhisper.engine.commands.files import check_separate, check_writable, write
from tilewhisper.engine.commands.inputs import check_repeatable
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.routing.policy import DEFAULT_POLICY, load_policy
from tilewhisper.models.constants import SAMPLE_RATE
from tilewhisper.models.errors import AudioError


def run(args: Namespace) -> int:
    if args.runs < 1:
        raise OptionError(f"--runs must be >= 1, got {args.runs}")
    check_writable(args.json)
    check_separate([("--json", args.json)], args.files)
    if args.peer == "transformers" and not find_spec("transformers"):
        raise OptionError("--peer transformers needs it: pip install 'tilewhisper[transformers]', or give --peer none")
    for file in args.files:
        check_repeatable(file)
    names = list(dict.fromkeys(args.policy or [DEFAULT_POLICY]))
    for name in names:
        load_policy(name)
    source = loading.model(args)
    if note := loading.english_only_note(args, source):
        say(console(stderr=True), note)

    from tilewhisper.engine import report
    from tilewhisper.engine.commands import tables
    from tilewhisper.engine.options import TranscriptionOptions
    from tilewhisper.engine.tuning import benchmark
    from tilewhisper.engine.tuning.fingerprint import machine_warning
    from tilewhisper.engine.whisper_model import WhisperModel
    from tilewhisper.models.audio import reader

    durations = [len(reader.decode_audio(file)) / SAMPLE_RATE for file in args.files]
    if not sum(durations):
        raise AudioError(f"{', '.join(args.files)}: no audio (0 samples), so there is nothing to measure")
    models = [WhisperModel(source, policy=name, cpu_threads=args.threads, settings=settings(args)) for name in names]
    for model in models:
        if warning := machine_warning(model.policy):
            say(console(stderr=True), warning)
    models[0].check(TranscriptionOptions(args.language, args.task, audio_context=args.audio_context))
    contenders: list[benchmark.Contender] = [benchmark.PolicyContender(model) for model in models]
    if args.peer == "transformers":
        from tilewhisper.engine.tuning.transformers_whisper import TransformersWhisper

        contenders.append(benchmark.TransformersContender(TransformersWhisper(source)))
    baseline = contenders[0] if args.peer == "none" else contenders[-1]
    speech = benchmark.SpeechOptions(args.language, args.task, args.audio_context)
    rows = benchmark.measure(contenders, args.files, speech, args.runs, baseline)
    result = benchmark.Benchmark(
        model=models[0].checkpoint.name,
        files=args.files,
        audio_seconds=sum(durations),
        speech=speech,
        baseline=baseline.name,
        rows=rows,
        machine=report.machine(),
    )
    screen = console()
    try:
        screen.print(tables.benchmark_table(result))
        say(screen, tables.benchmark_line(result))
    finally:  # written even if standard output is lost
        if args.json:
            write(Path(args.json), json.dumps(result.to_json(), indent=1) + "\n")
    return 0
