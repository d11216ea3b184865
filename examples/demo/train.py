#!/usr/bin/env python3
"""Makes the demo model from nothing but grammar.py: text, tokenizer, weights and the figures of README.md.

    train.py make       writes model/ and text/ (about 20 minutes on two cores), then measures
    train.py measure    measures the model in model/ on text/heldout.txt: bound, float, round-to-nearest

Needs PyTorch 2.9 or later (for its Muon optimizer), transformers, tokenizers and safetensors. Everything is seeded;
the order of floating-point sums depends on the machine, so the weights come out alike rather than equal.
"""

import argparse
import json
import math
import pathlib
import time

import tokenizers
import torch
import transformers

import grammar

HERE = pathlib.Path(__file__).resolve().parent
MODEL = HERE / "model"
TEXT = HERE / "text"

WINDOW = 256  # tokens per training and evaluation window
BATCH = 16  # windows per training step
VOCABULARY = 1024
END = "<|end|>"  # the one special token; the grammar's own end of a document is a newline

# One seed per text. Training takes seeds from TRAINING_SEED on, one per chunk, and so never meets the other texts.
CALIBRATION_SEED, HELDOUT_SEED, TOKENIZER_SEED, TRAINING_SEED = 1, 2, 3, 1000
CALIBRATION_CHARACTERS, HELDOUT_CHARACTERS = 165_000, 110_000
TOKENIZER_CHARACTERS, CHUNK_CHARACTERS = 2_000_000, 2_000_000


# --------------------------------------------------------------------------------------------------------------------
# Tokenizer
# --------------------------------------------------------------------------------------------------------------------


def train_tokenizer(text):
    """A byte-level BPE tokenizer in the manner of GPT-2."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], show_progress=False,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def save_tokenizer(tokenizer):
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=512,
        clean_up_tokenization_spaces=False).save_pretrained(MODEL)
    # transformers 5 writes a class name that transformers 4 does not know; both know this one.
    path = MODEL / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


# --------------------------------------------------------------------------------------------------------------------
# The bound
# --------------------------------------------------------------------------------------------------------------------


def token_surprises(world, tokenizer, text):
    """For every token of `text`: (id, exact -log of its probability given all text before it, opens a document?).

    The grammar gives the distribution of the next piece; a piece is one token or several. A token's probability given
    the tokens before it is that of all pieces that begin with the tokens so far and this one, over that of all pieces
    that begin with the tokens so far. When the tokens of one possible piece begin those of another (" cat", " cat"
    "s"), only the first token of the next piece tells that the shorter one was meant, and it carries that probability.
    """
    encoded = {}
    carried = 0.0
    for piece, distribution, opens in grammar.walk(world, text):
        for candidate in distribution:
            if candidate not in encoded:
                encoded[candidate] = tokenizer.encode(candidate).ids
        ids = encoded[piece]
        alive = [(encoded[candidate], p) for candidate, p in distribution.items()]
        before = 1.0
        for position, token in enumerate(ids):
            alive = [(other, p) for other, p in alive if len(other) > position and other[position] == token]
            now = sum(p for _, p in alive)
            yield token, carried - math.log(now / before), opens and position == 0
            before, carried = now, 0.0
        carried = -math.log(distribution[piece] / before)


# --------------------------------------------------------------------------------------------------------------------
# Training
# --------------------------------------------------------------------------------------------------------------------


def new_model():
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, max_position_embeddings=512, tie_word_embeddings=True, rms_norm_eps=1e-5,
        bos_token_id=0, eos_token_id=0)
    torch.manual_seed(0)
    return transformers.LlamaForCausalLM(config)


def training_batches(world, tokenizer, steps):
    """Batches of windows cut from fresh text, never the same text twice."""
    seed, windows = TRAINING_SEED, torch.empty(0, WINDOW, dtype=torch.long)
    shuffle = torch.Generator().manual_seed(0)
    for _ in range(steps):
        if len(windows) < BATCH:
            text = grammar.text_of(world, seed, CHUNK_CHARACTERS)
            seed += 1
            documents = tokenizer.encode_batch_fast(text.splitlines(keepends=True))
            tokens = torch.tensor([token for document in documents for token in document.ids])
            fresh = tokens[: len(tokens) // WINDOW * WINDOW].view(-1, WINDOW)
            windows = torch.cat([windows, fresh[torch.randperm(len(fresh), generator=shuffle)]])
        yield windows[:BATCH]
        windows = windows[BATCH:]


def train(model, batches, steps, peak_muon, peak_adam):
    """Muon for the decoder's matrices, Adam for the embedding and norms; a warm-up, then a straight line to zero."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [torch.optim.Muon(matrices, lr=peak_muon, momentum=0.95, weight_decay=0.01),
                  torch.optim.Adam(others, lr=peak_adam, betas=(0.9, 0.98))]
    warm_up = 100

    def share_of_peak(step):
        return min((step + 1) / warm_up, (steps - step) / (steps - warm_up))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak) for optimizer in optimizers]
    model.train()
    start, recent = time.time(), []
    for step, batch in enumerate(batches, 1):
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        recent.append(loss.item())
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {sum(recent) / len(recent):.4f}  "
                  f"{step * BATCH * WINDOW / (time.time() - start):.0f} tokens/s", flush=True)
            recent = []
    model.eval()


# --------------------------------------------------------------------------------------------------------------------
# Measuring
# --------------------------------------------------------------------------------------------------------------------


