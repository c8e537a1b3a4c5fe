"""The process that compares answers in LaTeX by math-verify: `aft.tasks.latex` starts it as a script, and ends it.

A line in is the seconds that a comparison may take and two answers, as JSON; a line out says whether they are equal.
What a model wrote is parsed by a grammar and never evaluated as Python, with little memory and no file to write to.
"""

import json
import math
import os
import signal
import sys

MEMORY = 2**31  # bytes of address space: 10^{10^{10}} would else take all that there is


def main() -> None:
    """Say "ready", or why not, and then answer line by line until there is no next one."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no answer
    try:
        import math_verify  # type: ignore[import-not-found]
    except ImportError as error:
        print(json.dumps(str(error)), file=told, flush=True)
        return
    _limit()
    latex = [math_verify.LatexExtractionConfig()]  # and no plain expressions: sympy would evaluate them
    print(json.dumps("ready"), file=told, flush=True)
    for line in sys.stdin:
        seconds, *answers = json.loads(line)
        if hasattr(signal, "alarm"):  # ends this process if nobody is left to do so
            signal.alarm(math.ceil(seconds) + 1)
        try:
            one, other = (
                math_verify.parse(
                    rf"\boxed{{{text}}}",
                    latex,
                    fallback_mode="no_fallback",
                    parsing_timeout=None,  # type: ignore[arg-type]  # it has no other word for none
                    raise_on_error=True,
                )
                for text in answers
            )
            equal = bool(one and other and math_verify.verify(one, other, timeout_seconds=None))
        except Exception:  # it raises what it likes; too deep, too large and malformed among it
            equal = False
        if hasattr(signal, "alarm"):
            signal.alarm(0)  # waiting for the next one takes as long as it takes
        print(json.dumps(equal), file=told, flush=True)


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


if __name__ == "__main__":
    main()
