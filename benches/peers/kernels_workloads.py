"""The workloads of the bench `kernels` in PyTorch: same shapes, parameters, data and optimisers as in `benches/src/workloads`.

Initial values and inputs come from a formula that both sides have (`values`), so that losses and gradients can be compared.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from dmn_step import DmnPlus

SGD_RATE = 1e-3
ADAM_RATE = 1e-3


# Numbers by formula, as in benches/src/data.rs.


def seed(name):
    hashed = 0x811C9DC5
    for byte in name.encode():
        hashed = ((hashed ^ byte) * 0x01000193) & 0xFFFFFFFF
    return hashed


def bits(start, count):
    x = (np.arange(count, dtype=np.uint64) + np.uint64(start)).astype(np.uint32)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def values(name, shape, scale, offset=0.0):
    numbers = bits(seed(name), math.prod(shape)).astype(np.float64)
    numbers = offset + (numbers / 2**31 - 1) * scale
    return torch.from_numpy(numbers.astype(np.float32)).view(shape)


def ids(name, shape, low, high):
    numbers = low + bits(seed(name), math.prod(shape)) % np.uint32(high - low)
    return torch.from_numpy(numbers.astype(np.int64)).view(shape)


def parameter(name, shape):
    if len(shape) > 1:
        return values(name, shape, 1 / math.sqrt(shape[-1]))
    if "norm" in name and name.endswith("weight"):
        return values(name, shape, 0.1, 1.0)
    return values(name, shape, 0.05)


def fill(module, rename=lambda name: name):
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(parameter(rename(name), p.shape))
    return module


def check_numbers():
    """The same figures stand in the tests of benches/src/data.rs."""
    found = (seed("weight"), int(bits(1, 1)[0]), int(bits(1, 42)[41]))
    if found != (1352703673, 1753845952, 388445122):
        raise RuntimeError(f"the formula of the inputs gives {found}")


# A step.


class Step:
    """Forward, backward, update. `objective`: "loss" or the gradient of the output."""

    def __init__(self, mode, forward, objective="loss", parameters=(), inputs=(), optimizer=None):
        self.forward, self.objective = forward, objective
        self.parameters, self.inputs, self.optimizer = list(parameters), list(inputs), optimizer
        self.root = forward
        if mode == "compile":
            self.root = torch.compile(self.root)

    def backward(self):
        for p in self.parameters + self.inputs:
            p.grad = None
        output = self.root()
        if isinstance(self.objective, torch.Tensor):
            output.backward(self.objective)
        else:
            output.backward()
        return output

    def run(self):
        self.backward()
        if self.optimizer is not None:
            self.optimizer.step()

    def check(self):
        output = self.backward().detach()
        if isinstance(self.objective, torch.Tensor):
            output = (output.double() * self.objective.double()).sum()
        squares = [p.grad.double().square().sum() for p in self.parameters + self.inputs if p.grad is not None]
        return {"value": output.item(), "gradient": math.sqrt(sum(s.item() for s in squares))}


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=SGD_RATE, fused=True)


def train(mode, module, loss):
    """A step of Adam on a whole model."""
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, lr=ADAM_RATE, fused=True)
    return Step(mode, loss, parameters=parameters, optimizer=optimizer)


def leaf(name, shape, scale):
    return values(name, shape, scale).requires_grad_()


# Recurrent networks.


def recurrent(kind, b, t, d, h, layers=1, bidirectional=False):
    def make(mode):
        net = fill(kind(d, h, layers, batch_first=True, bidirectional=bidirectional))
        xs = values("x", (b, t, d), 1.0)
        parameters = list(net.parameters())
        gradient = values("gradient", (b, t, h * (2 if bidirectional else 1)), 1.0)
        return Step(mode, lambda: net(xs)[0], gradient, parameters, optimizer=sgd(parameters))

    return make


# Attention.


def attention(b, h, length, d, causal):
    def make(mode):
        q, k, v = (leaf(name, (b, h, length, d), 1.0) for name in "qkv")
        gradient = values("gradient", (b, h, length, d), 1.0)
        forward = lambda: F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return Step(mode, forward, gradient, inputs=[q, k, v])

    return make


def skewed(q, table):
    """Music Transformer's procedure (Huang et al. 2018, figure 1): row i, column j holds q_i · e_{L-1-(i-j)}."""
    b, h, length, _ = q.shape
    padded = F.pad(q @ table.transpose(-2, -1), (1, 0))  # (b, h, l, l + 1)
    return padded.view(b, h, length + 1, length)[:, :, 1:]


