"""What CLIP is told: prompts and class names from text files, one a line."""

import re
from collections.abc import Sequence
from pathlib import Path

from richsem.foreign import text_of
from richsem.paths import user_path

# How comments and lines of lists and of other tools' data files begin, and no name or prompt does.
_CODE = re.compile(r'#|//|.*\s(#|//)\s|\[|\w*\s*\{\s*("|$)|(names|nc):|classes\s*=|\{\\rtf')
# What lines have around a name where they were copied from code or from a list.
_AROUND = re.compile(r"""["'].*["'],?$|.*,$|[-*\u2022]\s|\d+\s*(:|\)|\.\s)|n\d{8}\s""")
BETWEEN = re.compile(r"[,;|\t\n\uff0c\u3001]|\s\.(?:\s|$)")  # what stands between names in a line


def prompts_of(file: str) -> tuple[str, ...]:
    """Prompts of a file, each with `{}` where the name goes."""
    path, lines = lines_of(file, "prompts")
    for number, line in enumerate(lines, 1):
        if line.count("{}") != 1 or set("{}") & set(line.replace("{}", "")):
            raise ValueError(f"{path}: line {number} is {line!r}, expected text with {{}} once")
    return tuple(lines)


def class_names(file: str, names: Sequence[str]) -> list[str]:
    """What classes with these names are called for CLIP: as a file says in the order of their ids.

    Without a file it is the names themselves.
    """
    if not file:
        return list(names)
    path, lines = lines_of(file, "names")
    if len(lines) != len(names):
        raise ValueError(
            f"{path}: {len(lines)} names for {len(names)} classes ({names[0]!r} to {names[-1]!r}); "
            "expected one a line, in the order of the classes' ids"
        )
    for row, name in enumerate(lines):
        if not name or name in lines[:row]:
            same = f"the same as line {lines.index(name) + 1}" if name else "empty"
            raise ValueError(f"{path}: line {row + 1} is {same}; CLIP has nothing to tell it by")
    return lines


def lines_of(file: str, what: str) -> tuple[Path, list[str]]:
    """Where a file is, and its lines without spaces around them."""
    path = user_path(file)
    try:
        text = text_of(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no text file of {what} ({error})") from error
    lines = [line.strip() for line in text.rstrip().splitlines()]
    signs = "[,;\t]" if path.suffix.lower() in (".csv", ".tsv") else "[;\t]"
    is_table = len(lines) > 1 and any(re.search(signs, line) for line in lines)
    if not lines or is_table or any(map(_CODE.match, lines)):
        wrong = "holds a table" if is_table else "holds code or comments" if lines else "is empty"
        raise ValueError(f"{path} {wrong}; expected {what}, one a line")
    numbers = [re.split("[ ,]", line)[0] for line in lines]
    is_numbered = numbers in [[str(n + k) for n in range(len(lines))] for k in (0, 1)]
    if len(lines) > 1 and (is_numbered or all(map(_AROUND.match, filter(None, lines)))):
        words = f"expected {what} without numbers, bullets, quotes and commas around them"
        raise ValueError(f"{path}: line 1 is {lines[0]!r:.80}; {words}")
    return path, lines
