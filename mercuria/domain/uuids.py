"""UUIDs that are derived from content: version 8 of RFC 9562, which is for ids of an application's own making."""

from uuid import UUID

_VERSION_AND_VARIANT = 0xF << 76 | 0b11 << 62
_VERSION_8 = 0x8 << 76 | 0b10 << 62


def uuid_v8(content: bytes) -> UUID:
    """Return the UUID with the first 16 bytes of `content`, in which version and variant take 6 bits."""
    return UUID(int=int.from_bytes(content[:16]) & ~_VERSION_AND_VARIANT | _VERSION_8)
