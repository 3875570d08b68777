/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * drm_gpuvm as the check drives it, for gpuvm.rs: a VA space with a few objects, requests, and the
 * operations that drm_gpuvm makes of them. Objects are named 1, 2, ...; 0 is none.
 */
#ifndef FENCEPOST_GPUVM_H
#define FENCEPOST_GPUVM_H

#include <linux/types.h>

struct fpg_map {
	u64 start, end, object, offset;
};

enum fpg_kind { FPG_MAP, FPG_REMAP, FPG_UNMAP, FPG_PREFETCH };

struct fpg_op {
	u32 kind;
	u32 keep;
	u32 has_prev;
	u32 has_next;
	struct fpg_map map;	/* the mapping that is made, taken out or prefetched */
	struct fpg_map prev;
	struct fpg_map next;
};

/* what is written goes to ops[len]; -ENOBUFS beyond cap */
struct fpg_list {
	struct fpg_op *ops;
	u64 cap;
	u64 len;
};

/* a request to map; to the benchmark one without object is to unmap */
struct fpg_request {
	u64 start, range, object, offset;
};

struct fpg;

struct fpg *fpg_create(u64 start, u64 range, u64 hole, u64 hole_range, u64 objects);
void fpg_destroy(struct fpg *vm);

/* `apply`: by callbacks that change the VA space; else as a list that is thrown away */
int fpg_map(struct fpg *vm, const struct fpg_request *req, bool apply, struct fpg_list *out);
int fpg_unmap(struct fpg *vm, u64 start, u64 range, bool apply, struct fpg_list *out);
/* the list form, then applied */
int fpg_unmap_object(struct fpg *vm, u64 object, struct fpg_list *out);
int fpg_madvise(struct fpg *vm, u64 start, u64 range, struct fpg_list *out);
int fpg_prefetch(struct fpg *vm, u64 start, u64 range, struct fpg_list *out);

/* what is mapped in a valid range, as FPG_MAP; the kernel's reserved node is left out */
int fpg_table(struct fpg *vm, u64 start, u64 end, struct fpg_list *out);
bool fpg_has_mappings(struct fpg *vm, u64 object);

int fpg_bench(struct fpg *vm, const struct fpg_request *requests, u64 count);
u64 fpg_now_ns(void);
void fpg_yield(void);

bool fp_fence_path_begin(void);
void fp_fence_path_end(bool cookie);

/* the module's file */
int fpg_start(void);
void fpg_stop(void);

/* implemented in Rust: runs a command; the answer is freed by fpg_rust_free */
int fpg_rust_command(const char *text, size_t len, void **answer, const char **bytes, size_t *size);
void fpg_rust_free(void *answer);
#endif
