"""Pictures that trackers show: the first batch as the network sees it, and what is confused most surely."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from fixres.config.recipe import Data
from fixres.data.collections import open_collection
from fixres.data.transforms import normalise
from fixres.evaluation.evaluate import Evaluation
from fixres.evaluation.metrics import Outcomes
from fixres.resolution import Preprocess
from fixres.runtime.run_folder import RunLog
from fixres.training.image_logging import denormalise, most_confused, show_batch, show_confused
from tests.support.tensorboard_files import read_back


def test_the_first_batch_is_shown_as_the_network_sees_it(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    p = Preprocess(8)
    inputs = normalise(images.to(memory_format=torch.channels_last), p.mean, p.std)
    assert torch.equal(denormalise(inputs, p.mean, p.std), images)
    log = RunLog(tmp_path)
    show_batch(log, "train", inputs, p, 3)
    log.close()
    (picture,) = read_back(tmp_path).Images("train/first_batch")
    assert picture.step == 3
    # Three of 8 px in a row, with edges of 2.
    assert (picture.width, picture.height) == (32, 12)


def test_what_is_confused_most_surely_is_shown_with_names(tmp_path: Path) -> None:
    split = open_collection(Data(uri="synthetic:classes=3,images=12,size=16")).split("train")
    labels = split.labels[:5]
    predictions = labels.copy()
    predictions[[1, 3, 4]] = (labels[[1, 3, 4]] + 1) % 3
    ranks = (predictions != labels).astype(np.int64)
    confidences = np.array([0.99, 0.5, 0.9, 0.8, 0.8])
    found = Evaluation([], (Outcomes(labels, predictions, ranks, confidences, np.zeros(5), 3),), np.arange(5))
    assert most_confused(found) == [3, 4, 1]
    log = RunLog(tmp_path)
    show_confused(log, "train", split, found, Preprocess(16), 7)
    log.close()
    back = read_back(tmp_path)
    assert back.Images("train/confused")[0].step == 7
    text = back.Tensors("train/confused/text_summary")[0].tensor_proto.string_val[0].decode()
    first, taken_for = (split.classes[int(k[3])] for k in (labels, predictions))
    assert text.splitlines()[0] == f"1. {split.paths[3]}: {first}, taken for {taken_for}, 80 % sure"
    assert len(text.splitlines()) == 3


def test_a_perfect_network_shows_nothing(tmp_path: Path) -> None:
    split = open_collection(Data(uri="synthetic:classes=3,images=12,size=16")).split("train")
    labels, ones = split.labels[:2], np.ones(2)
    found = Evaluation([], (Outcomes(labels, labels, np.zeros(2, np.int64), ones, ones, 3),), np.arange(2))
    log = RunLog(tmp_path)
    show_confused(log, "train", split, found, Preprocess(16), 7)
    log.close()
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == "[]"
