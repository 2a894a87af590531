"""Files of weights as people have them: read without running anything, or one line says why not."""

import argparse
import io
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from tiny_dino import categories_file
from torch import nn

from richsem.models.weight_files import CheckpointError, explained, mismatches, read

STATE = {"layer.weight": torch.rand(3, 4), "layer.bias": torch.ones(3)}


def torch_file(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


class Code:
    """Leaves a file where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch was_run",)


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def packed_again(place, *more):
    """An archive of torch as other programs pack it, below another folder or with other files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, zipfile.ZipFile(io.BytesIO(ARCHIVE)) as first:
        for name in first.namelist():
            archive.writestr(place + name.partition("/")[2], first.read(name))
        for name in more:
            archive.writestr(name, b"\0\5\x16\7")
    return buffer.getvalue()


OLD = {"_use_new_zipfile_serialization": False}
ARCHIVE, PICKLE, TENSORS = torch_file(STATE), torch_file(STATE, **OLD), save(STATE)
TURNED = ARCHIVE.replace(STATE["layer.bias"].numpy().tobytes(), b"\xff" + bytes(11))
ALONE = r"nothing was run; save tensors alone: torch\.save\("
SPOILT = {
    "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
    "pointer of .* git-annex": b"/annex/objects/SHA256E-s9--0.pth\n",
    "a web page; download what": b"\n<!DOCTYPE html><html><title>Virus scan warning</title></html>",
    'is a text and begins with "{"error': b'{"error": "not found"}',
    "is the list of the files that weights were shared out to; put the tensors of all":
        b'{"metadata": {"total_size": 9}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}',
    "is empty": b"",
    "full of zeros": bytes(4096),
    "packed; unpack it and name": b"\x1f\x8b\x08\0\0\0\0\0",
    r"packed; unpack it, .*; inside are model\.pth": zipped("model.pth", ARCHIVE),
    "save its tensors by torch.save; inside are a.npy": zipped("a.npy", b"\x93NUMPY"),
    "packed by another program than torch; copy or .* on top it has __MACOSX; weights":
        packed_again("weights/", "weights/.DS_Store", "__MACOSX/._weights"),
    r"and leave it packed; on top it has \.data; \.format_version": packed_again(""),
    "leave it packed; on top it has w$": packed_again("w/e/"),
    "of another library; save its": b"\x93NUMPY\x01\0v\0",
    "of another library;": b"\x08\x07\x12\x07pytorch\x1a\x052.1.0",  # ONNX
    "begins with": b"\x01\x02\x03\x04\x05\x06",
    r"is damaged or not complete \(File is not a zip": ARCHIVE[:-200],
    "Bad CRC-32": TURNED,
    "not complete .*; copy or download it again": PICKLE[: len(PICKLE) // 2],
    "not complete .*incomplete metadata": TENSORS[:-3],
    "not complete .*header too large": b"\xff" * 8 + TENSORS[8:],
    f"posix.system.*{ALONE}": torch_file({"model": STATE, "hook": Code()}),
    f"system.*; {ALONE}": torch_file({"model": STATE, "hook": Code()}, **OLD),
    f"Linear.*{ALONE}": torch_file(nn.Linear(2, 2)),
    f"operand.*{ALONE}": torch_file(STATE, pickle_protocol=4),
    f"torch did not write; {ALONE}": pickle.dumps({"model": {"a": np.ones(2)}}, protocol=2),
    "no weights; expected tensors by name": torch_file({"model": {}}),
    r"under 'model', not \['ema'\]; save these alone: torch\.save\(torch\.load\(FILE\)\['ema'\],":
        torch_file({"ema": STATE, "epoch": 3}),
    r"not \['ema'\]\['module'\]; save":
        torch_file({"model": None, "ema": {"n": 1, "module": STATE}}),
    "'epoch' is a int": torch_file({**STATE, "epoch": 3}),
    "0 is a Tensor": torch_file({0: torch.ones(2)}),
    "layer.bias has 1 values that are no finite":
        torch_file({**STATE, "layer.bias": torch.tensor([1, torch.nan])}),
    "layer.bias holds no plain numbers":
        torch_file({**STATE, "layer.bias": torch.ones(2).to_sparse()}),
    "layer.bias holds .*float8_e4m3fn":
        torch_file({**STATE, "layer.bias": torch.ones(2, dtype=torch.float8_e4m3fn)}),
    "holds no published detector.*layer.weight: not a tensor of a published DINO": ARCHIVE,
}  # fmt: skip


@pytest.mark.parametrize("words", SPOILT)
def test_what_a_file_is_stands_in_one_line(words, tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    path, file = tmp_path / "checkpoint.pth", categories_file(tmp_path / "a.json", [1])
    path.write_bytes(SPOILT[words])
    said = cli("convert", path, "--annotations", file, "--out", tmp_path / "out", code=2).err
    (line,) = said.splitlines()
    assert line.startswith(f"error: {path}") and re.search(words, line)
    assert "weights_only" not in line
    assert not (tmp_path / "out").exists() and not (tmp_path / "was_run").exists()


def test_paths_that_are_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder; name the file"):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        read(tmp_path / "absent.pth")
    with pytest.raises(PermissionError), explained("closed.pth", "is damaged"):
        raise PermissionError


BESIDE = {
    "args": argparse.Namespace(lr=1e-4, output=Path("x")),
    "best": (np.float64(0.3), np.float32(1), np.int64(2)),
    "epoch": 11,
}
FORMS = {
    "bare": ARCHIVE,
    "pickle": PICKLE,
    "safetensors": TENSORS,
    "with arguments": torch_file({"model": STATE, **BESIDE}),
    "with arguments, old": torch_file({"model": STATE, **BESIDE}, **OLD),
    "state_dict": torch_file({"state_dict": STATE, "model": None}),
    "packed again": packed_again("weights/", "weights/.DS_Store"),
    "wrapped": torch_file({f"module.{name}": tensor for name, tensor in STATE.items()}),
    "compiled": torch_file({f"_orig_mod.{name}": nn.Parameter(t) for name, t in STATE.items()}),
    "both": torch_file({f"_orig_mod.module.{name}": tensor for name, tensor in STATE.items()}),
}


@pytest.mark.parametrize("form", FORMS)
def test_tensors_come_out_whatever_form_they_have(form, tmp_path):
    path = tmp_path / f"weights.{'pth' if form == 'safetensors' else 'safetensors'}"  # says nothing
    path.write_bytes(FORMS[form])
    found = read(path)
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[n], t) and not found[n].requires_grad for n, t in STATE.items())


@pytest.mark.parametrize("place", ["['ema_model']", "['ema']['module']", "['state_dict']"])
def test_of_several_weights_it_is_said_which_are_taken(place, tmp_path):
    first, *inner = re.findall(r"\w+", place)
    averaged = {name: tensor / 2 for name, tensor in STATE.items()}
    content = {first: {inner[0]: averaged} if inner else averaged, "model": STATE, "optimizer": {}}
    torch.save(content, tmp_path / "a.pth")
    words = f"under 'model', not {place}; to take those first: torch.save(torch.load(FILE){place}, "
    with pytest.warns(UserWarning, match=re.escape(words)):
        assert torch.equal(read(tmp_path / "a.pth")["layer.bias"], STATE["layer.bias"])


def test_an_archive_without_sums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read(tmp_path / "a.pth")["layer.bias"], STATE["layer.bias"])


