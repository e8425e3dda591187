"""How chaos runs freeze a part of a stack."""

import asyncio

from mercuria.embedded.part import Part


async def suspend(part: Part, for_s: float) -> None:
    """Freeze a part with SIGSTOP, and let it go on after a while, also when the run ends before."""
    part.suspend()
    try:
        await asyncio.sleep(for_s)
    finally:
        part.resume()
