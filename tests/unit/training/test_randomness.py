from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch")

from chammi75.training.randomness import (  # noqa: E402
    Draws,
    as_uniforms,
    pixel_counters,
    pixel_noise,
    random_words,
    sample_keys,
    uniforms,
)

MASK = 2**64 - 1


def splitmix64(state: int, count: int) -> list[int]:
    """The published generator, in Python's integers."""
    given = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        given.append(z ^ (z >> 31))
    return given


@pytest.mark.parametrize("state", [0, 1234567, 2**63 - 1, 2**64 - 1])
def test_words_are_those_of_splitmix64(state: int) -> None:
    signed = state - 2**64 if state >= 2**63 else state
    words = random_words(torch.tensor(signed), torch.arange(50)).tolist()
    assert [word & MASK for word in words] == splitmix64(state, 50)


def test_the_first_words_are_the_known_ones_of_another_implementation() -> None:
    assert [word & MASK for word in random_words(torch.tensor(1234567), torch.arange(3)).tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float32, 24), (torch.float64, 53)])
def test_uniforms_are_the_upper_bits(dtype: torch.dtype, bits: int) -> None:
    words = random_words(torch.tensor(9), torch.arange(20))
    expected = [((word & MASK) >> (64 - bits)) / 2**bits for word in words.tolist()]
    assert as_uniforms(words, dtype).tolist() == expected
    assert as_uniforms(torch.tensor([-1]), dtype).item() < 1


def test_a_sample_has_the_same_numbers_in_any_batch_and_any_place() -> None:
    positions = torch.tensor([4, 900, 2**40, 0])
    together = uniforms(3, 2, positions, "a", 5)
    for number, position in enumerate(positions):
        assert torch.equal(uniforms(3, 2, position[None], "a", 7)[0, :5], together[number])
    assert torch.equal(uniforms(3, 2, positions.flip(0), "a", 5), together.flip(0))


@pytest.mark.parametrize("other", [(1, 2, "a"), (3, 1, "a"), (3, 2, "b"), (2, 3, "a")])
def test_seed_epoch_and_purpose_each_change_all_numbers(other: tuple[int, int, str]) -> None:
    positions = torch.arange(50)
    seed, epoch, purpose = other
    assert not (uniforms(3, 2, positions, "a", 20) == uniforms(seed, epoch, positions, purpose, 20)).any()


def test_numbers_are_uniform_and_neighbours_are_not_alike() -> None:
    numbers = uniforms(0, 0, torch.arange(2000), "a", 50, dtype=torch.float64)
    counts = torch.histc(numbers, 20, 0, 1)
    expected = numbers.numel() / 20
    assert float(((counts - expected) ** 2 / expected).sum()) < 43.8  # chi-squared, 19 degrees, p = 0.001
    for first, second in ((numbers[1:], numbers[:-1]), (numbers[:, 1:], numbers[:, :-1])):
        assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.013


def test_the_noise_of_a_pixel_depends_on_its_channel_row_and_column_alone() -> None:
    positions = torch.tensor([3, 8])
    large = pixel_noise(1, 2, positions, "noise", (3, 9, 11))
    assert torch.equal(pixel_noise(1, 2, positions, "noise", (2, 4, 5)), large[:, :2, :4, :5])
    keys = sample_keys(1, 2, positions, "noise")
    alone = as_uniforms(random_words(keys[1], pixel_counters(*torch.tensor([2, 7, 10]))))
    assert alone == large[1, 2, 7, 10]
    assert large.unique().numel() == large.numel()


def test_draws_name_their_purpose() -> None:
    draws = Draws(1, 2, torch.arange(4), "global view 0")
    assert torch.equal(draws.uniforms("flips", 2), uniforms(1, 2, torch.arange(4), "global view 0: flips", 2))
    assert torch.equal(draws.of(slice(1, 3)).uniforms("flips", 2), draws.uniforms("flips", 2)[1:3])
    between = draws.between("sigma", 3, 5, 100)
    assert 3 <= float(between.min()) < 3.1 and 4.9 < float(between.max()) < 5
