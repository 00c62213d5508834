/* devices.c - what this machine can run on, what is missing and what that costs. */
#include "tools/weft.h"
#include "backends/cpu/cpu.h"
#include "backends/cuda/cuda.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

static void cpu_name(char *out, size_t cap)
{
	char line[256];
	FILE *f = fopen("/proc/cpuinfo", "r");

	snprintf(out, cap, "processor");
	while (f && fgets(line, sizeof line, f)) {
		char *colon = strncmp(line, "model name", 10) ? NULL : strchr(line, ':');
		if (!colon)
			continue;
		colon[strcspn(colon, "\n")] = 0;
		snprintf(out, cap, "%s", colon + 2);
		break;
	}
	if (f)
		fclose(f);
}

static void kernel_sets(char *out, size_t cap)
{
	static const char *const names[] = {"avx512", "avx2", "plain"};
	size_t n = 0;

	out[0] = 0;
	for (int i = 0; i < 3 && n < cap; i++)
		if (cpu_kernels_pick(names[i]))
			n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? ", " : "", names[i]);
}

static double memory(void)
{
	return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
}

static json_t *json_libraries(const struct cuda_report *r)
{
	json_t *list = json_array();

	for (int i = 0; i < CUDA_NLIB; i++) {
		const struct cuda_library *l = &r->lib[i];
		json_array_append_new(list, json_pack("{s:s, s:b, s:s, s:s, s:s}", "name", l->name, "found", l->found,
			"path", l->found ? l->path : "", "version", l->found ? l->version : "", "problem", l->found ? "" : l->problem));
	}
	return list;
}

static json_t *json_gpus(const struct cuda_report *r)
{
	json_t *list = json_array();

	for (int i = 0; i < r->ngpu; i++) {
		const struct cuda_gpu *g = &r->gpu[i];
		json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:i, s:I, s:I}", "ordinal", g->ordinal, "name", g->name,
			"arch", g->arch, "sms", g->sms, "memory", (json_int_t)g->memory, "free", (json_int_t)g->free));
	}
	return list;
}

static void print_json(const char *name, const char *sets, const struct cuda_report *r)
{
	json_t *doc = json_pack("{s:{s:s, s:i, s:s, s:f}, s:{s:b, s:o, s:o}}",
		"cpu", "name", name, "cores", cpu_count(), "kernels", sets, "memory", memory(),
		"cuda", "toolkit", r->toolkit, "libraries", json_libraries(r), "gpus", json_gpus(r));

	json_dumpf(doc, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(doc);
}

static void print_gpus(const struct cuda_report *r)
{
	char total[32], free_[32];

	for (int i = 0; i < r->ngpu; i++) {
		const struct cuda_gpu *g = &r->gpu[i];
		printf("  GPU %d   %s, %s, %d SMs, %s (%s free)\n", g->ordinal, g->name, g->arch, g->sms,
			bytes_text((double)g->memory, total), bytes_text((double)g->free, free_));
	}
	if (!r->ngpu)
		printf("  no GPU  %s\n", r->problem);
}

static void print_libraries(const struct cuda_report *r)
{
	for (int i = 0; i < CUDA_NLIB; i++) {
		const struct cuda_library *l = &r->lib[i];
		if (l->found)
			printf("  %-9s %s  %s\n", l->name, l->version, l->path);
		else
			printf("  %-9s not found: %s\n            without it: %s\n", l->name, l->problem, l->without);
	}
}

static void print_known(void)
{
	fputs("\nGPUs that weft plan --gpu knows\n ", stdout);
	for (const struct gpu_row *row = gpu_table; row->name; row++)
		printf(" %s", row->name);
	putchar('\n');
}

int devices_main(const struct options *o)
{
	char name[128], sets[64], total[32];
	struct cuda_report report;

	if (o->narg)
		return misused(o, "unexpected argument '%s'", o->arg[0]);
	cuda_set_home(getenv("CUDA_HOME"));
	cuda_devices(&report);
	cpu_name(name, sizeof name);
	kernel_sets(sets, sizeof sets);
	if (o->json) {
		print_json(name, sets, &report);
		return close_stdout(o, WEFT_OK);
	}
	printf("%scpu%s\n  %s, %d cores, %s\n  kernels  %s\n\n%scuda%s%s\n", style(stdout, "1"), style(stdout, "0"), name,
		cpu_count(), bytes_text(memory(), total), sets, style(stdout, "1"), style(stdout, "0"),
		report.toolkit ? "" : "  (built without the toolkit's headers: this binary runs on the CPU alone)");
	print_gpus(&report);
	print_libraries(&report);
	print_known();
	return close_stdout(o, WEFT_OK);
}
