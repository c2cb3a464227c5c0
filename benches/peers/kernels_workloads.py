"""The workloads of the bench `kernels` in PyTorch: same shapes, parameters, data and optimisers as in `benches/src/workloads`.

Initial values and inputs come from a formula that both sides have (`values`), so that losses and gradients can be compared.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from dmn_step import DmnPlus

SGD_RATE = 1e-3
ADAM_RATE = 1e-3
# Where parameters and inputs live.
DEVICE = torch.device("cpu")


# Numbers by formula, as in benches/src/data.rs.


def seed(name):
    hashed = 0x811C9DC5
    for byte in name.encode():
        hashed = ((hashed ^ byte) * 0x01000193) & 0xFFFFFFFF
    return hashed


def bits(start, count):
    x = (torch.arange(count, device=DEVICE) + start) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & 0xFFFFFFFF
    x = ((x ^ (x >> 15)) * 0x846CA68B) & 0xFFFFFFFF
    return x ^ (x >> 16)


def values(name, shape, scale, offset=0.0):
    numbers = bits(seed(name), math.prod(shape)).double()
    return (offset + (numbers / 2**31 - 1) * scale).float().view(shape)


def ids(name, shape, low, high):
    return (low + bits(seed(name), math.prod(shape)) % (high - low)).view(shape)


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
        self.graphs = mode == "reduce-overhead"
        if self.graphs:
            self.root = torch.compile(self.root, mode=mode)

    def backward(self):
        if self.graphs:
            torch.compiler.cudagraph_mark_step_begin()
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
        output = self.backward().detach().clone()
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


def leaf(name, shape, scale, dtype=torch.float32):
    return values(name, shape, scale).to(dtype).requires_grad_()


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


def attention(b, h, length, d, causal, dtype=torch.float32):
    def make(mode):
        q, k, v = (leaf(name, (b, h, length, d), 1.0, dtype) for name in "qkv")
        gradient = values("gradient", (b, h, length, d), 1.0).to(dtype)
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
        previous = torch.cat([torch.zeros_like(xs[:, :1]), chosen], 1)
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
        # No padding: nothing to pack, nothing to mask.
        valid = torch.ones(b, n, dtype=torch.bool)
        return train(mode, net, lambda: F.cross_entropy(net(story, None, question, None, valid), answers))

    return make


# Machines that read their own results.


def step_name(name):
    """mnemic's name of a parameter: an LSTM cell is the first layer of an LSTM."""
    return f"{name}_l0" if name.startswith("controller.") else name


class NtmMemory(nn.Module):
    def __init__(self, h, n, w):
        super().__init__()
        self.heads = nn.Linear(h, 2 * (w + 6) + 2 * w)
        self.read = nn.Parameter(torch.zeros(1, w))
        self.weights = nn.Parameter(torch.zeros(2, n))


class Ntm(nn.Module):
    """Graves et al. 2014: one read head and one write head, shifts of one; both look at the memory as it was."""

    def __init__(self, i, o, h=100, n=128, w=20):
        super().__init__()
        self.n, self.w = n, w
        self.controller = nn.LSTMCell(i + w, h)
        self.memory = NtmMemory(h, n, w)
        self.output = nn.Linear(h + w, o)

    def address(self, memory, weights, controls):
        w = self.w
        key, strength = torch.tanh(controls[..., :w]), F.softplus(controls[..., w : w + 1])
        gate, shift = torch.sigmoid(controls[..., w + 1 : w + 2]), torch.softmax(controls[..., w + 2 : w + 5], -1)
        sharpening = 1 + F.softplus(controls[..., w + 5 :])
        norms = key.norm(dim=2, keepdim=True) * memory.norm(dim=2)[:, None]
        content = torch.softmax(strength * torch.bmm(key, memory.transpose(1, 2)) / (norms + 1e-8), -1)
        mixed = gate * content + (1 - gate) * weights
        moved = sum(shift[..., j : j + 1] * mixed.roll(j - 1, 2) for j in range(3))
        return torch.softmax(sharpening * moved.clamp(min=1e-30).log(), -1)

    def forward(self, inputs):
        b, w = inputs.shape[0], self.w
        size = w + 6
        memory = torch.full((b, self.n, w), 1e-6, device=inputs.device)
        weights = torch.softmax(self.memory.weights, -1).expand(b, -1, -1)
        read, state, features = torch.tanh(self.memory.read).expand(b, -1), None, []
        for x in inputs.unbind(1):
            state = self.controller(torch.cat([x, read], 1), state)
            emitted = self.memory.heads(state[0])
            controls = emitted[:, : 2 * size].view(b, 2, size)
            erase, add = torch.sigmoid(emitted[:, 2 * size : 2 * size + w]), torch.tanh(emitted[:, 2 * size + w :])
            weights = self.address(memory, weights, controls)
            read = torch.bmm(weights[:, :1], memory).squeeze(1)
            write = weights[:, 1, :, None]
            memory = memory * (1 - write * erase[:, None]) + write * add[:, None]
            features.append(torch.cat([state[0], read], 1))
        return self.output(torch.stack(features, 1))


