"""Greedy decoding by transformers' GPT2LMHeadModel with its cache: random weights in the size of GPT-2 small, one row, f32.

Ours draws its own weights: the time does not depend on them.
"""

import statistics
import time

PROMPT, NEW, RUNS = 16, 64, 3


def measure(threads):
    """Tokens a second; the prompt's pass is not counted."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(attn_implementation="sdpa", bos_token_id=None, eos_token_id=None)
    model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.arange(1, PROMPT + 1)[None] * 97 % config.vocab_size
    with torch.inference_mode():
        runs = [forward(model, prompt, NEW) for _ in range(RUNS + 1)][1:]  # the first warms up
    return {
        "part": "decode",
        "program": f"torch {torch.__version__}, transformers {transformers.__version__}, sdpa",
        "threads": threads,
        "prompt": PROMPT,
        "new": NEW,
        "parameters": sum(p.numel() for p in model.parameters()),
        "runs": [round(r, 2) for r in runs],
        "tokens_per_second": round(statistics.median(runs), 2),
    }


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
