"""The web views: each authenticates, parses, sends, answers; no rule of the domain is here."""
