/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * The C side of the kernel host: what has no Rust abstraction in Linux 7.2. Rust calls the fp_*
 * functions and is called back through the fp_rust_* ones. Return values are 0 or -errno.
 */
#ifndef FENCEPOST_SHIM_H
#define FENCEPOST_SHIM_H
#include <linux/types.h>

struct drm_device;
struct drm_file;
struct file;
struct fp_thread;
struct fp_world;

/* a device's world: memory, frames, DMA addresses, waiters */
struct fp_world *fp_world_create(u64 vram_frames);
void fp_world_destroy(struct fp_world *w);
void fp_world_set_drm(struct fp_world *w, struct drm_device *drm);

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
void fp_thread_wait(struct fp_world *w, u64 until_ns, bool (*ready)(void *ctx), void *ctx);

/* file descriptors */
int fp_install_fd(struct fp_world *w, u32 kind, u64 id, bool cloexec);
int fp_lookup_fd(struct fp_world *w, int fd, u32 *kind, u64 *id);
void fp_sync_file_signal(struct fp_world *w, u64 id, int error);

/* DRM: the driver's operations replaced where Rust's abstraction cannot set them */
int fp_drm_patch(struct drm_device *drm);

/* implemented in Rust */
long fp_rust_ioctl(struct drm_file *file, unsigned int cmd, unsigned long arg, bool *ours);
int fp_rust_mmap(struct drm_file *file, u64 offset, u64 len, void **mapping, u64 *start,
		 void **world);
void fp_rust_unmap(void *mapping);
void fp_rust_release_fd(struct drm_device *drm, u32 kind, u64 id);
void fp_rust_worker(void *ctx, u32 worker);
#endif