class Scripted(nn.Module):
    """What is state and what is not."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        self.half_of_it = nn.Parameter(torch.rand(2).half())
        self.mask, self.sizes = torch.full((2, 2), -torch.inf), [1, 2]

    def forward(self, x):
        return self.inner(x) + self.mask[0] + self.sizes[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_script_gives_its_state_and_runs_nothing(tmp_path):
    module = Scripted()
    torch.jit.script(module).save(str(tmp_path / "a.pt"))
    found = read(tmp_path / "a.pt")
    assert list(found) == list(module.state_dict())
    assert all(torch.equal(found[n], t) for n, t in module.state_dict().items())
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:  # what opening would run
        archive.writestr("a/code/__torch__/b.py", "def __setstate__(self, state): pass")
    with pytest.raises(CheckpointError, match=r"may run code .*__setstate__.*nothing was run"):
        read(tmp_path / "a.pt")


def test_numbers_of_another_kind_do_not_fit():
    own = {"a": torch.zeros(2), "b": torch.zeros(2), "n": torch.tensor(1)}
    stored = {"a": torch.zeros(2).half(), "b": torch.ones(2, dtype=torch.int64), "n": own["n"]}
    assert mismatches(own, stored) == ["b is torch.int64, expected torch.float32"]
    (said,) = mismatches(own, own | {"a": torch.zeros(2, dtype=torch.complex64)})
    assert said == "a is torch.complex64, expected torch.float32"
