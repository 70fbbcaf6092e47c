"""Weights of 4 bits on every instruction set of this processor: packing, products, the output projection."""

import math

import numpy as np
import pytest
import torch
from made_tensors import normal, relative

from tilewhisper.kernels import registry
from tilewhisper.kernels.cpu import build
from tilewhisper.kernels.cpu.int4 import Int4Backend

if reason := build.why_unavailable():
    pytest.skip(reason, allow_module_level=True)


pytest_plugins = ["native_fixtures"]
native = torch.ops.tilewhisper_native

GROUP, PANEL = 32, 16


def unpacked(panels: torch.Tensor, scales: torch.Tensor, n: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight's whole numbers -8 to 7 (n, groups, 32) and its scales (n, groups), by the layout in native/panels.h."""
    groups = -(-k // GROUP)
    both = panels.view(-1, groups, 4, PANEL, 4).permute(0, 3, 1, 2, 4).reshape(-1, groups, GROUP // 2)
    numbers = torch.cat([both & 15, both >> 4], dim=-1).int() - 8
    return numbers[:n], scales.view(-1, groups, PANEL).transpose(1, 2).reshape(-1, groups)[:n]


def dequantised(weight: torch.Tensor) -> torch.Tensor:
    n, k = weight.shape
    panels, packed_scales, _ = native.pack_nibbles(weight)
    numbers, scales = unpacked(panels, packed_scales, n, k)
    return (numbers * scales.float()[..., None]).flatten(1)[:, :k]


def in_groups(x: torch.Tensor) -> torch.Tensor:
    """x (m, k) in 8 bits, with a step for each group of 32."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[1] % GROUP)).unflatten(1, (-1, GROUP))
    most = groups.abs().amax(-1, keepdim=True)
    return ((groups * (127 / most)).round() * (most / 127)).nan_to_num().flatten(1)[:, : x.shape[1]]


def ggml_q4_0(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """quantize_row_q4_0_ref of ggml-quants.c: numbers -8 to 7 (groups, 32) and float16 scales (groups,)."""
    groups = weight.reshape(-1, GROUP).astype(np.float32)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(1, keepdims=True), 1)
    scales = largest / np.float32(-8)
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales != 0)
    numbers = np.minimum(15, (groups * inverse + np.float32(8.5)).astype(np.int8))
    return numbers.astype(np.int32) - 8, scales[:, 0].astype(np.float16)


def test_a_weight_from_q4_0_gets_its_numbers_and_scales_back():
    n, k = 70, 160
    weight = normal(n, k) * torch.logspace(-3, 2, n)[:, None]
    numbers, scales = ggml_q4_0(weight.numpy())
    from_file = torch.from_numpy(numbers * scales[:, None].astype(np.float32)).float().view(n, k)
    panels, packed_scales, errors = native.pack_nibbles(from_file)
    again, scales_again = unpacked(panels, packed_scales, n, k)
    assert torch.equal(again.reshape(-1, GROUP), torch.from_numpy(numbers))
    assert torch.equal(scales_again.flatten().view(torch.int16), torch.from_numpy(scales).view(torch.int16))
    assert (errors == 0).all()


def test_the_errors_of_packing_are_those_of_the_weight():
    weight = normal(37, 77)
    *_, errors = native.pack_nibbles(weight)
    torch.testing.assert_close(errors, (weight - dequantised(weight)).norm(dim=1))


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e9])  # 1e9 / 8 is beyond float16
def test_a_weight_that_cannot_be_packed_makes_its_column_no_number(instruction_set, bad):
    weight = normal(18, 40)
    weight[5, 35] = bad
    backend = registry.create("int4")
    y = backend.linear(normal(3, 40), backend.prepare(weight, None))
    others = [column for column in range(18) if column != 5]
    assert not y[:, 5].isfinite().any() and y[:, others].isfinite().all()


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5, 8, 13, 40, 200])
@pytest.mark.parametrize(("k", "n"), [(1, 1), (33, 70), (512, 64), (95, 97)])
def test_a_product_is_that_of_the_quantised_numbers(instruction_set, m, k, n):
    """Whole numbers are multiplied exactly: what remains is float32's rounding of k / 32 sums."""
    backend, x, weight = registry.create("int4"), normal(m, k), normal(n, k, seed=1)
    exact = in_groups(x).double() @ dequantised(weight).double().T
    # A number half way between two steps may be rounded the other way.
    assert relative(backend.linear(x, backend.prepare(weight, None)), exact) < 1e-5


def test_a_row_does_not_depend_on_the_others(instruction_set):
    backend, x = registry.create("int4"), normal(41, 100)
    prepared = backend.prepare(normal(70, 100, seed=1), normal(70))
    y = backend.linear(x, prepared)
    assert all(
        torch.equal(y[i : i + count], backend.linear(x[i : i + count], prepared)) for i in (0, 7) for count in (1, 5)
    )


def test_groups_of_the_least_numbers_are_zero(instruction_set):
    backend, x = registry.create("int4"), normal(1, 64)
    x[:, 32:] *= 1e-39
    weight = normal(16, 64, seed=1)
    zeros = torch.cat([x[:, :32], torch.zeros(1, 32)], dim=1)
    prepared = backend.prepare(weight, None)
    torch.testing.assert_close(backend.linear(x, prepared), backend.linear(zeros, prepared))


@pytest.fixture(scope="module")
def embedding() -> torch.Tensor:
    """Rows with a large common part, as an output projection's tokens have."""
    return normal(4000, 96, seed=1) / 10 + normal(1, 96, seed=2)


@pytest.mark.parametrize("count", [1, 6])
def test_few_logits_are_computed_again(instruction_set, embedding, count):
    backend, x = registry.create("int4"), normal(5, 96) * 20
    assert isinstance(backend, Int4Backend)
    lm_head = backend.prepare_lm_head(embedding)
    logits, exact = backend.logits(x, lm_head), x.double() @ embedding.double().T
    approximate = logits.clone()
    assert (logits - exact).std() < 0.12 * (exact - exact.mean(dim=1, keepdim=True)).std()
    backend.rescore(logits, x, lm_head, embedding, 4000, count)
    best = (each.topk(count) for each in (logits.double(), exact))
    torch.testing.assert_close(*(values for values, _ in best), rtol=0, atol=1e-4)
    assert (logits != approximate).sum() < (0.1 if count == 1 else 0.25) * logits.numel()


def test_timestamps_are_exact_where_their_sum_may_exceed_the_text(instruction_set, embedding):
    """The largest text is just below the sum of all timestamps in row 0, and far from it in rows 1 and 2."""
    backend, split = registry.create("int4"), 3000
    x = normal(3, 96) * 2
    weight = embedding.clone()
    assert isinstance(backend, Int4Backend)
    lm_head = backend.prepare_lm_head(weight)
    exact = x @ weight.T
    total = exact[:, split:].logsumexp(dim=1) + torch.tensor([-0.01, -30.0, 30.0])
    text = torch.linalg.lstsq(x, total).solution  # a token whose logits are these
    weight[0] = text
    assert isinstance(backend, Int4Backend)
    lm_head = backend.prepare_lm_head(weight)
    logits = backend.logits(x, lm_head)
    logits[:, 1:split] = -math.inf
    approximate = logits.clone()
    backend.rescore(logits, x, lm_head, weight, split)
    changed = (logits != approximate)[:, split:].float().mean(dim=1)
    torch.testing.assert_close(logits[0, split:], exact[0, split:], rtol=0, atol=1e-4)
    assert changed[0] > 0.9 and (changed[1:] < 0.5).all()
