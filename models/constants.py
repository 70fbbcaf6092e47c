"""Constants every Whisper model shares, with their units. Derived values are exact divisions, checked on import."""

SAMPLE_RATE = 16_000  # Hz
HOP_LENGTH = 160  # samples from one log-mel frame to the next: 10 ms
N_FFT = 400  # samples a log-mel frame sees: 25 ms
WINDOW_SECONDS = 30  # audio the encoder takes at once

FRAMES_PER_SECOND = SAMPLE_RATE // HOP_LENGTH
FRAMES_PER_WINDOW = WINDOW_SECONDS * FRAMES_PER_SECOND  # 3000
FRAMES_PER_POSITION = 2  # the second convolution has stride 2
POSITIONS = FRAMES_PER_WINDOW // FRAMES_PER_POSITION  # 1500 encoder states
POSITIONS_PER_SECOND = FRAMES_PER_SECOND // FRAMES_PER_POSITION  # 50

FRAMES_PER_TIMESTAMP = 2
TIMESTAMPS_PER_SECOND = FRAMES_PER_SECOND // FRAMES_PER_TIMESTAMP  # 50: a timestamp token is 0.02 s
TIMESTAMPS = WINDOW_SECONDS * TIMESTAMPS_PER_SECOND + 1  # 1501 tokens: 0.00 s to 30.00 s

assert FRAMES_PER_SECOND * HOP_LENGTH == SAMPLE_RATE
assert POSITIONS_PER_SECOND * FRAMES_PER_POSITION == FRAMES_PER_SECOND
assert TIMESTAMPS_PER_SECOND * FRAMES_PER_TIMESTAMP == FRAMES_PER_SECOND
