"""Files from a server that breaks off, lies, is busy or away; two at once, kill -9, a full disk."""

import hashlib
import os
import signal
import subprocess
import sys
import threading

import pytest
from loopback import Server

from richsem.operations import fetch
from richsem.operations.fetch import Download, fetch_all

CONTENT = bytes(range(256)) * 20
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SIZE = len(CONTENT)
HALF = SIZE // 2


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0)
    monkeypatch.setattr(fetch, "CHUNK", 64)
    monkeypatch.setattr(fetch, "AGAIN", fetch.AGAIN.new(backoff_factor=0, connect=1))
    with Server() as server:
        server.files["/a.zip"] = CONTENT
        yield server


@pytest.fixture
def get(server, tmp_path):
    """Fetches /a.zip and returns what was said to be wrong."""

    def get(path="/a.zip", size=SIZE, sha256=DIGEST):
        one = Download(url=server.url + path, target=tmp_path / "a.zip", bytes=size, sha256=sha256)
        return "\n".join(fetch_all([one], 2, "test"))

    return get


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def wanted(server, folder, *names):
    return [Download(url=f"{server.url}/{name}", target=folder / name) for name in names]


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("plan", "ranges"),
    [
        ([], [""]),
        (["break"], ["", f"bytes={HALF}-"]),
        (["break", "no ranges"], ["", f"bytes={HALF}-"]),
        (["break", 503, 429], ["", *[f"bytes={HALF}-"] * 3]),
        (["break"] * 9, None),  # each time half of what was missing
        ([500, 502, 504], [""] * 4),
        (["no length"], [""]),
    ],
    ids=str,
)
def test_a_file_comes_whole_whatever_the_server_does(server, get, tmp_path, plan, ranges, known):
    server.plans["/a.zip"] = [*plan]
    assert get(**({} if known else {"size": 0, "sha256": ""})) == ""
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert left(tmp_path) == ["a.zip"]
    assert ranges is None or [asked for _, asked in server.asked] == ranges


def test_an_interrupted_file_goes_on_unless_it_has_changed(server, get, tmp_path):
    for changed in (False, True):
        server.plans["/a.zip"] = ["break"] + [404] * 2
        assert "404 Not Found" in get(size=0, sha256="")
        assert left(tmp_path) == [".a.zip.mark", ".a.zip.part"]
        if changed:
            server.version = "Sun, 02 Jan 2022 00:00:00 GMT"
            server.files["/a.zip"] = CONTENT[::-1]
        server.plans["/a.zip"] = []
        assert get(size=0, sha256="") == ""
        assert server.asked[-1][1] == f"bytes={HALF}-"
        assert (tmp_path / "a.zip").read_bytes() == server.files["/a.zip"]
        (tmp_path / "a.zip").unlink()


def test_a_part_that_is_whole_or_longer_than_the_file(server, get, tmp_path):
    for part in (CONTENT, CONTENT + b"more"):
        (tmp_path / ".a.zip.part").write_bytes(part)
        (tmp_path / ".a.zip.mark").write_text(server.version)
        assert get() == ""
        assert (tmp_path / "a.zip").read_bytes() == CONTENT
        assert left(tmp_path) == ["a.zip"]
        (tmp_path / "a.zip").unlink()


@pytest.mark.parametrize(
    ("plan", "known", "words"),
    [
        ([404], {}, "404 Not Found. Try again, put the file at {target} yourself, or name a mir"),
        ([403], {}, "403 Forbidden, it may want an account"),
        (["page"], {}, "a web page came instead"),
        (["cut"], {}, f"{HALF:,} bytes, the release has {SIZE:,}"),
        (["no length"], {"size": 9}, f"{SIZE:,} bytes came, the release has 9"),
        ([], {"sha256": "0" * 64}, "another SHA-256"),
        (["break", *["no ranges", "break"] * 9], {}, None),
        ([503] * 9, {}, "503 Service Unavailable"),
    ],
    ids=str,
)
def test_what_cannot_be_right_says_what_to_do(server, get, tmp_path, plan, known, words):
    server.plans["/a.zip"] = [*plan]
    said = get(**known)
    if words:
        assert said.startswith(f"{server.url}/a.zip: ")
        assert words.format(target=tmp_path / "a.zip") in said
        assert not (tmp_path / "a.zip").exists()
    server.plans["/a.zip"] = []
    assert get() == ""  # the next try has what it takes


