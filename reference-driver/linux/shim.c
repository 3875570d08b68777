// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * The C side of the kernel host, see shim.h. It knows nothing of the driver: it owns pages, frames,
 * DMA addresses, waiting, threads and file descriptors, as the driver's host trait asks for them.
 *
 * Lifetime of pages: GPU accesses run under RCU, so a page that leaves the frame table or the DMA
 * table is freed only after a grace period; a stale translation finds nothing or another page.
 */
#include <linux/compat.h>
#include <linux/dma-buf.h>
#include <linux/dma-fence.h>
#include <linux/dma-fence-chain.h>
#include <linux/dma-mapping.h>
#include <linux/iosys-map.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/mmu_context.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include <drm/drm_debugfs.h>
#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_gem.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_prime.h>
#include <drm/drm_print.h>
#include <drm/drm_syncobj.h>
#include "shim_world.h"

/* offsets and DMA addresses start above what a driver could confuse with a size or a handle */
#define FP_FIRST_OFFSET	(1ull << 32)
#define FP_GAP		SZ_2M

/*
 * Pages of objects: charged to the caller's memory cgroup, and ENOMEM rather than the OOM killer when
 * there are no more, since a size is the caller's wish.
 */
#define FP_GFP_PAGES	(GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN | __GFP_RETRY_MAYFAIL)

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

/* ---- the world ------------------------------------------------------------------------------- */

struct fp_world *fp_world_create(u64 vram_frames, u32 number, u64 owner)
{
	struct fp_world *w = kzalloc(sizeof(*w), GFP_KERNEL);

	if (!w)
		return NULL;
	w->frames = kvcalloc(max(vram_frames, 1), sizeof(*w->frames), GFP_KERNEL);
	w->reclaim = alloc_workqueue("fencepost-reclaim", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!w->frames || !w->reclaim) {
		if (w->reclaim)
			destroy_workqueue(w->reclaim);
		kvfree(w->frames);
		kfree(w);
		return NULL;
	}
	w->nframes = vram_frames;
	w->number = number;
	w->owner = owner;
	init_waitqueue_head(&w->wq);
	xa_init_flags(&w->bos, XA_FLAGS_ACCOUNT);
	xa_init_flags(&w->dma, XA_FLAGS_ACCOUNT);
	xa_init_flags(&w->mms, XA_FLAGS_ALLOC1 | XA_FLAGS_ACCOUNT);
	atomic64_set(&w->next_offset, FP_FIRST_OFFSET);
	atomic64_set(&w->next_dma, FP_FIRST_DMA);
	fp_mirror_init(w);
	if (fp_devmem_create(w)) {
		fp_world_destroy(w);
		return NULL;
	}
	return w;
}

/* From now on the driver is told of invalidations and CPU faults. */
void fp_world_attach(struct fp_world *w, void *driver)
{
	w->driver = driver;
}

/* No file is open: nobody will tell the driver anything when this returns. */
void fp_world_detach(struct fp_world *w)
{
	fp_devmem_destroy(w);
	w->driver = NULL;
}

void fp_world_destroy(struct fp_world *w)
{
	struct mm_struct *mm;
	unsigned long index;

	WARN_ON(!xa_empty(&w->bos));
	WARN_ON(!xa_empty(&w->dma));
	xa_for_each(&w->mms, index, mm)
		mmdrop(mm);
	xa_destroy(&w->mms);
	xa_destroy(&w->bos);
	xa_destroy(&w->dma);
	fp_devmem_destroy(w);
	fp_mirror_fini(w);
	/* destroyed objects may still wait for their grace period */
	rcu_barrier();
	destroy_workqueue(w->reclaim);
	kvfree(w->frames);
	kfree(w);
}

/* ---- time and user memory -------------------------------------------------------------------- */

u64 fp_now_ns(void)
{
	return ktime_get_ns();
}

/*
 * The number of the caller's address space. Only the mm_struct itself is held (mmgrab), so a
 * process that exits frees its memory; copies to it then fail. Dead ones are dropped here.
 */
