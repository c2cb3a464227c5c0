"""Sentence embeddings by all-MiniLM-L6-v2, and decoding by a model in the size of GPT-2 small: the peer of bench-pretrained.

    python benches/peers/pretrained.py --model FOLDER [--sentences FILE] [--threads 1] [--seconds 3] [--part embed]

prints one JSON object a part and program, with the fields of ours: PyTorch with eager and with scaled_dot_product attention, ONNX Runtime.
"""

import argparse
import json
import os
import statistics
import tempfile
import time

import decode

BATCH = 32


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--sentences", default="benches/peers/sentences.txt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--part", choices=["embed", "decode"])
    return parser.parse_args()


def median(seconds, items, call):
    """The median of the milliseconds of calls in turn, for so many seconds, after a tenth of them to warm up."""
    for share in (0.1, 1):
        times = []
        begun = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begun < seconds * share:
            start = time.perf_counter()
            call(len(times) % items)
            times.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(times), 3)


def main():
    args = arguments()
    # Before the libraries are loaded.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    import torch

    torch.set_num_threads(args.threads)
    if args.part != "decode":
        embed(args)
    if args.part != "embed":
        print(json.dumps(decode.measure(args.threads)), flush=True)


def embed(args):
    import torch
    import transformers
    from tokenizers import Tokenizer
    from transformers import BertModel

    with open(args.sentences) as file:
        sentences = [line for line in file.read().splitlines() if line.strip()]
    tokenizer = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    tokenizer.enable_truncation(256)
    tokenizer.enable_padding(pad_id=0)

    def encode(texts):
        rows = tokenizer.encode_batch(texts)
        return {
            "input_ids": torch.tensor([r.ids for r in rows]),
            "attention_mask": torch.tensor([r.attention_mask for r in rows]),
            "token_type_ids": torch.tensor([r.type_ids for r in rows]),
        }

    def pool(states, mask):
        mask = mask.unsqueeze(-1).float()
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1)

    many = [sentences[i:i + BATCH] for i in range(0, len(sentences) - BATCH + 1, BATCH)]
    ones, padded = [encode([s]) for s in sentences], [encode(texts) for texts in many]

    def measure(program, embed):
        with torch.inference_mode():
            check = embed(padded[0])
            report = {
                "part": "embed",
                "program": program,
                "threads": args.threads,
                "sentences": len(sentences),
                "embed_1_ms": median(args.seconds, len(ones), lambda i: embed(ones[i])),
                "embed_32_ms": median(args.seconds, len(padded), lambda i: embed(padded[i])),
                "text_1_ms": median(args.seconds, len(ones), lambda i: embed(encode([sentences[i]]))),
                "text_32_ms": median(args.seconds, len(many), lambda i: embed(encode(many[i]))),
                "check": [check[0, :4].tolist(), check[BATCH - 1, :4].tolist()],
            }
        print(json.dumps(report), flush=True)

    for name in ("eager", "sdpa"):
        model = BertModel.from_pretrained(args.model, attn_implementation=name, add_pooling_layer=False).float().eval()
        program = f"torch {torch.__version__}, transformers {transformers.__version__}, {name}"
        measure(program, lambda b, model=model: pool(model(**b).last_hidden_state, b["attention_mask"]))
    onnx(args, measure, pool, ones[0])


def onnx(args, measure, pool, example):
    import onnxruntime
    import torch
    from transformers import BertModel

    class States(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            return self.model(input_ids, attention_mask, token_type_ids).last_hidden_state

    model = BertModel.from_pretrained(args.model, attn_implementation="eager", add_pooling_layer=False).float().eval()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        axes = {0: torch.export.Dim("b", min=1, max=512), 1: torch.export.Dim("t", min=2, max=512)}
        example = {k: v.repeat(2, 1) for k, v in example.items()}
        program = torch.onnx.export(States(model), kwargs=example, dynamo=True, verbose=False,
                                    dynamic_shapes={k: axes for k in example})
        program.save(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = args.threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def embed(batch):
            states = session.run(None, {k: v.numpy() for k, v in batch.items()})[0]
            return pool(torch.from_numpy(states), batch["attention_mask"])

        measure(f"onnxruntime {onnxruntime.__version__}", embed)


if __name__ == "__main__":
    main()
