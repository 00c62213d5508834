/* shard.c - tensors over ranks.  One rank holds everything: nothing to cut, no collective.
 *
 * needs: fold.  keeps: outputs. */
#include "graph/graph.h"

int shard_run(wf_plan *plan)
{
	plan_note(plan, (struct wf_note){.pass = "shard", .rule = "one rank", .kernel = -1});
	return 0;
}
