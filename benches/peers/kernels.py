"""The PyTorch side of `cargo xtask bench kernels`: prepares a workload and times steps of it on request.

Reads one JSON object a line and answers each with one:

    {"workload": NAME, "mode": MODE}  prepares, warms up: {"value": loss, "gradient": norm of all gradients} of the first step
    {"run": K, "mode": MODE}          {"seconds": [of each of K steps]}; on a GPU the Kth part of all, with one wait at the end
    {"run": K, ..., "alone": true}    the same, waiting for the GPU after each step
    {"clear": true}                   forgets what was prepared

What fails is answered with {"error": TEXT}. The modes: `eager`; `compile` (torch.compile of forward pass and loss);
`reduce-overhead` (the same with CUDA graphs); a few workloads have further ones, such as `fused`. The workloads are in kernels_workloads.py. By hand:

    python benches/peers/kernels.py gru-b100-t64-h80 --mode eager --threads 1 --device cpu
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
    def __init__(self, device):
        self.device, self.steps = device, {}

    def answer(self, request):
        if "workload" in request:
            return self.prepare(request["workload"], request["mode"])
        if "run" in request:
            step, count = self.steps[request["mode"]], request["run"]
            return {"seconds": timed(step, count, request.get("alone", False))}
        if "clear" in request:
            self.steps.clear()
            torch.compiler.reset()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            return {}
        raise ValueError(f"unknown request {request}")

    def prepare(self, workload, mode):
        make = kernels_workloads.WORKLOADS.get(workload)
        if make is None:
            raise ValueError(f"no workload {workload} here")
        # Parameters and inputs are made on the device; within a step nothing asks for the default.
        with self.device:
            step = make(mode)
        checked = step.check()
        for _ in range(5 if self.device.type == "cuda" else 2):
            step.run()
        wait()
        self.steps[mode] = step
        return checked


def wait():
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timed(step, count, alone=False):
    seconds = []
    if torch.cuda.is_initialized() and not alone:
        # The host runs ahead of the device, as it does in training.
        wait()
        start = time.perf_counter()
        for _ in range(count):
            step.run()
        wait()
        return [(time.perf_counter() - start) / count] * count
    wait()
    for _ in range(count):
        start = time.perf_counter()
        step.run()
        wait()
        seconds.append(time.perf_counter() - start)
    return seconds


def say(answer):
    # allow_nan=False: a NaN would not be JSON.
    print(json.dumps(answer, allow_nan=False), flush=True)


def about(device):
    facts = {"PyTorch": torch.__version__, "Python": platform.python_version()}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        facts["CUDA of PyTorch"] = f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        facts["compute capability"] = f"{major}.{minor}"
        facts["TF32 of PyTorch (its defaults)"] = f"products {matmul}, cuDNN (recurrent layers) {cudnn}"
    return facts


def serve(device):
    say(about(device))
    server = Server(device)
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
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu, cuda or cuda:N")
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    warnings.filterwarnings("ignore")
    if args.device.type == "cuda":
        args.device = torch.device("cuda", args.device.index or 0)
        torch.cuda.set_device(args.device)
    kernels_workloads.DEVICE = args.device
    kernels_workloads.check_numbers()
    if args.serve:
        return serve(args.device)
    if args.workload is None:
        parser.error("name a workload, or --serve")
    server = Server(args.device)
    print(server.prepare(args.workload, args.mode))
    seconds = timed(server.steps[args.mode], args.steps)
    print(f"median {1e3 * statistics.median(seconds):.3f} ms, least {1e3 * min(seconds):.3f} ms")


if __name__ == "__main__":
    main()
