"""The page of computed figures: it is what the code says, and the code says what a roofline is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import roofline
from benchmarks.flops import Work

MACHINE = roofline.Machine("toy", {"bfloat16": 100.0, "float32": 10.0}, bandwidth=4.0)


def test_the_page_is_that_of_the_code() -> None:
    assert roofline.PAGE.read_text("utf-8") == roofline.page(), "run `python -m benchmarks.roofline`"


@pytest.mark.parametrize(
    ("forward", "moved", "dtype", "expected"),
    [
        (1000, 1, "bfloat16", (10.0, "compute")),
        (1000, 1, "float32", (100.0, "compute")),
        (100, 40, "bfloat16", (20.0, "memory")),  # 2 bytes a number
        (100, 40, "float32", (40.0, "memory")),
    ],
)
def test_the_slower_of_both_bounds(forward: int, moved: int, dtype: str, expected: tuple[float, str]) -> None:
    assert roofline.bound(Work(forward, 0, moved, 0), "forward", dtype, MACHINE) == expected


@given(st.tuples(*[st.integers(0, 10**6)] * 5))
def test_no_bound_is_beaten_by_doing_more(numbers: tuple[int, ...]) -> None:
    times = [roofline.bound(Work(*numbers), mode, "float32", MACHINE).seconds for mode in roofline.MODES]
    assert times == sorted(times)


def test_a_figure_has_three_digits_and_says_what_it_waits_for() -> None:
    assert roofline.told(64, roofline.Bound(0.05, "compute")) == "1,280 (compute)"
    assert roofline.told(256, roofline.Bound(3e-5, "memory")) == "8,530,000 (memory)"
    assert roofline.told(1, roofline.Bound(0.3, "compute")) == "3.33 (compute)"
    assert roofline.told(1, roofline.Bound(9e-6, "memory")) == "under 10 µs"


def test_vit_b16_is_bound_by_compute_when_the_batch_is_large_and_by_memory_when_it_is_one_small_image() -> None:
    """The weights of ViT-B/16 are read once: for five tokens that takes longer than to multiply by them."""
    row = roofline.ROWS["VisionTransformer-b16-32px"]
    assert roofline.bound(row.work(256), "forward", "bfloat16", roofline.H100).by == "compute"
    assert roofline.bound(row.work(1), "forward", "bfloat16", roofline.H100).by == "memory"
