"""What ships is the cheapest probe, unless another is better by more than one standard error on the same pictures."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fixres.evaluation.shipping import Candidate, Kind, cheapest_probe, choose_to_ship, loss_difference


@st.composite
def several(draw: st.DrawFn) -> list[Candidate]:
    """Draw a probe and up to four other candidates on the same pictures."""
    num = draw(st.integers(2, 40))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds: list[Kind] = ["probe", *draw(st.lists(st.sampled_from(["probe", "trained", "fixed"]), max_size=4))]
    shared = generator.exponential(1.0, num)
    spread = draw(st.sampled_from([0.0, 0.05, 0.5]))
    return [
        Candidate(
            kind,
            np.maximum(0, shared + generator.normal(draw(st.sampled_from([-0.2, 0.0, 0.2])), spread, num)),
            draw(st.sampled_from([0.1, 0.2, 0.4])),
        )
        for kind in kinds
    ]


@given(several())
def test_nothing_ships_that_is_not_better_than_the_cheapest_probe_by_more_than_one_standard_error(
    candidates: list[Candidate],
) -> None:
    chosen, base = choose_to_ship(candidates), cheapest_probe(candidates)
    assert candidates[base].kind == "probe"
    assert candidates[base].gmacs == min(c.gmacs for c in candidates if c.kind == "probe")
    if chosen != base:
        gap, error = loss_difference(candidates[chosen], candidates[base])
        assert gap < -error


@given(several())
def test_of_what_clears_the_bar_none_is_clearly_better_and_none_as_good_is_cheaper(candidates: list[Candidate]) -> None:
    base = candidates[cheapest_probe(candidates)]
    chosen = candidates[choose_to_ship(candidates)]
    cleared = [c for c in candidates if loss_difference(c, base)[0] < -loss_difference(c, base)[1]]
    if not cleared:
        assert chosen is base
        return
    best = min(cleared, key=lambda c: (c.losses.mean(), c.gmacs))
    gap, error = loss_difference(best, chosen)
    assert gap >= -error
    for other in cleared:
        gap, error = loss_difference(best, other)
        assert gap < -error or other.gmacs >= chosen.gmacs


@given(several(), st.floats(0.1, 10))
def test_the_order_of_pictures_and_candidates_and_the_unit_of_cost_do_not_matter(
    candidates: list[Candidate], unit: float
) -> None:
    chosen = candidates[choose_to_ship(candidates)]
    order = np.random.default_rng(0).permutation(len(chosen.losses))
    places = list(range(len(candidates)))[::-1]
    turned = [Candidate(candidates[p].kind, candidates[p].losses[order], unit * candidates[p].gmacs) for p in places]
    again = candidates[places[choose_to_ship(turned)]]
    # Rounding may decide between two that are the same to the last bits.
    assert abs(again.losses.mean() - chosen.losses.mean()) < 1e-9 or again is chosen


def test_a_probe_alone_ships_and_one_picture_proves_nothing() -> None:
    probe = Candidate("probe", np.array([1.0]), 0.1)
    assert choose_to_ship([probe]) == 0
    assert choose_to_ship([Candidate("fixed", np.array([0.1]), 0.1), probe]) == 1


def test_what_is_better_ships_and_the_cheaper_of_two_that_are() -> None:
    losses = np.linspace(0.5, 1.5, 100)
    noise = np.where(np.arange(100) % 2, 0.1, -0.1)
    probe, large = Candidate("probe", losses, 0.1), Candidate("probe", losses - 0.01 + noise, 0.3)
    trained, fixed = Candidate("trained", losses - 0.2, 0.1), Candidate("fixed", losses - 0.205 + noise, 0.3)
    assert choose_to_ship([probe, large]) == 0, "within its error"
    assert choose_to_ship([probe, trained, fixed]) == 1, "as good and cheaper"
    assert choose_to_ship([probe, large, fixed]) == 2
