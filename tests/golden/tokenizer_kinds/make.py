"""Writes cases.json: small tokenizers of every kind, and what the `tokenizers` and `sentencepiece` libraries make of texts.

    python make.py [OUT]       needs: pip install tokenizers==0.23.3 sentencepiece==0.2.3

"tokenizers": whole files with, for each text, its ids and what they decode to (null where that is the text itself).
"steps": normalizers and pre-tokenizers, with the text that comes of each text, every word behind a ▁.
"patterns": regular expressions, with a text in which every match is replaced.
"sentencepiece": files of SentencePiece in Base64, with its ids and decoded texts.
"""
import base64
import io
import json
import pathlib
import sys
import tempfile

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tokenizers"))
from make import generated_text  # noqa: E402

TEXTS = ["", " ", "a", "  two  spaces ", "\t\nlines\r\n \n", "The miller didn't see 20 stones; see?", "Zoë café e\u0301 \ufb01\u0301 \uff76\uff9e",
         "日本の本 漢字。中文", "😀 👩\u200d👧 ☃\ufe0f☃", "a\0b\x01\x7f", "\ufeffb\u00a0n\u3000w\u2028l\u0085e", "▁marked ▁", "<s>in</s> <unk>☃ <0x41>[MASK]",
         "f(x) = x**2 $5+3", "İST ǅ ß ÀÇ", "नमस्ते ٣٤ Ⅷ²", " \u200ba \ufffd  b"]
FEW = [t for i, t in enumerate(TEXTS) if i in (3, 4, 5, 6, 9, 10, 13, 15)] + ["日本A e1 aab\u0301E"]
MARK = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}
RULES = "FB01\t66 69\nA0\t20\n3000\t20\n9\t20\nA\t20\n65\t45\n65 301\tE9\nFF76\t30AB\n200B\t\n"


def document(model, normalizer=None, pre_tokenizer=None, decoder=None, added=()):
    tokens = [{"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
              for i, c in added]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": decoder, "model": model}


def byte_model():
    return {"type": "BPE", "byte_fallback": True, "vocab": {f"<0x{b:02X}>": b for b in range(256)}, "merges": []}


def bytes_to_text():
    return {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}


def train_sentencepiece(**options):
    out = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write(RULES)
        rules.flush()
        if options.pop("rules", False):
            options["normalization_rule_tsv"] = rules.name
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(generated_text(400)), model_writer=out, minloglevel=2,
                                                 character_coverage=0.98, **options)
    return out.getvalue()


def fields(message):
    """The fields of a message of Protocol Buffers that are bytes, by number."""
    at, out = 0, {}

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        if key & 7 == 0:
            varint()
        elif key & 7 == 5:
            at += 4
        else:
            size = varint()
            out[key >> 3] = message[at:at + size]
            at += size
    return out


def character_map():
    return base64.b64encode(fields(fields(train_sentencepiece(model_type="char", vocab_size=40, rules=True))[3])[2]).decode()


