"""Greedy decoding by transformers' GPT2LMHeadModel with its cache: random weights in the size of GPT-2 small, one row, f32.

Prints one JSON object: tokens a second of each run (the prompt's pass is not counted), as `cargo run --release -p mnemic-benches
--example decode` does. Both sides draw their own weights: the time does not depend on them.
"""

import argparse
import json
import statistics
import time

import torch
import transformers


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=16)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--mode", choices=["forward", "generate"], default="forward")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = transformers.GPT2Config(attn_implementation="sdpa", bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.arange(1, args.prompt + 1)[None] * 97 % config.vocab_size
    runs = []
    with torch.inference_mode():
        for _ in range(args.runs + 1):
            runs.append(forward(model, prompt, args.new) if args.mode == "forward" else generate(model, prompt, args.new))
    runs = runs[1:]  # the first warms up
    result = {
        "bench": "decode",
        "program": f"transformers {transformers.__version__}, torch {torch.__version__}, {args.mode}",
        "threads": args.threads,
        "prompt": args.prompt,
        "new": args.new,
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_second": [round(r, 2) for r in runs],
        "median": round(statistics.median(runs), 2),
        "best": round(max(runs), 2),
    }
    print(json.dumps(result))


def forward(model, prompt, new):
    """The loop by hand: no overhead of `generate`."""
    output = model(prompt, use_cache=True, logits_to_keep=1)
    ids = output.logits[:, -1].argmax(-1, keepdim=True)
    start = time.perf_counter()
    for _ in range(new - 1):
        output = model(ids, past_key_values=output.past_key_values, use_cache=True)
        ids = output.logits[:, -1].argmax(-1, keepdim=True)
    ids.tolist()
    return (new - 1) / (time.perf_counter() - start)


def generate(model, prompt, new):
    """`generate`, as most people write it; the time of the prompt is taken off by a run for one token."""
    def run(n):
        start = time.perf_counter()
        model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=n, max_new_tokens=n, pad_token_id=0)
        return time.perf_counter() - start
    return (new - 1) / (run(new) - run(1))


if __name__ == "__main__":
    main()