class DncMemory(nn.Module):
    def __init__(self, h, w, r):
        super().__init__()
        self.interface = nn.Linear(h, w * r + 3 * w + 5 * r + 3)


class Dnc(nn.Module):
    """Graves et al. 2016: one write head, links in the order of writing; no step is computed twice for the read heads."""

    def __init__(self, i, o, h=64, n=64, w=16, r=4):
        super().__init__()
        self.n, self.w, self.r = n, w, r
        self.controller = nn.ModuleList([nn.LSTMCell(i + r * w, h)])
        self.memory = DncMemory(h, w, r)
        self.output = nn.Linear(h + r * w, o)
        self.register_buffer("others", 1 - torch.eye(n), persistent=False)

    @staticmethod
    def content(memory, keys, strengths):
        norms = keys.norm(dim=2, keepdim=True) * memory.norm(dim=2)[:, None]
        cosine = torch.bmm(keys, memory.transpose(1, 2)) / (norms + 1e-8)
        return torch.softmax((1 + F.softplus(strengths))[..., None] * cosine, -1)

    @staticmethod
    def allocation(usage):
        used, order = usage.sort(dim=1)
        before = torch.cat([torch.ones_like(used[:, :1]), used.cumprod(1)[:, :-1]], 1)
        return torch.zeros_like(usage).scatter(1, order, (1 - used) * before)

    def forward(self, inputs):
        b, n, w, r = inputs.shape[0], self.n, self.w, self.r
        zeros = inputs.new_zeros
        memory, link = zeros(b, n, w), zeros(b, n, n)
        usage, precedence, written, weights = zeros(b, n), zeros(b, n), zeros(b, n), zeros(b, r, n)
        read, state, features = zeros(b, r * w), None, []
        for x in inputs.unbind(1):
            state = self.controller[0](torch.cat([x, read], 1), state)
            parts = self.memory.interface(state[0]).split([r * w, w, w, w, r, 1, r + 2, 3 * r], 1)
            keys, key, erase, add, strengths, strength, gates, modes = parts
            gates, erase = torch.sigmoid(gates), torch.sigmoid(erase)
            retention = (1 - gates[:, :r, None] * weights).prod(1)
            usage = (usage + written - usage * written) * retention
            content = self.content(memory, key[:, None], strength)[:, 0]
            allocate = gates[:, r : r + 1]
            written = gates[:, r + 1 :] * (allocate * self.allocation(usage) + (1 - allocate) * content)
            memory = memory * (1 - written[..., None] * erase[:, None]) + written[..., None] * add[:, None]
            kept = 1 - written[..., None] - written[:, None]
            link = (kept * link + written[..., None] * precedence[:, None]) * self.others
            precedence = (1 - written.sum(1, keepdim=True)) * precedence + written
            content = self.content(memory, keys.view(b, r, w), strengths)
            modes = torch.softmax(modes.view(b, r, 3), -1)
            forward, backward = torch.bmm(weights, link.transpose(1, 2)), torch.bmm(weights, link)
            weights = modes[..., :1] * backward + modes[..., 1:2] * content + modes[..., 2:] * forward
            read = torch.bmm(weights, memory).flatten(1)
            features.append(torch.cat([state[0], read], 1))
        return self.output(torch.stack(features, 1))


def copy(machine, b, vectors=20, bits=8):
    def make(mode):
        net = fill(machine(bits + 1, bits), step_name)
        copied = ids("bits", (b, vectors, bits), 0, 2).float()
        inputs = torch.zeros(b, 2 * vectors + 1, bits + 1, device=DEVICE)
        inputs[:, :vectors, :bits], inputs[:, vectors, bits] = copied, 1
        return train(mode, net, lambda: F.binary_cross_entropy_with_logits(
            net(inputs)[:, vectors + 1 :], copied, reduction="sum") / b)

    return make


class Start(nn.Module):
    def __init__(self, h):
        super().__init__()
        self.hidden, self.cell = nn.Parameter(torch.zeros(h, 1)), nn.Parameter(torch.zeros(h, 1))


