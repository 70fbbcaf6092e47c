"""Top-k and rescoring of logits by the native kernels on every instruction set of this processor."""

import math
from dataclasses import dataclass

import pytest
import torch
from made_tensors import normal

from tilewhisper.kernels.cpu import build
from tilewhisper.kernels.cpu.torch_f32 import TorchBackend
from tilewhisper.kernels.decoder import RowsInFile

if reason := build.why_unavailable():
    pytest.skip(reason, allow_module_level=True)


pytest_plugins = ["native_fixtures"]


@pytest.mark.parametrize("n", [1, 5, 4096, 51865])
@pytest.mark.parametrize("count", [1, 6])
def test_top_k_equals_torchs(instruction_set, backend, n, count):
    logits = normal(3, n, seed=n) * 4
    logits[:, ::7] = float("-inf")
    logits[2, n // 2 :] = float("-inf")
    count = min(count, n)
    values, tokens, total = backend.top_k(logits, count)
    exact = TorchBackend().top_k(logits.double(), count)
    assert torch.equal(values, exact[0].float())
    finite = values.isfinite()  # of suppressed tokens, any may be there
    assert torch.equal(tokens[finite], exact[1][finite])
    torch.testing.assert_close(total, exact[2].float(), rtol=1e-5, atol=1e-5)


def test_masked_logits_equal_torchs(instruction_set, backend):
    logits = normal(3, 4099)
    arguments = torch.tensor([0, 4098, 7]), [(0, 0, 2000), (2, 4000, 4099), (2, 5, 5)]
    expected = logits.clone()
    TorchBackend().mask(expected, *arguments)
    backend.mask(logits, *arguments)
    assert torch.equal(logits, expected) and expected.isinf().sum() == 3 * 3 + 2000 - 2 + 99 - 1


@pytest.mark.parametrize("split", [1, 2048, 4098])
def test_the_last_part_is_preferred_where_it_is_more_probable_than_the_first_parts_largest(
    split, instruction_set, backend
):
    """Row 0 by far, row 1 by a little, row 2 not by a little; row 3 has no first part, row 4 nothing at all."""
    logits = normal(5, 4099)
    total = logits[:3, split:].logsumexp(1)
    logits[:3, :split] = logits[:3, :split].clamp(max=-9)
    logits[:3, split - 1] = total + torch.tensor([-20, -1e-3, 1e-3])
    logits[3, :split] = logits[4] = -math.inf
    expected = logits.clone()
    TorchBackend().prefer_last_part(expected, split)
    backend.prefer_last_part(logits, split)
    assert torch.equal(logits, expected)
    assert logits[:, :split].isinf().all(1).tolist() == [True, True, False, True, True]


@dataclass
class OfFile:
    descriptor: int
    offset: int

    def unreadable(self) -> Exception:
        return OSError("shortened")


class PickedRows:
    """A weight that only gives single rows, as one that is quantised in its file."""

    def __init__(self, weight):
        self.pick = lambda indices: weight[indices]


def unaligned(weight):
    """The weight one byte behind an aligned address."""
    raw = torch.zeros(weight.nbytes + 1, dtype=torch.uint8)
    raw[1:] = weight.view(torch.uint8).flatten()
    return torch.frombuffer(raw.numpy(), dtype=weight.dtype, offset=1).view(weight.shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_from_a_file_give_the_logits_of_rows_in_memory(dtype, instruction_set, backend, tmp_path):
    weight, x, path = normal(3000, 101).to(dtype), normal(4, 101, seed=1), tmp_path / "weights"
    path.write_bytes(bytes(5) + weight.view(torch.uint8).numpy().tobytes())
    lm_head = backend.prepare_lm_head(weight.float())
    logits = backend.logits(x, lm_head)
    from_memory, from_file = logits.clone(), logits.clone()
    backend.rescore(from_memory, x, lm_head, weight, 2500, 6)
    with path.open("r+b") as file:
        rows = RowsInFile(torch.empty_like(weight), OfFile(file.fileno(), offset=5))
        backend.rescore(from_file, x, lm_head, rows, 2500, 6)
        assert torch.equal(from_file, from_memory) and not torch.equal(from_file, logits)
        file.truncate(path.stat().st_size - weight[0].nbytes * 2999)
        with pytest.raises(OSError, match="shortened"):
            backend.rescore(logits, x, lm_head, rows, 2500, 6)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16, PickedRows])
