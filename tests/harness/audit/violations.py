"""What audits find wrong."""

from collections.abc import Callable, Sequence

MAX_VIOLATIONS = 20
"""How many violations are kept as sentences; all are counted."""


class Violations:
    """What an audit finds wrong: the first violations as sentences, and the count of all.

    Args:
        on_violation: is called at once with each sentence that is kept.
    """

    def __init__(self, on_violation: Callable[[str], None] = lambda _: None) -> None:
        self.count = 0
        self.sentences: list[str] = []
        self._on_violation = on_violation

    def add(self, sentence: str) -> None:
        """Add one violation."""
        self.count += 1
        if len(self.sentences) < MAX_VIOLATIONS:
            self.sentences.append(sentence)
            self._on_violation(sentence)

    def add_all(self, count: int, sentences: Sequence[str]) -> None:
        """Add the findings of another check: `count` violations, the first ones as sentences."""
        for sentence in sentences:
            self.add(sentence)
        self.count += count - len(sentences)
