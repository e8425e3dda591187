"""The agents: each reads one topic, a batch of one partition at a time."""
