"""A job: the windows of some clips of one session, decoded one after the other. `scheduler` runs jobs."""

from collections import deque
from collections.abc import Sequence

from tilewhisper.engine.decoding.batch import Attempt, DecodedWindow
from tilewhisper.engine.pipeline.fallback import Attempts, decode_window
from tilewhisper.engine.pipeline.segmenter import Segmenter, WindowResult
from tilewhisper.engine.pipeline.session import Session
from tilewhisper.engine.results import Segment


class Job:
    """The windows of some clips of one session, decoded one after the other."""

    def __init__(self, session: Session, segmenter: Segmenter, batch_size: int = 1) -> None:
        """`batch_size` is how many windows the caller wants decoded together, above `scheduler.MAX_BATCH`."""
        self.session, self.batch_size = session, batch_size
        self._segmenter = segmenter
        self._attempts: Attempts | None = None
        self._attempt: Attempt | None = None
        self._segments: deque[Segment] = deque()
        self.windows_done = 0
        self.done = segmenter.request is None
        """Whether no window follows: the job is finished, failed or cancelled."""
        self.cancelled = False
        self.error: Exception | None = None
        """Why the job failed."""

    @property
    def position(self) -> int:
        """The frame at which the next window starts; see `Segmenter.position`."""
        return self._segmenter.position

    @property
    def token_logprobs(self) -> Sequence[tuple[int, float]]:
        """The tokens of all segments so far, each with its log-probability."""
        return self._segmenter.token_logprobs

    def take_segments(self) -> list[Segment]:
        """The segments that are new since the last call, without numbers."""
        return [self._segments.popleft() for _ in range(len(self._segments))]

    def next_attempt(self) -> Attempt:
        """The next attempt to decode; encodes the next window if need be. For the loop."""
        request = self._segmenter.request
        assert request is not None, "the job is done"
        with self.session.clock("total"):
            if self._attempts is None:
                attempts = decode_window(self.session, request)
                self._attempt = next(attempts)
                self._attempts = attempts
        assert self._attempt is not None
        return self._attempt

    def accept(self, decoded: DecodedWindow) -> None:
        """Take the result of the attempt. For the loop."""
        assert self._attempts is not None, "no attempt was requested"
        with self.session.clock("total"):
            try:
                self._attempt = self._attempts.send(decoded)
                return
            except StopIteration as finished:
                result: WindowResult = finished.value
            self._attempts = self._attempt = None
            self._segments.extend(self._segmenter.accept(result))
        # After the segments are in place: the job's owner may look from another thread.
        self.done = self.done or self._segmenter.request is None
        self.windows_done += 1

    def restart_window(self) -> None:
        """Forget the attempts at the current window, which starts again. For the loop."""
        self._attempts = self._attempt = None

    def fail(self, error: Exception) -> None:
        """End the job with an error that its owner will raise. For the loop."""
        self.error, self.done = error, True

    def cancel(self) -> None:
        """End the job without an error."""
        self.cancelled = self.done = True
