"""What an editor shows: signature help and hovers give each argument's meaning, symbol, range and default."""

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chainax as cx
import pytest
from stubs import CHAINS, CLASSES, STUB, stub

CALLS = {
    "adamw": (
        "learning_rate: length of the step (α), in [0, ∞). Default: 0.001",
        "weight_decay: multiple of the parameters that is added (λ), in [0, ∞). Default: 0.01",
    ),
    "scale_by_adam": (
        "b1: decay of the mean (β₁), in [0, 1). Default: 0.9",
        "eps: floor of the denominator, outside the root (ε), in [0, ∞). Default: 1e-08",
    ),
    "muon": (
        "sizing: the factor by the lengths of a matrix, one of 'spectral', 'rms', 'mup', 'none'. Default: 'spectral'",
        "adam: chains by path for parameters that are no matrices, such as by_path",
    ),
    "linear_schedule": ("transition_steps: ", "init_value: "),
}
"""Some of the arguments of a call, as a reader sees them."""


class Server:
    """A language server, spoken to as an editor does."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "pyright.langserver", "--stdio"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder
        )
        self.requests = 0
        root = folder.as_uri()
        folders = [{"uri": root, "name": "user"}]
        self.ask("initialize", processId=None, rootUri=root, capabilities=CAPABILITIES, workspaceFolders=folders)
        self.send(method="initialized", params={})

    def send(self, **message: Any) -> None:
        """Send one message."""
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def ask(self, method: str, **params: Any) -> Any:
        """The result of a request; what the server asks meanwhile has no answer of interest."""
        self.requests += 1
        self.send(id=self.requests, method=method, params=params)
        while True:
            message = self.receive()
            if "method" in message and "id" in message:
                many = len(message["params"]["items"]) if message["method"] == "workspace/configuration" else 0
                self.send(id=message["id"], result=[None] * many if many else None)
            elif message.get("id") == self.requests:
                return message["result"]

    def receive(self) -> dict[str, Any]:
        """The next message of the server."""
        assert self.process.stdout is not None
        length = 0
        while line := self.process.stdout.readline().strip():
            if line.startswith(b"Content-Length:"):
                length = int(line.partition(b":")[2])
        if not length:
            raise EOFError("the language server has ended")
        return json.loads(self.process.stdout.read(length))


CAPABILITIES = {
    "textDocument": {
        "hover": {"contentFormat": ["plaintext"]},
        "signatureHelp": {"signatureInformation": {"documentationFormat": ["plaintext"]}},
    }
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A language server that has opened a file with the calls, and the file's address."""
    pytest.importorskip("pyright")
    folder = tmp_path_factory.mktemp("user")
    where = {"extraPaths": [str(Path(cx.__file__).parent.parent)], "pythonVersion": "3.11"}
    (folder / "pyrightconfig.json").write_text(json.dumps(where))
    text = "import chainax as cx\n" + "".join(f"cx.{name}(\n)\n" for name in CALLS)
    (folder / "user.py").write_text(text)
    address = (folder / "user.py").as_uri()
    try:
        server = Server(folder)
    except (OSError, EOFError) as e:
        pytest.skip(f"the language server does not start: {e}")
    opened = {"uri": address, "languageId": "python", "version": 1, "text": text}
    server.send(method="textDocument/didOpen", params={"textDocument": opened})
    yield server, address
    server.process.kill()
    server.process.communicate()


def test_the_stub_is_what_the_declarations_say() -> None:
    """Write it by `python tests/stubs.py`."""
    assert STUB.read_text(encoding="utf-8") == stub()


@pytest.mark.parametrize("name", (*CLASSES, *CHAINS))
def test_every_argument_is_documented(name: str) -> None:
    """In words, one line each."""
    arguments = {n for n in inspect.signature(getattr(cx, name)).parameters if n != "storage"}
    text = definition(name).partition("Args:\n")[2].partition('"""')[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = dict(line.split(": ", 1) for line in lines)
    assert told.keys() == arguments
    assert all(len(meaning.split()) > 1 for meaning in told.values()), told


def definition(name: str) -> str:
    """The definition of a name in the stub, from its line to the next definition."""
    text = STUB.read_text(encoding="utf-8")
    start = max(text.find(f"\nclass {name}("), text.find(f"\ndef {name}("))
    ends = [end for word in ("\nclass ", "\ndef ") if (end := text.find(word, start + 1)) > 0]
    return text[start : min(ends, default=len(text))]


@pytest.mark.parametrize("name", CALLS)
def test_an_editor_shows_the_arguments(name: str, document: tuple[Server, str]) -> None:
    """When the pointer rests on the name, and while the call is being written."""
    server, address = document
    line = 1 + 2 * list(CALLS).index(name)
    at = {"textDocument": {"uri": address}, "position": {"line": line, "character": 3 + len(name)}}
    hover = server.ask("textDocument/hover", **{**at, "position": {"line": line, "character": 4}})
    shown = hover["contents"]["value"]
    at["position"]["character"] += 1
    help = server.ask("textDocument/signatureHelp", **at)
    (signature,) = help["signatures"]
    written = json.dumps(signature, ensure_ascii=False)
    for text in CALLS[name]:
        assert text in shown
        assert text in written.replace('\\"', '"')
    first = next(iter(inspect.signature(getattr(cx, name)).parameters))
    assert signature["parameters"][0]["documentation"]["value"].startswith(f"{first}: ")
    for parameter in inspect.signature(getattr(cx, name)).parameters:
        assert f"{parameter}: " in shown or parameter == "storage"
