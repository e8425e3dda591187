"""Who calls: accounts, passwords, access tokens, limits for attempts to log in, and the log of security events."""
