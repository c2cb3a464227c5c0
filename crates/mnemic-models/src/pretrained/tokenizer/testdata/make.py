"""A small Marian tokenizer and what the library cuts with it. `pip install sentencepiece`, then run here."""

import json
import random

import sentencepiece as spm

random.seed(3)
words = "the a cat dog sat on mat house red blue fine fire walks walking talked talking under over and with small big".split()
text = "\n".join(" ".join(random.choices(words, k=random.randint(3, 9))) + random.choice([".", "!", "?", ""]) for _ in range(400))
with open("/tmp/corpus.txt", "w") as file:
    file.write(text)
# Source and target in hexadecimal: the ligature fi, quotes, an ellipsis, the ideographic space, a circled 1, e with its accent apart,
# a soft hyphen (dropped), and a sequence whose beginning is replaced, too.
rules = [("FB01", "66 69"), ("201C", "22"), ("201D", "22"), ("2026", "2E 2E 2E"), ("3000", "20"), ("2460", "31"),
         ("65 301", "E9"), ("AD", ""), ("41", "61"), ("41 42", "62 62"), ("9", "20")]
with open("/tmp/rules.tsv", "w") as file:
    file.writelines(f"{a}\t{b}\n" for a, b in rules)
spm.SentencePieceTrainer.train(
    input="/tmp/corpus.txt", model_prefix="/tmp/source", vocab_size=70, model_type="unigram",
    normalization_rule_tsv="/tmp/rules.tsv", character_coverage=1.0, hard_vocab_limit=False, minloglevel=2)
with open("/tmp/source.model", "rb") as file:
    model = file.read()
with open("source.spm", "wb") as file:
    file.write(model)

processor = spm.SentencePieceProcessor(model_file="source.spm")
pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
pieces = [p for p in pieces if p not in ("<s>", "</s>", "<unk>")]
# One piece of the model is missing on purpose: it is unknown to the vocabulary.
missing = pieces.pop(11)
vocab = {token: i for i, token in enumerate(["</s>", "<unk>", *reversed(pieces), ">>de<<", "<pad>"])}
with open("vocab.json", "w") as file:
    json.dump(vocab, file, ensure_ascii=False, indent=0)

texts = ["the cat sat on the mat.", "  two   spaces  and walking ", "the ﬁne ﬁre…", "“a” ①", "cafe\u0301", "a\u3000dog", "", "   ",
         "walks-talked", "日本 the dog", "AB A B", "so\u00adft", "the\tcat\n", "▁the", "<s> the </s> <unk>", "the dogs' houses!",
         f"x{missing}y", "\u3000\u3000red"]
cuts = []
for text in texts:
    cut = processor.encode(text, out_type=str)
    ids = [vocab.get(piece, 1) for piece in cut] + [0]
    decoded = "".join(p for p in cut if p in vocab).replace("▁", " ")
    cuts.append({"text": text, "pieces": cut, "ids": ids, "decoded": decoded.removeprefix(" ")})
with open("cuts.json", "w") as file:
    json.dump(cuts, file, ensure_ascii=False, indent=1)
    file.write("\n")
