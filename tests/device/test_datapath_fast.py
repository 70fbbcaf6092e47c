"""The fast tier of the bf16 datapath stays within its stated bound of the exact tier."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from datapath_oracle import LEAST, ONE, lane, nearest, values

from tilewhisper.kernels.xdna.datapath import Rounding, bf16_bits, fast_error_bound, matmul_exact, matmul_fast


def _operands() -> Iterator[Any]:
    rng = np.random.default_rng(7)
    normal = rng.standard_normal
    for k in (8, 64, 384, 1536):
        half, shared_half = normal((48, k // 2)), normal((k // 2, 40))
        cancelling = np.hstack([half, -half * (1 + 2.0**-7 * normal(half.shape))])
        yield pytest.param(normal((48, k)), normal((k, 40)), id=f"gaussian-{k}")
        yield pytest.param(rng.random((48, k)), rng.random((k, 40)), id=f"positive-{k}")
        yield pytest.param(normal((48, k)) * np.exp(3 * normal((48, k))), normal((k, 40)), id=f"heavy-tails-{k}")
        yield pytest.param(cancelling, np.vstack([shared_half, shared_half]), id=f"cancelling-{k}")
        yield pytest.param(normal((48, k)) * 2.0**-126, normal((k, 40)), id=f"denormal-{k}")


@pytest.mark.parametrize(("a", "b"), list(_operands()))
def test_fast_stays_within_its_bound(a: Any, b: Any) -> None:
    a_bits, b_bits = nearest(a), nearest(b)
    for acc in (None, (a @ b)[::-1].astype(np.float32)):
        exact = matmul_exact(a_bits, b_bits, acc).astype(np.float64)
        bound = fast_error_bound(a_bits, b_bits, acc)
        assert (np.abs(matmul_fast(a_bits, b_bits, acc) - exact) <= bound).all()


def test_the_bound_detects_a_wrong_rounding() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((32, 384)).astype(np.float32), nearest(rng.standard_normal((384, 32)))
    wrong = matmul_fast(bf16_bits(a, Rounding.FLOOR), b)
    exact = matmul_exact(nearest(a), b)
    assert (np.abs(wrong - exact) > fast_error_bound(nearest(a), b)).mean() > 0.8


def test_the_bound_is_nearly_reached() -> None:
    # Every product is just under half a grid unit of the accumulator: the chip drops all of them.
    k = 512
    a, b = np.full((1, k), values([255 / 256 * 2.0**-24])[0], np.uint16), np.full((k, 1), ONE, np.uint16)
    acc = np.ones((1, 1), np.float32)
    exact, fast = matmul_exact(a, b, acc), matmul_fast(a, b, acc)
    assert exact[0, 0] == 1
    assert 0.4 < (fast - exact)[0, 0] / fast_error_bound(a, b, acc)[0, 0] <= 1


def test_the_bound_includes_the_coarse_grid_of_a_denormal() -> None:
    # 2^-133 * 2^127 is 2^-6 but aligns like 2, so the chip drops products that are large relative to 2^-6.
    a, b = lane([LEAST] + values([255 / 256 * 2.0**-23]) * 7), lane([0x7F00] + [ONE] * 7).T
    exact, fast = matmul_exact(a, b), matmul_fast(a, b)
    assert exact[0, 0] == 2.0**-6
    assert 0 < (fast - exact)[0, 0] <= fast_error_bound(a, b)[0, 0]


def test_fast_differs_from_exact_by_few_ulps_on_ordinary_data() -> None:
    rng = np.random.default_rng(5)
    a, b = nearest(rng.standard_normal((64, 64))), nearest(rng.standard_normal((64, 64)))
    exact = matmul_exact(a, b)
    ulps = np.abs(matmul_fast(a, b).astype(np.float64) - exact) / np.spacing(np.abs(exact))
    assert np.median(ulps) <= 1
    assert np.quantile(ulps, 0.95) <= 4