int fp_task_current(struct fp_world *w, u64 *task)
{
	struct mm_struct *mm = current->mm, *other;
	unsigned long index;
	u32 id;
	int ret;

	if (!mm)
		return -EFAULT;
	xa_lock(&w->mms);
	xa_for_each(&w->mms, index, other) {
		if (other == mm) {
			xa_unlock(&w->mms);
			*task = index;
			return 0;
		}
		if (!atomic_read(&other->mm_users)) {
			__xa_erase(&w->mms, index);
			mmdrop(other);
		}
	}
	ret = __xa_alloc_cyclic(&w->mms, &id, mm, xa_limit_32b, &w->next_mm, GFP_KERNEL);
	if (ret >= 0) {
		mmgrab(mm);
		*task = id;
	}
	xa_unlock(&w->mms);
	return ret < 0 ? ret : 0;
}

/* Enters the address space of a task; *mm is NULL when it is the caller's own. */
static int fp_enter(struct fp_world *w, u64 task, struct mm_struct **mm)
{
	struct mm_struct *found;
	int ret = 0;

	*mm = NULL;
	xa_lock(&w->mms);
	found = xa_load(&w->mms, task);
	if (!found)
		ret = -EFAULT;
	else if (found != current->mm) {
		if (!(current->flags & PF_KTHREAD) || !mmget_not_zero(found))
			ret = -EFAULT;
		else
			*mm = found;
	}
	xa_unlock(&w->mms);
	if (*mm)
		kthread_use_mm(*mm);
	return ret;
}

static void fp_leave(struct mm_struct *mm)
{
	if (!mm)
		return;
	kthread_unuse_mm(mm);
	mmput_async(mm);
}

int fp_copy_from_user(struct fp_world *w, u64 task, void *to, u64 addr, size_t len)
{
	struct mm_struct *mm;
	int ret = fp_enter(w, task, &mm);

	if (ret)
		return ret;
	if (copy_from_user(to, u64_to_user_ptr(addr), len))
		ret = -EFAULT;
	fp_leave(mm);
	return ret;
}

int fp_copy_to_user(struct fp_world *w, u64 task, u64 addr, const void *from, size_t len)
{
	struct mm_struct *mm;
	int ret = fp_enter(w, task, &mm);

	if (ret)
		return ret;
	if (copy_to_user(u64_to_user_ptr(addr), from, len))
		ret = -EFAULT;
	fp_leave(mm);
	return ret;
}

/* ---- memory of buffer objects ---------------------------------------------------------------- */

/* Takes a sleeping context: it gives an attachment back. */
static void fp_bo_free(struct fp_bo *bo)
{
	struct dma_buf *dmabuf;
	u64 i;

	for (i = 0; i < bo->nown && bo->pages[i]; i++) {
		put_page(bo->pages[i]);
		cond_resched();
	}
	if (bo->attach) {
		dmabuf = bo->attach->dmabuf;
		dma_buf_vunmap_unlocked(dmabuf, &bo->map);
		dma_buf_unmap_attachment_unlocked(bo->attach, bo->sgt, DMA_BIDIRECTIONAL);
		dma_buf_detach(dmabuf, bo->attach);
		dma_buf_put(dmabuf);
	}
	kvfree(bo);
}

static void fp_bo_free_work(struct work_struct *work)
{
	fp_bo_free(container_of(to_rcu_work(work), struct fp_bo, free));
}

static void fp_bo_release(struct kref *ref)
{
	struct fp_bo *bo = container_of(ref, struct fp_bo, ref);

	INIT_RCU_WORK(&bo->free, fp_bo_free_work);
	queue_rcu_work(bo->reclaim, &bo->free);
}

static struct fp_bo *fp_bo_find(struct fp_world *w, u64 offset)
{
	return xa_load(&w->bos, offset >> PAGE_SHIFT);
}

static void *fp_bo_page(struct fp_bo *bo, u64 page)
{
	return bo->nown ? page_address(bo->pages[page]) : bo->map.vaddr + (page << PAGE_SHIFT);
}

static struct fp_bo *fp_bo_alloc(struct fp_world *w, u64 npages, u64 nown)
{
	struct fp_bo *bo = kvzalloc(struct_size(bo, pages, nown), GFP_KERNEL_ACCOUNT);

	if (!bo)
		return NULL;
	bo->npages = npages;
	bo->nown = nown;
	bo->reclaim = w->reclaim;
	kref_init(&bo->ref);
	return bo;
}

