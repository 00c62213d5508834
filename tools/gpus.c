/* gpus.c - what a forecast needs to know of GPUs that are not here.
 *
 * Bandwidth, dense half-precision rate (32-bit accumulation) and memory are the makers' figures times
 * what the one GPU measured reached of its own: an H200 streams 4.54 of 4.8 TB/s and multiplies at 760
 * of 989 TFLOP/s, and a kernel in a chain costs it 0.56 us. */
#include "tools/weft.h"

#include <string.h>
#include <strings.h>

static const double STREAMS = 4.54 / 4.8, MULTIPLIES = 760. / 989, LAUNCH = 0.56e-6, GIB = 1024. * 1024 * 1024;

const struct gpu_row gpu_table[] = {
	/* name         TB/s    TFLOP/s  GiB */
	{"b200",        8.0,    2250,    179},
	{"h200",        4.8,    989,     140.4},
	{"h100",        3.35,   989,     79.6},
	{"h100-pcie",   2.0,    756,     79.6},
	{"a100",        2.039,  312,     80},
	{"a100-40gb",   1.555,  312,     40},
	{"v100",        0.9,    125,     32},
	{"l40s",        0.864,  362,     45},
	{"l4",          0.3,    121,     22.5},
	{"a10",         0.6,    125,     22.5},
	{"t4",          0.32,   65,      15},
	{"rtx5090",     1.792,  209.5,   31.8},
	{"rtx4090",     1.008,  165.2,   24},
	{"rtx4080",     0.7168, 97.5,    16},
	{"rtx3090",     0.936,  71,      24},
	{0}
};

/* "24GB", "80GiB", "24" : bytes; 0 when it is no size. */
static double memory_size(const char *text)
{
	static const struct { const char *unit; double bytes; } units[] = {
		{"", 1024. * 1024 * 1024}, {"g", 1024. * 1024 * 1024}, {"gb", 1e9}, {"gib", 1024. * 1024 * 1024},
		{"m", 1024. * 1024}, {"mb", 1e6}, {"mib", 1024. * 1024}
	};
	char *end;
	double v = strtod(text, &end);

	for (size_t i = 0; end > text && i < sizeof units / sizeof *units; i++)
		if (!strcasecmp(end, units[i].unit) && v > 0 && v < 1e6)
			return v * units[i].bytes;
	return 0;
}

int gpu_find(wf_error *err, const char *name, struct wf_device *out)
{
	double bytes = memory_size(name);

	for (const struct gpu_row *row = gpu_table; row->name; row++)
		if (!strcasecmp(row->name, name)) {
			*out = (struct wf_device){.name = row->name, .read_bytes_s = row->tbyte_s * 1e12 * STREAMS,
				.flops_s = row->tflop_s * 1e12 * MULTIPLIES, .launch_s = LAUNCH,
				.memory = (int64_t)(row->gib * GIB)};
			return 0;
		}
	if (!bytes)
		return wf_fail(err, "--gpu: '%s' is neither a GPU known here (weft devices lists them) nor a size like 24GB", name);
	*out = (struct wf_device){.name = "memory", .memory = (int64_t)bytes};
	return 0;
}

int session_device(struct session *s, struct wf_device *out)
{
	*out = (struct wf_device){0};
	if (s->o->gpu)
		return gpu_find(&s->err, s->o->gpu, out) ? -1 : 1;
	return s->backend && s->backend->device && !s->backend->device(s->backend, out);
}
