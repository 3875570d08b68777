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
struct fp_world *fp_world_create(u64 vram_frames);
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
#endif
