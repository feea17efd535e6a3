"""Another implementation's times, by a program of its own that answers a line of JSON with a line of JSON.

It first says what it is: {"name", "versions", "threads"}. Asked {"prepare": KEY, "task": one of `tasks.TASKS`,
"config": the config as nested objects, "batch": n}, it says {}, or {"missing": reason} where it has no such thing.
Asked {"run": KEY}, it says {"seconds", "evaluations"}, of one repetition of what it prepared under that key. It ends
with its input.
"""

import json
import shlex
import subprocess
from typing import Any

from score_sde.errors import UsageError


class Peer:
    def __init__(self, command: str):
        """Raises `UsageError` if it does not start."""
        try:
            self._process = subprocess.Popen(
                shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            raise UsageError(f"--peer={command} does not start: {error}.") from error
        self.about = self._answer()

    def prepare(self, key: str, task: str, config: dict[str, Any], batch: int) -> bool:
        """Whether it has this."""
        return "missing" not in self._ask({"prepare": key, "task": task, "config": config, "batch": batch})

    def seconds(self, key: str) -> tuple[float, int]:
        """Seconds of one repetition, and the evaluations of the network in it."""
        answer = self._ask({"run": key})
        return answer["seconds"], answer["evaluations"]

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise UsageError(f"The peer ended with status {self._process.wait()}; its own errors stand above.")
        return json.loads(line)
