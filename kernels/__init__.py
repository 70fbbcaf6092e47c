"""Matrix products on different backends. Knows shapes, numbers and devices; never a layer name, never Whisper."""
