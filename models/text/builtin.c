/* builtin.c - chat formats for model files that bring no template of their own.
 *
 * Written from the format each family documents.  The text holds the start token where the family's
 * own template writes it, so it is tokenised with special tokens and without adding any. */
#include "models/model.h"

#include <string.h>

/* A newline behind a tag is the tag's; one before a tag is text. */

/* a system message joins the first user message */
#define SYSTEM_FIRST \
	"{% if messages and messages[0].role == 'system' %}" \
	"{% set system = messages[0].content %}{% set messages = messages[1:] %}" \
	"{% endif %}"

static const struct format { const char *name, *source; } formats[] = {
	{"llama2",
	SYSTEM_FIRST
	"{% for m in messages %}"
		"{% if m.role == 'user' %}"
			"{{ bos_token }}[INST] "
			"{% if loop.first and system is defined %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}"
			"{{ m.content | trim }} [/INST]"
		"{% elif m.role == 'assistant' %}"
			" {{ m.content | trim }} {{ eos_token }}"
		"{% else %}"
			"{{ raise_exception('llama2 knows a system message first, then user and assistant') }}"
		"{% endif %}"
	"{% endfor %}"},

	{"llama3",
	"{{ bos_token }}"
	"{% for m in messages %}"
		"<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"},

	{"chatml",
	"{% for m in messages %}"
		"<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"},

	{"smollm",
	"{% if not messages or messages[0].role != 'system' %}"
		"<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
	"{% endif %}"
	"{% for m in messages %}"
		"<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"},

	{"zephyr",
	"{% for m in messages %}"
		"<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|assistant|>\n{% endif %}"},

	{"mistral",
	SYSTEM_FIRST
	"{{ bos_token }}"
	"{% for m in messages %}"
		"{% if m.role == 'user' %}"
			"[INST] {% if loop.first and system is defined %}{{ system }}\n\n{% endif %}{{ m.content }} [/INST]"
		"{% elif m.role == 'assistant' %}"
			" {{ m.content }}{{ eos_token }}"
		"{% else %}"
			"{{ raise_exception('mistral knows a system message first, then user and assistant') }}"
		"{% endif %}"
	"{% endfor %}"},

	{"gemma",
	SYSTEM_FIRST
	"{{ bos_token }}"
	"{% for m in messages %}"
		"<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
		"{% if loop.first and system is defined %}{{ system }}\n\n{% endif %}"
		"{{ m.content | trim }}<end_of_turn>\n"
	"{% endfor %}"
	"{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"},

	{"phi3",
	"{% for m in messages %}"
		"<|{{ m.role }}|>\n{{ m.content }}<|end|>\n"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|assistant|>\n{% endif %}"},

	{"phi4",
	"{% for m in messages %}"
		"<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"},

	/* rounds are numbered; a system message stands before the first */
	{"chatglm2",
	"[gMASK]sop"
	"{% set ns = namespace(round=0) %}"
	"{% for m in messages %}"
		"{% if m.role == 'assistant' %}"
			"{{ m.content }}\n\n"
		"{% elif m.role == 'system' %}"
			"{{ m.content }}\n\n"
		"{% else %}"
			"{% set ns.round = ns.round + 1 %}"
			"[Round {{ ns.round }}]\n\n\xe9\x97\xae\xef\xbc\x9a{{ m.content }}\n\n\xe7\xad\x94\xef\xbc\x9a"
		"{% endif %}"
	"{% endfor %}"},

	{"chatglm3",
	"[gMASK]sop"
	"{% for m in messages %}<|{{ m.role }}|>\n {{ m.content }}{% endfor %}"
	"{% if add_generation_prompt %}<|assistant|>{% endif %}"},

	{"glm4",
	"[gMASK]<sop>"
	"{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
	"{% if add_generation_prompt %}<|assistant|>{% endif %}"},

	{"falcon",
	"{% for m in messages %}"
		"{{ '\\n' if not loop.first }}"
		"{{ {'system': 'System', 'user': 'User', 'assistant': 'Falcon'}.get(m.role, m.role) }}: {{ m.content }}"
	"{% endfor %}"
	"{{ '\\nFalcon:' if add_generation_prompt }}"},

	{"falcon3",
	"{% for m in messages %}"
		"<|{{ m.role }}|>\n{{ m.content }}{{ eos_token if m.role == 'assistant' }}\n"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|assistant|>\n{% endif %}"},

	{"olmo2",
	"{{ bos_token }}"
	"{% for m in messages %}"
		"<|{{ m.role }}|>\n{{ m.content }}{{ eos_token if m.role == 'assistant' }}"
		"{{ '\\n' if not loop.last or m.role != 'assistant' }}"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|assistant|>\n{% endif %}"},

	{"vicuna",
	"{{ bos_token }}"
	"{% if not messages or messages[0].role != 'system' %}"
		"A chat between a curious user and an artificial intelligence assistant. "
		"The assistant gives helpful, detailed, and polite answers to the user's questions. "
	"{% endif %}"
	"{% for m in messages %}"
		"{% if m.role == 'system' %}{{ m.content }} "
		"{% elif m.role == 'user' %}USER: {{ m.content }} "
		"{% else %}ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}"
	"{% endfor %}"
	"{% if add_generation_prompt %}ASSISTANT:{% endif %}"},

	{"alpaca",
	"{{ bos_token }}"
	"{% if not messages or messages[0].role != 'system' %}"
		"Below is an instruction that describes a task. "
		"Write a response that appropriately completes the request.\n\n"
	"{% endif %}"
	"{% for m in messages %}"
		"{% if m.role == 'system' %}{{ m.content }}\n\n"
		"{% elif m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n"
		"{% else %}### Response:\n{{ m.content }}{{ eos_token }}\n\n{% endif %}"
	"{% endfor %}"
	"{% if add_generation_prompt %}### Response:\n{% endif %}"},

	{"deepseek",
	"{{ bos_token }}"
	"{% for m in messages %}"
		"{% if m.role == 'user' %}<\xef\xbd\x9cUser\xef\xbd\x9c>{{ m.content }}"
		"{% elif m.role == 'assistant' %}<\xef\xbd\x9c""Assistant\xef\xbd\x9c>{{ m.content }}{{ eos_token }}"
		"{% else %}{{ m.content }}{% endif %}"
	"{% endfor %}"
	"{% if add_generation_prompt %}<\xef\xbd\x9c""Assistant\xef\xbd\x9c>{% endif %}"},

	/* gpt-oss: the final channel only, without tools */
	{"harmony",
	"{% for m in messages %}"
		"<|start|>{{ 'developer' if m.role == 'system' else m.role }}"
		"{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
		"<|message|>{% if m.role == 'system' %}# Instructions\n\n{% endif %}{{ m.content }}<|end|>"
	"{% endfor %}"
	"{% if add_generation_prompt %}<|start|>assistant{% endif %}"},
};

/* dashes aside */
static bool same_name(const char *a, const char *b)
{
	for (; *a && *b; a++, b++) {
		b += *b == '-';
		if (*a != *b)
			return false;
	}
	return *a == *b;
}

const char *wf_template_builtin(const char *name)
{
	if (!strcmp(name, "llama"))
		name = "llama2";              /* the first of them had no format of its own */
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
		if (same_name(formats[i].name, name))
			return formats[i].source;
	return NULL;
}

const char *wf_template_name(size_t i)
{
	return i < sizeof formats / sizeof *formats ? formats[i].name : NULL;
}

/* The first row whose tokens are all in the vocabulary; the more particular rows come first. */
const char *wf_template_guess(const wf_tokenizer *tok)
{
	static const struct { const char *format, *token[3]; } signs[] = {
		{"llama3", {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
		{"phi4", {"<|im_start|>", "<|im_sep|>", "<|im_end|>"}},
		{"chatml", {"<|im_start|>", "<|im_end|>"}},
		{"gemma", {"<start_of_turn>", "<end_of_turn>"}},
		{"harmony", {"<|start|>", "<|message|>", "<|channel|>"}},
		{"deepseek", {"<\xef\xbd\x9cUser\xef\xbd\x9c>", "<\xef\xbd\x9c""Assistant\xef\xbd\x9c>"}},
		{"glm4", {"[gMASK]", "<sop>", "<|user|>"}},
		{"chatglm3", {"[gMASK]", "sop", "<|user|>"}},
		{"chatglm2", {"[gMASK]", "sop"}},
		{"phi3", {"<|end|>", "<|user|>", "<|assistant|>"}},
		{"falcon3", {"<|user|>", "<|assistant|>", ">>ABSTRACT<<"}},
		{"mistral", {"[INST]", "[/INST]"}},
	};

	for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
		size_t n = 0;
		while (n < 3 && signs[i].token[n] && wf_token_find(tok, signs[i].token[n]) >= 0)
			n++;
		if (n == 3 || !signs[i].token[n])
			return signs[i].format;
	}
	return NULL;
}
