/* pretok_names.c - the pre-tokenizers that GGUF files name in tokenizer.ggml.pre.
 *
 * One row per family: its names and its patterns, as the models' own tokenizer.json or tiktoken file has
 * them.  A name that is not here is an error: another cut gives other ids, and a model fed those still
 * answers, only worse. */
#include "models/text/text.h"

#include <string.h>

#define SHORT   "(?i:'s|'t|'re|'ve|'m|'ll|'d)"           /* 's, 't, ... of contractions */
#define LEAD    "[^\\r\\n\\p{L}\\p{N}]?"                 /* one character that may go before a word */
#define SPACES  "|\\s+(?!\\S)|\\s+"                      /* all but the last; it goes with what follows */
#define OTHER   "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+" SPACES
#define UPPER   "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER   "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

#define GPT2    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+" SPACES
#define LLAMA3  SHORT "|" LEAD "\\p{L}+|\\p{N}{1,3}" OTHER
#define QWEN2   SHORT "|" LEAD "\\p{L}+|\\p{N}" OTHER
/* words of one case, AbcDef in two */
#define CASED(tail) LEAD UPPER "*" LOWER "+" tail "|" LEAD UPPER "+" LOWER "*" tail
#define CASED_OTHER "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+" SPACES
/* UPPER and LOWER without the script Han, which PCRE2 cannot subtract: what a class is not */
#define UPPER_NOT_HAN "[^\\p{Ll}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{Han}]"
#define LOWER_NOT_HAN "[^\\p{Lu}\\p{Lt}\\p{N}\\p{P}\\p{S}\\p{Z}\\p{C}\\p{Han}]"

#define ASCII_PUNCT "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define CJK     "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"
#define DEEPSEEK3 ASCII_PUNCT "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
#define DEEPSEEK_CJK "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

/* The cased letters that deepseek-llm lists; no category has just these. */
#define DEEPSEEK_LETTERS "[A-Za-z\\xB5\\xC0-\\xD6\\xD8-\\xF6\\xF8-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}" \
	"\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}" \
	"\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}" \
	"\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}" \
	"\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}" \
	"\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}" \
	"\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}" \
	"\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}" \
	"\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}" \
	"\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}" \
	"\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}" \
	"\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}" \
	"\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}" \
	"\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}" \
	"\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+"

/* anything but spaces, brackets, bars and the sentence marks of Latin, Chinese, Hindi and Arabic */
#define BLOOM   " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"
#define AFMOE_SCRIPTS "[\\x{4E00}-\\x{9FFF}\\x{3400}-\\x{4DBF}\\x{F900}-\\x{FAFF}\\x{3040}-\\x{309F}" \
	"\\x{30A0}-\\x{30FF}\\x{FF65}-\\x{FF9F}\\x{2F00}-\\x{2FDF}\\x{E40}-\\x{E7F}\\x{E80}-\\x{EFF}" \
	"\\x{1780}-\\x{17FF}\\x{1000}-\\x{109F}\\x{AA60}-\\x{AA7F}\\x{A9E0}-\\x{A9FF}\\x{AC00}-\\x{D7AF}" \
	"\\x{1100}-\\x{11FF}]+"
#define YOUTU_SCRIPTS "[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}" \
	"\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+" \
	"|[\\x{3105}-\\x{312F}]+|" CJK
#define LINES   "[^\\n]+|[\\n]+"

const char pretok_gpt2[] = GPT2;