/* Gives an object its number, by which it can be found from then on. */
static int fp_bo_publish(struct fp_world *w, struct fp_bo *bo)
{
	bo->offset = atomic64_fetch_add(ALIGN(bo->npages << PAGE_SHIFT, SZ_2M) + FP_GAP,
					&w->next_offset);
	return xa_err(xa_store(&w->bos, bo->offset >> PAGE_SHIFT, bo, GFP_KERNEL));
}

int fp_bo_create(struct fp_world *w, u64 size, u64 *offset)
{
	u64 npages = size >> PAGE_SHIFT, i;
	struct fp_bo *bo;
	int ret = -ENOMEM;

	bo = fp_bo_alloc(w, npages, npages);
	if (!bo)
		return -ENOMEM;
	for (i = 0; i < npages; i++) {
		bo->pages[i] = alloc_page(FP_GFP_PAGES);
		if (!bo->pages[i])
			goto fail;
		if (fatal_signal_pending(current))
			goto fail;
		cond_resched();
	}
	ret = fp_bo_publish(w, bo);
	if (ret)
		goto fail;
	*offset = bo->offset;
	return 0;
fail:
	fp_bo_free(bo);
	return ret;
}

void fp_bo_destroy(struct fp_world *w, u64 offset)
{
	struct fp_bo *bo = xa_erase(&w->bos, offset >> PAGE_SHIFT);

	if (!WARN_ON(!bo))
		kref_put(&bo->ref, fp_bo_release);
}

int fp_vram_bind(struct fp_world *w, u64 frame, u64 offset, u64 page, u64 count)
{
	struct fp_bo *bo = fp_bo_find(w, offset);
	u64 i;

	if (WARN_ON(!bo || page + count > bo->npages || frame + count > w->nframes))
		return -EIO;
	for (i = 0; i < count; i++)
		smp_store_release(&w->frames[frame + i], fp_bo_page(bo, page + i));
	return 0;
}

void fp_vram_unbind(struct fp_world *w, u64 frame, u64 count)
{
	u64 i;

	if (WARN_ON(frame + count > w->nframes))
		return;
	for (i = 0; i < count; i++)
		WRITE_ONCE(w->frames[frame + i], NULL);
}

int fp_dma_map(struct fp_world *w, u64 offset, u64 page, u64 count, u64 *addr)
{
	struct fp_bo *bo = fp_bo_find(w, offset);
	u64 first, i;
	int ret;

	if (WARN_ON(!bo || page + count > bo->npages))
		return -EIO;
	/* addresses are not used again; 2 MiB alignment suits every page size */
	first = atomic64_fetch_add(ALIGN(count << PAGE_SHIFT, SZ_2M), &w->next_dma);
	if (first + (count << PAGE_SHIFT) > FP_MIRROR_DMA)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		ret = xa_err(xa_store(&w->dma, (first >> PAGE_SHIFT) + i, fp_bo_page(bo, page + i),
				      GFP_KERNEL));
		if (ret) {
			fp_dma_unmap(w, first, i);
			return ret;
		}
	}
	*addr = first;
	return 0;
}

void fp_dma_unmap(struct fp_world *w, u64 addr, u64 count)
{
	u64 i;

	/* storing NULL over an entry allocates nothing */
	for (i = 0; i < count; i++) {
		xa_erase(&w->dma, (addr >> PAGE_SHIFT) + i);
		cond_resched();
	}
}

void fp_access_begin(void)
{
	rcu_read_lock();
}

void fp_access_end(void)
{
	rcu_read_unlock();
}

void *fp_vram_page(struct fp_world *w, u64 addr)
{
	u64 frame = addr >> PAGE_SHIFT;

	return frame < w->nframes ? smp_load_acquire(&w->frames[frame]) : NULL;
}

