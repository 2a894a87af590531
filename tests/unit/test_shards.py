"""Work in shards: nothing twice, nothing lost, several processes at it."""

import functools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from richsem import paths, shards


def write(part, made=None):
    if made is not None:
        made.append(part.items)
    paths.write_atomic(part.path, " ".join(map(str, part.items)))


def read(parts):
    return [int(word) for part in parts for word in part.path.read_text().split()]


def complete(parts, make, **options):
    shards.complete(parts, make, title="toys", unit="toy", **options)


@pytest.mark.parametrize("total", [0, 1, 4, 10])
def test_all_items_are_made_once_in_their_order(tmp_path, total):
    parts, made = shards.cut(tmp_path / "a", total, 4, suffix=".txt", prefix="x-"), []
    for _ in range(2):
        complete(parts, functools.partial(write, made=made))
    assert read(parts) == list(range(total)) == [item for items in made for item in items]
    assert [len(part) for part in parts] == [4] * (total // 4) + [total % 4] * (total % 4 > 0)
    assert all(part.path.name == f"x-{part.items.start:08d}.txt" for part in parts)


def test_an_error_loses_its_own_shard_only(tmp_path, capsys):
    parts, made = shards.cut(tmp_path / "a", 10, 2, suffix=".txt"), []

    def breaks(part):
        if 6 in part.items:
            raise KeyboardInterrupt
        write(part, made)

    with pytest.raises(KeyboardInterrupt):
        complete(parts, breaks)
    assert [part.is_complete for part in parts] == [True, True, True, False, False]
    complete(parts, functools.partial(write, made=made))
    assert len(made) == 5 and read(parts) == list(range(10))
    assert "toys: 100%" in capsys.readouterr().err  # what was there before counts, too


def test_those_who_need_the_same_share_the_work(tmp_path):
    parts, made, both = shards.cut(tmp_path / "a", 6, 1, suffix=".txt"), [], Barrier(2, timeout=30)

    def slow(part):
        if not made:
            both.wait()  # each has begun a shard of its own
        write(part, made)

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(complete, parts, slow) for _ in range(2)]:
            job.result()
    assert len(made) == 6 and read(parts) == list(range(6))


def test_a_pool_makes_several_at_a_time(tmp_path):
    parts, both = shards.cut(tmp_path / "a", 7, 2, suffix=".txt"), Barrier(2, timeout=30)

    def together(part):
        both.wait()
        write(part)

    with ThreadPoolExecutor(2) as pool:
        complete(parts, together, pool=pool)
    assert read(parts) == list(range(7))
