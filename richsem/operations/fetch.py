"""Files from the network: resumed, checked, and under their own name only when they are whole."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3 import BaseHTTPResponse
from urllib3.util.retry import Retry

from richsem.data.releases import MIRROR, without_login
from richsem.operations.console import explained


class _Patience(Retry):
    """Waits as long as a server asks, a minute at most: nobody is told, and Ctrl-C waits, too."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        """Seconds until the next try; None where the server does not say."""
        asked = super().get_retry_after(response)
        return asked and min(asked, 60)


# A server that is busy or away is asked again by urllib3, after the time it names or 2, 4, 8, ...
# seconds; one that breaks off in the middle is asked for the rest.
BUSY = (429, 500, 502, 503, 504)
AGAIN = _Patience(8, connect=3, backoff_factor=1, status_forcelist=BUSY, raise_on_status=False)
IDLE_TRIES, PAUSE, TIMEOUT = 5, 2.0, 60  # times that nothing new came; seconds
CHUNK = 2**16  # lost at most when a server breaks off

Told = Callable[[int, int], None]  # bytes that are there and bytes in all (0: nobody knows)


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file to come."""

    url: str
    target: Path
    bytes: int = 0  # 0 where it is not known
    sha256: str = ""  # empty where it is not known

    @property
    def part(self) -> Path:
        """What came so far."""
        return self.target.with_name(f".{self.target.name}.part")

    @property
    def came(self) -> int:
        """Bytes that came so far."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def is_there(self) -> bool:
        """Whether it was fetched before; an OSError says that another file is in its place."""
        if not os.path.lexists(self.target):
            return False
        size = self.target.stat().st_size
        if self.bytes not in (0, size):
            words = f"{size:,} bytes, the release has {self.bytes:,}: move it away"
            raise OSError(f"{self.target}: {words}")
        return True

    def error(self, reason: str) -> OSError:
        """What went wrong, with the ways around it."""
        remedy = f"Try again, put the file at {self.target} yourself, or name a mirror ({MIRROR})"
        return OSError(without_login(f"{self.url}: {reason}. {remedy}."))


def fetch_all(wanted: Sequence[Download], jobs: int, title: str) -> list[str]:
    """Fetches files side by side, with progress; what went wrong with some of them comes back."""
    sized = all(one.bytes for one in wanted)
    total = sum(one.bytes for one in wanted) if sized else len(wanted)
    shown = {"total": total, "unit": "B" if sized else " files", "unit_scale": True}
    problems, counted, ending = [], dict.fromkeys(wanted, 0.0), threading.Event()

    def told(one: Download, came: int, size: int) -> None:
        if ending.is_set():
            raise KeyboardInterrupt
        now = came if sized else came / (size or came)
        bar.update(now - counted[one])
        counted[one] = now

    def work(one: Download) -> None:
        try:
            fetch(one, session, partial(told, one))
        except OSError as error:
            problems.append(explained(error))

    with requests.Session() as session, tqdm(desc=title, mininterval=1, **shown) as bar:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=AGAIN, pool_maxsize=jobs))
        with ThreadPoolExecutor(jobs) as pool:
            try:
                list(pool.map(work, wanted))
            except BaseException:  # Ctrl-C: the others end with their next piece
                ending.set()
                pool.shutdown(cancel_futures=True)
                raise
    return problems


def fetch(one: Download, session: requests.Session, told: Told) -> None:
    """Fetches one file, or the rest of it.

    Raises:
        OSError: the server refuses, keeps breaking off or has another file, with what to do; or
            the disk is full, or cannot be written. What came is kept for the next time.
    """
    if one.is_there():
        return
    one.target.parent.mkdir(parents=True, exist_ok=True)
    mark, idle = one.part.with_suffix(".mark"), 0
    while not _rest(one, session, told, mark, before := one.came):
        idle = 0 if one.came > before else idle + 1
        if idle == IDLE_TRIES:
            raise one.error(f"it broke off {idle} times at {one.came:,} bytes")
        time.sleep(PAUSE)
    if wrong := _difference(one):
        one.part.unlink()
        raise one.error(wrong)
    if not one.is_there():  # nobody put it there meanwhile
        one.part.rename(one.target)
    mark.unlink()


def _rest(one: Download, session: requests.Session, told: Told, mark: Path, start: int) -> bool:
    """Asks for what is missing of the version that is marked; whether all of it came."""
    headers = {"Accept-Encoding": "identity"}  # ranges count bytes of the file itself
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": mark.read_text() or None}
    try:
        answer = session.get(one.url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.RequestException as error:
        raise one.error(f"no answer ({error})") from error
    with answer:
        if answer.status_code == 416:  # nothing is left; or it has become shorter
            if not answer.headers.get("Content-Range", "").endswith(f"/{start}"):
                one.part.unlink()
            return one.came == start
        if answer.status_code >= 400:
            needs = ", it may want an account" if answer.status_code in (401, 403) else ""
            if asked := answer.headers.get("Retry-After"):
                needs = f", with Retry-After: {asked}"
            raise one.error(f"{answer.status_code} {answer.reason}{needs}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise one.error("a web page came instead, perhaps to log in")
        if answer.status_code != 206:  # all of it: for the first time, or because it has changed
            start = 0
            mark.write_text(answer.headers.get("Last-Modified") or answer.headers.get("ETag", ""))
        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdecimal() else 0
        if total and one.bytes not in (0, total):
            raise one.error(f"{total:,} bytes, the release has {one.bytes:,}")
        return _write(answer, one, told, start, total)


def _write(answer: requests.Response, one: Download, told: Told, start: int, total: int) -> bool:
    """Writes what comes behind the first bytes; whether it came to its end."""
    try:
        with one.part.open("ab" if start else "wb") as file:
            for chunk in answer.iter_content(CHUNK):
                file.write(chunk)
                told(file.tell(), total)
    except requests.RequestException:
        return False
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(one.part)) from error
    return total in (0, one.came)


def _difference(one: Download) -> str:
    """What tells a complete file from the release's, if anything."""
    if one.bytes not in (0, one.came):
        return f"{one.came:,} bytes came, the release has {one.bytes:,}"
    with one.part.open("rb") as file:
        digest = one.sha256 and hashlib.file_digest(file, "sha256").hexdigest()
    return "" if digest == one.sha256 else "what came has another SHA-256 than the release"
