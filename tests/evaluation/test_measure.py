"""A product is measured on its own pictures as it was, and every way in which that differs is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fixres.checkpoints.feeding import changed
from fixres.checkpoints.product import Product
from fixres.checkpoints.resolve import load
from fixres.errors import UserError
from fixres.evaluation import measure
from fixres.evaluation.eval_request import EvalRequest
from fixres.evaluation.measure import compare_products, measure_product, open_for, own_split


@pytest.fixture
def fixed(fixed_run: Path) -> Product:
    return load(fixed_run)


def nameless(product: Product, count: int | None = None) -> Product:
    """Return the product without the names of its classes."""
    return replace(product, has_names=False, classes=tuple(map(str, range(count or len(product.classes)))))


# --- the pictures


def test_a_product_opens_its_own_pictures_and_others_under_its_class_list(fixed: Product) -> None:
    own = open_for(fixed, EvalRequest())
    assert (own.uri, own.select, own.report) == (fixed.details["data"]["uri"], "val", "test")
    other = open_for(fixed, EvalRequest(data="synthetic:classes=3,images=24"))
    assert (other.classes, len(other.split("train"))) == (fixed.classes, 24)
    with pytest.raises(UserError, match="holds classes the checkpoint does not know"):
        open_for(fixed, EvalRequest(data="synthetic:classes=4,images=24"))
    with pytest.raises(UserError, match=r"does not say which data it is for\n  --data URI"):
        open_for(replace(fixed, details={}), EvalRequest())


def test_outputs_without_names_are_counted_and_taken_in_order(fixed: Product) -> None:
    found = open_for(nameless(fixed), EvalRequest())
    assert found.notes[-1].startswith("the weights name no classes")
    with pytest.raises(UserError, match=r"has 4 outputs without names, synthetic:.* has 3 classes"):
        open_for(nameless(fixed, 4), EvalRequest())


def test_the_split_of_the_run_is_kept_for_its_own_pictures_only(fixed: Product, photos: Path, tmp_path: Path) -> None:
    # Generated pictures come with all their splits, so that there is none to keep.
    assert own_split(fixed, None) is None
    (tmp_path / "split.json").write_text("{}")
    uri = f"folder:{photos}"
    at_home = replace(fixed, home=tmp_path, details={"data": {"uri": uri}})
    assert own_split(at_home, None) == own_split(at_home, uri) == tmp_path / "split.json"
    assert own_split(at_home, "synthetic:classes=2,images=8") is None
    assert own_split(replace(at_home, home=None), None) is None


# --- what is asked for


def test_what_is_asked_for_takes_the_place_of_the_products_own(fixed: Product) -> None:
    assert changed(fixed.preprocess, EvalRequest()) == fixed.preprocess
    asked = changed(fixed.preprocess, EvalRequest(resize="pad", crop_ratio=1.0))
    assert asked == replace(fixed.preprocess, resize="pad", crop_ratio=1.0)


def test_the_products_own_size_repeats_the_logged_result(fixed: Product) -> None:
    answer, found, split, told = measure_product(fixed, EvalRequest(workers=0))
    assert (answer["split"], answer["num_images"], split.name) == ("test", 16, "test")
    (result,) = answer["results"]
    assert result["size"] == 48
    assert list(told) == [f"48 px: repeats the logged result exactly ({result['top1']:.2f} %)"]
    assert 100 * found.correct()[0].mean() == result["top1"]


def test_every_difference_to_the_product_is_said(fixed: Product, fixed_run: Path) -> None:
    def remarks(product: Product, **asked: object) -> list[str]:
        return list(measure_product(product, EvalRequest(workers=0, **asked)).remarks)  # type: ignore[arg-type]

    assert remarks(fixed, sizes=(32, 32)) == ["warning: 32 px is not the product's test size, 48 px"]
    assert remarks(fixed, crop_ratio=1.0) == ["warning: crop ratio 1.0 is not the product's, 0.875"]
    assert remarks(load(fixed_run, "before_fix")) == [
        "warning: these are the weights from before the fix, not the product's"
    ]
    # What was logged is of another network, under other conditions.
    logged = [{**result, "top1": 12.5, "loss": 9.0} for result in fixed.details["results"]]
    changed = replace(fixed, details={**fixed.details, "results": logged})
    (told,) = remarks(changed, batch_size=7)
    assert told.startswith("48 px: ")
    assert "logged 12.5000 %" in told
    assert told.endswith("logged 9.000000; other conditions: batch_size")
    # Another split has no logged result to repeat.
    assert remarks(fixed, split="val") == []


def test_temperatures_are_fitted_on_the_selecting_split_and_said(fixed: Product) -> None:
    both = measure_product(fixed, EvalRequest(workers=0, sizes=(32, 48), calibrate=True))
    temperatures = [result["temperature"] for result in both.answer["results"]]
    assert len(set(temperatures)) == 2
    assert both.remarks[0] == "temperatures fitted on val, n = 16"
    same = measure_product(fixed, EvalRequest(workers=0, split="val", calibrate=True))
    assert same.remarks[0] == "temperatures fitted on val, n = 16; warning: the split they are reported on"
    assert same.answer["results"][0]["temperature"] == temperatures[1]


def test_only_what_is_asked_for_is_in_the_answer(fixed: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    extras = {"bootstrap_ci95", "per_class", "confusion", "temperature"}
    (plain,) = measure_product(fixed, EvalRequest(workers=0)).answer["results"]
    assert set(plain) & extras == {"confusion"}
    asked = EvalRequest(workers=0, bootstrap=20, per_class=True, confusion=True)
    (full,) = measure_product(fixed, asked).answer["results"]
    assert set(full) & extras == {"bootstrap_ci95", "per_class", "confusion"}
    assert sum(map(sum, full["confusion"])) == sum(row["num_images"] for row in full["per_class"]) == 16
    monkeypatch.setattr(measure, "MAX_CONFUSION_CLASSES", 2)
    with pytest.raises(UserError, match=r"of 3 classes is too large\n  allowed: 2; --per-class has no limit"):
        measure_product(fixed, asked)


def test_a_backend_of_the_cpu_takes_no_other_device(fixed: Product) -> None:
    with pytest.raises(UserError, match=r"--backend onnxruntime computes on the CPU\n  leave --device cuda out"):
        measure_product(fixed, EvalRequest(workers=0, backend="onnxruntime", device="cuda"))


# --- two products


def test_two_products_are_compared_each_at_its_own_size(fixed: Product, trained_run: Path) -> None:
    answer = compare_products(fixed, load(trained_run), EvalRequest(workers=0)).answer
    (mine,), theirs = answer["results"], answer["against"]
    assert theirs["checkpoint"] == str(trained_run / "model")
    (pair,) = theirs["paired"]
    assert (pair["size"], pair["against_size"]) == (48, 32)
    assert pair["difference"] == pytest.approx(mine["top1"] - theirs["results"][0]["top1"])
    assert pair["num_better"] - pair["num_worse"] == round(16 * pair["difference"] / 100)


def test_products_that_label_the_pictures_differently_are_not_compared(fixed: Product, trained_run: Path) -> None:
    other = load(trained_run)
    other = replace(other, classes=other.classes[::-1])
    with pytest.raises(UserError, match="do not see the same pictures, or label them differently"):
        compare_products(fixed, other, EvalRequest(workers=0))
