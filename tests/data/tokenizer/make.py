"""Makes the files of this folder: tiny tokenizers with the ids that their own libraries give, and texts cut
by the patterns that models' tokenizer.json or tiktoken files have.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python3 tests/data/tokenizer/make.py

The tests compare with what is committed; a new run is needed only to add cases.
"""
import io
import json
import os

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = ["The quick brown fox jumps over the lazy dog; the other dogs sleep. " * 8,
          "int main(void) {\n\treturn 0;\n}\n\n    indented four,   three spaces\n" * 6,
          "Grüße aus Köln, naïve café, Straße. Привет мир, как дела? 你好世界 안녕하세요 こんにちは " * 5,
          "don't we'll I'm they've 1234567 3.14 2024-01-02 http://example.org/a?b=c&d=e " * 6]
TEXTS = ["", " ", "  ", "a", "Hello world", " leading", "trailing ", "  two  spaces  ", "tabs\tand\nnew\r\nlines\n\n\n",
         "don't WE'LL They'Re I'M 'S", "1 12 123 1234 12345 3.14", "Grüße, Привет! 你好世界 안녕", "e\u0301 vs é, ﬁ ½ ²",
         "🦙 llama 😶‍🌫️ 👩‍👩‍👧", "(a[b]{c}) x+=1; // -> != ===", "\u00a0nbsp\u3000ideographic\u2028line", "the the the",
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", " " * 50 + "x", "\u2581marker\u2581", "ʼn ǅ ſs K",
         "fox<|im_start|>dog <tag>  the<|im_end|>", "<s>Hello</s> <s> x", "\u0000nul\u0001", "ไทย हिन्दी العربية", "a\u200bb\ufeffc"]


def write(name, data):
    mode = "wb" if isinstance(data, bytes) else "w"
    with open(os.path.join(HERE, name), mode) as f:
        f.write(data)


def compact(tok, name, **change):
    j = json.loads(tok.to_str())
    j["model"].update(change)
    text = json.dumps(j, separators=(",", ":"), ensure_ascii=False)
    write(name, text)
    return Tokenizer.from_str(text)


def lines(before, items, after):
    return before + "\n" + ",\n".join(json.dumps(i, separators=(",", ":")) for i in items) + "\n" + after + "\n"


def json_cases(tok, name):
    specials = [t["content"] for t in json.loads(tok.to_str())["added_tokens"] if t["special"]]
    for text in TEXTS:
        special = any(s in text for s in specials)
        yield {"file": name, "text": text, "special": special, "ids": tok.encode(text, add_special_tokens=False).ids}
    yield {"file": name, "text": "Hello", "special": True, "bos": True, "ids": tok.encode("Hello").ids}


def byte_level():
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                                   r"|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=480, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens=["<|endoftext|>"],
        show_progress=False))
    tok.add_special_tokens([AddedToken("<|im_start|>", normalized=False), AddedToken("<|im_end|>", normalized=False)])
    tok.add_tokens([AddedToken("<tag>", lstrip=True, normalized=False), AddedToken("fox", single_word=True, normalized=True)])
    return compact(tok, "byte_level.json")


def plain(name, normalizer, pre, decoder, **change):
    hexes = [f"<0x{i:02X}>" for i in range(256)]
    tok = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    tok.train_from_iterator([l for c in CORPUS for l in c.split("\n")], trainers.BpeTrainer(
        vocab_size=480, special_tokens=["<unk>", "<s>", "</s>"] + hexes, limit_alphabet=70, show_progress=False))
    tok.decoder = decoder
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    j = json.loads(tok.to_str())
    j["added_tokens"] = [t for t in j["added_tokens"] if not t["content"].startswith("<0x")]
    return compact(Tokenizer.from_str(json.dumps(j)), name, **change)


def falcon_like():
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.ByteLevel(add_prefix_space=False),
        pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=380, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens=["<|endoftext|>"],
        show_progress=False))
    return compact(tok, "falcon.json", merges=[" ".join(m) for m in json.loads(tok.to_str())["model"]["merges"]])


def unigram():
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "first", split=True)
    tok.decoder = decoders.Metaspace("\u2581", "first", split=True)
    tok.train_from_iterator(CORPUS, trainers.UnigramTrainer(vocab_size=260, special_tokens=["<unk>", "<s>", "</s>"],
                                                            unk_token="<unk>", show_progress=False))
    return compact(tok, "unigram.json")


def sentencepiece_model(name, **options):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([l.strip() for c in CORPUS for l in c.split("\n")]), model_writer=out, minloglevel=2,
        hard_vocab_limit=False, character_coverage=0.99, **options)
    write(name, out.getvalue())
    sp = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    for text in TEXTS + ["<sep>a <sep> b", "fox\u2581\u2581x", " <sep>"]:
        yield {"file": name, "text": text, "ids": sp.encode(text)}


