"""The PyTorch side of `cargo xtask bench kernels`: prepares a workload and times steps of it on request.

Reads one JSON object a line and answers each with one:

    {"workload": NAME, "mode": MODE}  prepares, warms up: {"value": loss, "gradient": norm of all gradients} of the first step
    {"run": K, "mode": MODE}          {"seconds": [of each of K steps]}
    {"clear": true}                   forgets what was prepared

What fails is answered with {"error": TEXT}. The modes: `eager`; `compile` (torch.compile of forward pass and loss); a few
workloads have further ones, such as `fused`. The workloads are in kernels_workloads.py. By hand:

    python benches/peers/kernels.py gru-b100-t64-h80 --mode eager --threads 1
"""

import argparse
import json
import platform
import statistics
import sys
import time
import warnings

import torch

import kernels_workloads


class Server:
    def __init__(self):
        self.steps = {}

    def answer(self, request):
        if "workload" in request:
            return self.prepare(request["workload"], request["mode"])
        if "run" in request:
            return {"seconds": timed(self.steps[request["mode"]], request["run"])}
        if "clear" in request:
            self.steps.clear()
            torch.compiler.reset()
            return {}
        raise ValueError(f"unknown request {request}")

    def prepare(self, workload, mode):
        make = kernels_workloads.WORKLOADS.get(workload)
        if make is None:
            raise ValueError(f"no workload {workload} here")
        step = make(mode)
        checked = step.check()
        for _ in range(2):
            step.run()
        self.steps[mode] = step
        return checked


def timed(step, count):
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        step.run()
        seconds.append(time.perf_counter() - start)
    return seconds


def say(answer):
    # allow_nan=False: a NaN would not be JSON.
    print(json.dumps(answer, allow_nan=False), flush=True)


def serve():
    say({"PyTorch": torch.__version__, "Python": platform.python_version()})
    server = Server()
    for line in sys.stdin:
        try:
            say(server.answer(json.loads(line)))
        except Exception as error:  # whatever it is, the measuring program goes on with the next workload
            text = str(error).strip().split("\n")[0]
            say({"error": f"{type(error).__name__}: {text}"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="?", choices=sorted(kernels_workloads.WORKLOADS))
    parser.add_argument("--serve", action="store_true", help="speak the protocol")
    parser.add_argument("--mode", default="eager")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    warnings.filterwarnings("ignore")
    kernels_workloads.check_numbers()
    if args.serve:
        return serve()
    if args.workload is None:
        parser.error("name a workload, or --serve")
    server = Server()
    print(server.prepare(args.workload, args.mode))
    seconds = timed(server.steps[args.mode], args.steps)
    print(f"median {1e3 * statistics.median(seconds):.3f} ms, least {1e3 * min(seconds):.3f} ms")


if __name__ == "__main__":
    main()
