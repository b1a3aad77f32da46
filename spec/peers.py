"""Servers as processes, and runs of `vortex conformance`, for the scripts here. Standard library only."""

import contextlib
import json
import subprocess
import sys


@contextlib.contextmanager
def serving(*command):
    """The URLs of a server that says READY."""
    server = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        line = server.stdout.readline()
        if not line.startswith(b"READY "):
            sys.exit(f"FAILED: {' '.join(map(str, command))}: it ended before it was ready")
        ready = json.loads(line[6:])
        yield {transport: f"{transport}://{ready[transport]}" for transport in ("tcp", "quic")}
    finally:
        server.terminate()
        server.wait()


def conformance(program, mode, *arguments, may_be_skipped):
    """Runs cases, SHOULD as well; returns the reports. Ends the script where a case does otherwise than it should or is expected
    to, and where one is skipped that may not be."""
    command = [program, "conformance", mode, "--strict", "--json", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    reports = [json.loads(line) for line in ended.stdout.splitlines()]
    wrong = [report for report in reports if report["counts"] or report["verdict"] == "fail" and not report["expected_failure"]]
    wrong += [report for report in reports if report["verdict"] == "skip" and not may_be_skipped(report)]
    if ended.returncode or wrong or not reports:
        lines = [f"    {report['transport']} {report['id']}: {report['verdict']}: {report['message']}" for report in wrong]
        sys.exit("\n".join([f"FAILED: {' '.join(command)}: exit code {ended.returncode}", *lines, ended.stderr]))
    return reports