void *fp_system_page(struct fp_world *w, u64 addr)
{
	if (addr >= FP_MIRROR_DMA)
		return fp_mirrored_page(w, addr);
	return xa_load(&w->dma, addr >> PAGE_SHIFT);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static long fp_timeout(u64 deadline_ns)
{
	u64 now = ktime_get_ns();

	if (deadline_ns == U64_MAX)
		return MAX_SCHEDULE_TIMEOUT;
	if (deadline_ns <= now)
		return 0;
	return min_t(u64, nsecs_to_jiffies64(deadline_ns - now) + 1, MAX_SCHEDULE_TIMEOUT - 1);
}

/*
 * 1 when ready, 0 when the deadline came first, -ERESTARTSYS upon a signal, of which SIGKILL always
 * counts: nobody is left to see that a call which cannot be undone was not waited for. A task that
 * already exits goes on waiting: closing its files is work to be finished. The condition may sleep
 * (it takes the driver's locks and copies user memory), hence wait_woken().
 */
int fp_wait(struct fp_world *w, bool interruptible, u64 deadline_ns, bool (*ready)(void *ctx),
	    void *ctx)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	unsigned int mode = interruptible ? TASK_INTERRUPTIBLE : TASK_KILLABLE;
	long timeout;
	int ret;

	if (current->flags & PF_EXITING)
		mode = TASK_UNINTERRUPTIBLE;
	add_wait_queue(&w->wq, &wait);
	for (;;) {
		timeout = fp_timeout(deadline_ns);
		if (ready(ctx)) {
			ret = 1;
			break;
		}
		if (!timeout) {
			ret = 0;
			break;
		}
		if (signal_pending_state(mode, current)) {
			ret = -ERESTARTSYS;
			break;
		}
		wait_woken(&wait, mode, timeout);
	}
	remove_wait_queue(&w->wq, &wait);
	return ret;
}

/* Callable with locks held and from the fence path. */
void fp_wake(struct fp_world *w)
{
	wake_up_all(&w->wq);
}

struct fp_thread {
	struct task_struct *task;
	void *ctx;
	u32 worker;
};

static int fp_thread_main(void *data)
{
	struct fp_thread *t = data;

	fp_rust_worker(t->ctx, t->worker);
	/* kthread_stop() must find the task */
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
	return 0;
}

struct fp_thread *fp_thread_run(struct fp_world *w, u32 worker, void *ctx)
{
	static const char * const names[] = { "bind", "clean", "ufence", "fault" };
	struct fp_thread *t = kzalloc(sizeof(*t), GFP_KERNEL);
	struct task_struct *task;

	if (!t)
		return NULL;
	t->ctx = ctx;
	t->worker = worker;
	if (worker < ARRAY_SIZE(names))
		task = kthread_run(fp_thread_main, t, "fencepost-%s", names[worker]);
	else
		task = kthread_run(fp_thread_main, t, "fencepost-eng%u",
				   worker - (u32)ARRAY_SIZE(names));
	if (IS_ERR(task)) {
		kfree(t);
		return NULL;
	}
	t->task = task;
	return t;
}

void fp_thread_stop(struct fp_thread *t)
{
	kthread_stop(t->task);
	kfree(t);
}

/* A thread with work without end must pass a point of rest, for RCU tasks and without preemption. */
void fp_thread_breathe(void)
{
	cond_resched_tasks_rcu_qs();
}

bool fp_thread_should_stop(void)
{
	return kthread_should_stop();
}

void fp_thread_wait(struct fp_world *w, u64 until_ns, bool (*ready)(void *ctx), void *ctx)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	long timeout;

	add_wait_queue(&w->wq, &wait);
	timeout = fp_timeout(until_ns);
	if (timeout && !kthread_should_stop() && !ready(ctx))
		wait_woken(&wait, TASK_IDLE, timeout);
	remove_wait_queue(&w->wq, &wait);
}

/* ---- fences ---------------------------------------------------------------------------------- */

static const char *fp_fence_name(struct dma_fence *fence)
{
	return "fencepost";
}

/* No release and no wait: a signalled fence may outlive this module. */
static const struct dma_fence_ops fp_fence_ops = {
	.get_driver_name = fp_fence_name,
	.get_timeline_name = fp_fence_name,
};

/* Each has a context of its own: jobs of a queue signal in order, binds that are unwound do not. */
struct dma_fence *fp_fence_create(void)
{
	struct dma_fence *fence = kzalloc(sizeof(*fence), GFP_KERNEL_ACCOUNT);

