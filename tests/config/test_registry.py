"""What a recipe may name is what is registered, in both halves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fixres.config.loading import load
from fixres.config.messages import find_field, kind_of_field
from fixres.config.registry import LOSSES, MOVES, MovesEntry, solved_by
from fixres.config.stage import Stage
from fixres.errors import UserError
from fixres.experiments.grid import all_arms
from fixres.models.build import build_model
from fixres.models.moves import SELECT, Selection, make_plan, register_moves
from fixres.training.losses import LOSS_FUNCTIONS, register_loss, training_loss


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test register what it likes."""
    for table in (LOSSES, LOSS_FUNCTIONS, MOVES, SELECT):
        for name in ("mine", "other"):
            monkeypatch.delitem(table, name, raising=False)
            monkeypatch.setitem(table, name, None)
            monkeypatch.delitem(table, name)


def halved(logits: Tensor, targets: Tensor, stage: Stage) -> Tensor:
    return LOSS_FUNCTIONS["ce"](logits, targets, stage) / 2


def test_both_halves_of_losses_and_moves_have_the_same_names() -> None:
    assert list(LOSSES) == list(LOSS_FUNCTIONS)
    assert list(MOVES) == list(SELECT)


def test_a_registered_loss_is_a_loss() -> None:
    refused = r"--loss\.name: expected one of 'ce', 'bce', 'focal', got 'mine'"
    with pytest.raises(UserError, match=rf"{refused}$"):
        load(None, {"loss.name": "mine"})
    register_loss("mine", halved, "half the cross-entropy", ["loss_gamma"])
    stage = load(None, {"loss.name": "mine", "loss.gamma": 3}).train
    assert (stage.loss, stage.loss_gamma) == ("mine", 3)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert torch.allclose(2 * training_loss(logits, labels, stage), training_loss(logits, labels, Stage()))
    with pytest.raises(
        UserError, match=r"--loss\.threshold: has no effect: train\.loss is mine, and only bce takes it"
    ):
        load(None, {"loss.name": "mine", "loss.threshold": 0.2})
    with pytest.raises(UserError, match=r"train\.loss is ce, and only focal and mine takes it"):
        load(None, {"loss.gamma": 3})
    with pytest.raises(UserError, match=r"'focal', 'mine', got 'mime' - did you mean 'mine'\?"):
        load(None, {"loss.name": "mime"})


def test_a_loss_that_is_no_loss_per_picture_is_refused() -> None:
    register_loss("mine", lambda logits, targets, stage: logits, "nothing")
    with pytest.raises(UserError, match=r"loss mine gives \[4, 3\], not one value for each of 4 pictures"):
        training_loss(torch.randn(4, 3), torch.zeros(4, dtype=torch.long), Stage(loss="mine"))


def test_registered_moves_are_moves() -> None:
    with pytest.raises(UserError, match=r"--fix\.moves: expected one of 'auto', .*'all', got 'mine'$"):
        load(None, {"fix.moves": "mine"})
    register_moves("mine", lambda model, size: Selection(("fc.bias",)), MovesEntry("a bias", is_trunk_frozen=True))
    register_moves("other", lambda model, size: Selection(("nowhere",)), MovesEntry("nothing", is_trunk_frozen=False))
    assert load(None, {"fix.moves": "mine"}).fix.solver == "sgd"
    with pytest.raises(UserError, match=r"cached moves auto, head, head\+stats, stats, not 'mine'; use solver sgd"):
        load(None, {"fix.moves": "mine", "fix.solver": "cached"})
    assert {"mine", "other"} <= set(all_arms())
    model = build_model("test_resnet", 3)
    plan = make_plan(model, "mine", 64)
    assert (plan.moves, plan.trained, plan.tensors, plan.is_trunk_frozen) == ("mine", ("fc.bias",), {"fc.bias"}, True)
    with pytest.raises(UserError, match="moves other selects nothing of 'test_resnet'"):
        make_plan(model, "other", 64)


def test_a_name_is_registered_once_and_can_be_typed() -> None:
    with pytest.raises(UserError, match=r"'ce' is registered already\n  there are ce, bce, focal"):
        register_loss("ce", halved, "")
    with pytest.raises(UserError, match="'My loss' is no name to register"):
        register_loss("My loss", halved, "")
    with pytest.raises(UserError, match=r"'lr' is no setting of losses\n  these are: loss_gamma, loss_threshold"):
        register_loss("mine", halved, "", ["lr"])
    assert "mine" not in LOSS_FUNCTIONS


def test_the_solvers_and_arms_are_those_of_the_published_words() -> None:
    assert solved_by("cached") == ("auto", "head", "head+stats", "stats")
    assert [name for name, entry in MOVES.items() if not entry.is_trunk_frozen] == ["last-stage", "all"]
    assert all_arms() == ("none", "stats", "head", "head+stats", "head+norm", "all", "direct")
    field = find_field("fix.moves")
    assert field is not None
    assert kind_of_field(field).choices == tuple(MOVES)
