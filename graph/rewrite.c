/* rewrite.c - local algebra: a table of rules in the text form, tried to a fixed point.
 *
 * A pattern is an op over variables and patterns; a variable that stands twice must match the same
 * node.  Attributes are not written: a replacement's op takes the attributes of the matched node of
 * that name, a guard looks at the rest.  Nodes are immutable, so a rewrite rebuilds what uses it.
 *
 * needs: nothing.  keeps: outputs.  breaks: ids. */
#include "graph/graph.h"
#include <ctype.h>
#include <string.h>

enum { MAXVAR = 8, MAXROUNDS = 64 };

struct term { const wf_op *op; char var; int nin; struct term *in[WF_MAXIN]; };

struct match { wf_tensor *var[MAXVAR]; char name[MAXVAR]; int n; const wf_tensor *node[MAXVAR]; int nnode; };

static const char *skip(const char *s)
{
	while (*s == ' ')
		s++;
	return s;
}

/* One term; *s moves past it.  Rules are ours: a bad one is our bug. */
static struct term *read_term(wf_plan *plan, const char **s)
{
	struct term *term = wf_alloc(plan->arena, sizeof *term);
	char name[32];
	int n = 0;

	if (!term)
		return NULL;
	*s = skip(*s);
	bool call = **s == '(';
	if (call)
		*s = skip(*s + 1);
	for (; isalnum((unsigned char)**s) || **s == '_'; ++*s)
		if (n < 31)
			name[n++] = **s;
	name[n] = 0;
	if (!call) {
		if (n != 1)
			wf_die("rewrite: variable '%s', expected one letter", name);
		term->var = name[0];
		return term;
	}
	term->op = wf_op_find(plan->g->ops, name);
	if (!term->op)
		return term;      /* a vocabulary without that op: the rule never fires */
	for (*s = skip(*s); **s && **s != ')'; *s = skip(*s))
		if (!(term->in[term->nin++] = read_term(plan, s)))
			return NULL;
	if (**s != ')')
		wf_die("rewrite: unbalanced rule");
	++*s;
	return term;
}

static bool matches(const struct term *p, wf_tensor *t, struct match *m)
{
	if (p->var) {
		for (int i = 0; i < m->n; i++)
			if (m->name[i] == p->var)
				return m->var[i] == t;
		m->name[m->n] = p->var;
		m->var[m->n++] = t;
		return true;
	}
	if (!p->op || t->op != p->op || t->nin != p->nin)
		return false;
	m->node[m->nnode++] = t;
	for (int k = 0; k < p->nin; k++)
		if (!matches(p->in[k], t->in[k], m))
			return false;
	return true;
}

static wf_tensor *replace(wf_graph *g, const struct term *p, const struct match *m)
{
	wf_tensor *in[WF_MAXIN];
	const wf_tensor *like = NULL;

	for (int i = 0; p->var && i < m->n; i++)
		if (m->name[i] == p->var)
			return m->var[i];
	for (int k = 0; k < p->nin; k++)
		in[k] = replace(g, p->in[k], m);
	for (int i = 0; i < m->nnode && !like; i++)
		if (m->node[i]->op == p->op)
			like = m->node[i];
	if (!like)
		return wf_node(g, p->op, in, p->nin, NULL);
	return graph_copy(g, like, in);
}

struct rules { const struct wf_rule *rule; struct term **from, **to; int n; };

static int read_rules(wf_plan *plan, struct rules *r)
{
	r->rule = plan->rules;
	while (r->rule && r->rule[r->n].from)
		r->n++;
	r->from = wf_alloc_n(plan->arena, r->n + 1, sizeof *r->from);
	r->to = wf_alloc_n(plan->arena, r->n + 1, sizeof *r->to);
	if (!r->from || !r->to)
		return wf_fail(plan->err, "rewrite: out of memory");
	for (int i = 0; i < r->n; i++) {
		const char *from = r->rule[i].from, *to = r->rule[i].to;
		if (!(r->from[i] = read_term(plan, &from)) || !(r->to[i] = read_term(plan, &to)))
			return wf_fail(plan->err, "rewrite: out of memory");
	}
	return 0;
}

static wf_tensor *apply(wf_plan *plan, const struct rules *r, wf_tensor *t)
{
	for (int i = 0; i < r->n; i++) {
		struct match m = {0};
		if (!matches(r->from[i], t, &m) || (r->rule[i].guard && !r->rule[i].guard(t)))
			continue;
		wf_tensor *made = replace(plan->g, r->to[i], &m);
		plan_note(plan, (struct wf_note){.pass = "rewrite", .rule = plan_note_text(plan, "%s -> %s",
			r->rule[i].from, r->rule[i].to), .from = t, .to = made, .kernel = -1});
		return made;
	}
	return t;
}

/* One sweep over the nodes in order; true when something changed. */
static int round_once(wf_plan *plan, const struct rules *r, bool *changed)
{
	wf_graph *g = plan->g;
	int n = g->nnode;
	wf_tensor **now = wf_alloc_n(plan->arena, n + 1, sizeof *now);

	if (!now)
		return wf_fail(plan->err, "rewrite: out of memory");
	*changed = false;
	for (int i = 0; i < n; i++) {
		wf_tensor *t = g->node[i], *in[WF_MAXIN];
		bool same = true;
		for (int k = 0; k < t->nin; k++) {
			in[k] = now[t->in[k]->id];
			same &= in[k] == t->in[k];
		}
		now[i] = apply(plan, r, same ? t : graph_copy(g, t, in));
		*changed |= now[i] != t;
		if (wf_failed(g))
			return -1;
	}
	for (int i = 0; i < g->nout; i++)
		g->out[i].t = now[g->out[i].t->id];
	graph_sweep(g);
	return 0;
}

int rewrite_run(wf_plan *plan)
{
	struct rules r = {0};
	bool changed = true;

	if (read_rules(plan, &r))
		return -1;
	graph_sweep(plan->g);
	for (int i = 0; changed && i < MAXROUNDS; i++)
		if (round_once(plan, &r, &changed))
			return -1;
	return changed ? wf_fail(plan->err, "rewrite: rules still fire after %d rounds", MAXROUNDS) : 0;
}
