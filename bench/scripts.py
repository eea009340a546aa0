"""Runs wrk with a script of a benchmark's own, where the one of the harness cannot say what is sent."""

import shutil
import subprocess
import tempfile

from bench.harness import CLIENT_CORE


def run_script(script: str, url: str, *, connections: int, seconds: int) -> list[int]:
    """Run a Lua script on the client's core; return the numbers of the line `RESULT ..` that it prints, if it does."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("this benchmark needs wrk; on Debian: apt-get install wrk")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command = ["taskset", "-c", str(CLIENT_CORE), wrk, "-t1", f"-c{connections}", f"-d{seconds}s"]
        done = subprocess.run(
            [*command, "--timeout", "10s", "-s", file.name, url], check=True, capture_output=True, text=True
        )
    printed = (line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    return [int(number) for number in next(printed, "").split()[1:]]