def test_a_server_that_always_breaks_off_or_does_not_answer_is_given_up(server, get, tmp_path):
    server.files["/a.zip"] = CONTENT[:1]
    server.plans["/a.zip"] = ["break"] * 20
    assert f"it broke off {fetch.IDLE_TRIES} times at 0 bytes" in get(size=0, sha256="")
    assert len(server.asked) == fetch.IDLE_TRIES
    server.server_close()
    assert "no answer" in get()


def test_a_busy_server_is_asked_again_when_it_says(server, get, monkeypatch):
    waits = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    server.plans["/a.zip"], server.headers = [429, 503], {"Retry_After": "7"}
    assert get() == "" and waits == [7, 7]


def test_a_server_that_asks_to_wait_for_hours_is_not_waited_for(server, get, monkeypatch):
    waits = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    server.plans["/a.zip"], server.headers = [429] * 20, {"Retry_After": "7200"}
    assert "429 Too Many Requests, with Retry-After: 7200" in get()
    assert set(waits) == {60} and len(waits) < 10


def test_redirects_are_followed_with_the_range(server, get):
    server.plans["/old"], server.headers = [302, 302], {"Location": "/a.zip"}
    server.plans["/a.zip"] = ["break"]
    assert get("/old") == ""
    assert server.asked[-1] == ("/a.zip", f"bytes={HALF}-")


def test_nothing_of_the_users_is_replaced_and_a_bad_file_stops_no_other(server, get, tmp_path):
    (tmp_path / "a.zip").write_text("mine")
    assert get() == f"{tmp_path / 'a.zip'}: 4 bytes, the release has 5,120: move it away"
    assert (tmp_path / "a.zip").read_text() == "mine" and server.asked == []
    (tmp_path / "a.zip").write_bytes(CONTENT)
    assert get() == "" and server.asked == []
    server.files |= {f"/{i}.jpg": b"%d" % i for i in range(20) if i != 3}
    names = [f"{i}.jpg" for i in range(20)]
    (said,) = fetch_all(wanted(server, tmp_path / "deep", *names), 4, "test")
    assert "/3.jpg: 404" in said
    assert len(left(tmp_path / "deep")) == 19


def test_a_file_that_appears_meanwhile_stays(server, get, tmp_path):
    server.plans["/a.zip"] = ["stall"]
    found = []
    thread = threading.Thread(target=lambda: found.append(get(size=0, sha256="")))
    thread.start()
    assert server.stalled.wait(10)
    (tmp_path / "a.zip").write_text("mine")
    server.going.set()
    thread.join(10)
    assert found == [""] and (tmp_path / "a.zip").read_text() == "mine"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_names_the_file(get, tmp_path):
    (tmp_path / ".a.zip.part").symlink_to("/dev/full")
    said = get()
    assert said.startswith(f"{tmp_path / '.a.zip.part'}: No space left on device; free some space")


def test_ctrl_c_ends_the_others_and_keeps_what_came(server, tmp_path, monkeypatch):
    server.files["/b.zip"] = CONTENT * 100

    def stop(one, *_):
        if one.target.name == "b.zip":
            raise KeyboardInterrupt
        return original(one, *_)

    original = fetch.fetch
    monkeypatch.setattr(fetch, "fetch", stop)
    server.plans["/a.zip"] = ["stall"]
    threading.Timer(0.1, server.going.set).start()
    with pytest.raises(KeyboardInterrupt):
        fetch_all(wanted(server, tmp_path, "a.zip", "b.zip"), 2, "test")
    assert not (tmp_path / "b.zip").exists()


FETCH = """
import sys
from pathlib import Path
from richsem.operations.fetch import Download, fetch_all
sys.exit(bool(fetch_all([Download(url=sys.argv[1], target=Path(sys.argv[2]))], 1, "test")))
"""


def test_kill_and_go_on(server, tmp_path):
    command = [sys.executable, "-c", FETCH, f"{server.url}/a.zip", tmp_path / "a.zip"]
    server.plans["/a.zip"] = ["stall"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        assert server.stalled.wait(20)
        while not (tmp_path / ".a.zip.part").exists():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    server.going.set()
    assert "a.zip" not in left(tmp_path)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and left(tmp_path) == ["a.zip"]
