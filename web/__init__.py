"""The web views: each one authenticates, parses, sends, answers; domain rules live elsewhere."""
