"""A minimal server around faster-whisper, as its users write them: one model, a thread for each request.

python scripts/server_load/faster_whisper_server.py WEIGHTS THREADS BEAM_SIZE PORT
"""

import sys
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File, Form, UploadFile
from faster_whisper import WhisperModel

app = FastAPI()


@app.get("/health")
def health() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/v1/audio/transcriptions")
def transcribe(file: Annotated[UploadFile, File()], language: Annotated[str | None, Form()] = None) -> dict[str, Any]:
    segments, _ = app.state.model.transcribe(file.file, language=language, beam_size=app.state.beam_size)
    return {"text": "".join(segment.text for segment in segments).strip()}


if __name__ == "__main__":
    weights, threads, beam_size, port = sys.argv[1], *map(int, sys.argv[2:])
    app.state.beam_size = beam_size
    app.state.model = WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=threads)
    uvicorn.run(app, port=port, log_level="warning")