static const struct pretok table[] = {
	{"default", 0, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
	{"gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de jina-v1-en jina-v2-code roberta-bpe gigachat a.x-4.0 "
	 "mellum modern-bert exaone4 mpt olmo jais trillion granite-docling", 0, {GPT2}},
	{"llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", PRE_WHOLE | PRE_BOS, {LLAMA3}},
	{"dbrx smaug-bpe glm4 chatglm-bpe", 0, {LLAMA3}},
	{"qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", 0, {QWEN2}},
	{"qwen35", 0, {SHORT "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+" SPACES}},
	{"falcon", 0, {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
	{"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", 0, {"\\p{N}", GPT2}},
	{"bloom poro-chat gpt3-finnish", 0, {BLOOM}},
	{"viking", 0, {BLOOM, "\\p{N}"}},
	{"deepseek-llm", 0, {"[\\r\\n]", "\\s?" DEEPSEEK_LETTERS,
	 "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+", "\\s+$",
	 DEEPSEEK_CJK, "\\p{N}+"}},
	{"deepseek-coder", 0, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"}},
	{"deepseek-v3 hunyuan-dense joyai-llm hy_v4", 0, {"\\p{N}{1,3}", CJK,
	 DEEPSEEK3 "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+" SPACES}},
	{"spark2_5", 0, {"\\p{N}{1,3}", CJK, DEEPSEEK3 "| ?[\\p{P}\\p{S}]+|[\\r\\n]" SPACES, "\\p{N}"}},
	{"tekken", PRE_WHOLE | PRE_BOS, {CASED("") "|\\p{N}" CASED_OTHER}},
	{"gpt-4o llama4 kanana2 talkie minimax-m2", 0, {CASED(SHORT "?") "|\\p{N}{1,3}" CASED_OTHER}},
	{"granite-embed-multi-97m", PRE_WHOLE, {CASED(SHORT "?") "|\\p{N}{1,3}" CASED_OTHER}},
	{"tiny_aya cohere2moe", 0, {"\\d{1,3}(?=(?:\\d{3})*\\b)", CASED(SHORT "?") "|\\p{N}{1,3}" CASED_OTHER}},
	{"youtu", PRE_WHOLE, {YOUTU_SCRIPTS, CASED(SHORT "?") "|\\p{N}" CASED_OTHER}},
	{"kimi-k2", 0, {"\\p{Han}+|" LEAD UPPER_NOT_HAN "*" LOWER_NOT_HAN "+" SHORT "?|" LEAD UPPER_NOT_HAN "+"
	 LOWER_NOT_HAN "*" SHORT "?|\\p{N}{1,3}" OTHER}},
	{"superbpe", 0, {"\\p{N}+", "(?=(\\d{3})+(?!\\d))"}},
	{"bailingmoe bailingmoe2 llada-moe", 0, {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}"
	 "| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]" SPACES}},
	{"seed-coder", 0, {SHORT "|" LEAD "\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+" SPACES}},
	{"ufakzeka", 0, {LEAD "\\p{L}+|\\p{N}" OTHER}},
	{"afmoe", 0, {"\\p{N}{1,3}(?=(?:\\p{N}{3})*(?!\\p{N}))", AFMOE_SCRIPTS,
	 DEEPSEEK3 "| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+" SPACES}},
	{"laguna", 0, {LINES, QWEN2}},
	/* possessive: nothing follows that could want a letter back, and a match may be very long */
	{"exaone-moe", 0, {SHORT "|" LEAD "(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|\\p{N}"
	 "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]" SPACES}},
	{"minicpm5", PRE_WHOLE, {"\\p{N}{1,3}", SHORT "|" LEAD "\\p{L}+|\\p{N}+" OTHER}},
	/* after a blank no line end can follow: the alternatives for blanks come only when there is none */
	{"jais-2", 0, {SHORT "|" LEAD "\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|(?<![^\\S\\r\\n])\\s*[\\r\\n]+"
	 "|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)"
	 "|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s"}},
	{"chameleon", PRE_BOS, {"<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\\t\\n]|    |  )", "\\p{N}",
	 "[\\p{P}!-/:-@\\[-`{-~]", GPT2}},
	{"gemma4 granite-embed-multi-311m", PRE_BOS | PRE_PLAIN | PRE_LINES, {LINES}},
	{"sarvam-moe", PRE_PLAIN, {LINES}},
};

static bool has_name(const char *names, struct gguf_str name)
{
	for (const char *at = names; *at; at += strspn(at, " ")) {
		size_t n = strcspn(at, " ");
		if (n == name.len && memcmp(at, name.s, n) == 0)
			return true;
		at += n;
	}
	return false;
}

const struct pretok *pretok_named(wf_error *err, struct gguf_str name)
{
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (has_name(table[i].names, name))
			return &table[i];
	wf_fail(err, "tokenizer.ggml.pre: unknown pre-tokenizer \"%.*s\"", (int)(name.len < 100 ? name.len : 100), name.s);
	return NULL;
}

int pretok_steps(wf_error *err, struct steps *steps, const struct pretok *row)
{
	for (int i = 0; row->pattern[i]; i++)
		if (pretok_pattern(err, steps, row->pattern[i], strlen(row->pattern[i]), SPLIT_ISOLATED, false) < 0)
			return -1;
	return 0;
}

/* Files older than tokenizer.ggml.pre: the architectures that only ever had one pre-tokenizer. */
const char *pretok_of_arch(struct gguf_str arch)
{
	static const char *const only[][2] = {
		{"falcon", "falcon"}, {"gpt2 gptneox gptj phi2", "gpt-2"}, {"mpt", "mpt"}, {"bloom", "bloom"},
		{"starcoder starcoder2", "starcoder"}, {"refact", "refact"}, {"codeshell", "codeshell"},
		{"qwen qwen2 qwen2moe", "qwen2"}, {"command-r", "command-r"}, {"olmo", "olmo"}, {"dbrx", "dbrx"},
	};

	for (size_t i = 0; i < sizeof only / sizeof *only; i++)
		if (has_name(only[i][0], arch))
			return only[i][1];
	return NULL;
}