def relative(b, h, length, d):
    def make(mode):
        q, k, v = (leaf(name, (b, h, length, d), 1.0) for name in "qkv")
        table = leaf("relative", (h, length, d), 0.5)
        gradient = values("gradient", (b, h, length, d), 1.0)
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        scale = 1 / math.sqrt(d)

        def products():
            scores = (q @ k.transpose(-2, -1) + skewed(q, table)) * scale
            return torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ v

        def library():
            bias = (skewed(q, table) * scale).masked_fill(hidden, -math.inf)
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

        forward = library if mode == "sdpa" else products
        return Step(mode, forward, gradient, inputs=[q, k, v, table])

    return make


# Memory and pointer networks.


class PointerNet(nn.Module):
    """Vinyals et al. 2015: u_ij = v · tanh(W_1 e_j + W_2 d_i), teacher forcing."""

    def __init__(self, d, h):
        super().__init__()
        self.encoder = nn.LSTM(d, h, batch_first=True)
        self.decoder = nn.LSTM(d, h, batch_first=True)
        self.w1, self.w2 = nn.Linear(h, h, bias=False), nn.Linear(h, h, bias=False)
        self.v = nn.Parameter(torch.zeros(h))

    def forward(self, xs, previous):
        encoded, state = self.encoder(xs)
        decoded, _ = self.decoder(previous, state)
        return torch.tanh(self.w1(encoded)[:, None] + self.w2(decoded)[:, :, None]) @ self.v  # (b, m, n)


def pointer(b, n, h):
    def make(mode):
        net = fill(PointerNet(2, h))
        xs, targets = values("x", (b, n, 2), 1.0), ids("targets", (b, n), 0, n)
        chosen = xs.gather(1, targets[:, :-1, None].expand(-1, -1, 2))
        previous = torch.cat([torch.zeros(b, 1, 2), chosen], 1)
        return train(mode, net, lambda: F.cross_entropy(net(xs, previous).flatten(0, 1), targets.flatten()))

    return make


class MemN2N(nn.Module):
    """Sukhbaatar et al. 2015 with adjacent tying, position and temporal encoding."""

    def __init__(self, v, d, hops, n, width):
        super().__init__()
        self.words = nn.ModuleList(nn.Embedding(v, d, padding_idx=0) for _ in range(hops + 1))
        self.temporal = nn.ParameterList(torch.zeros(n, d) for _ in range(hops + 1))
        j, k = torch.arange(1, width + 1)[:, None], torch.arange(1, d + 1)[None]
        position = 1 + 4 * (k - (d + 1) / 2) * (j - (width + 1) / 2) / (d * width)
        self.register_buffer("position", position)
        self.register_buffer("ages", torch.arange(n - 1, -1, -1))

    def forward(self, story, question):
        memories = [
            (words(story) * self.position).sum(2) + time[self.ages]
            for words, time in zip(self.words, self.temporal)
        ]
        u = (self.words[0](question) * self.position[: question.shape[1]]).sum(1)
        for m, c in zip(memories, memories[1:]):
            p = torch.softmax(torch.bmm(m, u[:, :, None]).squeeze(2), 1)
            u = u + torch.bmm(p[:, None], c).squeeze(1)
        return u @ self.words[-1].weight.T


def memn2n(b, n, width, asked, v, d, hops):
    def make(mode):
        net = fill(MemN2N(v, d, hops, n, width))
        story, question = ids("story", (b, n, width), 1, v), ids("question", (b, asked), 1, v)
        answers = ids("answers", (b,), 1, v)
        return train(mode, net, lambda: F.cross_entropy(net(story, question), answers))

    return make


def dmn_name(name):
    """mnemic's name of a parameter of the peer of the bench `dmn-step`."""
    if name.startswith(("w1.", "w2.")):
        return f"attention.{name}"
    if name.startswith("attention_gru."):
        _, product, kind = name.split(".")
        return f"attention_gru.{kind}_{product}"
    return name


def dmn_plus(b, n, width, asked, v, h, passes):
    def make(mode):
        net = fill(DmnPlus(v, h, width, passes, 0.0), dmn_name)
        story, question = ids("story", (b, n, width), 1, v), ids("question", (b, asked), 1, v)
        answers = ids("answers", (b,), 1, v)
        lengths, questions = torch.full((b,), n), torch.full((b,), asked)
        return train(mode, net, lambda: F.cross_entropy(net(story, lengths, question, questions), answers))

    return make


# Rows, optimiser, transformer.


def cross_entropy(n, classes):
    def make(mode):
        logits, targets = leaf("logits", (n, classes), 4.0), ids("targets", (n,), 0, classes)
        return Step(mode, lambda: F.cross_entropy(logits, targets), inputs=[logits])

    return make