	if (fence)
		dma_fence_init64(fence, &fp_fence_ops, NULL, dma_fence_context_alloc(1), 1);
	return fence;
}

struct dma_fence *fp_fence_stub(void)
{
	return dma_fence_get_stub();
}

void fp_fence_put(struct dma_fence *fence)
{
	dma_fence_put(fence);
}

bool fp_fence_is_signalled(struct dma_fence *fence)
{
	return dma_fence_is_signaled(fence);
}

/* 0 or a positive errno */
int fp_fence_error(struct dma_fence *fence)
{
	return max(-dma_fence_get_status(fence), 0);
}

/* True for the call that signalled it. */
bool fp_fence_signal(struct dma_fence *fence, int error)
{
	bool cookie = dma_fence_begin_signalling();
	unsigned long flags;
	bool first;

	dma_fence_lock_irqsave(fence, flags);
	first = !dma_fence_test_signaled_flag(fence);
	if (first) {
		if (error)
			dma_fence_set_error(fence, -error);
		dma_fence_signal_locked(fence);
	}
	dma_fence_unlock_irqrestore(fence, flags);
	dma_fence_end_signalling(cookie);
	return first;
}

bool fp_fence_path_begin(void)
{
	bool cookie = dma_fence_begin_signalling();

	fp_planted(FP_IN_FENCE_PATH);
	return cookie;
}

void fp_fence_path_end(bool cookie)
{
	dma_fence_end_signalling(cookie);
}

struct fp_watch {
	struct dma_fence_cb cb;
	struct dma_fence *fence;
	struct fp_world *world;
	bool armed;
};

static void fp_watch_fired(struct dma_fence *fence, struct dma_fence_cb *cb)
{
	fp_wake(container_of(cb, struct fp_watch, cb)->world);
}

/* Wakes the world's waiters when the fence signals, until fp_fence_unwatch(). */
struct fp_watch *fp_fence_watch(struct fp_world *w, struct dma_fence *fence)
{
	struct fp_watch *watch = kzalloc(sizeof(*watch), GFP_KERNEL_ACCOUNT);

	if (!watch)
		return NULL;
	watch->fence = fence;
	watch->world = w;
	watch->armed = !dma_fence_add_callback(fence, &watch->cb, fp_watch_fired);
	return watch;
}

void fp_fence_unwatch(struct fp_watch *watch)
{
	/* takes the fence's lock, so a callback under way has ended after it */
	if (watch->armed)
		dma_fence_remove_callback(watch->fence, &watch->cb);
	kfree(watch);
}

/* ---- syncobjs -------------------------------------------------------------------------------- */

struct drm_syncobj *fp_syncobj_find(struct drm_file *file, u32 handle)
{
	return drm_syncobj_find(file, handle);
}

void fp_syncobj_put(struct drm_syncobj *syncobj)
{
	drm_syncobj_put(syncobj);
}

/* drm_syncobj_find_fence() for a syncobj that is known already */
int fp_syncobj_fence(struct drm_syncobj *syncobj, u64 point, struct dma_fence **out)
{
	struct dma_fence *fence = drm_syncobj_fence_get(syncobj);
	int ret;

	if (!fence)
		return -EINVAL;
	ret = dma_fence_chain_find_seqno(&fence, point);
	if (ret) {
		dma_fence_put(fence);
		return ret;
	}
	/* a point that has signalled and gone is found as nothing */
	*out = fence ? fence : dma_fence_get_stub();
	return 0;
}

void fp_syncobj_replace(struct drm_syncobj *syncobj, struct dma_fence *fence)
{
	drm_syncobj_replace_fence(syncobj, fence);
}

struct dma_fence_chain *fp_chain_alloc(void)
{
	return dma_fence_chain_alloc();
}

void fp_chain_free(struct dma_fence_chain *chain)
{
	dma_fence_chain_free(chain);
}

void fp_syncobj_add_point(struct drm_syncobj *syncobj, struct dma_fence_chain *chain,
			  struct dma_fence *fence, u64 point)
{
	drm_syncobj_add_point(syncobj, chain, fence, point);
}

/* ---- objects with handles -------------------------------------------------------------------- */

/*
 * What DRM knows of an object: it exists from the first handle to the last use by handles, CPU
 * mappings and dma-bufs. The driver's object may live longer, as long as a VM maps it.
 */
