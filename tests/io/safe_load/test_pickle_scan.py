"""What a pickle asks for is found before it is loaded: code is named, memory claimed by a number refused."""

from __future__ import annotations

import argparse
import collections
import pickle
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fixres.errors import UserError
from fixres.io.tensors import read_checkpoint, read_weights
from tests.support.hostile_files import HUGE, MARKER, PLACES, Claim, Evil, Hidden, save


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("bad", [Evil, Hidden])
def test_code_in_a_file_is_named_and_never_runs(place: str, legacy: bool, name: str, bad: Callable[[], Any]) -> None:
    path = save(PLACES[place](bad()), name, legacy=legacy)
    for reader in (read_checkpoint, read_weights):
        with pytest.raises(UserError, match=r"(posix|nt)\.system\n.*would run code.*\n.*\n.*--trust"):
            reader(path)
    assert not Path(MARKER).exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_settings_beside_the_weights_need_trust(legacy: bool) -> None:
    path = save({"state_dict": {"w": torch.ones(2)}, "args": argparse.Namespace(model="resnet18")}, legacy=legacy)
    with pytest.raises(UserError, match=r"argparse\.Namespace"):
        read_checkpoint(path)
    with pytest.warns(UserWarning, match=r"argparse\.Namespace"):
        assert read_checkpoint(path, trust=True)["args"].model == "resnet18"


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_plain_data_passes_whole_and_trust_changes_nothing(legacy: bool) -> None:
    shared = torch.randn(4, 6)
    content = {
        "tensors": [shared, shared.t(), shared[1:, 2:], torch.empty(0, 3), torch.tensor(3.5), torch.zeros(5).bool()],
        "types": [torch.zeros(3, dtype=t) for t in (torch.bfloat16, torch.complex64, torch.int16, torch.float64)],
        "parameter": nn.Parameter(torch.ones(2)),
        "state": nn.BatchNorm2d(3).state_dict(),
        "values": {"size": torch.Size([1, 2]), "set": {1, 2}, "bytes": b"\x00\xff", "z": 1j, "big": 2**70, "no": None},
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "array": bytearray(b"ab"),
    }
    path = save(content, legacy=legacy)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for trust in (False, True):
            read = read_checkpoint(path, trust=trust)
            for ours, theirs in zip(
                read["tensors"] + read["types"], content["tensors"] + content["types"], strict=True
            ):
                assert ours.dtype == theirs.dtype
                assert ours.stride() == theirs.stride()
                assert torch.equal(ours, theirs)
            assert read["values"] == content["values"]
            assert isinstance(read["parameter"], nn.Parameter)
            assert read["state"].keys() == content["state"].keys()
            assert (read["dtype"], read["array"]) == (torch.float16, bytearray(b"ab"))


ALLOCATORS: dict[str, Any] = {
    "bytearray": Claim(bytearray, HUGE),
    "tensor type": Claim(torch.Tensor, HUGE),
    "float tensor": Claim(torch.FloatTensor, HUGE),
    "behind a call that is allowed": Claim(torch._tensor._rebuild_from_type_v2, bytearray, torch.Tensor, (HUGE,), {}),
    "another codec": Claim(__import__("_codecs").encode, "x", "rot13"),
    "meta tensor": torch.empty(HUGE, device="meta"),
    "sparse tensor": torch.sparse_coo_tensor(torch.zeros(1, 1), torch.ones(1), (HUGE,), check_invariants=True),
}


@pytest.mark.parametrize("what", ALLOCATORS)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_allocates_by_a_number_is_refused(what: str, legacy: bool) -> None:
    with pytest.raises(UserError, match="holds more than tensors and plain values"):
        read_checkpoint(save({"w": ALLOCATORS[what]}, legacy=legacy))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [((HUGE,), (0,), 0), ((HUGE,), (1,), 0), ((2, 2), (HUGE, 1), 0), ((1,), (1,), HUGE), ((2,) * 65, (0,) * 65, 0)],
    ids=["repeated", "long", "strided", "shifted", "dimensions"],
)
def test_a_tensor_larger_than_its_storage_is_refused(
    size: tuple[int, ...], stride: tuple[int, ...], offset: int, legacy: bool
) -> None:
    class Beyond:
        def __reduce__(self) -> Any:
            four = torch.ones(4).untyped_storage()
            storage = torch.storage.TypedStorage(wrap_storage=four, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (storage, offset, size, stride, False, {})

    path = save({"w": Beyond()}, legacy=legacy)
    with pytest.raises(UserError, match=r"more than its file holds|shape is no list"):
        read_checkpoint(path)


class WithViews(pickle.Pickler):
    """Writes a tensor of 10 numbers whose storage is a view, as PyTorch before 0.4 did."""

    def __init__(self, file: Any, view: tuple[str, int, int]) -> None:
        super().__init__(file, 2)
        self.view = view

    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.FloatStorage, "1", "cpu", 10, self.view) if value is Ellipsis else None


@pytest.mark.parametrize(
    ("view", "size", "says"),
    [
        (("2", 4, 6), 6, None),
        (("2", 4, 7), 6, "a view goes beyond its storage '1'"),
        (("2", -1, 6), 6, "a view goes beyond its storage '1'"),
        (("2", 4, 6), 7, "more than its file holds"),
    ],
)
def test_views_of_old_files_stay_within_their_storage(view: tuple[str, int, int], size: int, says: str | None) -> None:
    path = save({}, legacy=True)
    start = path.read_bytes()[: -len(pickle.dumps({}, 2) + pickle.dumps([], 2))]
    with path.open("wb") as file:
        file.write(start)
        claim = Claim(torch._utils._rebuild_tensor_v2, ..., 0, (size,), (1,), False, collections.OrderedDict())
        WithViews(file, view).dump({"w": claim})
        pickle.dump(["1"], file, 2)
        file.write(struct.pack("<q10f", 10, *range(10)))
    if says is None:
        assert read_checkpoint(path)["w"].tolist() == [4, 5, 6, 7, 8, 9]
    else:
        with pytest.raises(UserError, match=says):
            read_checkpoint(path)


class StateOf:
    """A pickle that makes an object of a harmless kind and then sets its state."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], state: Any) -> None:
        self.parts = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_the_state_of_a_tensor_cannot_be_set(legacy: bool) -> None:
    tensor = torch.ones(2)
    arguments = (tensor.untyped_storage(), 0, (2,), (1,), False, collections.OrderedDict(), torch.float32)
    bad = StateOf(torch._utils._rebuild_tensor_v3, arguments, (tensor.untyped_storage(), 0, (10,), (1,)))
    with pytest.raises(UserError, match=r"holds more than .*_rebuild_tensor_v3"):
        read_checkpoint(save({"w": bad}, legacy=legacy))


def test_a_newer_pickle_protocol_needs_trust() -> None:
    torch.save({"w": torch.ones(2)}, "w.pt", pickle_protocol=4)
    with pytest.raises(UserError, match="kind of pickle"):
        read_checkpoint(Path("w.pt"))
    with pytest.warns(UserWarning, match="RUNS CODE"):
        assert torch.equal(read_checkpoint(Path("w.pt"), trust=True)["w"], torch.ones(2))
