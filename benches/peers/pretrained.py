"""The Python side of `cargo xtask bench pretrained`: sentence embeddings by all-MiniLM-L6-v2, and greedy decoding by a GPT-2.

Reads one JSON object a line and answers each with one, as kernels.py does:

    {"workload": "embed", "mode": MODE, "model": FOLDER, "texts": [...], "batch": B}  loads, embeds once: {"embeddings": [[...]]}
    {"workload": "decode", "mode": MODE, "prompt": P, "new": N}                       makes a model, warms up: {}
    {"run": K, "mode": MODE}          {"seconds": [of each of K steps]}: a pass over all texts, or N tokens after the prompt and a first one
    {"clear": true}                   forgets what was prepared

Modes of `embed`, all from text: `sentence-transformers` (its `encode`), `transformers` (BertModel and the pooling by hand), `onnxruntime`
(the same model, exported here). Modes of `decode`: `transformers` (a loop by hand) and `generate`. What fails is answered with
{"error": TEXT}. Needs torch, transformers, sentence-transformers, onnxscript, onnxruntime. By hand:

    python benches/peers/pretrained.py --model FOLDER --mode transformers --threads 1 < texts
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time

import numpy
import sentence_transformers
import tokenizers
import torch
import transformers


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", action="store_true", help="speak the protocol")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--model", help="the folder of all-MiniLM-L6-v2")
    parser.add_argument("--mode", default="sentence-transformers")
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_num_interop_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    # What libraries print must not come between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    if args.serve:
        return serve(args.threads, answers)
    if args.model is None:
        parser.error("name a model, or --serve")
    server = Server(args.threads)
    texts = sys.stdin.read().splitlines()
    server.answer({"workload": "embed", "mode": args.mode, "model": args.model, "texts": texts, "batch": args.batch})
    print(min(server.answer({"run": 3, "mode": args.mode})["seconds"]), "s", file=answers)


def serve(threads, answers):
    def say(answer):
        print(json.dumps(answer, allow_nan=False), file=answers, flush=True)

    say(versions())
    server = Server(threads)
    for line in sys.stdin:
        try:
            say(server.answer(json.loads(line)))
        except Exception as error:  # whatever it is, the measuring program goes on with the next mode
            text = str(error).strip().split("\n")[0]
            say({"error": f"{type(error).__name__}: {text}"})


def versions():
    from importlib.metadata import version

    names = ("transformers", "sentence-transformers", "tokenizers", "onnxruntime")
    return {"PyTorch": torch.__version__, "Python": platform.python_version()} | {name: version(name) for name in names}


class Server:
    def __init__(self, threads):
        self.threads, self.steps = threads, {}

    @torch.inference_mode()
    def answer(self, request):
        if "workload" in request:
            make = {"embed": self.embed, "decode": self.decode}[request["workload"]]
            return make(request)
        if "run" in request:
            step = self.steps[request["mode"]]
            return {"seconds": [step() for _ in range(request["run"])]}
        if "clear" in request:
            self.steps.clear()
            return {}
        raise ValueError(f"unknown request {request}")

    def embed(self, request):
        mode, texts, batch = request["mode"], request["texts"], request["batch"]
        if mode == "sentence-transformers":
            model = sentence_transformers.SentenceTransformer(request["model"], device="cpu")

            def all_texts():
                return model.encode(texts, batch_size=batch, show_progress_bar=False)
        else:
            states = {"transformers": pytorch, "onnxruntime": onnx}[mode](request["model"], self.threads)
            tokenizer = Tokens(request["model"])

            def all_texts():
                return in_batches(tokenizer, texts, batch, states)

        def step():
            start = time.perf_counter()
            all_texts()
            return time.perf_counter() - start

        self.steps[mode] = step
        return {"embeddings": all_texts().tolist()}

    def decode(self, request):
        torch.manual_seed(0)
        config = transformers.GPT2Config(attn_implementation="sdpa", bos_token_id=None, eos_token_id=None)
        model = transformers.GPT2LMHeadModel(config).eval()
        prompt = torch.arange(1, request["prompt"] + 1)[None] * 97 % config.vocab_size
        write = {"transformers": by_hand, "generate": generate}[request["mode"]]
        write(model, prompt, 2)
        self.steps[request["mode"]] = lambda: write(model, prompt, request["new"])
        return {}


class Tokens:
    """The tokenizer as sentence-transformers sets it: cut at 256, padded to the longest of the batch."""

    def __init__(self, folder):
        self.tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
        self.tokenizer.enable_truncation(256)
        self.tokenizer.no_padding()

    def rows(self, texts):
        return [row.ids for row in self.tokenizer.encode_batch(texts)]


def in_batches(tokenizer, texts, size, states):
    """Longest first, as sentence-transformers does it; one at a time in their order."""
    if size == 1:
        return numpy.concatenate([pool(*states(tokenizer.rows([text]))) for text in texts])
    rows = tokenizer.rows(texts)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    parts = [pool(*states([rows[i] for i in order[at : at + size]])) for at in range(0, len(order), size)]
    return numpy.concatenate(parts)[numpy.argsort(order)]


def padded(rows):
    longest = max(map(len, rows))
    ids = numpy.array([row + [0] * (longest - len(row)) for row in rows])
    mask = numpy.array([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def pool(states, mask):
    """The mean over the tokens, of length 1."""
    states, mask = torch.as_tensor(states), torch.as_tensor(mask).unsqueeze(-1).float()
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=1).numpy()


def bert(folder, attention):
    return transformers.BertModel.from_pretrained(folder, attn_implementation=attention, add_pooling_layer=False).float().eval()


def pytorch(folder, _threads):
    model = bert(folder, "sdpa")

    def states(rows):
        ids, mask = padded(rows)
        return model(torch.from_numpy(ids), torch.from_numpy(mask)).last_hidden_state, mask

    return states


def onnx(folder, threads):
    import onnxruntime

    class States(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = bert(folder, "eager")

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

    names = ("input_ids", "attention_mask", "token_type_ids")
    axes = {0: torch.export.Dim("b", min=1, max=512), 1: torch.export.Dim("t", min=2, max=512)}
    example = {name: torch.ones(2, 7, dtype=torch.long) for name in names}
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "model.onnx")
        shapes = {name: axes for name in names}
        torch.onnx.export(States(), kwargs=example, dynamo=True, verbose=False, dynamic_shapes=shapes).save(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def states(rows):
        ids, mask = padded(rows)
        return session.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)})[0], mask

    return states


def by_hand(model, prompt, new):
    """No overhead of `generate`."""
    output = model(prompt, use_cache=True, logits_to_keep=1)
    ids = output.logits[:, -1].argmax(-1, keepdim=True)
    start = time.perf_counter()
    for _ in range(new):
        output = model(ids, past_key_values=output.past_key_values, use_cache=True)
        ids = output.logits[:, -1].argmax(-1, keepdim=True)
    ids.tolist()
    return time.perf_counter() - start


def generate(model, prompt, new):
    """`generate`, as most people write it; the time of the prompt is taken off by a run for one token."""
    def run(n):
        start = time.perf_counter()
        model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, min_new_tokens=n, max_new_tokens=n, pad_token_id=0)
        return time.perf_counter() - start

    return run(new + 1) - run(1)


if __name__ == "__main__":
    main()
