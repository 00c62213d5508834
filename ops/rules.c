/* rules.c - what we know about the ops.  Tried in order, to a fixed point; see graph/rewrite.c. */
#include "ops/ops.h"

/* Attribute k of the matched node's op is v. */
static bool attr_is(const wf_tensor *t, const char *name, double v)
{
	return t->attr[wf_attr_index(t->op, name)] == v;
}

static bool by_one(const wf_tensor *t)
{
	return attr_is(t, "by", 1);
}

static bool no_cap(const wf_tensor *t)
{
	return attr_is(t, "cap", 0);
}

static bool same_dims_as_inner(const wf_tensor *t)
{
	const wf_tensor *inner = t->in[0]->in[0];

	if (t->ndim != inner->ndim)
		return false;
	for (int i = 0; i < t->ndim; i++)
		if (t->dim[i] != inner->dim[i])
			return false;
	return true;
}

static bool whole(const wf_tensor *t)
{
	return t->dim[0] == t->in[0]->dim[0];
}

static bool all_cols(const wf_tensor *t)
{
	return t->dim[t->ndim - 1] == t->in[0]->dim[t->in[0]->ndim - 1];
}

const struct wf_rule wf_rules[] = {
	{"(scale x)",             "x",                    by_one},
	{"(softcap x)",           "x",                    no_cap},
	{"(heads (merge x))",     "x",                    same_dims_as_inner},
	{"(merge (heads x))",     "x",                    same_dims_as_inner},
	{"(part x)",              "x",                    whole},
	{"(cols x)",              "x",                    all_cols},
	{"(relu (relu x))",       "(relu x)",             NULL},
	{NULL, NULL, NULL}
};
