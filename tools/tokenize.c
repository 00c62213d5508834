/* tokenize.c - the ids of a text, on one line. */
#include "tools/weft.h"

int tokenize_main(const struct options *o)
{
	struct session s;
	size_t len, n;
	int32_t *id;

	session_start(&s, o);
	if (session_model(&s, WF_OPEN_VOCAB_ONLY))
		return session_failed(&s);
	if (!s.model->tokenizer)
		wf_fail(&s.err, "%s has no tokenizer", s.model->path);
	char *text = s.err.set ? NULL : prompt_read(&s, &len);
	int result = text ? wf_tokenize(s.model->tokenizer, &s.err, text, len, o->special ? WF_TOK_BOS | WF_TOK_SPECIAL : 0,
		&id, &n) : -1;
	free(text);
	if (result)
		return session_failed(&s);
	for (size_t i = 0; i < n; i++)
		printf(i ? " %d" : "%d", id[i]);
	putchar('\n');
	free(id);
	session_close(&s);
	return close_stdout(o, WEFT_OK);
}
