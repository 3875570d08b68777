/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The C side of the kernel host: what has no Rust abstraction in Linux 7.2. Rust calls the fp_*
 * functions and is called back through the fp_rust_* ones. Return values are 0 or -errno.
 */
#ifndef FENCEPOST_SHIM_H
#define FENCEPOST_SHIM_H
#include <linux/types.h>

struct dma_fence;
struct dma_fence_chain;
struct drm_device;
struct drm_file;
struct drm_gem_object;
struct drm_syncobj;
struct seq_file;
struct fp_thread;
struct fp_watch;
struct fp_world;

/* where plant.c has its bugs, in a module that is built with them */
enum fp_place { FP_IN_CALL, FP_IN_FENCE_PATH };
#ifdef FENCEPOST_PLANT
void fp_planted(enum fp_place place);
#else
static inline void fp_planted(enum fp_place place) {}
#endif

/* a device's world: memory, frames, DMA addresses, waiters */
struct fp_world *fp_world_create(u64 vram_frames, u32 number, u64 owner);
void fp_world_destroy(struct fp_world *w);

/* time, user memory; a task is named by the number of its address space */
u64 fp_now_ns(void);
int fp_task_current(struct fp_world *w, u64 *task);
int fp_copy_from_user(struct fp_world *w, u64 task, void *to, u64 addr, size_t len);
int fp_copy_to_user(struct fp_world *w, u64 task, u64 addr, const void *from, size_t len);

/* memory of buffer objects */
int fp_bo_create(struct fp_world *w, u64 size, u64 *offset);
void fp_bo_destroy(struct fp_world *w, u64 offset);
int fp_vram_bind(struct fp_world *w, u64 frame, u64 offset, u64 page, u64 count);
void fp_vram_unbind(struct fp_world *w, u64 frame, u64 count);
int fp_dma_map(struct fp_world *w, u64 offset, u64 page, u64 count, u64 *addr);
void fp_dma_unmap(struct fp_world *w, u64 addr, u64 count);

/*
 * Mirrored address spaces; only with CONFIG_HMM_MIRROR and CONFIG_DEVICE_PRIVATE. Spans are of whole
 * pages; owners are numbers of the driver's, 0: nobody in particular.
 */
struct fp_migration;
struct fp_notifier;
struct folio;
struct mm_struct;
struct mmu_interval_notifier;
struct vm_fault;

/* flags of struct fp_vma */
#define FP_VMA_READ		1
#define FP_VMA_WRITE		2
#define FP_VMA_ANONYMOUS	4
#define FP_VMA_HUGETLB		8
#define FP_VMA_DEVICE		16

struct fp_vma {
	u64 start;
	u64 end;
	u32 flags;
};

struct fp_want {
	u64 flags;
	u64 mask;
	u64 owner;
	bool trusting;	/* takes the numbers of pages as hmm_range_fault() gives them */
};

/* pages in the words of the host trait, beside HMM_PFN_VALID, _WRITE and _ERROR */
#define FP_PFN_DEVICE		(1ull << 60)
#define FP_PFN_ZERO		(1ull << 59)
#define FP_PFN_ORDER_SHIFT	48
#define FP_PFN_DEVICE_SHIFT	40

struct fp_invalidation {
	u64 start;
	u64 end;
	u64 owner;
	u32 event;	/* enum mmu_notifier_event */
	bool blockable;
	struct mmu_interval_notifier *mni;
	unsigned long seq;
};

/* what a migration takes */
#define FP_SELECT_SYSTEM	1
#define FP_SELECT_DEVICE	2

enum fp_source_kind { FP_SOURCE_STAYS, FP_SOURCE_EMPTY, FP_SOURCE_SYSTEM, FP_SOURCE_DEVICE };

struct fp_source {
	u32 kind;
	u32 order;
	u64 frame;
	u32 device;
};

void fp_world_attach(struct fp_world *w, void *driver);
void fp_world_detach(struct fp_world *w);
struct mm_struct *fp_mm_of_task(struct fp_world *w, u64 task);
void fp_mm_grab(struct mm_struct *mm);
void fp_mm_drop(struct mm_struct *mm);
int fp_vma(struct mm_struct *mm, u64 addr, bool next, struct fp_vma *out);
int fp_notifier_insert(struct fp_world *w, struct mm_struct *mm, u64 start, u64 end, u64 cookie,
		       struct fp_notifier **out);
void fp_notifier_remove(struct fp_notifier *n);
void fp_invalidation_set_seq(const struct fp_invalidation *inv);
u64 fp_read_begin(struct fp_notifier *n);
bool fp_read_retry(struct fp_notifier *n, u64 seq);
int fp_range_fault(struct fp_world *w, struct mm_struct *mm, struct fp_notifier *n, u64 seq,
		   u64 start, u64 end, const struct fp_want *want, u64 *pages);
int fp_mirror_map(struct fp_world *w, u64 pfn, u32 order, bool write, u64 *addr);
void fp_mirror_unmap(struct fp_world *w, u64 addr, u32 order);
int fp_make_exclusive(struct fp_world *w, struct mm_struct *mm, u64 addr, u64 owner, u64 *page,
		      struct folio **out);
int fp_make_range_exclusive(struct fp_world *w, struct mm_struct *mm, u64 start, u64 end, u64 owner,
			    int (*each)(void *ctx, u64 addr, u64 page), void *ctx);
void fp_exclusive_end(struct folio *folio);
int fp_migrate_setup(struct fp_world *w, struct mm_struct *mm, u64 start, u64 end, u64 owner,
		     u32 select, struct fp_migration **out);
