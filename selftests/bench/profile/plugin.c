// SPDX-License-Identifier: GPL-2.0
/* A plugin for QEMU's emulator: between marks that the guest sets (mark.py) it counts instructions by
 * where they are, and follows every load and store of the guest through two models of data caches. The
 * counts are appended to a file when a window ends; table.py makes functions of addresses.
 *
 * One virtual CPU. Caches are looked up by virtual address; only data is modelled, without prefetching.
 *
 * The interface of plugins is declared here as far as it is used: Debian does not ship the header
 * (include/qemu/qemu-plugin.h of QEMU 9.1 and later, version 3 of it).
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_RW = 3 };
typedef void (*simple_cb)(qemu_plugin_id_t id);
typedef void (*exec_cb)(unsigned int cpu, void *data);
typedef void (*mem_cb)(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data);
typedef void (*trans_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);

void qemu_plugin_reset(qemu_plugin_id_t id, simple_cb cb);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, trans_cb cb);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, exec_cb cb, enum qemu_plugin_cb_flags flags,
					  void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, exec_cb cb,
					    enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, mem_cb cb, enum qemu_plugin_cb_flags flags,
				      enum qemu_plugin_mem_rw rw, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t n);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *data, size_t len);
unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 3;

/* Levels of a cache, by line of 64 bytes, the least recently used one goes. */
struct level {
	unsigned int sets, ways;
	uint64_t *lines; /* of each set the latest first */
};

#define LEVELS 5
/* A server's 48 KiB, 1 MiB, 32 MiB; a router's 32 KiB, 512 KiB. */
static struct level levels[LEVELS] = {
	{ 64, 12 }, { 1024, 16 }, { 32768, 16 }, { 64, 8 }, { 512, 16 },
};
static const int next_level[LEVELS] = { 1, 2, -1, 4, -1 };

/* What happened in a piece of code, all of whose instructions are executed together. */
struct code {
	struct code *next;
	uint64_t pc, times, insns;
	uint64_t accesses, touched, misses[LEVELS];
	bool hook;
};

/* A line that was touched, in a hash table. */
struct line {
	uint64_t key; /* + 1; 0: none */
	uint32_t packet; /* in which the hook has touched it last */
	uint8_t by; /* BY_HOOK, BY_OTHERS */
};

enum { BY_HOOK = 1, BY_OTHERS = 2 };
enum mark { MARK_WARM = 1, MARK_BEGIN, MARK_END };
enum mode { OFF, WARM, ON };

static qemu_plugin_id_t self;
static char folder[4096];
static enum mode mode;
static bool full; /* everything is instrumented, not only marks */
static struct code *codes;
static struct line *lines;
static uint64_t n_lines, room;
static uint32_t packet;
static char label[64];
static struct { uint64_t from, to; } hooks[512];
static int n_hooks;
static uint64_t boundary;

static bool look_up(struct level *l, uint64_t line)
{
	uint64_t *set = l->lines + (size_t)(line % l->sets) * l->ways;
	unsigned int i;

	for (i = 0; i < l->ways - 1 && set[i] != line; i++)
		;
	bool hit = set[i] == line;

	memmove(set + 1, set, i * sizeof(*set));
	set[0] = line;
	return hit;
}

static struct line *slot(uint64_t key)
{
	uint64_t i = (key * UINT64_C(0x9e3779b97f4a7c15)) & (room - 1);

	while (lines[i].key && lines[i].key != key + 1)
		i = (i + 1) & (room - 1);
	return &lines[i];
}

static struct line *note(uint64_t key)
{
	if (n_lines * 2 >= room) {
		struct line *old = lines;
		uint64_t n = room;

		room = n ? n * 2 : 1 << 16;
		lines = calloc(room, sizeof(*lines));
		if (!lines)
			abort();
		for (uint64_t i = 0; i < n; i++) {
			if (old[i].key)
				*slot(old[i].key - 1) = old[i];
		}
		free(old);
	}
	struct line *l = slot(key);

	if (!l->key) {
		l->key = key + 1;
		l->packet = UINT32_MAX;
		n_lines++;
	}
	return l;
}

static void touch(struct code *code, uint64_t line)
{
	for (int first = 0; first < LEVELS; first += 3) {
		for (int l = first; l >= 0 && !look_up(&levels[l], line); l = next_level[l])
			code->misses[l] += mode == ON;
	}
	if (mode != ON)
		return;
	code->accesses++;

	struct line *l = note(line);

	l->by |= code->hook ? BY_HOOK : BY_OTHERS;
	if (code->hook && l->packet != packet) {
		l->packet = packet;
		code->touched++;
	}
}

static void on_access(unsigned int cpu, qemu_plugin_meminfo_t info, uint64_t vaddr, void *data)
{
	uint64_t end = vaddr + (UINT64_C(1) << qemu_plugin_mem_size_shift(info)) - 1;

	if (mode == OFF)
		return;
	touch(data, vaddr / 64);
	if (end / 64 != vaddr / 64)
		touch(data, end / 64);
}

