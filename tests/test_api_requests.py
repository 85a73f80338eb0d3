"""The verbs of `import fixres` offer what the requests of the commands hold, or say what they do not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest

from fixres import api
from fixres.checkpoints.feeding_request import CHANGES
from fixres.evaluation.eval_request import EvalRequest
from fixres.experiments.questions import Question
from fixres.inference.requests import ExportRequest, ExtractRequest, PredictRequest

CASES: dict[Callable[..., Any], tuple[type, set[str], set[str]]] = {
    api.evaluate: (
        EvalRequest,
        {"checkpoint", "progress"},
        {*CHANGES, "tta", "corrupt", "calibrate", "per_class", "confusion", "bootstrap", "backend"},
    ),
    api.predict: (PredictRequest, {"checkpoint", "pictures"}, {"backend"}),
    api.advise: (Question, {"checkpoint"}, set()),
    api.extract: (ExtractRequest, {"checkpoint", "out", "progress"}, set()),
    api.export: (ExportRequest, {"checkpoint"}, set()),
}
"""For each verb: its request, the arguments that are none of its fields, the fields that are not offered."""


@pytest.mark.parametrize("verb", CASES, ids=lambda verb: verb.__name__)
def test_a_field_of_the_request_is_a_keyword_of_the_verb_or_listed_as_not_offered(verb: Callable[..., Any]) -> None:
    request, own, not_offered = CASES[verb]
    parameters = inspect.signature(verb).parameters
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values())
    assert own <= set(parameters)
    assert set(parameters) - own == {entry.name for entry in fields(request)} - not_offered


@pytest.mark.parametrize("verb", CASES, ids=lambda verb: verb.__name__)
def test_a_keyword_has_the_default_of_its_field(verb: Callable[..., Any]) -> None:
    request, own, _ = CASES[verb]
    defaults = {entry.name: entry.default for entry in fields(request)}
    for name, parameter in inspect.signature(verb).parameters.items():
        # For a few pictures, starting processes takes longer than reading them.
        if name not in own and parameter.default is not parameter.empty and (verb, name) != (api.predict, "workers"):
            assert parameter.default == defaults[name], name