class StackMemory(nn.Module):
    def __init__(self, h, m):
        super().__init__()
        self.push, self.pop, self.value = nn.Linear(h, 1), nn.Linear(h, 1), nn.Linear(h, m)


class NeuralStack(nn.Module):
    """Grefenstette et al. 2015: an LSTM with a continuous stack; sums over the rows above by cumulative sums."""

    def __init__(self, i, o, e=64, h=256, m=256):
        super().__init__()
        self.m = m
        self.embedding = nn.Linear(i, e, bias=False)
        self.controller = nn.LSTMCell(e + m, h)
        self.start, self.memory = Start(h), StackMemory(h, m)
        self.transform, self.output = nn.Linear(h, h), nn.Linear(h, o)

    @staticmethod
    def above(strengths):
        return strengths.flip(1).cumsum(1).flip(1) - strengths

    def forward(self, inputs):
        b = inputs.shape[0]
        state = (self.start.hidden.T.expand(b, -1), self.start.cell.T.expand(b, -1))
        strengths, rows = inputs.new_zeros(b, 0), inputs.new_zeros(b, 0, self.m)
        read, hidden = inputs.new_zeros(b, self.m), []
        for x in self.embedding(inputs).unbind(1):
            state = self.controller(torch.cat([x, read], 1), state)
            h = state[0]
            push, pop = torch.sigmoid(self.memory.push(h)), torch.sigmoid(self.memory.pop(h))
            value = torch.tanh(self.memory.value(h))
            left = F.relu(strengths - F.relu(pop - self.above(strengths)))
            strengths, rows = torch.cat([left, push], 1), torch.cat([rows, value[:, None]], 1)
            weights = torch.minimum(strengths, F.relu(1 - self.above(strengths)))
            read = torch.bmm(weights[:, None], rows).squeeze(1)
            hidden.append(h)
        return self.output(torch.tanh(self.transform(torch.stack(hidden[inputs.shape[1] // 2 :], 1))))


def neural_stack(b, t, i, o):
    def make(mode):
        net = fill(NeuralStack(i, o), step_name)
        inputs = F.one_hot(ids("symbols", (b, t), 0, i), i).float()
        answers = ids("answers", (b * t // 2,), 0, o)
        return train(mode, net, lambda: F.cross_entropy(net(inputs).flatten(0, 1), answers, reduction="sum") / b)

    return make


class ActionStacks(nn.Module):
    def __init__(self, m, stacks):
        super().__init__()
        self.actions, self.push = nn.Linear(m, 2 * stacks, bias=False), nn.Linear(m, stacks, bias=False)


class StackRnn(nn.Module):
    """Joulin and Mikolov 2015: stacks moved by soft actions, two cells seen; cells that were never written are left out."""

    def __init__(self, i, m=40, stacks=10, capacity=200):
        super().__init__()
        self.stacks, self.capacity = stacks, capacity
        self.input, self.visible = nn.Linear(i, m, bias=False), nn.Linear(2 * stacks, m, bias=False)
        self.memory, self.output = ActionStacks(m, stacks), nn.Linear(m, i, bias=False)

    def forward(self, inputs):
        b, s = inputs.shape[0], self.stacks
        cells, hidden = inputs.new_full((b, s, 2), -1.0), []
        for x in self.input(inputs).unbind(1):
            h = torch.sigmoid(x + self.visible(cells[:, :, :2].flatten(1)))
            actions = torch.softmax(self.memory.actions(h).view(b, s, 2), 2)
            value, empty = torch.sigmoid(self.memory.push(h)), cells.new_full((b, s, 2), -1.0)
            pushed = torch.cat([value[:, :, None], cells], 2)[:, :, : self.capacity]
            popped = torch.cat([cells[:, :, 1:], empty], 2)[:, :, : pushed.shape[2]]
            cells = actions[:, :, :1] * pushed + actions[:, :, 1:] * popped
            hidden.append(h)
        return self.output(torch.stack(hidden, 1))


def stack_rnn(b, t, i):
    def make(mode):
        net = fill(StackRnn(i))
        inputs = F.one_hot(ids("symbols", (b, t), 0, i), i).float()
        answers = ids("answers", (b * t,), 0, i)
        return train(mode, net, lambda: F.cross_entropy(net(inputs).flatten(0, 1), answers, reduction="sum") / b)

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


def rows(forward, dtype):
    """An operation on 16384 rows of 4096 numbers; the gradient of its output is given."""

    def make(mode):
        shape = (16384, 4096)
        xs = leaf("x", shape, 2.0, dtype)
        return Step(mode, lambda: forward(xs), values("gradient", shape, 1.0).to(dtype), inputs=[xs])

    return make


def wide_layer_norm(dtype):
    def make(mode):
        weight, bias = torch.ones(4096, dtype=dtype), torch.zeros(4096, dtype=dtype)
        return rows(lambda xs: F.layer_norm(xs, (4096,), weight, bias), dtype)(mode)

    return make


def wide_dropout(dtype):
    """The gradient of the output is the input: what is compared hardly depends on the mask."""

    def make(mode):
        xs = leaf("x", (16384, 4096), 2.0, dtype)
        return Step(mode, lambda: F.dropout(xs, 0.1), xs.detach(), inputs=[xs])

    return make


def wide_cross_entropy(dtype):
    def make(mode):
        xs, targets = leaf("x", (16384, 4096), 2.0, dtype), ids("targets", (16384,), 0, 4096)
        return Step(mode, lambda: F.cross_entropy(xs, targets), inputs=[xs])

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

    def __init__(self, v, d, heads, layers, inner, t):
        super().__init__()
        self.embedding = nn.Embedding(v, d)
        self.register_buffer("positions", sinusoids(t, d))
        self.register_buffer("hidden", nn.Transformer.generate_square_subsequent_mask(t))
        settings = dict(dropout=0.0, batch_first=True)
        self.encoder = nn.ModuleList(nn.TransformerEncoderLayer(d, heads, inner, **settings) for _ in range(layers))
        self.decoder = nn.ModuleList(nn.TransformerDecoderLayer(d, heads, inner, **settings) for _ in range(layers))

    def embed(self, words):
        return self.embedding(words) * math.sqrt(self.embedding.embedding_dim) + self.positions

    def forward(self, source, target):
        memory, ys = self.embed(source), self.embed(target)
        for layer in self.encoder:
            memory = layer(memory)
        for layer in self.decoder:
            ys = layer(ys, memory, tgt_mask=self.hidden, tgt_is_causal=True)
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
        net = fill(Transformer(v, d, heads, layers, inner, t), transformer_name)
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
    "ntm-copy-b1": copy(Ntm, 1),
    "ntm-copy-b32": copy(Ntm, 32),
    "dnc-copy-b1": copy(Dnc, 1),
    "dnc-copy-b16": copy(Dnc, 16),
    "neural-stack-b10-t80": neural_stack(10, 80, 258, 129),
    "stack-rnn-b20-t150": stack_rnn(20, 150, 5),
    "cross-entropy-2048x10000": cross_entropy(2048, 10000),
    "cross-entropy-2048x50257": cross_entropy(2048, 50257),
    "layer-norm-2048x512": layer_norm(2048, 512),
    "adam-10m": lambda mode: AdamStep(mode, 20, 500_000),
    "transformer-step": transformer(128, 16, 8000, 256, 8, 3, 1024),
    # On GPUs alone.
    "transformer-step-d512-b64-t64": transformer(64, 64, 32000, 512, 8, 6, 2048),
    "attention-bf16-causal-b2-h8-l2048-d64": attention(2, 8, 2048, 64, True, torch.bfloat16),
    "attention-bf16-full-b2-h8-l2048-d64": attention(2, 8, 2048, 64, False, torch.bfloat16),
    "attention-bf16-causal-b4-h16-l4096-d64": attention(4, 16, 4096, 64, True, torch.bfloat16),
    "attention-bf16-full-b4-h16-l4096-d64": attention(4, 16, 4096, 64, False, torch.bfloat16),
    "attention-bf16-causal-b4-h16-l4096-d128": attention(4, 16, 4096, 128, True, torch.bfloat16),
    "attention-bf16-full-b4-h16-l4096-d128": attention(4, 16, 4096, 128, False, torch.bfloat16),
    "softmax-f32-16384x4096": rows(lambda xs: torch.softmax(xs, -1), torch.float32),
    "softmax-bf16-16384x4096": rows(lambda xs: torch.softmax(xs, -1), torch.bfloat16),
    "layer-norm-f32-16384x4096": wide_layer_norm(torch.float32),
    "layer-norm-bf16-16384x4096": wide_layer_norm(torch.bfloat16),
    "gelu-f32-16384x4096": rows(F.gelu, torch.float32),
    "gelu-bf16-16384x4096": rows(F.gelu, torch.bfloat16),
    "dropout-f32-16384x4096": wide_dropout(torch.float32),
    "dropout-bf16-16384x4096": wide_dropout(torch.bfloat16),
    "cross-entropy-f32-16384x4096": wide_cross_entropy(torch.float32),
    "cross-entropy-bf16-16384x4096": wide_cross_entropy(torch.bfloat16),
}
