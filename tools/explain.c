/* explain.c - the plan's own account of its fusions. */
#include "tools/weft.h"

static int write_account(struct session *s, FILE *f)
{
	struct wf_device device;
	int found = session_device(s, &device);

	return found < 0 ? -1 : wf_plan_explain(s->plan, found ? &device : NULL, f, s->o->json);
}

int explain_main(const struct options *o)
{
	struct session s;

	session_start(&s, o);
	if (session_model(&s, 0))
		return session_failed(&s);
	struct wf_sizes sizes = plan_sizes(&s);
	if (session_plan(&s, &sizes, NULL) || write_output(&s, write_account))
		return session_failed(&s);
	session_close(&s);
	return WEFT_OK;
}