static void on_code(unsigned int cpu, void *data)
{
	struct code *code = data;

	if (mode != ON)
		return;
	code->times++;
	if (code->pc == boundary)
		packet++;
}

static bool is_hook(uint64_t pc)
{
	int i;

	for (i = 0; i < n_hooks && (pc < hooks[i].from || pc >= hooks[i].to); i++)
		;
	return i < n_hooks;
}

/* What mark.py has written: "label NAME", "hook FROM TO" for each run of functions, "boundary ADDRESS" */
static void read_label(void)
{
	char path[4200], text[128];

	snprintf(path, sizeof(path), "%s/profile.label", folder);
	FILE *f = fopen(path, "r");

	if (!f)
		abort();
	n_hooks = 0;
	while (fgets(text, sizeof(text), f)) {
		uint64_t from, to;

		sscanf(text, "label %63s", label);
		if (sscanf(text, "hook %" SCNx64 " %" SCNx64, &from, &to) == 2) {
			if (n_hooks == sizeof(hooks) / sizeof(hooks[0]))
				abort();
			hooks[n_hooks].from = from;
			hooks[n_hooks++].to = to;
		}
		sscanf(text, "boundary %" SCNx64, &boundary);
	}
	fclose(f);
}

static void write_counts(void)
{
	uint64_t hook = 0, hook_alone = 0;
	char path[4200];

	snprintf(path, sizeof(path), "%s/profile", folder);
	FILE *f = fopen(path, "a");

	if (!f)
		abort();
	for (uint64_t i = 0; i < room; i++) {
		hook += lines[i].key && (lines[i].by & BY_HOOK);
		hook_alone += lines[i].key && lines[i].by == BY_HOOK;
	}
	fprintf(f, "window %s packets %" PRIu32 " lines %" PRIu64 " hook %" PRIu64 " alone %" PRIu64 "\n", label,
		packet, n_lines, hook, hook_alone);
	for (struct code *c = codes; c; c = c->next) {
		if (!c->times && !c->accesses)
			continue;
		fprintf(f, "%" PRIx64 " %" PRIu64 " %" PRIu64 " %" PRIu64, c->pc, c->times * c->insns, c->accesses,
			c->touched);
		for (int l = 0; l < LEVELS; l++)
			fprintf(f, " %" PRIu64, c->misses[l]);
		fputc('\n', f);
	}
	fclose(f);
}

static void clear(void)
{
	for (struct code *c = codes; c; c = c->next) {
		c->times = c->accesses = c->touched = 0;
		memset(c->misses, 0, sizeof(c->misses));
		c->hook = is_hook(c->pc);
	}
	if (lines)
		memset(lines, 0, room * sizeof(*lines));
	n_lines = packet = 0;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);

/* Everything is translated again. */
static void on_reset(qemu_plugin_id_t id)
{
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
}

static void on_mark(unsigned int cpu, void *data)
{
	switch ((enum mark)(uintptr_t)data) {
	case MARK_WARM:
		read_label();
		mode = WARM;
		if (!full) {
			full = true;
			qemu_plugin_reset(self, on_reset);
		}
		break;
	case MARK_BEGIN:
		read_label();
		clear();
		mode = ON;
		break;
	case MARK_END:
		if (mode == ON)
			write_counts();
		mode = OFF;
		full = false;
		qemu_plugin_reset(self, on_reset);
		break;
	}
}

/* nopl 0x4e46NN00(%rax,%rax,1), and no compiler makes one like it. */
static uintptr_t mark_in(struct qemu_plugin_insn *insn)
{
	static const uint8_t nop[] = { 0x0f, 0x1f, 0x84, 0x00, 0x00 };
	uint8_t data[8];

	if (qemu_plugin_insn_data(insn, data, sizeof(data)) != sizeof(data) || memcmp(data, nop, sizeof(nop)) ||
	    data[6] != 'F' || data[7] != 'N')
		return 0;
	return data[5];
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
	size_t n = qemu_plugin_tb_n_insns(tb);
	struct code *code = NULL;

	if (full) {
		code = calloc(1, sizeof(*code));
		if (!code)
			abort();
		code->pc = qemu_plugin_tb_vaddr(tb);
		code->insns = n;
		code->hook = is_hook(code->pc);
		code->next = codes;
		codes = code;
		qemu_plugin_register_vcpu_tb_exec_cb(tb, on_code, QEMU_PLUGIN_CB_NO_REGS, code);
	}
	for (size_t i = 0; i < n; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uintptr_t mark = mark_in(insn);

		if (mark)
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_mark, QEMU_PLUGIN_CB_NO_REGS, (void *)mark);
		if (code)
			qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW,
							 code);
	}
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
	if (argc != 1 || sscanf(argv[0], "out=%4095s", folder) != 1) {
		fprintf(stderr, "profile: wants out=FOLDER\n");
		return -1;
	}
	for (int l = 0; l < LEVELS; l++) {
		levels[l].lines = calloc((size_t)levels[l].sets * levels[l].ways, sizeof(uint64_t));
		if (!levels[l].lines)
			return -1;
	}
	self = id;
	on_reset(id);
	return 0;
}