struct fp_gem {
	struct drm_gem_object base;
	struct fp_bo *bo;
	u64 id;
	bool private;
	void *gem;	/* Rust's; keeps the driver's object alive */
};

static struct fp_gem *to_fp_gem(struct drm_gem_object *obj)
{
	return container_of(obj, struct fp_gem, base);
}

static void fp_gem_free(struct drm_gem_object *obj)
{
	struct fp_gem *g = to_fp_gem(obj);

	drm_gem_object_release(obj);
	fp_rust_gem_free(g->gem);
	kref_put(&g->bo->ref, fp_bo_release);
	kfree(g);
}

static struct dma_buf *fp_gem_export(struct drm_gem_object *obj, int flags)
{
	/* an object that lives and locks with its VM can be nobody else's */
	return to_fp_gem(obj)->private ? ERR_PTR(-EINVAL) : drm_gem_prime_export(obj, flags);
}

static struct sg_table *fp_gem_sg_table(struct drm_gem_object *obj)
{
	struct fp_bo *bo = to_fp_gem(obj)->bo;

	return drm_prime_pages_to_sg(obj->dev, bo->pages, bo->nown);
}

static int fp_gem_vmap(struct drm_gem_object *obj, struct iosys_map *map)
{
	struct fp_bo *bo = to_fp_gem(obj)->bo;
	void *vaddr = vmap(bo->pages, bo->nown, VM_MAP, PAGE_KERNEL);

	if (!vaddr)
		return -ENOMEM;
	iosys_map_set_vaddr(map, vaddr);
	return 0;
}

static void fp_gem_vunmap(struct drm_gem_object *obj, struct iosys_map *map)
{
	vunmap(map->vaddr);
}

static int fp_gem_mmap(struct drm_gem_object *obj, struct vm_area_struct *vma)
{
	int ret;

	if (drm_gem_is_imported(obj)) {
		/* the mapping becomes the exporter's, who need not set what DRM has set */
		vma->vm_private_data = NULL;
		vma->vm_ops = NULL;
		ret = dma_buf_mmap(obj->import_attach->dmabuf, vma, 0);
		if (!ret)
			drm_gem_object_put(obj);
		return ret;
	}
	vma->vm_pgoff -= drm_vma_node_start(&obj->vma_node);
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	return 0;
}

static vm_fault_t fp_gem_fault(struct vm_fault *vmf)
{
	struct fp_bo *bo = to_fp_gem(vmf->vma->vm_private_data)->bo;

	if (vmf->pgoff >= bo->nown)
		return VM_FAULT_SIGBUS;
	vmf->page = bo->pages[vmf->pgoff];
	get_page(vmf->page);
	return 0;
}

static enum drm_gem_object_status fp_gem_status(struct drm_gem_object *obj)
{
	return DRM_GEM_OBJECT_RESIDENT;
}

static const struct vm_operations_struct fp_gem_vm_ops = {
	.open = drm_gem_vm_open,
	.close = drm_gem_vm_close,
	.fault = fp_gem_fault,
};

static const struct drm_gem_object_funcs fp_gem_funcs = {
	.free = fp_gem_free,
	.export = fp_gem_export,
	.get_sg_table = fp_gem_sg_table,
	.vmap = fp_gem_vmap,
	.vunmap = fp_gem_vunmap,
	.mmap = fp_gem_mmap,
	.status = fp_gem_status,
	.vm_ops = &fp_gem_vm_ops,
};

/* Takes `gem` over in any case; the object comes with one reference. */
static struct fp_gem *fp_gem_new(struct drm_device *drm, const struct fp_new_gem *new, void *gem)
{
	struct fp_bo *bo = fp_bo_find(new->world, new->mem);
	struct fp_gem *g = kzalloc(sizeof(*g), GFP_KERNEL_ACCOUNT);

	if (WARN_ON(!bo) || !g) {
		kfree(g);
		fp_rust_gem_free(gem);
		return NULL;
	}
	kref_get(&bo->ref);
	g->bo = bo;
	g->id = new->id;
	g->private = new->private;
	g->gem = gem;
	g->base.funcs = &fp_gem_funcs;
	drm_gem_private_object_init(drm, &g->base, bo->npages << PAGE_SHIFT);
	return g;
}