@pytest.mark.parametrize("count", [1, 6])
def test_rescored_logits_are_exact_where_a_token_may_be_in_the_top_k(count, stored, instruction_set, backend):
    weight, x, split = normal(3000, 101), normal(4, 101, seed=1), 2500
    weight[9] /= 1e5  # subnormal in float16
    x[0, 7], weight[5] = 30.0, weight[5] * 3  # a row and a token with coarser steps than the others
    weight[split] = x[0] / 2  # the second part of row 0 is more probable than its first
    weight = weight if stored is PickedRows else weight.to(stored).float()
    lm_head = backend.prepare_lm_head(weight)
    exact, logits = (x.double() @ weight.double().T), backend.logits(x, lm_head)
    suppressed = exact[1].argmax()
    logits[1, suppressed] = exact[1, suppressed] = -math.inf
    logits[2, split:] = exact[2, split:] = -math.inf
    logits[3, split + 3 :] = exact[3, split + 3 :] = -math.inf
    approximate = logits.clone()
    rows = PickedRows(weight) if stored is PickedRows else unaligned(weight.to(stored))
    backend.rescore(logits, x, lm_head, rows, split, count)
    needed = exact[:, split:].logsumexp(dim=1) > exact[:, :split].amax(dim=1)
    assert needed[0] and not needed.all()
    first, second, every = slice(0, split), slice(split, None), slice(None)
    for part, of in ((first, ~needed), (second, needed), (every, ~needed)):
        found, wanted = logits[of, part].double(), exact[of, part]
        near = (wanted >= wanted.topk(count).values[:, -1:] - 0.05) & wanted.isfinite()
        assert near.any() and ((found - wanted)[near].abs() < 1e-4).all()
        assert (found.argmax(dim=1) == wanted.argmax(dim=1)).all()
        torch.testing.assert_close(found.topk(count).values, wanted.topk(count).values, rtol=0, atol=1e-4)
    assert (logits[2, split:] == -math.inf).all() and logits[1, suppressed] == -math.inf
    if lm_head.bits > 4:  # of random rows, which have no common part, 4 bits decide little
        assert (logits != approximate)[:, :split].sum() < 0.02 * approximate.numel()


@pytest.mark.parametrize("lowered", [0, 7])
def test_logits_are_exact_where_a_token_may_rise_to_the_top_k(lowered, backend):
    """The 7 largest of the first part become small, and the second part's come between those that are left."""
    weight, x, split, count = normal(3000, 64), normal(4, 64, seed=1), 2500, 3
    lm_head = backend.prepare_lm_head(weight)
    logits, exact = backend.logits(x, lm_head), x.double() @ weight.double().T
    backend.rescore(logits, x, lm_head, weight, split, count, lowered)
    rows, largest = torch.arange(4)[:, None], exact[:, :split].topk(lowered).indices
    logits[rows, largest] = exact[rows, largest] = -100
    together, left = exact[:, split:].logsumexp(dim=1), exact[:, :split].amax(dim=1)
    for part in (slice(None), slice(0, split)):
        best = (each[together <= left, part].topk(count).values for each in (logits.double(), exact))
        torch.testing.assert_close(*best, rtol=0, atol=1e-4)
    best = (each[together > left, split:].topk(count).values for each in (logits.double(), exact))
    torch.testing.assert_close(*best, rtol=0, atol=1e-4)


@pytest.mark.parametrize("count", [1, 6])
def test_the_tokens_are_those_of_exact_logits(instruction_set, backend, count):
    """Whether timestamps win, and the largest of what is left, in rows where they do so by far, hardly and not."""
    common, split, rows = normal(1, 96, seed=2), 3500, 200
    weight, x = normal(4000, 96, seed=1) / 10 + common, normal(rows, 96, seed=3) * 4
    logits = x @ weight.T
    lift = logits[:, :split].amax(1) - logits[:, split:].logsumexp(1) + 3 * normal(rows, seed=4)
    # Another column lifts the second part's logits.
    weight = torch.cat([weight, (torch.arange(4000) >= split).float()[:, None], torch.zeros(4000, 31)], dim=1)
    x = torch.cat([x, lift[:, None], torch.zeros(rows, 31)], dim=1)
    lm_head = backend.prepare_lm_head(weight)
    found, exact = backend.logits(x, lm_head), (x.double() @ weight.double().T).float()
    backend.rescore(found, x, lm_head, weight, split, count)
    for logits in (found, exact):
        backend.prefer_last_part(logits, split)
    wins = exact[:, 0].isinf()
    assert 70 < wins.sum() < 130
    assert torch.equal(found[:, 0].isinf(), wins)
    assert torch.equal(backend.top_k(found, count)[1], backend.top_k(exact, count)[1])


def test_text_is_left_alone_where_timestamps_win_for_certain(backend):
    weight, x, split = normal(3000, 64), normal(4, 64, seed=1), 2500
    lm_head = backend.prepare_lm_head(weight)
    logits = backend.logits(x, lm_head)
    logits[:2, split:] += 1000
    before = logits.clone()
    backend.rescore(logits, x, lm_head, weight, split, 6)
    assert torch.equal(logits[:2, :split], before[:2, :split])
    assert not torch.equal(logits[2:, :split], before[2:, :split])
