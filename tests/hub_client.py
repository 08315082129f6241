"""A process of its own that talks to a Hub: the client reads its address and HF_HUB_OFFLINE when imported."""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent


def environment(endpoint, home, offline=False):
    """The environment of a process that knows this Hub alone."""
    paths = [os.environ.get("PYTHONPATH", ""), str(HERE.parent), str(HERE)]  # the oldest stack goes first
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DISABLE_SAFETENSORS_CONVERSION": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        **({"HF_HUB_OFFLINE": "1"} if offline else {}),
    }


class Failed(Exception):
    """What a piece of code raised in the client: `kind`, `text`, and `causes`, the types behind it."""

    def __init__(self, kind, text, causes, trace):
        super().__init__(trace)
        self.kind, self.text, self.causes = kind, text, causes


class Client:
    """Runs pieces of code one after the other in one process; names they set stay."""

    def __init__(self, endpoint, home, offline=False):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        told = environment(endpoint, home, offline)
        self.process = subprocess.Popen([sys.executable, __file__], env=told, cwd=home, **pipes)

    def run(self, code, token=None):
        """Run code with this HF_TOKEN; what it left in `result`. Raises Failed."""
        self.process.stdin.write(json.dumps([code, token]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client died"
        answer = json.loads(line)
        if "result" not in answer:
            raise Failed(**answer)
        return answer["result"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)


def causes(error):
    found = []
    while error.__cause__ is not None:
        error = error.__cause__
        found += [kind.__name__ for kind in type(error).__mro__]
    return found


def serve():
    answers, sys.stdout = sys.stdout, sys.stderr  # what the code prints must not get between
    names = {}
    for line in sys.stdin:
        code, token = json.loads(line)
        os.environ.pop("HF_TOKEN", None)
        if token:
            os.environ["HF_TOKEN"] = token
        names["result"] = None
        try:
            exec(code, names)
            answer = {"result": names["result"]}
        except Exception as error:
            answer = {"kind": type(error).__name__, "text": str(error), "causes": causes(error)}
            answer["trace"] = traceback.format_exc()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
