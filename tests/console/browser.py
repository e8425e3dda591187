"""The console in a real Chromium: `python -m tests.console.browser URL EMAIL PASSWORD [--screenshots DIR]`.

It is no part of the suite: Chromium (CHROMIUM says which, else `chromium` on the PATH) is not to be had from pip. It
plays an operator in front of a running stack, and fails on any error on the browser's console, violations of the
policy included. It speaks Chromium's own protocol (CDP).
"""

import argparse
import asyncio
import base64
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

PATIENCE_S = 20.0
HOSTILE = {
    "Balance  999999.00 EUR\nStatus  open": "\u202e\u001b]0;owned\u0007<img src=x onerror=alert(1)>",
    "Status": "open",
    "long": "x" * 500,
}
"""Metadata that would like to be facts of Mercuria's."""
WINDOW = "1366,850"


class Page:
    """A page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._count = 0
        self._served: tuple[int, bytes | None] = 0, None
        self.faults: list[str] = []

    async def do(self, method: str, **parameters: Any) -> Any:
        """Send a command of CDP, and return its result; what the page complains of meanwhile is kept."""
        self._count += 1
        asked = self._count
        await self._socket.send_json({"id": asked, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=PATIENCE_S)
            if message.get("id") == asked:
                assert "error" not in message, message
                return message["result"]
            if message.get("method") == "Fetch.requestPaused":
                await self._answer(message["params"]["requestId"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        name, said = message.get("method"), message.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.faults.append(str(said["exceptionDetails"].get("exception", said)))
        elif name == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.faults.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")

    async def run(self, script: str) -> Any:
        """Return what a script gives."""
        found = await self.do("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def see(self, script: str) -> Any:
        """Wait until a script gives something true."""
        end_s = time.monotonic() + PATIENCE_S
        while not (found := await self.run(script)):
            assert time.monotonic() < end_s, (script, await self.run("document.body?.innerText"), self.faults)
            await asyncio.sleep(0.05)
        return found

    async def text(self, text: str) -> None:
        """Wait until a text is on the page."""
        await self.see(f"document.body?.innerText.includes({text!r})")

    async def type(self, selector: str, text: str) -> None:
        """Type into a field, and press Enter."""
        await self.see(f"document.querySelector({selector!r}) !== null")
        await self.run(f"document.querySelector({selector!r}).focus()")
        await self.do("Input.insertText", text=text)

    async def enter(self) -> None:
        """Press Enter."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
        await self.do("Input.dispatchKeyEvent", type="keyDown", text="\r", **key)
        await self.do("Input.dispatchKeyEvent", type="keyUp", **key)

    async def serve(self, pattern: str | None, status: int, body: bytes | None) -> None:
        """Have requests answered so from now on; None for no answer at all. No pattern: the server answers again."""
        await self.do("Fetch.disable")
        self._served = status, body
        if pattern is not None:
            await self.do("Fetch.enable", patterns=[{"urlPattern": pattern}])

    async def _answer(self, request_id: str) -> None:
        status, body = self._served
        self._count += 1
        if body is None:
            method, how = "Fetch.failRequest", {"errorReason": "ConnectionRefused"}
        else:
            method, how = (
                "Fetch.fulfillRequest",
                {"responseCode": status, "body": base64.b64encode(body).decode()},
            )
        await self._socket.send_json(
            {"id": self._count, "method": method, "params": {"requestId": request_id, **how}}
        )

    async def shoot(self, file: Path | None) -> None:
        """Save what is to be seen."""
        if file is not None:
            data = (await self.do("Page.captureScreenshot", format="png"))["data"]
            file.write_bytes(base64.b64decode(data))


async def play(page: Page, url: str, email: str, password: str, directory: Path | None) -> None:
    """Be an operator."""

    def file(name: str) -> Path | None:
        return directory / f"{name}.png" if directory else None

    await page.do("Page.navigate", url=f"{url}/console")
    await page.type("#email", email)
    await page.type("#password", password)
    await page.enter()
    await page.text("Latest transactions")
    await page.see(
        "document.querySelectorAll('tr[data-id]').length > 0 && document.querySelectorAll('.plot').length > 1"
    )
    await page.text("ledger")
    await page.shoot(file("console"))
    wallet = await page.run(
        "[...document.querySelectorAll('tr[data-id]')].find((row) => row.querySelector('.completed'))"
        ".querySelector('a[href*=wallets]').title"
    )
    await page.type("#searched", wallet)
    await page.enter()
    await page.text("Ledger entries")
    await page.see("document.querySelectorAll('main code[title]').length > 0")
    for change, after in (("Freeze", "frozen"), ("Unfreeze", "open")):
        await page.run("document.querySelector('main section button').click()")
        await page.type("#reason", f"{change} for a look.")
        await page.enter()
        await page.see(f"document.querySelector('.facts .status').textContent === {after!r}")
        await page.text(f"{change} for a look.")
    await page.shoot(file("console-wallet"))
    await page.run("document.querySelector('main a[href*=transactions]').click()")
    await page.text("Transaction ")
    await page.see("document.querySelectorAll('main code[title]').length === 2")
    assert not await page.run(
        "location.href.includes('token') || JSON.stringify({...localStorage}).includes('ey')"
    )
    await see_what_a_user_wrote(page, url, email, password, file("console-metadata"))
    await lose_the_server(page, url, file("console-stale"))
    for path, text in (("/docs/topics", "mercuria.wallet.commands"), ("/docs", "Make an account")):
        await page.do("Page.navigate", url=url + path)
        await page.text(text)
        await page.shoot(file("docs-topics" if "topics" in path else "docs-http"))
    assert page.faults == [], page.faults