def rules():
    path = os.path.join(HERE, "rules.tsv")
    with open(path, "w") as f:                 # full-width A and B, the ligature fi, tab to space
        f.write("FF21\t41\nFF22\t42\nFB01\t66 69\n9\t20\nE4\t61 65\n")
    return path


C = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
G = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
T = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LEAD = r"[^\r\n\p{L}\p{N}]?"
L3 = C + "|" + LEAD + r"\p{L}+|\p{N}{1,3}" + T
Q2 = C + "|" + LEAD + r"\p{L}+|\p{N}" + T
T2 = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DS = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
      r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
CJK2 = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
BLOOM = " ?[^(\\s|[.,!?…。，、।۔،])]+"


def cased(tail, number, without=""):
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}" + without + "]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}" + without + "]"
    return LEAD + upper + "*" + lower + "+" + tail + "|" + LEAD + upper + "+" + lower + "*" + tail + "|" + number


PATTERNS = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", G, r"\p{N}+", "[0-9][0-9][0-9]"], "gpt-2": [G], "llama-bpe": [L3], "dbrx": [L3],
    "glm4": [L3], "qwen2": [Q2], "grok-2": [Q2], "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", G, "[0-9][0-9][0-9]"],
    "qwen35": [C + "|" + LEAD + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "starcoder": [r"\p{N}", G], "smollm": [r"\p{N}", G], "bloom": [BLOOM], "viking": [BLOOM, r"\p{N}"],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK2, r"\p{N}"],
    "deepseek-v3": [r"\p{N}{1,3}", CJK, DS],
    "tekken": [cased("", r"\p{N}") + T2], "gpt-4o": [cased(C + "?", r"\p{N}{1,3}") + T2],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", cased(C + "?", r"\p{N}{1,3}") + T2],
    "kimi-k2": [r"[\p{Han}]+|" + cased(C + "?", r"\p{N}{1,3}", r"&&[^\p{Han}]") + T],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "bailingmoe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
                   r"|\s+(?!\S)|\s+"],
    "seed-coder": [C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "exaone-moe": [C + "|" + LEAD + r"(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
                   r"|\s+(?!\S)|\s+"],
    "minicpm5": [r"\p{N}{1,3}", C + "|" + LEAD + r"\p{L}+|\p{N}+" + T], "laguna": [r"[^\n]+|[\n]+", Q2],
    "jais-2": [L3.replace(r"\s+(?!\S)|\s+", "") + r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)"
               r"|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"],
    "gemma4": [r"[^\n]+|[\n]+"],
}
CUT = ("It's 'Re WE'LL don’t  x_y\n\n  \tz  1234567 89a ½²Ⅳ (a.b), 你好 3個 한국어 abcDEFghi ÀÉî e\u0301 हिन्दी!\r\n"
       "   end …。x 𝒳𐐀ǅʰ http://a/b\u00a0\u3000\u2028q `~$^|<=>+ 12a 123,456.78  \u2e80中A  ")


def cut(patterns):
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns])
    return [len(piece.encode()) for piece, _ in pre.pre_tokenize_str(CUT)]


def main():
    P = pre_tokenizers
    made = [(byte_level(), "byte_level.json"), (falcon_like(), "falcon.json"), (unigram(), "unigram.json")]
    spaces = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.append((plain("gemma.json", normalizers.Replace(" ", "\u2581"), P.Split(" ", "merged_with_previous"), spaces),
                 "gemma.json"))
    strip = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                               decoders.Strip(" ", 1, 0)])
    made.append((plain("llama.json", normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]),
                       None, strip), "llama.json"))
    all_cases = [c for tok, name in made for c in json_cases(tok, name)]
    plain_options = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "byte_fallback": True}
    all_cases += sentencepiece_model("bpe.model", vocab_size=450, model_type="bpe", user_defined_symbols=["<sep>", "\u2581\u2581"],
                                     control_symbols=["<ctl>"], **plain_options)
    all_cases += sentencepiece_model("unigram.model", vocab_size=250, model_type="unigram", user_defined_symbols=["<sep>"],
                                     normalization_rule_tsv=rules())
    os.remove(os.path.join(HERE, "rules.tsv"))
    write("cases.json", lines("[", all_cases, "]"))
    pieces = [f"{json.dumps(n)}:{json.dumps(cut(p), separators=(',', ':'))}" for n, p in PATTERNS.items()]
    write("pretok.json", '{"text":' + json.dumps(CUT) + ',"pieces":{\n' + ",\n".join(pieces) + "}}\n")


main()