int fp_gem_create_handle(struct drm_file *file, const struct fp_new_gem *new, void *gem,
			 u32 *handle)
{
	struct fp_gem *g = fp_gem_new(file->minor->dev, new, gem);
	int ret;

	if (!g)
		return -ENOMEM;
	ret = drm_gem_handle_create(file, &g->base, handle);
	drm_gem_object_put(&g->base);
	return ret;
}

/* The object keeps `*gem` alive until fp_gem_put(). */
struct drm_gem_object *fp_gem_find(struct drm_file *file, u32 handle, void **gem)
{
	struct drm_gem_object *obj = drm_gem_object_lookup(file, handle);

	if (obj)
		*gem = to_fp_gem(obj)->gem;
	return obj;
}

void fp_gem_put(struct drm_gem_object *obj)
{
	drm_gem_object_put(obj);
}

u32 fp_gem_handle_of(struct drm_file *file, u64 id)
{
	struct drm_gem_object *obj;
	int handle;

	spin_lock(&file->table_lock);
	idr_for_each_entry(&file->object_idr, obj, handle) {
		if (obj && to_fp_gem(obj)->id == id)
			break;
	}
	spin_unlock(&file->table_lock);
	return obj ? handle : 0;
}

int fp_gem_mmap_offset(struct drm_file *file, u32 handle, u64 *offset)
{
	struct drm_gem_object *obj = drm_gem_object_lookup(file, handle);
	int ret;

	if (!obj)
		return -ENOENT;
	ret = drm_gem_create_mmap_offset(obj);
	*offset = drm_vma_node_offset_addr(&obj->vma_node);
	drm_gem_object_put(obj);
	return ret;
}

/* An object of another driver: reached through the mapping that its driver gives the kernel. */
static struct drm_gem_object *fp_gem_import(struct drm_device *drm,
					    struct dma_buf_attachment *attach,
					    struct sg_table *sgt)
{
	struct fp_new_gem new = { .world = fp_rust_world(drm) };
	u64 size = attach->dmabuf->size;
	struct fp_bo *bo = fp_bo_alloc(new.world, size >> PAGE_SHIFT, 0);
	struct fp_gem *g;
	void *gem;
	int ret;

	if (!bo)
		return ERR_PTR(-ENOMEM);
	ret = PAGE_ALIGNED(size) ? dma_buf_vmap_unlocked(attach->dmabuf, &bo->map) : -EINVAL;
	if (ret)
		goto free;
	/* the memory of a bus cannot be used word by word as this driver's engines do */
	ret = bo->map.is_iomem ? -EOPNOTSUPP : fp_bo_publish(new.world, bo);
	if (ret)
		goto unmap;
	new.mem = bo->offset;
	kref_get(&bo->ref);
	/* owns the number from here on */
	ret = fp_rust_import(drm, new.mem, size, &gem, &new.id);
	if (ret)
		goto put;
	g = fp_gem_new(drm, &new, gem);
	if (!g) {
		ret = -ENOMEM;
		goto put;
	}
	bo->attach = attach;
	bo->sgt = sgt;
	kref_put(&bo->ref, fp_bo_release);
	return &g->base;
put:
	/* the caller gives the attachment back: the last use of the mapping must be before */
	synchronize_rcu();
	dma_buf_vunmap_unlocked(attach->dmabuf, &bo->map);
	kref_put(&bo->ref, fp_bo_release);
	return ERR_PTR(ret);
unmap:
	dma_buf_vunmap_unlocked(attach->dmabuf, &bo->map);
free:
	kvfree(bo);
	return ERR_PTR(ret);
}

/* ---- DRM ------------------------------------------------------------------------------------- */

static long fp_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	struct drm_file *file = filp->private_data;
	unsigned int nr = DRM_IOCTL_NR(cmd);
	long ret;

	if (drm_dev_is_unplugged(file->minor->dev))
		return -ENODEV;
	fp_planted(FP_IN_CALL);
	if (_IOC_TYPE(cmd) == DRM_IOCTL_BASE && nr >= DRM_COMMAND_BASE && nr < DRM_COMMAND_END)
		return fp_rust_ioctl(file, cmd, arg);
	ret = drm_ioctl(filp, cmd, arg);
	fp_rust_count(file, cmd, !ret);
	return ret;
}