async def see_what_a_user_wrote(page: Page, url: str, email: str, password: str, file: Path | None) -> None:
    """Look at a wallet whose metadata is hostile."""
    async with aiohttp.ClientSession() as http:
        async with http.post(f"{url}/api/v1/login", json={"email": email, "password": password}) as answer:
            headers = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}
        body = {"currency": "EUR", "metadata": HOSTILE}
        async with http.post(f"{url}/api/v1/wallets", json=body, headers=headers) as answer:
            wallet = await answer.json()
            assert answer.status == 201, wallet
    await page.run(f"location.hash = '#/wallets/{wallet['id']}'")
    await page.see("document.querySelectorAll('.said dt').length === 3")
    facts = await page.run("[...document.querySelectorAll('.facts dt')].map((each) => each.textContent)")
    assert facts.count("Balance") == facts.count("Status") == 1 and len(facts) == len(set(facts)), facts
    # PostgreSQL gives metadata in an order of its own.
    names = await page.run("[...document.querySelectorAll('.said dt')].map((each) => each.innerText)")
    assert "Balance  999999.00 EUR\\nStatus  open" in names, names
    values = await page.run("[...document.querySelectorAll('.said dd')].map((each) => each.innerText)")
    assert "\\u{202e}\\u{001b}]0;owned\\u{0007}<img src=x onerror=alert(1)>" in values, values
    assert not any("\u202e" in each or "x" * 201 in each for each in values)
    await page.run("document.querySelector('.said button').click()")
    await page.see(
        "[...document.querySelectorAll('.said dd')].some((each) => each.innerText === 'x'.repeat(500))"
    )
    await page.shoot(file)


async def lose_the_server(page: Page, url: str, file: Path | None) -> None:
    """See that the live view says what it cannot know, whatever is wrong, and goes on by itself."""
    await page.run("location.hash = '#/'")
    await page.see("document.querySelectorAll('tr[data-id]').length > 0")
    assert await page.run("document.getElementById('notice').textContent") == ""
    kept = len(page.faults)
    answers = {
        "no connection": None,
        "an answer that breaks off": b"{",
        "a gateway's page": b"<html>Bad gateway</html>",
        "a page of somebody else's": b"<html>Welcome to our network</html>",
        "JSON of another shape": b"{}",
    }
    for number, (name, body) in enumerate(answers.items()):
        status = 502 if "gateway" in name else 200
        await page.serve(f"{url}/api/*", status, body)
        await page.see("document.body.classList.contains('stale')")
        await page.text("Not up to date")
        await page.text("What is shown is of ")
        if number == 0:
            await page.shoot(file)
        await page.serve(None, 0, None)
        await page.see("!document.body.classList.contains('stale')")
        await page.see("document.getElementById('notice').textContent === ''")
    # The browser itself complains of what could not be loaded. No exception is among it.
    assert all(each.startswith("Failed to load resource") for each in page.faults[kept:]), page.faults[kept:]
    del page.faults[kept:]


async def main(url: str, email: str, password: str, directory: Path | None) -> None:
    """Start the browser, play, and stop it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={WINDOW}",
        ]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        chromium = subprocess.Popen(  # noqa: ASYNC220  nothing else goes on yet
            [os.environ.get("CHROMIUM", "chromium"), *flags], stderr=subprocess.PIPE, text=True
        )
        try:
            assert chromium.stderr is not None
            for line in chromium.stderr:
                if found := re.search(r"listening on ws://([^/]+)/", line):
                    break
            else:
                raise SystemExit("Chromium does not start.")
            async with aiohttp.ClientSession() as http:
                async with http.get(f"http://{found[1]}/json/list") as answer:
                    (target,) = [each for each in await answer.json() if each["type"] == "page"]
                async with http.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    for part in ("Page", "Runtime", "Log"):
                        await page.do(f"{part}.enable")
                    await play(page, url, email, password, directory)
        finally:
            chromium.terminate()
            chromium.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("email")
    parser.add_argument("password")
    parser.add_argument("--screenshots", type=Path)
    given = parser.parse_args()
    asyncio.run(main(given.url, given.email, given.password, given.screenshots))
    sys.stdout.write("The console does what it should.\n")
