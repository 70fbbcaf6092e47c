"""`tilewhisper bench`: real-time factors of policies and a peer, side by side."""

import json
from argparse import Namespace
from pathlib import Path

from tilewhisper.engine import policy as policies
from tilewhisper.engine.commands.files import check_writable, write
from tilewhisper.engine.commands.npu import settings
from tilewhisper.engine.commands.screen import console, say
from tilewhisper.engine.errors import OptionError
from tilewhisper.engine.policy import DEFAULT_POLICY
from tilewhisper.models.locate import locate


def run(args: Namespace) -> int:
    if args.runs < 1:
        raise OptionError(f"--runs must be at least 1, not {args.runs}")
    check_writable(args.json)
    names = list(dict.fromkeys(args.policy or [DEFAULT_POLICY]))
    for name in names:
        policies.load(name)
    locate(args.model)

    from tilewhisper.engine import benchmark, report, tables
    from tilewhisper.engine.fingerprint import other_machine
    from tilewhisper.engine.model import WhisperModel
    from tilewhisper.engine.options import TranscriptionOptions
    from tilewhisper.models import audio
    from tilewhisper.models.transformers_path import TransformersWhisper

    durations = [len(audio.load(file)) / audio.SAMPLE_RATE for file in args.files]
    models = [
        WhisperModel(args.model, policy=name, cpu_threads=args.threads, settings=settings(args)) for name in names
    ]
    for model in models:
        if word := other_machine(model.policy):
            say(console(stderr=True), word)
    models[0].check(TranscriptionOptions(args.language, args.task, audio_context=args.audio_context))
    contenders: list[benchmark.Contender] = [benchmark.PolicyContender(model) for model in models]
    if args.peer == "transformers":
        contenders.append(benchmark.TransformersContender(TransformersWhisper(args.model)))
    baseline = contenders[0] if args.peer == "none" else contenders[-1]
    speech = benchmark.Speech(args.language, args.task, args.audio_context)
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
    screen.print(tables.benchmark_table(result))
    say(screen, tables.benchmark_line(result))
    if args.json:
        write(Path(args.json), json.dumps(result.to_json(), indent=1) + "\n")
    return 0
