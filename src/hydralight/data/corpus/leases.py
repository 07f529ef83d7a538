"""Who does which unit, where several processes prepare a corpus at a URL."""

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from threading import Event, Thread

from hydralight.data.corpus.claims import BEAT, EXPIRES, is_gone
from hydralight.errors import UserError
from hydralight.stores.written import content_of, create, objects_below, put, remove


class Leases:
    """Claims of this process, as objects that only one process can make.

    A claim is written again now and then. One that this process has seen unchanged for two minutes
    by its own clock, or whose process on this machine is gone, is anybody's. (A store that does not
    know conditional puts lets two processes have a claim: a unit is done twice, to the same
    objects, and nothing is spoilt.)

    Args:
        url: Below which claims are.
    """

    pause = 5.0  # seconds between two looks at what others have

    def __init__(self, url: str) -> None:
        self.url = url
        self._token = secrets.token_hex(8)
        self._own: set[str] = set()
        self._others: dict[str, tuple[str | None, float]] = {}  # version, and since when
        self._owners: dict[tuple[str, str], bytes] = {}  # what is in it
        self._listed = float("-inf")
        self._ended = Event()
        Thread(target=self._beat, daemon=True).start()

    def take(self, name: str) -> bool:
        """Claim a unit, if nobody else has."""
        if name in self._own:
            return False
        if time.monotonic() - self._listed > self.pause:
            self._list()
        if name in self._others:
            if not self._is_dead(name):
                return False
            del self._others[name]
            remove(self._url_of(name))
        if not create(self._url_of(name), self._content(0)) and not self._is_own(name):
            self._others[name] = (None, time.monotonic())
            return False
        self._own.add(name)
        return True

    def release(self, name: str) -> None:
        """Give a claim back."""
        self._own.discard(name)
        remove(self._url_of(name))

    def release_all(self) -> None:
        """Give all claims back, for good."""
        self._ended.set()
        for name in list(self._own):
            with suppress(UserError):  # it expires
                self.release(name)

    def _list(self) -> None:
        """See which claims others have, and since when they are as they are."""
        now = time.monotonic()
        found = objects_below(self.url)
        before, self._others = self._others, {}
        for name in found.keys() - self._own:
            version = found[name].version
            known = before.get(name)
            same = known is not None and known[0] in (None, version)
            self._others[name] = (version, known[1] if known and same else now)
        self._listed = now

    def _is_dead(self, name: str) -> bool:
        version, since = self._others[name]
        if version is None:  # the next list has it
            return False
        key = name, version
        if time.monotonic() - since > EXPIRES:
            return True
        if key not in self._owners:
            self._owners[key] = content_of(self._url_of(name)) or b"{}"
        return is_gone(self._owners[key])

    def _is_own(self, name: str) -> bool:
        """Whether a claim is this process's own, whose answer was lost."""
        content = content_of(self._url_of(name))
        return content is not None and self._token.encode() in content

    def _content(self, number: int) -> bytes:
        owner = {"host": socket.gethostname(), "process": os.getpid()}
        return json.dumps({**owner, "token": self._token, "number": number}).encode()

    def _beat(self) -> None:
        """Renew the claims now and then."""
        number = 0
        while not self._ended.wait(BEAT):
            number += 1
            for name in list(self._own):
                with suppress(UserError):  # the next one may be written
                    put(self._url_of(name), self._content(number))
                if name not in self._own:  # given back meanwhile
                    with suppress(UserError):
                        remove(self._url_of(name))

    def _url_of(self, name: str) -> str:
        return f"{self.url}/{name}"
