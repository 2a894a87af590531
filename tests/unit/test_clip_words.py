"""Prompts and names from files, or one line that says what is wrong with them."""

import re
from dataclasses import replace

import pytest
import torch

from richsem.models.clip import FrozenClip
from richsem.models.clip_words import class_names, prompts_of


def test_prompts_come_from_a_file(untrained, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a sketch of a {}.\n\n", encoding="utf-8")
    teacher = FrozenClip(replace(untrained.config, prompts=str(file)), untrained.model)
    expected = untrained.model.encode_text(untrained.tokenizer(["a sketch of a cat."])).detach()
    torch.testing.assert_close(teacher.text_features(["cat"], tmp_path), expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no text file of prompts"), ("", "it is empty"), (" ", "is empty; expected prompts"),
        ("a {}.\nphoto\n", "line 2 is 'photo', expected text with {} once"),
        ("{} and {}", "line 1"), ("{} {name}", "line 1"),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be_used(tmp_path, content, words):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=f"{re.escape(str(file))}.*{words}"):
        prompts_of(str(file))


def test_names_come_from_a_file(tmp_path):
    file = tmp_path / "names.txt"
    assert class_names("", ("a", "b")) == ["a", "b"]
    for content, words in (
        ("hound\n", "1 names for 2 classes"),
        ("hound\n\nboat", "3 names for 2"),
        ("\nboat", "line 1 is empty"),
        ("boat\nboat", "line 2 is the same as line 1"),
        ('["hound", "boat"]', "holds code or comments; expected names, one a"),
        ("names: [hound, boat]", "holds code or comments"),
        ("# of a set\nhound", "holds code or comments"),
        ("//of a set\nhound", "holds code or comments"),
        ("hound # a dog\nboat", "holds code or comments"),
        ("{\\rtf1 hound}", "holds code or comments"),
        ("hound; dog\nboat; ship", "holds a table"),
        ("hound\t3\nboat\t4", "holds a table"),
        ("0 hound\n1 boat", "line 1 is '0 hound'; expected names without numbers, bullets"),
        ("1,hound\n2,boat", "line 1 is '1,hound'"),
        ("n02084071 hound, dog\nn02858304 boat", "line 1 is 'n02084071 hound, dog'"),
        ("1. hound\n2. boat", "line 1 is '1. hound'"),
        ("7: hound\n9: boat", "line 1 is '7: "),
        ("- hound\n- boat", "line 1 is '- hound'"),
        ("hound,\nboat,", "line 1 is 'hound,'"),
        ("'hound',\n'boat'", "expected names without"),
    ):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=words):
            class_names(str(file), ("dog", "ship"))
    file.write_text("7 up\n4-door, red", encoding="utf-8")
    assert class_names(str(file), ("dog", "ship")) == ["7 up", "4-door, red"]
    file.write_text("\ufeff\ufeffhound \nr\u00f6d b\u00e5t\n", encoding="utf-8")
    assert class_names(str(file), ("dog", "ship")) == ["hound", "r\u00f6d b\u00e5t"]