#ifdef CONFIG_COMPAT
/* The driver's records have no pointers of a size: only the DRM core's need to be converted. */
static long fp_compat_ioctl(struct file *filp, unsigned int cmd, unsigned long arg)
{
	unsigned int nr = DRM_IOCTL_NR(cmd);

	if (_IOC_TYPE(cmd) == DRM_IOCTL_BASE && nr >= DRM_COMMAND_BASE && nr < DRM_COMMAND_END)
		return fp_ioctl(filp, cmd, (unsigned long)compat_ptr(arg));
	return drm_compat_ioctl(filp, cmd, arg);
}
#else
#define fp_compat_ioctl NULL
#endif

static int (*fp_rust_open)(struct drm_device *drm, struct drm_file *file);

static int fp_open(struct drm_device *drm, struct drm_file *file)
{
	int ret = fp_rust_open(drm, file);

	if (!ret)
		fp_rust_opened(file);
	return ret;
}

static void fp_show_fdinfo(struct drm_printer *p, struct drm_file *file)
{
	drm_show_memory_stats(p, file);
}

static int fp_show_vas(struct seq_file *m, void *unused)
{
	struct drm_debugfs_entry *entry = m->private;
	struct drm_device *drm = entry->dev;
	struct drm_file *file;
	int ret = mutex_lock_interruptible(&drm->filelist_mutex);

	if (ret)
		return ret;
	list_for_each_entry(file, &drm->filelist, lhead) {
		struct pid *pid;

		rcu_read_lock();
		pid = rcu_dereference(file->pid);
		seq_printf(m, "client %llu pid %d\n", file->client_id, pid_nr(pid));
		rcu_read_unlock();
		ret = fp_rust_show_vas(file, m);
		if (ret)
			break;
	}
	mutex_unlock(&drm->filelist_mutex);
	return ret;
}

void fp_show_vm(struct seq_file *m, u32 vm, u64 start, u64 end)
{
	seq_printf(m, "  vm %u [0x%012llx, 0x%012llx)\n", vm, start, end);
}

void fp_show_va(struct seq_file *m, const struct fp_va *va)
{
	seq_printf(m, "    [0x%012llx, 0x%012llx) flags 0x%x object %llu offset 0x%llx ptes %u/%u/%u\n",
		   va->addr, va->addr + va->range, va->flags, va->object, va->offset, va->ptes[0],
		   va->ptes[1], va->ptes[2]);
}

static const struct drm_debugfs_info fp_debugfs[] = {
	{ .name = "gpuvas", .show = fp_show_vas },
};

static struct drm_driver fp_driver;
static struct file_operations fp_fops;

/* Before registration: nobody else looks at the device. */
int fp_drm_patch(struct drm_device *drm)
{
	/* a faux device has no DMA mask */
	int ret = dma_coerce_mask_and_coherent(drm->dev, DMA_BIT_MASK(64));

	if (ret)
		return ret;
	/* the same for every device, and not to be touched once one is registered */
	if (!fp_driver.fops) {
		fp_fops = *drm->driver->fops;
		/* Rust leaves it NULL: rmmod under an open file would oops */
		fp_fops.owner = THIS_MODULE;
		fp_fops.unlocked_ioctl = fp_ioctl;
		fp_fops.compat_ioctl = fp_compat_ioctl;
		fp_fops.show_fdinfo = drm_show_fdinfo;
		fp_driver = *drm->driver;
		fp_driver.driver_features |= DRIVER_SYNCOBJ | DRIVER_SYNCOBJ_TIMELINE;
		fp_driver.gem_prime_import_sg_table = fp_gem_import;
		fp_driver.show_fdinfo = fp_show_fdinfo;
		fp_rust_open = fp_driver.open;
		fp_driver.open = fp_open;
		fp_driver.fops = &fp_fops;
	}
	drm->driver = &fp_driver;
	drm_debugfs_add_files(drm, fp_debugfs, ARRAY_SIZE(fp_debugfs));
	return 0;
}

MODULE_IMPORT_NS("DMA_BUF");
