"""Export a recording in Chrome's trace event format, for chrome://tracing and Perfetto."""

import os
from typing import Any

from tilewhisper.engine.tuning.breakdown import encoder_backends
from tilewhisper.engine.tuning.recording import Recording, TraceSpan
from tilewhisper.engine.tuning.watched import DECODER_PRODUCTS, Category


def chrome_trace(recording: Recording) -> dict[str, Any]:
    """A JSON object with one complete event ("X") per span. Times are microseconds from the start of the pass."""
    report, process, begin = recording.report, os.getpid(), recording.spans[-1].start
    backends = {
        Category.ENCODER: encoder_backends(report),
        Category.DECODER: dict.fromkeys(DECODER_PRODUCTS, report.decoder.used),
    }
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": process, "args": {"name": f"tilewhisper {report.model}"}}
    ]
    for span in sorted(recording.spans, key=lambda span: span.start):
        backend = backends.get(span.category, {}).get(span.name)
        events.append(
            {
                "ph": "X",
                "name": span.name,
                "cat": span.category,
                "pid": process,
                "tid": span.thread,
                "ts": (span.start - begin) / 1e3,
                "dur": (span.end - span.start) / 1e3,
                "args": _details(span, backend),
            }
        )
    about = {"file": report.file, "model": report.model, "policy": report.policy, "cpu": report.machine.cpu}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": about}


def _details(span: TraceSpan, backend: str | None) -> dict[str, Any]:
    found = {"function": span.function, "in": span.inputs, "out": span.output, "backend": backend}
    return {name: value for name, value in found.items() if value}