def scored(values):
    """Of one value a token, those of scored tokens: all but the first of each window. The last window may be short."""
    return torch.cat([window[1:] for window in values.split(WINDOW)])


@torch.no_grad()
def surprises(model, tokens):
    """-log p of every scored token, in float."""
    whole = len(tokens) // WINDOW * WINDOW
    batches = list(tokens[:whole].view(-1, WINDOW).split(16))
    if len(tokens) - whole > 1:
        batches.append(tokens[whole:].view(1, -1))
    nats = []
    for batch in batches:
        logits = model(input_ids=batch).logits[:, :-1].float()
        nats.append(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none"))
    return torch.cat(nats).double()


def rounded_to_nearest(weight, bits, group=32):
    """Symmetric round-to-nearest in groups along the input features, scale = largest magnitude / (2^(bits-1) - 1/2)."""
    groups = weight.float().reshape(weight.shape[0], -1, group)
    half = 2 ** (bits - 1)
    scale = (groups.abs().amax(dim=-1, keepdim=True) * 2 / (2**bits - 1)).half().float().clamp(min=1e-8)
    return ((groups / scale).round().clamp(-half, half - 1) * scale).reshape(weight.shape)


def measure():
    """Bound, float and round-to-nearest perplexity on the held-out text; the bound goes to text/entropy.json."""
    world = grammar.World()
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    text = (TEXT / "heldout.txt").read_text(encoding="utf-8")
    steps = list(token_surprises(world, tokenizer, text))
    tokens = torch.tensor([token for token, _, _ in steps])
    pieces = list(grammar.walk(world, text))
    total = -sum(math.log(distribution[piece]) for piece, distribution, _ in pieces)
    assert tokens.tolist() == tokenizer.encode(text).ids, "a token crosses two pieces"
    assert math.isclose(sum(nats for _, nats, _ in steps), total), "the tokens' probabilities are not the text's"

    exact = scored(torch.tensor([nats for _, nats, _ in steps], dtype=torch.float64))
    # Where a window has opened a document of its own, the model has seen all that matters and meets the bound fairly.
    opens = torch.tensor([opens for _, _, opens in steps])
    in_context = torch.cat([window[1:].cumsum(0) > 0 for window in opens.split(WINDOW)])

    report = {
        "text": "heldout.txt", "window": WINDOW, "tokens": len(tokens), "windows": math.ceil(len(tokens) / WINDOW),
        "scored_tokens": exact.numel(), "nats_per_token": exact.mean().item(),
        "perplexity_bound": exact.mean().exp().item(),
        "scored_tokens_in_context": int(in_context.sum()),
        "perplexity_bound_in_context": exact[in_context].mean().exp().item(),
        "all_tokens": {
            "nats": total,
            "expected_nats": sum(grammar.entropy(distribution) for _, distribution, _ in pieces),
            "perplexity_bound": math.exp(total / len(steps))},
    }
    (TEXT / "entropy.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))

    def show(name, nats):
        overall, fair = nats.mean().exp(), nats[in_context].mean().exp()
        print(f"{name:12}  perplexity {overall:9.4f}   in context {fair:9.4f}", flush=True)

    show("bound", exact)
    for bits in (None, 8, 4, 3, 2):
        model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
        if bits is not None:
            for name, parameter in model.model.layers.named_parameters():
                if parameter.ndim == 2:
                    parameter.data = rounded_to_nearest(parameter.data, bits)
        show("float" if bits is None else f"RTN {bits} bits", surprises(model, tokens))


# --------------------------------------------------------------------------------------------------------------------
# Making everything
# --------------------------------------------------------------------------------------------------------------------


def save_weights(model, tokens):
    """Stores the weights as float16, and makes sure that this cost nothing."""
    trained = surprises(model, tokens).mean()
    model.half().save_pretrained(MODEL)
    (MODEL / "model.safetensors").chmod(0o644)
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    stored = surprises(reloaded, tokens).mean()
    print(f"perplexity as trained {trained.exp():.5f}, as stored in float16 {stored.exp():.5f}")
    assert abs(stored - trained) < 1e-3, "float16 lost something"


def make(steps, peak_muon, peak_adam):
    world = grammar.World()
    TEXT.mkdir(exist_ok=True)
    for name, seed, characters in (("calib.txt", CALIBRATION_SEED, CALIBRATION_CHARACTERS),
                                   ("heldout.txt", HELDOUT_SEED, HELDOUT_CHARACTERS)):
        (TEXT / name).write_text(grammar.text_of(world, seed, characters), encoding="utf-8")

    tokenizer = train_tokenizer(grammar.text_of(world, TOKENIZER_SEED, TOKENIZER_CHARACTERS))
    save_tokenizer(tokenizer)

    model = new_model()
    train(model, training_batches(world, tokenizer, steps), steps, peak_muon, peak_adam)
    save_weights(model, torch.tensor(tokenizer.encode((TEXT / "heldout.txt").read_text(encoding="utf-8")).ids))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("command", choices=["make", "measure"])
    arguments.add_argument("--steps", type=int, default=1800, help="training steps of 16 windows of 256 tokens")
    arguments.add_argument("--peak-muon", type=float, default=0.02)
    arguments.add_argument("--peak-adam", type=float, default=0.005)
    given = arguments.parse_args()
    torch.set_num_threads(2)
    if given.command == "make":
        make(given.steps, given.peak_muon, given.peak_adam)
    measure()


if __name__ == "__main__":
    main()
