"""One visit of the app without a browser: what a browser sends and receives over its connection, and nothing drawn."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

LARGEST = 2**27  # bytes of a message


@dataclass(frozen=True)
class Link:
    """What a visitor opens: a page with a pair of models and a text. Equal links show the same."""

    page: str
    a: str
    b: str
    text: str
    choices: tuple[tuple[str, str], ...] = ()  # others of the page, as its address holds them

    @property
    def query(self) -> str:
        """The part of the address behind the question mark."""
        return urlencode({"a": self.a, "b": self.b, "source": "typed", "text": self.text, **dict(self.choices)})


@dataclass
class Screen:
    """The sentences of a page while it is drawn."""

    words: dict[tuple[int, ...], str] = field(default_factory=dict)  # by their place on the page
    errors: dict[tuple[int, ...], str] = field(default_factory=dict)
    done: bool = False

    def read(self, message: Any) -> None:
        """Draw a message of the server."""
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.words.clear()
            self.errors.clear()
        elif kind == "script_finished":
            self.done = message.script_finished == message.FINISHED_SUCCESSFULLY
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            place, element = tuple(message.metadata.delta_path), message.delta.new_element
            self.words.pop(place, None)
            self.errors.pop(place, None)
            if element.WhichOneof("type") == "markdown":
                self.words[place] = element.markdown.body
            elif element.WhichOneof("type") == "alert":
                kind = self.errors if element.alert.format == element.alert.ERROR else self.words
                kind[place] = element.alert.body


@dataclass(frozen=True)
class Visited:
    """What a visitor was shown."""

    link: Link
    begun: float  # on the clock of this process
    seconds: float  # until the page was done
    words: tuple[str, ...]  # the sentences of the page, in order
    error: str | None  # what went wrong, in one sentence
    received: bytes


async def visit(address: str, link: Link, patience: float, stay: float | None = None) -> Visited:
    """Open a link as a browser does, and stay until the page is done.

    Args:
        address: the server's, with http.
        link: what is opened.
        patience: seconds after which a visitor who waits is an error.
        stay: seconds after which the visitor leaves in any case.
    """
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException
    from websockets.typing import Subprotocol

    begun, screen, received, error = time.perf_counter(), Screen(), list[bytes](), None
    asked = BackMsg()
    asked.rerun_script.query_string = link.query
    asked.rerun_script.page_name = "" if link.page == "uncertainty" else link.page
    stream = f"{address.replace('http', 'ws', 1)}/_stcore/stream"
    try:
        async with (
            asyncio.timeout(patience if stay is None else stay),
            connect(stream, subprotocols=[Subprotocol("streamlit")], max_size=LARGEST, open_timeout=patience) as socket,
        ):
            await socket.send(asked.SerializeToString())
            while not screen.done:
                content = await socket.recv()
                assert isinstance(content, bytes)
                received.append(content)
                screen.read(ForwardMsg.FromString(content))
    except TimeoutError:
        error = f"the page was not done after {patience:.0f} s" if stay is None else None
    except (OSError, WebSocketException) as failure:
        error = f"the connection failed: {failure}"
    seconds = time.perf_counter() - begun
    words = tuple(screen.words[place] for place in sorted(screen.words))
    error = error or next(iter(screen.errors.values()), None)
    return Visited(link, begun, seconds, words, error, b"".join(received))
