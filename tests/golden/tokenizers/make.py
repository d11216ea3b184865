"""Writes the tokenizers of this folder and, in cases.json, what the `tokenizers` library makes of some strings.

    python make.py [OUT] [TRAINING TEXT ...]       needs: pip install tokenizers==0.23.3
    python make.py --hash MODEL TEXT               count and FNV-1a hash of the ids of a file, for test_tokenizer.cpp

Each folder imitates one family of models: its normalizer, pre-tokenizer, model options, decoder and kinds of added tokens, with
a vocabulary of a few hundred tokens trained on text that is generated here (or on the files that are given). cases.json:
for each text its ids, and what they decode to with special tokens kept, null where that is the text itself.
"""
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
BYTES = [f"<0x{b:02X}>" for b in range(256)]


def generated_text(lines=3000, seed=1):
    """English-like sentences with numbers, punctuation and a few characters beyond ASCII."""
    pick = random.Random(seed).choice
    people = ["the miller", "a heron", "our neighbour", "Zoë", "the old clock", "she", "they", "nobody's cat", "Jürgen"]
    verbs = ["carried", "found", "didn't see", "was painting", "counted", "we'll mend", "has lost", "they've heard"]
    things = ["three lanterns", "12 apples", "the river", "a café", "2048 stones", "an answer", "naïve songs", "日本の本",
              "the wooden bridge", "some bread", "a letter from Gdańsk"]
    ends = [".", "!", "?", "...", ", and then rested.", "; nothing else.", " (so they say)."]

    def sentence():
        return f"{pick(people)} {pick(verbs)} {pick(things)} {pick(['near', 'under', 'before'])} {pick(things)}{pick(ends)}"

    return [" ".join(sentence() for _ in range(1 + i % 3)) for i in range(lines)]


def train(text, size, pre_tokenizer, model_options=None, specials=(), alphabet=(), **trainer_options):
    """A tokenizer with this vocabulary, of which the caller sets the rest."""
    tokenizer = Tokenizer(models.BPE(**(model_options or {})))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(specials), initial_alphabet=list(alphabet), show_progress=False,
        **trainer_options))
    return tokenizer


def bos_template(bos, bos_id):
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, bos_id)])


def gpt2(text, size):
    t = train(text, size, pre_tokenizers.ByteLevel(add_prefix_space=False), specials=["<|endoftext|>"],
              alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.decoder = decoders.ByteLevel()
    return t, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}


def llama3(text, size):
    t = train(text, size, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
              {"ignore_merges": True}, alphabet=pre_tokenizers.ByteLevel.alphabet())
    # A whole word that no merges lead to: ignore_merges makes it a token all the same.
    document = json.loads(t.to_str())
    document["model"]["vocab"]["Ġzebra"] = t.get_vocab_size()
    t = Tokenizer.from_str(json.dumps(document))
    t.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    bos = t.token_to_id("<|begin_of_text|>")
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), bos_template("<|begin_of_text|>", bos)])
    t.decoder = decoders.ByteLevel()
    return t, {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}


def qwen2(text, size):
    t = train(text, size, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2), "isolated"),
                                                   pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
              alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.normalizer = normalizers.NFC()
    t.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    t.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.decoder = decoders.ByteLevel()
    return t, {"add_bos_token": False, "bos_token": None, "eos_token": {"content": "<|im_end|>"}}


def sentencepiece(text, size, specials):
    return train(text, size, pre_tokenizers.Metaspace(), {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"},
                 specials=specials, max_token_length=16, limit_alphabet=60)


def llama2(text, size):
    t = sentencepiece(text, size, ["<unk>", "<s>", "</s>"] + BYTES)
    document = json.loads(t.to_str())
    document["added_tokens"] = document["added_tokens"][:3]
    t = Tokenizer.from_str(json.dumps(document))
    t.pre_tokenizer = None
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.post_processor = bos_template("<s>", 1)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    document = json.loads(t.to_str())
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]  # as older files have them
    return document, {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "bos_token": "<s>", "eos_token": "</s>"}


def mistral(text, size):
    t = sentencepiece(text, size, ["<unk>", "<s>", "</s>", "[INST]"] + BYTES)
    document = json.loads(t.to_str())
    document["added_tokens"] = document["added_tokens"][:4]
    t = Tokenizer.from_str(json.dumps(document))
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    t.post_processor = bos_template("<s>", 1)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    return t, {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False, "bos_token": "<s>", "eos_token": "</s>"}


