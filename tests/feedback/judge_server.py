"""A judge for tests: a real HTTP server that speaks /v1/chat/completions, rates with a pocket model and fails on plan.

The rating is a digit that the model draws after the candidate, with the seed and temperature of the request; the
evidence is what it says next. Faults come by the number of the request and its body.
"""

import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, reduce
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from aft.models.directory import ModelDirectory

Plan = Callable[[int, dict[str, Any]], str | None]

SAID = {  # answers that are malformed, each in its own way
    "word": "Evaluation Evidence: all is fine.\nRating: eight",
    "eleven": "Evaluation Evidence: all is fine.\nRating: 11",
    "no evidence": "Rating: 8",
    "cut": "Evaluation Evidence: The student writes\nRating: 10",
}
BODIES = {
    "not json": ("application/json", b'{"choices": ['),
    "page": ("text/html", b"<html>Welcome</html>"),
    "list": ("application/json", b"[1, 2]"),
    "deep": ("application/json", b"[" * 100_000),
    "no choices": ("application/json", b'{"choices": [], "usage": null}'),
    "no text": ("application/json", b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'),
}
MALFORMED = (*SAID, *BODIES)

JUNK: tuple[Any, ...] = (  # what may stand in the place of any value; 800 lists in each other are JSON that is read
    *(None, True, -1, 0, 1.5, 10**400, -(10**400), 1e308, -1e308, math.nan, math.inf, -math.inf),
    *("", "stop", "\ud800", "\0\x1b[2J", "1" * 10_000, [], {}, [None], [[]], [True], ["5"], [10**400], [-0.5, -0.5]),
    *(
        [3.0],
        [math.nan],
        [-1e308] * 4,
        {"0": 1},
        {"content": "\ud800"},
        reduce(lambda inner, _: [inner], range(800), []),
    ),
)


def with_junk(value: Any) -> Iterator[Any]:
    """The value with junk in the place of one of its parts, or of itself: every part, every piece of junk."""
    yield from JUNK
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        for changed in with_junk(part):
            yield {**value, key: changed} if isinstance(value, dict) else [*value[:key], changed, *value[key + 1 :]]
    if isinstance(value, list):
        yield from (value[:-1], [*value, *value])  # one missing, or all twice


class PocketJudge:
    """Rates with a pocket model: the same request, seed and temperature give the same answer."""

    def __init__(self, directory: ModelDirectory) -> None:
        self.model, self.tokenizer = directory.model(), directory.tokenizer()
        self.digits = [self.tokenizer.convert_tokens_to_ids(f" {digit}") for digit in range(1, 10)]
        self.judged = cache(self._judge)  # the draw alone differs between the requests for one candidate

    def __call__(self, body: dict[str, Any]) -> tuple[str, int, int]:
        """The text of the answer, and the tokens of prompt and answer."""
        said, logits, tokens = self.judged(fenced(body["messages"][-1]["content"]))
        odds = torch.softmax(logits / 8 / max(body["temperature"], 1e-3), dim=0)
        drawn = torch.multinomial(odds, 1, generator=torch.Generator().manual_seed(body["seed"]))
        return f"Evaluation Evidence: {said}\nRating: {int(drawn) + 1}", tokens, 5

    def _judge(self, candidate: str) -> tuple[str, torch.Tensor, int]:
        """What the model says after a candidate, its logits of the digits 1 to 9, and the candidate's tokens."""
        ids = self.tokenizer(candidate, return_tensors="pt")["input_ids"][:, :300]
        tokens = ids.shape[1]
        with torch.inference_mode():
            for _ in range(4):
                logits = self.model(ids).logits[0, -1]
                ids = torch.cat([ids, logits.argmax().reshape(1, 1)], dim=1)
        return str(self.tokenizer.decode(ids[0, tokens:], skip_special_tokens=True)), logits[self.digits], tokens


def fenced(prompt: str) -> str:
    """The candidate that a prompt holds: what stands between its two fences."""
    fence = re.findall(r"^====== [0-9a-f]{16} ======$", prompt, re.MULTILINE)[-1]
    return prompt.split(f"\n{fence}\n")[1]


class JudgeServer:
    """The server in a thread of its own, on a free port; it remembers what it was asked and what it answered."""

    def __init__(self, say: Callable[[dict[str, Any]], tuple[str, int, int]]) -> None:
        self.say = say
        self.plan: Plan = lambda number, body: None
        self.slowness = 1.5  # seconds of a "slow" answer
        self.think = 0.0  # seconds of any other
        self.usage = True  # whether answers tell their tokens
        self.error: dict[str, Any] | None = None  # what an error says; None: what a careless server would
        self.rewrite: Callable[[dict[str, Any]], object] = lambda answer: answer  # what a hostile one does to answers
        self.models: list[dict[str, Any]] | None = None  # what it lists of its models; None: it has no such list
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.paths: set[str] = set()
        self.answered: list[tuple[str, str]] = []  # candidates and what was said of them, well-formed answers only
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.http = _Http(("127.0.0.1", 0), _Handler)
        self.http.judge = self
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    @property
    def requests(self) -> int:
        return len(self.bodies)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    judge: JudgeServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up, or was killed, is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together
    server: _Http

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        models = self.server.judge.models
        known = models is not None and self.path == "/v1/models"
        self._send(200 if known else 404, json.dumps({"object": "list", "data": models}).encode())

    def do_POST(self) -> None:
        judge = self.server.judge
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with judge.lock:
            number = len(judge.bodies)
            judge.bodies.append(body)
            judge.headers.append({name.lower(): value for name, value in self.headers.items()})
            judge.times.append(time.monotonic())
            judge.paths.add(self.path)
            judge.under_way += 1
            judge.most_under_way = max(judge.most_under_way, judge.under_way)
        try:
            fault = judge.plan(number, body)
            time.sleep(judge.slowness if fault == "slow" else judge.think)
            answer = self._answer(fault, body)
        finally:
            with judge.lock:  # before the answer leaves: the client may send its next request at once
                judge.under_way -= 1
        answer()

    def _answer(self, fault: str | None, body: dict[str, Any]) -> Callable[[], None]:
        """How the request is to be answered."""
        if fault in ("drop", "half"):
            return lambda: self._hang_up(fault == "half")
        if fault in BODIES:
            kind, content = BODIES[fault]
            return lambda: self._send(200, content, kind)
        if fault is not None and fault[:3].isdigit():
            # As careless servers do, with the key in the error.
            said = f"no luck with {self.headers['Authorization']} and {body['model']}\nnor later"
            content = json.dumps({"error": self.server.judge.error or {"message": said}}).encode()
            retry = {"Retry-After": fault[4:]} if len(fault) > 4 else {}
            return lambda: self._send(int(fault[:3]), content, "application/json", retry)
        return lambda: self._send(200, self._completion(fault, body), "text/plain" if fault == "plain" else None)

    def _completion(self, fault: str | None, body: dict[str, Any]) -> bytes:
        judge = self.server.judge
        text, prompt_tokens, completion_tokens = judge.say(body)
        if fault in SAID:
            text = SAID[fault]
        else:
            with judge.lock:
                judge.answered.append((fenced(body["messages"][-1]["content"]), text))
        choice = {
            **{"index": 0, "message": {"role": "assistant", "content": text}},
            "finish_reason": "length" if fault == "cut" else "stop",
        }
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
        content = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        return json.dumps(judge.rewrite({**content, **({"usage": usage} if judge.usage else {})})).encode()

    def _send(self, status: int, content: bytes, kind: str | None = None, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {"Content-Type": kind or "application/json", "Content-Length": str(len(content)), **(more or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _hang_up(self, after_half: bool) -> None:
        if after_half:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"choices"')
            self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