def unigram_documents(table):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(generated_text(400), trainers.UnigramTrainer(
        vocab_size=110, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False))
    model = json.loads(tokenizer.to_str())["model"]
    model["vocab"] = [[piece, round(score, 3)] for piece, score in model["vocab"]]
    bytes_too = dict(model, byte_fallback=True, vocab=model["vocab"] + [[f"<0x{b:02X}>", -20.5] for b in range(256)])
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    specials = [(0, "<unk>"), (1, "<s>"), (2, "</s>")]
    t5 = {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": table}, {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]}
    llama = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                                              *bytes_to_text()["decoders"], {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return {"unigram": document(model, None, spaces, spaces, specials),
            "unigram with bytes": document(bytes_too, None, dict(MARK, prepend_scheme="first"), llama, specials[:2]),
            "t5": document(model, t5, {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, spaces]}, spaces, specials),
            "unigram of twins": document({"type": "Unigram", "unk_id": 0, "byte_fallback": False, "vocab": [
                ["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -2.5], ["a", -3.5], [" ", -1], ["e", -9.5], ["", 0.0]]})}


def word_documents():
    pieces = ["[UNK]", "[MASK]", *"aefilmst2日.?$'", *("##" + c for c in "aefilmnrst02"), "the", "##ill", "##er", "see", "stones", "did"]
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    wordpiece = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 6,
                 "vocab": {piece: i for i, piece in enumerate(pieces)}}
    words = {"type": "WordLevel", "unk_token": "?", "vocab": {"a": 0, "?": 1, "The": 2, "f": 3, "x": 4, "日本の本": 5}}
    return {"bert": document(wordpiece, bert, {"type": "BertPreTokenizer"}, {"type": "WordPiece", "prefix": "##", "cleanup": True},
                             [(0, "[UNK]"), (1, "[MASK]")]),
            "words": document(words, None, {"type": "Whitespace"}, {"type": "BPEDecoder", "suffix": "e"})}


def steps(table):
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    normalizers = [{"type": "StripAccents"}, {"type": "Nmt"}, {"type": "Precompiled", "precompiled_charsmap": table}, bert,
                   dict(bert, clean_text=False, lowercase=False), dict(bert, handle_chinese_chars=False, strip_accents=True, lowercase=False),
                   {"type": "Replace", "pattern": {"Regex": "[^a-z ]+"}, "content": "<>"}]
    pres = [{"type": "BertPreTokenizer"}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "CharDelimiterSplit", "delimiter": "e"},
            {"type": "FixedLength", "length": 3}, *({"type": "Digits", "individual_digits": d} for d in (True, False))]
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        pres.append({"type": "Punctuation", "behavior": behavior})
        pres += [{"type": "Split", "pattern": {"Regex": "[a-e ]"}, "behavior": behavior, "invert": i} for i in (True, False)]
    for scheme in ("first", "always", "never"):
        for split in (True, False):
            pres.append({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": False}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}]})
    return [[n, None] for n in normalizers] + [[None, {"type": "Sequence", "pretokenizers": [p, MARK]}] for p in pres]


PATTERNS = r"""a(?i)b|C	x(a(?i)b|C)z	a{2}?	a{1,2}?	a{2}+	x{2}{3}	[]a]+	[^]a]+	[[:alpha:]_]+	[[:^alpha:]]+	[^[:alpha:]]+	[a-z&&[^x]]+
[^a-z&&[^x]]+	[a-w&&[^c-g]z]+	[a[bc]d]+	[\W]+	[\Wb]+	[^\W]+	\bb	\B.	\bthe\b|\b.	[\b]	\p{Alnum}+	\p{^L}+	\P{^L}+	\p{Han}+
\p{Letter}+	\p{Uppercase_Letter}	\p{Punct}	[[:punct:]]	[:alpha:]+	[\w-]+	[^\S\n]+	[\S&&[^a]]+	[^\P{L}]+	(?#c[)a	(?i:[a-c&&[^b]])+
[\u0041-\u0045]+	(?:a|(?i)b)c	((?i)a)b	\h+	[\H]	[[^a-y]b]+	[[:upper:][:digit:]]+	[[:^upper:]&&[^0-9]]{2}+	[a&b]+	\O{2}	(a)\1	\G.	[a&&]"""
PATTERN_TEXT = "aB ab c C aC xaBz xCz aaaa a]a[b^\\-x x\x08\n\tab_1 é²b b² the otherthe &a&b 12-34--x xxxxxx 日本。の GHi:p.$"


def sentencepiece_files():
    options = {"unigram": (dict(model_type="unigram", vocab_size=100, rules=True), {}),
               "unigram with bytes": (dict(model_type="unigram", vocab_size=340, byte_fallback=True, normalization_rule_name="identity",
                                           user_defined_symbols=["<tool>"]), {"tokenizer_class": "T5Tokenizer"}),
               "bpe": (dict(model_type="bpe", vocab_size=400, byte_fallback=True, normalization_rule_name="identity",
                            remove_extra_whitespaces=False, pad_id=3), {"legacy": False, "tokenizer_class": "LlamaTokenizer"}),
               "characters": (dict(model_type="char", vocab_size=40, add_dummy_prefix=False, unk_id=2, bos_id=-1, eos_id=1, pad_id=0,
                                   rules=True), {})}
    out = {}
    for name, (settings, config) in options.items():
        data = train_sentencepiece(**settings)
        library = sentencepiece.SentencePieceProcessor(model_proto=data)
        cases = []
        for text in TEXTS:
            if "<" in text or (not config.get("legacy", True) and text.startswith((" ", "▁"))):
                continue  # control pieces are found in texts, and "legacy" has another prefix, as transformers wants it
            ids = library.encode(text)
            cases.append([text, " ".join(map(str, ids)), library.decode(ids).replace(" \u2047 ", "<unk>")])
        out[name] = {"file": base64.b64encode(data).decode(), "config": config, "bos": library.bos_id(), "eos": library.eos_id(),
                     "cases": cases}
    return out


def decoded(tokenizer, text):
    return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False)


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).parent
    table = character_map()
    whole = []
    for name, content in {**unigram_documents(table), **word_documents()}.items():
        library = Tokenizer.from_str(json.dumps(content))
        cases = []
        for text in TEXTS:
            ids = library.encode(text, add_special_tokens=False).ids
            back = library.decode(ids, skip_special_tokens=False)
            cases.append([" ".join(map(str, ids)), None if back == text else back])
        whole.append({"name": name, "document": content, "cases": cases})
    made = []
    for normalizer, pre_tokenizer in steps(table):
        content = document(byte_model(), normalizer, pre_tokenizer, bytes_to_text())
        library = Tokenizer.from_str(json.dumps(content))
        made.append({"normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "results": [decoded(library, text) for text in FEW]})
    patterns = []
    for expression in PATTERNS.replace("\n", "\t").split("\t"):
        normalizer = {"type": "Replace", "pattern": {"Regex": expression}, "content": "◆"}
        library = Tokenizer.from_str(json.dumps(document(byte_model(), normalizer, None, bytes_to_text())))
        patterns.append([expression, decoded(library, PATTERN_TEXT)])
    everything = {"texts": TEXTS, "few_texts": FEW, "pattern_text": PATTERN_TEXT, "tokenizers": whole, "steps": made,
                  "patterns": patterns, "sentencepiece": sentencepiece_files()}
    (out / "cases.json").write_text(json.dumps(everything, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
