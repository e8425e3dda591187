"""Authentication: accounts, passwords, access tokens, rate limits, and the log of security events."""
