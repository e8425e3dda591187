"""The agents. Each agent reads one topic, in batches of one partition."""