int fp_migrate_setup_fault(struct fp_world *w, struct vm_fault *vmf, u64 start, u64 end,
			   u64 owner, struct fp_migration **out);
int fp_migrate_setup_frames(struct fp_world *w, u64 frame, u64 count, struct fp_migration **out);
void fp_migrate_span(struct fp_migration *m, u64 *start, u64 *count);
void fp_migrate_source(struct fp_migration *m, u64 i, struct fp_source *out);
int fp_migrate_to_device(struct fp_migration *m, u64 i, u64 frame, u32 order);
int fp_migrate_to_system(struct fp_migration *m, u64 i, u32 order);
void fp_migrate_copy(struct fp_migration *m, u64 i);
void fp_migrate_keep(struct fp_migration *m, u64 i);
void fp_migrate_commit(struct fp_migration *m);
bool fp_migrate_moved(struct fp_migration *m, u64 i);
void fp_migrate_end(struct fp_migration *m);
bool fp_has_freed_frames(struct fp_world *w);
bool fp_frames_freed(struct fp_world *w, u64 *cursor, u64 *first, u64 *count);

/* character devices that answer as test_hmm */
struct fp_dmirror;
int fp_dmirror_register(u32 number, void *ctx, struct fp_dmirror **out);
void fp_dmirror_unregister(struct fp_dmirror *node);

/* kernel address of the page at a GPU address, or NULL; valid until fp_access_end() */
void fp_access_begin(void);
void fp_access_end(void);
void *fp_vram_page(struct fp_world *w, u64 addr);
void *fp_system_page(struct fp_world *w, u64 addr);

/* waiting */
int fp_wait(struct fp_world *w, bool interruptible, u64 deadline_ns, bool (*ready)(void *ctx),
	    void *ctx);
void fp_wake(struct fp_world *w);
struct fp_thread *fp_thread_run(struct fp_world *w, u32 worker, void *ctx);
void fp_thread_stop(struct fp_thread *t);
bool fp_thread_should_stop(void);
void fp_thread_breathe(void);
void fp_thread_wait(struct fp_world *w, u64 until_ns, bool (*ready)(void *ctx), void *ctx);

/* fences; errors are positive errnos */
struct dma_fence *fp_fence_create(void);
struct dma_fence *fp_fence_stub(void);
void fp_fence_put(struct dma_fence *fence);
bool fp_fence_is_signalled(struct dma_fence *fence);
int fp_fence_error(struct dma_fence *fence);
bool fp_fence_signal(struct dma_fence *fence, int error);
bool fp_fence_path_begin(void);
void fp_fence_path_end(bool cookie);
struct fp_watch *fp_fence_watch(struct fp_world *w, struct dma_fence *fence);
void fp_fence_unwatch(struct fp_watch *watch);

/* syncobjs */
struct drm_syncobj *fp_syncobj_find(struct drm_file *file, u32 handle);
void fp_syncobj_put(struct drm_syncobj *syncobj);
int fp_syncobj_fence(struct drm_syncobj *syncobj, u64 point, struct dma_fence **out);
void fp_syncobj_replace(struct drm_syncobj *syncobj, struct dma_fence *fence);
struct dma_fence_chain *fp_chain_alloc(void);
void fp_chain_free(struct dma_fence_chain *chain);
void fp_syncobj_add_point(struct drm_syncobj *syncobj, struct dma_fence_chain *chain,
			  struct dma_fence *fence, u64 point);

/* objects with handles; `gem` is Rust's reference to one */
struct fp_new_gem {
	struct fp_world *world;
	u64 mem;
	u64 id;
	bool private;
};

int fp_gem_create_handle(struct drm_file *file, const struct fp_new_gem *new, void *gem,
			 u32 *handle);
struct drm_gem_object *fp_gem_find(struct drm_file *file, u32 handle, void **gem);
void fp_gem_put(struct drm_gem_object *obj);
u32 fp_gem_handle_of(struct drm_file *file, u64 id);
int fp_gem_mmap_offset(struct drm_file *file, u32 handle, u64 *offset);

/* debugfs */
struct fp_va {
	u64 addr;
	u64 range;
	u64 object;
	u64 offset;
	u32 flags;
	u32 ptes[3];	/* of 4 KiB, 64 KiB, 2 MiB */
};

void fp_show_vm(struct seq_file *m, u32 vm, u64 start, u64 end);
void fp_show_va(struct seq_file *m, const struct fp_va *va);

/* DRM: the driver's operations replaced where Rust's abstraction cannot set them */
int fp_drm_patch(struct drm_device *drm);

/* implemented in Rust */
void fp_rust_opened(struct drm_file *file);
long fp_rust_ioctl(struct drm_file *file, unsigned int cmd, unsigned long arg);
void fp_rust_count(struct drm_file *file, unsigned int cmd, bool done);
struct fp_world *fp_rust_world(struct drm_device *drm);
int fp_rust_import(struct drm_device *drm, u64 mem, u64 size, void **gem, u64 *id);
void fp_rust_gem_free(void *gem);
int fp_rust_show_vas(struct drm_file *file, struct seq_file *m);
void fp_rust_worker(void *ctx, u32 worker);
bool fp_rust_invalidate(void *driver, u64 cookie, const struct fp_invalidation *inv);
int fp_rust_dmirror_open(void *ctx, void **out);
void fp_rust_dmirror_release(void *open);
long fp_rust_dmirror_ioctl(void *open, unsigned int cmd, unsigned long arg);
int fp_rust_cpu_fault(void *driver, struct vm_fault *vmf, u64 addr, u64 frame);
#endif
