from __future__ import annotations

import pytest
import torch

from dropserve_models.training.threads import limited_threads, threads_for


@pytest.mark.parametrize(
    ("parameters", "batch_size", "cores", "threads"),
    [(17_000, 64, 64, 1), (270_000, 128, 64, 2), (270_000, 128, 1, 1), (10_000_000, 1024, 16, 16)],
)
def test_threads_follow_the_work_of_a_step(
    parameters: int, batch_size: int, cores: int, threads: int
) -> None:
    assert threads_for(parameters, batch_size, cores) == threads


def test_the_former_number_comes_back() -> None:
    before = torch.get_num_threads()

    def fail() -> None:
        with limited_threads(10, 10):
            assert torch.get_num_threads() == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.get_num_threads() == before
