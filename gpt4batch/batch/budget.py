"""How many chat calls a run may make."""

from __future__ import annotations

from gpt4batch.errors import BudgetError
from gpt4batch.words import tr


class Budget:
    """The chat calls of one run, retries included, each asked for before it leaves.

    Args:
        most: How many there may be; 0 is no limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.spent = 0

    def spend(self) -> None:
        """Take one call out of the budget.

        Raises:
            BudgetError: Nothing is left.
        """
        if self._most and self.spent >= self._most:
            raise BudgetError(
                tr(
                    "--max-calls {most}: that many chat calls were made; run again with -f to go "
                    "on",
                    most=self._most,
                )
            )
        self.spent += 1
