"""Keep samples at the times of their file: how much silence stands in for audio that is missing, and why it is missing.

A gap longer than `JITTER_SECONDS` is filled. A shorter one is not, because timestamps are rounded and codecs start with
some padding. Audio that is too early is never moved.
"""

import math

from tilewhisper.models.audio.facts import AudioLog

JITTER_SECONDS = 0.1
LONGEST_GAP_SECONDS = 3600.0  # timestamps that jump further are wrong
LONGEST_OVERLAP_SECONDS = 10.0  # timestamps that jump back further have started anew
DAMAGE_SECONDS = 1.0  # a gap this soon after damage is its consequence: what follows may still decode, or seem to
SKIPPED_BYTES = 1024  # more than the headers of a cluster and a packet take
TAGS = (b"ID3", b"TAG", b"APETAGEX")  # joined mp3 files have tags between them, which do not decode


class TrackClock:
    """Follows one track packet by packet. All times are in seconds of the file."""

    def __init__(self, log: AudioLog, *, timestamped: bool, sequential: bool, gapless: bool) -> None:
        """`timestamped`: packets carry times. `sequential`: packets lie in the file in the order of their times, so
        that skipped bytes before a gap are damage. `gapless`: every gap is damage."""
        self._log, self._timestamped, self._sequential = log, timestamped, sequential
        self._position = 0.0  # of the next sample
        self._offset = 0.0  # of the timestamps, after a jump that is an error
        self._latest = 0.0  # end of the latest packet of any track
        self._lost = 0.0  # duration of failed packets for which no silence was put
        self._trailing = 0.0  # duration of the failed packets since the last sample
        self._damaged_until = math.inf if gapless else -math.inf  # gaps before are damage
        self._kept_bytes, self._kept_seconds = 0, 0.0
        self._sync = b""  # first byte of packets that decode
        self._next_byte = 0

    @property
    def reached(self) -> float:
        """How far the packets reach: audio may end before video, and some packets carry no duration."""
        return max(self._position + self._trailing, self._latest)

    def read_packet(self, time: float | None, duration: float, first_byte: int | None, size: int) -> None:
        """Note a packet of any track, where it lies in time and in the file."""
        if self._timestamped and time is not None and time - self._offset - self._latest < LONGEST_GAP_SECONDS:
            self._latest = max(self._latest, time - self._offset + duration)
        if self._sequential and first_byte is not None:
            if 0 < self._next_byte < first_byte - SKIPPED_BYTES:
                self._note_damage()
            self._next_byte = max(self._next_byte, first_byte + size)

    def keep_packet(self, data: bytes, duration: float) -> None:
        """Note a packet of the track that was decoded."""
        self._kept_bytes, self._kept_seconds = self._kept_bytes + len(data), self._kept_seconds + duration
        self._sync = data[:1] or self._sync

    def lose_packet(self, data: bytes, duration: float) -> None:
        """Note a packet of the track that could not be decoded."""
        if data.startswith(TAGS) or (not self._kept_seconds and not self._timestamped):  # bytes before the first frame
            return
        seconds = duration
        if not self._timestamped:  # libav puts all bytes between two intact frames into one packet
            seconds = max(duration, len(data) * self._kept_seconds / self._kept_bytes)
        self._lost += seconds
        self._note_damage()
        if self._timestamped or data[:1] == self._sync:  # else it may be something behind the last frame
            self._trailing += seconds

    def silence_before(self, time: float | None) -> float:
        """Seconds of silence to put before the next sample, whose timestamp is `time`."""
        missing = self._missing(time) if self._timestamped else self._lost
        self._trailing = 0.0
        if missing <= JITTER_SECONDS:
            return 0.0
        if self._position < self._damaged_until:
            self._log.add_gap(self._position, missing)
        self._log.add_silence(self._position, missing)
        self._position += missing
        self._lost = 0.0
        return missing

    def advance(self, seconds: float) -> None:
        """Count decoded samples."""
        self._position += seconds

    def break_off(self) -> None:
        """Note that no packet can be found from here on, although the file goes on."""
        self._log.problems.append(f"nothing could be read after {self._position:.1f} s")

    def finish(self) -> None:
        """Record what failed after the last sample."""
        if self._trailing > JITTER_SECONDS:
            self._log.add_gap(self._position, self._trailing)

    def _note_damage(self) -> None:
        self._damaged_until = max(self._damaged_until, self._position + DAMAGE_SECONDS)

    def _missing(self, time: float | None) -> float:
        if time is None:
            return 0.0
        missing = time - self._offset - self._position
        if -LONGEST_OVERLAP_SECONDS <= missing <= LONGEST_GAP_SECONDS:
            return missing
        self._offset += missing
        self._log.timestamp_jumps += 1
        return 0.0
