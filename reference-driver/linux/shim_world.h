/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/* What the files of the C side share among themselves, see shim.h. */
#ifndef FENCEPOST_SHIM_WORLD_H
#define FENCEPOST_SHIM_WORLD_H
#include <linux/atomic.h>
#include <linux/iosys-map.h>
#include <linux/kref.h>
#include <linux/mm.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include "shim.h"

/*
 * System addresses: those of objects are given out from the first on; pages of mirrored address
 * spaces are at FP_MIRROR_DMA plus their physical address.
 */
#define FP_FIRST_DMA	(1ull << 32)
#define FP_MIRROR_DMA	(1ull << 50)
#define FP_LAST_DMA	(1ull << 52)	/* what a page-table entry holds */

struct fp_devmem;
struct fp_maps;

/* memory of a buffer object */
struct fp_bo {
	struct kref ref;
	struct rcu_work free;
	struct workqueue_struct *reclaim;
	u64 offset;
	u64 npages;
	/* of another driver: its mapping and what must be let go with it */
	struct iosys_map map;
	struct dma_buf_attachment *attach;
	struct sg_table *sgt;
	/* of our own, else none */
	u64 nown;
	struct page *pages[] __counted_by(nown);
};

struct fp_bo *fp_bo_alloc(struct fp_world *w, u64 npages, u64 nown);
int fp_bo_publish(struct fp_world *w, struct fp_bo *bo);
struct fp_bo *fp_bo_find(struct fp_world *w, u64 offset);
void fp_bo_release(struct kref *ref);

struct fp_world {
	wait_queue_head_t wq;
	struct xarray bos;	/* offset >> PAGE_SHIFT -> struct fp_bo */
	struct xarray dma;	/* DMA address >> PAGE_SHIFT -> kernel address of a page */
	struct xarray mms;	/* task number -> mm_struct, grabbed */
	atomic64_t next_offset;
	atomic64_t next_dma;
	u32 next_mm;
	u64 nframes;
	void **frames;		/* kernel address of the page in each frame of device memory */
	struct workqueue_struct *reclaim;	/* frees objects after a grace period */
	/* of mirrored address spaces */
	u8 number;		/* of the device */
	u64 owner;		/* of its memory; devices of one owner know each other's */
	void *driver;		/* whom fp_rust_invalidate() and fp_rust_cpu_fault() are told */
	atomic_t notifiers;
	struct xarray mirrored;	/* page frame number / FP_MAPS -> struct fp_maps */
	struct fp_maps *recent;	/* one of these */
	struct fp_devmem *devmem;	/* NULL without device memory */
};

#ifdef FENCEPOST_MIRROR
void fp_mirror_init(struct fp_world *w);
void fp_mirror_fini(struct fp_world *w);
void *fp_mirrored_page(struct fp_world *w, u64 addr);
int fp_devmem_create(struct fp_world *w);
void fp_devmem_destroy(struct fp_world *w);
void fp_devmem_idle(struct fp_world *w);
struct fp_world *fp_devmem_frame(struct page *page, u64 *frame);
#else
static inline void fp_mirror_init(struct fp_world *w) {}
static inline void fp_mirror_fini(struct fp_world *w) {}
static inline void *fp_mirrored_page(struct fp_world *w, u64 addr) { return NULL; }
static inline int fp_devmem_create(struct fp_world *w) { return 0; }
static inline void fp_devmem_destroy(struct fp_world *w) {}
#endif
#endif
