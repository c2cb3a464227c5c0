"""DMN+ training in PyTorch: the peer of the bench `dmn-step`.

The same model, data, batches and optimiser as ours (Xiong et al. 2016, eq. 1-13; h 80, 3 passes, Adam), written as a good PyTorch
user would: nn.GRU for the reader and the question, one product for the attention GRU's inputs, a loop over the facts for its
recurrence. Prints one JSON line: median seconds an epoch.
"""

import argparse
import json
import math
import re
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def read_babi(path, max_sentences):
    examples, story = [], []
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            number, text = line.rstrip("\r\n").split(" ", 1)
            if number == "1":
                story = []
            if "\t" in text:
                question, answer, _ = text.split("\t")
                words = re.sub(r"\?", "", question).lower().split()
                examples.append((list(story[-max_sentences:]), words, answer))
            else:
                story.append(text.rstrip(".").lower().split())
    return examples


def make_batches(examples, size):
    words = {w for s, q, a in examples for t in [*s, q, [a]] for w in t}
    ids = {w: i + 1 for i, w in enumerate(sorted(words))}
    width = max(len(t) for s, q, _ in examples for t in [*s, q])
    order = sorted(range(len(examples)), key=lambda i: (len(examples[i][0]), i))
    batches = []
    for start in range(0, len(order), size):
        rows = [examples[i] for i in order[start : start + size]]
        n, j = max(len(s) for s, _, _ in rows), max(len(t) for s, _, _ in rows for t in s)
        story = torch.zeros(len(rows), n, j, dtype=torch.long)
        question = torch.zeros(len(rows), max(len(q) for _, q, _ in rows), dtype=torch.long)
        for r, (s, q, _) in enumerate(rows):
            for i, t in enumerate(s):
                story[r, i, : len(t)] = torch.tensor([ids[w] for w in t])
            question[r, : len(q)] = torch.tensor([ids[w] for w in q])
        lengths = torch.tensor([len(s) for s, _, _ in rows])
        asked = torch.tensor([len(q) for _, q, _ in rows])
        answers = torch.tensor([ids[a] for _, _, a in rows])
        batches.append((story, lengths, question, asked, answers))
    return batches, len(ids) + 1, width


def run_gru(gru, xs, lengths):
    """Output and last state of a GRU; packs only where lengths differ. No lengths: all are full."""
    if lengths is None or bool((lengths == xs.shape[1]).all()):
        return gru(xs)
    packed = pack_padded_sequence(xs, lengths, batch_first=True, enforce_sorted=False)
    output, state = gru(packed)
    return pad_packed_sequence(output, batch_first=True, total_length=xs.shape[1])[0], state


class AttentionGru(nn.Module):
    def __init__(self, h):
        super().__init__()
        self.ih, self.hh = nn.Linear(h, 2 * h), nn.Linear(h, 2 * h)

    def forward(self, facts, gates):
        h = torch.zeros_like(facts[:, 0])
        inputs = self.ih(facts).unbind(1)
        for x, g in zip(inputs, gates.unsqueeze(2).unbind(1)):
            (xr, xn), (hr, hn) = x.chunk(2, 1), self.hh(h).chunk(2, 1)
            h = torch.lerp(h, torch.tanh(xn + torch.sigmoid(xr + hr) * hn), g)
        return h


class DmnPlus(nn.Module):
    def __init__(self, v, h, width, passes, dropout):
        super().__init__()
        self.embedding = nn.Embedding(v, h, padding_idx=0)
        j, k = torch.arange(1, width + 1)[:, None] / width, torch.arange(1, h + 1)[None] / h
        self.register_buffer("position", (1 - j) - k * (1 - 2 * j))
        self.fusion = nn.GRU(h, h, batch_first=True, bidirectional=True)
        self.question = nn.GRU(h, h, batch_first=True)
        self.w1, self.w2 = nn.Linear(4 * h, h), nn.Linear(h, 1)
        self.attention_gru = AttentionGru(h)
        self.memory = nn.ModuleList(nn.Linear(3 * h, h) for _ in range(passes))
        self.answer = nn.Linear(2 * h, v)
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.embedding.weight, -math.sqrt(3), math.sqrt(3))

    def forward(self, story, lengths, question, asked, valid=None):
        sentences = (self.embedding(story) * self.position[: story.shape[2]]).sum(2)
        both, _ = run_gru(self.fusion, self.dropout(sentences), lengths)
        forward, backward = both.chunk(2, 2)
        facts = forward + backward
        q = run_gru(self.question, self.embedding(question), asked)[1][0]
        if valid is None:
            valid = torch.arange(story.shape[1]) < lengths[:, None]
        m, qe = q, q[:, None]
        fq, dq = facts * qe, (facts - qe).abs()
        for layer in self.memory:
            me = m[:, None]
            z = torch.cat([fq, facts * me, dq, (facts - me).abs()], 2)
            scores = self.w2(torch.tanh(self.w1(z))).squeeze(2)
            gates = torch.softmax(scores.masked_fill(~valid, -math.inf), 1)
            c = self.attention_gru(facts, gates)
            m = torch.relu(layer(torch.cat([m, c, q], 1)))
        return self.answer(self.dropout(torch.cat([q, m], 1)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a bAbI file, such as qa2_two-supporting-facts_train.txt")
    parser.add_argument("--questions", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    examples = read_babi(args.data, 70)[: args.questions]
    batches, v, width = make_batches(examples, args.batch)
    model = DmnPlus(v, 80, width, 3, 0.1)
    step_model = torch.compile(model, dynamic=True) if args.compile else model
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)
    seconds, losses = [], []
    for epoch in range(args.epochs + 1):
        start, total = time.perf_counter(), 0.0
        for story, lengths, question, asked, answers in batches:
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(step_model(story, lengths, question, asked), answers)
            loss.backward()
            optimizer.step()
            total += loss.item()
        if epoch > 0:  # the first epoch warms up
            seconds.append(time.perf_counter() - start)
        losses.append(total / len(batches))
    name = "pytorch-compile" if args.compile else "pytorch"
    print(json.dumps({"program": name, "version": torch.__version__, "threads": args.threads, "batch": args.batch,
                      "questions": len(examples), "parameters": sum(p.numel() for p in model.parameters()),
                      "epoch_seconds": statistics.median(seconds),
                      "all_seconds": seconds, "losses": losses}))


if __name__ == "__main__":
    main()
