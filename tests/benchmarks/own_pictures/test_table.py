"""The table compares the same pictures, takes the others at their best, and says where ours misses."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.own_pictures.answers import Answers, kept_lines, read_answers
from benchmarks.own_pictures.table import Bars, arms_of, better_of, comparison, markdown

N = 1000


def answers(arm: str, kind: str, num_wrong: int, folds: tuple[int, ...] = (0, 1), **details: object) -> list[Answers]:
    """Answers of which the first `num_wrong` of each fold of 500 are wrong."""
    found = []
    for fold in folds:
        labels = {f"{fold}/{number}.png": "cat" for number in range(N // 2)}
        said = {path: "dog" if number < num_wrong else "cat" for number, path in enumerate(labels)}
        found.append(Answers(arm, kind, fold, labels, said, 10.0 + fold, details))
    return found


def test_ours_meets_the_better_rate_of_timm_and_the_row_says_so() -> None:
    *others, ours = arms_of(
        [
            *answers("fixres 3 min", "ours", 30),
            *answers("timm sgd 0.01", "timm", 50),
            *answers("timm adamw 3e-4", "timm", 25),
            *answers("logistic regression", "logistic", 40),
        ]
    )
    assert ours.accuracy == 94
    text, verdict = comparison(ours, others, Bars(-2))
    # 10 of 1,000 differ, all in favour of the other.
    assert text.startswith("-1.00 (")
    assert text.endswith("against timm adamw 3e-4 (its better rate, chosen on these pictures)")
    assert verdict == "passes"


@pytest.mark.parametrize(
    ("bars", "verdict"),
    [
        (Bars(-2), "passes"),
        (Bars(-1), "**misses**: lower end -1.64 < -1"),
        (Bars(-3, mean=-0.5), "**misses**: mean -1.00 < -0.5"),
        (Bars(-1, mean=-0.5), "**misses**: mean -1.00 < -0.5, lower end -1.64 < -1"),
    ],
)
def test_a_row_that_misses_a_bar_says_which(bars: Bars, verdict: str) -> None:
    other, ours = arms_of([*answers("fixres", "ours", 30), *answers("logistic regression", "logistic", 25)])
    assert comparison(ours, [other], bars)[1] == verdict


def test_one_fold_is_compared_on_its_own_pictures() -> None:
    """The other is best there, though it is worst over all."""
    second, first, ours = arms_of(
        [
            *answers("fixres 6 min", "ours", 10, folds=(1,)),
            *answers("timm sgd 0.01", "timm", 100, folds=(0,)),
            *answers("timm sgd 0.01", "timm", 5, folds=(1,)),
            *answers("logistic regression", "logistic", 20),
        ]
    )
    assert better_of([first, second], sorted(ours.right)) is first
    assert comparison(ours, [first, second], Bars(-2))[0].startswith("-1.00 (")


def test_an_arm_that_lacks_pictures_is_not_compared_with() -> None:
    other, ours = arms_of([*answers("fixres", "ours", 10), *answers("timm sgd 0.01", "timm", 0, folds=(0,))])
    assert better_of([other], sorted(ours.right)) is None
    assert comparison(ours, [other], Bars(-2)) == ("nothing to compare with on these pictures", "")


def test_a_picture_is_tested_once() -> None:
    with pytest.raises(ValueError, match="500 pictures were tested in two folds"):
        arms_of([*answers("fixres", "ours", 1, folds=(0,)), *answers("fixres", "ours", 1, folds=(0,))])


def test_times_are_medians_over_folds() -> None:
    arms = arms_of(
        [
            *answers("fixres", "ours", 10, folds=(0,), first_product_seconds=20.0),
            *answers("fixres", "ours", 10, folds=(1, 2), first_product_seconds=40.0),
            *answers("logistic regression", "logistic", 10, folds=(0, 1, 2)),
        ]
    )
    other, ours = markdown(arms, Bars(-2)).splitlines()[2:]
    assert ours.startswith("| fixres | 3 | 1,500 | 98.00 (97.2 to 98.6) | +0.00 (")
    assert ours.endswith("| passes | 11 | 40 |")
    assert other.endswith("|  |  | 11 |  |")


def test_what_is_kept_gives_the_same_table_and_nothing_of_the_machine(tmp_path: Path) -> None:
    found = [*answers("fixres 3 min", "ours", 30, command=["/home/me"]), *answers("timm sgd 0.01", "timm", 20, lr=0.01)]
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(f"{line}\n" for line in kept_lines(found, ["lr"])))
    assert markdown(arms_of(read_answers(kept)), Bars(-2)) == markdown(arms_of(found), Bars(-2))
    assert "/home" not in kept.read_text()
    assert [one.details for one in read_answers(kept)][2:] == [{"lr": 0.01}] * 2


def test_arms_tested_on_other_pictures_are_not_kept_together() -> None:
    first, second = answers("timm sgd 0.01", "timm", 0, folds=(0,)), answers("fixres", "ours", 0, folds=(1,))
    moved = [Answers("fixres", "ours", 0, second[0].labels, second[0].predictions, 1.0)]
    with pytest.raises(ValueError, match="other pictures of fold 0"):
        list(kept_lines([*first, *moved], []))