def layer_norm(n, d):
    def make(mode):
        xs = leaf("x", (n, d), 2.0)
        weight, bias = (nn.Parameter(parameter(f"norm.{name}", (d,))) for name in ("weight", "bias"))
        forward = lambda: F.layer_norm(xs, (d,), weight, bias)
        gradient = values("gradient", (n, d), 1.0)
        return Step(mode, forward, gradient, [weight, bias], [xs], sgd([weight, bias]))

    return make


class AdamStep:
    """Updates alone, from gradients that stay as they are."""

    def __init__(self, mode, count, size):
        self.parameters = [nn.Parameter(values(f"p{i}", (size,), 0.05)) for i in range(count)]
        for i, p in enumerate(self.parameters):
            p.grad = values(f"g{i}", (size,), 0.01)
        flags = {"default": {}, "foreach": {"foreach": True}, "fused": {"fused": True}}
        self.run = torch.optim.Adam(self.parameters, lr=ADAM_RATE, **flags[mode]).step

    def check(self):
        before = [p.detach().clone() for p in self.parameters]
        self.run()
        moved = sum((p.detach() - q).double().square().sum().item() for p, q in zip(self.parameters, before))
        squares = sum(p.grad.double().square().sum().item() for p in self.parameters)
        return {"value": math.sqrt(moved), "gradient": math.sqrt(squares)}


class Transformer(nn.Module):
    """Vaswani et al. 2017: post-norm, sinusoidal positions, one table for both embeddings and the output."""

    def __init__(self, v, d, heads, layers, inner):
        super().__init__()
        self.embedding = nn.Embedding(v, d)
        settings = dict(dropout=0.0, batch_first=True)
        self.encoder = nn.ModuleList(nn.TransformerEncoderLayer(d, heads, inner, **settings) for _ in range(layers))
        self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(d, heads, inner, **settings) for _ in range(layers))

    def embed(self, words):
        d = self.embedding.embedding_dim
        return self.embedding(words) * math.sqrt(d) + sinusoids(words.shape[1], d)

    def forward(self, source, target):
        memory, ys = self.embed(source), self.embed(target)
        for layer in self.encoder:
            memory = layer(memory)
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        for layer in self.decoder:
            ys = layer(ys, memory, tgt_mask=mask, tgt_is_causal=True)
        return F.linear(ys, self.embedding.weight)


def sinusoids(length, d):
    """sin at even places, cos at odd ones."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, d, 2) * (-math.log(10000.0) / d))
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def transformer_name(name):
    stack, _, rest = name.partition(".")
    return name if stack == "embedding" else f"{stack}.layers.{rest}"


def transformer(b, t, v, d, heads, layers, inner):
    def make(mode):
        net = fill(Transformer(v, d, heads, layers, inner), transformer_name)
        source, target = ids("source", (b, t), 1, v), ids("target", (b, t), 1, v)
        labels = ids("labels", (b * t,), 1, v)
        loss = lambda: F.cross_entropy(net(source, target).flatten(0, 1), labels, label_smoothing=0.1)
        return train(mode, net, loss)

    return make


WORKLOADS = {
    "gru-b100-t64-h80": recurrent(nn.GRU, 100, 64, 80, 80),
    "gru-b32-t128-h256": recurrent(nn.GRU, 32, 128, 256, 256),
    "bigru-b100-t64-h80": recurrent(nn.GRU, 100, 64, 80, 80, bidirectional=True),
    "lstm-b64-t100-h128": recurrent(nn.LSTM, 64, 100, 128, 128),
    "lstm2-b20-t35-h650": recurrent(nn.LSTM, 20, 35, 650, 650, layers=2),
    "attention-causal-l512": attention(2, 8, 512, 64, True),
    "attention-causal-l2048": attention(2, 8, 2048, 64, True),
    "attention-full-l1024": attention(2, 8, 1024, 64, False),
    "relative-l1024": relative(1, 8, 1024, 64),
    "relative-l2048": relative(1, 8, 2048, 64),
    "pointer-b128-n20-h256": pointer(128, 20, 256),
    "memn2n-b32": memn2n(32, 50, 11, 6, 180, 20, 3),
    "dmn-plus-n20": dmn_plus(100, 20, 7, 5, 40, 80, 3),
    "dmn-plus-n64": dmn_plus(100, 64, 7, 5, 40, 80, 3),
    "cross-entropy-2048x10000": cross_entropy(2048, 10000),
    "cross-entropy-2048x50257": cross_entropy(2048, 50257),
    "layer-norm-2048x512": layer_norm(2048, 512),
    "adam-10m": lambda mode: AdamStep(mode, 20, 500_000),
    "transformer-step": transformer(128, 16, 8000, 256, 8, 3, 1024),
}
