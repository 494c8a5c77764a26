"""The panel as a program: where it listens, what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cli_project import Project, shop

from panel.client import FORM, Answer

PATIENCE_S = 20.0
ONWARD = [sys.executable, "-m", "onward"]

# A server of the user's own, in which the panel is mounted; it prints its port.
WEB = """
import socket
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from onward.actor import Actor
from shop import app


@asynccontextmanager
async def lifespan(web):
    async with app:
        print(f"http://127.0.0.1:{port}/panel/", flush=True)
        yield


with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # who comes before the server is ready waits for it
    port = listener.getsockname()[1]
    panel = app.panel(authorize=lambda request, action, record: Actor("ada"))
    web = Starlette(routes=[Mount("/panel", panel)], lifespan=lifespan)
    uvicorn.Server(uvicorn.Config(web, log_level="warning")).run([listener])
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    for name in ("ONWARD_APP", "ONWARD_STORE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with shop(tmp_path) as project:
        yield project


class Program:
    """A command that serves a panel, and a browser before it that has come in or not."""

    def __init__(self, *words: str, command: Sequence[str] = ONWARD) -> None:
        self.process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.cookies: dict[str, str] = {}
        assert self.process.stdout is not None
        self.printed = self.process.stdout.readline().strip()
        self.host = self.printed.partition("://")[2].partition("/")[0]

    @property
    def port(self) -> int:
        return int(self.host.rpartition(":")[2])

    def ask(self, method: str, path: str, body: str = "", **headers: str) -> Answer:
        said = {"connection": "close", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body:
            said |= {"content-type": FORM, "origin": f"http://{self.host}"}
        with self.connected() as connection:
            connection.request(method, path, body.encode() or None, self.known() | said)
            answer = connection.getresponse()
            found = Answer(answer.status, [(name.lower(), value) for name, value in answer.getheaders()], answer.read())
        for cookie in found.all("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return found

    @contextmanager
    def watching(self, path: str = "/live") -> Iterator[HTTPResponse]:
        with self.connected() as connection:
            connection.request("GET", path, None, self.known() | {"sec-fetch-site": "same-origin"})
            with connection.getresponse() as stream:
                assert stream.readline() == b"retry: 2000\n"
                yield stream

    def connected(self) -> closing[HTTPConnection]:
        return closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S))

    def known(self) -> dict[str, str]:
        return {"host": self.host, "cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def enter(self) -> None:
        token = self.printed.partition("token=")[2]
        self.ask("GET", f"/enter?token={token}")
        csrf = self.cookies[f"onward_csrf_{self.port}"]
        assert self.ask("POST", "/enter", urlencode({"csrf": csrf, "token": token})).status == 303

    def end(self, number: int = signal.SIGTERM, within: float = PATIENCE_S) -> tuple[int, str]:
        """Its exit code and what it said besides the link."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=within)
        return self.process.returncode, out + err


@contextmanager
def running(*words: str, command: Sequence[str] = ONWARD) -> Iterator[Program]:
    program = Program(*words, command=command)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.communicate(timeout=PATIENCE_S)


def listening(pid: int) -> set[tuple[str, int]]:
    """The addresses and ports at which a program listens, as the kernel has them."""
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    ours = {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in ours:
                address, port = fields[1].split(":")
                words = [bytes.fromhex(address[n : n + 8])[::-1] for n in range(0, len(address), 8)]
                found.add((str(ip_address(b"".join(words))), int(port, 16)))
    return found


def ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


# -- where it listens -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_s1_it_listens_on_this_machine_only(project: Project) -> None:
    with running("panel", "--port", "0") as program:
        addresses = {"127.0.0.1", "::1"} if ipv6() else {"127.0.0.1"}
        assert listening(program.process.pid) == {(address, program.port) for address in addresses}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "localhost.example", "127.0.0.1.nip.example"])
def test_s1_another_address_is_refused_unless_it_is_known_who_may_come_in(project: Project, host: str) -> None:
    said = project.error("panel", "--host", host, "--port", "0", code=1)
    assert "others can reach the panel" in said and "--users" in said


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_s1_with_users_it_listens_where_it_was_told_to_and_warns_without_tls(project: Project) -> None:
    made = project.json("panel", "--new-user", "ada", "--role", "operator")
    assert project.error("panel", "--host", "0.0.0.0", "--users", users(made["line"]), code=1).count("--hosts") == 1
    words = ("panel", "--host", "0.0.0.0", "--hosts", "panel.example", "--users", users(made["line"]), "--port", "0")
    with running(*words) as program:
        assert re.fullmatch(r"http://panel\.example:\d+/enter", program.printed)
        assert listening(program.process.pid) == {("0.0.0.0", program.port)}
        assert program.ask("GET", "/enter").status == 200
        assert program.ask("GET", "/enter", host="evil.example").status == 421
        assert program.ask("GET", "/").status == 401
        csrf = program.cookies[f"onward_csrf_{program.port}"]
        for token, status in ((made["line"].split()[2], 401), (made["token"], 303)):
            assert program.ask("POST", "/enter", urlencode({"csrf": csrf, "token": token})).status == status
        assert program.ask("GET", "/").status == 200
        code, said = program.end()
        assert code == 0 and "warning: without --cert" in said and made["token"] not in said


def users(line: str) -> str:
    path = Path("users")
    path.touch(mode=0o600)
    path.write_text(line + "\n")
    return str(path)


def test_s1_a_file_of_users_that_others_can_read_is_refused(project: Project) -> None:
    line = project.out("panel", "--new-user", "ada").strip()
    path = users(line)
    Path(path).chmod(0o644)
    said = project.error("panel", "--host", "127.0.0.1", "--users", path, "--port", "0", code=1)
    assert "read or changed by others" in said and "chmod 600" in said


def test_a_new_user_is_a_line_for_the_file_and_a_token_that_stands_in_no_file(project: Project) -> None:
    result = project.run("panel", "--new-user", "ada", "--role", "viewer")
    assert re.fullmatch(r"ada viewer [0-9a-f]{64}\n", result.stdout)
    token = result.stderr.strip().rpartition(" ")[2]
    assert len(token) == 43 and token not in result.stdout
    assert "no name for a user" in project.error("panel", "--new-user", "a b", code=1)


def test_a_port_that_is_taken_is_told_with_what_to_type(project: Project) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = project.error("panel", "--port", str(port), code=1)
    assert f"port {port} is taken" in said and f"--port {port + 1}" in said
    if ipv6():  # who sits on the other address of this machine would get what is meant for us
        with socket.socket(socket.AF_INET6) as other:
            other.bind(("::1", 0))
            other.listen()
            assert "is taken" in project.error("panel", "--port", str(other.getsockname()[1]), code=1)


def test_a_key_without_a_certificate_is_a_mistake(project: Project) -> None:
    Path("key.pem").touch()
    assert "--cert" in project.error("panel", "--key", "key.pem", code=2)


# -- what it prints and does ------------------------------------------------------------------------------------------


def test_the_link_opens_it_once_and_another_one_is_printed(project: Project) -> None:
    project.start("--set", "item=lamp")
    with running("panel", "--port", "0") as program:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/enter\?token=[A-Za-z0-9_-]{43}", program.printed)
        assert program.ask("GET", "/").status == 401
        program.enter()
        page = program.ask("GET", "/")
        assert page.status == 200 and "purchase" in page.text
        assert program.ask("GET", "/health").body == b'{\n  "status": "ok"\n}'
        code, said = program.end()
        assert code == 0
        [fresh] = re.findall(r"for another browser: (\S+)", said)
        assert fresh != program.printed and fresh.startswith(f"http://127.0.0.1:{program.port}/enter?token=")
        assert "uvicorn" not in said.lower() and "Traceback" not in said


def test_the_browser_of_this_machine_gets_the_link_by_a_file_that_nobody_else_can_read(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as an argument, which every user of the machine can see."""
    Path("browser.py").write_text(
        "import os, sys, urllib.parse\n"
        "path = urllib.parse.urlsplit(sys.argv[1]).path\n"
        "open('seen.new', 'w').write(f'{sys.argv[1]} {os.stat(path).st_mode & 0o777:o} {open(path).read()}')\n"
        "os.rename('seen.new', 'seen')\n"
    )
    monkeypatch.setenv("BROWSER", f"{sys.executable} browser.py %s")
    with running("panel", "--port", "0", "--open") as program:
        until = time.monotonic() + PATIENCE_S
        while not Path("seen").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        url, mode, text = Path("seen").read_text().split(" ", 2)
        assert url.startswith("file:///") and mode == "600"
        assert program.printed in text and program.printed.partition("token=")[2] not in url
        assert program.end()[0] == 0
        assert not Path(url.removeprefix("file://")).exists()


@pytest.mark.skipif(not shutil.which("openssl"), reason="makes a certificate with openssl")
def test_with_a_certificate_it_speaks_tls_and_its_cookies_are_for_nothing_else(project: Project) -> None:
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    subprocess.run([*make.split(), "-keyout", "key.pem", "-out", "cert.pem"], check=True, capture_output=True, timeout=PATIENCE_S)
    with running("panel", "--port", "0", "--cert", "cert.pem", "--key", "key.pem") as program:
        assert program.printed.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile="cert.pem")
        trust.check_hostname = False
        with closing(HTTPSConnection("127.0.0.1", program.port, timeout=PATIENCE_S, context=trust)) as connection:
            connection.request("GET", "/enter", headers={"host": program.host, "connection": "close"})
            answer = connection.getresponse()
            answer.read()
        assert answer.headers["set-cookie"].startswith("__Host-onward_csrf_") and answer.headers["set-cookie"].endswith("Secure")
        assert program.end()[0] == 0
    Path("cert.pem").write_text("no certificate")
    assert "cannot be used" in project.error("panel", "--port", "0", "--cert", "cert.pem", "--key", "key.pem", code=1)
    assert "cannot be used" in project.error("panel", "--port", "0", "--cert", "none.pem", code=1)


def test_as_json_it_prints_one_document_with_the_url(project: Project) -> None:
    process = subprocess.Popen([*ONWARD, "panel", "--port", "0", "-o", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["schema"] == "onward.panel/1" and "/enter?token=" in told["url"]
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_s8_a_proxys_headers_are_not_believed(project: Project) -> None:
    with running("panel", "--port", "0") as program:
        answer = program.ask("GET", "/enter", x_forwarded_proto="https", x_forwarded_for="10.0.0.1", forwarded="proto=https")
        assert "__Host-" not in answer.header("set-cookie") and "Secure" not in answer.header("set-cookie")
        assert answer.header("server") == ""


def test_s23_a_server_survives_what_is_too_much(project: Project) -> None:
    with running("panel", "--port", "0") as program:
        program.enter()
        before = memory(program.process.pid)
        with socket.create_connection(("127.0.0.1", program.port), PATIENCE_S) as raw:
            cookies = "; ".join(f"{name}={value}" for name, value in program.cookies.items())
            head = f"POST /act HTTP/1.1\r\nHost: {program.host}\r\nCookie: {cookies}\r\nOrigin: http://{program.host}\r\n"
            raw.sendall(f"{head}Content-Type: {FORM}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
            chunk = b"%x\r\n%s\r\n" % (65_536, b"x" * 65_536)
            try:
                for _ in range(800):
                    raw.sendall(chunk)
            except OSError:  # it has heard enough
                pass
            answer = read_all(raw)
        assert answer.startswith(b"HTTP/1.1 413 ") or answer == b""
        assert memory(program.process.pid) - before < 20_000
        assert program.ask("GET", "/health").status == 200


def read_all(raw: socket.socket) -> bytes:
    text = b""
    try:
        while part := raw.recv(65_536):
            text += part
    except OSError:
        pass
    return text


def memory(pid: int) -> int:
    """In kB; 0 where that cannot be asked."""
    status = Path(f"/proc/{pid}/status")
    found = re.search(r"VmRSS:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) if found else 0


def test_it_works_with_a_store_alone(project: Project) -> None:
    project.start("--set", "item=lamp")
    Path("pyproject.toml").unlink()
    with running("panel", "--port", "0", "--store", "sqlite:///shop.db") as program:
        program.enter()
        assert program.ask("GET", "/").status == 200
        assert program.end()[0] == 0
    assert "there is no store" in project.error("panel", "--store", "sqlite:///mistyped.db", code=6)


# -- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_with_streams_open(project: Project, number: int) -> None:
    with running("panel", "--port", "0") as program:
        program.enter()
        with program.watching() as one, program.watching() as two:
            begun = time.monotonic()
            assert program.end(number)[0] == 0
            assert time.monotonic() - begun < 3
            assert one.read() == two.read() == b"\n"  # ended, not torn


def test_a_worker_can_have_the_panel_beside_it(project: Project) -> None:
    with running("run", "--panel=0") as program:
        program.enter()
        with program.watching() as stream:
            id = project.start("--set", "item=lamp")
            while (line := stream.readline()) != b"event: change\n":
                assert line
            project.out("watch", id, "--timeout", "20s")
            begun = time.monotonic()
            code, said = program.end()
            assert code == 0 and "worker ended; 1 finished" in said
            assert time.monotonic() - begun < 3


def test_mounted_in_a_server_of_ones_own_it_does_not_keep_that_from_ending(project: Project) -> None:
    Path("web.py").write_text(WEB)
    with running(command=[sys.executable, "web.py"]) as program, program.watching("/panel/live") as stream:
        begun = time.monotonic()
        _, said = program.end()
        assert time.monotonic() - begun < 4
        assert "Traceback" not in said and stream.read() == b"\n"


def test_without_its_packages_the_panel_says_what_to_install(project: Project) -> None:
    """In a program of its own, in which they cannot be imported."""
    hide = "import sys; sys.modules.update(dict.fromkeys(['starlette', 'jinja2', 'uvicorn']))\n"
    for code in ("from onward.cli import main; sys.argv = ['onward', 'panel']; main()", "import shop; shop.app.panel()"):
        done = subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 1
        assert "the panel needs its packages" in done.stderr
    done = subprocess.run([sys.executable, "-c", hide + code[:-8]], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0  # and all else goes on without them
