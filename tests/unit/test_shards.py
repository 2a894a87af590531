"""Work in shards: nothing twice, nothing lost, several processes at it."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest

from richsem import paths, shards

complete = partial(shards.complete, title="toys", unit="toy")


def write(made, part):
    made.append(part.items)
    paths.write_atomic(part.path, " ".join(map(str, part.items)))


def read(parts):
    return [int(word) for part in parts for word in part.path.read_text().split()]


@pytest.mark.parametrize("total", [0, 1, 4, 10])
def test_all_items_are_made_once_in_their_order(tmp_path, total):
    parts, made = shards.cut(tmp_path / "a", total, 4, suffix=".txt"), []
    for _ in range(2):
        complete(parts, partial(write, made))
    assert read(parts) == list(range(total)) == [item for items in made for item in items]
    assert [len(part) for part in parts] == [4] * (total // 4) + [total % 4] * (total % 4 > 0)
    assert all(part.path.name == f"{part.items.start:08d}.txt" for part in parts)


def test_an_error_loses_its_own_shard_only(tmp_path, capsys):
    parts, made = shards.cut(tmp_path / "a", 10, 2, suffix=".txt"), []

    def breaks(part):
        if 6 in part.items:
            raise KeyboardInterrupt
        write(made, part)

    with pytest.raises(KeyboardInterrupt):
        complete(parts, breaks)
    assert [part.is_complete for part in parts] == [True, True, True, False, False]
    complete(parts, partial(write, made))
    assert len(made) == 5 and read(parts) == list(range(10))
    assert "toys: 100%" in capsys.readouterr().err  # what was there before counts, too


def test_what_cannot_be_read_is_made_anew(tmp_path):
    parts, made = shards.cut(tmp_path / "a", 6, 2, suffix=".txt"), []

    def content(part):
        return [int(word) for word in part.path.read_text().split()]

    read_all = partial(shards.made, parts, partial(write, made), content, title="toys", unit="toy")
    assert read_all() == [[0, 1], [2, 3], [4, 5]]
    parts[1].path.write_text("2 x")
    with pytest.warns(UserWarning, match=r"00000002\.txt is damaged \(invalid literal.*anew"):
        assert read_all() == [[0, 1], [2, 3], [4, 5]]
    assert made[3:] == [range(2, 4)]
    with pytest.raises(ZeroDivisionError), pytest.warns(UserWarning, match="is damaged"):
        shards.made(parts, partial(write, made), lambda part: 1 / 0, title="toys", unit="toy")


@pytest.mark.parametrize("asked", [1, 2])
def test_the_work_is_shared(tmp_path, asked):
    """By a pool of one process that asks, or by two that ask for the same."""
    parts, made, both = shards.cut(tmp_path / "a", 6, 1, suffix=".txt"), [], Barrier(2, timeout=30)

    def slow(part):
        if not made:
            both.wait()  # each has begun a shard of its own
        write(made, part)

    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(2) as helpers:
        options = {"pool": helpers} if asked == 1 else {}
        for job in [pool.submit(complete, parts, slow, **options) for _ in range(asked)]:
            job.result()
    assert len(made) == 6 and read(parts) == list(range(6))