def gemma(text, size):
    t = sentencepiece(text, size, ["<pad>", "<eos>", "<bos>", "<unk>"] + BYTES)
    document = json.loads(t.to_str())
    document["added_tokens"] = document["added_tokens"][:4]
    t = Tokenizer.from_str(json.dumps(document))
    t.normalizer = normalizers.Replace(" ", "▁")
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.add_tokens([AddedToken(s, normalized=False) for s in ("<unused0>", "\n", "\n\n", "▁▁", "▁▁▁", "<b>")])
    t.post_processor = bos_template("<bos>", 2)
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return t, {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>"}


def odd(text, size):
    """What the families above leave out, all at once."""
    pre = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.Split("e", "merged_with_next"), pre_tokenizers.Split(Regex(r"[\h_]{2,3}+|\w(?=x)"), "removed", invert=False),
        pre_tokenizers.Metaspace(prepend_scheme="always")])
    t = train([line.lower() for line in text], size, pre, {"unk_token": "[UNK]", "fuse_unk": False, "end_of_word_suffix": "</w>",
              "continuing_subword_prefix": "##"}, specials=["[UNK]"], limit_alphabet=24, end_of_word_suffix="</w>",
              continuing_subword_prefix="##")
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip(),
                                         normalizers.Replace(Regex("(?m)<.*?>"), " # ")])
    t.add_tokens([AddedToken("Word", single_word=True), AddedToken("[L]", lstrip=True, normalized=False),
                  AddedToken("[R]", rstrip=True, normalized=False), AddedToken("[LR]", lstrip=True, rstrip=True, normalized=False),
                  AddedToken("[L][R]", normalized=False)])
    t.decoder = decoders.Metaspace()
    return t, {}


FAMILIES = {f.__name__: f for f in (gpt2, llama3, qwen2, llama2, mistral, gemma, odd)}
SIZES = {"gpt2": 310, "llama3": 330, "qwen2": 320, "llama2": 400, "mistral": 360, "gemma": 370, "odd": 260}

STRINGS = [
    "", " ", "a", " a", "a ", "  two  spaces   three ", "\t\ttabs\n\n\nlines\r\nCRLF \r\n \n", "x" * 40, " " * 33 + "end",
    "The miller didn't see 2048 stones; THEY'LL mend 12345678 apples!", "'s'S'\u017f don't DON'T I\u2019m",
    "Zoë café Gdańsk naïve", "e\u0301 a\u030a\u0323 \u1e9b\u0323 \ufb01 \u212b \uac00 \u1100\u1161\u11a8", "日本の本 漢字かな交じり文。",
    "😀 👩\u200d👩\u200d👧 🇬🇧 ☃\ufe0f", "नमस्ते ٣٤٥ Ⅷ ½ ²", "a\0b\0", "\ufeffbom\u00a0nbsp\u3000wide\u2028ls\u180emvs\u0085nel",
    "▁already▁marked ▁", "<s>in</s> <s> x<unk>", "<|endoftext|>a<|im_start|> b <|im_end|><|end", "<bos><b>x</b>\n\n\n<unused0> <0x41>",
    "[INST] zebra zebra[INST]", "<tool_call>\n{\"a\": 1}</tool_call> <|begin_of_text|><|eot_id|>",
    "Word word words Word. sWord a [L] b [R]  c [LR] d[L][R]e [L] [R] [R]", "f(x) = x**2; // e.g. __init__ == 0xFACE", "<a\nb> &&~^`|",
    "İSTANBUL ǅ ß ΑΣ", "\U0010ffff\ue000\ud7ff\u0378 tail",
]
INVALID = [b"\xff", b"ok \xc3\x28 \xe2\x82", b"\xed\xa0\x80\xf0\x9f\x98", b"\xc0\xaf\xf4\x90\x80\x80\xf8\x88\x80\x80\x80 end"]


def print_hash(folder, text):
    """The ids as little-endian 32-bit numbers, hashed."""
    tokenizer = Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    ids = tokenizer.encode(pathlib.Path(text).read_bytes().decode("utf-8"), add_special_tokens=False).ids
    value = 0xCBF29CE484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    print(folder, len(ids), hex(value))


def main():
    if sys.argv[1:2] == ["--hash"]:
        return print_hash(*sys.argv[2:])
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    files = sys.argv[2:]
    text = [line for f in files for line in open(f, encoding="utf-8")] if files else generated_text()
    texts = [s.encode() for s in STRINGS] + INVALID
    expected = {}
    for name, make in FAMILIES.items():
        tokenizer, config = make(text, 8000 if files else SIZES[name])
        document = tokenizer if isinstance(tokenizer, dict) else json.loads(tokenizer.to_str())
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        library = Tokenizer.from_file(str(folder / "tokenizer.json"))
        cases = []
        for t in texts:
            ids = library.encode(t.decode("utf-8", errors="replace"), add_special_tokens=False).ids
            decoded = library.decode(ids, skip_special_tokens=False).encode()
            cases.append([" ".join(map(str, ids)), None if decoded == t else decoded.decode()])
        expected[name] = cases
    (out / "cases.json").write_text(json.dumps({"texts_in_hex": [t.hex() for t in texts], "expected": expected}, ensure_ascii=False,
                                               separators=(",", ":")), encoding="utf-8")


if __name__ == "__main__":
    main()
