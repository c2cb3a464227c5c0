"""Sentence embeddings by all-MiniLM-L6-v2 with PyTorch: the peer of bench-pretrained.

pip install torch transformers tokenizers (and onnx onnxscript onnxruntime for --onnx), then

    python benches/peers/pretrained.py --model FOLDER [--sentences FILE] [--threads 2] [--seconds 3] [--onnx]

prints medians in milliseconds as JSON: the fastest of eager and scaled_dot_product attention counts, each also by name.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--sentences", default="benches/peers/sentences.txt")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--onnx", action="store_true", help="measure ONNX Runtime as well")
    return parser.parse_args()


def median(seconds, least, call):
    """The median and the least of the milliseconds of at least `least` calls and `seconds`, after a tenth of them to warm up."""
    for share in (0.1, 1):
        times = []
        begun = time.perf_counter()
        while len(times) < least or time.perf_counter() - begun < seconds * share:
            start = time.perf_counter()
            call(len(times))
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times), min(times)


def main():
    args = arguments()
    # Before the libraries are loaded.
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    import torch
    from tokenizers import Tokenizer
    from transformers import BertModel

    torch.set_num_threads(args.threads)
    with open(args.sentences) as file:
        sentences = file.read().splitlines()
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

    batch, ones = encode(sentences), [encode([s]) for s in sentences]
    n = len(sentences)
    report = {"threads": args.threads, "torch": torch.__version__, "tokens": list(batch["input_ids"].shape)}

    def measure(name, embed):
        with torch.inference_mode():
            report[f"{name}_embed_1_ms"] = median(args.seconds, n, lambda i: embed(ones[i % n]))
            report[f"{name}_embed_32_ms"] = median(args.seconds, 3, lambda _: embed(batch))
            report[f"{name}_text_1_ms"] = median(args.seconds, n, lambda i: embed(encode([sentences[i % n]])))
            report[f"{name}_text_32_ms"] = median(args.seconds, 3, lambda _: embed(encode(sentences)))
            check = embed(batch)
        report[f"{name}_check"] = [check[0, :4].tolist(), check[31, :4].tolist()]

    for name in ("eager", "sdpa"):
        model = BertModel.from_pretrained(args.model, attn_implementation=name, add_pooling_layer=False).float().eval()
        measure(name, lambda b, model=model: pool(model(**b).last_hidden_state, b["attention_mask"]))
    if args.onnx:
        onnx(args, measure, pool, ones[0])
    for key in ("embed_1_ms", "embed_32_ms", "text_1_ms", "text_32_ms"):
        report[key] = [min(both) for both in zip(report[f"eager_{key}"], report[f"sdpa_{key}"])]
    print(json.dumps(report))


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

        measure("onnx", embed)


if __name__ == "__main__":
    sys.exit(main())
